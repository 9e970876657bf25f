//! Leaving out of the log what it has just said.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Keeps a log from being filled by a peer that tries the same thing over and over.
#[derive(Default)]
pub(crate) struct LogLimit {
    last: Mutex<HashMap<String, Instant>>,
}

impl LogLimit {
    /// How long the same line is left out.
    const PAUSE: Duration = Duration::from_secs(10);
    /// How long a line is left out that stays true until an operator acts.
    const PAUSE_LONG: Duration = Duration::from_secs(3600);
    /// Most different lines in that time; more are left out.
    const LINES_MAX: usize = 256;

    /// Whether `line` may be logged now.
    pub(crate) fn allows(&self, line: &str) -> bool {
        self.allows_at(line, Self::PAUSE, Instant::now())
    }

    /// Whether `line`, which stays true until an operator acts, may be logged now.
    pub(crate) fn allows_hourly(&self, line: &str) -> bool {
        self.allows_at(line, Self::PAUSE_LONG, Instant::now())
    }

    fn allows_at(&self, line: &str, pause: Duration, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= Self::LINES_MAX {
            last.retain(|_, at| now - *at < Self::PAUSE);
        }
        match last.get(line) {
            Some(at) if now - *at < pause => false,
            None if last.len() >= Self::LINES_MAX => false,
            _ => {
                last.insert(line.to_owned(), now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logged_once_in_a_while_and_others_beside_it() {
        let (limit, now) = (LogLimit::default(), Instant::now());
        let allows = |line: &str, now| limit.allows_at(line, LogLimit::PAUSE, now);
        assert!(allows("a", now) && !allows("a", now) && allows("b", now));
        let later = now + LogLimit::PAUSE;
        assert!(!limit.allows_at("b", LogLimit::PAUSE_LONG, later), "a lasting reason is not said again so soon");
        assert!(allows("a", later));
        let lines = (0..2 * LogLimit::LINES_MAX).filter(|line| allows(&line.to_string(), later)).count();
        assert_eq!(lines, LogLimit::LINES_MAX - 1, "one place is taken by the first line");
    }
}
