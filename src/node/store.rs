//! The collections of one node: which there are, and those that it keeps, open.
//!
//! Owns the [`Catalog`] and its file. A change of the catalog is durable before it takes effect; a collection whose
//! placement names this node is opened, one that is dropped or replaced is closed and its files removed. A collection
//! that cannot be opened stays closed with its reason, and the node serves the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{error, info};
use vecino_certs::NodeId;
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::message::{CatalogEntry, CollectionStats, LiveCollection, MemoryUse};
use vecino_net::model::{CollectionId, CollectionSchema};
use vecino_net::ring::Ring;
use vecino_storage::{Disk, FileError, read_verified, write_atomically};

use super::clock::Clock;
use crate::catalog::{Catalog, Change};
use crate::collection::indexers::Indexers;
use crate::collection::{Collection, Trouble, persist};
use crate::resources::Resources;

/// Where the catalog stands in the data directory.
pub const CATALOG_FILE: &str = "catalog";
/// The folder of the collections, each under its id.
pub const COLLECTIONS: &str = "collections";

/// Searches at a time for each processor; more wait.
const SEARCHES_PER_PROCESSOR: usize = 2;

/// The collections of one node.
pub struct Store {
    node_id: NodeId,
    disk: Arc<dyn Disk>,
    indexers: Arc<Indexers>,
    clock: Arc<Clock>,
    searches: Arc<Semaphore>,
    runtime: tokio::runtime::Handle,
    resources: Arc<Resources>,
    /// Held while the catalog changes, so that file, memory and open collections change together.
    changing: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    catalog: Catalog,
    routes: HashMap<String, Arc<Route>>,
    open: HashMap<CollectionId, Result<Collection, String>>,
}

/// Where the points of a collection go.
#[derive(Debug)]
pub struct Route {
    /// Collection name.
    pub name: String,
    /// Its id.
    pub id: CollectionId,
    /// Its schema.
    pub schema: CollectionSchema,
    /// The ring of its placement.
    pub ring: Ring,
}

