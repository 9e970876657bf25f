//! The collections of one node: which there are, and those that it keeps, open.
//!
//! Owns the [`Catalog`] and its file. A change of the catalog is durable before it takes effect; a collection whose
//! placement names this node is one of the [open collections](crate::open_collections), one that is dropped or replaced is closed and its files
//! removed. A collection that cannot be opened stays closed with its reason, and the node serves the others.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;
use vecino_engine::indexers::Indexers;
use vecino_engine::resources::Resources;
use vecino_engine::{Collection, DiskFault};
use vecino_mesh::catalog::{Catalog, Change};
use vecino_mesh::collections::{Collections, Route};
use vecino_mesh::hlc;
use vecino_model::{CatalogEntry, CollectionId, CollectionStats, MemoryUse, NodeId};
use vecino_net::error::{ErrorCode, Retry, RpcError};
use vecino_storage::{Disk, FileError, read_verified, write_atomically};

use crate::catalog_file::{self, CATALOG_FILE};
use crate::collection_files::{Files, disk_bytes, remove_files, remove_leftovers};
use crate::open_collections::{CollectionSpec, NotOpen, OpenCollections};
use crate::searches::{SearchPermit, Searches};
use crate::wall_clock::WallClock;

/// With no more collections than these, all but the large ones are opened when the node starts.
const EAGER_MAX: usize = 16;
/// A collection that takes this many bytes on disk or more is opened before a request asks for it.
const LARGE_BYTES: u64 = 32 * 1024 * 1024;
/// A collection whose writer panics again and again is opened anew no more often than this.
const REOPEN_PAUSE: Duration = Duration::from_secs(30);
/// Catalog entries that were passed over and of which that was said; of more it is said again.
const TOLD_MAX: usize = 10_000;
/// When a collection that is being opened is worth asking again.
const OPENING_RETRY_MS: u32 = 500;

/// The collections of one node.
pub struct Store {
    node_id: NodeId,
    disk: Arc<dyn Disk>,
    wall: Arc<dyn WallClock>,
    searches: Searches,
    collections: Arc<OpenCollections>,
    resources: Arc<Resources>,
    /// Held while the catalog changes, so that file, memory and open collections change together.
    changing: Mutex<()>,
    /// The catalog that is in effect.
    known: Arc<Collections>,
    /// Collections whose entries were passed over for the clock of the node that made them.
    told: Mutex<HashSet<CollectionId>>,
}

