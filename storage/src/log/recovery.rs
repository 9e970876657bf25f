//! Opening a log: what its files mean after a crash, and the one place that cuts.
//!
//! The table, in [`verdict`]:
//!
//! | segment | ends with | declared durable behind it | verdict |
//! |---|---|---|---|
//! | last | nothing, or zeros | | clean |
//! | last | bytes that an interrupted write can leave | no | torn: cut |
//! | last | bytes that an interrupted write can leave | yes | corrupt |
//! | last | a frame that verifies but does not belong there | | corrupt |
//! | earlier | nothing, or zeros, and the next segment follows on | | clean |
//! | earlier | anything else | | corrupt |
//!
//! Frames that were written but not flushed may reach the disk in any order, so a good frame behind a bad one proves
//! nothing by itself; one that declares the bad one durable does.

use std::collections::VecDeque;

use super::active::Active;
use super::error::LogError;
use super::format::{FrameHeader, SegmentHeader};
use super::reader::{BadFrame, SegmentReader, Step};
use super::segment::{self, Segment, first_lsn_of};
use crate::disk::{Disk, DiskFile, join};
use crate::file::TEMPORARY_SUFFIX;

/// A log as opening found it and left it.
pub(super) struct Recovered {
    /// Full segments, oldest first.
    pub sealed: Vec<Segment>,
    pub active: Active,
    /// Lsn that the next record gets.
    pub next_lsn: u64,
    /// Bytes of unfinished frames that were cut away.
    pub torn_bytes_cut: u64,
    /// Whether there are records that no frame declares durable.
    pub undeclared: bool,
}

/// Opens the files of the log in `dir`, making the first where there is none.
pub(super) fn recover(disk: &dyn Disk, dir: &str, collection: [u8; 16]) -> Result<Recovered, LogError> {
    let io = |action, source| LogError::io(action, dir, source);
    disk.create_dir_all(dir).map_err(|source| io("make directory", source))?;
    let mut segments = Vec::new();
    for name in disk.list(dir).map_err(|source| io("list", source))? {
        let path = join(dir, &name);
        if name.ends_with(TEMPORARY_SUFFIX) {
            match disk.remove(&path) {
                Ok(()) => tracing::info!(path, "removed a temporary file that a crash had left"),
                Err(error) => tracing::warn!(path, %error, "could not remove a temporary file that a crash had left"),
            }
        } else if let Some(first_lsn) = first_lsn_of(&name) {
            segments.push(open_segment(disk, path, first_lsn, collection)?);
        }
    }
    // Names sort like their numbers, so the segments are in order; each has to follow on the one before.
    for pair in segments.windows(2) {
        check_follows(&pair[0], &pair[1])?;
    }
    let Some(last) = segments.pop() else {
        return create(disk, dir, collection);
    };
    // A process that was killed may have left names that are seen but not durable yet.
    disk.sync_dir(dir).map_err(|source| io("flush", source))?;
    let file = disk.open_write(&last.path).map_err(|source| LogError::io("open", &last.path, source))?;
    let (active, tail) = open_last(last, file)?;
    let Tail { next_lsn, torn_bytes_cut, undeclared } = tail;
    Ok(Recovered { sealed: segments, active, next_lsn, torn_bytes_cut, undeclared })
}

/// Checks that a segment that was read to its end is followed by the next without a gap.
pub(super) fn check_joint(segment: &Segment, reader: &SegmentReader<'_>, next: &Segment) -> Result<(), LogError> {
    let (found, expected) = (reader.next_lsn(), next.header.first_lsn);
    if found != expected {
        let reason = format!("the segment ends before lsn {found}, but the next one begins with {expected}");
        return Err(LogError::corrupt(&segment.path, reader.offset(), reason));
    }
    if reader.chain() != next.header.previous_crc {
        return Err(LogError::corrupt(&next.path, 48, "the segment follows another frame than the last one before it"));
    }
    Ok(())
}

/// What the end of a segment means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Clean,
    Torn,
    Corrupt,
}

/// The table at the head of this file. `bad` is what stands behind the last good frame, `declared` whether something
/// behind it says that it was durable.
pub(super) fn verdict(is_last: bool, bad: Option<BadFrame>, declared: bool) -> Verdict {
    match (is_last, bad, declared) {
        (_, None, _) => Verdict::Clean,
        (false, Some(_), _) => Verdict::Corrupt,
        (true, Some(_), true) => Verdict::Corrupt,
        (true, Some(bad), false) if bad.can_be_torn() => Verdict::Torn,
        (true, Some(_), false) => Verdict::Corrupt,
    }
}

/// What was found at the end of the log.
struct Tail {
    next_lsn: u64,
    torn_bytes_cut: u64,
    /// Whether there are records that no frame declares durable.
    undeclared: bool,
}

fn create(disk: &dyn Disk, dir: &str, collection: [u8; 16]) -> Result<Recovered, LogError> {
    let header = SegmentHeader { collection, segment_id: 1, first_lsn: 1, previous_crc: 0 };
    let (segment, file) = segment::create(disk, dir, header).map_err(|failed| failed.error)?;
    let (end, chain) = (segment.bytes, header.crc());
    let active = Active { segment, file, end, reserved: end, chain };
    Ok(Recovered { sealed: Vec::new(), active, next_lsn: 1, torn_bytes_cut: 0, undeclared: false })
}

