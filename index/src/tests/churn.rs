//! Slots that are deleted, leave the graph, and are used again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

const DIM: usize = 16;

/// Consolidates until there is nothing more to do now.
fn consolidate_all(index: &Index) {
    while index.consolidate(64) {}
}

/// Slots for new vectors: vacant ones first, then those above all others.
#[derive(Default)]
struct Slots {
    vacant: Vec<Slot>,
    next: Slot,
}

impl Slots {
    fn take(&mut self, index: &Index) -> Slot {
        if self.vacant.is_empty() {
            self.vacant = index.take_vacant();
        }
        self.vacant.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

/// Every live slot can be reached from the entry, and none leads to a slot that is not a node.
fn check_live_reached(index: &Index) {
    let Some(entry) = index.parts.graph.entry() else { return };
    let reached = reached(index, entry.slot);
    let live = (0..index.slots() as Slot).filter(|slot| index.is_live(*slot) && index.parts.states.is_linked(*slot));
    let lost: Vec<Slot> = live.filter(|slot| !reached.contains(slot)).collect();
    assert!(lost.is_empty(), "{lost:?} cannot be reached from {entry:?}");
}

#[test]
fn what_is_deleted_leaves_the_graph_and_its_slots_come_back() {
    for profile in Profile::ALL {
        let vectors = clustered(2_000, DIM, 61);
        let index = built(Params { profile, ..params(DIM, Metric::Euclidean) }, &vectors);
        let deleted: Vec<Slot> = (0..2_000).filter(|slot| slot % 5 == 2).collect();
        deleted.iter().for_each(|slot| index.mark_deleted(*slot));
        assert_eq!(index.take_vacant(), [], "they are in the graph");
        assert_eq!(index.deleted(), 400);
        consolidate_all(&index);
        check_graph(&index);
        for slot in 0..2_000 {
            let is_gone = (0..=index.parts.graph.level(slot))
                .all(|layer| index.parts.graph.neighbours(slot, layer).all(|other| other % 5 != 2));
            assert!(is_gone || slot % 5 == 2, "{slot} links to a slot that was deleted");
        }
        assert_eq!(index.deleted(), 0);
        let mut vacant = index.take_vacant();
        vacant.sort();
        assert_eq!(vacant, deleted);
        assert!(deleted.iter().all(|slot| index.is_vacant(*slot) && index.vector(*slot).is_none()));
        assert!(!index.parts.states.any_deleted(), "walks need not look for them");
        assert_eq!(index.take_vacant(), [], "each is handed out once");
        for slot in deleted {
            index.store(slot, &vectors[slot as usize]).unwrap();
            let taken = index.store(slot, &vectors[0]);
            assert!(matches!(taken, Err(crate::IndexError::SlotTaken { next: 2_000, .. })), "{taken:?}");
        }
        assert_eq!(index.unlinked(), 400);
        link_all(&index);
        check_graph(&index);
        assert_eq!((index.slots(), index.len_live()), (2_000, 2_000));
        for (slot, vector) in (0..).zip(&vectors) {
            assert_eq!(walked(&index, vector, &SearchOptions::new(1, 64))[0].slot, slot, "{profile:?}");
        }
    }
}

#[test]
fn few_deleted_slots_are_left_alone_and_a_share_of_them_is_not() {
    let index = built(params(4, Metric::Euclidean), &uniform(800, 4, 1));
    (0..99).for_each(|slot| index.mark_deleted(slot));
    assert!(!index.consolidate(64), "less than an eighth is deleted");
    let settled = built(params(4, Metric::Euclidean), &uniform(800, 4, 1));
    (0..40).for_each(|slot| settled.mark_deleted(slot));
    assert!(
        !settled.is_consolidated() && settled.consolidate_idle(64),
        "where there is nothing else to do, a twentieth is enough"
    );
    while settled.consolidate_idle(64) {}
    check_graph(&settled);
    assert!(settled.is_consolidated() && settled.take_vacant().len() == 40 && !settled.parts.states.any_deleted());
    index.mark_deleted(99);
    assert!(index.consolidate(64));
    let small = built(params(4, Metric::Euclidean), &uniform(31, 4, 1));
    (0..31).for_each(|slot| small.mark_deleted(slot));
    assert!(!small.consolidate(64), "so few are not worth a round");
}

#[test]
fn a_reader_keeps_what_it_may_have_seen() {
    let vectors = clustered(1_500, DIM, 62);
    let index = built(params(DIM, Metric::Cosine), &vectors);
    let reading = index.reading();
    (0..700).for_each(|slot| index.mark_deleted(slot));
    consolidate_all(&index);
    check_graph(&index);
    for _ in 0..3 {
        assert_eq!(index.take_vacant(), [], "somebody reads");
    }
    assert!(!index.is_vacant(5) && index.store(5, &vectors[9]).is_err());
    assert_eq!(index.vector(5).as_ref(), Some(&vectors[5]), "deleted, and out of the graph, but there");
    drop(reading);
    assert_eq!(index.take_vacant().len(), 700);
    assert_eq!(index.vector(5), None);
}

#[test]
fn an_index_whose_points_all_leave_begins_anew() {
    for profile in Profile::ALL {
        let vectors = clustered(3_000, DIM, 63);
        let index = built(Params { profile, ..params(DIM, Metric::Euclidean) }, &vectors[..1_500]);
        (0..1_500).for_each(|slot| index.mark_deleted(slot));
        consolidate_all(&index);
        assert_eq!(index.search(&vectors[0], &SearchOptions::new(3, 30)).unwrap(), []);
        let mut slots = Slots { vacant: index.take_vacant(), next: 1_500 };
        assert_eq!(slots.vacant.len(), 1_499, "one stays for the next ones to link to");
        for vector in &vectors[1_500..] {
            index.store(slots.take(&index), vector).unwrap();
        }
        link_all(&index);
        check_live_reached(&index);
        consolidate_all(&index);
        for vector in &vectors[1_500..] {
            assert_eq!(walked(&index, vector, &SearchOptions::new(1, 64))[0].score, 0.0, "{profile:?}");
        }
    }
}

/// Replaces every point ten times, in the order of age or in any order, a little at a time; then an index that was built
/// of the same points at once must not be better, and no more slots may have been used than there is reason for.
#[test]
fn replacing_all_points_ten_times_costs_neither_recall_nor_memory() {
    const COUNT: usize = 2_500;
    const STEP: usize = 50;
    for (profile, metric, is_by_age) in [
        (Profile::Fast, Metric::Euclidean, true),
        (Profile::Fast, Metric::Cosine, false),
        (Profile::Compact, Metric::Euclidean, false),
        (Profile::Plain, Metric::Euclidean, true),
        (Profile::Plain, Metric::Dot, false),
    ] {
        let mut vectors = clustered(COUNT + 300, 32, 64);
        let queries = vectors.split_off(COUNT);
        let params = Params { profile, m: 8, ef_construction: 60, ..params(32, metric) };
        let index = built(params.clone(), &vectors);
        let mut slots = Slots { next: COUNT as Slot, ..Slots::default() };
        let mut random = fastrand::Rng::with_seed(65);
        let mut points: Vec<(usize, Slot)> = (0..COUNT).map(|at| (at, at as Slot)).collect();
        for _ in 0..10 {
            if !is_by_age {
                random.shuffle(&mut points);
            }
            for points in points.chunks_mut(STEP) {
                for (at, slot) in points {
                    index.mark_deleted(*slot);
                    *slot = slots.take(&index);
                    index.store(*slot, &vectors[*at]).unwrap();
                }
                link_all(&index);
                consolidate_all(&index);
            }
        }
        check_graph(&index);
        assert_eq!(index.len_live(), COUNT);
        assert!(index.slots() <= COUNT * 13 / 10, "{} slots for {COUNT} points", index.slots());
        let fresh = built(params, &vectors);
        for ef in [24, 48] {
            let (churned, fresh) = (recall(&index, &queries, 10, ef), recall(&fresh, &queries, 10, ef));
            println!("{profile:?} {metric:?} ef {ef}: {churned} after churn, {fresh} fresh");
            assert!(churned >= fresh - 0.01, "{profile:?} {metric:?} ef {ef}: {churned} instead of {fresh}");
        }
    }
}

#[test]
fn numbers_of_the_sequence_do_not_run_out() {
    let vectors = clustered(1_500, DIM, 73);
    let index = built(params(DIM, Metric::Euclidean), &vectors[..1_000]);
    index.parts.graph.set_orders(3 << 30);
    store_all(&index, 1_000..1_500, &vectors[1_000..]);
    link_all(&index);
    assert!(index.parts.graph.last_order() > 3 << 30);
    (0..400).for_each(|slot| index.mark_deleted(slot));
    consolidate_all(&index);
    assert_eq!(index.parts.graph.last_order(), 1_500, "as many as there were nodes");
    check_graph(&index);
}

#[derive(Clone, Debug)]
enum Step {
    Store(Vec<f32>),
    Delete(prop::sample::Index),
    DeleteMany(u8),
    Link(u8),
    Consolidate(u8),
    Vacate,
    Search { query: Vec<f32>, k: usize },
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    let vector = || prop::collection::vec((-9i8..10).prop_map(f32::from), 3);
    prop_oneof![
        16 => vector().prop_map(Step::Store),
        4 => any::<prop::sample::Index>().prop_map(Step::Delete),
        1 => any::<u8>().prop_map(Step::DeleteMany),
        8 => (1u8..8).prop_map(Step::Link),
        8 => (1u8..60).prop_map(Step::Consolidate),
        3 => Just(Step::Vacate),
        3 => (vector(), 1usize..8).prop_map(|(query, k)| Step::Search { query, k }),
        1 => Just(Step::Reload),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Against a map from slot to vector, in whatever order slots are stored, deleted, linked, taken out and used again,
    /// reloaded in the middle of a round too.
    #[test]
    fn behaves_like_a_map_while_slots_are_used_again(
        profile in prop::sample::select(Profile::ALL.to_vec()),
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 100..500),
    ) {
        let params = Params { m: 3, ef_construction: 16, seed, profile, ..params(3, Metric::Euclidean) };
        let mut index = Index::new(params.clone()).unwrap();
        let mut model: BTreeMap<Slot, Vec<f32>> = BTreeMap::new();
        let (mut slots, mut most) = (Slots::default(), 0);
        for step in steps {
            match step {
                Step::Store(vector) => {
                    let slot = slots.take(&index);
                    prop_assert!(index.is_vacant(slot) && !model.contains_key(&slot));
                    index.store(slot, &vector).unwrap();
                    model.insert(slot, vector);
                }
                Step::Delete(which) if !model.is_empty() => {
                    let slot = *model.keys().nth(which.index(model.len())).unwrap();
                    index.mark_deleted(slot);
                    model.remove(&slot);
                }
                Step::Delete(_) => {}
                Step::DeleteMany(seed) => {
                    let mut random = fastrand::Rng::with_seed(seed.into());
                    model.retain(|slot, _| {
                        let stays = random.u8(0..4) == 0;
                        if !stays {
                            index.mark_deleted(*slot);
                        }
                        stays
                    });
                }
                Step::Link(count) => for _ in 0..count {
                    if let Some(slot) = index.next_unlinked() { index.link(slot) }
                },
                Step::Consolidate(nodes) => { index.consolidate(nodes.into()); }
                Step::Vacate => slots.vacant.extend(index.take_vacant()),
                Step::Reload => {
                    index = Index::load(params.clone(), &Arenas::of(&index)).unwrap();
                    slots.next = index.slots() as Slot;
                    slots.vacant = (0..slots.next).filter(|slot| index.is_vacant(*slot)).collect();
                }
                Step::Search { query, k } => {
                    let mut expected: Vec<Hit> = model.iter().map(|(slot, vector)| {
                        let squares = query.iter().zip(vector).map(|(a, b)| (a - b) * (a - b));
                        Hit { slot: *slot, score: squares.sum::<f32>().sqrt() }
                    }).collect();
                    expected.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.slot.cmp(&b.slot)));
                    expected.truncate(k);
                    let options = SearchOptions::new(k, 1_000);
                    prop_assert_eq!(&index.search_exact(&query, &options).unwrap(), &expected);
                    prop_assert_eq!(&walked(&index, &query, &options), &expected);
                }
            }
            most = most.max(model.len());
            prop_assert_eq!(index.len_live(), model.len());
        }
        for slot in 0..index.slots() as Slot {
            prop_assert_eq!(index.is_live(slot), model.contains_key(&slot));
            if let Some(vector) = model.get(&slot) {
                prop_assert_eq!(&index.vector(slot).unwrap(), vector);
            }
        }
        link_all(&index);
        consolidate_all(&index);
        // With so few links the entry may lose its way to others until the next round ends; the first node does not.
        if let Some(first) = check_links(&index) {
            check_reached(&index, first);
        }
    }
}

