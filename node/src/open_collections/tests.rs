//! Open collections over a disk in memory, with a gate before every opening.

use std::collections::BTreeMap;
use std::sync::Condvar;

use vecino_model::{FieldSchema, Fields, Fsync, Metric, NodeId, PointId, Record, RecordValue, Vector, Version};
use vecino_storage::{Disk, Fault, FaultyDisk, MemDisk};

use super::*;
use vecino_engine::ballast::Ballast;
use vecino_engine::indexers::Indexers;
use vecino_engine::memory::Budget;
use vecino_engine::resources::Resources;
use vecino_engine::{ApplyError, TakeError};

/// Which openings are held up, and how many were begun.
#[derive(Default)]
struct Gate {
    held: Mutex<Vec<CollectionId>>,
    begun: Mutex<Vec<CollectionId>>,
    changed: Condvar,
}

impl Gate {
    fn hold(&self, id: CollectionId) {
        self.held.lock().unwrap().push(id);
    }

    fn release(&self) {
        self.held.lock().unwrap().clear();
        self.changed.notify_all();
    }

    fn pass(&self, id: CollectionId) {
        self.begun.lock().unwrap().push(id);
        self.changed.notify_all();
        let held = self.held.lock().unwrap();
        drop(self.changed.wait_while(held, |held| held.contains(&id)).unwrap());
    }

    fn await_begun(&self, id: CollectionId) {
        let begun = self.begun.lock().unwrap();
        drop(self.changed.wait_while(begun, |begun| !begun.contains(&id)).unwrap());
    }
}

struct Lab {
    disk: FaultyDisk,
    gate: Arc<Gate>,
    indexers: Arc<Indexers>,
    runtime: tokio::runtime::Runtime,
    resources: Arc<Resources>,
}

struct Gated {
    disk: FaultyDisk,
    gate: Arc<Gate>,
    indexers: Arc<Indexers>,
    runtime: tokio::runtime::Handle,
    resources: Arc<Resources>,
}

const CURSED: CollectionId = id(99);

impl Opener for Gated {
    fn open(&self, kept: &CollectionSpec, _: &Progress) -> Result<Collection, OpenError> {
        self.gate.pass(kept.id);
        assert!(kept.id != CURSED, "an opening that panics");
        let CollectionSpec { name, id, schema } = kept;
        let (disk, indexers) = (Arc::new(self.disk.clone()), Arc::clone(&self.indexers));
        Collection::open(
            disk,
            &id.to_string(),
            self.resources.share(name),
            *id,
            schema.clone(),
            indexers,
            self.runtime.clone(),
        )
    }

    fn remove(&self, id: CollectionId) {
        self.disk.remove_dir_all(&id.to_string()).unwrap();
    }
}

const fn id(number: u8) -> CollectionId {
    CollectionId([number; 16])
}

impl Lab {
    fn new() -> Self {
        Self {
            disk: FaultyDisk::new(Arc::new(MemDisk::new())),
            gate: Arc::default(),
            indexers: Arc::new(Indexers::start(1).unwrap()),
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
            resources: Resources::unlimited(),
        }
    }

    fn collections(&self, open_max: usize, numbers: &[u8]) -> Arc<OpenCollections> {
        let (disk, gate, indexers) = (self.disk.clone(), Arc::clone(&self.gate), Arc::clone(&self.indexers));
        let (runtime, resources) = (self.runtime.handle().clone(), Arc::clone(&self.resources));
        let opener = Gated { disk, gate, indexers, runtime, resources };
        let collections = OpenCollections::new(opener, open_max, self.runtime.handle().clone());
        for number in numbers {
            let field = FieldSchema {
                dim: 1,
                metric: Metric::Euclidean,
                m: 4,
                ef_construction: 10,
                profile: Default::default(),
            };
            let fields = BTreeMap::from([(String::new(), field)]);
            let schema = CollectionSchema { fields, replication_factor: 1, fsync: Fsync::Always };
            collections.keep(CollectionSpec { name: format!("c{number}"), id: id(*number), schema });
        }
        collections
    }

