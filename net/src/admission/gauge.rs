//! A count of something that must not exceed a maximum: requests, bytes, connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much of something is in use, and the most that may be.
#[derive(Debug)]
pub struct Gauge {
    used: AtomicU64,
    max: u64,
}

/// A part of what a [`Gauge`] has. It goes back when dropped.
#[derive(Debug)]
pub struct Taken {
    gauge: Arc<Gauge>,
    amount: u64,
}

impl Gauge {
    /// A gauge of which nothing is in use.
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), max })
    }

    /// Takes so much, if there is so much left. It never waits.
    pub fn take(self: &Arc<Self>, amount: u64) -> Option<Taken> {
        self.add(amount).then(|| Taken { gauge: Arc::clone(self), amount })
    }

    /// How much is in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// The most that may be in use.
    pub fn max(&self) -> u64 {
        self.max
    }

    fn add(&self, amount: u64) -> bool {
        let fits = |used: u64| used.checked_add(amount).filter(|used| *used <= self.max);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }
}

impl Taken {
    /// Takes so much more, if there is so much left; what was taken before stays.
    pub fn grow(&mut self, amount: u64) -> bool {
        let grown = self.gauge.add(amount);
        if grown {
            self.amount += amount;
        }
        grown
    }

    /// How much it is.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// The gauge that it is of.
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.gauge.used.fetch_sub(self.amount, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_what_is_dropped_comes_back() {
        let gauge = Gauge::new(10);
        let mut taken = gauge.take(6).unwrap();
        assert!(gauge.take(5).is_none() && !taken.grow(5), "only four are left");
        assert!(taken.grow(4));
        assert_eq!((taken.amount(), gauge.used()), (10, 10));
        assert!(gauge.take(u64::MAX).is_none(), "it does not wrap around");
        drop(taken);
        assert_eq!(gauge.used(), 0);
        assert!(Gauge::new(0).take(1).is_none());
    }
}
