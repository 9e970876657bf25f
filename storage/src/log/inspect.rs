//! Looking at a log without changing it: every segment, every frame, every record, also those behind damage.

use std::ops::Range;

use super::error::LogError;
use super::format::SegmentHeader;
use super::reader::{SegmentReader, Step};
use super::recovery::{Verdict, verdict};
use super::replay::Apply;
use super::segment::{first_lsn_of, read_header};
use crate::disk::{Disk, DiskFile, join};
use crate::file::TEMPORARY_SUFFIX;
use crate::inspect::{Finding, FindingKind, names};

/// What a log holds and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogInspection {
    /// Files that it consists of.
    pub segments: u64,
    /// Whole frames.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Lsn of the first record that it should hold.
    pub first_lsn: u64,
    /// Lsn that the next record would get, as far as the log can be read.
    pub next_lsn: u64,
    /// What is wrong, in the order of the files.
    pub findings: Vec<Finding>,
}

impl LogInspection {
    /// Whether every record from `lsn` on can be read, each as the continuation of the one before.
    pub fn reaches_from(&self, lsn: u64) -> bool {
        let is_lost = |finding: &Finding| matches!(&finding.kind, FindingKind::Log { lost } if lost.end > lsn);
        (self.first_lsn..=self.next_lsn).contains(&lsn) && !self.findings.iter().any(is_lost)
    }

    /// Whether opening would refuse it.
    pub fn is_refused(&self) -> bool {
        let refuses =
            |kind: &FindingKind| matches!(kind, FindingKind::Log { .. } | FindingKind::Newer | FindingKind::Unreadable);
        self.findings.iter().any(|finding| refuses(&finding.kind))
    }
}

/// Looks at the log in `dir`, hands every record that is whole to `check`, and reports also those that it refuses.
/// Changes nothing.
pub fn inspect_log(disk: &dyn Disk, dir: &str, collection: [u8; 16], check: &mut Apply<'_>) -> LogInspection {
    let mut found =
        LogInspection { segments: 0, frames: 0, records: 0, bytes: 0, first_lsn: 1, next_lsn: 1, findings: Vec::new() };
    let mut segments = Vec::new();
    for name in names(disk, dir, &mut found.findings) {
        let path = join(dir, &name);
        match first_lsn_of(&name) {
            Some(first_lsn) => segments.push((path, first_lsn)),
            None if name.ends_with(TEMPORARY_SUFFIX) => found.findings.push(Finding::temporary(&path)),
            None => {}
        }
    }
    if let Some((_, first_lsn)) = segments.first() {
        (found.segments, found.first_lsn, found.next_lsn) = (segments.len() as u64, *first_lsn, *first_lsn);
    }
    let mut before = None;
    for (at, (path, first_lsn)) in segments.iter().enumerate() {
        let next = segments.get(at + 1).map(|(_, first_lsn)| *first_lsn);
        let place = Place { path, first_lsn: *first_lsn, next };
        before = inspect_segment(disk, &place, collection, before, &mut found, check);
    }
    found
}

/// Where a segment stands in the log.
struct Place<'a> {
    path: &'a str,
    first_lsn: u64,
    /// First lsn of the segment behind it.
    next: Option<u64>,
}

impl Place<'_> {
    /// The records that are lost where it cannot be read from `lsn` on.
    fn lost_from(&self, lsn: u64) -> Range<u64> {
        lsn..self.next.unwrap_or(u64::MAX).max(lsn)
    }
}

/// The end of a segment that was read to it.
struct End {
    path: String,
    offset: u64,
    segment_id: u64,
    next_lsn: u64,
    chain: u32,
}

fn inspect_segment(
    disk: &dyn Disk,
    place: &Place<'_>,
    collection: [u8; 16],
    before: Option<End>,
    found: &mut LogInspection,
    check: &mut Apply<'_>,
) -> Option<End> {
    let opened = open(disk, place.path).and_then(|(file, bytes)| {
        found.bytes += bytes;
        let header = read_header(&*file, place.path, place.first_lsn, collection)?;
        Ok((file, bytes, header))
    });
    match opened {
        Err(error) => {
            found.findings.push(of_error(error, place));
            None
        }
        Ok((file, bytes, header)) => {
            found.findings.extend(before.and_then(|end| check_joint(&end, place.path, &header)));
            inspect_frames(&*file, bytes, &header, place, found, check)
        }
    }
}

fn open(disk: &dyn Disk, path: &str) -> Result<(Box<dyn DiskFile>, u64), LogError> {
    let file = disk.open_read(path).map_err(|source| LogError::io("open", path, source))?;
    let bytes = file.len().map_err(|source| LogError::io("measure", path, source))?;
    Ok((file, bytes))
}

