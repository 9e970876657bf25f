//! Bringing a backup back: verify every page, create the collections, load the points.
//!
//! While a collection is being restored it has one point more, the [marker](super::MARKER_ID), that says of which backup it
//! is and how many pages are loaded. Whoever runs the same restore again, from anywhere, goes on behind them. The markers
//! go when everything is there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use vecino_client::{
    BatchReport, BulkLoader, BulkOptions, Client, CollectionSchema, ErrorCode, GetOptions, NodeState, Outcome, Payload,
    Point, PointId, Value, Vector, WriteOptions,
};

use super::error::{BackupError, BadPage};
use super::manifest::{BackupName, CollectionManifest, PageRef};
use super::target::{PageFault, Target, wrong_size};
use super::{MARKER_ID, STORE_REQUESTS_MAX};

/// What is restored.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// This backup; the newest where none is named.
    pub backup: Option<BackupName>,
    /// This collection; all where none is named.
    pub collection: Option<String>,
    /// Name of the restored collection, where it is to be another one.
    pub rename: Option<String>,
    /// How long to wait for a mesh that does not take points.
    pub patience: Duration,
}

/// A restore that was completed.
#[derive(Debug)]
pub struct Restored {
    /// The backup.
    pub backup: BackupName,
    /// Its collections, as they are now.
    pub collections: Vec<RestoredCollection>,
    /// Pages that were loaded in this run.
    pub pages_loaded: u64,
    /// Pages that an earlier run had loaded.
    pub pages_skipped: u64,
}

/// One collection that was restored.
#[derive(Debug)]
pub struct RestoredCollection {
    /// Its name now.
    pub name: String,
    /// Its name in the backup.
    pub original: String,
    /// How many points it has.
    pub points: u64,
    /// Replicas of each point now.
    pub replicas: u32,
    /// Replicas of each point in the backup; more than now where the mesh has too few nodes.
    pub original_replicas: u32,
}

/// One collection on its way.
struct Planned {
    /// Name that it is to have.
    name: String,
    schema: CollectionSchema,
    source: CollectionManifest,
    marker: Marker,
    exists: bool,
}

/// What the marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marker {
    /// Digest of the manifest.
    manifest: String,
    /// Name of the collection in the backup.
    collection: String,
    /// How many pages are loaded.
    pages: u64,
}

/// Pages that are loaded between two updates of the marker.
const GROUP_PAGES: usize = STORE_REQUESTS_MAX;

/// How long to rest before points that the mesh did not take are sent again.
const PAUSE: Duration = Duration::from_millis(250);