/// Why the store could not be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The catalog's file.
    #[error("the catalog cannot be kept: {0}")]
    File(#[from] FileError),
    /// The catalog's contents.
    #[error("the catalog cannot be read: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// The name is taken.
    #[error(transparent)]
    NameInUse(#[from] vecino_mesh::catalog::NameInUse),
    /// The collection cannot be kept here.
    #[error("collection {name:?} cannot be made on this node: {reason}")]
    Open {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        reason: NotOpen,
    },
}

/// A change of the catalog that failed, as its caller is told.
pub fn to_rpc_error(error: StoreError) -> RpcError {
    match error {
        StoreError::NameInUse(error) => RpcError::new(ErrorCode::AlreadyExists, error),
        StoreError::Open { .. } => RpcError::new(ErrorCode::Internal, error).with_retry(Retry::Safe),
        StoreError::File(_) | StoreError::Decode(_) => match DiskFault::of(&error) {
            Some(trouble) => {
                RpcError::new(ErrorCode::Unavailable, format_args!("{trouble} ({error})")).with_retry(Retry::Unknown)
            }
            None => RpcError::new(ErrorCode::Internal, error),
        },
    }
}

impl Store {
    /// Opens the catalog. Of the collections that this node keeps, as many as `open_max` are open at once, from when they
    /// are first asked for; a few small ones are opened here. Blocks.
    pub fn open(
        node_id: NodeId,
        disk: Arc<dyn Disk>,
        indexers: Arc<Indexers>,
        wall: Arc<dyn WallClock>,
        open_max: usize,
        runtime: tokio::runtime::Handle,
        resources: Arc<Resources>,
    ) -> Result<Self, StoreError> {
        let entries: Vec<CatalogEntry> = match read_verified(&*disk, CATALOG_FILE)? {
            Some(bytes) => catalog_file::decode(&bytes)?,
            None => Vec::new(),
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let searches = Searches::new(processors, Arc::clone(indexers.tails()));
        let files =
            Files { disk: Arc::clone(&disk), indexers, runtime: runtime.clone(), resources: Arc::clone(&resources) };
        let store = Self {
            node_id,
            disk,
            wall,
            searches,
            collections: OpenCollections::new(files, open_max, runtime),
            resources,
            changing: Mutex::new(()),
            known: Arc::new(Collections::new()),
            told: Mutex::default(),
        };
        store.take_effect(entries);
        let dropped = store.entries().into_iter().filter(|entry| entry.live.is_none()).map(|entry| entry.id);
        remove_leftovers(&*store.disk, dropped);
        let closed = store.collections.closed_ones();
        if closed.len() <= EAGER_MAX {
            for id in closed.into_iter().filter(|id| disk_bytes(&*store.disk, *id) < LARGE_BYTES) {
                // Why it cannot be is kept with it.
                let _ = store.collections.open(id);
            }
        }
        Ok(store)
    }

    /// Opens large collections before anybody asks, since that takes long: the largest first, one after another, up to
    /// as many as may be open. Blocks.
    pub fn open_large(&self) {
        let sized = self.collections.closed_ones().into_iter().map(|id| (disk_bytes(&*self.disk, id), id));
        let mut large: Vec<(u64, CollectionId)> = sized.filter(|(bytes, _)| *bytes >= LARGE_BYTES).collect();
        large.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (_, id) in large {
            if !self.collections.has_room() {
                break;
            }
            // Why it cannot be opened is kept with it.
            let _ = self.collections.open(id);
        }
    }

    /// Makes or drops a collection as an entry says: durable first, then in effect. Gives the bytes of files that this
    /// removed. Blocks.
    ///
    /// # Errors
    /// When another collection has the name, this node is to keep the collection and cannot, or the catalog cannot be
    /// written; nothing is changed then.
    pub fn apply(&self, entry: CatalogEntry) -> Result<u64, StoreError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.known.look(Catalog::clone);
        next.check(&entry)?;
        let change = next.merge(entry.clone());
        if self.known.look(|known| *known == next) {
            return Ok(0);
        }
        let is_made = match &entry.live {
            Some(live) if change == Change::Created && live.placement.contains_key(&self.node_id) => {
                self.collections.keep(CollectionSpec {
                    name: entry.name.clone(),
                    id: entry.id,
                    schema: live.schema.clone(),
                });
                if let Err(reason) = self.collections.open(entry.id) {
                    self.discard(entry.id);
                    return Err(StoreError::Open { name: entry.name, reason });
                }
                true
            }
            _ => false,
        };
        if let Err(error) = self.keep_catalog(&next, entry.live.is_none()) {
            if is_made {
                self.discard(entry.id);
            }
            return Err(error.into());
        }
        Ok(self.take_effect(vec![entry]))
    }

    /// Takes over what is new in the entries of another node's catalog, with one write for all of them: durable first,
    /// then in effect. Gives the bytes of files that this removed. Blocks.
    ///
    /// An entry of a version that is too far ahead of this node's clock is passed over, with a warning: the clock of the
    /// node that made it is wrong, or this one is. It is taken over once its time has come.
    ///
    /// # Errors
    /// When the catalog cannot be written; nothing is changed then.
    pub fn merge_all(&self, entries: Vec<CatalogEntry>) -> Result<u64, StoreError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.known.look(Catalog::clone);
        let before = next.clone();
        let mut news = Vec::new();
        for entry in entries {
            if before.entry(entry.id) == Some(&entry) {
                continue;
            }
            if let Err(drift) = hlc::check_drift(entry.version.time, self.wall.now_ms()) {
                self.tell_of_drift(&entry, &drift);
                continue;
            }
            next.merge(entry.clone());
            news.push(entry);
        }
        if next == before {
            return Ok(0);
        }
        self.keep_catalog(&next, news.iter().any(|entry| entry.live.is_none()))?;
        let ids: BTreeSet<CollectionId> = news.iter().map(|entry| entry.id).collect();
        let freed = self.take_effect(news);
        for id in ids {
            if self.collections.is_closed(id) {
                // Why it cannot be opened is kept with it.
                let _ = self.collections.open(id);
            }
        }
        Ok(freed)
    }

    /// Says once of a collection that its entry was passed over.
    fn tell_of_drift(&self, entry: &CatalogEntry, drift: &hlc::ClockDrift) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        if told.insert(entry.id) {
            let (collection, node) = (&entry.name, entry.version.node.short());
            warn!(collection, id = %entry.id, node, %drift, "a catalog entry is passed over until its time has come");
        }
    }

    /// What the node uses of its memory.
    pub fn memory(&self) -> MemoryUse {
        let memory = &self.resources.memory;
        MemoryUse { used_bytes: memory.used(), limit_bytes: memory.limit() }
    }

    /// What the collections share.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Permission to search; as many at a time as the processors can do, or as linking leaves.
    pub async fn search_permit(&self) -> SearchPermit {
        self.searches.permit().await
    }

    /// Every entry.
    pub fn entries(&self) -> Vec<CatalogEntry> {
        self.known.entries()
    }

    /// Entries of the collections that exist.
    pub fn live(&self) -> Vec<CatalogEntry> {
        self.known.live()
    }

    /// Hash of the catalog.
    pub fn digest(&self) -> String {
        self.known.digest()
    }

    /// Where the points of a collection go.
    pub fn route(&self, name: &str) -> Option<Arc<Route>> {
        self.known.route(name)
    }

    /// The catalog that is in effect.
    pub fn known(&self) -> &Arc<Collections> {
        &self.known
    }

    /// A collection that this node keeps, opened if it was not. Waits for that, for a while.
    pub async fn collection(&self, id: CollectionId) -> Result<Collection, RpcError> {
        let node = self.node_id.short();
        self.collections.get(id).await.map_err(|absent| match &absent {
            NotOpen::Unknown => {
                RpcError::new(ErrorCode::NotFound, format_args!("node {node} keeps no collection {id}"))
            }
            NotOpen::Failed { needs_copy, .. } => {
                let way_out = if *needs_copy { "; its data have to be copied from other replicas" } else { "" };
                let message = format_args!("collection {id} could not be opened on node {node}: {absent}{way_out}");
                RpcError::new(ErrorCode::Unavailable, message)
            }
            NotOpen::Opening { .. } => {
                let message = format_args!("collection {id} cannot be asked on node {node} yet: {absent}; try again");
                RpcError::new(ErrorCode::NotReady, message).with_retry(Retry::AfterMs(OPENING_RETRY_MS))
            }
            NotOpen::Stopping => RpcError::new(ErrorCode::NotReady, format_args!("node {node} is stopping")),
        })
    }

    /// Whether this node keeps a collection, open or not.
    pub fn keeps(&self, id: CollectionId) -> bool {
        self.collections.keeps(id)
    }

    /// The collections that this node keeps and that are open.
    pub fn open_collections(&self) -> Vec<Collection> {
        self.collections.open_ones()
    }

    /// What this node holds of each collection that it keeps.
    pub fn stats(&self) -> Vec<(String, CollectionStats)> {
        let kept: Vec<_> = self.known.look(|catalog| {
            let live = catalog.entries().filter(|entry| entry.live.is_some());
            live.map(|entry| {
                let has_name = catalog.named(&entry.name).is_some_and(|named| named.id == entry.id);
                (entry.name.clone(), entry.id, has_name)
            })
            .collect()
        });
        let stats = |(name, id, has_name): (String, CollectionId, bool)| {
            let stats = self.collections.stats(id)?;
            if has_name {
                return Some((name, stats));
            }
            let error = Some(format!("an older collection has the name {name:?}: drop that one to reach this"));
            Some((format!("{name}@{id}"), CollectionStats { error, ..stats }))
        };
        kept.into_iter().filter_map(stats).collect()
    }

    /// Tries again to open the collections that could not be opened, and closes idle ones where too many are open. Blocks.
    pub fn retry_failed(&self) {
        self.collections.retry_failed();
        self.collections.make_room();
    }

    /// Opens those collections anew whose writer has panicked. Blocks.
    pub fn reopen_broken(&self) {
        self.collections.reopen_broken(REOPEN_PAUSE);
    }

    /// Says how far those collections are that take long to open.
    pub fn tell_progress(&self) {
        self.collections.tell_progress();
    }

    /// Closes every collection: writes that were accepted are finished, later ones refused. Blocks.
    pub fn close(&self) {
        self.collections.close();
    }

    /// Writes the catalog. On a full disk a drop, which gives room, is written in that of the ballast.
    fn keep_catalog(&self, catalog: &Catalog, is_drop: bool) -> Result<(), FileError> {
        let bytes = catalog_file::encode(catalog.entries());
        let write = || write_atomically(&*self.disk, CATALOG_FILE, &bytes);
        let is_full = |error: &FileError| DiskFault::of(error) == Some(DiskFault::Full);
        match write() {
            Err(error) if is_drop && is_full(&error) && self.resources.ballast.release() => write(),
            other => other,
        }
    }

    /// Keeps or drops what durable entries ask for. Gives the bytes of files that were removed.
    fn take_effect(&self, entries: Vec<CatalogEntry>) -> u64 {
        let mut next = self.known.look(Catalog::clone);
        let mut effects = Vec::new();
        for entry in entries {
            let id = entry.id;
            let live = entry.live.as_ref().filter(|live| live.placement.contains_key(&self.node_id));
            let kept = live.map(|live| CollectionSpec { name: entry.name.clone(), id, schema: live.schema.clone() });
            effects.push((id, next.merge(entry), kept));
        }
        self.known.install(next);
        let mut freed = 0;
        for (id, change, kept) in effects {
            match (change, kept) {
                (Change::Created, Some(kept)) => self.collections.keep(kept),
                (Change::Dropped, _) => freed += self.discard(id),
                (Change::Created, None) | (Change::None, _) => {}
            }
        }
        freed
    }

    /// Closes a collection and removes its files; gives how many bytes that were.
    fn discard(&self, id: CollectionId) -> u64 {
        if let Some(collection) = self.collections.forget(id) {
            collection.close();
        }
        remove_files(&*self.disk, id)
    }
}
