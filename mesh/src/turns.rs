//! Turns for large writes: a lane works on a few of them at a time, the others wait, and a write that would not be done
//! before its deadline is refused at once, with a time to come back.
//!
//! What waits is bounded in number, in bytes and in time. How long it will wait follows from how quick those before it
//! were. Everything that is small goes past: reads, searches, stamps, small writes, and what replicas are asked.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::event::OpId;
use crate::time::Time;

/// Most large writes that wait on one lane of a node.
const WAITING_MAX: usize = 256;
/// Most bytes of large writes that wait on one lane of a node.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Share of the time that is left in which a write must be done by this estimate. The rest is for the way back, and for
/// what the estimate does not know.
const USABLE_SHARE: f64 = 0.7;
/// What earlier writes count for in the estimate, against one that has just been done.
const MEMORY: f64 = 15.0 / 16.0;
/// Shortest and longest time after which a write that was refused may come again.
const COME_BACK_MIN: Duration = Duration::from_millis(100);
const COME_BACK_MAX: Duration = Duration::from_secs(5);

/// What takes turns, and how many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnLimits {
    /// A write of more bytes than this is large.
    pub large_bytes: usize,
    /// Most large writes that one lane of a node works on at a time.
    pub at_once: usize,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self { large_bytes: 64 * 1024, at_once: 8 }
    }
}

/// The large writes of one lane of a node. `W` is what waits.
#[derive(Debug)]
pub(crate) struct Turns<W> {
    limits: TurnLimits,
    under_way: BTreeMap<OpId, Turn>,
    waiting: VecDeque<Waiting<W>>,
    waiting_bytes: usize,
    /// Bytes of writes that were done, and the seconds that these took, each counting less the longer ago it was.
    done_bytes: f64,
    done_seconds: f64,
}

#[derive(Debug)]
struct Turn {
    bytes: usize,
    since: Time,
}

#[derive(Debug)]
struct Waiting<W> {
    op: OpId,
    bytes: usize,
    deadline: Time,
    what: W,
}

/// What becomes of a write that asks for a turn.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entered<W> {
    /// It is its turn.
    Goes(W),
    /// It waits.
    Waits,
    /// It would not be done in time: it may come again after this.
    Refused(Duration),
}

/// A write that has waited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<W> {
    /// It is its turn.
    Goes(OpId, W),
    /// Too little time is left for it: it may come again after this.
    Refused(OpId, Duration),
}

impl<W> Turns<W> {
    pub(crate) fn new(limits: TurnLimits) -> Self {
        Self {
            limits,
            under_way: BTreeMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            done_bytes: 0.0,
            done_seconds: 0.0,
        }
    }

    /// Whether a write of this size needs a turn.
    pub(crate) fn is_large(&self, bytes: usize) -> bool {
        bytes > self.limits.large_bytes
    }

    /// A write asks for a turn.
    pub(crate) fn enter(&mut self, op: OpId, bytes: usize, deadline: Time, now: Time, what: W) -> Entered<W> {
        if self.waiting.is_empty() && self.under_way.len() < self.limits.at_once {
            self.under_way.insert(op, Turn { bytes, since: now });
            return Entered::Goes(what);
        }
        let under_way: usize = self.under_way.values().map(|turn| turn.bytes).sum();
        let takes = self.wait_for(self.waiting_bytes + under_way / 2) + self.takes(bytes);
        let usable = deadline.since(now).mul_f64(USABLE_SHARE);
        let is_full = self.waiting.len() >= WAITING_MAX || self.waiting_bytes + bytes > WAITING_BYTES_MAX;
        if is_full || takes > usable {
            return Entered::Refused(come_back(takes.saturating_sub(usable)));
        }
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting { op, bytes, deadline, what });
        Entered::Waits
    }

    /// A write that had its turn was answered. Until then it keeps its turn, though its caller may have gone: its work goes
    /// on.
    pub(crate) fn answered(&mut self, op: OpId, now: Time) {
        let Some(Turn { bytes, since }) = self.under_way.remove(&op) else { return };
        self.done_bytes = self.done_bytes * MEMORY + bytes as f64;
        self.done_seconds = self.done_seconds * MEMORY + now.since(since).as_secs_f64();
    }

    /// Nobody waits any more for a write that waits for its turn. Says whether there was such a one.
    pub(crate) fn give_up(&mut self, op: OpId) -> bool {
        let Some(place) = self.waiting.iter().position(|waiting| waiting.op == op) else { return false };
        let given_up = self.waiting.remove(place);
        self.waiting_bytes -= given_up.map_or(0, |waiting| waiting.bytes);
        true
    }

    /// The next write whose turn it is, or for which it is too late; nothing while all turns are taken or nothing waits.
    pub(crate) fn next(&mut self, now: Time) -> Option<Next<W>> {
        if self.under_way.len() >= self.limits.at_once {
            return None;
        }
        let Waiting { op, bytes, deadline, what } = self.waiting.pop_front()?;
        self.waiting_bytes -= bytes;
        let takes = self.takes(bytes);
        if deadline <= now + takes {
            return Some(Next::Refused(op, come_back(self.wait_for(self.waiting_bytes))));
        }
        self.under_way.insert(op, Turn { bytes, since: now });
        Some(Next::Goes(op, what))
    }

    /// How long a write of this size takes once it is its turn. Nothing is known of it before any was done.
    fn takes(&self, bytes: usize) -> Duration {
        if self.done_bytes == 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(bytes as f64 * self.done_seconds / self.done_bytes)
    }

    /// How long a lane takes to do writes of this size together, by all of its turns.
    fn wait_for(&self, bytes: usize) -> Duration {
        self.takes(bytes) / u32::try_from(self.limits.at_once).unwrap_or(u32::MAX).max(1)
    }
}

