//! Writing a batch of points to their replicas.
//!
//! Each point goes its own way: it is stamped and written as soon as a majority of *its* replicas has told the versions they
//! have, so a range without a majority holds up none of the others.

use std::collections::BTreeMap;

use vecino_model::{Level, NodeId, Outcome, Version};

use super::{Failures, PointIndex, Replicas, by_node};

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Ask a replica for the versions of these points; answer with [`Write::on_versions`].
    AskVersions {
        /// Whom.
        node: NodeId,
        /// Which points.
        points: Vec<PointIndex>,
    },
    /// Stamp these points, each with a new version above the one beside it; answer with [`Write::on_stamped`].
    Stamp {
        /// Which points, each with the newest version that a majority knows.
        points: Vec<(PointIndex, Version)>,
    },
    /// Send these points with their stamps to a replica; answer with [`Write::on_written`].
    Write {
        /// Whom.
        node: NodeId,
        /// Which of the sends of this batch it is; the answer is told under it.
        send: SendNumber,
        /// Which points.
        points: Vec<PointIndex>,
    },
    /// Every point has its outcome.
    Finish,
}

/// Counts what a batch sends to replicas.
pub type SendNumber = usize;

/// A replica that gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why.
    pub reason: String,
    /// Whether it may have done what it was asked all the same.
    pub may_have_happened: bool,
}

/// One batch on its way to its replicas.
#[derive(Clone, Debug)]
pub struct Write {
    level: Level,
    /// Whether replicas are asked for the versions that they have.
    asks: bool,
    /// Whether one replica is enough. On only to show that it is not.
    counts_one: bool,
    points: Vec<PointState>,
    asked: BTreeMap<NodeId, Vec<PointIndex>>,
    /// By number; none once it is answered.
    sent: Vec<Option<(NodeId, Vec<PointIndex>)>>,
    failures: Failures,
    is_finished: bool,
}

#[derive(Clone, Debug)]
struct PointState {
    replicas: Vec<NodeId>,
    heard: usize,
    silent: usize,
    newest: Version,
    /// Whether its stamp was asked for.
    is_stamping: bool,
    stamp: Option<Version>,
    acknowledged: usize,
    failed: usize,
    /// Some replica that failed may have the write.
    in_doubt: bool,
    outcome: Option<Outcome>,
}

impl PointState {
    fn majority(&self) -> usize {
        Level::Quorum.required(self.replicas.len())
    }
}

impl Write {
    /// Begins to write points to their replicas.
    pub fn new(replicas: Replicas, level: Level) -> (Self, Vec<Command>) {
        // At level `one` the last writer wins: the coordinator's clock alone decides.
        Self::begin(replicas, level, level != Level::One)
    }

    /// Begins to write points that have their stamps.
    pub fn stamped(replicas: Replicas, level: Level, stamps: Vec<Version>) -> (Self, Vec<Command>) {
        let (mut write, begun) = Self::begin(replicas, level, false);
        let mut commands = write.on_stamped(stamps.into_iter().enumerate().collect());
        commands.extend(begun.into_iter().filter(|command| *command == Command::Finish));
        (write, commands)
    }

    /// [`Self::new`], where `asks` says whether replicas are asked for the versions that they have.
    pub fn begin(replicas: Replicas, level: Level, asks: bool) -> (Self, Vec<Command>) {
        let points: Vec<_> = replicas
            .into_iter()
            .map(|replicas| PointState {
                replicas,
                heard: 0,
                silent: 0,
                newest: Version::ZERO,
                is_stamping: false,
                stamp: None,
                acknowledged: 0,
                failed: 0,
                in_doubt: false,
                outcome: None,
            })
            .collect();
        let mut write = Self {
            level,
            asks,
            counts_one: false,
            points,
            asked: BTreeMap::new(),
            sent: Vec::new(),
            failures: Failures::default(),
            is_finished: false,
        };
        let mut commands = if asks {
            write.asked = by_node(write.pairs(0..write.points.len()));
            let ask = |(node, points): (&NodeId, &Vec<_>)| Command::AskVersions { node: *node, points: points.clone() };
            write.asked.iter().map(ask).collect()
        } else {
            write.stamp(0..write.points.len())
        };
        commands.extend(write.finish_if_decided());
        (write, commands)
    }

    /// A replica told the versions of the points it was asked for, in that order, or failed to.
    pub fn on_versions(&mut self, node: NodeId, answer: Result<Vec<Option<Version>>, Failed>) -> Vec<Command> {
        let Some(points) = self.asked.remove(&node).filter(|_| !self.is_finished) else { return Vec::new() };
        match answer {
            Ok(versions) if versions.len() == points.len() => {
                for (point, version) in points.iter().zip(versions) {
                    let point = &mut self.points[*point];
                    point.heard += 1;
                    point.newest = point.newest.max(version.unwrap_or(Version::ZERO));
                }
            }
            Ok(versions) => {
                let reason = format!("answered {} versions for {} points", versions.len(), points.len());
                self.silent(node, &points, &reason);
            }
            Err(Failed { reason, may_have_happened: _ }) => self.silent(node, &points, &reason),
        }
        let mut commands = self.stamp(points);
        commands.extend(self.finish_if_decided());
        commands
    }

