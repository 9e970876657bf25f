//! Whether nodes are alive on their connections while they work on what is large: whether anything comes from them, be it
//! an acknowledgement.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How often it is looked whether something has come. Well below the time after which a quiet node is late, so that one
/// that has nothing to say can be asked for a sign of life before.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After a longer gap between two looks nothing follows from there being nothing new: this process did not get to look.
const GAP_MAX: Duration = Duration::from_millis(150);

/// What was seen of the nodes at the last look, by their places.
#[derive(Debug, Default)]
pub(crate) struct Listening(Mutex<HashMap<usize, Look>>);

#[derive(Debug)]
struct Look {
    at: Instant,
    received: Option<u64>,
    is_asked: bool,
}

/// What a look shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// It is too soon to look again.
    Nothing,
    /// Something has come, or nothing can be said.
    Life,
    /// Nothing has come: the node is to be asked for a sign of life. [`Listening::was_asked`] is told when that is over.
    Quiet,
}

impl Listening {
    /// Looks at a node from which this number of packets has come so far.
    pub(crate) fn look(&self, place: usize, received: Option<u64>, now: Instant) -> Shown {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(look) = looks.get_mut(&place) else {
            looks.insert(place, Look { at: now, received, is_asked: false });
            return Shown::Life;
        };
        let gap = now.saturating_duration_since(look.at);
        if gap < LOOK_EVERY {
            return Shown::Nothing;
        }
        look.at = now;
        if look.received != received || gap > GAP_MAX {
            look.received = received;
            return Shown::Life;
        }
        if std::mem::replace(&mut look.is_asked, true) { Shown::Nothing } else { Shown::Quiet }
    }

    /// A node was asked for a sign of life, and has answered or not.
    pub(crate) fn was_asked(&self, place: usize) {
        if let Some(look) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&place) {
            look.is_asked = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_quiet_where_nothing_has_come_between_two_looks_in_good_time() {
        let (listening, began) = (Listening::default(), Instant::now());
        let look = |ms: u64, received| listening.look(3, received, began + Duration::from_millis(ms));
        assert_eq!(look(0, Some(5)), Shown::Life);
        assert_eq!(look(10, Some(6)), Shown::Nothing, "somebody else has just looked");
        assert_eq!(look(60, Some(6)), Shown::Life);
        assert_eq!(look(120, Some(6)), Shown::Quiet);
        assert_eq!(look(180, Some(6)), Shown::Nothing, "it was asked already");
        listening.was_asked(3);
        assert_eq!(look(240, Some(6)), Shown::Quiet);
        assert_eq!(look(600, Some(6)), Shown::Life, "this process slept");
        assert_eq!(look(660, None), Shown::Life, "there is another connection");
    }
}
