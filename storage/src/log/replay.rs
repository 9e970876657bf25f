//! Reading the records of one segment back.

use std::ops::ControlFlow;

use super::error::{BoxError, LogError};
use super::reader::{SegmentReader, Step};
use super::segment::Segment;

/// What [`Log::replay`](super::Log::replay) hands lsn and bytes of each record to.
pub type Apply<'a> = dyn FnMut(u64, &[u8]) -> Result<(), BoxError> + 'a;

/// What [`Log::read`](super::Log::read) hands lsn and bytes of each record to, until it breaks off.
pub type Take<'a> = dyn FnMut(u64, &[u8]) -> ControlFlow<()> + 'a;

/// Both of them.
pub(super) type Visit<'a> = dyn FnMut(u64, &[u8]) -> Result<ControlFlow<()>, BoxError> + 'a;

/// Hands the records of a segment that have an lsn of at least `from_lsn` to `visit`, until it breaks off.
pub(super) fn visit_segment(
    reader: &mut SegmentReader<'_>,
    segment: &Segment,
    from_lsn: u64,
    visit: &mut Visit<'_>,
) -> Result<ControlFlow<()>, LogError> {
    loop {
        match reader.step().map_err(|source| LogError::io("read", &segment.path, source))? {
            Step::End => return Ok(ControlFlow::Continue(())),
            Step::Bad { offset, bad } => return Err(LogError::corrupt(&segment.path, offset, bad)),
            Step::Frame(frame) => {
                for (lsn, record) in (frame.header.first_lsn..).zip(frame.records()) {
                    if lsn >= from_lsn
                        && visit(lsn, record).map_err(|source| LogError::Apply { lsn, source })?.is_break()
                    {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
    }
}
