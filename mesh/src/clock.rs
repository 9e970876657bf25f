//! The clock of a node: what it stamps writes with.
//!
//! Safety does not depend on it: a stamp is newer than what a majority has, and no node gives one twice. So a clock that is
//! wrong makes versions that look wrong, and nothing else: no node refuses another's version, and none takes over a time
//! that is far ahead of its own.

use vecino_model::{NodeId, Version};

use crate::hlc::{self, Hlc};

/// Stamps versions. Pure: the wall clock's time is an argument.
#[derive(Clone, Debug)]
pub struct Clock {
    node: NodeId,
    hlc: Hlc,
    /// The number of this node's start, in the upper half, and of the last stamp since then.
    seq: u64,
}

/// A version that nothing can be newer than.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version {0} is the last one that there can be: the point cannot be written any more")]
pub struct NoLaterVersion(Version);

impl Clock {
    /// The clock of a node that was started `start` times, this time included.
    pub fn new(node: NodeId, start: u32) -> Self {
        Self { node, hlc: Hlc::default(), seq: u64::from(start) << 32 }
    }

    /// A version newer than `above`, which is the newest that is known of its point, and never behind the wall clock.
    ///
    /// Nothing is remembered but the number of stamps: a wall clock that was ahead once, and is right again, leaves no
    /// trace in later stamps of other points.
    ///
    /// # Errors
    /// Where `above` is the last version that there can be.
    pub fn stamp(&mut self, above: Version, now_ms: u64) -> Result<Version, NoLaterVersion> {
        self.seq += 1;
        let next = above.time.checked_add(1).ok_or(NoLaterVersion(above))?;
        Ok(Version { time: next.max(hlc::time_of(now_ms)), node: self.node, seq: self.seq })
    }

    /// As nodes once did: a time later than every one that was given or seen, where none is too far ahead.
    ///
    /// # Errors
    /// When `above` is more than [`hlc::DRIFT_MS_MAX`] ahead of the wall clock.
    pub fn stamp_by_the_clock(&mut self, above: Version, now_ms: u64) -> Result<Version, hlc::ClockDrift> {
        self.observe(above, now_ms)?;
        self.seq += 1;
        Ok(Version { time: self.hlc.tick(now_ms), node: self.node, seq: self.seq })
    }

    /// Without the number of the node's start: unlike every other stamp of this life, and of this life alone.
    pub fn stamp_of_this_life(&mut self, above: Version, now_ms: u64) -> Version {
        let next = hlc::time_of(now_ms).max(above.time.saturating_add(1));
        let last = self.hlc.last();
        // Times of one millisecond rise.
        let time = if last >> 16 == next >> 16 { next.max(last + 1) } else { next };
        self.hlc = Hlc::default();
        self.hlc.raise(time);
        Version { time, node: self.node, seq: 0 }
    }

    /// As nodes once did: takes a version's time over unless it is too far ahead.
    ///
    /// # Errors
    /// When it is more than [`hlc::DRIFT_MS_MAX`] ahead of the wall clock.
    pub fn observe(&mut self, version: Version, now_ms: u64) -> Result<(), hlc::ClockDrift> {
        self.hlc.observe(version.time, now_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn version(ms: u64) -> Version {
        Version { time: ms << 16, node: node(9), seq: 1 }
    }

    #[test]
    fn no_stamp_is_given_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for start in 1..4 {
            let mut clock = Clock::new(node(1), start);
            for _ in 0..3 {
                // The newest that a majority has, and the wall clock, are the same in every life.
                assert!(seen.insert(clock.stamp(version(5), 1).unwrap()), "start {start}");
            }
        }
        assert_eq!(seen.len(), 9);
    }

    #[test]
    fn a_version_from_the_future_is_overwritten_just_above_it_and_moves_no_clock() {
        let mut clock = Clock::new(node(1), 1);
        let future = version(HOUR_MS);
        let above = clock.stamp(future, 1_000).unwrap();
        assert_eq!(above.time, future.time + 1);
        assert_eq!(clock.stamp(Version::ZERO, 1_001).unwrap().time >> 16, 1_001, "another point is stamped as before");
        let last = Version { time: u64::MAX, ..future };
        assert!(clock.stamp(last, 1_000).is_err());
    }

    #[test]
    fn a_clock_set_back_goes_on_stamping() {
        let mut clock = Clock::new(node(1), 1);
        let before = clock.stamp(Version::ZERO, HOUR_MS).unwrap();
        let after = clock.stamp(before, 1_000).unwrap();
        assert!(after > before);
        let other = clock.stamp(Version::ZERO, 1_001).unwrap();
        assert_eq!(other.time >> 16, 1_001, "what was ahead once does not stay so");
    }

    proptest! {
        #[test]
        fn a_stamp_is_newer_than_what_it_is_above_and_unlike_every_other(
            steps in prop::collection::vec((0..2 * HOUR_MS, 0..2 * HOUR_MS), 1..50),
        ) {
            let mut clock = Clock::new(node(1), 7);
            let mut seen = std::collections::BTreeSet::new();
            for (above, now) in steps {
                let stamp = clock.stamp(version(above), now).unwrap();
                prop_assert!(stamp > version(above) && stamp.time >= now << 16);
                prop_assert!(seen.insert((stamp.node, stamp.seq)));
            }
        }
    }
}
