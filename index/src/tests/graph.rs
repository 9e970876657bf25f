//! The graph's own promises: everything can be reached, and one thread and one seed make one graph.

use super::*;
use crate::codes::codec::Codec;
use crate::codes::plain::Plain;
use crate::search::walk::Walk;

#[test]
fn duplicates_do_not_cut_anything_off() {
    let distinct = uniform(100, 8, 2);
    let mut random = fastrand::Rng::with_seed(3);
    let mut vectors: Vec<Vec<f32>> = (0..3_000).map(|_| random.choice(&distinct).unwrap().clone()).collect();
    vectors.extend(uniform(500, 8, 4));
    for metric in Metric::ALL {
        check_graph(&built(Params { m: 3, ef_construction: 20, ..params(8, metric) }, &vectors));
        let index = built(params(8, metric), &vectors);
        check_graph(&index);
        for (slot, vector) in (3_000..).zip(&vectors[3_000..]).filter(|_| metric != Metric::Dot) {
            // A walk must get past the heaps that lie between, of some thirty equal vectors each.
            assert_eq!(walked(&index, vector, &SearchOptions::new(1, 400))[0].slot, slot, "{metric:?}");
        }
    }
}

#[test]
fn a_thousand_equal_vectors_all_come_back() {
    let index = built(params(4, Metric::Cosine), &vec![vec![1.0, 2.0, 3.0, 4.0]; 1_500]);
    check_graph(&index);
    let hits = walked(&index, &[1.0, 2.0, 3.0, 4.0], &SearchOptions::new(1_000, 1_500));
    assert_eq!(slots(&hits), (0..1_000).collect::<Vec<_>>(), "ties go by slot");
}

#[test]
fn one_thread_and_one_seed_make_one_graph() {
    let vectors = clustered(1_500, 16, 1);
    let dump = |seed| Arenas::of(&built(Params { seed, ..params(16, Metric::Euclidean) }, &vectors));
    assert!(dump(7) == dump(7), "two builds differ");
    assert!(dump(7) != dump(8), "the seed decides nothing");
}

#[test]
fn slots_may_be_skipped_and_linked_in_any_order() {
    let vectors = clustered(2_000, 12, 6);
    let index = Index::new(params(12, Metric::Euclidean)).unwrap();
    for (slot, vector) in (0..).step_by(3).zip(&vectors) {
        index.store(slot, vector).unwrap();
    }
    for at in (0..2_000).rev() {
        index.link(at * 3);
        index.link(at * 3);
        index.link(at * 3 + 1);
    }
    assert_eq!((index.unlinked(), index.next_unlinked(), index.len_live()), (0, None, 2_000));
    check_graph(&index);
    for (slot, vector) in (0..).step_by(3).zip(&vectors) {
        assert_eq!(walked(&index, vector, &SearchOptions::new(1, 64))[0].slot, slot);
    }
}

#[test]
fn what_is_not_linked_is_found_beside_what_is() {
    let vectors = clustered(3_000, 12, 8);
    let index = built(params(12, Metric::Manhattan), &vectors[..2_000]);
    store_all(&index, 2_000..3_000, &vectors[2_000..]);
    for slot in (2_000..3_000).step_by(2) {
        index.link(slot);
    }
    assert_eq!(index.unlinked(), 500);
    for (slot, vector) in (0..).zip(&vectors) {
        let hits = walked(&index, vector, &SearchOptions::new(10, 64));
        assert_eq!((hits.len(), hits[0].slot), (10, slot));
        assert_eq!(hits.iter().map(|hit| hit.slot).collect::<HashSet<_>>().len(), 10, "a slot twice");
    }
}