    fn silent(&mut self, node: NodeId, points: &[PointIndex], reason: &str) {
        self.failures.add(node, reason);
        for point in points {
            self.points[*point].silent += 1;
        }
    }

    /// Has those of these points stamped that a majority was heard about, and gives up on those that have none.
    fn stamp(&mut self, points: impl IntoIterator<Item = PointIndex>) -> Vec<Command> {
        let asks = self.asks;
        let mut ready = Vec::new();
        for index in points {
            let point = &mut self.points[index];
            let majority = point.majority();
            if point.is_stamping || point.outcome.is_some() {
                continue;
            }
            if !asks || point.heard >= majority {
                point.is_stamping = true;
                ready.push((index, point.newest));
            } else if point.silent > point.replicas.len() - majority {
                point.outcome = Some(Outcome::Unavailable(format!(
                    "{} of {} replicas answered and {majority} are needed ({})",
                    point.heard,
                    point.replicas.len(),
                    self.failures.of(&point.replicas)
                )));
            }
        }
        if ready.is_empty() { Vec::new() } else { vec![Command::Stamp { points: ready }] }
    }

    /// Points that were to be stamped have their versions.
    pub fn on_stamped(&mut self, stamps: Vec<(PointIndex, Version)>) -> Vec<Command> {
        let is_awaited = |point: &PointState| point.is_stamping && point.stamp.is_none() && point.outcome.is_none();
        let mut stamped = Vec::with_capacity(stamps.len());
        for (index, stamp) in stamps {
            let point = &mut self.points[index];
            if is_awaited(point) {
                point.stamp = Some(stamp);
                stamped.push(index);
            }
        }
        let mut commands = Vec::new();
        for (node, points) in by_node(self.pairs(stamped)) {
            commands.push(Command::Write { node, send: self.sent.len(), points: points.clone() });
            self.sent.push(Some((node, points)));
        }
        commands
    }

    /// A point that was to be stamped cannot be: nothing is written of it.
    pub fn on_refused(&mut self, point: PointIndex, reason: &str) -> Vec<Command> {
        let point = &mut self.points[point];
        if point.is_stamping && point.stamp.is_none() {
            point.outcome.get_or_insert_with(|| Outcome::Refused(reason.to_owned()));
        }
        self.finish_if_decided()
    }

    /// One replica is enough from now on, whatever the level says: to show that it is not.
    pub fn count_one(&mut self) {
        self.counts_one = true;
    }

    /// What became of a point, once that is known.
    pub fn outcome_of(&self, point: PointIndex) -> Option<&Outcome> {
        self.points[point].outcome.as_ref()
    }

    /// The stamp of a point, once it has one.
    pub fn stamp_of(&self, point: PointIndex) -> Option<Version> {
        self.points[point].stamp
    }

    /// A replica applied the points of this send, in their order, or failed to.
    pub fn on_written(&mut self, send: SendNumber, answer: Result<Vec<Outcome>, Failed>) -> Vec<Command> {
        let Some((node, points)) = self.sent.get_mut(send).and_then(Option::take).filter(|_| !self.is_finished) else {
            return Vec::new();
        };
        let answers: Vec<Result<(), Failed>> = match answer {
            Ok(outcomes) if outcomes.len() == points.len() => outcomes.into_iter().map(acknowledgement).collect(),
            Ok(outcomes) => {
                let reason = format!("answered {} outcomes for {} points", outcomes.len(), points.len());
                points.iter().map(|_| Err(Failed { reason: reason.clone(), may_have_happened: true })).collect()
            }
            Err(failed) => points.iter().map(|_| Err(failed.clone())).collect(),
        };
        for (index, answer) in points.into_iter().zip(answers) {
            match answer {
                Ok(()) => self.points[index].acknowledged += 1,
                Err(Failed { reason, may_have_happened }) => {
                    self.failures.add(node, &reason);
                    let point = &mut self.points[index];
                    point.failed += 1;
                    point.in_doubt |= may_have_happened;
                }
            }
            self.decide(index);
        }
        self.finish_if_decided()
    }

