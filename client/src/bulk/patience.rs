//! How long to go on trying, and how long to rest in between: the decisions, without a clock of their own.

use std::time::Duration;

use tokio::time::Instant;

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Shortest time for one attempt, also for the last one, which begins when patience ends.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);

/// Patience that has begun to wear off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    since: Instant,
    until: Instant,
    pause: Duration,
}

impl Patience {
    /// Begins with the attempt that began at `since` and failed.
    pub(super) fn new(patience: Duration, since: Instant) -> Self {
        Self { since, until: since + patience, pause: PAUSE_FIRST }
    }

    /// How long it has lasted.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// How long to rest before the next attempt; `None` once patience has ended. An attempt is always made at the very
    /// end, so that a mesh that came back just in time is not missed.
    pub(super) fn next_pause(&mut self, now: Instant) -> Option<Duration> {
        let left = self.until.saturating_duration_since(now);
        if left.is_zero() {
            return None;
        }
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Some(pause)
    }

    /// How long an attempt that begins now may take: no longer than patience lasts, so that the caller's patience is
    /// wall-clock time.
    pub(super) fn attempt(&self, now: Instant, timeout: Duration) -> Duration {
        self.until.saturating_duration_since(now).max(ATTEMPT_MIN).min(timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn patience_is_bounded_and_ends_with_an_attempt() {
        let start = Instant::now();
        let mut patience = Patience::new(5 * SECOND, start);
        let (mut now, mut pauses) = (start, Vec::new());
        while let Some(pause) = patience.next_pause(now) {
            now += pause;
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 1900]);
        assert_eq!(patience.waited(now), 5 * SECOND);
        assert_eq!(Patience::new(Duration::ZERO, start).next_pause(start), None);
    }

    #[test]
    fn no_attempt_outlasts_patience_by_more_than_a_second() {
        let start = Instant::now();
        let patience = Patience::new(6 * SECOND, start);
        assert_eq!(patience.attempt(start, 10 * SECOND), 6 * SECOND);
        assert_eq!(patience.attempt(start, 2 * SECOND), 2 * SECOND);
        assert_eq!(patience.attempt(start + 6 * SECOND, 10 * SECOND), SECOND);
        assert_eq!(patience.attempt(start + 6 * SECOND, SECOND / 5), SECOND / 5);
    }
}
