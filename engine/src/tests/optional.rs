//! Points that lack some of the collection's vector fields.

use fastrand::Rng;

use super::*;

const FIELDS: [&str; 3] = ["", "image", "sound"];

fn three_fields() -> CollectionSchema {
    let field = schema().fields[""].clone();
    CollectionSchema { fields: FIELDS.iter().map(|name| ((*name).to_owned(), field.clone())).collect(), ..schema() }
}

fn open(lab: &Lab) -> Collection {
    open_with(lab, three_fields())
}

fn open_with(lab: &Lab, schema: CollectionSchema) -> Collection {
    let (share, indexers) = (Resources::unlimited().share("films"), Arc::clone(&lab.indexers));
    let (disk, runtime) = (Arc::new(lab.disk.clone()), lab.runtime.handle().clone());
    Collection::open(disk, "films", share, CollectionId([1; 16]), schema, indexers, runtime).unwrap()
}

/// A put of a point with these fields, and a vector in each that no other has.
fn put_with(id: u64, time: u64, fields: impl Iterator<Item = usize>) -> Record {
    let vectors = fields.map(|field| (FIELDS[field].to_owned(), Vector(vector(id, time * 3 + field as u64)))).collect();
    let payload = Payload::from([("t".to_owned(), Value::Int(time as i64))]).into();
    let value = Some(RecordValue { vectors, payload });
    Record { id: id.into(), version: version(time), value }
}

fn search(collection: &Collection, field: &str, vector: &Vector, k: u32, exact: bool) -> Vec<RawHit> {
    let request = SearchRequest { field: field.to_owned(), exact, ..request(vector.0.clone(), k) };
    collection.search(&request).unwrap()
}

/// Each field finds those points that have it, each by its own vector, and no other; and all is read as it was put.
fn check_fields(collection: &Collection, oracle: &BTreeMap<u64, Record>) {
    let ids: Vec<PointId> = oracle.keys().map(|id| (*id).into()).collect();
    let read: Vec<Record> = collection.read(&ids).into_iter().flatten().collect();
    assert_eq!(read, oracle.values().cloned().collect::<Vec<_>>());
    for field in FIELDS {
        let vector = |record: &Record| record.value.as_ref()?.vectors.get(field).cloned();
        let having: Vec<(&Record, Vector)> =
            oracle.values().filter_map(|record| Some((record, vector(record)?))).collect();
        let mut expected: Vec<PointId> = having.iter().map(|(record, _)| record.id.clone()).collect();
        expected.sort();
        for exact in [true, false] {
            let hits = search(collection, field, &Vector(vec![0.5; DIM]), 10_000, exact);
            let mut found: Vec<PointId> = hits.into_iter().map(|hit| hit.id).collect();
            found.sort();
            assert_eq!(found, expected, "field {field:?}, exact {exact}");
        }
        for (record, vector) in &having {
            let hits = search(collection, field, vector, 1, false);
            assert_eq!((&hits[0].id, hits[0].score), (&record.id, 0.0));
            assert_eq!(hits[0].vectors, record.value.as_ref().unwrap().vectors);
        }
        let index = collection.core.fields.get(field).unwrap();
        assert_eq!(index.graph().unwrap().len_live(), having.len(), "field {field:?}");
    }
    let live = oracle.values().filter(|record| record.value.is_some()).count();
    let stats = collection.stats();
    assert_eq!((stats.points, stats.tombstones), (live as u64, (oracle.len() - live) as u64));
}

/// Takes out of the graphs what is buried, and has its slots become vacant.
fn consolidate(collection: &Collection) {
    for _ in 0..3 {
        while collection.core.fields.graphs().any(|index| index.consolidate(64)) {}
    }
}

