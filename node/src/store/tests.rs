//! The store over a disk in memory.

use std::collections::BTreeMap;

use vecino_model::{
    CollectionSchema, FieldSchema, Fields, Fsync, LiveCollection, Metric, Outcome, Record, RecordValue, Vector, Version,
};
use vecino_net::message::ReplicaApply;
use vecino_storage::{Fault, FaultyDisk, MemDisk};

use super::*;
use crate::collection_files::COLLECTIONS;
use crate::open_collections::OPEN_MAX_DEFAULT;
use crate::replica::ReplicaRequest;
use crate::wall_clock::{SystemClock, WallClock};
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
        let (indexers, clock) = (Arc::clone(&self.indexers), Arc::new(SystemClock));
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
        version: Version { time, node: NODE, seq: 0 },
        id: CollectionId([id; 16]),
        live: Some(LiveCollection { schema, placement: BTreeMap::from([(NODE, vec![1])]) }),
    }
}

fn drop_of(entry: &CatalogEntry, time: u64) -> CatalogEntry {
    CatalogEntry { version: Version { time, node: NODE, seq: 0 }, live: None, ..entry.clone() }
}

#[test]
fn a_tombstone_of_a_create_that_failed_elsewhere_leaves_the_collection_of_that_name_alone() {
    let lab = Lab::new();
    let store = lab.open();
    let films = create("films", 1, 1);
    store.apply(films.clone()).unwrap();
    store.merge_all(vec![drop_of(&create("films", 2, 2), 3)]).unwrap();
    assert_eq!(store.route("films").unwrap().id, films.id);
    assert!(lab.get(&store, films.id).is_ok());
    // A second collection of that name, from the other side of a partition, is kept and reported.
    store.merge_all(vec![create("films", 3, 4)]).unwrap();
    let stats = store.stats();
    assert_eq!(stats.len(), 2);
    assert!(stats.iter().any(|(name, stats)| name.starts_with("films@") && stats.error.is_some()));
    store.merge_all(vec![drop_of(&films, 5)]).unwrap();
    assert_eq!(store.route("films").unwrap().id, CollectionId([3; 16]));
    assert_eq!(lab.memory.list(COLLECTIONS).unwrap(), [CollectionId([3; 16]).to_string()]);
}

#[test]
fn a_collection_that_cannot_be_made_is_refused_and_leaves_nothing() {
    let lab = Lab::new();
    let store = lab.open();
    lab.disk.set(Fault::Room(0));
    let error = store.apply(create("films", 1, 1)).unwrap_err();
    assert!(matches!(&error, StoreError::Open { name, .. } if name == "films"), "{error}");
    assert!(store.route("films").is_none() && store.entries().is_empty());
    lab.disk.heal();
    store.apply(create("films", 2, 2)).unwrap();
    assert_eq!(store.open_collections().len(), 1);
}

#[test]
fn a_drop_is_taken_on_a_full_disk_and_says_what_it_freed() {
    let lab = Lab::new();
    let disk: Arc<dyn Disk> = Arc::new(lab.disk.clone());
    let ballast = Ballast::load(disk, 64 * 1024);
    let store = lab.open_with(Arc::new(Resources { memory: Budget::unlimited(), ballast }));
    let films = create("films", 1, 1);
    assert_eq!(store.apply(films.clone()).unwrap(), 0);
    lab.disk.set(Fault::Room(0));
    let error = store.apply(create("more", 2, 2)).unwrap_err();
    assert!(matches!(&error, StoreError::Open { reason, .. } if reason.to_string().contains("full")), "{error}");
    let log = format!("{COLLECTIONS}/{}/log/{:020}.log", films.id, 1);
    let there = lab.memory.open_read(&log).unwrap().len().unwrap();
    let freed = store.merge_all(vec![drop_of(&films, 3)]).unwrap();
    assert!(freed >= there && there > 0, "{freed} bytes, and the log had {there}");
    assert!(!store.resources().ballast.is_whole());
    assert_eq!(store.merge_all(vec![drop_of(&films, 3)]).unwrap(), 0, "it is dropped already");
    // It is gone for good: the catalog was written.
    drop(store);
    assert!(lab.open().live().is_empty());
}

