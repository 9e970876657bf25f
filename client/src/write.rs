//! Batches of writes, and what is done about points that were not settled.

use std::time::Duration;

use vecino_model::Outcome;
use vecino_model::{Level, PointId};
use vecino_net::message::{Delete, Put, Rpc};

/// How often points that were not settled are written again.
pub(crate) const ROUNDS_MAX: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// A request whose answer has one outcome for each of its points.
pub trait Batch: Rpc<Reply = Vec<Outcome>> + Sync {
    /// Number of points.
    fn count(&self) -> usize;
    /// The points' ids, in their order.
    fn ids(&self) -> Vec<PointId>;
    /// The same request, which waits for as many replicas as this level says.
    fn at_level(self, level: Level) -> Self;
    /// The same request for some of its points.
    fn subset(&self, positions: &[usize]) -> Self;
}

impl Batch for Put {
    fn count(&self) -> usize {
        self.points.len()
    }

    fn ids(&self) -> Vec<PointId> {
        self.points.iter().map(|point| point.id.clone()).collect()
    }

    fn at_level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    fn subset(&self, positions: &[usize]) -> Self {
        let Self { collection, points, level } = self;
        let points = positions.iter().map(|position| points[*position].clone()).collect();
        Self { collection: collection.clone(), points, level: *level }
    }
}

impl Batch for Delete {
    fn count(&self) -> usize {
        self.ids.len()
    }

    fn ids(&self) -> Vec<PointId> {
        self.ids.clone()
    }

    fn at_level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    fn subset(&self, positions: &[usize]) -> Self {
        let Self { collection, ids, level } = self;
        let ids = positions.iter().map(|position| ids[*position].clone()).collect();
        Self { collection: collection.clone(), ids, level: *level }
    }
}

/// Positions of the points that are to be written again: those that surely were not written, and, where the caller
/// allows it, those that may have been.
pub(crate) fn unsettled(outcomes: &[Outcome], repeat_unknown: bool) -> Vec<usize> {
    let unsettled = |outcome: &Outcome| match outcome {
        Outcome::Unavailable(_) => true,
        Outcome::Unknown(_) => repeat_unknown,
        Outcome::Written(_) | Outcome::Refused(_) => false,
    };
    outcomes.iter().enumerate().filter(|(_, outcome)| unsettled(outcome)).map(|(position, _)| position).collect()
}

/// Pause before a round, which grows from round to round.
pub(crate) fn pause(round: u32, chance: f64) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << round.saturating_sub(1).min(8)).mul_f64(1.0 + chance / 2.0)
}

/// Puts the outcomes of a later round in their places. A point that was unknown and is not written now stays unknown:
/// the earlier write may still take effect.
pub(crate) fn merge(outcomes: &mut [Outcome], positions: &[usize], later: Vec<Outcome>) {
    for (position, later) in positions.iter().zip(later) {
        let outcome = &mut outcomes[*position];
        *outcome = match (&outcome, later) {
            (Outcome::Unknown(_), Outcome::Refused(reason) | Outcome::Unavailable(reason)) => Outcome::Unknown(reason),
            (_, later) => later,
        };
    }
}

#[cfg(test)]
mod tests {
    use vecino_model::Version;

    use super::*;

    #[test]
    fn what_is_settled_is_not_asked_again_and_what_was_unknown_stays_so_unless_written() {
        let written = || Outcome::Written(Version::ZERO);
        let unknown = |reason: &str| Outcome::Unknown(reason.into());
        let refused = |reason: &str| Outcome::Refused(reason.into());
        let unavailable = |reason: &str| Outcome::Unavailable(reason.into());
        let mut outcomes = vec![
            written(),
            unknown("a"),
            refused("dim"),
            unknown("a"),
            unavailable("a"),
            unavailable("a"),
            unknown("a"),
        ];
        assert_eq!(unsettled(&outcomes, false), [4, 5]);
        let positions = unsettled(&outcomes, true);
        assert_eq!(positions, [1, 3, 4, 5, 6]);
        let ids = (0..7).map(PointId::Number).collect();
        let batch = Delete { collection: "c".into(), ids, level: Default::default() };
        assert_eq!(batch.subset(&positions).ids, [1, 3, 4, 5, 6].map(PointId::Number));
        let later = vec![written(), refused("b"), unavailable("b"), unknown("b"), unavailable("b")];
        merge(&mut outcomes, &positions, later);
        let expected =
            [written(), written(), refused("dim"), unknown("b"), unavailable("b"), unknown("b"), unknown("b")];
        assert_eq!(outcomes, expected);
    }
}