/// Stores, deletes, links, consolidates, uses slots again and searches, all at once. Each vector says in its values who it
/// is, so that a hit whose score is not that of the vector under its slot shows.
#[test]
fn every_hit_is_of_the_vector_that_was_under_its_slot() {
    const POINTS: usize = 1_200;
    const WRITES: usize = 12_000;
    for profile in Profile::ALL {
        let index = Index::new(Params { profile, ..params(DIM, Metric::Euclidean) }).unwrap();
        // Which vector is, or was last, under each slot: its number, and one more for each time it changes.
        let table: Vec<AtomicU64> = (0..4 * POINTS).map(|_| AtomicU64::new(0)).collect();
        let vectors = clustered(WRITES, DIM, 67);
        let (done, reused, hits) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let (searches, missed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let points: Mutex<Vec<(usize, Slot)>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Acquire) {
                        for _ in 0..8 {
                            if let Some(slot) = index.next_unlinked() {
                                index.link(slot)
                            }
                        }
                        if !index.consolidate(16) && index.unlinked() == 0 {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            for seed in 0..2 {
                let (index, table, vectors, done, hits, points) = (&index, &table, &vectors, &done, &hits, &points);
                let (searches, missed) = (&searches, &missed);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    while !done.load(Ordering::Acquire) {
                        let Some((at, slot)) = random.choice(points.lock().unwrap().iter()).copied() else { continue };
                        let _reading = index.reading();
                        // What is live now keeps its slot while this reads.
                        let was_there =
                            index.is_live(slot) && table[slot as usize].load(Ordering::Acquire) == at as u64 + 1;
                        let found = index.search(&vectors[at], &SearchOptions::new(5, 64)).unwrap();
                        for hit in &found {
                            let of = &vectors[table[hit.slot as usize].load(Ordering::Acquire) as usize - 1];
                            let squares = of.iter().zip(&vectors[at]).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
                            assert!((hit.score - squares.sqrt()).abs() < 1e-3, "{hit:?} is {} away", squares.sqrt());
                            assert_eq!(index.vector(hit.slot).as_ref(), Some(of), "while this thread reads");
                            hits.fetch_add(1, Ordering::Relaxed);
                        }
                        searches.fetch_add(1, Ordering::Relaxed);
                        let is_found = |found: &[Hit]| found.first().is_some_and(|hit| hit.slot == slot);
                        if is_found(&found) || !was_there || !index.is_live(slot) {
                            continue;
                        }
                        // A vector far from all others may be missed by a short walk, and by no walk as long as the graph.
                        missed.fetch_add(1, Ordering::Relaxed);
                        let found = index.search(&vectors[at], &SearchOptions::new(5, table.len())).unwrap();
                        assert!(is_found(&found) || !index.is_live(slot), "{at} in {slot}: {found:?}");
                    }
                });
            }
            let mut random = fastrand::Rng::with_seed(68);
            let mut slots = Slots::default();
            for (at, vector) in vectors.iter().enumerate() {
                let mut slot = slots.take(&index);
                while slot as usize >= table.len() {
                    // Those who consolidate are behind; what was handed out above is left vacant.
                    std::thread::yield_now();
                    slot = slots.take(&index);
                }
                reused.fetch_add(usize::from(slot < index.slots() as Slot), Ordering::Relaxed);
                // Nobody reads a vacant slot, so nobody sees this before the vector.
                table[slot as usize].store(at as u64 + 1, Ordering::Release);
                index.store(slot, vector).unwrap();
                let mut points = points.lock().unwrap();
                points.push((at, slot));
                if points.len() > POINTS {
                    let (_, deleted) = points.swap_remove(random.usize(0..POINTS));
                    index.mark_deleted(deleted);
                }
                drop(points);
                while index.unlinked() > 100 {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::Release);
        });
        let (searches, missed) = (searches.into_inner(), missed.into_inner());
        println!(
            "{profile:?}: {} slots, {reused:?} used again, {hits:?} hits, {missed} of {searches} missed",
            index.slots()
        );
        assert!(missed <= searches / 1_000, "{missed} of {searches} points were not found by themselves");
        assert!(reused.into_inner() > WRITES / 4, "hardly any slot was used again");
        assert!(hits.into_inner() > 100);
        link_all(&index);
        consolidate_all(&index);
        check_graph(&index);
    }
}