    fn decide(&mut self, index: PointIndex) {
        let level = self.level;
        let point = &mut self.points[index];
        let required = if self.counts_one { 1 } else { level.required(point.replicas.len()) };
        let Some(stamp) = point.stamp.filter(|_| point.outcome.is_none()) else { return };
        if point.acknowledged >= required {
            point.outcome = Some(Outcome::Written(stamp));
            return;
        }
        if point.failed <= point.replicas.len() - required {
            return;
        }
        let told = format!(
            "{} of {} replicas have it and {required} are needed ({})",
            point.acknowledged,
            point.replicas.len(),
            self.failures.of(&point.replicas)
        );
        let nowhere = point.failed == point.replicas.len() && !point.in_doubt;
        point.outcome = Some(if nowhere { Outcome::Unavailable(told) } else { Outcome::Unknown(told) });
    }

    /// The time is up: what is not decided will not be waited for.
    pub fn on_deadline(&mut self) -> Vec<Command> {
        for point in &mut self.points {
            if point.outcome.is_none() {
                let told = format!(
                    "{} of {} replicas answered before the deadline ({})",
                    if point.stamp.is_some() { point.acknowledged } else { point.heard },
                    point.replicas.len(),
                    self.failures.of(&point.replicas)
                );
                let written = point.stamp.is_some();
                point.outcome = Some(if written { Outcome::Unknown(told) } else { Outcome::Unavailable(told) });
            }
        }
        self.finish_if_decided()
    }

    fn finish_if_decided(&mut self) -> Vec<Command> {
        if self.is_finished || self.points.iter().any(|point| point.outcome.is_none()) {
            return Vec::new();
        }
        self.is_finished = true;
        vec![Command::Finish]
    }

    /// What became of each point, once finished.
    pub fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes()
    }

    /// [`Self::into_outcomes`], where answers are still taken.
    pub fn outcomes(&self) -> Vec<Outcome> {
        let unfinished = || Outcome::Unknown("the write was not finished".to_owned());
        self.points.iter().map(|point| point.outcome.clone().unwrap_or_else(unfinished)).collect()
    }

    /// Each of these points with each of its replicas.
    fn pairs(&self, points: impl IntoIterator<Item = PointIndex>) -> Vec<(NodeId, PointIndex)> {
        let of = |index: PointIndex| self.points[index].replicas.iter().map(move |node| (*node, index));
        points.into_iter().flat_map(of).collect()
    }
}

