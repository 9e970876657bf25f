//! Writing a batch of points to their replicas.

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
        /// Which points.
        points: Vec<PointIndex>,
    },
    /// Every point has its outcome.
    Finish,
}

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
    points: Vec<PointState>,
    asked: BTreeMap<NodeId, Vec<PointIndex>>,
    sent: BTreeMap<NodeId, Vec<PointIndex>>,
    failures: Failures,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asking,
    Stamping,
    Writing,
    Finished,
}

#[derive(Clone, Debug)]
struct PointState {
    replicas: Vec<NodeId>,
    heard: usize,
    silent: usize,
    newest: Version,
    stamp: Option<Version>,
    acknowledged: usize,
    failed: usize,
    /// Some replica that failed may have the write.
    in_doubt: bool,
    refused: Option<String>,
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
        let points: Vec<_> = replicas
            .into_iter()
            .map(|replicas| PointState {
                replicas,
                heard: 0,
                silent: 0,
                newest: Version::ZERO,
                stamp: None,
                acknowledged: 0,
                failed: 0,
                in_doubt: false,
                refused: None,
                outcome: None,
            })
            .collect();
        let mut write = Self {
            level,
            points,
            asked: BTreeMap::new(),
            sent: BTreeMap::new(),
            failures: Failures::default(),
            phase: Phase::Asking,
        };
        let commands = match level {
            // Last writer wins: the coordinator's clock alone decides.
            Level::One => write.stamp(),
            Level::Quorum | Level::All => {
                write.asked = by_node(write.pairs(|_| true));
                let ask =
                    |(node, points): (&NodeId, &Vec<_>)| Command::AskVersions { node: *node, points: points.clone() };
                let commands: Vec<_> = write.asked.iter().map(ask).collect();
                if commands.is_empty() { write.finish() } else { commands }
            }
        };
        (write, commands)
    }

    /// A replica told the versions of the points it was asked for, in that order, or failed to.
    pub fn on_versions(&mut self, node: NodeId, answer: Result<Vec<Option<Version>>, Failed>) -> Vec<Command> {
        let Some(points) = self.asked.remove(&node).filter(|_| self.phase == Phase::Asking) else { return Vec::new() };
        match answer {
            Ok(versions) if versions.len() == points.len() => {
                for (point, version) in points.into_iter().zip(versions) {
                    let point = &mut self.points[point];
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
        let undecided = |point: &PointState| {
            point.heard < point.majority() && point.silent <= point.replicas.len() - point.majority()
        };
        if self.points.iter().any(undecided) {
            return Vec::new();
        }
        self.stamp()
    }

    fn silent(&mut self, node: NodeId, points: &[PointIndex], reason: &str) {
        self.failures.add(node, reason);
        for point in points {
            self.points[*point].silent += 1;
        }
    }

    /// Gives up on points without a majority and has the others stamped.
    fn stamp(&mut self) -> Vec<Command> {
        self.phase = Phase::Stamping;
        let asked = self.level != Level::One;
        for point in &mut self.points {
            if asked && point.heard < point.majority() {
                point.outcome = Some(Outcome::Unavailable(format!(
                    "{} of {} replicas answered and {} are needed ({})",
                    point.heard,
                    point.replicas.len(),
                    point.majority(),
                    self.failures.of(&point.replicas)
                )));
            }
        }
        let ready = self.points.iter().enumerate().filter(|(_, point)| point.outcome.is_none());
        let points: Vec<_> = ready.map(|(index, point)| (index, point.newest)).collect();
        if points.is_empty() { self.finish() } else { vec![Command::Stamp { points }] }
    }

    /// The points that were to be stamped have their versions.
    pub fn on_stamped(&mut self, stamps: Vec<(PointIndex, Version)>) -> Vec<Command> {
        if self.phase != Phase::Stamping {
            return Vec::new();
        }
        self.phase = Phase::Writing;
        for (point, stamp) in stamps {
            self.points[point].stamp = Some(stamp);
        }
        self.sent = by_node(self.pairs(|point| point.stamp.is_some()));
        let write = |(node, points): (&NodeId, &Vec<_>)| Command::Write { node: *node, points: points.clone() };
        self.sent.iter().map(write).collect()
    }

    /// The points cannot be stamped: nothing is written.
    pub fn on_refused(&mut self, reason: &str) -> Vec<Command> {
        if self.phase != Phase::Stamping {
            return Vec::new();
        }
        for point in self.points.iter_mut().filter(|point| point.outcome.is_none()) {
            point.outcome = Some(Outcome::Refused(reason.to_owned()));
        }
        self.finish()
    }

    /// The stamp of a point, once it has one.
    pub fn stamp_of(&self, point: PointIndex) -> Option<Version> {
        self.points[point].stamp
    }

    /// A replica applied the points it was sent, in that order, or failed to.
    pub fn on_written(&mut self, node: NodeId, answer: Result<Vec<Outcome>, Failed>) -> Vec<Command> {
        let Some(points) = self.sent.remove(&node).filter(|_| self.phase == Phase::Writing) else { return Vec::new() };
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
                    if !may_have_happened {
                        point.refused.get_or_insert(reason);
                    }
                }
            }
            self.decide(index);
        }
        self.finish_if_decided()
    }

    fn decide(&mut self, index: PointIndex) {
        let level = self.level;
        let point = &mut self.points[index];
        let required = level.required(point.replicas.len());
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
        if self.phase != Phase::Finished && self.points.iter().all(|point| point.outcome.is_some()) {
            self.finish()
        } else {
            Vec::new()
        }
    }

    fn finish(&mut self) -> Vec<Command> {
        self.phase = Phase::Finished;
        vec![Command::Finish]
    }

    /// What became of each point, once finished.
    pub fn into_outcomes(self) -> Vec<Outcome> {
        let unfinished = || Outcome::Unknown("the write was not finished".to_owned());
        self.points.into_iter().map(|point| point.outcome.unwrap_or_else(unfinished)).collect()
    }

    fn pairs(&self, wanted: impl Fn(&PointState) -> bool) -> Vec<(NodeId, PointIndex)> {
        let points = self.points.iter().enumerate().filter(|(_, point)| wanted(point));
        points.flat_map(|(index, point)| point.replicas.iter().map(move |node| (*node, index))).collect()
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
        Version { time, node: node(9) }
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
        assert_eq!(write.on_written(node(2), Ok(vec![Outcome::Written(version(7))])), []);
        assert_eq!(write.on_written(node(2), Ok(vec![Outcome::Written(version(7))])), [], "one replica counts once");
        assert_eq!(write.on_written(node(1), Ok(vec![Outcome::Written(version(6))])), [Command::Finish]);
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
        write.on_written(node(1), Ok(vec![Outcome::Written(version(1))]));
        assert_eq!(write.on_written(node(2), Err(down())), [Command::Finish]);
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
        write.on_versions(node(1), Ok(vec![None]));
        assert_eq!(write.on_versions(node(2), Err(down())), [Command::Stamp { points: vec![(0, Version::ZERO)] }]);
        write.on_stamped(vec![(0, version(1))]);
        assert_eq!(write.on_written(node(1), Ok(vec![Outcome::Written(version(1))])), [Command::Finish]);
        let outcomes = write.into_outcomes();
        assert!(matches!(outcomes[..], [Outcome::Written(_), Outcome::Unavailable(_)]), "{outcomes:?}");
    }
}
