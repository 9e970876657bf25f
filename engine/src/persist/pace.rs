//! Writing a snapshot while the log is written.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vecino_storage::SnapshotWriter;

/// Records that were logged no longer ago are being logged.
const LOGGING: Duration = Duration::from_millis(200);
/// How many times as long as a page of a snapshot took the rest after it is.
const REST: u32 = 2;
/// The longest rest after a page.
const REST_MAX: Duration = Duration::from_millis(50);

/// Writes a snapshot at the pace that leaves the disk to the log: after a page that had to be written it rests, if records
/// are being logged, for longer than the page took. So a flush of the log waits for one page at most, and mostly for none.
pub(crate) struct Paced<'w, 's> {
    logged_bytes: &'w AtomicU64,
    writer: &'w mut SnapshotWriter<'s>,
    pages: u64,
    since: Instant,
    logged: u64,
    logged_at: Option<Instant>,
}

impl<'w, 's> Paced<'w, 's> {
    /// `logged_bytes` counts the bytes of the records that are logged.
    pub fn new(logged_bytes: &'w AtomicU64, writer: &'w mut SnapshotWriter<'s>) -> Self {
        let logged = logged_bytes.load(Ordering::Relaxed);
        Self { logged_bytes, writer, pages: 0, since: Instant::now(), logged, logged_at: None }
    }

    /// Begins the next arena.
    pub fn begin_arena(&mut self, name: &str) -> io::Result<()> {
        self.writer.begin_arena(name)
    }

    /// Writes to the arena that was begun last.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write(bytes)?;
        let pages = self.writer.pages_written();
        if self.pages == pages {
            return Ok(());
        }
        self.pages = pages;
        let logged = self.logged_bytes.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.logged, logged) != logged {
            self.logged_at = Some(Instant::now());
        }
        if self.logged_at.is_some_and(|logged| logged.elapsed() < LOGGING) {
            std::thread::sleep((self.since.elapsed() * REST).min(REST_MAX));
        }
        self.since = Instant::now();
        Ok(())
    }
}
