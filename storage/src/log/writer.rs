//! The log that one writer owns: appending, committing, cutting behind a snapshot.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::active::Active;
use super::error::LogError;
use super::format::{FRAME_HEADER_BYTES, SegmentHeader, encode_frame, frames_of};
use super::options::{LogOptions, Recovery, SyncPolicy};
use super::reader::SegmentReader;
use super::recovery::{self, Recovered};
use super::replay::{Apply, Take, Visit, visit_segment};
use super::segment::{self, Segment};
use crate::disk::{Disk, is_full};

/// Least that is reserved ahead of writing.
const RESERVE_BYTES_MIN: u64 = 64 * 1024;
/// Most that is reserved ahead of writing.
const RESERVE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A frame buffer that has grown beyond this is given back.
const BUFFER_BYTES_KEPT: usize = 4 * 1024 * 1024;

/// A write-ahead log in a directory of its own. Records are numbered from 1; the number is the lsn.
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: String,
    collection: [u8; 16],
    options: LogOptions,
    /// Full segments, oldest first. They are durable to the last byte.
    sealed: Vec<Segment>,
    active: Active,
    next_lsn: u64,
    durable_lsn: u64,
    flushed_at: Instant,
    poison: Option<String>,
    buffer: Vec<u8>,
}

impl Log {
    /// Opens the log in `dir`, making it where there is none, and recovers what a crash has left.
    ///
    /// Cuts a torn tail, removes temporary files, and flushes anew what was not known to be durable. Older segments are
    /// checked frame by frame only by [`Log::replay`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &str,
        collection: [u8; 16],
        options: LogOptions,
    ) -> Result<(Log, Recovery), LogError> {
        let Recovered { sealed, active, next_lsn, torn_bytes_cut, undeclared } =
            recovery::recover(&*disk, dir, collection)?;
        let mut log = Log {
            disk,
            dir: dir.to_owned(),
            collection,
            options,
            sealed,
            active,
            next_lsn,
            durable_lsn: next_lsn - 1,
            flushed_at: Instant::now(),
            poison: None,
            buffer: Vec::new(),
        };
        if undeclared {
            log.declare_durable();
        }
        let recovery = Recovery { first_lsn: log.first_lsn(), next_lsn, torn_bytes_cut };
        Ok((log, recovery))
    }

    /// Hands every record with an lsn of at least `from_lsn` to `apply`, in order, and returns how many they were.
    ///
    /// Fails where the log does not reach back to `from_lsn` ([`LogError::Missing`]), or ends before it
    /// ([`LogError::Behind`]); `from_lsn == next_lsn` is an empty replay. Changes nothing.
    pub fn replay(&self, from_lsn: u64, apply: &mut Apply<'_>) -> Result<u64, LogError> {
        let mut applied = 0;
        self.visit(from_lsn, &mut |lsn, record| {
            apply(lsn, record)?;
            applied += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(applied)
    }

    /// Hands the records with an lsn of at least `from_lsn` to `take`, in order, until it breaks off. What lies behind
    /// is not looked at.
    ///
    /// Fails like [`Log::replay`], and changes as little.
    pub fn read(&self, from_lsn: u64, take: &mut Take<'_>) -> Result<(), LogError> {
        self.visit(from_lsn, &mut |lsn, record| Ok(take(lsn, record)))
    }

    fn visit(&self, from_lsn: u64, visit: &mut Visit<'_>) -> Result<(), LogError> {
        self.check_poison()?;
        let first_lsn = self.first_lsn();
        if from_lsn < first_lsn {
            return Err(LogError::Missing { dir: self.dir.clone(), wanted: from_lsn, first: first_lsn });
        }
        if from_lsn > self.next_lsn {
            return Err(LogError::Behind { dir: self.dir.clone(), wanted: from_lsn, next: self.next_lsn });
        }
        for (at, segment) in self.sealed.iter().enumerate() {
            let next = self.sealed.get(at + 1).unwrap_or(&self.active.segment);
            if next.header.first_lsn <= from_lsn {
                continue;
            }
            let io = |source| LogError::io("open", &segment.path, source);
            let file = self.disk.open_read(&segment.path).map_err(io)?;
            let len = file.len().map_err(|source| LogError::io("measure", &segment.path, source))?;
            let mut reader = SegmentReader::new(&*file, &segment.header, len);
            if visit_segment(&mut reader, segment, from_lsn, visit)?.is_break() {
                return Ok(());
            }
            recovery::check_joint(segment, &reader, next)?;
        }
        let active = &self.active;
        let mut reader = SegmentReader::new(&*active.file, &active.segment.header, active.end);
        if visit_segment(&mut reader, &active.segment, from_lsn, visit)?.is_break() {
            return Ok(());
        }
        if reader.next_lsn() != self.next_lsn {
            return Err(LogError::corrupt(&active.segment.path, reader.offset(), "the file is shorter than it was"));
        }
        Ok(())
    }

    /// Appends a batch and returns the lsn of its first record. Not durable before [`Log::commit`].
    ///
    /// A batch is one frame, or several where it is larger than a frame may be; after a crash a frame is there as a whole
    /// or not at all. On an error nothing of the batch is kept. An empty batch changes nothing.
    pub fn append(&mut self, records: &[&[u8]]) -> Result<u64, LogError> {
        self.check_poison()?;
        let first_lsn = self.next_lsn;
        let frames = frames_of(records)?;
        let Some(bytes) = frames.iter().map(|frame| frame.bytes).reduce(|a, b| a + b) else { return Ok(first_lsn) };
        let holds_records = self.next_lsn > self.active.segment.header.first_lsn;
        if holds_records && self.active.end + bytes > self.options.segment_bytes {
            self.start_segment()?;
        }
        self.reserve(bytes)?;
        let (end, chain) = (self.active.end, self.active.chain);
        for frame in frames {
            if let Err(source) = self.write_frame(&records[frame.records]) {
                return Err(self.undo(end, chain, first_lsn, source));
            }
        }
        Ok(first_lsn)
    }

    /// Makes what was appended durable, as far as the policy asks for it now, and returns the durable lsn: the records
    /// up to and with it survive a power cut.
    ///
    /// A failed flush is final, because the system may drop what it could not write and report the next flush as a
    /// success: the log is poisoned, and every later call fails until it is opened again.
    pub fn commit(&mut self) -> Result<u64, LogError> {
        self.check_poison()?;
        let due = match self.options.sync {
            SyncPolicy::Always => true,
            SyncPolicy::EveryMs(ms) => self.flushed_at.elapsed() >= Duration::from_millis(u64::from(ms)),
            SyncPolicy::Never => false,
        };
        if due { self.flush() } else { Ok(self.durable_lsn) }
    }

    /// Makes everything that was appended durable, whatever the policy. Call it before a snapshot of what the log holds,
    /// so that no snapshot is ahead of its log, and before closing.
    pub fn flush(&mut self) -> Result<u64, LogError> {
        self.check_poison()?;
        if self.durable_lsn + 1 < self.next_lsn {
            self.flush_file()?;
            self.declare_durable();
        }
        Ok(self.durable_lsn)
    }

    /// When [`Log::commit`] should be called though nothing new came, so that [`SyncPolicy::EveryMs`] keeps its word.
    pub fn flush_due(&self) -> Option<Instant> {
        match self.options.sync {
            SyncPolicy::EveryMs(ms) if self.durable_lsn + 1 < self.next_lsn => {
                Some(self.flushed_at + Duration::from_millis(u64::from(ms)))
            }
            _ => None,
        }
    }

    /// Lsn of the oldest record that is still there; equal to `next_lsn` where there is none.
    pub fn first_lsn(&self) -> u64 {
        self.sealed.first().unwrap_or(&self.active.segment).header.first_lsn
    }

    /// Lsn of the first record behind the oldest segment; `None` where that one is written to. [`Log::truncate_before`]
    /// it removes that segment alone.
    pub fn second_segment_lsn(&self) -> Option<u64> {
        self.sealed.first()?;
        Some(self.sealed.get(1).unwrap_or(&self.active.segment).header.first_lsn)
    }

    /// Lsn that the next record gets.
    pub fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    /// Lsn of the last record that is known to survive a power cut; 0 where there is none.
    pub fn durable_lsn(&self) -> u64 {
        self.durable_lsn
    }

    /// Removes the segments all of whose records are before `lsn` and returns how many bytes that freed. The newest
    /// segment stays, whatever it holds.
    pub fn truncate_before(&mut self, lsn: u64) -> Result<u64, LogError> {
        self.check_poison()?;
        let mut freed = 0;
        while let Some(oldest) = self.sealed.first() {
            let next = self.sealed.get(1).unwrap_or(&self.active.segment);
            if next.header.first_lsn > lsn {
                break;
            }
            self.disk.remove(&oldest.path).map_err(|source| LogError::io("remove", &oldest.path, source))?;
            let removed = self.sealed.remove(0);
            freed += removed.bytes;
            // One by one: were two removals under way at once, a crash could bring back the older without the newer,
            // and the gap between would look like lost data.
            if let Err(source) = self.disk.sync_dir(&self.dir) {
                return Err(self.poisoned_by("flush", &removed.path, source));
            }
        }
        Ok(freed)
    }

    /// Whether a failed flush has ended this log: it takes calls again once it is opened anew.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }

    /// Bytes that the log holds, without what is reserved ahead.
    pub fn bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.bytes).sum::<u64>() + self.active.end
    }

    /// How many files the log consists of.
    pub fn segments(&self) -> usize {
        self.sealed.len() + 1
    }

    fn check_poison(&self) -> Result<(), LogError> {
        match &self.poison {
            Some(reason) => Err(LogError::Poisoned { dir: self.dir.clone(), reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn poisoned_by(&mut self, action: &'static str, path: &str, source: std::io::Error) -> LogError {
        self.poison = Some(format!("cannot {action} {path}: {source}"));
        // Also where the disk is full: this does not pass by itself.
        LogError::Io { action, path: path.to_owned(), source }
    }

    /// Makes room for `bytes` more and the declaration behind them, so that neither the write nor the flush that follows
    /// meets a full disk. A small log reserves little, a growing one ever more, up to a limit.
    fn reserve(&mut self, bytes: u64) -> Result<(), LogError> {
        let active = &mut self.active;
        let needed = active.end + bytes + FRAME_HEADER_BYTES as u64;
        if needed <= active.reserved {
            return Ok(());
        }
        let ahead = active.reserved.clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
        let roomy = (active.reserved + ahead).min(self.options.segment_bytes + FRAME_HEADER_BYTES as u64).max(needed);
        // Near the end of the room what is needed may fit where more does not.
        for wanted in [roomy, needed] {
            match active.file.preallocate(wanted) {
                Ok(()) => {
                    active.reserved = wanted;
                    return Ok(());
                }
                Err(error) if is_full(&error) && wanted > needed => {}
                Err(source) => return Err(LogError::io("reserve room in", &active.segment.path, source)),
            }
        }
        Ok(())
    }

    fn write_frame(&mut self, records: &[&[u8]]) -> std::io::Result<()> {
        let active = &mut self.active;
        let header = encode_frame(
            records,
            active.segment.header.seed(),
            active.chain,
            self.next_lsn,
            self.durable_lsn,
            &mut self.buffer,
        );
        active.file.write_at(&self.buffer, active.end)?;
        active.end += self.buffer.len() as u64;
        active.reserved = active.reserved.max(active.end);
        active.chain = header.frame_crc;
        self.next_lsn += u64::from(header.count);
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Takes a batch back that could not be written in full. The cut is flushed, because parts of the batch that came
    /// back after a crash would be records that the caller was told do not exist.
    fn undo(&mut self, end: u64, chain: u32, next_lsn: u64, source: std::io::Error) -> LogError {
        let active = &mut self.active;
        let cut = active.file.truncate(end).and_then(|()| active.file.sync());
        (active.end, active.reserved, active.chain) = (end, end, chain);
        self.next_lsn = next_lsn;
        let path = active.segment.path.clone();
        match cut {
            Ok(()) => LogError::io("write", &path, source),
            Err(error) => self.poisoned_by("cut", &path, error),
        }
    }

    fn flush_file(&mut self) -> Result<(), LogError> {
        if let Err(source) = self.active.file.sync() {
            let path = self.active.segment.path.clone();
            return Err(self.poisoned_by("flush", &path, source));
        }
        self.durable_lsn = self.next_lsn - 1;
        self.flushed_at = Instant::now();
        Ok(())
    }

    /// Writes an empty frame that says how far the log is durable, so that damage to the last batch is told from a batch
    /// that was never finished. It is not flushed: it protects against rot and against cut files, not against crashes,
    /// and the next frame says the same. A failure to write it is therefore no failure.
    fn declare_durable(&mut self) {
        if let Err(error) = self.write_frame(&[]) {
            tracing::debug!(path = %self.active.segment.path, %error, "could not declare what is durable");
        }
    }

    /// Flushes the active segment for good and starts the next. That a next one exists says that this one is complete.
    fn start_segment(&mut self) -> Result<(), LogError> {
        let active = &mut self.active;
        if active.reserved > active.end {
            let path = &active.segment.path;
            active.file.truncate(active.end).map_err(|source| LogError::io("cut", path, source))?;
            active.reserved = active.end;
        }
        self.flush_file()?;
        let header = SegmentHeader {
            collection: self.collection,
            segment_id: self.active.segment.header.segment_id + 1,
            first_lsn: self.next_lsn,
            previous_crc: self.active.chain,
        };
        let (segment, file) = match segment::create(&*self.disk, &self.dir, header) {
            Ok(made) => made,
            Err(failed) => {
                // The old segment may go on being the last one only where no other can turn up behind it.
                if failed.may_exist {
                    self.poison = Some(failed.error.to_string());
                }
                return Err(failed.error);
            }
        };
        let (end, chain) = (segment.bytes, segment.header.crc());
        let mut full = std::mem::replace(&mut self.active, Active { segment, file, end, reserved: end, chain });
        full.segment.bytes = full.end;
        self.sealed.push(full.segment);
        Ok(())
    }
}
