//! Bringing a backup back: verify every page, create the collections, load the points.
//!
//! While a collection is being restored it has one point more, the [marker](super::MARKER_ID), that says of which backup it
//! is and how many pages are loaded. Whoever runs the same restore again, from anywhere, goes on behind them. The markers
//! go when everything is there.

use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tracing::debug;
use vecino_client::{
    BulkError, BulkEvent, BulkLoader, Client, CollectionSchema, ErrorCode, NodeState, Outcome, Payload, PointId,
    RawPoint, Value, Vector, payload,
};

use super::error::{BackupError, BadPage, PageDamage};
use super::manifest::{BackupName, CollectionManifest, PageRef};
use super::target::{PageFault, Target};
use super::{MARKER_ID, STORE_REQUESTS_MAX};
use vecino_model::validate;

/// What is restored.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// This backup; the newest where none is named.
    pub backup: Option<BackupName>,
    /// This collection; all where none is named.
    pub collection: Option<String>,
    /// Name of the restored collection, where it is to be another one.
    pub rename: Option<String>,
    /// Put before the name of each collection.
    pub prefix: String,
    /// Whether collections that exist are left as they are, instead of being an error.
    pub skip_existing: bool,
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
    /// Names of the collections that exist and were left as they are.
    pub skipped: Vec<String>,
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
    let RestoreRequest { backup, collection, rename, prefix, skip_existing, patience } = request;
    let backup = match backup {
        Some(name) => name,
        None => {
            let newest = target.backups().await?.pop();
            newest.ok_or_else(|| BackupError::NoBackup { url: target.url().to_owned() })?
        }
    };
    let manifest = target.manifest(&backup).await?;
    let digest = manifest.digest().to_hex().to_string();
    let chosen = choose(&backup, manifest.collections, collection, rename, &prefix)?;
    let nodes = client.status().await?.nodes.iter().filter(|node| node.state == NodeState::Up).count();
    let (mut plan, mut existing) = (Vec::new(), Vec::new());
    for (name, source) in chosen {
        match planned(client, name.clone(), source, &digest, nodes as u32).await? {
            Some(planned) => plan.push(planned),
            None => existing.push(name),
        }
    }
    if !existing.is_empty() && !skip_existing {
        return Err(BackupError::Exist { collections: existing });
    }
    verify(target, &backup, &plan).await?;
    let (mut pages_loaded, mut pages_skipped) = (0, 0);
    for planned in &plan {
        pages_skipped += planned.marker.pages;
        if !planned.exists {
            let collection = client.collection(&planned.name);
            collection.create_from(planned.schema.clone()).await?;
            collection.put([planned.marker_point(0)]).await?;
        }
        pages_loaded += planned.load(client, target, &backup, patience, progress).await?;
    }
    for planned in &plan {
        client.collection(&planned.name).delete([MARKER_ID]).await?;
    }
    let restored = |planned: Planned| RestoredCollection {
        points: planned.source.points(),
        original: planned.source.name,
        name: planned.name,
        replicas: planned.schema.replication_factor,
        original_replicas: planned.source.schema.replication_factor,
    };
    let collections = plan.into_iter().map(restored).collect();
    Ok(Restored { backup, collections, skipped: existing, pages_loaded, pages_skipped })
}

/// The collections that are wanted, each with the name that it is to have.
fn choose(
    backup: &BackupName,
    mut collections: Vec<CollectionManifest>,
    wanted: Option<String>,
    rename: Option<String>,
    prefix: &str,
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
    if rename.is_some() && collections.len() != 1 {
        return Err(BackupError::OneNameForMany { name: backup.clone(), count: collections.len() });
    }
    let named = |source: CollectionManifest| {
        let name = format!("{prefix}{}", rename.as_deref().unwrap_or(&source.name));
        match validate::collection_name(&name) {
            Ok(()) => Ok((name, source)),
            Err(reason) => Err(BackupError::NewName { name, reason: reason.to_string() }),
        }
    };
    collections.into_iter().map(named).collect()
}

