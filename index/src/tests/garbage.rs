//! Dumps that were cut, changed or made up: an error that says where, never a panic or memory without end.

use proptest::prelude::*;

use super::*;
use crate::LoadError;

const DIM: usize = 5;

fn small() -> (Params, Arenas) {
    let params = Params { m: 4, ef_construction: 20, ..params(DIM, Metric::Cosine) };
    let index = built(params.clone(), &clustered(300, DIM, 51));
    index.mark_deleted(7);
    index.store(310, &[1.0; DIM]).unwrap();
    (params, Arenas::of(&index))
}

fn refusal(params: Params, dump: Arenas) -> LoadError {
    match Index::load(params, &dump) {
        Ok(_) => panic!("the dump was accepted"),
        Err(error) => error,
    }
}

#[test]
fn a_missing_arena_is_named() {
    let (params, dump) = small();
    for name in ["header", "nodes", "vectors", "links0", "upper"] {
        let mut without = dump.clone();
        without.arenas.remove(name);
        let error = refusal(params.clone(), without);
        assert!(matches!(error, LoadError::Missing { arena } if arena == name), "{error}");
    }
}

#[test]
fn an_arena_cut_anywhere_is_named_with_its_length() {
    let (params, dump) = small();
    for (name, bytes) in &dump.arenas {
        for length in (0..bytes.len()).step_by(1 + bytes.len() / 40) {
            let mut cut = dump.clone();
            cut.arenas.get_mut(name).unwrap().truncate(length);
            let error = refusal(params.clone(), cut);
            let (expected_length, expected) = (length as u64, bytes.len() as u64);
            assert!(
                matches!(error, LoadError::Truncated { arena, got, expected: full }
                    if arena == name && got == expected_length && full == expected),
                "{name} cut to {length}: {error}"
            );
        }
        let mut longer = dump.clone();
        longer.arenas.get_mut(name).unwrap().push(0);
        let error = refusal(params.clone(), longer);
        assert!(matches!(error, LoadError::Trailing { arena, .. } if arena == name), "{error}");
    }
}

#[test]
fn a_foreign_header_is_refused_with_value_and_limit() {
    let (params, dump) = small();
    let said = |error: LoadError| error.to_string();
    assert_eq!(
        said(refusal(Params { dim: 6, ..params.clone() }, dump.clone())),
        "arena header: dim is 5; this index has 6"
    );
    assert_eq!(
        said(refusal(Params { m: 5, ..params.clone() }, dump.clone())),
        "arena header: m is 4; this index has 5"
    );
    let metric = refusal(Params { metric: Metric::Dot, ..params.clone() }, dump.clone());
    assert_eq!(said(metric), "arena header: metric is 1; this index has 3");
    let mut newer = dump.clone();
    newer.arenas.get_mut("header").unwrap()[6] = 9;
    assert_eq!(said(refusal(params.clone(), newer)), "arena header: format is 9; this version reads format 2");
    let mut foreign = dump;
    foreign.arenas.get_mut("header").unwrap()[0] = b'X';
    assert!(said(refusal(params, foreign)).contains("no dump of an index"));
}

#[test]
fn a_header_that_promises_billions_is_not_believed() {
    let (params, mut dump) = small();
    dump.arenas.get_mut("header").unwrap()[20..24].copy_from_slice(&0x3f00_0000u32.to_le_bytes());
    let error = refusal(params, dump);
    assert!(matches!(error, LoadError::Truncated { arena: "nodes", got: 2488, .. }), "{error}");
}

#[test]
fn links_that_lead_nowhere_are_refused() {
    let (params, dump) = small();
    let stride = 4 * 8;
    // To itself, to a slot that was skipped, to one that is not linked, beyond the end, twice to the same.
    for (at, link) in [(0, 1), (0, 305), (0, 311), (0, 312), (0, u32::MAX), (1, 0)] {
        let mut changed = dump.clone();
        let links = changed.arenas.get_mut("links0").unwrap();
        let first: [u8; 4] = links[..4].try_into().unwrap();
        let bytes = if link == 0 { first } else { u32::to_le_bytes(link) };
        links[4 * at..4 * at + 4].copy_from_slice(&bytes);
        let error = refusal(params.clone(), changed);
        let expected = u64::from(u32::from_le_bytes(bytes));
        assert!(
            matches!(error, LoadError::Invalid { arena: "links0", field: "link", value, .. } if value == expected),
            "{error}"
        );
    }
    let mut unlinked = dump;
    unlinked.arenas.get_mut("links0").unwrap()[310 * stride] = 1;
    assert!(matches!(refusal(params, unlinked), LoadError::Invalid { arena: "links0", .. }));
}

#[test]
fn vectors_that_could_not_be_stored_are_refused() {
    let (params, dump) = small();
    for (value, message) in
        [(f32::NAN, "vector[2] is NaN"), (f32::INFINITY, "vector[2] is inf"), (1e30, "at most 1e18 is allowed")]
    {
        let mut changed = dump.clone();
        let at = 4 * (11 * DIM + 2);
        changed.arenas.get_mut("vectors").unwrap()[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let message_of = refusal(params.clone(), changed).to_string();
        assert!(message_of.starts_with("arena vectors: slot 11: ") && message_of.contains(message), "{message_of}");
    }
}

#[test]
fn nodes_that_lost_their_last_link_are_linked_again() {
    let (params, mut dump) = small();
    let stride = 4 * 8;
    // As if every list had been copied before these three were linked.
    let links = dump.arenas.get_mut("links0").unwrap();
    for list in links.chunks_mut(stride) {
        let mut kept: Vec<[u8; 4]> = list.as_chunks().0.to_vec();
        kept.retain(|link| ![101, 151, 201].contains(&u32::from_le_bytes(*link)));
        kept.resize(stride / 4, [0; 4]);
        list.copy_from_slice(kept.as_flattened());
    }
    let loaded = Index::load(params, &dump).unwrap();
    assert!(loaded.unlinked() >= 4, "the three, and the one that was not linked: {}", loaded.unlinked());
    for slot in [100, 150, 200] {
        assert!(!loaded.parts.states.is_linked(slot));
        assert_eq!(walked(&loaded, &loaded.vector(slot).unwrap(), &SearchOptions::new(1, 50))[0].slot, slot);
    }
    link_all(&loaded);
    check_graph(&loaded);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Bytes changed anywhere: refused, or an index that works.
    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((0usize..5, any::<prop::sample::Index>(), 1u8..), 1..4)) {
        static SMALL: std::sync::LazyLock<(Params, Arenas)> = std::sync::LazyLock::new(small);
        let (params, mut dump) = SMALL.clone();
        for (arena, at, flip) in flips {
            let bytes = dump.arenas.values_mut().nth(arena).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        if let Ok(index) = Index::load(params, &dump) {
            link_all(&index);
            prop_assert_eq!(index.unlinked(), 0);
            let hits = walked(&index, &[0.5; DIM], &SearchOptions::new(20, 400));
            prop_assert_eq!(hits.len(), 20);
            index.store(400, &[1.0; DIM]).unwrap();
            index.link(400);
        }
    }
}