    fn get(&self, collections: &Arc<OpenCollections>, number: u8) -> Result<Collection, NotOpen> {
        self.runtime.block_on(collections.get(id(number)))
    }

    /// Who opened a collection for another may hold it for a moment longer than that one.
    fn until_idle(&self, collections: &OpenCollections) {
        while !collections.lock().by_id.values().filter_map(Place::open).all(Collection::is_idle) {
            self.runtime.block_on(tokio::task::yield_now());
        }
    }

    fn put(&self, collection: &Collection, point: u64) {
        let vectors = Fields::from([(String::new(), Vector(vec![point as f32]))]);
        let version = Version { time: point + 1, node: NodeId::from_bytes([1; 16]), seq: 0 };
        let value = Some(RecordValue { vectors, payload: Default::default() });
        self.runtime.block_on(collection.apply(vec![Record { id: point.into(), version, value }])).unwrap();
        self.settle(collection);
    }

    /// What is not linked is not idle.
    fn settle(&self, collection: &Collection) {
        while collection.unlinked() > 0 {
            std::thread::yield_now();
        }
    }
}

fn open_ids(collections: &OpenCollections) -> Vec<CollectionId> {
    let mut ids: Vec<CollectionId> = collections.open_ones().iter().map(Collection::id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn what_is_idle_longest_is_closed_and_has_everything_when_it_is_opened_again() {
    let lab = Lab::new();
    let collections = lab.collections(2, &[1, 2, 3, 4, 5]);
    assert!(collections.open_ones().is_empty(), "nobody asked for any");
    for number in 1..=5 {
        let collection = lab.get(&collections, number).unwrap();
        lab.put(&collection, u64::from(number));
        drop(collection);
        lab.until_idle(&collections);
        collections.make_room();
        assert!(collections.open_ones().len() <= 2);
    }
    assert_eq!(open_ids(&collections), [id(4), id(5)]);
    drop(lab.get(&collections, 4).unwrap());
    drop(lab.get(&collections, 1).unwrap());
    lab.until_idle(&collections);
    let first = lab.get(&collections, 1).unwrap();
    collections.make_room();
    assert_eq!(open_ids(&collections), [id(1), id(4)], "5 was idle longer than 4");
    assert!(first.read(&[PointId::Number(1)])[0].is_some());
    let closed = collections.stats(id(2)).unwrap();
    assert_eq!((closed.serving, closed.points), (Serving::Closed, 1), "what it held is still known");
    assert_eq!(collections.stats(id(1)).unwrap().serving, Serving::Open);
}

#[test]
fn one_that_is_in_use_is_not_closed() {
    let lab = Lab::new();
    let collections = lab.collections(1, &[1, 2, 3]);
    let held: Vec<Collection> = (1..=3).map(|number| lab.get(&collections, number).unwrap()).collect();
    collections.make_room();
    assert_eq!(open_ids(&collections), [id(1), id(2), id(3)]);
    held.iter().for_each(|collection| lab.put(collection, 7));
    drop(held);
    collections.make_room();
    assert_eq!(open_ids(&collections), [id(3)]);
}

#[test]
fn requests_wait_for_one_that_is_being_opened_and_others_do_not() {
    let lab = Lab::new();
    let collections = lab.collections(10, &[1, 2]);
    lab.gate.hold(id(1));
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let collections = Arc::clone(&collections);
            lab.runtime.spawn(async move { collections.get(id(1)).await.map(|collection| collection.id()) })
        })
        .collect();
    lab.gate.await_begun(id(1));
    assert_eq!(collections.stats(id(1)).unwrap().serving, Serving::Opening);
    assert_eq!(lab.get(&collections, 2).unwrap().id(), id(2));
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    lab.gate.release();
    for waiting in waiting {
        assert_eq!(lab.runtime.block_on(waiting).unwrap().unwrap(), id(1));
    }
    assert_eq!(lab.gate.begun.lock().unwrap().iter().filter(|begun| **begun == id(1)).count(), 1, "opened once");
}