fn open_segment(disk: &dyn Disk, path: String, first_lsn: u64, collection: [u8; 16]) -> Result<Segment, LogError> {
    let file = disk.open_read(&path).map_err(|source| LogError::io("open", &path, source))?;
    let bytes = file.len().map_err(|source| LogError::io("measure", &path, source))?;
    let header = segment::read_header(&*file, &path, first_lsn, collection)?;
    Ok(Segment { header, path, bytes })
}

fn check_follows(before: &Segment, after: &Segment) -> Result<(), LogError> {
    let expected = before.header.segment_id + 1;
    if after.header.segment_id != expected {
        let found = after.header.segment_id;
        let reason = format!("this is segment {found}, but segment {expected} is due after {}", before.path);
        return Err(LogError::corrupt(&after.path, 32, reason));
    }
    Ok(())
}

/// Walks over the last segment, judges its end, cuts a torn tail and writes anew what was not declared durable: a flush
/// that failed before this process may have left in memory what is not on the disk, and only bytes that are written
/// again are flushed again.
fn open_last(segment: Segment, file: Box<dyn DiskFile>) -> Result<(Active, Tail), LogError> {
    let io = |action, source| LogError::io(action, &segment.path, source);
    let len = segment.bytes;
    let mut reader = SegmentReader::new(&*file, &segment.header, len);
    // Where each frame begins that may not be on the disk, and the lsn that, once declared durable, says that it is. The
    // segment exists only because those before it are complete, and its header was durable before it had its name.
    let mut doubtful: VecDeque<(u64, u64)> = VecDeque::new();
    let mut declared_lsn = segment.header.first_lsn - 1;
    let bad = loop {
        match reader.step().map_err(|source| io("read", source))? {
            Step::End => break None,
            Step::Bad { bad, .. } => break Some(bad),
            Step::Frame(frame) => {
                let FrameHeader { first_lsn, count, durable_lsn, .. } = frame.header;
                declared_lsn = declared_lsn.max(durable_lsn);
                while doubtful.front().is_some_and(|(_, lsn)| *lsn <= declared_lsn) {
                    doubtful.pop_front();
                }
                // An empty frame is on the disk for sure only when a record behind it is.
                doubtful.push_back((frame.offset, first_lsn + u64::from(count.max(1)) - 1));
            }
        }
    };
    let end = reader.offset();
    let declared_at = match bad {
        Some(_) => reader.declared_durable_at().map_err(|source| io("read", source))?,
        None => None,
    };
    let mut torn_bytes_cut = 0;
    match (verdict(true, bad, declared_at.is_some()), bad) {
        (Verdict::Torn, Some(bad)) => {
            torn_bytes_cut = len - end;
            tracing::warn!(
                path = %segment.path, offset = end, bytes = torn_bytes_cut, reason = %bad,
                "cut the torn tail of the log: a write that was never acknowledged had been interrupted"
            );
            file.truncate(end).map_err(|source| io("cut", source))?;
        }
        (Verdict::Corrupt, Some(bad)) => {
            let witness = declared_at.map(|at| format!(", and the frame at offset {at} declares it durable"));
            return Err(LogError::corrupt(&segment.path, end, format!("{bad}{}", witness.unwrap_or_default())));
        }
        (Verdict::Clean | Verdict::Torn | Verdict::Corrupt, _) => {}
    }
    if let Some((from, _)) = doubtful.front() {
        reader.rewrite(*from, &*file).map_err(|source| io("write anew", source))?;
    }
    // Empty frames need no flush of their own, only to be among what the next one writes.
    let undeclared = declared_lsn + 1 < reader.next_lsn();
    if undeclared || torn_bytes_cut > 0 {
        file.sync().map_err(|source| io("flush", source))?;
    }
    let tail = Tail { next_lsn: reader.next_lsn(), torn_bytes_cut, undeclared };
    let chain = reader.chain();
    let reserved = if torn_bytes_cut > 0 { end } else { len };
    Ok((Active { segment, file, end, reserved, chain }, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_interrupted_write_at_the_very_end_that_nothing_declares_durable_is_cut() {
        let torn = [BadFrame::Header, BadFrame::Short, BadFrame::Body];
        let wrong = [BadFrame::Chain, BadFrame::Lsn { found: 1, expected: 2 }, BadFrame::Contents, BadFrame::Promise];
        for is_last in [true, false] {
            for declared in [true, false] {
                assert_eq!(verdict(is_last, None, declared), Verdict::Clean);
                for bad in torn {
                    let expected = if is_last && !declared { Verdict::Torn } else { Verdict::Corrupt };
                    assert_eq!(verdict(is_last, Some(bad), declared), expected, "{is_last} {bad:?} {declared}");
                }
                for bad in wrong {
                    assert_eq!(verdict(is_last, Some(bad), declared), Verdict::Corrupt, "{is_last} {bad:?} {declared}");
                }
            }
        }
    }
}
