//! Whether more points of an open collection wait to be linked than searches may leave waiting.
//!
//! Every search scans what is not linked yet, so while much of it waits, linking is what makes searches fast: the node then
//! lets fewer of them run at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A tail of more points than this is long, and stays so until it has half as many.
pub const TAIL_LONG: usize = 4_096;

/// How many collections have a long tail.
#[derive(Default)]
pub struct Tails {
    long: AtomicUsize,
}

impl Tails {
    /// Whether any collection has one.
    pub fn any_long(&self) -> bool {
        self.long.load(Ordering::Relaxed) > 0
    }

    /// The tail of one more collection, short at first.
    pub fn tail(self: &Arc<Self>) -> Tail {
        Tail { tails: Arc::clone(self), is_long: Mutex::new(false) }
    }
}

/// The tail of one collection, which counts for as long as this lives.
pub struct Tail {
    tails: Arc<Tails>,
    /// Held while the length is looked at too, so that the last look is what counts.
    is_long: Mutex<bool>,
}

impl Tail {
    /// Looks how many points wait.
    pub fn note(&self, length: impl FnOnce() -> usize) {
        let mut is_long = self.is_long.lock().unwrap_or_else(PoisonError::into_inner);
        let was_long = *is_long;
        let now_long = is_tail_long(was_long, length());
        *is_long = now_long;
        match (was_long, now_long) {
            (false, true) => drop(self.tails.long.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.tails.long.fetch_sub(1, Ordering::Relaxed)),
            (false, false) | (true, true) => {}
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.note(|| 0);
    }
}

/// Whether a tail is long, given whether it was when it was last looked at: at the border it does not change all the time.
fn is_tail_long(was_long: bool, length: usize) -> bool {
    length > if was_long { TAIL_LONG / 2 } else { TAIL_LONG }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_long_until_half_of_it_is_linked() {
        for (was_long, length, is_long) in [
            (false, 0, false),
            (false, TAIL_LONG, false),
            (false, TAIL_LONG + 1, true),
            (true, TAIL_LONG, true),
            (true, TAIL_LONG / 2 + 1, true),
            (true, TAIL_LONG / 2, false),
        ] {
            assert_eq!(is_tail_long(was_long, length), is_long, "{length} after {was_long}");
        }
    }

    #[test]
    fn any_long_tail_counts_until_it_is_short_or_its_collection_is_closed() {
        let tails = Arc::<Tails>::default();
        let (one, two) = (tails.tail(), tails.tail());
        assert!(!tails.any_long());
        one.note(|| 1_000_000);
        one.note(|| 1_000_000);
        two.note(|| 1_000_000);
        one.note(|| 0);
        assert!(tails.any_long(), "that of the other");
        drop(two);
        assert!(!tails.any_long());
        one.note(|| 1_000_000);
        assert!(tails.any_long());
        drop(one);
        assert!(!tails.any_long());
    }
}
