//! The folders of collections on disk: opening what is in them, and removing them.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::{error, info};
use vecino_engine::indexers::Indexers;
use vecino_engine::progress::Progress;
use vecino_engine::resources::Resources;
use vecino_engine::{Collection, OpenError, persist};
use vecino_model::CollectionId;
use vecino_storage::Disk;

use crate::open_collections::{CollectionSpec, Opener};

/// The folder of the collections, each under its id.
pub const COLLECTIONS: &str = "collections";

/// Opens collections and removes their files.
pub(crate) struct Files {
    pub disk: Arc<dyn Disk>,
    pub indexers: Arc<Indexers>,
    pub runtime: tokio::runtime::Handle,
    pub resources: Arc<Resources>,
}

impl Opener for Files {
    fn open(&self, kept: &CollectionSpec, progress: &Progress) -> Result<Collection, OpenError> {
        let CollectionSpec { name, id, schema } = kept;
        Collection::open_with_progress(
            Arc::clone(&self.disk),
            &format!("{COLLECTIONS}/{id}"),
            self.resources.share(name),
            *id,
            schema.clone(),
            Arc::clone(&self.indexers),
            self.runtime.clone(),
            progress,
        )
    }

    fn remove(&self, id: CollectionId) {
        remove_files(&*self.disk, id);
    }
}

/// Removes what is on disk of a collection; gives how many bytes that were.
pub(crate) fn remove_files(disk: &dyn Disk, id: CollectionId) -> u64 {
    let directory = format!("{COLLECTIONS}/{id}");
    let bytes = persist::disk_bytes(disk, &directory);
    match disk.remove_dir_all(&directory) {
        Ok(()) => {
            info!(directory, bytes, "removed the files of a dropped collection");
            bytes
        }
        Err(reason) => {
            error!(directory, %reason, "the files of a dropped collection could not be removed");
            0
        }
    }
}

/// Removes those of these collections that have files here: they were dropped while the node was not there to do it.
pub(crate) fn remove_leftovers(disk: &dyn Disk, dropped: impl Iterator<Item = CollectionId>) {
    let there: HashSet<String> = disk.list(COLLECTIONS).unwrap_or_default().into_iter().collect();
    for id in dropped.filter(|id| there.contains(&id.to_string())) {
        remove_files(disk, id);
    }
}

/// Bytes that a collection takes on disk; 0 where that cannot be told.
pub(crate) fn disk_bytes(disk: &dyn Disk, id: CollectionId) -> u64 {
    persist::disk_bytes(disk, &format!("{COLLECTIONS}/{id}"))
}
