//! What became of the points of one put or delete.

use std::fmt;

use vecino_model::Outcome;
use vecino_model::{PointId, Version};

/// What became of every point of a put or delete, in the order in which they were given.
///
/// [`all_written`](Self::all_written) turns it into an error unless every point was written, which is what `put` and
/// `delete` do when they are awaited without `each()`.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "points may not have been written: look at them, or call all_written()"]
pub struct WriteReport {
    ids: Vec<PointId>,
    outcomes: Vec<Outcome>,
}

/// A point that was not written, and why.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Unwritten {
    /// Its id.
    pub id: PointId,
    /// What became of it; never [`Outcome::Written`].
    pub outcome: Outcome,
}

impl WriteReport {
    /// Both are of the same length.
    pub(crate) fn new(ids: Vec<PointId>, outcomes: Vec<Outcome>) -> Self {
        Self { ids, outcomes }
    }

    /// The outcome of each point.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Each point's id with its outcome.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&PointId, &Outcome)> {
        self.ids.iter().zip(&self.outcomes)
    }

    /// Each point's outcome, the ids left out.
    pub fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }

    /// The points that were not written.
    pub fn unwritten(&self) -> impl Iterator<Item = Unwritten> + '_ {
        let unwritten = self.iter().filter(|(_, outcome)| !matches!(outcome, Outcome::Written(_)));
        unwritten.map(|(id, outcome)| Unwritten { id: id.clone(), outcome: outcome.clone() })
    }

    /// The version of each point, if every one was written.
    pub fn versions(&self) -> Option<Vec<Version>> {
        let version = |outcome: &Outcome| match outcome {
            Outcome::Written(version) => Some(*version),
            _ => None,
        };
        self.outcomes.iter().map(version).collect()
    }

    /// Whether some point may or may not have been written.
    pub fn has_unknown(&self) -> bool {
        self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Unknown(_)))
    }

    /// Whether some point was refused, and would be refused again.
    pub fn has_refused(&self) -> bool {
        self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused(_)))
    }
}

/// How many points were not written, and why the first was not.
impl fmt::Display for WriteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unwritten = self.unwritten();
        let Some(first) = unwritten.next() else {
            return write!(f, "all {} points were written", self.outcomes.len());
        };
        match (1 + unwritten.count(), self.outcomes.len()) {
            (_, 1) => write!(f, "{first}"),
            (count, all) => write!(f, "{count} of {all} points were not written; the first: {first}"),
        }
    }
}

/// Which point, what became of it and why.
impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, outcome } = self;
        match outcome {
            Outcome::Refused(reason) => write!(f, "point {id:?} was refused: {reason}"),
            Outcome::Unavailable(reason) => write!(f, "point {id:?} was not written: {reason}"),
            Outcome::Unknown(reason) => write!(f, "point {id:?} may or may not have been written: {reason}"),
            Outcome::Written(version) => write!(f, "point {id:?} was written with version {version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: Vec<Outcome>) -> WriteReport {
        WriteReport::new((1..=outcomes.len() as u64).map(PointId::from).collect(), outcomes)
    }

    #[test]
    fn a_report_says_how_many_points_were_not_written_and_why() {
        let written = || Outcome::Written(Version::ZERO);
        let all = report(vec![written(), written()]);
        assert_eq!(all.versions(), Some(vec![Version::ZERO; 2]));
        assert_eq!((all.unwritten().count(), all.to_string().as_str()), (0, "all 2 points were written"));
        let some = report(vec![written(), Outcome::Refused("too long".into()), Outcome::Unknown("late".into())]);
        assert_eq!((some.versions(), some.has_refused(), some.has_unknown()), (None, true, true));
        assert_eq!(some.to_string(), "2 of 3 points were not written; the first: point 2 was refused: too long");
        let one = report(vec![Outcome::Unavailable("no replica answers".into())]);
        assert_eq!(one.to_string(), "point 1 was not written: no replica answers");
        assert_eq!((one.has_refused(), one.has_unknown()), (false, false));
    }
}