/// Looks whether a collection is to be created, or is one that an earlier run of this restore left unfinished. NotOpen where
/// it is any other that exists.
async fn planned(
    client: &Client,
    name: String,
    source: CollectionManifest,
    digest: &str,
    nodes: u32,
) -> Result<Option<Planned>, BackupError> {
    let mut schema = source.schema.clone();
    schema.replication_factor = schema.replication_factor.min(nodes).max(1);
    let mut marker = Marker { manifest: digest.to_owned(), collection: source.name.clone(), pages: 0 };
    let collection = client.collection(&name);
    let info = match collection.describe().await {
        Ok(info) => info,
        Err(error) if error.code() == Some(ErrorCode::NotFound) => {
            return Ok(Some(Planned { name, schema, source, marker, exists: false }));
        }
        Err(error) => return Err(error.into()),
    };
    let found = collection.get_one(MARKER_ID).with_vectors(false).await?;
    match found.and_then(|point| Marker::from_payload(&point.payload)) {
        Some(there) if there.manifest == marker.manifest && there.collection == marker.collection => {
            marker.pages = there.pages.min(source.pages.len() as u64);
            Ok(Some(Planned { name, schema: info.schema, source, marker, exists: true }))
        }
        _ => Ok(None),
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
                None => PageDamage::Missing,
                Some(size) if *size != page.bytes => PageDamage::Size { found: *size, written: page.bytes },
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
        &self,
        client: &Client,
        target: &Target,
        backup: &BackupName,
        patience: Duration,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, BackupError> {
        let remaining = self.remaining().to_vec();
        let mut loaded_pages = self.marker.pages;
        let mut groups = remaining.chunks(GROUP_PAGES);
        let mut next = match groups.next() {
            Some(group) => Some(self.read(target, backup, group).await?),
            None => None,
        };
        let marker = PointId::from(MARKER_ID);
        let note = |event: BulkEvent<'_>| match event {
            BulkEvent::Written { ids } => progress(ids.iter().filter(|id| **id != marker).count() as u64),
            BulkEvent::Waiting { points, reason } => {
                debug!(collection = self.name, points, reason, "the mesh does not take points");
            }
            _ => {}
        };
        let mut loader = client.collection(&self.name).bulk().patience(patience).on_event(note).start();
        while let Some((pages, points)) = next {
            let ahead = async {
                match groups.next() {
                    Some(group) => self.read(target, backup, group).await.map(Some),
                    None => Ok(None),
                }
            };
            let (loaded, read) = tokio::join!(load_points(&mut loader, &self.name, points), ahead);
            loaded?;
            loaded_pages += pages;
            load_points(&mut loader, &self.name, vec![self.marker_point(loaded_pages)]).await?;
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
    ) -> Result<(u64, Vec<RawPoint>), BackupError> {
        let reads = stream::iter(pages.to_vec()).map(async |page| match target.read_points(page).await {
            Ok(points) => Ok(points),
            Err(PageFault::Bad(reason)) => Err(BackupError::DamagedPages {
                name: backup.clone(),
                pages: vec![BadPage { collection: self.source.name.clone(), page: page.name, reason }],
            }),
            Err(PageFault::Store(error)) => Err(error),
        });
        let points: Vec<Vec<RawPoint>> = reads.buffered(STORE_REQUESTS_MAX).try_collect().await?;
        Ok((pages.len() as u64, points.into_iter().flatten().collect()))
    }

    /// The marker, which says that this many pages are loaded.
    fn marker_point(&self, pages: u64) -> RawPoint {
        // Zeros would be refused where the metric is the cosine.
        let vector = |dim: u32| Vector((0..dim).map(|at| if at == 0 { 1.0 } else { 0.0 }).collect());
        let fields = &self.schema.fields;
        let vectors = fields.iter().map(|(name, field)| (name.clone(), vector(field.dim))).collect();
        let payload = Marker { pages, ..self.marker.clone() }.to_payload();
        RawPoint { id: MARKER_ID.into(), vectors, payload: payload.into() }
    }
}

impl Marker {
    fn to_payload(&self) -> Payload {
        let Self { manifest, collection, pages } = self;
        payload! { "manifest": manifest.as_str(), "collection": collection.as_str(), "pages": *pages }
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

/// Loads points, and waits until every one is written.
async fn load_points(loader: &mut BulkLoader<'_>, collection: &str, points: Vec<RawPoint>) -> Result<(), BackupError> {
    let failed = |error| match error {
        BulkError::Request(error) => BackupError::Client(error),
        BulkError::GaveUp { points, waited, reason } => BackupError::Unavailable {
            collection: collection.to_owned(),
            count: points,
            seconds: waited.as_secs(),
            reason,
        },
        error => BackupError::Unavailable {
            collection: collection.to_owned(),
            count: 0,
            seconds: 0,
            reason: error.to_string(),
        },
    };
    for point in points {
        loader.push(point).await.map_err(failed)?;
    }
    loader.flush().await.map_err(failed)?;
    match loader.summary().first_unwritten.into_iter().next() {
        None => Ok(()),
        Some(unwritten) => {
            let (id, outcome, collection) = (unwritten.id, unwritten.outcome, collection.to_owned());
            let (Outcome::Refused(reason) | Outcome::Unavailable(reason) | Outcome::Unknown(reason)) = outcome else {
                return Ok(());
            };
            Err(BackupError::Refused { collection, id, reason })
        }
    }
}