#[test]
fn a_request_does_not_wait_for_ever() {
    let lab = Lab::new();
    let collections = lab.collections(10, &[1]);
    let mut impatient = Arc::into_inner(collections).unwrap();
    impatient.opening_wait = Duration::from_millis(20);
    let collections = Arc::new(impatient);
    lab.gate.hold(id(1));
    let said = lab.get(&collections, 1).map(|collection| collection.id()).unwrap_err();
    assert!(matches!(said, NotOpen::Opening { .. }), "{said}");
    assert!(said.to_string().contains("being opened"), "{said}");
    lab.gate.release();
    // By the same opening, which went on.
    while collections.open_ones().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(lab.get(&collections, 1).unwrap().id(), id(1));
}

#[test]
fn one_that_is_dropped_while_it_is_opened_leaves_nothing() {
    let lab = Lab::new();
    let collections = lab.collections(10, &[1]);
    lab.gate.hold(id(1));
    let waiting = {
        let collections = Arc::clone(&collections);
        lab.runtime.spawn(async move { collections.get(id(1)).await.map(|collection| collection.id()) })
    };
    lab.gate.await_begun(id(1));
    assert!(collections.forget(id(1)).is_none());
    assert!(matches!(lab.runtime.block_on(waiting).unwrap(), Err(NotOpen::Unknown)));
    lab.gate.release();
    drop(lab.runtime);
    assert_eq!(lab.disk.list("").unwrap(), Vec::<String>::new());
}

#[test]
fn an_opening_that_panics_is_a_failure_with_a_reason() {
    let lab = Lab::new();
    let collections = lab.collections(10, &[99]);
    let said = lab.get(&collections, 99).map(|collection| collection.id()).unwrap_err();
    assert!(
        matches!(&said, NotOpen::Failed { reason, needs_copy: false } if reason.contains("opening a collection panicked: an opening that panics")),
        "{said}"
    );
    assert_eq!(collections.stats(CURSED).unwrap().serving, Serving::Failed);
}

#[test]
fn nothing_is_opened_while_the_node_stops() {
    let lab = Lab::new();
    let collections = lab.collections(10, &[1, 2]);
    let open = lab.get(&collections, 1).unwrap();
    collections.close();
    assert!(matches!(lab.get(&collections, 2), Err(NotOpen::Stopping)));
    assert!(lab.runtime.block_on(open.apply(Vec::new())).is_err(), "the writer has stopped");
}

#[test]
fn what_nobody_asked_for_lately_makes_room_in_memory_for_what_is_asked_for() {
    let mut lab = Lab::new();
    let collections = lab.collections(10, &[1, 2]);
    let mut needed = 0;
    for number in [1, 2] {
        let collection = lab.get(&collections, number).unwrap();
        (0..300).for_each(|point| lab.put(&collection, point));
        needed = collection.stats().memory_bytes;
    }
    collections.close();
    drop(collections);
    lab.resources = Arc::new(Resources { memory: Budget::new(needed * 3 / 2, 0), ballast: Ballast::none() });
    let mut collections = lab.collections(10, &[1, 2]);
    drop(lab.get(&collections, 1).unwrap());
    // One was asked for just now, and is not closed for the other's sake.
    let failed = |absent| matches!(absent, NotOpen::Failed { reason, .. } if reason.contains("limit"));
    assert!(failed(lab.get(&collections, 2).err().unwrap()));
    // What was opened in the background has let go of the collections by and by.
    while Arc::strong_count(&collections) > 1 {
        std::thread::yield_now();
    }
    Arc::get_mut(&mut collections).unwrap().idle_min = Duration::ZERO;
    // One that is in use is not closed either.
    let in_use = lab.get(&collections, 1).unwrap();
    collections.retry_failed();
    assert_eq!(open_ids(&collections), [id(1)]);
    lab.settle(&in_use);
    drop(in_use);
    collections.retry_failed();
    assert_eq!(open_ids(&collections), [id(2)]);
    let second = lab.get(&collections, 2).unwrap();
    lab.settle(&second);
    assert_eq!(second.stats().memory_bytes, lab.resources.memory.used());
    drop(second);
    assert_eq!(collections.stats(id(1)).unwrap().memory_bytes, 0);
    assert!(lab.get(&collections, 1).unwrap().read(&[PointId::Number(7)])[0].is_some());
}