impl Route {
    /// Distinct nodes that keep each point.
    pub fn replication_factor(&self) -> usize {
        self.schema.replication_factor as usize
    }
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
    NameInUse(#[from] crate::catalog::NameInUse),
    /// The collection cannot be kept here.
    #[error("collection {name:?} cannot be made on this node: {reason}")]
    Open {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
}

impl Store {
    /// Opens the catalog and every collection that this node keeps. Blocks.
    pub fn open(
        node_id: NodeId,
        disk: Arc<dyn Disk>,
        indexers: Arc<Indexers>,
        clock: Arc<Clock>,
        runtime: tokio::runtime::Handle,
        resources: Arc<Resources>,
    ) -> Result<Self, StoreError> {
        let entries: Vec<CatalogEntry> = match read_verified(&*disk, CATALOG_FILE)? {
            Some(bytes) => rmp_serde::from_slice(&bytes)?,
            None => Vec::new(),
        };
        let searches = SEARCHES_PER_PROCESSOR * std::thread::available_parallelism().map_or(1, usize::from);
        let store = Self {
            node_id,
            disk,
            indexers,
            clock,
            searches: Arc::new(Semaphore::new(searches)),
            runtime,
            resources,
            changing: Mutex::new(()),
            state: RwLock::new(State::default()),
        };
        for entry in entries {
            store.clock.raise(entry.version);
            store.take_effect(entry, None);
        }
        store.remove_leftovers();
        Ok(store)
    }

    /// Takes an entry over: durable first, then in effect. Gives the bytes of files that this removed. Blocks.
    ///
    /// With `exclusive`, a create is refused for a name that another collection has, and where this node is to keep the
    /// collection and cannot.
    pub fn merge(&self, entry: CatalogEntry, exclusive: bool) -> Result<u64, StoreError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.read(|state| state.catalog.clone());
        if exclusive {
            next.check(&entry)?;
        }
        let change = next.merge(entry.clone());
        if self.read(|state| state.catalog == next) {
            return Ok(0);
        }
        let opened = match &entry.live {
            Some(live) if exclusive && change == Change::Created && live.placement.contains_key(&self.node_id) => {
                let opened = self.open_collection(&entry, live).map_err(|reason| {
                    self.remove_files(&entry.id.to_string());
                    StoreError::Open { name: entry.name.clone(), reason }
                })?;
                Some(opened)
            }
            _ => None,
        };
        self.clock.raise(entry.version);
        let entries: Vec<_> = next.entries().collect();
        let bytes = rmp_serde::to_vec_named(&entries).expect("a catalog of strings, numbers and bytes always encodes");
        if let Err(error) = self.keep_catalog(&bytes, entry.live.is_none()) {
            if let Some(opened) = opened {
                opened.close();
                self.remove_files(&entry.id.to_string());
            }
            return Err(error.into());
        }
        Ok(self.take_effect(entry, opened))
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

    /// Permission to search; as many at a time as the processors can do.
    pub async fn search_permit(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.searches).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// The node's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Every entry.
    pub fn entries(&self) -> Vec<CatalogEntry> {
        self.read(|state| state.catalog.entries().cloned().collect())
    }

    /// Entries of the collections that exist.
    pub fn live(&self) -> Vec<CatalogEntry> {
        self.read(|state| state.catalog.all_named().into_iter().cloned().collect())
    }

    /// Hash of the catalog.
    pub fn digest(&self) -> String {
        self.read(|state| state.catalog.digest())
    }

    /// Where the points of a collection go.
    pub fn route(&self, name: &str) -> Option<Arc<Route>> {
        self.read(|state| state.routes.get(name).cloned())
    }

    /// A collection that this node keeps.
    pub fn collection(&self, id: CollectionId) -> Result<Collection, RpcError> {
        let found = self.read(|state| state.open.get(&id).cloned());
        match found {
            Some(Ok(collection)) => Ok(collection),
            Some(Err(reason)) => Err(RpcError::new(
                ErrorCode::Unavailable,
                format_args!("collection {id} could not be opened on node {}: {reason}", self.node_id.short()),
            )),
            None => Err(RpcError::new(
                ErrorCode::NotFound,
                format_args!("node {} keeps no collection {id}", self.node_id.short()),
            )),
        }
    }

    /// Whether this node keeps a collection, open or not.
    pub fn keeps(&self, id: CollectionId) -> bool {
        self.read(|state| state.open.contains_key(&id))
    }

    /// The collections that this node keeps and that are open.
    pub fn open_collections(&self) -> Vec<Collection> {
        self.read(|state| state.open.values().filter_map(|open| open.as_ref().ok().cloned()).collect())
    }

    /// What this node holds of each collection that it keeps.
    pub fn stats(&self) -> Vec<(String, CollectionStats)> {
        let kept: Vec<_> = self.read(|state| {
            let live = state.catalog.entries().filter(|entry| entry.live.is_some());
            let kept = live.filter_map(|entry| Some((entry, state.open.get(&entry.id)?)));
            kept.map(|(entry, open)| {
                let has_name = state.routes.get(&entry.name).is_some_and(|route| route.id == entry.id);
                (entry.name.clone(), (!has_name).then_some(entry.id), open.clone())
            })
            .collect()
        });
        let stats = |(name, nameless, open): (String, Option<CollectionId>, Result<Collection, String>)| {
            let stats = match open {
                Ok(collection) => collection.stats(),
                Err(reason) => CollectionStats { error: Some(reason), ..CollectionStats::default() },
            };
            match nameless {
                None => (name, stats),
                Some(id) => {
                    let error = Some(format!("an older collection has the name {name:?}: drop that one to reach this"));
                    (format!("{name}@{id}"), CollectionStats { error, ..stats })
                }
            }
        };
        kept.into_iter().map(stats).collect()
    }

    /// Tries again to open the collections that could not be opened: the cause may have been passing. Blocks.
    pub fn retry_failed(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let failed: Vec<CatalogEntry> = self.read(|state| {
            let failed = state.open.iter().filter(|(_, open)| open.is_err()).map(|(id, _)| *id);
            failed.filter_map(|id| state.catalog.entry(id).cloned()).collect()
        });
        for entry in failed {
            if let Some(live) = &entry.live
                && let Ok(opened) = self.open_collection(&entry, live)
            {
                info!(collection = entry.name, id = %entry.id, "a collection that could not be opened is open now");
                self.write(|state| state.open.insert(entry.id, Ok(opened)));
            }
        }
    }

    /// Closes every collection: writes that were accepted are finished, later ones refused. Blocks.
    pub fn close(&self) {
        for collection in self.open_collections() {
            collection.close();
        }
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes the catalog. On a full disk a drop, which gives room, is written in that of the ballast.
    fn keep_catalog(&self, bytes: &[u8], is_drop: bool) -> Result<(), FileError> {
        let write = || write_atomically(&*self.disk, CATALOG_FILE, bytes);
        let is_full = |error: &FileError| Trouble::of(error) == Some(Trouble::Full);
        match write() {
            Err(error) if is_drop && is_full(&error) && self.resources.ballast.release() => write(),
            other => other,
        }
    }

    /// Opens and closes what a durable entry asks for. Gives the bytes of files that were removed.
    fn take_effect(&self, entry: CatalogEntry, opened: Option<Collection>) -> u64 {
        let id = entry.id;
        let opened = opened.map(Ok).or_else(|| {
            let live = entry.live.as_ref().filter(|live| live.placement.contains_key(&self.node_id))?;
            let known = self.read(|state| state.open.contains_key(&id));
            (!known).then(|| self.open_collection(&entry, live))
        });
        let gone = self.write(|state| {
            let name = entry.name.clone();
            let change = state.catalog.merge(entry);
            match state.catalog.named(&name) {
                Some(CatalogEntry { id, live: Some(LiveCollection { schema, placement }), .. }) => {
                    let route =
                        Route { name: name.clone(), id: *id, schema: schema.clone(), ring: Ring::new(placement) };
                    state.routes.insert(name, Arc::new(route));
                }
                _ => {
                    state.routes.remove(&name);
                }
            }
            match (change, opened) {
                (Change::Created, Some(opened)) => {
                    state.open.insert(id, opened);
                    None
                }
                (Change::Dropped, _) => Some(state.open.remove(&id)),
                (Change::Created, None) | (Change::None, _) => None,
            }
        });
        let Some(open) = gone else { return 0 };
        if let Some(Ok(collection)) = open {
            collection.close();
        }
        self.remove_files(&id.to_string())
    }

    fn open_collection(&self, entry: &CatalogEntry, live: &LiveCollection) -> Result<Collection, String> {
        let CatalogEntry { name, version: _, id, live: _ } = entry;
        let opened = Collection::open(
            Arc::clone(&self.disk),
            &format!("{COLLECTIONS}/{id}"),
            self.resources.share(name),
            *id,
            live.schema.clone(),
            Arc::clone(&self.indexers),
            self.runtime.clone(),
        );
        if let Ok(Some(newest)) = opened.as_ref().map(Collection::newest_version) {
            self.clock.raise(newest);
        }
        opened.map_err(|reason| {
            error!(collection = name, %id, %reason, "a collection could not be opened; its files are left as they are");
            reason.to_string()
        })
    }

    /// Removes what is on disk of a collection; gives how many bytes that was.
    fn remove_files(&self, id: &str) -> u64 {
        let directory = format!("{COLLECTIONS}/{id}");
        let bytes = persist::disk_bytes(&*self.disk, &directory);
        match self.disk.remove_dir_all(&directory) {
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

    /// Removes the files of collections that were dropped while the node was not there to remove them.
    fn remove_leftovers(&self) {
        let dropped: Vec<String> = self.read(|state| {
            let entries = state.catalog.entries().filter(|entry| entry.live.is_none());
            entries.map(|entry| entry.id.to_string()).collect()
        });
        let there = self.disk.list(COLLECTIONS).unwrap_or_default();
        for id in dropped.iter().filter(|id| there.contains(id)) {
            self.remove_files(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vecino_net::message::{Record, RecordValue};
    use vecino_net::model::{FieldSchema, Fields, Fsync, Metric, Payload, Vector, Version};
    use vecino_storage::{Fault, FaultyDisk, MemDisk};

    use super::*;
    use crate::ballast::Ballast;
    use crate::memory::Budget;

    struct Lab {
        memory: MemDisk,
        disk: FaultyDisk,
        runtime: tokio::runtime::Runtime,
        indexers: Arc<Indexers>,
    }

    const NODE: NodeId = NodeId::from_bytes([1; 16]);

    impl Lab {
        fn new() -> Self {
            let memory = MemDisk::new();
            Self {
                disk: FaultyDisk::new(Arc::new(memory.clone())),
                memory,
                runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
                indexers: Arc::new(Indexers::start(1).unwrap()),
            }
        }

        fn open(&self) -> Store {
            self.open_with(Resources::unlimited())
        }

        fn open_with(&self, resources: Arc<Resources>) -> Store {
            let (indexers, clock) = (Arc::clone(&self.indexers), Arc::new(Clock::new(NODE)));
            let (disk, runtime) = (Arc::new(self.disk.clone()), self.runtime.handle().clone());
            Store::open(NODE, disk, indexers, clock, runtime, resources).unwrap()
        }
    }

    fn create(name: &str, id: u8, time: u64) -> CatalogEntry {
        let field = FieldSchema { dim: 2, metric: Metric::Dot, m: 8, ef_construction: 40, profile: Default::default() };
        let schema = CollectionSchema {
            fields: BTreeMap::from([(String::new(), field)]),
            replication_factor: 1,
            fsync: Fsync::Always,
        };
        CatalogEntry {
            name: name.to_owned(),
            version: Version { time, node: NODE },
            id: CollectionId([id; 16]),
            live: Some(LiveCollection { schema, placement: BTreeMap::from([(NODE, vec![1])]) }),
        }
    }

    fn drop_of(entry: &CatalogEntry, time: u64) -> CatalogEntry {
        CatalogEntry { version: Version { time, node: NODE }, live: None, ..entry.clone() }
    }

    #[test]
    fn a_tombstone_of_a_create_that_failed_elsewhere_leaves_the_collection_of_that_name_alone() {
        let lab = Lab::new();
        let store = lab.open();
        let films = create("films", 1, 1);
        store.merge(films.clone(), true).unwrap();
        store.merge(drop_of(&create("films", 2, 2), 3), false).unwrap();
        assert_eq!(store.route("films").unwrap().id, films.id);
        assert!(store.collection(films.id).is_ok());
        // A second collection of that name, from the other side of a partition, is kept and reported.
        store.merge(create("films", 3, 4), false).unwrap();
        let stats = store.stats();
        assert_eq!(stats.len(), 2);
        assert!(stats.iter().any(|(name, stats)| name.starts_with("films@") && stats.error.is_some()));
        store.merge(drop_of(&films, 5), false).unwrap();
        assert_eq!(store.route("films").unwrap().id, CollectionId([3; 16]));
        assert_eq!(lab.memory.list(COLLECTIONS).unwrap(), [CollectionId([3; 16]).to_string()]);
    }

    #[test]
    fn a_collection_that_cannot_be_made_is_refused_and_leaves_nothing() {
        let lab = Lab::new();
        let store = lab.open();
        lab.disk.set(Fault::Room(0));
        let error = store.merge(create("films", 1, 1), true).unwrap_err();
        assert!(matches!(&error, StoreError::Open { name, .. } if name == "films"), "{error}");
        assert!(store.route("films").is_none() && store.entries().is_empty());
        lab.disk.heal();
        store.merge(create("films", 2, 2), true).unwrap();
        assert_eq!(store.open_collections().len(), 1);
    }

    #[test]
    fn a_drop_is_taken_on_a_full_disk_and_says_what_it_freed() {
        let lab = Lab::new();
        let disk: Arc<dyn Disk> = Arc::new(lab.disk.clone());
        let ballast = Ballast::load(disk, 64 * 1024);
        let store = lab.open_with(Arc::new(Resources { memory: Budget::unlimited(), ballast }));
        let films = create("films", 1, 1);
        assert_eq!(store.merge(films.clone(), true).unwrap(), 0);
        lab.disk.set(Fault::Room(0));
        let error = store.merge(create("more", 2, 2), true).unwrap_err();
        assert!(matches!(&error, StoreError::Open { reason, .. } if reason.contains("full")), "{error}");
        let log = format!("{COLLECTIONS}/{}/log/{:020}.log", films.id, 1);
        let there = lab.memory.open_read(&log).unwrap().len().unwrap();
        let freed = store.merge(drop_of(&films, 3), false).unwrap();
        assert!(freed >= there && there > 0, "{freed} bytes, and the log had {there}");
        assert!(!store.resources().ballast.is_whole());
        assert_eq!(store.merge(drop_of(&films, 3), false).unwrap(), 0, "it is dropped already");
        // It is gone for good: the catalog was written.
        drop(store);
        assert!(lab.open().live().is_empty());
    }

    #[test]
    fn a_collection_that_does_not_fit_into_memory_is_opened_when_another_is_gone() {
        let lab = Lab::new();
        let films = create("films", 1, 1);
        let store = lab.open();
        store.merge(films.clone(), true).unwrap();
        let collection = store.collection(films.id).unwrap_or_else(|error| panic!("{error}"));
        let record = |id: u64| Record {
            id: id.into(),
            version: Version { time: id, node: NODE },
            value: Some(RecordValue {
                vectors: Fields::from([(String::new(), Vector(vec![1.0, 2.0]))]),
                payload: rmp_serde::to_vec_named(&Payload::new()).unwrap(),
            }),
        };
        lab.runtime.block_on(collection.apply((1..=3_000).map(record).collect())).unwrap();
        let needed = collection.stats().memory_bytes;
        store.close();
        drop((store, collection));
        let resources = Arc::new(Resources { memory: Budget::new(needed, 0), ballast: Ballast::none() });
        let other = resources.share("other");
        other.account.hold(needed / 2);
        let store = lab.open_with(Arc::clone(&resources));
        let error = store.collection(films.id).err().unwrap();
        assert!(error.message.contains("of its limit of") && error.code == ErrorCode::Unavailable, "{error}");
        assert!(store.stats()[0].1.error.as_deref().unwrap().contains("--memory-limit"));
        store.retry_failed();
        assert!(store.collection(films.id).is_err());
        drop(other);
        store.retry_failed();
        assert!(store.collection(films.id).is_ok());
        assert_eq!(store.memory().limit_bytes, needed);
    }

    #[test]
    fn a_collection_that_could_not_be_opened_is_opened_when_the_cause_has_passed() {
        let lab = Lab::new();
        lab.open().merge(create("films", 1, 1), true).unwrap();
        lab.disk.set(Fault::EverySync);
        let store = lab.open();
        let id = CollectionId([1; 16]);
        let error = store.collection(id).err().unwrap();
        assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
        store.retry_failed();
        assert!(store.collection(id).is_err());
        lab.disk.heal();
        store.retry_failed();
        assert!(store.collection(id).is_ok());
    }
}
