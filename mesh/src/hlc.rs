//! A hybrid logical clock: the times that versions are stamped with.
//!
//! Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks and Consistent Snapshots in Globally Distributed
//! Databases", 2014. Pure: the wall clock's time is an argument, so that simulations can skew it. The upper 48 bits of
//! a time are milliseconds since the Unix epoch and the lower 16 a counter.

/// A time this far ahead of the own wall clock is refused: its sender has a wrong clock, and taking it over would
/// spread the error through the mesh.
pub const DRIFT_MS_MAX: u64 = 500;

const COUNTER_BITS: u32 = 16;

/// The first time of a millisecond.
pub fn time_of(ms: u64) -> u64 {
    ms << COUNTER_BITS
}

/// The clock of one node.
#[derive(Clone, Debug, Default)]
pub struct Hlc {
    last: u64,
}

/// A remote time too far ahead of this node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "version time {remote_ms} ms is {ahead_ms} ms ahead of this node's clock (at most {DRIFT_MS_MAX} ms): set the clocks of both nodes"
)]
pub struct ClockDrift {
    /// The remote wall-clock time.
    pub remote_ms: u64,
    /// By how much it is ahead.
    pub ahead_ms: u64,
}

impl Hlc {
    /// A new time: later than every time this clock has given or observed, and never behind `now_ms`.
    pub fn tick(&mut self, now_ms: u64) -> u64 {
        self.last = (self.last + 1).max(now_ms << COUNTER_BITS);
        self.last
    }

    /// Takes note of a time that another node gave, so that later ones are above it.
    pub fn observe(&mut self, remote: u64, now_ms: u64) -> Result<(), ClockDrift> {
        check_drift(remote, now_ms)?;
        self.last = self.last.max(remote);
        Ok(())
    }

    /// Never gives a time up to this one, however far ahead it is: for times that this clock itself gave in an earlier
    /// life, or that were accepted then.
    pub fn raise(&mut self, to: u64) {
        self.last = self.last.max(to);
    }

    /// The latest time given or observed.
    pub fn last(&self) -> u64 {
        self.last
    }
}

/// Refuses a time more than [`DRIFT_MS_MAX`] ahead of `now_ms`.
pub fn check_drift(remote: u64, now_ms: u64) -> Result<(), ClockDrift> {
    let remote_ms = remote >> COUNTER_BITS;
    let ahead_ms = remote_ms.saturating_sub(now_ms);
    if ahead_ms > DRIFT_MS_MAX { Err(ClockDrift { remote_ms, ahead_ms }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_from_the_future_is_refused_and_not_taken_over() {
        let mut clock = Hlc::default();
        let before = clock.tick(1_000);
        assert_eq!(clock.observe(1_501 << 16, 1_000), Err(ClockDrift { remote_ms: 1_501, ahead_ms: 501 }),);
        assert_eq!(clock.last(), before);
        assert_eq!(clock.observe(1_500 << 16, 1_000), Ok(()));
        assert!(clock.tick(1_000) > 1_500 << 16);
    }

    #[test]
    fn a_clock_goes_on_above_what_it_once_gave_though_the_wall_clock_was_set_back() {
        let mut clock = Hlc::default();
        clock.raise(600_000 << 16);
        assert!(clock.tick(1_000) > 600_000 << 16);
    }

    proptest! {
        #[test]
        fn times_always_rise_however_the_wall_clock_jumps(
            steps in prop::collection::vec((0..2_000u64, prop::option::of(0..2_500u64)), 1..200)
        ) {
            let mut clock = Hlc::default();
            let mut last = 0;
            for (now, remote) in steps {
                if let Some(remote_ms) = remote {
                    let accepted = clock.observe(remote_ms << 16, now).is_ok();
                    prop_assert_eq!(accepted, remote_ms <= now + DRIFT_MS_MAX);
                    if accepted { last = last.max(remote_ms << 16); }
                }
                let time = clock.tick(now);
                prop_assert!(time > last && time >= now << 16);
                last = time;
            }
        }
    }
}