/// The same in small, without kernels of the processor, so that few nodes have few links.
#[test]
fn few_points_are_replaced_beside_a_search() {
    let writes = 500;
    let kernel = Some(crate::Kernel::Scalar);
    for profile in Profile::ALL {
        let params = Params { profile, kernel, m: 3, ef_construction: 8, ..params(2, Metric::Euclidean) };
        let index = Index::new(params).unwrap();
        let done = AtomicBool::new(false);
        let (mut used, mut next) = (Slots::default(), Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    if let Some(slot) = index.next_unlinked() {
                        index.link(slot)
                    }
                    if !index.consolidate(8) {
                        std::thread::yield_now();
                    }
                }
            });
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let _reading = index.reading();
                    for hit in walked(&index, &[1.0, 2.0], &SearchOptions::new(3, 6)) {
                        let vector = index.vector(hit.slot).unwrap();
                        assert_eq!(hit.score, (vector[0] - 1.0).hypot(vector[1] - 2.0));
                    }
                }
            });
            for at in 0..writes {
                let slot = used.take(&index);
                index.store(slot, &[at as f32, 2.0]).unwrap();
                next.push(slot);
                if next.len() > 40 {
                    index.mark_deleted(next.swap_remove(at % 40));
                }
                while index.unlinked() > 10 {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::Release);
        });
        link_all(&index);
        consolidate_all(&index);
        check_links(&index);
        assert_eq!(index.len_live(), 40);
    }
}

