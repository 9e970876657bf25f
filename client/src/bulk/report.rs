//! What a bulk load reports: while it runs, at its end, and where it fails.

use std::fmt;
use std::time::Duration;

use vecino_model::PointId;

use crate::error::ClientError;
use crate::report::Unwritten;

/// How many unwritten points a [`BulkSummary`] remembers with their reasons.
pub const BULK_UNWRITTEN_SHOWN: usize = 10;

/// What happens while points are loaded; see [`BulkOptions::on_event`](crate::BulkOptions::on_event).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum BulkEvent<'a> {
    /// These points are durable on as many replicas as the level asks for.
    Written {
        /// Their ids.
        ids: &'a [PointId],
    },
    /// This point was not written, and is not tried again.
    NotWritten {
        /// The point, and why.
        point: &'a Unwritten,
    },
    /// The mesh does not take points; they are tried again until patience ends.
    Waiting {
        /// How many points wait.
        points: usize,
        /// Why the last of them was not written.
        reason: &'a str,
    },
    /// Everything that waited was written.
    Resumed,
}

/// What a bulk load did.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
#[must_use = "points may have been refused: look at them, or call all_written()"]
pub struct BulkSummary {
    /// Points that are durable on as many replicas as the level asks for.
    pub written: u64,
    /// Points that were refused, and would be refused again.
    pub refused: u64,
    /// Points that were sent and neither acknowledged nor refused: the loader gave up on them, or was stopped. They may or
    /// may not be there.
    pub failed: u64,
    /// Points that were never sent, since the loader gave up or was stopped before.
    pub unsent: u64,
    /// The first of the refused and failed points, at most [`BULK_UNWRITTEN_SHOWN`], with their reasons.
    pub first_unwritten: Vec<Unwritten>,
    /// From the making of the loader to the end.
    pub elapsed: Duration,
}

impl BulkSummary {
    /// Points that the loader was given and that are not surely written.
    pub fn not_written(&self) -> u64 {
        self.refused + self.failed + self.unsent
    }

    /// How many points were written, where that is all of them.
    ///
    /// # Errors
    /// [`BulkError::NotWritten`] with this summary where some were not.
    pub fn all_written(self) -> Result<u64, BulkError> {
        if self.not_written() == 0 { Ok(self.written) } else { Err(BulkError::NotWritten(Box::new(self))) }
    }

    pub(super) fn remember(&mut self, unwritten: &Unwritten) {
        if self.first_unwritten.len() < BULK_UNWRITTEN_SHOWN {
            self.first_unwritten.push(unwritten.clone());
        }
    }
}

/// In one line: what was written, what was not, and why the first was not.
impl fmt::Display for BulkSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { written, refused, failed, unsent, first_unwritten, elapsed } = self;
        write!(f, "{written} points written in {:.1} s", elapsed.as_secs_f64())?;
        for (count, what) in [(refused, "refused"), (failed, "failed"), (unsent, "not sent")] {
            if *count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        match first_unwritten.first() {
            Some(first) => write!(f, "; the first: {first}"),
            None => Ok(()),
        }
    }
}

/// Why a bulk load did not write everything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BulkError {
    /// The mesh did not take points for longer than patience lasts. Loading them again does no harm.
    #[error("gave up after waiting {:.0} s for {points} points: {reason}", waited.as_secs_f64())]
    GaveUp {
        /// How many points were sent and not acknowledged.
        points: usize,
        /// How long they waited.
        waited: Duration,
        /// What the mesh said last.
        reason: String,
    },
    /// A batch was refused as a whole, as the next one would be.
    #[error(transparent)]
    Request(#[from] ClientError),
    /// Some points were not written.
    #[error("{0}")]
    NotWritten(Box<BulkSummary>),
    /// The loader had already failed or was stopped.
    #[error("this loader has ended: its first error, or its summary, says why")]
    Ended,
}

#[cfg(test)]
mod tests {
    use vecino_model::Outcome;

    use super::*;

    #[test]
    fn a_summary_says_what_was_not_written_and_remembers_the_first_reasons() {
        let mut summary = BulkSummary { written: 5, elapsed: Duration::from_millis(1500), ..Default::default() };
        assert_eq!(summary.clone().all_written().unwrap(), 5);
        assert_eq!(summary.to_string(), "5 points written in 1.5 s");
        for id in 0..13_u64 {
            summary.refused += 1;
            summary.remember(&Unwritten { id: id.into(), outcome: Outcome::Refused("too long".into()) });
        }
        summary.unsent = 2;
        assert_eq!(summary.first_unwritten.len(), BULK_UNWRITTEN_SHOWN);
        let error = summary.all_written().unwrap_err().to_string();
        let expected = "5 points written in 1.5 s, 13 refused, 2 not sent; the first: point 0 was refused: too long";
        assert_eq!(error, expected);
    }
}
