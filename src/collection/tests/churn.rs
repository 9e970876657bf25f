//! Points that are overwritten again and again: their slots are used again, and nobody gets a foreign vector.

use std::sync::atomic::AtomicBool;

use super::*;

const POINTS: u64 = 1_500;

/// Waits until the indexers have nothing to do.
fn settle(collection: &Collection) {
    while collection.unlinked() > 0 {
        std::thread::yield_now();
    }
}

fn used_slots(collection: &Collection) -> usize {
    collection.core.tables().slots()
}

#[test]
fn slots_of_overwritten_points_are_used_again_across_snapshots_and_power_cuts() {
    let lab = Lab::new();
    let mut oracle = BTreeMap::new();
    let mut time = 0;
    for session in 0..3 {
        let collection = lab.open();
        for round in 0..4 {
            for ids in (0..POINTS).collect::<Vec<_>>().chunks(100) {
                let batch: Vec<_> = ids
                    .iter()
                    .map(|id| {
                        time += 1;
                        if time % 50 == 0 { delete(*id, time) } else { put(*id, time) }
                    })
                    .collect();
                lab.apply(&collection, batch.clone());
                oracle.extend(ids.iter().copied().zip(batch));
                // The writer would link and consolidate only when the indexers are far behind.
                while collection.core.indexes.iter().any(|(_, index)| index.consolidate(64)) {}
            }
            if (session + round) % 2 == 0 {
                collection.snapshot().unwrap();
            }
        }
        settle(&collection);
        check(&collection, &oracle);
        // Replay takes new slots for what it brings back, and those that it overwrites are vacant only afterwards.
        let most = POINTS as usize * if session == 0 { 3 } else { 7 } / 2;
        assert!(used_slots(&collection) <= most, "{} slots for {POINTS} points", used_slots(&collection));
        collection.close();
        drop(collection);
        lab.disk.crash(session);
    }
    check(&lab.open(), &oracle);
}

/// While points are overwritten, every hit and every record read has the vector that its version was put with.
#[test]
fn what_is_read_beside_writers_has_the_vector_of_its_version() {
    let lab = Lab::new();
    let collection = lab.open();
    let done = AtomicBool::new(false);
    let time_of = |version: Version| version.time;
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
                        assert_eq!(vectors[""].0, vector(id, time_of(version)));
                        seen += 1;
                    }
                }
            });
        }
        let mut random = fastrand::Rng::with_seed(9);
        for time in 0..200 {
            let batch = (0..100).map(|at| put(random.u64(0..POINTS), 1 + time * 100 + at)).collect();
            lab.apply(&collection, batch);
        }
        done.store(true, Ordering::Release);
    });
    assert!(used_slots(&collection) < 20_000 / 2, "{} slots for 20,000 puts", used_slots(&collection));
}
