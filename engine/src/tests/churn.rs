//! Points that are overwritten again and again: their slots are used again, and nobody gets a foreign vector.

use std::sync::atomic::AtomicBool;

use super::*;

/// Enough for a graph.
const POINTS: u64 = 10_400;

/// Waits until the indexers have nothing to do.
fn settle(collection: &Collection) {
    while collection.unlinked() > 0 {
        std::thread::yield_now();
    }
}

/// Every id is what was put last; some are searched for.
fn check_some(collection: &Collection, oracle: &BTreeMap<u64, Record>) {
    for (at, (id, record)) in oracle.iter().enumerate() {
        assert_eq!(collection.read(&[(*id).into()]), [Some(record.clone())]);
        if let Some(value) = record.value.as_ref().filter(|_| at % 7 == 0) {
            let hits = nearest(collection, value.vectors[""].0.clone(), 1);
            assert_eq!((&hits[0].id, hits[0].score), (&PointId::Number(*id), 0.0));
        }
    }
    let live = oracle.values().filter(|record| record.value.is_some()).count();
    assert_eq!(collection.stats().points, live as u64);
}

fn used_slots(collection: &Collection) -> usize {
    collection.core.tables().slots()
}

#[test]
fn slots_of_overwritten_points_are_used_again_across_snapshots_and_power_cuts() {
    let lab = Lab::new();
    let mut oracle = BTreeMap::new();
    let mut time = 0;
    for session in 0..2 {
        let collection = lab.open();
        for round in 0..3 {
            for ids in (0..POINTS).collect::<Vec<_>>().chunks(400) {
                let batch: Vec<_> = ids
                    .iter()
                    .map(|id| {
                        time += 1;
                        if time % 50 == 0 { delete(*id, time) } else { put(*id, time) }
                    })
                    .collect();
                lab.apply(&collection, batch.clone());
                oracle.extend(ids.iter().copied().zip(batch));
                // The indexers do so too, in their own time.
                settle(&collection);
                while collection.core.fields.graphs().any(|index| index.consolidate(64)) {}
            }
            if (session + round) % 2 == 0 {
                collection.snapshot().unwrap();
            }
        }
        settle(&collection);
        check_some(&collection, &oracle);
        assert!(collection.core.fields.graphs().next().unwrap().len_live() > 10_000, "there is a graph");
        // Replay takes new slots for what it brings back, and those that it overwrites are vacant only afterwards.
        let most = POINTS as usize * if session == 0 { 3 } else { 7 } / 2;
        assert!(used_slots(&collection) <= most, "{} slots for {POINTS} points", used_slots(&collection));
        collection.close();
        drop(collection);
        lab.disk.crash(session);
    }
    check_some(&lab.open(), &oracle);
}

/// While points are overwritten, every hit and every record read has the vector that its version was put with.
#[test]
fn what_is_read_beside_writers_has_the_vector_of_its_version() {
    let lab = Lab::new();
    let collection = lab.open();
    let done = AtomicBool::new(false);
    lab.apply(&collection, (0..POINTS).map(|id| put(id, 1)).collect());
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (collection, done) = (&collection, &done);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut seen = 0;
                while !done.load(Ordering::Acquire) || seen == 0 {
                    let query = vector(random.u64(0..POINTS), 1);
                    let mut found: Vec<(PointId, Version, Fields)> = Vec::new();
                    for hit in nearest(collection, query.clone(), 5) {
                        let of = &hit.vectors[""].0;
                        let squares = of.iter().zip(&query).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
                        assert!(
                            (hit.score - squares.sqrt()).abs() < 1e-4,
                            "{} is not the distance of {of:?}",
                            hit.score
                        );
                        found.push((hit.id, hit.version, hit.vectors));
                    }
                    let ids: Vec<PointId> = (0..10).map(|_| random.u64(0..POINTS).into()).collect();
                    let read = collection.read(&ids).into_iter().flatten();
                    found.extend(read.filter_map(|record| Some((record.id, record.version, record.value?.vectors))));
                    let page = collection.scan(None, 20).records.into_iter();
                    found.extend(page.filter_map(|record| Some((record.id, record.version, record.value?.vectors))));
                    for (id, version, vectors) in found {
                        let PointId::Number(id) = id else { unreachable!("ids are numbers") };
                        assert_eq!(vectors[""].0, vector(id, version.time));
                        seen += 1;
                    }
                }
            });
        }
        let mut random = fastrand::Rng::with_seed(9);
        for time in 0..250 {
            let batch = (0..100).map(|at| put(random.u64(0..POINTS), 2 + time * 100 + at)).collect();
            lab.apply(&collection, batch);
            settle(&collection);
        }
        done.store(true, Ordering::Release);
    });
    assert!(used_slots(&collection) < 25_000, "{} slots for 35,400 puts", used_slots(&collection));
}
