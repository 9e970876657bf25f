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
    /// Most different lines in that time; more are left out.
    const LINES_MAX: usize = 256;

    /// Whether `line` may be logged now.
    pub(crate) fn allows(&self, line: &str) -> bool {
        self.allows_at(line, Instant::now())
    }

    fn allows_at(&self, line: &str, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= Self::LINES_MAX {
            last.retain(|_, at| now - *at < Self::PAUSE);
        }
        match last.get(line) {
            Some(at) if now - *at < Self::PAUSE => false,
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
        assert!(limit.allows_at("a", now) && !limit.allows_at("a", now) && limit.allows_at("b", now));
        let later = now + LogLimit::PAUSE;
        assert!(limit.allows_at("a", later));
        let lines = (0..2 * LogLimit::LINES_MAX).filter(|line| limit.allows_at(&line.to_string(), later)).count();
        assert_eq!(lines, LogLimit::LINES_MAX - 1, "one place is taken by the first line");
    }
}
