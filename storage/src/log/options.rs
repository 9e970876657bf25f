//! How a log is opened, and what opening found.

/// When records become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// Every [`Log::commit`](super::Log::commit) flushes.
    #[default]
    Always,
    /// A commit flushes when this number of milliseconds has passed since the last flush: a power cut loses at most what
    /// was committed in that time, provided that commit is called again when [`Log::flush_due`](super::Log::flush_due) says so.
    EveryMs(u32),
    /// Only the operating system decides, and the start of a new segment: a power cut may lose any of the last segment.
    Never,
}

/// Settings of one log.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Bytes from which on a segment is followed by another. A batch never spans two.
    pub segment_bytes: u64,
    /// When records become durable.
    pub sync: SyncPolicy,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 * 1024 * 1024, sync: SyncPolicy::Always }
    }
}

/// What opening a log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Lsn of the oldest record that is still there, or would be: equal to `next_lsn` where there is none.
    pub first_lsn: u64,
    /// Lsn that the next record gets.
    pub next_lsn: u64,
    /// Bytes of unfinished, never acknowledged frames that a crash had left and that were cut away.
    pub torn_bytes_cut: u64,
}
