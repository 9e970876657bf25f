//! When a graph is made, and that both kinds answer alike.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[test]
fn no_graph_is_made_of_few_and_one_of_all_is_made_of_many() {
    let vectors = clustered(2_000, 12, 81);
    let index = Index::new(Params { flat_live_max: Some(1_500), ..params(12, Metric::Euclidean) }).unwrap();
    store_all(&index, 0..1_600, &vectors);
    (0..200).for_each(|slot| index.mark_deleted(slot));
    assert_eq!((index.len_live(), index.unlinked(), index.next_unlinked()), (1_400, 0, None));
    for (slot, vector) in (200..1_600).zip(&vectors[200..]) {
        assert_eq!(index.search(vector, &SearchOptions::new(1, 10)).unwrap()[0].slot, slot);
    }
    // What is deleted is no node, so it is vacant without more ado.
    while index.consolidate(64) {}
    let vacant = index.take_vacant();
    assert_eq!((vacant.len(), index.parts.graph.entry()), (200, None));
    for slot in vacant {
        index.store(slot, &vectors[slot as usize]).unwrap();
    }
    assert_eq!(index.unlinked(), 1_600, "more than 1,500, and all of them are to be linked");
    link_all(&index);
    check_graph(&index);
    // A graph that is there is kept up.
    (0..1_000).for_each(|slot| index.mark_deleted(slot));
    store_all(&index, 1_600..1_601, &vectors[1_600..]);
    assert_eq!((index.len_live(), index.next_unlinked()), (601, Some(1_600)));
}

#[test]
fn the_more_dimensions_the_sooner_a_graph_pays() {
    let most = |dim| Params::new(dim, Metric::Cosine).flat_slots();
    assert_eq!([2, 100, 128, 384, 1_536, 16_384].map(most), [10_000, 10_000, 8_192, 2_730, 1_000, 1_000]);
    assert_eq!(Params { flat_live_max: Some(7), ..Params::new(2, Metric::Dot) }.flat_slots(), 7);
}

#[test]
fn a_tail_that_is_longer_than_the_graph_is_searched_with_everything_else() {
    let vectors = clustered(3_000, 12, 82);
    let index = Index::new(params(12, Metric::Euclidean)).unwrap();
    store_all(&index, 0..3_000, &vectors);
    (0..50).for_each(|slot| index.link(slot));
    for query in &vectors[..50] {
        let options = SearchOptions::new(10, 20);
        assert_eq!(index.search(query, &options).unwrap(), index.search_exact(query, &options).unwrap());
    }
}

#[test]
fn a_search_that_nobody_waits_for_ends_before_it_has_looked_at_every_slot() {
    let vectors = clustered(4_000, 12, 82);
    let index = Index::new(params(12, Metric::Euclidean)).unwrap();
    store_all(&index, 0..4_000, &vectors);
    let stop = AtomicBool::new(false);
    let options = SearchOptions { stop: Some(&stop), ..SearchOptions::new(1, 10) };
    for search in [Index::search, Index::search_exact] {
        stop.store(false, Ordering::Relaxed);
        assert_eq!(search(&index, &vectors[3_999], &options).unwrap()[0].slot, 3_999);
        stop.store(true, Ordering::Relaxed);
        let hits = search(&index, &vectors[3_999], &options).unwrap();
        assert!(hits.iter().all(|hit| hit.slot < 100), "{hits:?}");
    }
}
