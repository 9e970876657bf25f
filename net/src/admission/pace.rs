//! How long requests of a kind usually take, from those that were done: with less time left none is worth beginning.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Requests that must have been done before their time counts as usual.
const SAMPLES_MIN: u32 = 16;
/// Share of the difference by which a quicker request lowers what is usual.
const QUICKER: u32 = 4;
/// Share of the difference by which a slower request raises it. Few slow ones among many quick ones so count for
/// little: only a deadline that hardly any request meets is refused.
const SLOWER: u32 = 32;
/// Time in which what is usual halves while none is done, so that a node that refuses all of them tries again soon.
const HALF_LIFE: Duration = Duration::from_secs(1);

/// The running estimate for one kind.
#[derive(Clone, Copy, Debug)]
struct Pace {
    usual: Duration,
    samples: u32,
    at: Instant,
}

impl Pace {
    fn new(took: Duration, now: Instant) -> Self {
        Self { usual: took, samples: 1, at: now }
    }

    fn done(&mut self, took: Duration, now: Instant) {
        let usual = self.faded(now);
        let usual = match took.checked_sub(usual) {
            Some(more) => usual + more / SLOWER,
            None => usual - (usual - took) / QUICKER,
        };
        *self = Self { usual, samples: self.samples.saturating_add(1), at: now };
    }

    fn usual(&self, now: Instant) -> Option<Duration> {
        (self.samples >= SAMPLES_MIN).then(|| self.faded(now))
    }

    fn faded(&self, now: Instant) -> Duration {
        let halves = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.usual.mul_f64(0.5_f64.powf(halves))
    }
}

/// The estimates of all kinds. There are as many as kinds that are known.
#[derive(Default)]
pub(crate) struct Paces(Mutex<HashMap<u16, Pace>>);

impl Paces {
    /// A request of this kind was done, or was given up after this time.
    pub(crate) fn done(&self, kind: u16, took: Duration, now: Instant) {
        self.lock().entry(kind).and_modify(|pace| pace.done(took, now)).or_insert_with(|| Pace::new(took, now));
    }

    /// How long a request of this kind usually takes, once that is known.
    pub(crate) fn usual(&self, kind: u16, now: Instant) -> Option<Duration> {
        self.lock().get(&kind)?.usual(now)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u16, Pace>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_secs(4);

    #[test]
    fn what_is_usual_is_known_after_some_and_falls_sooner_than_it_rises() {
        let (paces, now) = (Paces::default(), Instant::now());
        for _ in 1..SAMPLES_MIN {
            paces.done(6, SLOW, now);
            assert_eq!(paces.usual(6, now), None);
        }
        paces.done(6, SLOW, now);
        assert_eq!((paces.usual(6, now), paces.usual(7, now)), (Some(SLOW), None));
        paces.done(6, Duration::ZERO, now);
        assert_eq!(paces.usual(6, now), Some(SLOW * 3 / 4));
        paces.done(6, SLOW, now);
        assert_eq!(paces.usual(6, now), Some(SLOW * 3 / 4 + SLOW / 4 / SLOWER));
    }

    #[test]
    fn what_was_usual_fades_while_none_is_done() {
        let (paces, now) = (Paces::default(), Instant::now());
        (0..SAMPLES_MIN).for_each(|_| paces.done(6, SLOW, now));
        assert_eq!(paces.usual(6, now + 2 * HALF_LIFE), Some(SLOW / 4));
        assert!(paces.usual(6, now + Duration::from_secs(3600)).unwrap() < Duration::from_micros(1));
    }
}