/// Where the descent ends, a walk may begin in a part of layer 0 that leads nowhere else; the entry leads everywhere.
#[test]
fn a_walk_goes_on_from_the_entry_where_the_descent_ends_in_a_corner() {
    for profile in Profile::ALL {
        let vectors = uniform(1_200, 3, 7);
        let index = built(Params { profile, ..params(3, Metric::Euclidean) }, &vectors);
        let entry = index.parts.graph.entry().unwrap();
        let mut corners = 0;
        for query in &vectors[..40] {
            let rows = &index.parts.rows;
            let mut kept = ();
            let scorer = Plain.scorer(rows, rows.query_of(query, 1.0), &mut kept).unwrap();
            let (mut batch, mut distances) = (Vec::new(), Vec::new());
            let (_, start) = Walk { graph: &index.parts.graph, scorer }.descend(entry, 0, &mut batch, &mut distances);
            let expected = index.search_exact(query, &SearchOptions::new(1, 1_200)).unwrap();
            if start != entry.slot && start != expected[0].slot {
                let links: Vec<Slot> = index.parts.graph.neighbours(start, 0).collect();
                index.parts.graph.set_neighbours(start, 0, &[]);
                assert_eq!(walked(&index, query, &SearchOptions::new(1, 1_200)), expected, "{profile:?} from {start}");
                index.parts.graph.set_neighbours(start, 0, &links);
                corners += 1;
            }
        }
        assert!(corners > 10, "{corners}");
    }
}

/// What `ef` means is that so many candidates are looked at on average, whatever the data; and a walk looks at more of them
/// where it is crowded.
#[test]
fn walks_end_at_a_distance_that_so_many_candidates_have_on_average() {
    for (dim, metric) in [(4, Metric::Euclidean), (16, Metric::Euclidean), (16, Metric::Cosine), (8, Metric::Manhattan)]
    {
        let vectors = uniform(4_000, dim, 8);
        let index = built(params(dim, metric), &vectors);
        let beam = index.parts.growth.beam(10, 50, Some(0.0));
        assert_eq!((beam.most, beam.least, beam.k), (100, 25, 10));
        let looked_at = vectors.iter().step_by(41).map(|query| {
            let hits = index.search_exact(query, &SearchOptions::new(101, 101)).unwrap();
            let distance = |hit: &Hit| match metric {
                Metric::Euclidean => hit.score * hit.score,
                Metric::Cosine => 1.0 - hit.score,
                _ => hit.score,
            };
            let farthest = distance(&hits[10]) * beam.expansion;
            hits[1..].iter().filter(|hit| distance(hit) <= farthest).count().clamp(25, 100)
        });
        let looked_at: Vec<usize> = looked_at.collect();
        let mean = looked_at.iter().sum::<usize>() as f64 / looked_at.len() as f64;
        assert!((40.0..60.0).contains(&mean), "{dim} {metric:?}: {mean}");
        assert!(looked_at.iter().max() > looked_at.iter().min(), "{dim} {metric:?}: all as many");
        let loaded = Index::load(index.params().clone(), &Arenas::of(&index)).unwrap();
        let again = loaded.parts.growth.beam(10, 50, Some(0.0)).expansion;
        assert!((again / beam.expansion - 1.0).abs() < 0.1, "{again} after loading, {} before", beam.expansion);
    }
    let none = built(params(8, Metric::Dot), &uniform(2_000, 8, 8));
    assert_eq!(none.parts.growth.beam(10, 50, None).least, 50, "inner products are no distances");
}

/// How far walks go is found out by walks alone, however much is stored that is not in the graph yet.
#[test]
fn growth_is_measured_in_the_graph_and_not_in_what_waits_for_it() {
    let vectors = uniform(12_000, 8, 9);
    let alone = built(params(8, Metric::Euclidean), &vectors[..2_000]);
    let index = Index::new(params(8, Metric::Euclidean)).unwrap();
    store_all(&index, 0..12_000, &vectors);
    (0..2_000).for_each(|slot| index.link(slot));
    alone.parts.measure_growth();
    index.parts.measure_growth();
    let [alone, index] = [&alone, &index].map(|index| index.parts.growth.beam(10, 50, Some(0.0)).expansion);
    assert!(alone > 1.0 && (index / alone - 1.0).abs() < 0.1, "{index} for {alone}");
}
