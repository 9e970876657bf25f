//! Making a backup: every collection is scanned and uploaded, then the manifest makes them a backup.

use std::time::SystemTime;

use vecino_client::{Client, CollectionInfo, ErrorCode, Level, PointId, RawPoint, RawStoredPoint};

use super::MARKER_ID;
use super::error::BackupError;
use super::manifest::{BackupName, CollectionManifest, Manifest};
use super::packer::PAGE_BYTES;
use super::target::Target;
use super::upload::{Sent, Upload};

/// What is backed up, and how.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// These collections; all where none is named.
    pub collections: Vec<String>,
    /// Replicas of every range to ask.
    pub level: Level,
    /// Bytes of a page on average.
    pub page_bytes: usize,
}

impl Default for CreateRequest {
    fn default() -> Self {
        Self { collections: Vec::new(), level: Level::default(), page_bytes: PAGE_BYTES }
    }
}

/// A backup that was made.
#[derive(Debug)]
pub struct Created {
    /// Its name.
    pub name: BackupName,
    /// What it is made of.
    pub manifest: Manifest,
    /// Pages that the target did not have yet.
    pub pages_sent: u64,
    /// Bytes of those.
    pub bytes_sent: u64,
}

/// Makes a backup; `progress` is told how many more points were read.
///
/// # Errors
/// Where it fails there is no backup; pages that were sent stay, and the next attempt need not send them.
pub async fn create(
    client: &Client,
    target: &Target,
    request: CreateRequest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Created, BackupError> {
    let CreateRequest { collections, level, page_bytes } = request;
    let name = BackupName::at(SystemTime::now());
    let backups = target.backups().await?;
    let mesh = client.status().await?.mesh;
    let infos = chosen(client.collections().await?, &collections)?;
    if let Some(newest) = backups.last() {
        let theirs = target.manifest(newest).await?.mesh;
        if theirs != mesh {
            let (theirs, ours) = (theirs.to_string(), mesh.to_string());
            return Err(BackupError::OtherMesh { url: target.url().to_owned(), theirs, ours });
        }
    }
    let mut sent = Sent { known: target.pages().await?, ..Sent::default() };
    let mut manifest = Manifest { mesh, level, collections: Vec::new() };
    for info in infos {
        let mut upload = Upload::new(target, &mut sent, info.id, page_bytes);
        scan(client, &info, level, &mut upload, progress).await?;
        let pages = upload.finish().await?;
        let CollectionInfo { name, id, schema, .. } = info;
        manifest.collections.push(CollectionManifest { name, id, schema, pages });
    }
    target.write_manifest(&name, &manifest).await?;
    Ok(Created { name, manifest, pages_sent: sent.pages, bytes_sent: sent.bytes })
}

async fn scan(
    client: &Client,
    info: &CollectionInfo,
    level: Level,
    upload: &mut Upload<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), BackupError> {
    let marker = PointId::from(MARKER_ID);
    let collection = client.collection(&info.name);
    let mut pages = collection.scan().level(level).pages();
    let failed = |source| BackupError::Scan { collection: info.name.clone(), level, source };
    while let Some(points) = pages.try_next_raw().await.map_err(failed)? {
        let count = points.len() as u64;
        for RawStoredPoint { id, vectors, payload, version: _ } in points {
            if id == marker {
                return Err(BackupError::BeingRestored { collection: info.name.clone() });
            }
            upload.push(RawPoint { id, vectors, payload }).await?;
        }
        progress(count);
    }
    // A scan goes by name: it would go on in a collection that was created anew.
    let replaced = match collection.describe().await {
        Ok(now) => now.id != info.id,
        Err(error) if error.code() == Some(ErrorCode::NotFound) => true,
        Err(error) => return Err(error.into()),
    };
    if replaced { Err(BackupError::Replaced { collection: info.name.clone() }) } else { Ok(()) }
}

fn chosen(mut infos: Vec<CollectionInfo>, wanted: &[String]) -> Result<Vec<CollectionInfo>, BackupError> {
    infos.sort_by(|a, b| a.name.cmp(&b.name));
    for collection in wanted {
        if !infos.iter().any(|info| info.name == *collection) {
            let has = infos.into_iter().map(|info| info.name).collect();
            return Err(BackupError::UnknownCollection {
                collection: collection.clone(),
                place: "the mesh".to_owned(),
                has,
            });
        }
    }
    infos.retain(|info| wanted.is_empty() || wanted.contains(&info.name));
    Ok(infos)
}
