//! What the wall clocks of the other members say, and so whether this node's own is off.
//!
//! A node tells its clock with what it sends to another (`docs/wire.md`). Nothing at `quorum` goes by it; at level `one`
//! the clock alone decides which of two writes is the newer, so a node whose own is off gives no versions there.

use std::collections::BTreeMap;
use std::time::Duration;

use vecino_model::NodeId;

use crate::time::{Now, Time};

/// A clock is off that differs from the median by more than this number of milliseconds.
pub const OFF_MS_MAX: u64 = 500;
/// What is told where no clock is.
pub const UNTOLD: u32 = 0;
/// Of what is heard of a clock within one such time, what came with the least delay is kept.
const WINDOW: Duration = Duration::from_secs(10);
/// How many of them are looked at. A member that was heard in none of them does not count.
const WINDOWS: u64 = 3;
/// A member counts once it has been heard over this time. After a pause of this node, all that has waited for it arrives
/// at once, and as late as the pause was long.
const HEARD_MIN: Duration = Duration::from_secs(1);

/// What a node tells others of its wall clock: the lower 32 bits of its milliseconds, and never [`UNTOLD`].
pub fn told(wall_ms: u64) -> u32 {
    // One millisecond in 49.7 days is told wrong.
    low(wall_ms).max(UNTOLD + 1)
}

/// The wall clocks of the others, as they were told.
#[derive(Debug, Default)]
pub struct WallClocks {
    heard: BTreeMap<NodeId, Heard>,
}

/// How a node's own wall clock stands to the median of those that it hears and its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Milliseconds that it is ahead of the median; less than 0 where it is behind.
    pub ahead_ms: i64,
    /// Number of other members that are heard.
    pub heard: usize,
    /// Whether it is off: further from the median than [`OFF_MS_MAX`], whichever of two clocks in the middle that is.
    pub is_off: bool,
}

/// What was heard of one clock.
#[derive(Debug, Default)]
struct Heard {
    since: Time,
    last: Time,
    /// The best of each window in which it was heard, by the number of the window: milliseconds that it is ahead of the
    /// clock of this process that never jumps, so that a jump of the own wall clock shows at once, and so does its end.
    best: BTreeMap<u64, i64>,
}

impl WallClocks {
    /// Takes note of what a node told of its clock when it sent what has arrived now.
    pub fn hear(&mut self, node: NodeId, told: u32, now: Now) {
        if told == UNTOLD {
            return;
        }
        // The difference of two times of 32 bits is right while the clocks are less than 24.8 days apart.
        let ahead_of_wall = told.wrapping_sub(low(now.wall_ms)).cast_signed();
        let ahead = i64::from(ahead_of_wall).saturating_add(wall_ahead(now));
        if !self.heard.contains_key(&node) {
            self.heard.retain(|_, heard| heard.is_remembered(now.time));
        }
        self.heard.entry(node).or_default().note(ahead, now.time);
    }

    /// How the own clock stands; only members for which `counts` holds do.
    ///
    /// Of an even number of clocks two are in the middle. The own one is off only where it is too far from both: of two
    /// nodes, or of two halves of a mesh, nobody can tell which is wrong, and neither refuses anything. What is told is the
    /// distance from the farther one, so that both say that they differ.
    pub fn standing(&self, now: Now, counts: impl Fn(&NodeId) -> bool) -> Standing {
        let own = wall_ahead(now);
        let others = self.heard.iter().filter(|(node, _)| counts(node));
        let mut ahead: Vec<i64> = others.filter_map(|(_, heard)| heard.ahead(now.time)).collect();
        let heard = ahead.len();
        ahead.push(own);
        ahead.sort_unstable();
        let from = |place: usize| own.saturating_sub(ahead[place]);
        let mut middle = [from(heard / 2), from(heard.div_ceil(2))];
        middle.sort_unstable_by_key(|from| from.unsigned_abs());
        let [near, far] = middle;
        let is_off = near.unsigned_abs() > OFF_MS_MAX;
        Standing { ahead_ms: if is_off { near } else { far }, heard, is_off }
    }
}

impl Heard {
    fn note(&mut self, ahead: i64, now: Time) {
        let window = window(now);
        self.best.retain(|known, _| known + WINDOWS > window);
        if self.best.is_empty() {
            self.since = now;
        }
        self.last = now;
        // What was on its way for long makes its sender look behind, and nothing makes it look ahead.
        let best = self.best.entry(window).or_insert(ahead);
        *best = (*best).max(ahead);
    }

    fn is_remembered(&self, now: Time) -> bool {
        self.best.last_key_value().is_some_and(|(known, _)| known + WINDOWS > window(now))
    }

