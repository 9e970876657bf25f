//! Reading the records of one segment back.

use super::error::{BoxError, LogError};
use super::reader::{SegmentReader, Step};
use super::segment::Segment;

/// What [`Log::replay`](super::Log::replay) hands lsn and bytes of each record to.
pub type Apply<'a> = dyn FnMut(u64, &[u8]) -> Result<(), BoxError> + 'a;

/// Hands the records of a segment that have an lsn of at least `from_lsn` to `apply`, and returns their number.
pub(super) fn replay_segment(
    reader: &mut SegmentReader<'_>,
    segment: &Segment,
    from_lsn: u64,
    apply: &mut Apply<'_>,
) -> Result<u64, LogError> {
    let mut applied = 0;
    loop {
        match reader.step().map_err(|source| LogError::io("read", &segment.path, source))? {
            Step::End => return Ok(applied),
            Step::Bad { offset, bad } => return Err(LogError::corrupt(&segment.path, offset, bad)),
            Step::Frame(frame) => {
                for (lsn, record) in (frame.header.first_lsn..).zip(frame.records()) {
                    if lsn >= from_lsn {
                        apply(lsn, record).map_err(|source| LogError::Apply { lsn, source })?;
                        applied += 1;
                    }
                }
            }
        }
    }
}