/// Dumps while slots are used again. What a dump names under a slot is what was there when the dump began, or nothing.
#[test]
fn a_dump_beside_consolidation_holds_what_was_live_and_nothing_foreign() {
    for profile in Profile::ALL {
        let params = Params { profile, ef_construction: 40, ..params(DIM, Metric::Euclidean) };
        let vectors = clustered(6_000, DIM, 69);
        let index = built(params.clone(), &vectors[..1_000]);
        let done = AtomicBool::new(false);
        let points: Mutex<Vec<(usize, Slot)>> = Mutex::new((0..1_000).map(|at| (at, at as Slot)).collect());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    match index.next_unlinked() {
                        Some(slot) => index.link(slot),
                        None => std::thread::yield_now(),
                    }
                    index.consolidate(32);
                }
            });
            scope.spawn(|| {
                let mut random = fastrand::Rng::with_seed(70);
                let mut slots = Slots { next: 1_000, ..Slots::default() };
                for (at, vector) in vectors.iter().enumerate().skip(1_000) {
                    let slot = slots.take(&index);
                    let mut points = points.lock().unwrap();
                    index.store(slot, vector).unwrap();
                    points.push((at, slot));
                    let which = random.usize(0..points.len());
                    let (_, deleted) = points.swap_remove(which);
                    index.mark_deleted(deleted);
                    drop(points);
                    while index.unlinked() > 50 {
                        std::thread::yield_now();
                    }
                }
                done.store(true, Ordering::Release);
            });
            let mut dumps = 0;
            while !done.load(Ordering::Acquire) {
                // As a snapshot does: reading from before the table is copied until the dump is written.
                let reading = index.reading();
                let table = points.lock().unwrap().clone();
                let dump = Arenas::of(&index);
                drop(reading);
                let loaded = Index::load(params.clone(), &dump).unwrap();
                for (at, slot) in &table {
                    assert_eq!(loaded.vector(*slot).as_ref(), Some(&vectors[*at]), "slot {slot}");
                }
                if dumps % 8 == 0 {
                    link_all(&loaded);
                    check_graph(&loaded);
                }
                dumps += 1;
            }
            assert!(dumps > 2, "{dumps} dumps");
        });
    }
}

