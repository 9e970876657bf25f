//! Searches whose answers are hard to come by: most of what is near is deleted, or refused by the filter.

use super::*;

const DIM: usize = 12;

#[test]
fn k_come_back_while_k_are_alive() {
    let vectors = clustered(3_000, DIM, 21);
    let index = built(params(DIM, Metric::Euclidean), &vectors);
    let query = &vectors[5];
    let mut order = slots(&index.search_exact(query, &SearchOptions::new(3_000, 1)).unwrap());
    assert_eq!(order.len(), 3_000);
    while order.len() > 3 {
        let nearest: Vec<Slot> = order.drain(..order.len() / 2).collect();
        for slot in nearest {
            index.mark_deleted(slot);
            assert!(!index.is_live(slot));
        }
        let options = SearchOptions::new(10, 20);
        let expected = &order[..order.len().min(10)];
        assert_eq!(index.len_live(), order.len());
        assert_eq!(slots(&index.search(query, &options).unwrap()), expected);
        let hits = slots(&walked(&index, query, &options));
        assert_eq!(hits.len(), expected.len());
        assert!(hits.iter().all(|slot| index.is_live(*slot)));
    }
}

#[test]
fn deleted_slots_cost_no_recall() {
    let vectors = clustered(4_000, DIM, 22);
    let index = built(params(DIM, Metric::Euclidean), &vectors);
    for slot in (0..4_000).filter(|slot| slot % 3 != 0) {
        index.mark_deleted(slot);
    }
    let recall = recall(&index, &clustered(100, DIM, 22), 10, 64);
    assert!(recall >= 0.97, "{recall}");
}

#[test]
fn the_entry_may_be_deleted_and_so_may_everything() {
    let vectors = clustered(2_000, DIM, 23);
    let index = built(params(DIM, Metric::Euclidean), &vectors);
    let entry = index.parts.graph.entry().unwrap().slot;
    index.mark_deleted(entry);
    let hits = walked(&index, &vectors[entry as usize], &SearchOptions::new(5, 32));
    assert!(hits.len() == 5 && hits.iter().all(|hit| hit.slot != entry));
    for slot in 0..2_000 {
        index.mark_deleted(slot);
    }
    assert_eq!((index.len_live(), walked(&index, &vectors[0], &SearchOptions::new(5, 32))), (0, vec![]));
    store_all(&index, 2_000..4_000, &vectors);
    link_all(&index);
    check_graph(&index);
    for (slot, vector) in (2_000..).zip(&vectors) {
        assert_eq!(walked(&index, vector, &SearchOptions::new(1, 64))[0].slot, slot);
    }
}

#[test]
fn a_slot_that_is_deleted_before_it_is_linked_never_is() {
    let vectors = clustered(1_200, DIM, 24);
    let index = Index::new(params(DIM, Metric::Euclidean)).unwrap();
    store_all(&index, 0..1_200, &vectors);
    for slot in (0..1_200).step_by(2) {
        index.mark_deleted(slot);
    }
    assert_eq!(index.unlinked(), 600);
    link_all(&index);
    index.link(0);
    assert_eq!(index.unlinked(), 0);
    assert_eq!(reached(&index, index.parts.graph.entry().unwrap().slot), (0..600).map(|at| 2 * at + 1).collect());
    assert_eq!(index.vector(0).as_ref(), Some(&vectors[0]), "a deleted slot keeps its vector");
}

#[test]
fn filters_of_every_width_give_what_passes() {
    let vectors = clustered(5_000, DIM, 25);
    let index = built(params(DIM, Metric::Cosine), &vectors);
    for width in [2u32, 10, 100, 1_000, 2_500, 9_999] {
        let filter = move |slot: Slot| slot % width == 1;
        let passing = (0..5_000).filter(|slot| filter(*slot)).count();
        let members: SlotBits = (0..9_999).filter(|slot| filter(*slot)).collect();
        let mut found = 0;
        for query in &clustered(40, DIM, 25) {
            let options = SearchOptions { filter: Some(&members), ..SearchOptions::new(10, 64) };
            let exact = slots(&index.search_exact(query, &options).unwrap());
            let hits = slots(&walked(&index, query, &options));
            assert_eq!((hits.len(), exact.len()), (passing.min(10), passing.min(10)));
            assert!(hits.iter().all(|slot| filter(*slot)));
            found += hits.iter().filter(|slot| exact.contains(slot)).count();
        }
        let recall = found as f64 / (40 * passing.min(10)) as f64;
        assert!(recall >= 0.97, "1 of {width}: {recall}");
    }
}

/// A filter that a search may only list.
struct Listed(SlotBits);

impl SlotFilter for Listed {
    fn contains(&self, slot: Slot) -> bool {
        panic!("slot {slot} was asked about, although few members are to be listed");
    }

    fn estimate(&self) -> usize {
        self.0.estimate()
    }

    fn iter(&self) -> Box<dyn Iterator<Item = Slot> + '_> {
        self.0.iter()
    }
}

#[test]
fn of_a_filter_with_few_members_those_are_looked_at_and_nothing_else() {
    let vectors = clustered(5_000, DIM, 28);
    let index = built(params(DIM, Metric::Cosine), &vectors);
    index.mark_deleted(700);
    // One of them was deleted, and some were never stored.
    let members: SlotBits = (0..9_999).filter(|slot| slot % 70 == 0).collect();
    for query in &vectors[..20] {
        let options = SearchOptions { filter: Some(&members), ..SearchOptions::new(100, 100) };
        let listed = Listed(members.clone());
        let hits = index.search(query, &SearchOptions { filter: Some(&listed), ..options }).unwrap();
        let all = index.search(query, &SearchOptions::new(5_000, 5_000)).unwrap();
        let expected: Vec<Hit> = all.into_iter().filter(|hit| members.contains(hit.slot)).collect();
        assert_eq!((hits.len(), hits), (71, expected));
    }
}

#[test]
fn a_filter_that_passes_nothing_gives_nothing() {
    let index = built(params(DIM, Metric::Dot), &clustered(2_000, DIM, 26));
    let options = SearchOptions { filter: Some(&SlotBits::default()), ..SearchOptions::new(10, 64) };
    assert_eq!(walked(&index, &[1.0; DIM], &options), []);
}

#[test]
fn thresholds_cut_on_the_right_side() {
    let vectors = clustered(2_000, DIM, 27);
    for metric in Metric::ALL {
        let index = built(params(DIM, metric), &vectors);
        let all = walked(&index, &vectors[0], &SearchOptions::new(20, 64));
        let threshold = Some(all[7].score);
        let cut = walked(&index, &vectors[0], &SearchOptions { threshold, ..SearchOptions::new(20, 64) });
        assert_eq!(cut, all[..8], "{metric:?}");
    }
}