#[test]
fn a_collection_that_does_not_fit_into_memory_is_opened_when_another_is_gone() {
    let lab = Lab::new();
    let films = create("films", 1, 1);
    let store = lab.open();
    store.apply(films.clone()).unwrap();
    let collection = lab.get(&store, films.id).unwrap_or_else(|error| panic!("{error}"));
    let record = |id: u64| Record {
        id: id.into(),
        version: Version { time: id, node: NODE, seq: 0 },
        value: Some(RecordValue {
            vectors: Fields::from([(String::new(), Vector(vec![1.0, 2.0]))]),
            payload: Default::default(),
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
    store.retry_failed();
    assert!(lab.get(&store, films.id).is_err());
    drop(other);
    store.retry_failed();
    assert!(lab.get(&store, films.id).is_ok());
    assert_eq!(store.memory().limit_bytes, needed);
}

#[test]
fn a_collection_that_could_not_be_opened_is_opened_when_the_cause_has_passed() {
    let lab = Lab::new();
    lab.open().apply(create("films", 1, 1)).unwrap();
    lab.disk.set(Fault::EverySync);
    let store = lab.open();
    let id = CollectionId([1; 16]);
    let error = lab.get(&store, id).err().unwrap();
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
    store.retry_failed();
    assert!(lab.get(&store, id).is_err());
    lab.disk.heal();
    store.retry_failed();
    assert!(lab.get(&store, id).is_ok());
}

fn put(lab: &Lab, store: &Store, id: CollectionId, point: u64) {
    let collection = lab.get(store, id).unwrap();
    let vectors = BTreeMap::from([(String::new(), vecino_model::Vector(vec![1.0, point as f32]))]);
    let value = Some(vecino_model::RecordValue { vectors, payload: Default::default() });
    let version = Version { time: point, node: NODE, seq: 0 };
    let record = vecino_model::Record { id: point.into(), version, value };
    lab.runtime.block_on(collection.apply(vec![record])).unwrap();
}

#[test]
fn a_record_from_the_future_is_kept_like_any() {
    let (lab, entry) = (Lab::new(), create("films", 1, 1));
    let store = Arc::new(lab.open());
    store.apply(entry.clone()).unwrap();
    let record = |id: u64, time| {
        let vectors = BTreeMap::from([(String::new(), Vector(vec![1.0, 0.0]))]);
        let value = Some(RecordValue { vectors, payload: Default::default() });
        Record { id: id.into(), version: Version { time, node: NODE, seq: 0 }, value }
    };
    let apply = |records| {
        let request = ReplicaApply { collection: entry.id, records };
        lab.runtime.block_on(request.answer(&store)).unwrap()
    };
    let written = |time| Outcome::Written(Version { time, node: NODE, seq: 0 });
    let future = (NOON_MS + 300 * HOUR_MS * 24 * 365) << 16;
    assert_eq!(apply(vec![record(1, 5), record(2, future), record(3, 6)]), [written(5), written(future), written(6)]);
    assert_eq!(apply(vec![record(2, future + 1)]), [written(future + 1)], "and overwritten");
    assert_eq!(apply(vec![record(4, 7), record(5, 8)]), [written(7), written(8)]);
    assert_eq!(points(&lab, &store, entry.id), 5);
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
    store.apply(create("films", 1, 1)).unwrap();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(searches_at_once(&lab, &store), 2 * processors);

    let hold = Arc::new(Hold(Mutex::new(())));
    let held = hold.0.lock().unwrap();
    let linkable: Arc<dyn Linkable> = Arc::clone(&hold) as _;
    lab.indexers.wake(&linkable);
    let collection = lab.get(&store, id).unwrap_or_else(|error| panic!("{error}"));
    let record = |id: u64| Record {
        id: id.into(),
        version: Version { time: id, node: NODE, seq: 0 },
        value: Some(RecordValue {
            vectors: Fields::from([(String::new(), Vector(vec![id as f32, 1.0]))]),
            payload: Default::default(),
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
        store.apply(create(&format!("c{id}"), id, u64::from(id))).unwrap();
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
        store.apply(create(&format!("c{id}"), id, u64::from(id))).unwrap();
    }
    let old = CollectionId([7; 16]);
    put(&lab, &store, old, 5);
    store.close();
    drop(store);
    let store = lab.open();
    assert!(lab.memory.list(COLLECTIONS).unwrap().contains(&old.to_string()));
    store.merge_all(vec![drop_of(&create("c7", 7, 7), 30)]).unwrap();
    assert!(!lab.memory.list(COLLECTIONS).unwrap().contains(&old.to_string()), "it takes no room any more");
    assert_eq!(lab.get(&store, old).err().unwrap().code, ErrorCode::NotFound);
    store.apply(create("c7", 77, 31)).unwrap();
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
    lab.open().apply(create("films", 1, 1)).unwrap();
    assert_eq!(lab.open().open_collections().len(), 1);
}

#[test]
fn a_collection_that_is_damaged_says_where_its_data_can_come_from() {
    let lab = Lab::new();
    let store = lab.open();
    store.apply(create("films", 1, 1)).unwrap();
    store.apply(create("songs", 2, 2)).unwrap();
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

/// A wall clock that stands where it is set.
#[derive(Clone, Default)]
struct SetClock(Arc<std::sync::atomic::AtomicU64>);

impl WallClock for SetClock {
    fn now_ms(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

const NOON_MS: u64 = 1_700_000_000_000;
const HOUR_MS: u64 = 3_600_000;

impl Lab {
    /// A store of a node whose wall clock says this.
    fn open_at(&self, now_ms: u64) -> (Store, SetClock) {
        let wall = SetClock::default();
        wall.0.store(now_ms, std::sync::atomic::Ordering::Relaxed);
        let clock = Arc::new(wall.clone());
        let (indexers, disk) = (Arc::clone(&self.indexers), Arc::new(self.disk.clone()));
        let runtime = self.runtime.handle().clone();
        let resources = Resources::unlimited();
        (Store::open(NODE, disk, indexers, clock, OPEN_MAX_DEFAULT, runtime, resources).unwrap(), wall)
    }
}

#[test]
fn an_entry_of_a_node_with_a_wrong_clock_is_passed_over_until_its_time_has_come() {
    let lab = Lab::new();
    let (store, _) = lab.open_at(NOON_MS);
    // A node an hour ahead made an entry at home, failed to make the others take it, and has only its tombstone left.
    let failed = drop_of(&create("films", 1, 0), (NOON_MS + HOUR_MS) << 16);
    let sound = create("songs", 2, NOON_MS << 16);
    store.merge_all(vec![failed.clone(), sound]).unwrap();
    assert_eq!(store.live().len(), 1, "what is sound among the entries is taken over");
    assert_eq!(store.entries().len(), 1, "what is ahead is not");
    // A catalog that was written when entries were still taken whatever their version does no harm either.
    drop(store);
    let bytes = catalog_file::encode([failed].iter());
    write_atomically(&lab.disk, CATALOG_FILE, &bytes).unwrap();
    let (store, wall) = lab.open_at(NOON_MS);
    // Once its time has come, an entry is taken over.
    let late = create("late", 3, (NOON_MS + HOUR_MS) << 16);
    store.merge_all(vec![late.clone()]).unwrap();
    assert!(store.route("late").is_none());
    wall.0.store(NOON_MS + HOUR_MS, std::sync::atomic::Ordering::Relaxed);
    store.merge_all(vec![late]).unwrap();
    assert!(store.route("late").is_some());
}

/// Ten thousand entries were ten thousand writes of the whole catalog, each after a look at every entry for its name.
#[test]
fn a_node_that_joins_takes_over_ten_thousand_entries_with_one_write() {
    let lab = Lab::new();
    let store = lab.open();
    let elsewhere = NodeId::from_bytes([2; 16]);
    let entry = |number: u64| {
        let mut entry = create(&format!("c{number}"), 0, number);
        entry.id = CollectionId(std::array::from_fn(|byte| if byte < 8 { number.to_le_bytes()[byte] } else { 7 }));
        entry.live.as_mut().unwrap().placement = BTreeMap::from([(elsewhere, vec![1])]);
        entry
    };
    let before = lab.disk.operations();
    store.merge_all((1..=10_000).map(entry).collect()).unwrap();
    let operations = lab.disk.operations() - before;
    assert!(operations < 20, "one file is replaced: {operations} operations on the disk");
    assert_eq!(store.route("c9999").unwrap().id, entry(9_999).id);
    let before = lab.disk.operations();
    store.merge_all((1..=10_000).map(entry).collect()).unwrap();
    assert_eq!(lab.disk.operations(), before, "nothing is new, so nothing is written");
    drop(store);
    assert_eq!(lab.open().live().len(), 10_000);
}