    /// By how much it is ahead of the clock that never jumps, where it counts.
    fn ahead(&self, now: Time) -> Option<i64> {
        if self.last.since(self.since) < HEARD_MIN {
            return None;
        }
        let window = window(now);
        self.best.iter().filter(|(known, _)| *known + WINDOWS > window).map(|(_, ahead)| *ahead).max()
    }
}

fn low(wall_ms: u64) -> u32 {
    (wall_ms & u64::from(u32::MAX)) as u32
}

/// Milliseconds that the own wall clock is ahead of the clock that never jumps.
fn wall_ahead(now: Now) -> i64 {
    let steady_ms = now.time.since(Time::default()).as_millis();
    let ms = |ms: u128| i64::try_from(ms).unwrap_or(i64::MAX);
    ms(now.wall_ms.into()).saturating_sub(ms(steady_ms))
}

fn window(time: Time) -> u64 {
    let windows = time.since(Time::default()).as_millis() / WINDOW.as_millis();
    u64::try_from(windows).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH_MS: u64 = 1_700_000_000_000;
    const HOUR_MS: i64 = 3_600_000;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    /// This long after the start, by a wall clock that is off by so much.
    fn at(ms: u64, off_ms: i64) -> Now {
        Now {
            time: Time::default() + Duration::from_millis(ms),
            wall_ms: (EPOCH_MS + ms).saturating_add_signed(off_ms),
        }
    }

    /// Hears nodes from 2 on, whose clocks are off by so much, at two times.
    fn hear(clocks: &mut WallClocks, own_off_ms: i64, others: &[i64], ms: u64) {
        for ms in [ms, ms + 1_000] {
            for (number, off_ms) in others.iter().enumerate() {
                let told = told(at(ms, *off_ms).wall_ms);
                clocks.hear(node(number as u8 + 2), told, at(ms, own_off_ms));
            }
        }
    }

    fn standing(own_off_ms: i64, others: &[i64]) -> Standing {
        let mut clocks = WallClocks::default();
        hear(&mut clocks, own_off_ms, others, 5_000);
        clocks.standing(at(6_000, own_off_ms), |_| true)
    }

    #[test]
    fn a_clock_is_off_that_is_far_from_the_median() {
        for (own, others, ahead_ms, is_off) in [
            (0, vec![], 0, false),
            (HOUR_MS, vec![0, 0], HOUR_MS, true),
            (-HOUR_MS, vec![0, 0], -HOUR_MS, true),
            (0, vec![0, HOUR_MS], 0, false),
            (500, vec![0, 0], 500, false),
            (501, vec![0, 0], 501, true),
            (-501, vec![0, 40], -501, true),
            (700, vec![0, 300], 400, false),
            (0, vec![HOUR_MS, HOUR_MS, -HOUR_MS, 10], -10, false),
            (HOUR_MS, vec![0, 0, 0], HOUR_MS, true),
            (0, vec![0, 30, HOUR_MS], -30, false),
        ] {
            let expected = Standing { ahead_ms, heard: others.len(), is_off };
            assert_eq!(standing(own, &others), expected, "{own} among {others:?}");
        }
    }

    /// Two nodes cannot tell which of them is wrong, nor can two halves: both say so, and none refuses.
    #[test]
    fn of_two_clocks_that_differ_neither_is_off_and_both_say_so() {
        for (own, others, ahead_ms) in [
            (0, vec![HOUR_MS], -HOUR_MS),
            (HOUR_MS, vec![0], HOUR_MS),
            (0, vec![0, HOUR_MS, HOUR_MS], -HOUR_MS),
            (HOUR_MS, vec![0, 0, HOUR_MS], HOUR_MS),
        ] {
            let expected = Standing { ahead_ms, heard: others.len(), is_off: false };
            assert_eq!(standing(own, &others), expected, "{own} among {others:?}");
        }
    }

    #[test]
    fn what_was_on_its_way_for_long_makes_nobody_look_behind() {
        let mut clocks = WallClocks::default();
        hear(&mut clocks, 0, &[0, 0], 5_000);
        for number in [2, 3] {
            // It was sent 20 s ago.
            clocks.hear(node(number), told(at(1_000, 0).wall_ms), at(21_000, 0));
        }
        assert_eq!(clocks.standing(at(21_000, 0), |_| true), Standing { ahead_ms: 0, heard: 2, is_off: false });
    }

    #[test]
    fn what_has_waited_for_a_node_that_was_paused_says_nothing_of_clocks() {
        let mut clocks = WallClocks::default();
        hear(&mut clocks, 0, &[0, 0], 1_000);
        for number in [2, 2, 3, 3] {
            clocks.hear(node(number), told(at(3_000, 0).wall_ms), at(63_000, 0));
        }
        assert_eq!(clocks.standing(at(63_000, 0), |_| true), Standing::default(), "nobody is heard again yet");
        for number in [2, 3] {
            clocks.hear(node(number), told(at(64_000, 0).wall_ms), at(64_000, 0));
        }
        assert_eq!(clocks.standing(at(64_000, 0), |_| true), Standing { ahead_ms: 0, heard: 2, is_off: false });
    }

    #[test]
    fn who_was_not_heard_for_half_a_minute_or_is_no_member_that_is_up_does_not_count() {
        let mut clocks = WallClocks::default();
        hear(&mut clocks, HOUR_MS, &[0, 0], 1_000);
        let now = at(10_000, HOUR_MS);
        assert!(clocks.standing(now, |_| true).is_off);
        let one = clocks.standing(now, |other| *other == node(2));
        assert_eq!((one.heard, one.is_off), (1, false));
        assert_eq!(clocks.standing(at(31_000, HOUR_MS), |_| true), Standing::default());
        clocks.hear(node(9), told(EPOCH_MS), at(31_000, HOUR_MS));
        assert_eq!(clocks.heard.len(), 1, "what is forgotten takes no memory");
    }

    #[test]
    fn a_jump_of_the_own_clock_shows_at_once_and_so_does_its_end() {
        let mut clocks = WallClocks::default();
        hear(&mut clocks, 0, &[0, 0], 1_000);
        for off_ms in [HOUR_MS, -HOUR_MS, 600] {
            let expected = Standing { ahead_ms: off_ms, heard: 2, is_off: true };
            assert_eq!(clocks.standing(at(3_000, off_ms), |_| true), expected);
            assert!(!clocks.standing(at(3_000, 0), |_| true).is_off);
        }
    }

    #[test]
    fn a_clock_of_another_node_that_was_set_back_is_known_after_half_a_minute() {
        let mut clocks = WallClocks::default();
        hear(&mut clocks, 0, &[HOUR_MS, HOUR_MS], 5_000);
        for ms in [9_000, 19_000, 29_000] {
            hear(&mut clocks, 0, &[0, 0], ms);
            assert!(clocks.standing(at(ms + 1_000, 0), |_| true).is_off == (ms < 29_000), "{ms}");
        }
    }

    #[test]
    fn clocks_are_compared_over_the_wrap_of_what_is_told() {
        let wrap = (EPOCH_MS >> 32 << 32) + (1 << 32);
        for (own_ms, other_ms) in [(wrap - 4, wrap + 6), (wrap + 6, wrap - 4), (wrap - 1, wrap + 1)] {
            let mut clocks = WallClocks::default();
            for ms in [0, 1_000] {
                let time = Time::default() + Duration::from_millis(ms);
                clocks.hear(node(2), told(other_ms + ms), Now { time, wall_ms: own_ms + ms });
            }
            let time = Time::default() + Duration::from_secs(1);
            let standing = clocks.standing(Now { time, wall_ms: own_ms + 1_000 }, |_| true);
            assert_eq!(standing.ahead_ms, own_ms as i64 - other_ms as i64, "{own_ms} {other_ms}");
        }
        assert_eq!((told(wrap), told(wrap + 7)), (1, 7), "no clock tells nothing");
        let mut clocks = WallClocks::default();
        clocks.hear(node(2), UNTOLD, at(0, 0));
        assert!(clocks.heard.is_empty());
    }

    proptest! {
        #[test]
        fn at_most_half_of_the_clocks_are_off_and_no_times_make_it_panic(
            offs in prop::collection::vec(-2 * HOUR_MS..2 * HOUR_MS, 1..8),
            wild in prop::collection::vec((any::<u32>(), any::<u64>(), any::<u64>()), 0..20),
        ) {
            let off = (0..offs.len()).filter(|own| {
                let others: Vec<i64> = (0..offs.len()).filter(|other| other != own).map(|other| offs[other]).collect();
                standing(offs[*own], &others).is_off
            });
            // Whoever is in the middle is not off; with an even number two are.
            prop_assert!(off.count() + 2 - offs.len() % 2 <= offs.len());
            let mut clocks = WallClocks::default();
            for (told, time, wall_ms) in wild {
                let now = Now { time: Time(time), wall_ms };
                clocks.hear(node(2), told, now);
                clocks.standing(now, |_| true);
            }
        }
    }
}