/// A segment whose header cannot be used: none of its records can be read.
fn of_error(error: LogError, place: &Place<'_>) -> Finding {
    let lost = FindingKind::Log { lost: place.lost_from(place.first_lsn) };
    match error {
        LogError::Corrupt { file, offset, reason } => Finding::new(&file, offset, lost, reason),
        LogError::NewerFormat { .. } => Finding::new(place.path, 8, FindingKind::Newer, error),
        LogError::WrongCollection { found, expected, .. } => {
            let reason = format!("it belongs to collection {found}, not to {expected}");
            Finding::new(place.path, 16, lost, reason)
        }
        other => Finding::new(place.path, 0, FindingKind::Unreadable, other),
    }
}

/// Whether a segment follows on the one before without a gap.
fn check_joint(end: &End, path: &str, header: &SegmentHeader) -> Option<Finding> {
    let expected = end.segment_id + 1;
    let between = end.next_lsn..header.first_lsn.max(end.next_lsn);
    if header.segment_id != expected {
        let reason = format!("this is segment {}, but segment {expected} is due after {}", header.segment_id, end.path);
        return Some(Finding::new(path, 32, FindingKind::Log { lost: between }, reason));
    }
    if end.next_lsn != header.first_lsn {
        let reason =
            format!("the segment ends before lsn {}, but the next one begins with {}", end.next_lsn, header.first_lsn);
        return Some(Finding::new(&end.path, end.offset, FindingKind::Log { lost: between }, reason));
    }
    if end.chain != header.previous_crc {
        let reason = "the segment follows another frame than the last one before it";
        let lost = header.first_lsn..header.first_lsn;
        return Some(Finding::new(path, 48, FindingKind::Log { lost }, reason));
    }
    None
}

fn inspect_frames(
    file: &dyn DiskFile,
    bytes: u64,
    header: &SegmentHeader,
    place: &Place<'_>,
    found: &mut LogInspection,
    check: &mut Apply<'_>,
) -> Option<End> {
    let mut reader = SegmentReader::new(file, header, bytes);
    let unreadable = |reader: &SegmentReader<'_>, error: std::io::Error| {
        let lost = FindingKind::Log { lost: place.lost_from(reader.next_lsn()) };
        Finding::new(place.path, reader.offset(), lost, format!("it cannot be read: {error}"))
    };
    let ended = loop {
        let (offset, bad) = match reader.step() {
            Err(error) => {
                found.findings.push(unreadable(&reader, error));
                break false;
            }
            Ok(Step::End) => break true,
            Ok(Step::Frame(frame)) => {
                found.frames += 1;
                for (lsn, record) in (frame.header.first_lsn..).zip(frame.records()) {
                    found.records += 1;
                    if let Err(error) = check(lsn, record) {
                        let kind = FindingKind::Log { lost: lsn..lsn.saturating_add(1) };
                        let reason = format!("record {lsn} is whole, but makes no sense: {error}");
                        found.findings.push(Finding::new(place.path, frame.offset, kind, reason));
                    }
                }
                continue;
            }
            Ok(Step::Bad { offset, bad }) => (offset, bad),
        };
        let from = reader.next_lsn();
        let judged = reader.declared_durable_at().and_then(|declared_at| {
            let verdict = verdict(place.next.is_none(), Some(bad), declared_at.is_some());
            Ok((declared_at, verdict, verdict == Verdict::Corrupt && reader.resync()?))
        });
        let (declared_at, verdict, goes_on) = match judged {
            Ok(judged) => judged,
            Err(error) => {
                found.findings.push(unreadable(&reader, error));
                break false;
            }
        };
        if verdict == Verdict::Torn {
            let kind = FindingKind::TornTail { bytes: bytes - offset };
            found.findings.push(Finding::new(place.path, offset, kind, bad));
            break false;
        }
        let lost = if goes_on { from..reader.next_lsn() } else { place.lost_from(from) };
        let witness = declared_at.map(|at| format!(", and the frame at offset {at} declares it durable"));
        let reason = format!("{bad}{}", witness.unwrap_or_default());
        found.findings.push(Finding::new(place.path, offset, FindingKind::Log { lost }, reason));
        if !goes_on {
            break false;
        }
    };
    found.next_lsn = found.next_lsn.max(reader.next_lsn());
    let end = End {
        path: place.path.to_owned(),
        offset: reader.offset(),
        segment_id: header.segment_id,
        next_lsn: reader.next_lsn(),
        chain: reader.chain(),
    };
    ended.then_some(end)
}
