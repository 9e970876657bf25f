//! One file of the log: its name, its birth, its header.

use super::error::LogError;
use super::format::{ParsedHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::disk::{Disk, DiskFile, join};
use crate::file::replace;

/// A segment on disk. `bytes` is where its frames end; of the active segment it is where they began to be counted.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub header: SegmentHeader,
    pub path: String,
    pub bytes: u64,
}

/// The name of a segment: its first lsn, with zeros in front so that names sort like numbers.
pub(super) fn name_of(first_lsn: u64) -> String {
    format!("{first_lsn:020}{SUFFIX}")
}

/// The first lsn that a segment's name states; `None` for a file that is no segment.
pub(super) fn first_lsn_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Makes a segment. It takes its name only when its header is durable, so a segment without a good header is corrupt and
/// never half made.
pub(super) fn create(
    disk: &dyn Disk,
    dir: &str,
    header: SegmentHeader,
) -> Result<(Segment, Box<dyn DiskFile>), CreateError> {
    let path = join(dir, &name_of(header.first_lsn));
    let failed = |action, source, may_exist| CreateError { error: LogError::io(action, &path, source), may_exist };
    replace(disk, &path, &header.encode()).map_err(|e| failed(e.action, e.source, e.may_be_replaced))?;
    let file = disk.open_write(&path).map_err(|source| failed("open", source, true))?;
    Ok((Segment { header, path, bytes: SEGMENT_HEADER_BYTES as u64 }, file))
}

/// A segment that could not be made.
pub(super) struct CreateError {
    pub error: LogError,
    /// Whether it may be there all the same, now or after a crash.
    pub may_exist: bool,
}

/// Reads and judges the header of the segment `name`.
pub(super) fn read_header(
    file: &dyn DiskFile,
    path: &str,
    named_lsn: u64,
    collection: [u8; 16],
) -> Result<SegmentHeader, LogError> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(|source| LogError::io("read", path, source))?;
    let header = match SegmentHeader::parse(&bytes[..read]) {
        ParsedHeader::Good(header) => header,
        ParsedHeader::Newer(found) => {
            return Err(LogError::NewerFormat { file: path.to_owned(), found, known: super::LOG_FORMAT_VERSION });
        }
        ParsedHeader::Bad { offset, reason } => return Err(LogError::corrupt(path, offset, reason)),
    };
    if header.collection != collection {
        let (found, expected) = (hex(&header.collection), hex(&collection));
        return Err(LogError::WrongCollection { file: path.to_owned(), found, expected });
    }
    if header.first_lsn != named_lsn {
        let reason = format!("the header says first lsn {}, the name {named_lsn}", header.first_lsn);
        return Err(LogError::corrupt(path, 40, reason));
    }
    Ok(header)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const SUFFIX: &str = ".log";