#[test]
fn a_collection_whose_writer_panics_says_so_and_is_opened_anew_with_everything_that_was_acknowledged() {
    let lab = Lab::new();
    let collections = lab.collections(10, &[1]);
    let collection = lab.get(&collections, 1).unwrap();
    lab.put(&collection, 5);
    lab.disk.set(Fault::NthPanics(lab.disk.operations() + 1));
    let vectors = Fields::from([(String::new(), Vector(vec![6.0]))]);
    let value = Some(RecordValue { vectors, payload: Default::default() });
    let record =
        Record { id: 6.into(), version: Version { time: 7, node: NodeId::from_bytes([1; 16]), seq: 0 }, value };
    let error = lab.runtime.block_on(collection.apply(vec![record.clone()])).unwrap_err();
    assert!(matches!(error, ApplyError::Lost(_)), "{error}");
    while !collection.is_broken() {
        std::thread::yield_now();
    }
    let error = lab.runtime.block_on(collection.apply(vec![record.clone()])).unwrap_err();
    assert!(error.to_string().contains("its writer panicked (injected fault: operation"), "{error}");
    let told = collections.stats(id(1)).unwrap();
    assert_eq!(told.serving, Serving::Open, "what is there is read and found");
    assert!(told.error.unwrap().contains("its writer panicked (injected fault: operation"));
    assert!(collection.read(&[PointId::Number(5)])[0].is_some());
    collections.reopen_broken(Duration::ZERO);
    assert!(collections.stats(id(1)).unwrap().error.is_some(), "somebody holds it");

    drop(collection);
    collections.reopen_broken(Duration::ZERO);
    assert_eq!(collections.stats(id(1)).unwrap().error, None);
    let collection = lab.get(&collections, 1).unwrap();
    assert!(collection.read(&[PointId::Number(5)])[0].is_some());
    lab.runtime.block_on(collection.apply(vec![record.clone()])).unwrap();
    assert!(collection.read(&[PointId::Number(6)])[0].is_some());

    lab.disk.set(Fault::NthPanics(lab.disk.operations() + 1));
    let record = Record { version: Version { time: 8, ..record.version }, ..record };
    assert!(lab.runtime.block_on(collection.apply(vec![record])).is_err());
    // The answer is lost before the panic has been counted.
    while !collection.is_broken() {
        std::thread::yield_now();
    }
    drop(collection);
    collections.reopen_broken(Duration::from_secs(3_600));
    assert!(collections.stats(id(1)).unwrap().error.is_some(), "it was opened anew a moment ago");
}

#[test]
fn a_snapshot_that_panics_is_told_and_the_next_one_is_taken() {
    let lab = Lab::new();
    let collections = lab.collections(10, &[1]);
    let collection = lab.get(&collections, 1).unwrap();
    lab.put(&collection, 5);
    // The log is flushed already, so the snapshot has the next operation.
    lab.disk.set(Fault::NthPanics(lab.disk.operations() + 1));
    let error = collection.snapshot().unwrap_err();
    assert!(matches!(error, TakeError::Panicked { .. }), "{error}");
    assert!(collection.stats().error.unwrap().contains("its last snapshot panicked (injected fault"));
    lab.put(&collection, 6);
    assert_eq!(collection.snapshot().unwrap().lsn, 3);
    assert_eq!(collection.stats().error, None);
}
