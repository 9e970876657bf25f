//! What waits for the writer of a collection, bounded in number, in bytes and in time. What is too much is refused at once,
//! with a time to come back: a batch that waits until nobody waits for it any more would be written for nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::memory::{Budget, Reservation};

/// Most batches that wait for the writer. As many as requests of nodes are served at a time, since all of them may be small.
pub(crate) const BATCHES_MAX: usize = 16_384;
/// Most bytes of batches that wait for the writer, unless one batch alone has more.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest time that a batch waits by what is known. Callers wait for ten seconds, unless told otherwise.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Bytes that are written at a time: no estimate holds for fewer.
const ESTIMATED_BYTES_MIN: usize = 8 * 1024 * 1024;
/// What earlier batches count for in the estimate, against one that was just written.
const MEMORY: f64 = 15.0 / 16.0;
/// Shortest and longest time after which a batch that was refused may come again.
const COME_BACK_MIN: Duration = Duration::from_millis(50);
const COME_BACK_MAX: Duration = Duration::from_secs(2);

/// The batches that wait for one writer, and those that it is at.
#[derive(Debug, Default)]
pub(crate) struct Backlog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    batches: usize,
    bytes: usize,
    /// Bytes that were written while many waited, and the seconds that it took.
    done_bytes: f64,
    done_seconds: f64,
}

/// A batch that waits or is being written. It counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    backlog: Arc<Backlog>,
    bytes: usize,
    /// Bytes that were there when it came, its own among them.
    until_done: usize,
    since: Instant,
    _memory: Reservation,
}

/// There is no room for a batch: how many bytes wait, and when it may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMuch {
    pub waiting_bytes: u64,
    pub retry_after: Duration,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a batch of this size, and memory for its records twice: as they came, and as they are logged. Where
    /// the node has no memory, a put is refused while other batches are here. A put that is alone is taken all the same, and
    /// so is every delete: the writer says whether there is memory for what they bring.
    pub(crate) fn enter(
        self: &Arc<Self>,
        bytes: usize,
        is_put: bool,
        memory: &Arc<Budget>,
        now: Instant,
    ) -> Result<Place, TooMuch> {
        let mut state = self.lock();
        let wait = state.wait();
        let too_much = |state: &State| TooMuch {
            waiting_bytes: state.bytes as u64,
            retry_after: wait.saturating_sub(WAIT_MAX / 2).clamp(COME_BACK_MIN, COME_BACK_MAX),
        };
        let is_full = state.batches >= BATCHES_MAX || state.bytes + bytes > BYTES_MAX || wait > WAIT_MAX;
        if state.batches > 0 && is_full {
            return Err(too_much(&state));
        }
        let twice = 2 * bytes as u64;
        let counted = match memory.try_count(twice) {
            Some(counted) => counted,
            None if is_put && state.batches > 0 => return Err(too_much(&state)),
            None => memory.count(twice),
        };
        state.batches += 1;
        state.bytes += bytes;
        let until_done = state.bytes;
        drop(state);
        Ok(Place { backlog: Arc::clone(self), bytes, until_done, since: now, _memory: counted })
    }
}

impl State {
    /// How long a batch waits that comes now.
    fn wait(&self) -> Duration {
        if self.bytes < ESTIMATED_BYTES_MIN || self.done_bytes == 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(self.bytes as f64 * self.done_seconds / self.done_bytes)
    }

    fn done(&mut self, bytes: usize, took: Duration) {
        self.done_bytes = self.done_bytes * MEMORY + bytes as f64;
        self.done_seconds = self.done_seconds * MEMORY + took.as_secs_f64();
    }
}

impl Place {
    /// The batch was written, or refused, by now.
    pub(crate) fn done(self, now: Instant) {
        if self.until_done >= ESTIMATED_BYTES_MIN {
            self.backlog.lock().done(self.until_done, now.saturating_duration_since(self.since));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.backlog.lock();
        state.batches -= 1;
        state.bytes -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn what_waits_for_the_writer_is_bounded_in_bytes_and_number() {
        let (backlog, memory, now) = (Arc::new(Backlog::default()), Budget::unlimited(), Instant::now());
        let enter = |bytes| backlog.enter(bytes, true, &memory, now);
        let large = enter(2 * BYTES_MAX).unwrap();
        let refused = enter(1).unwrap_err();
        assert_eq!((refused.waiting_bytes, refused.retry_after), (2 * BYTES_MAX as u64, COME_BACK_MIN));
        large.done(now);
        let places: Vec<Place> = (0..BATCHES_MAX).map(|_| enter(100).unwrap()).collect();
        enter(100).unwrap_err();
        drop(places);
        assert_eq!(memory.used(), 0);
        enter(100).unwrap();
    }

    #[test]
    fn what_would_wait_for_too_long_is_refused_with_a_time_to_come_back() {
        let (backlog, memory, now) = (Arc::new(Backlog::default()), Budget::unlimited(), Instant::now());
        let enter = || backlog.enter(10 * MIB, true, &memory, now);
        // Ten MiB in two seconds.
        enter().unwrap().done(now + Duration::from_secs(2));
        let places: Vec<Place> = (0..3).map(|_| enter().unwrap()).collect();
        let refused = enter().unwrap_err();
        assert_eq!((refused.waiting_bytes, refused.retry_after), (30 * MIB as u64, COME_BACK_MAX));
        drop(places);
        assert!(enter().is_ok());
    }

    #[test]
    fn without_memory_puts_make_way_for_what_is_there_and_deletes_go_on() {
        let (backlog, memory, now) = (Arc::new(Backlog::default()), Budget::new(1_000, 900), Instant::now());
        let enter = |is_put| backlog.enter(100, is_put, &memory, now);
        let alone = enter(true).unwrap();
        assert_eq!(memory.used(), 1_100);
        enter(true).unwrap_err();
        let delete = enter(false).unwrap();
        drop((alone, delete));
        assert_eq!(memory.used(), 900);
        enter(true).unwrap();
    }
}