#[test]
fn points_have_any_of_the_fields_through_overwrites_deletes_snapshots_and_power_cuts() {
    for seed in 0..12 {
        println!("seed {seed}");
        let (lab, mut random) = (Lab::new(), Rng::with_seed(seed));
        let (mut oracle, mut time, mut is_any_slot_used_again) = (BTreeMap::new(), 0, false);
        for _ in 0..4 {
            let collection = open(&lab);
            check_fields(&collection, &oracle);
            for _ in 0..random.usize(1..8) {
                let slots = collection.core.tables().slots();
                let batch: Vec<Record> = (0..random.usize(1..120))
                    .map(|_| {
                        time += 1;
                        let (id, present) = (random.u64(0..150), random.u8(1..8));
                        match random.u8(0..4) {
                            0 => delete(id, time),
                            _ => put_with(id, time, (0..3).filter(|field| present & (1 << field) != 0)),
                        }
                    })
                    .collect();
                let puts = batch.iter().filter(|record| record.value.is_some()).count();
                let outcomes = lab.apply(&collection, batch.clone());
                assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Written(_))), "{outcomes:?}");
                is_any_slot_used_again |= collection.core.tables().slots() < slots + puts;
                oracle.extend(batch.into_iter().map(|record| {
                    let PointId::Number(id) = record.id else { unreachable!("ids are numbers") };
                    (id, record)
                }));
                match random.u8(0..4) {
                    0 => drop(collection.snapshot().unwrap()),
                    1 | 2 => consolidate(&collection),
                    _ => {}
                }
            }
            check_fields(&collection, &oracle);
            collection.close();
            lab.disk.crash(random.u64(..));
        }
        check_fields(&open(&lab), &oracle);
        assert!(is_any_slot_used_again || time < 500, "after {time} writes");
    }
}

#[test]
fn an_overwrite_with_fewer_fields_drops_the_others_and_a_point_without_any_is_refused() {
    let lab = Lab::new();
    let collection = open(&lab);
    lab.apply(&collection, vec![put_with(1, 1, 0..3)]);
    lab.apply(&collection, vec![put_with(1, 2, 1..2)]);
    check_fields(&collection, &BTreeMap::from([(1, put_with(1, 2, 1..2))]));
    let refused = lab.apply(&collection, vec![put_with(1, 3, 0..0)]);
    assert!(matches!(&refused[0], Outcome::Refused(told) if told.contains("no vector")), "{refused:?}");
    collection.close();
    drop(collection);
    check_fields(&open(&lab), &BTreeMap::from([(1, put_with(1, 2, 1..2))]));
}

#[test]
fn a_point_refused_at_its_second_field_leaves_the_others_of_its_batch_their_own_norms() {
    let lab = Lab::new();
    let mut schema = three_fields();
    schema.fields.values_mut().for_each(|field| field.metric = Metric::Cosine);
    let collection = open_with(&lab, schema);
    // The lengths of no two vectors are the same.
    let scaled = |id: u64, second: f32| {
        let vectors = [("", 1.0), ("image", second)].map(|(field, factor)| {
            let values = vector(id, 1).into_iter().map(|value| (value + 1.0) * factor * id as f32);
            (field.to_owned(), Vector(values.collect()))
        });
        let value = Some(RecordValue { vectors: vectors.into(), payload: Default::default() });
        Record { id: id.into(), version: version(1), value }
    };
    let records = vec![scaled(1, 10.0), scaled(2, f32::NAN), scaled(3, 30.0)];
    let outcomes = lab.runtime.block_on(collection.apply(records)).unwrap();
    assert!(matches!(&outcomes[1], Outcome::Refused(told) if told.contains("image")), "{outcomes:?}");
    for (id, field) in [1, 3].into_iter().flat_map(|id| [(id, ""), (id, "image")]) {
        let Some(RecordValue { vectors, .. }) = scaled(id, 10.0).value else { unreachable!() };
        let hits = search(&collection, field, &vectors[field], 1, true);
        assert_eq!(hits[0].id, id.into(), "field {field:?}");
        assert!((hits[0].score - 1.0).abs() < 1e-5, "point {id} in field {field:?}: {}", hits[0].score);
    }
}

#[test]
fn a_graph_of_a_field_that_points_lack_is_linked_searched_and_loaded() {
    const POINTS: u64 = 12_600;
    let lab = Lab::new();
    let collection = open(&lab);
    // The first field has enough vectors for a graph, with gaps between its slots; the others are scanned.
    let fields = |id: u64| if id.is_multiple_of(6) { 1..2 } else { 0..1 };
    lab.apply(&collection, (0..POINTS).map(|id| put_with(id, id + 1, fields(id))).collect());
    let check = |collection: &Collection| {
        for id in (0..POINTS).step_by(97) {
            let record = put_with(id, id + 1, fields(id));
            let (field, vector) = record.value.as_ref().unwrap().vectors.first_key_value().unwrap();
            assert_eq!(search(collection, field, vector, 1, false)[0].id, record.id);
        }
        assert!(search(collection, "sound", &Vector(vec![0.5; DIM]), 10, false).is_empty());
    };
    while collection.unlinked() > 0 {
        std::thread::yield_now();
    }
    check(&collection);
    collection.snapshot().unwrap();
    collection.close();
    drop(collection);
    let reopened = open(&lab);
    assert_eq!((reopened.unlinked(), reopened.replay_records()), (0, 0), "nothing is linked again");
    check(&reopened);
}