/// Restores; `progress` is told how many more points were loaded.
///
/// # Errors
/// Where a page is missing or damaged, or a collection exists, nothing was changed. Later failures leave collections with
/// their markers; the same request goes on with them.
pub async fn restore(
    client: &Client,
    target: &Target,
    request: RestoreRequest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Restored, BackupError> {
    let RestoreRequest { backup, collection, rename, patience } = request;
    let backup = match backup {
        Some(name) => name,
        None => {
            let newest = target.backups().await?.pop();
            newest.ok_or_else(|| BackupError::NoBackup { url: target.url().to_owned() })?
        }
    };
    let manifest = target.manifest(&backup).await?;
    let digest = manifest.digest().to_hex().to_string();
    let chosen = choose(&backup, manifest.collections, collection, rename)?;
    let nodes = client.status().await?.nodes.iter().filter(|node| node.state == NodeState::Up).count();
    let mut plan = Vec::new();
    for (name, source) in chosen {
        plan.push(planned(client, name, source, &digest, nodes as u32).await?);
    }
    verify(target, &backup, &plan).await?;
    let (mut pages_loaded, mut pages_skipped) = (0, 0);
    for planned in &mut plan {
        pages_skipped += planned.marker.pages;
        if !planned.exists {
            client.create_collection(&planned.name, planned.schema.clone()).await?;
            planned.put_marker(client).await?;
        }
        pages_loaded += planned.load(client, target, &backup, patience, progress).await?;
    }
    for planned in &plan {
        let deleted = client.delete(&planned.name, vec![MARKER_ID.into()], WriteOptions::default()).await?;
        acknowledged(&planned.name, deleted)?;
    }
    let restored = |planned: Planned| RestoredCollection {
        points: planned.source.points(),
        original: planned.source.name,
        name: planned.name,
        replicas: planned.schema.replication_factor,
        original_replicas: planned.source.schema.replication_factor,
    };
    let collections = plan.into_iter().map(restored).collect();
    Ok(Restored { backup, collections, pages_loaded, pages_skipped })
}

/// The collections that are wanted, each with the name that it is to have.
fn choose(
    backup: &BackupName,
    mut collections: Vec<CollectionManifest>,
    wanted: Option<String>,
    rename: Option<String>,
) -> Result<Vec<(String, CollectionManifest)>, BackupError> {
    if let Some(wanted) = wanted {
        if !collections.iter().any(|collection| collection.name == wanted) {
            return Err(BackupError::UnknownCollection {
                collection: wanted,
                place: format!("backup {backup}"),
                has: collections.into_iter().map(|collection| collection.name).collect(),
            });
        }
        collections.retain(|collection| collection.name == wanted);
    }
    match rename {
        Some(_) if collections.len() != 1 => {
            Err(BackupError::OneNameForMany { name: backup.clone(), count: collections.len() })
        }
        rename => {
            let name = |source: CollectionManifest| (rename.clone().unwrap_or_else(|| source.name.clone()), source);
            Ok(collections.into_iter().map(name).collect())
        }
    }
}

/// Looks whether a collection is to be created, or is one that an earlier run of this restore left unfinished.
async fn planned(
    client: &Client,
    name: String,
    source: CollectionManifest,
    digest: &str,
    nodes: u32,
) -> Result<Planned, BackupError> {
    let mut schema = source.schema.clone();
    schema.replication_factor = schema.replication_factor.min(nodes).max(1);
    let mut marker = Marker { manifest: digest.to_owned(), collection: source.name.clone(), pages: 0 };
    let info = match client.describe(&name).await {
        Ok(info) => info,
        Err(error) if error.code() == Some(ErrorCode::NotFound) => {
            return Ok(Planned { name, schema, source, marker, exists: false });
        }
        Err(error) => return Err(error.into()),
    };
    let options = GetOptions { with_vectors: false, ..GetOptions::default() };
    let found = client.get(&name, vec![MARKER_ID.into()], options).await?.pop().flatten();
    match found.and_then(|point| Marker::from_payload(&point.payload)) {
        Some(there) if there.manifest == marker.manifest && there.collection == marker.collection => {
            marker.pages = there.pages.min(source.pages.len() as u64);
            Ok(Planned { name, schema: info.schema, source, marker, exists: true })
        }
        _ => Err(BackupError::Exists { collection: name }),
    }
}

/// Reads every page that is still to be loaded. Nothing is written anywhere before all are found sound.
async fn verify(target: &Target, backup: &BackupName, plan: &[Planned]) -> Result<(), BackupError> {
    let there = target.pages().await?;
    let mut bad = Vec::new();
    let mut sound = Vec::new();
    for planned in plan {
        for page in planned.remaining() {
            let reason = match there.get(&page.name) {
                None => "is missing".to_owned(),
                Some(size) if *size != page.bytes => wrong_size(*size, page.bytes),
                Some(_) => {
                    sound.push((planned.source.name.clone(), *page));
                    continue;
                }
            };
            bad.push(BadPage { collection: planned.source.name.clone(), page: page.name, reason });
        }
    }
    let reads = stream::iter(sound).map(async |(collection, page)| match target.read_points(page).await {
        Ok(_) => Ok(None),
        Err(PageFault::Bad(reason)) => Ok(Some(BadPage { collection, page: page.name, reason })),
        Err(PageFault::Store(error)) => Err(error),
    });
    let damaged: Vec<Option<BadPage>> = reads.buffered(STORE_REQUESTS_MAX).try_collect().await?;
    bad.extend(damaged.into_iter().flatten());
    if bad.is_empty() { Ok(()) } else { Err(BackupError::DamagedPages { name: backup.clone(), pages: bad }) }
}

impl Planned {
    fn remaining(&self) -> &[PageRef] {
        self.source.pages.get(self.marker.pages as usize..).unwrap_or_default()
    }

    /// Loads what is not loaded; how many pages that were.
    async fn load(
        &mut self,
        client: &Client,
        target: &Target,
        backup: &BackupName,
        patience: Duration,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, BackupError> {
        let remaining = self.remaining().to_vec();
        let mut groups = remaining.chunks(GROUP_PAGES);
        let mut next = match groups.next() {
            Some(group) => Some(self.read(target, backup, group).await?),
            None => None,
        };
        let mut loader = client.bulk_loader(&self.name, BulkOptions::default());
        while let Some((pages, points)) = next {
            let count = points.len() as u64;
            let ahead = async {
                match groups.next() {
                    Some(group) => self.read(target, backup, group).await.map(Some),
                    None => Ok(None),
                }
            };
            let (loaded, read) = tokio::join!(load_points(&mut loader, &self.name, points, patience), ahead);
            loaded?;
            self.marker.pages += pages;
            self.put_marker(client).await?;
            progress(count);
            next = read?;
        }
        Ok(remaining.len() as u64)
    }

    /// The points of some pages, and how many pages those are.
    async fn read(
        &self,
        target: &Target,
        backup: &BackupName,
        pages: &[PageRef],
    ) -> Result<(u64, Vec<Point>), BackupError> {
        let reads = stream::iter(pages.to_vec()).map(async |page| match target.read_points(page).await {
            Ok(points) => Ok(points),
            Err(PageFault::Bad(reason)) => Err(BackupError::DamagedPages {
                name: backup.clone(),
                pages: vec![BadPage { collection: self.source.name.clone(), page: page.name, reason }],
            }),
            Err(PageFault::Store(error)) => Err(error),
        });
        let points: Vec<Vec<Point>> = reads.buffered(STORE_REQUESTS_MAX).try_collect().await?;
        Ok((pages.len() as u64, points.into_iter().flatten().collect()))
    }

    async fn put_marker(&self, client: &Client) -> Result<(), BackupError> {
        // Zeros would be refused where the metric is the cosine.
        let vector = |dim: u32| Vector((0..dim).map(|at| if at == 0 { 1.0 } else { 0.0 }).collect());
        let fields = &self.schema.fields;
        let vectors = fields.iter().map(|(name, field)| (name.clone(), vector(field.dim))).collect();
        let point = Point { id: MARKER_ID.into(), vectors, payload: self.marker.to_payload() };
        let outcomes = client.put(&self.name, vec![point], WriteOptions::default()).await?;
        acknowledged(&self.name, outcomes)
    }
}

impl Marker {
    fn to_payload(&self) -> Payload {
        let Self { manifest, collection, pages } = self;
        Payload::from([
            ("manifest".to_owned(), Value::Text(manifest.clone())),
            ("collection".to_owned(), Value::Text(collection.clone())),
            ("pages".to_owned(), Value::Int(*pages as i64)),
        ])
    }

    fn from_payload(payload: &Payload) -> Option<Self> {
        match (payload.get("manifest")?, payload.get("collection")?, payload.get("pages")?) {
            (Value::Text(manifest), Value::Text(collection), Value::Int(pages)) => Some(Self {
                manifest: manifest.clone(),
                collection: collection.clone(),
                pages: u64::try_from(*pages).ok()?,
            }),
            _ => None,
        }
    }
}

/// Loads points, those that the mesh does not take again and again for as long as patience lasts.
async fn load_points(
    loader: &mut BulkLoader,
    collection: &str,
    points: Vec<Point>,
    patience: Duration,
) -> Result<(), BackupError> {
    let mut pending: HashMap<PointId, Point> = HashMap::with_capacity(points.len());
    for point in points {
        pending.insert(point.id.clone(), point.clone());
        if let Some(report) = loader.push(point).await {
            settle(&mut pending, collection, report)?;
        }
    }
    let started = Instant::now();
    loop {
        let mut reason = None;
        while let Some(report) = loader.next().await {
            reason = settle(&mut pending, collection, report)?.or(reason);
        }
        if pending.is_empty() {
            return Ok(());
        }
        if started.elapsed() >= patience {
            return Err(BackupError::Unavailable {
                collection: collection.to_owned(),
                count: pending.len(),
                seconds: patience.as_secs(),
                reason: reason.unwrap_or_else(|| "the mesh gave no reason".to_owned()),
            });
        }
        tokio::time::sleep(PAUSE).await;
        let again: Vec<Point> = pending.values().cloned().collect();
        for point in again {
            if let Some(report) = loader.push(point).await {
                settle(&mut pending, collection, report)?;
            }
        }
    }
}

/// Takes out of `pending` what was acknowledged. Why the rest was not, where the report says so.
fn settle(
    pending: &mut HashMap<PointId, Point>,
    collection: &str,
    report: BatchReport,
) -> Result<Option<String>, BackupError> {
    let BatchReport { acknowledged, refused, unavailable, unknown, error: _ } = report;
    for id in &acknowledged {
        pending.remove(id);
    }
    if let Some(refused) = refused.into_iter().next() {
        let collection = collection.to_owned();
        return Err(BackupError::Refused { collection, id: refused.id, reason: refused.reason });
    }
    Ok(unavailable.into_iter().chain(unknown).next().map(|unsettled| unsettled.reason))
}

/// What became of the marker.
fn acknowledged(collection: &str, outcomes: Vec<Outcome>) -> Result<(), BackupError> {
    let collection = collection.to_owned();
    match outcomes.into_iter().next() {
        Some(Outcome::Written(_)) => Ok(()),
        Some(Outcome::Refused(reason)) => Err(BackupError::Refused { collection, id: MARKER_ID.into(), reason }),
        Some(Outcome::Unavailable(reason) | Outcome::Unknown(reason)) => {
            Err(BackupError::Unavailable { collection, count: 1, seconds: 0, reason })
        }
        None => {
            let reason = "the node gave no outcome".to_owned();
            Err(BackupError::Unavailable { collection, count: 1, seconds: 0, reason })
        }
    }
}
