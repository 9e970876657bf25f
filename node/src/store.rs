//! The collections of one node: which there are, and those that it keeps, open.
//!
//! Owns the [`Catalog`] and its file. A change of the catalog is durable before it takes effect; a collection whose
//! placement names this node is put on the [shelf](crate::shelf), one that is dropped or replaced is closed and its files
//! removed. A collection that cannot be opened stays closed with its reason, and the node serves the others.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tracing::{error, info};
use vecino_mesh::ring::Ring;
use vecino_model::{CatalogEntry, CollectionId, CollectionSchema, CollectionStats, LiveCollection, MemoryUse, NodeId};
use vecino_net::error::{ErrorCode, Retry, RpcError};
use vecino_storage::{Disk, FileError, read_verified, write_atomically};

use crate::clock::Clock;
use crate::searches::{SearchPermit, Searches};
use crate::shelf::{Absent, Kept, Opener, Shelf};
use vecino_engine::indexers::Indexers;
use vecino_engine::progress::Progress;
use vecino_engine::resources::Resources;
use vecino_engine::{Collection, OpenError, Trouble, persist};
use vecino_mesh::catalog::{Catalog, Change};

/// Where the catalog stands in the data directory.
pub const CATALOG_FILE: &str = "catalog";
/// The folder of the collections, each under its id.
pub const COLLECTIONS: &str = "collections";

/// With no more collections than these, all but the large ones are opened when the node starts.
const EAGER_MAX: usize = 16;
/// A collection that takes so many bytes on disk is opened before anybody asks.
const LARGE_BYTES: u64 = 32 * 1024 * 1024;
/// A collection whose writer panics again and again is opened anew no more often than this.
const REOPEN_PAUSE: Duration = Duration::from_secs(30);
/// When a collection that is being opened is worth asking again.
const OPENING_RETRY_MS: u32 = 500;

/// The collections of one node.
pub struct Store {
    node_id: NodeId,
    disk: Arc<dyn Disk>,
    clock: Arc<Clock>,
    searches: Searches,
    shelf: Arc<Shelf>,
    resources: Arc<Resources>,
    /// Held while the catalog changes, so that file, memory and open collections change together.
    changing: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    catalog: Catalog,
    routes: HashMap<String, Arc<Route>>,
}