fn come_back(after: Duration) -> Duration {
    after.clamp(COME_BACK_MIN, COME_BACK_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: TurnLimits = TurnLimits { large_bytes: 10, at_once: 2 };

    fn at(seconds: u64) -> Time {
        Time::default() + SECOND * seconds as u32
    }

    /// Two writes under way, and it is known that each takes two seconds.
    fn busy() -> Turns<&'static str> {
        let mut turns = Turns::new(LIMITS);
        for op in 0..8 {
            assert_eq!(turns.enter(op, 100, at(60), at(0), "first"), Entered::Goes("first"));
            turns.answered(op, at(2));
        }
        for op in 10..12 {
            assert_eq!(turns.enter(op, 100, at(60), at(10), "now"), Entered::Goes("now"));
        }
        turns
    }

    #[test]
    fn what_is_one_too_many_waits_for_its_turn_in_order() {
        let mut turns = busy();
        assert!(turns.is_large(11) && !turns.is_large(10));
        assert_eq!(turns.enter(20, 100, at(60), at(10), "one"), Entered::Waits);
        assert_eq!(turns.enter(21, 100, at(60), at(10), "two"), Entered::Waits);
        assert_eq!(turns.enter(22, 100, at(60), at(10), "three"), Entered::Waits);
        assert_eq!(turns.next(at(11)), None);
        assert!(turns.give_up(21) && !turns.give_up(21) && !turns.give_up(10));
        turns.answered(10, at(12));
        assert_eq!(turns.next(at(12)), Some(Next::Goes(20, "one")));
        assert_eq!(turns.next(at(12)), None);
        turns.answered(11, at(12));
        assert_eq!(turns.next(at(12)), Some(Next::Goes(22, "three")));
        assert_eq!(turns.waiting_bytes, 0);
    }

    #[test]
    fn what_would_not_be_done_in_time_is_refused_at_once_and_told_when_to_come_back() {
        let mut turns = busy();
        // One second until those under way are done on average, and two for itself.
        assert_eq!(turns.enter(20, 100, at(14), at(10), "late"), Entered::Refused(Duration::from_millis(200)));
        assert_eq!(turns.enter(21, 100, at(15), at(10), "in time"), Entered::Waits);
        assert_eq!(turns.enter(22, 100, at(15), at(10), "behind it"), Entered::Refused(Duration::from_millis(500)));
    }

    #[test]
    fn what_has_waited_for_too_long_is_refused_instead_of_begun() {
        let mut turns = busy();
        assert_eq!(turns.enter(20, 100, at(16), at(10), "late"), Entered::Waits);
        turns.answered(10, at(15));
        assert!(matches!(turns.next(at(15)), Some(Next::Refused(20, _))));
        assert_eq!(turns.next(at(15)), None);
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes() {
        let mut turns = Turns::new(LIMITS);
        let enter = |turns: &mut Turns<()>, op, bytes| turns.enter(op, bytes, at(60), at(0), ());
        (0..2).for_each(|op| assert_eq!(enter(&mut turns, op, 100), Entered::Goes(())));
        (0..WAITING_MAX as u64).for_each(|op| assert_eq!(enter(&mut turns, 2 + op, 11), Entered::Waits));
        assert_eq!(enter(&mut turns, 1_000, 11), Entered::Refused(COME_BACK_MIN));
        let mut turns = Turns::new(LIMITS);
        (0..2).for_each(|op| assert_eq!(enter(&mut turns, op, 100), Entered::Goes(())));
        assert_eq!(enter(&mut turns, 2, WAITING_BYTES_MAX), Entered::Waits);
        assert_eq!(enter(&mut turns, 3, 11), Entered::Refused(COME_BACK_MIN));
    }
}