#[test]
fn a_dump_of_vacant_slots_loads_with_them_vacant() {
    let vectors = clustered(1_500, DIM, 71);
    let index = built(params(DIM, Metric::Cosine), &vectors);
    (0..1_500).filter(|slot| slot % 3 == 0 || *slot >= 1_400).for_each(|slot| index.mark_deleted(slot));
    consolidate_all(&index);
    let count = index.take_vacant().len();
    let dump = Arenas::of(&index);
    let loaded = Index::load(params(DIM, Metric::Cosine), &dump).unwrap();
    assert_eq!((loaded.slots(), loaded.len_live()), (1_400, index.len_live()), "the end is left out");
    assert_eq!((0..1_400).filter(|slot| loaded.is_vacant(*slot)).count() + 100, count);
    check_graph(&loaded);
    for slot in (0..1_400).filter(|slot| slot % 3 == 0) {
        loaded.store(slot, &vectors[slot as usize]).unwrap();
    }
    link_all(&loaded);
    check_graph(&loaded);
    for (slot, vector) in (0..1_400).zip(&vectors) {
        assert_eq!(walked(&loaded, vector, &SearchOptions::new(1, 64))[0].slot, slot);
    }
}

#[test]
fn a_dump_in_the_middle_of_a_round_loads_whole() {
    let vectors = clustered(2_000, DIM, 72);
    for steps in [1, 5, 15, 25, 31] {
        let index = built(params(DIM, Metric::Euclidean), &vectors);
        // The oldest leave, the entry and the starts of everybody's anchors among them.
        let entry = index.parts.graph.entry().unwrap().slot;
        (0..600).chain([entry]).for_each(|slot| index.mark_deleted(slot));
        for _ in 0..steps {
            assert!(index.consolidate(64));
        }
        let loaded = Index::load(params(DIM, Metric::Euclidean), &Arenas::of(&index)).unwrap();
        link_all(&loaded);
        check_graph(&loaded);
        consolidate_all(&loaded);
        check_graph(&loaded);
        check_live_reached(&loaded);
        for (slot, vector) in (0..).zip(&vectors).skip(600).filter(|(slot, _)| *slot != entry) {
            assert_eq!(walked(&loaded, vector, &SearchOptions::new(1, 64))[0].slot, slot, "after {steps} steps");
        }
    }
}