/// Opens collections and removes their files.
struct Files {
    disk: Arc<dyn Disk>,
    indexers: Arc<Indexers>,
    clock: Arc<Clock>,
    runtime: tokio::runtime::Handle,
    resources: Arc<Resources>,
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
    NameInUse(#[from] vecino_mesh::catalog::NameInUse),
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
    /// Opens the catalog. Of the collections that this node keeps, as many as `open_max` are open at once, from when they
    /// are first asked for; a few small ones are opened here. Blocks.
    pub fn open(
        node_id: NodeId,
        disk: Arc<dyn Disk>,
        indexers: Arc<Indexers>,
        clock: Arc<Clock>,
        open_max: usize,
        runtime: tokio::runtime::Handle,
        resources: Arc<Resources>,
    ) -> Result<Self, StoreError> {
        let entries: Vec<CatalogEntry> = match read_verified(&*disk, CATALOG_FILE)? {
            Some(bytes) => rmp_serde::from_slice(&bytes)?,
            None => Vec::new(),
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let searches = Searches::new(processors, Arc::clone(indexers.tails()));
        let files = Files {
            disk: Arc::clone(&disk),
            indexers,
            clock: Arc::clone(&clock),
            runtime: runtime.clone(),
            resources: Arc::clone(&resources),
        };
        let store = Self {
            node_id,
            disk,
            clock,
            searches,
            shelf: Shelf::new(files, open_max, runtime),
            resources,
            changing: Mutex::new(()),
            state: RwLock::new(State::default()),
        };
        for entry in entries {
            store.clock.raise(entry.version);
            store.take_effect(entry);
        }
        store.remove_leftovers();
        let closed = store.shelf.closed_ones();
        if closed.len() <= EAGER_MAX {
            for id in closed.into_iter().filter(|id| store.disk_bytes(*id) < LARGE_BYTES) {
                // Why it cannot be is kept with it.
                let _ = store.shelf.open(id);
            }
        }
        Ok(store)
    }

    /// Opens large collections before anybody asks, since that takes long: the largest first, one after another, up to
    /// as many as may be open. Blocks.
    pub fn open_large(&self) {
        let sized = self.shelf.closed_ones().into_iter().map(|id| (self.disk_bytes(id), id));
        let mut large: Vec<(u64, CollectionId)> = sized.filter(|(bytes, _)| *bytes >= LARGE_BYTES).collect();
        large.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (_, id) in large {
            if !self.shelf.has_room() {
                break;
            }
            // Why it cannot be opened is kept with it.
            let _ = self.shelf.open(id);
        }
    }

    /// Bytes that a collection takes on disk; 0 where that cannot be told.
    fn disk_bytes(&self, id: CollectionId) -> u64 {
        persist::disk_bytes(&*self.disk, &format!("{COLLECTIONS}/{id}"))
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
        let is_made = match &entry.live {
            Some(live) if exclusive && change == Change::Created && live.placement.contains_key(&self.node_id) => {
                self.shelf.keep(Kept { name: entry.name.clone(), id: entry.id, schema: live.schema.clone() });
                if let Err(reason) = self.shelf.open(entry.id) {
                    self.discard(entry.id);
                    return Err(StoreError::Open { name: entry.name, reason: reason.to_string() });
                }
                true
            }
            _ => false,
        };
        self.clock.raise(entry.version);
        let entries: Vec<_> = next.entries().collect();
        let bytes = rmp_serde::to_vec_named(&entries).expect("a catalog of strings, numbers and bytes always encodes");
        if let Err(error) = self.keep_catalog(&bytes, entry.live.is_none()) {
            if is_made {
                self.discard(entry.id);
            }
            return Err(error.into());
        }
        let id = entry.id;
        let freed = self.take_effect(entry);
        if self.shelf.closed_ones().contains(&id) {
            // Why it cannot be opened is kept with it.
            let _ = self.shelf.open(id);
        }
        Ok(freed)
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

    /// A collection that this node keeps, opened if it was not. Waits for that, for a while.
    pub async fn collection(&self, id: CollectionId) -> Result<Collection, RpcError> {
        let node = self.node_id.short();
        self.shelf.get(id).await.map_err(|absent| match &absent {
            Absent::Unknown => RpcError::new(ErrorCode::NotFound, format_args!("node {node} keeps no collection {id}")),
            Absent::Failed { needs_copy, .. } => {
                let way_out = if *needs_copy { "; its data have to be copied from other replicas" } else { "" };
                let message = format_args!("collection {id} could not be opened on node {node}: {absent}{way_out}");
                RpcError::new(ErrorCode::Unavailable, message)
            }
            Absent::Opening { .. } => {
                let message = format_args!("collection {id} cannot be asked on node {node} yet: {absent}; try again");
                RpcError { retry: Retry::AfterMs(OPENING_RETRY_MS), ..RpcError::new(ErrorCode::NotReady, message) }
            }
            Absent::Stopping => RpcError::new(ErrorCode::NotReady, format_args!("node {node} is stopping")),
        })
    }

    /// Whether this node keeps a collection, open or not.
    pub fn keeps(&self, id: CollectionId) -> bool {
        self.shelf.keeps(id)
    }

    /// The collections that this node keeps and that are open.
    pub fn open_collections(&self) -> Vec<Collection> {
        self.shelf.open_ones()
    }

    /// What this node holds of each collection that it keeps.
    pub fn stats(&self) -> Vec<(String, CollectionStats)> {
        let kept: Vec<_> = self.read(|state| {
            let live = state.catalog.entries().filter(|entry| entry.live.is_some());
            live.map(|entry| {
                let has_name = state.routes.get(&entry.name).is_some_and(|route| route.id == entry.id);
                (entry.name.clone(), entry.id, has_name)
            })
            .collect()
        });
        let stats = |(name, id, has_name): (String, CollectionId, bool)| {
            let stats = self.shelf.stats(id)?;
            if has_name {
                return Some((name, stats));
            }
            let error = Some(format!("an older collection has the name {name:?}: drop that one to reach this"));
            Some((format!("{name}@{id}"), CollectionStats { error, ..stats }))
        };
        kept.into_iter().filter_map(stats).collect()
    }

    /// Tries again to open the collections that could not be opened, and closes idle ones where too many are open. Blocks.
    pub fn tend(&self) {
        self.shelf.retry_failed();
        self.shelf.make_room();
    }

    /// Opens those collections anew whose writer has panicked. Blocks.
    pub fn reopen_broken(&self) {
        self.shelf.reopen_broken(REOPEN_PAUSE);
    }

    /// Says how far those collections are that take long to open.
    pub fn tell_progress(&self) {
        self.shelf.tell_progress();
    }

    /// Closes every collection: writes that were accepted are finished, later ones refused. Blocks.
    pub fn close(&self) {
        self.shelf.close();
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

    /// Keeps or drops what a durable entry asks for. Gives the bytes of files that were removed.
    fn take_effect(&self, entry: CatalogEntry) -> u64 {
        let id = entry.id;
        let live = entry.live.as_ref().filter(|live| live.placement.contains_key(&self.node_id));
        let kept = live.map(|live| Kept { name: entry.name.clone(), id, schema: live.schema.clone() });
        let change = self.write(|state| {
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
            change
        });
        match (change, kept) {
            (Change::Created, Some(kept)) => {
                self.shelf.keep(kept);
                0
            }
            (Change::Dropped, _) => self.discard(id),
            (Change::Created, None) | (Change::None, _) => 0,
        }
    }

    /// Closes a collection and removes its files; gives how many bytes that were.
    fn discard(&self, id: CollectionId) -> u64 {
        if let Some(collection) = self.shelf.forget(id) {
            collection.close();
        }
        remove_files(&*self.disk, id)
    }

    /// Removes the files of collections that were dropped while the node was not there to remove them.
    fn remove_leftovers(&self) {
        let dropped: Vec<CollectionId> = self
            .read(|state| state.catalog.entries().filter(|entry| entry.live.is_none()).map(|entry| entry.id).collect());
        let there: HashSet<String> = self.disk.list(COLLECTIONS).unwrap_or_default().into_iter().collect();
        for id in dropped.into_iter().filter(|id| there.contains(&id.to_string())) {
            remove_files(&*self.disk, id);
        }
    }
}

impl Opener for Files {
    fn open(&self, kept: &Kept, progress: &Progress) -> Result<Collection, OpenError> {
        let Kept { name, id, schema } = kept;
        let opened = Collection::open_watched(
            Arc::clone(&self.disk),
            &format!("{COLLECTIONS}/{id}"),
            self.resources.share(name),
            *id,
            schema.clone(),
            Arc::clone(&self.indexers),
            self.runtime.clone(),
            progress,
        )?;
        if let Some(newest) = opened.newest_version() {
            self.clock.raise(newest);
        }
        Ok(opened)
    }

    fn remove(&self, id: CollectionId) {
        remove_files(&*self.disk, id);
    }
}

/// Removes what is on disk of a collection; gives how many bytes that were.
fn remove_files(disk: &dyn Disk, id: CollectionId) -> u64 {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vecino_model::{FieldSchema, Fields, Fsync, Metric, Payload, Record, RecordValue, Vector, Version};
    use vecino_storage::{Fault, FaultyDisk, MemDisk};

    use super::*;
    use crate::shelf::OPEN_MAX_DEFAULT;
    use vecino_engine::ballast::Ballast;
    use vecino_engine::indexers::Linkable;
    use vecino_engine::memory::Budget;

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
            Store::open(NODE, disk, indexers, clock, OPEN_MAX_DEFAULT, runtime, resources).unwrap()
        }

        fn get(&self, store: &Store, id: CollectionId) -> Result<Collection, RpcError> {
            self.runtime.block_on(store.collection(id))
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
        assert!(lab.get(&store, films.id).is_ok());
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
        let collection = lab.get(&store, films.id).unwrap_or_else(|error| panic!("{error}"));
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
        let error = lab.get(&store, films.id).err().unwrap();
        assert!(error.message.contains("of its limit of") && error.code == ErrorCode::Unavailable, "{error}");
        assert!(store.stats()[0].1.error.as_deref().unwrap().contains("--memory-limit"));
        store.tend();
        assert!(lab.get(&store, films.id).is_err());
        drop(other);
        store.tend();
        assert!(lab.get(&store, films.id).is_ok());
        assert_eq!(store.memory().limit_bytes, needed);
    }

    #[test]
    fn a_collection_that_could_not_be_opened_is_opened_when_the_cause_has_passed() {
        let lab = Lab::new();
        lab.open().merge(create("films", 1, 1), true).unwrap();
        lab.disk.set(Fault::EverySync);
        let store = lab.open();
        let id = CollectionId([1; 16]);
        let error = lab.get(&store, id).err().unwrap();
        assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
        store.tend();
        assert!(lab.get(&store, id).is_err());
        lab.disk.heal();
        store.tend();
        assert!(lab.get(&store, id).is_ok());
    }

    fn put(lab: &Lab, store: &Store, id: CollectionId, point: u64) {
        let collection = lab.get(store, id).unwrap();
        let vectors = BTreeMap::from([(String::new(), vecino_model::Vector(vec![1.0, point as f32]))]);
        let value = Some(vecino_model::RecordValue { vectors, payload: vec![0x80] });
        let version = Version { time: point, node: NODE };
        let record = vecino_model::Record { id: point.into(), version, value };
        lab.runtime.block_on(collection.apply(vec![record])).unwrap();
    }

    fn points(lab: &Lab, store: &Store, id: CollectionId) -> u64 {
        lab.get(store, id).unwrap().stats().points
    }

    /// Keeps the linking threads from anything else until it is let go of.
    struct Hold(Mutex<()>);

    impl Linkable for Hold {
        fn indexes(&self) -> Vec<&vecino_index::Index> {
            drop(self.0.lock().unwrap());
            Vec::new()
        }
    }

    /// Searches that may run at once.
    fn searches_at_once(lab: &Lab, store: &Store) -> usize {
        lab.runtime.block_on(async {
            let mut permits = Vec::new();
            while let Ok(permit) = tokio::time::timeout(Duration::ZERO, store.search_permit()).await {
                permits.push(permit);
            }
            permits.len()
        })
    }

    #[test]
    fn linking_all_but_stops_no_more_while_clients_search_for_searches_leave_it_half_of_the_processors() {
        let lab = Lab::new();
        let store = lab.open();
        let id = CollectionId([1; 16]);
        store.merge(create("films", 1, 1), true).unwrap();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(searches_at_once(&lab, &store), 2 * processors);

        let hold = Arc::new(Hold(Mutex::new(())));
        let held = hold.0.lock().unwrap();
        let linkable: Arc<dyn Linkable> = Arc::clone(&hold) as _;
        lab.indexers.wake(&linkable);
        let collection = lab.get(&store, id).unwrap_or_else(|error| panic!("{error}"));
        let record = |id: u64| Record {
            id: id.into(),
            version: Version { time: id, node: NODE },
            value: Some(RecordValue {
                vectors: Fields::from([(String::new(), Vector(vec![id as f32, 1.0]))]),
                payload: vec![0x80],
            }),
        };
        // So many that a graph is made of them, of which nothing is linked yet.
        let mut ids = 1..;
        while collection.unlinked() <= vecino_engine::tails::TAIL_LONG {
            lab.runtime.block_on(collection.apply(ids.by_ref().take(1_000).map(record).collect())).unwrap();
        }
        assert_eq!(searches_at_once(&lab, &store), (processors / 2).max(1));

        drop(held);
        while collection.unlinked() > 0 {
            std::thread::yield_now();
        }
        // The thread that linked the last one says so a moment later.
        while searches_at_once(&lab, &store) < 2 * processors {
            std::thread::yield_now();
        }
    }

    #[test]
    fn of_many_collections_none_is_opened_before_it_is_asked_for() {
        let lab = Lab::new();
        let store = lab.open();
        for id in 1..=20 {
            store.merge(create(&format!("c{id}"), id, u64::from(id)), true).unwrap();
        }
        put(&lab, &store, CollectionId([7; 16]), 5);
        store.close();
        drop(store);
        let store = lab.open();
        assert!(store.open_collections().is_empty());
        assert!(store.stats().iter().all(|(_, stats)| stats.serving == vecino_model::Serving::Closed));
        assert_eq!(points(&lab, &store, CollectionId([7; 16])), 1);
        assert_eq!(store.open_collections().len(), 1);
    }

    #[test]
    fn a_collection_that_is_closed_is_dropped_with_its_files_and_its_name_begins_anew() {
        let lab = Lab::new();
        let store = lab.open();
        for id in 1..=20 {
            store.merge(create(&format!("c{id}"), id, u64::from(id)), true).unwrap();
        }
        let old = CollectionId([7; 16]);
        put(&lab, &store, old, 5);
        store.close();
        drop(store);
        let store = lab.open();
        assert!(lab.memory.list(COLLECTIONS).unwrap().contains(&old.to_string()));
        store.merge(drop_of(&create("c7", 7, 7), 30), false).unwrap();
        assert!(!lab.memory.list(COLLECTIONS).unwrap().contains(&old.to_string()), "it takes no room any more");
        assert_eq!(lab.get(&store, old).err().unwrap().code, ErrorCode::NotFound);
        store.merge(create("c7", 77, 31), true).unwrap();
        let new = store.route("c7").unwrap().id;
        assert_eq!((new, points(&lab, &store, new)), (CollectionId([77; 16]), 0));
        store.close();
        drop(store);
        let store = lab.open();
        assert_eq!(points(&lab, &store, new), 0, "nor after a restart");
    }

    #[test]
    fn a_few_small_collections_are_open_from_the_start() {
        let lab = Lab::new();
        lab.open().merge(create("films", 1, 1), true).unwrap();
        assert_eq!(lab.open().open_collections().len(), 1);
    }

    #[test]
    fn a_collection_that_is_damaged_says_where_its_data_can_come_from() {
        let lab = Lab::new();
        let store = lab.open();
        store.merge(create("films", 1, 1), true).unwrap();
        store.merge(create("songs", 2, 2), true).unwrap();
        let id = CollectionId([1; 16]);
        put(&lab, &store, id, 5);
        store.close();
        drop(store);
        let log = format!("{COLLECTIONS}/{id}/log");
        let segment = lab.memory.list(&log).unwrap().remove(0);
        assert!(lab.memory.flip(&format!("{log}/{segment}"), 20, 1));
        let store = lab.open();
        let stats: BTreeMap<String, CollectionStats> = store.stats().into_iter().collect();
        assert_eq!(stats["films"].serving, vecino_model::Serving::NeedsCopy);
        assert!(stats["films"].error.as_ref().unwrap().contains(&segment), "{:?}", stats["films"].error);
        assert_eq!(stats["songs"].serving, vecino_model::Serving::Open, "the others serve");
        let error = lab.get(&store, id).err().unwrap();
        assert!(error.message.ends_with("have to be copied from other replicas"), "{error}");
    }
}
