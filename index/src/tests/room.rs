//! What an index asks of memory before it takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

fn link_all(index: &Index) {
    while let Some(slot) = index.next_unlinked() {
        index.link(slot);
    }
}

#[test]
fn codes_are_made_only_where_there_is_room_for_them_beside_the_old_ones() {
    const DIM: usize = 32;
    for profile in [Profile::Fast, Profile::Compact] {
        let index = Index::new(Params { profile, ..Params::new(DIM, Metric::Euclidean) }).unwrap();
        let (is_allowed, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        index.ask_before_growing({
            let (is_allowed, asked) = (Arc::clone(&is_allowed), Arc::clone(&asked));
            Box::new(move |bytes| {
                asked.fetch_max(bytes, Ordering::Relaxed);
                is_allowed.load(Ordering::Relaxed).then(|| Box::new(()) as _)
            })
        });
        let vectors = clustered(12_000, DIM, 5);
        store_all(&index, 0..11_000, &vectors);
        let plain = index.memory_bytes();
        link_all(&index);
        assert!(asked.load(Ordering::Relaxed) > 0, "{profile:?} did not ask");
        assert_eq!(index.memory_bytes(), plain, "{profile:?} made codes although it was refused");
        let options = SearchOptions::new(1, 64);
        let found = |slot: usize| index.search(&vectors[slot], &options).unwrap()[0].slot as usize;
        assert!((0..11_000).step_by(501).all(|slot| found(slot) == slot));
        is_allowed.store(true, Ordering::Relaxed);
        store_all(&index, 11_000..12_000, &vectors[11_000..]);
        link_all(&index);
        assert!(index.memory_bytes() > plain + 11_000 * DIM / 2, "{profile:?} has no codes");
        assert!((0..12_000).step_by(501).all(|slot| found(slot) == slot));
        // What is said of one slot ahead is what slots take with their codes.
        let (said, taken) = (index.bytes_per_slot() as f64, index.memory_bytes() as f64 / 12_000.0);
        assert!((0.9..1.1).contains(&(said / taken)), "{profile:?}: {said} instead of {taken} bytes a slot");
    }
}