/// A replica that has the point's version or a newer one acknowledges it.
fn acknowledgement(outcome: Outcome) -> Result<(), Failed> {
    match outcome {
        Outcome::Written(_) => Ok(()),
        Outcome::Refused(reason) | Outcome::Unavailable(reason) => Err(Failed { reason, may_have_happened: false }),
        Outcome::Unknown(reason) => Err(Failed { reason, may_have_happened: true }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn version(time: u64) -> Version {
        Version { time, node: node(9), seq: 0 }
    }

    fn down() -> Failed {
        Failed { reason: "down".into(), may_have_happened: false }
    }

    fn three() -> Replicas {
        vec![vec![node(1), node(2), node(3)]]
    }

    #[test]
    fn a_quorum_write_is_stamped_above_a_majority_and_done_at_a_majority() {
        let (mut write, commands) = Write::new(three(), Level::Quorum);
        assert_eq!(commands.len(), 3);
        assert_eq!(write.on_versions(node(1), Ok(vec![Some(version(5))])), []);
        assert_eq!(write.on_versions(node(3), Ok(vec![None])), [Command::Stamp { points: vec![(0, version(5))] }]);
        assert_eq!(write.on_versions(node(2), Ok(vec![Some(version(7))])), [], "a late answer changes nothing");
        assert_eq!(write.on_stamped(vec![(0, version(6))]).len(), 3, "written to every replica, not just those heard");
        assert_eq!(write.on_written(1, Ok(vec![Outcome::Written(version(7))])), []);
        assert_eq!(write.on_written(1, Ok(vec![Outcome::Written(version(7))])), [], "one replica counts once");
        assert_eq!(write.on_written(0, Ok(vec![Outcome::Written(version(6))])), [Command::Finish]);
        assert_eq!(write.into_outcomes(), [Outcome::Written(version(6))]);
    }

    #[test]
    fn without_a_majority_nothing_is_written() {
        let (mut write, _) = Write::new(three(), Level::Quorum);
        write.on_versions(node(1), Ok(vec![None]));
        write.on_versions(node(2), Err(down()));
        assert_eq!(write.on_versions(node(3), Err(down())), [Command::Finish]);
        let outcomes = write.into_outcomes();
        let Outcome::Unavailable(told) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert!(told.contains("1 of 3 replicas answered and 2 are needed (node 02020202: down"), "{told}");
    }

    #[test]
    fn a_write_that_some_replica_may_have_is_unknown_and_not_failed() {
        let (mut write, _) = Write::new(three(), Level::All);
        write.on_versions(node(1), Ok(vec![None]));
        write.on_versions(node(2), Ok(vec![None]));
        write.on_stamped(vec![(0, version(1))]);
        write.on_written(0, Ok(vec![Outcome::Written(version(1))]));
        assert_eq!(write.on_written(1, Err(down())), [Command::Finish]);
        assert!(matches!(write.into_outcomes()[0], Outcome::Unknown(_)));
    }

    #[test]
    fn a_deadline_says_what_it_knows() {
        let (mut asking, _) = Write::new(three(), Level::Quorum);
        assert_eq!(asking.on_deadline(), [Command::Finish]);
        assert!(matches!(asking.into_outcomes()[0], Outcome::Unavailable(_)), "nothing was sent");
        let (mut writing, commands) = Write::new(three(), Level::One);
        assert_eq!(commands, [Command::Stamp { points: vec![(0, Version::ZERO)] }]);
        writing.on_stamped(vec![(0, version(1))]);
        assert_eq!(writing.on_deadline(), [Command::Finish]);
        assert!(matches!(writing.into_outcomes()[0], Outcome::Unknown(_)));
    }

    #[test]
    fn points_of_one_batch_are_decided_apart() {
        let (mut write, _) = Write::new(vec![vec![node(1)], vec![node(2)]], Level::Quorum);
        assert_eq!(write.on_versions(node(2), Err(down())), [], "the other one is not decided");
        assert_eq!(write.on_versions(node(1), Ok(vec![None])), [Command::Stamp { points: vec![(0, Version::ZERO)] }]);
        write.on_stamped(vec![(0, version(1))]);
        assert_eq!(write.on_written(0, Ok(vec![Outcome::Written(version(1))])), [Command::Finish]);
        let outcomes = write.into_outcomes();
        assert!(matches!(outcomes[..], [Outcome::Written(_), Outcome::Unavailable(_)]), "{outcomes:?}");
    }

    #[test]
    fn one_range_does_not_hold_up_the_batch() {
        let (mut write, _) = Write::new(vec![vec![node(1)], vec![node(2)], vec![node(1)]], Level::Quorum);
        let stamp = Command::Stamp { points: vec![(0, Version::ZERO), (2, version(5))] };
        assert_eq!(write.on_versions(node(1), Ok(vec![None, Some(version(5))])), [stamp], "node 2 is silent");
        let stamps = vec![(0, version(6)), (2, version(7))];
        assert_eq!(write.on_stamped(stamps), [Command::Write { node: node(1), send: 0, points: vec![0, 2] }]);
        let written = |time| Outcome::Written(version(time));
        assert_eq!(write.on_written(0, Ok(vec![written(6), written(7)])), []);
        assert_eq!(write.on_deadline(), [Command::Finish]);
        assert_eq!(write.on_versions(node(2), Ok(vec![None])), [], "too late");
        let outcomes = write.into_outcomes();
        assert!(matches!(&outcomes[1], Outcome::Unavailable(told) if told.contains("0 of 1")), "{outcomes:?}");
        assert_eq!((&outcomes[0], &outcomes[2]), (&written(6), &written(7)));
    }

    #[test]
    fn a_point_that_is_heard_of_late_is_sent_apart() {
        let (mut write, _) = Write::new(vec![vec![node(1)], vec![node(2)]], Level::Quorum);
        write.on_versions(node(1), Ok(vec![None]));
        assert_eq!(
            write.on_stamped(vec![(0, version(1)), (1, version(1))]),
            [Command::Write { node: node(1), send: 0, points: vec![0] }],
            "the second was not asked for"
        );
        write.on_versions(node(2), Ok(vec![Some(version(3))]));
        let second = Command::Write { node: node(2), send: 1, points: vec![1] };
        assert_eq!(write.on_stamped(vec![(1, version(4))]), [second]);
        assert_eq!(write.on_written(1, Ok(vec![Outcome::Written(version(4))])), []);
        assert_eq!(write.on_written(0, Err(down())), [Command::Finish]);
        let outcomes = write.into_outcomes();
        assert!(matches!(outcomes[..], [Outcome::Unavailable(_), Outcome::Written(_)]), "{outcomes:?}");
    }

    #[test]
    fn what_cannot_be_stamped_is_refused_and_what_was_stamped_before_goes_on() {
        let (mut write, _) = Write::new(vec![vec![node(1)], vec![node(2)]], Level::Quorum);
        write.on_versions(node(1), Ok(vec![None]));
        write.on_stamped(vec![(0, version(1))]);
        write.on_versions(node(2), Ok(vec![None]));
        assert_eq!(write.on_refused(1, "the clock is off"), []);
        assert_eq!(write.on_written(0, Ok(vec![Outcome::Written(version(1))])), [Command::Finish]);
        assert_eq!(write.into_outcomes(), [Outcome::Written(version(1)), Outcome::Refused("the clock is off".into())]);
    }
}
