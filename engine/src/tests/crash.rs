//! Power cuts at every write and every flush of a collection's life.
//!
//! A workload of puts, overwrites, deletes and snapshots is stopped at each operation that changes the disk, done or not;
//! then the power goes, and of what was not flushed an adversarial mix is kept. What comes back has every acknowledged
//! write, the batch that was under way in full or not at all, and answers searches as a scan of the model does.

use fastrand::Rng;
use vecino_storage::Disk;

use super::*;

const IDS: u64 = 24;
const SEEDS: u64 = 24;
const STEPS: usize = 10;
const WIDTH: usize = 3;

/// What has to be there.
#[derive(Default)]
struct Model {
    acknowledged: BTreeMap<u64, Record>,
    /// The batch that was under way when the disk stopped.
    in_doubt: Vec<Record>,
    time: u64,
}

/// The disk has stopped.
struct Stopped;

struct World {
    runtime: tokio::runtime::Runtime,
    indexers: Arc<Indexers>,
}

impl World {
    fn new() -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            indexers: Arc::new(Indexers::start(1).unwrap()),
        }
    }

    /// Opens the collection with segments that a few batches fill.
    fn open(&self, disk: &Arc<dyn Disk>, seed: u64) -> Result<Collection, OpenError> {
        let field = FieldSchema {
            dim: WIDTH as u32,
            metric: Metric::Euclidean,
            m: 4,
            ef_construction: 10,
            profile: Default::default(),
        };
        let schema = CollectionSchema { fields: BTreeMap::from([(String::new(), field)]), ..schema() };
        let id = CollectionId([1; 16]);
        let segment_bytes = [500, 2_000, 15_000][seed as usize % 3];
        let opened = opening::recover(
            Arc::clone(disk),
            "films",
            id,
            &schema,
            segment_bytes,
            Resources::unlimited().share("films"),
            &Progress::default(),
        )?;
        Collection::start(opened, id, schema, Arc::clone(&self.indexers), self.runtime.handle().clone())
    }

    fn work(&self, collection: &Collection, model: &mut Model, random: &mut Rng, steps: usize) -> Result<(), Stopped> {
        for _ in 0..steps {
            if random.u8(0..5) == 0 {
                collection.snapshot().map_err(|_| Stopped)?;
                continue;
            }
            let batch: Vec<Record> = (0..random.usize(1..5))
                .map(|_| {
                    model.time += 1;
                    record(random.u64(0..IDS), model.time, random.u8(0..4) == 0)
                })
                .collect();
            match self.runtime.block_on(collection.apply(batch.clone())) {
                Ok(outcomes) => {
                    let stopped = outcomes.iter().any(|outcome| !matches!(outcome, Outcome::Written(_)));
                    for (outcome, record) in outcomes.into_iter().zip(batch) {
                        match outcome {
                            Outcome::Written(version) => {
                                assert_eq!(version, record.version);
                                model.acknowledge(vec![record]);
                            }
                            Outcome::Unknown(_) => model.in_doubt.push(record),
                            Outcome::Unavailable(_) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                    if stopped {
                        return Err(Stopped);
                    }
                }
                Err(_) => {
                    model.in_doubt = batch;
                    return Err(Stopped);
                }
            }
        }
        Ok(())
    }

    /// A life on a disk that may stop.
    fn live(&self, disk: &FaultyDisk, seed: u64) -> Model {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (mut model, mut random) = (Model::default(), Rng::with_seed(seed));
        for _ in 0..2 {
            let Ok(collection) = self.open(&shared, seed) else { break };
            let worked = self.work(&collection, &mut model, &mut random, STEPS / 2);
            collection.close();
            if worked.is_err() {
                break;
            }
        }
        model
    }
}

impl Model {
    fn acknowledge(&mut self, batch: Vec<Record>) {
        self.acknowledged.extend(batch.into_iter().map(|record| (number(&record), record)));
    }

    /// Compares the collection with the model; what was in doubt and is there counts as acknowledged from then on.
    fn check(&mut self, collection: &Collection, context: &str) {
        let ids: Vec<PointId> = (0..IDS).map(PointId::Number).collect();
        let read: BTreeMap<u64, Record> =
            collection.read(&ids).into_iter().flatten().map(|record| (number(&record), record)).collect();
        // The last of each id is what stands if the batch is there.
        let last: BTreeMap<u64, Record> = self.in_doubt.drain(..).map(|record| (number(&record), record)).collect();
        let there = last.iter().filter(|(id, record)| read.get(id) == Some(record)).count();
        assert!(there == 0 || there == last.len(), "{context}: {there} of {} records of one batch", last.len());
        if there > 0 {
            self.acknowledged.extend(last);
        }
        assert!(read == self.acknowledged, "{context}: {read:?} instead of {:?}", self.acknowledged);
        let live: Vec<(u64, Vec<f32>)> = (self.acknowledged.iter())
            .filter_map(|(id, record)| Some((*id, record.value.as_ref()?.vectors[""].0.clone())))
            .collect();
        let stats = collection.stats();
        let tombstones = self.acknowledged.len() - live.len();
        assert_eq!((stats.points, stats.tombstones), (live.len() as u64, tombstones as u64), "{context}");
        let query = vec![0.5; WIDTH];
        let distance = |vector: &[f32]| vector.iter().zip(&query).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        let mut nearest: Vec<(f32, u64)> = live.iter().map(|(id, vector)| (distance(vector), *id)).collect();
        nearest.sort_by(|a, b| a.0.total_cmp(&b.0));
        nearest.truncate(5);
        let hits = super::nearest(collection, query.clone(), 5);
        let found: Vec<PointId> = hits.iter().map(|hit| hit.id.clone()).collect();
        let expected: Vec<PointId> = nearest.iter().map(|(_, id)| PointId::Number(*id)).collect();
        assert_eq!(found, expected, "{context}: the nearest");
    }
}

fn number(record: &Record) -> u64 {
    let PointId::Number(id) = record.id else { unreachable!("ids are numbers") };
    id
}

fn record(id: u64, time: u64, is_delete: bool) -> Record {
    let mut random = Rng::with_seed(id << 32 | time);
    let value = RecordValue {
        vectors: Fields::from([(String::new(), Vector((0..WIDTH).map(|_| random.f32()).collect()))]),
        payload: Payload::from([("text".to_owned(), Value::Text("x".repeat(random.usize(0..150))))]).into(),
    };
    Record { id: id.into(), version: version(time), value: (!is_delete).then_some(value) }
}

/// Cuts the power at every operation of one life; returns how many cuts that were.
fn cut_everywhere(world: &World, seed: u64) -> u64 {
    let whole = FaultyDisk::new(Arc::new(MemDisk::new()));
    world.live(&whole, seed);
    let mut random = Rng::with_seed(seed ^ 0xC0FFEE);
    let mut cuts = 0;
    for at in 1..=whole.operations() {
        let context = format!("seed {seed}, power cut at operation {at} of {}", whole.operations());
        let memory = MemDisk::new();
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        disk.set(Fault::Halt { at, done: random.bool() });
        let mut model = world.live(&disk, seed);
        memory.crash(random.u64(..));
        cuts += 1;
        // Now and then the power goes again while the collection is opened, or right after.
        if random.u8(0..3) == 0 {
            let disk = FaultyDisk::new(Arc::new(memory.clone()));
            disk.set(Fault::Halt { at: random.u64(1..8), done: random.bool() });
            if let Ok(collection) = world.open(&(Arc::new(disk) as Arc<dyn Disk>), seed) {
                model.check(&collection, &context);
                collection.close();
            }
            memory.crash(random.u64(..));
            cuts += 1;
        }
        let shared: Arc<dyn Disk> = Arc::new(memory.clone());
        let collection = world.open(&shared, seed).unwrap_or_else(|error| panic!("{context}: {error}"));
        model.check(&collection, &context);
        let worked = world.work(&collection, &mut model, &mut random, 2);
        assert!(worked.is_ok(), "{context}, going on");
        collection.close();
        memory.crash(random.u64(..));
        let collection = world.open(&shared, seed).unwrap_or_else(|error| panic!("{context}, second life: {error}"));
        model.check(&collection, &context);
    }
    cuts
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_at_every_operation() {
    let world = World::new();
    let seeds = match std::env::var("VECINO_CRASH_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect(),
    };
    let cuts: u64 = seeds.iter().map(|seed| cut_everywhere(&world, *seed)).sum();
    println!("{cuts} power cuts in {} lives", seeds.len());
    assert!(seeds.len() == 1 || cuts > 1_500, "{cuts}");
}

/// The control: were the flushes left out, the test above would notice.
#[test]
fn the_power_cut_test_notices_a_disk_that_does_not_flush() {
    let world = World::new();
    let noticed = (0..20).filter(|seed| {
        let memory = MemDisk::new();
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        disk.set(Fault::LyingSync);
        let model = world.live(&disk, *seed);
        memory.crash(seed ^ 7);
        let Ok(collection) = world.open(&(Arc::new(memory) as Arc<dyn Disk>), *seed) else { return true };
        let ids: Vec<PointId> = (0..IDS).map(PointId::Number).collect();
        let there = collection.read(&ids).into_iter().flatten().collect::<Vec<_>>();
        there != model.acknowledged.into_values().collect::<Vec<_>>()
    });
    assert!(noticed.count() >= 10);
}
