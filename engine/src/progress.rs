//! How far the opening of a collection is: written by the threads that open it, read by requests that wait for it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What opening is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The end of the log is looked at.
    Log,
    /// The snapshot is read and verified.
    Snapshot,
    /// What the log has beyond the snapshot is applied.
    Replay,
}

impl Phase {
    /// What people are told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "looking at the log",
            Self::Snapshot => "reading the snapshot",
            Self::Replay => "replaying the log",
        }
    }
}

/// How far opening is.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// The next phase begins. `total` is the amount of its work, in a unit of its own.
    pub fn begin(&self, phase: Phase, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Counts work that is done.
    pub fn add(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
    }

    /// The phase, and the part of it that is done, in percent.
    pub fn now(&self) -> (Phase, u8) {
        let phase = match self.phase.load(Ordering::Acquire) {
            phase if phase == Phase::Snapshot as u8 => Phase::Snapshot,
            phase if phase == Phase::Replay as u8 => Phase::Replay,
            _ => Phase::Log,
        };
        (phase, percent(self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed)))
    }
}

/// The part of a whole, in percent; nothing of nothing is none of it.
pub fn percent(done: u64, total: u64) -> u8 {
    (u128::from(done.min(total)) * 100).checked_div(total.into()).unwrap_or(0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_counts_from_nothing_to_a_hundred() {
        let progress = Progress::default();
        assert_eq!(progress.now(), (Phase::Log, 0));
        progress.begin(Phase::Snapshot, u64::MAX);
        progress.add(u64::MAX / 2 + 1);
        assert_eq!(progress.now(), (Phase::Snapshot, 50));
        progress.begin(Phase::Replay, 3);
        assert_eq!(progress.now(), (Phase::Replay, 0));
        progress.add(2);
        assert_eq!(progress.now(), (Phase::Replay, 66));
        progress.add(2);
        assert_eq!(progress.now(), (Phase::Replay, 100), "more came than was announced");
    }
}
