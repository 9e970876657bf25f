//! Reading a batch of points from their replicas.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vecino_model::{Level, NodeId, Outcome, Record, Version};

use super::write::Failed;
use super::{Failures, PointIndex, Replicas, by_node};

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Read these points from a replica; answer with [`Read::on_read`].
    Read {
        /// Whom.
        node: NodeId,
        /// Which points.
        points: Vec<PointIndex>,
    },
    /// Write the newest record of these points, [`Read::newest`], to a replica; answer with [`Read::on_written_back`].
    WriteBack {
        /// Whom.
        node: NodeId,
        /// Which points.
        points: Vec<PointIndex>,
    },
    /// Every point has its result.
    Finish,
}

/// What a replica answers about a point: its newest record, or only the version of that.
pub trait Versioned {
    /// Its version.
    fn version(&self) -> Version;
}

impl Versioned for Record {
    fn version(&self) -> Version {
        self.version
    }
}

/// A record of which parts may be missing. It is only for the reader: written to a replica, it would lose what it lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct Partial(pub Record);

impl Versioned for Partial {
    fn version(&self) -> Version {
        self.0.version
    }
}

impl Versioned for Version {
    fn version(&self) -> Version {
        *self
    }
}

/// One batch on its way from its replicas.
#[derive(Clone, Debug)]
pub struct Read<T> {
    points: Vec<PointState<T>>,
    failures: Failures,
    finished: bool,
    /// Whether what is read is made safe at a majority before it is answered. Off only to show that it is needed.
    writes_back: bool,
}

#[derive(Clone, Debug)]
struct PointState<T> {
    replicas: Vec<NodeId>,
    required: usize,
    /// Replicas that can still be asked, best first.
    spare: VecDeque<NodeId>,
    reading: BTreeSet<NodeId>,
    /// Those of the replicas being asked that others stand in for. They may still answer.
    late: BTreeSet<NodeId>,
    answers: BTreeMap<NodeId, Option<Version>>,
    newest: Option<T>,
    /// Whether enough replicas have answered.
    read: bool,
    /// Replicas known to hold the newest version.
    holders: BTreeSet<NodeId>,
    writing_back: BTreeSet<NodeId>,
    result: Option<Result<(), String>>,
}

impl<T: Versioned> PointState<T> {
    fn newest_version(&self) -> Option<Version> {
        self.newest.as_ref().map(Versioned::version)
    }
}

impl Read<Record> {
    /// Begins to read points. `replicas` of each point are in the order in which they are best asked.
    ///
    /// Above level `one` the newest record is at as many replicas as the level asks for before it is answered.
    pub fn new(replicas: Replicas, level: Level) -> (Self, Vec<Command>) {
        Self::begin(replicas, level, level != Level::One)
    }
}

impl Read<Partial> {
    /// Begins to read parts of points. Nothing is written back; the points that are [`Self::unsettled`] at the end are to be
    /// read anew, whole.
    pub fn parts(replicas: Replicas, level: Level) -> (Self, Vec<Command>) {
        Self::begin(replicas, level, false)
    }

    /// Points whose newest version is at fewer replicas than the level asks for, as far as is known: it would have to be
    /// written back before it is answered.
    pub fn unsettled(&self) -> Vec<PointIndex> {
        let is_unsettled = |point: &PointState<Partial>| point.newest.is_some() && point.holders.len() < point.required;
        let indexes = 0..self.points.len();
        indexes
            .filter(|index| self.points[*index].result == Some(Ok(())) && is_unsettled(&self.points[*index]))
            .collect()
    }
}

impl Read<Version> {
    /// Begins to read the versions of points. Nothing is written back: a search only compares them with what it found.
    pub fn versions(replicas: Replicas, level: Level) -> (Self, Vec<Command>) {
        Self::begin(replicas, level, false)
    }
}

impl<T: Versioned> Read<T> {
    fn begin(replicas: Replicas, level: Level, writes_back: bool) -> (Self, Vec<Command>) {
        let points: Vec<_> = replicas
            .into_iter()
            .map(|replicas| PointState {
                required: level.required(replicas.len()),
                spare: replicas.iter().copied().collect(),
                replicas,
                reading: BTreeSet::new(),
                late: BTreeSet::new(),
                answers: BTreeMap::new(),
                newest: None,
                read: false,
                holders: BTreeSet::new(),
                writing_back: BTreeSet::new(),
                result: None,
            })
            .collect();
        let mut read = Self { points, failures: Failures::default(), finished: false, writes_back };
        let commands = read.advance();
        (read, commands)
    }

    /// A replica told the records of the points it was asked for, in that order, or failed to.
    pub fn on_read(
        &mut self,
        node: NodeId,
        points: &[PointIndex],
        answer: Result<Vec<Option<T>>, Failed>,
    ) -> Vec<Command> {
        let records = match answer {
            Ok(records) if records.len() == points.len() => Some(records),
            Ok(records) => {
                let reason = format!("answered {} records for {} points", records.len(), points.len());
                self.failures.add(node, &reason);
                None
            }
            Err(Failed { reason, may_have_happened: _ }) => {
                self.failures.add(node, &reason);
                None
            }
        };
        let mut records = records.map(Vec::into_iter);
        for index in points {
            let record = records.as_mut().and_then(Iterator::next);
            let point = &mut self.points[*index];
            if !point.reading.remove(&node) {
                continue;
            }
            point.late.remove(&node);
            let Some(record) = record else { continue };
            let version = record.as_ref().map(Versioned::version);
            point.answers.insert(node, version);
            if version > point.newest_version() {
                point.newest = record;
            }
        }
        self.advance()
    }

    /// A replica took the newest records of the points it was sent, in that order, or failed to.
    pub fn on_written_back(
        &mut self,
        node: NodeId,
        points: &[PointIndex],
        answer: Result<Vec<Outcome>, Failed>,
    ) -> Vec<Command> {
        let outcomes = match answer {
            Ok(outcomes) => outcomes,
            Err(Failed { reason, may_have_happened: _ }) => {
                self.failures.add(node, &reason);
                Vec::new()
            }
        };
        let mut outcomes = outcomes.into_iter();
        for index in points {
            let outcome = outcomes.next();
            let point = &mut self.points[*index];
            if !point.writing_back.remove(&node) {
                continue;
            }
            point.late.remove(&node);
            match outcome {
                Some(Outcome::Written(_)) => {
                    point.holders.insert(node);
                }
                Some(Outcome::Refused(reason) | Outcome::Unavailable(reason) | Outcome::Unknown(reason)) => {
                    self.failures.add(node, &reason);
                }
                None => {}
            }
        }
        self.advance()
    }

    /// Time to ask others beside the replicas that have not answered yet.
    pub fn hedge(&mut self) -> Vec<Command> {
        for point in &mut self.points {
            point.late.clone_from(if point.read { &point.writing_back } else { &point.reading });
        }
        self.advance()
    }

    /// The time is up: what is not decided will not be waited for.
    pub fn on_deadline(&mut self) -> Vec<Command> {
        for index in 0..self.points.len() {
            self.fail(index, " before the deadline");
        }
        self.advance()
    }

    /// What is read is not made safe at a majority before it is answered: to show that it is needed.
    pub fn do_not_write_back(&mut self) {
        self.writes_back = false;
    }

    /// The newest record of a point that was seen so far.
    pub fn newest(&self, point: PointIndex) -> Option<&T> {
        self.points[point].newest.as_ref()
    }

    /// The newest record of each point, or why there is none that can be vouched for; once finished.
    pub fn into_results(self) -> Vec<Result<Option<T>, String>> {
        let result = |point: PointState<T>| match point.result {
            Some(Ok(())) => Ok(point.newest),
            Some(Err(reason)) => Err(reason),
            None => Err("the read was not finished".to_owned()),
        };
        self.points.into_iter().map(result).collect()
    }

    /// Does for every point what its state asks for.
    fn advance(&mut self) -> Vec<Command> {
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        for index in 0..self.points.len() {
            if self.points[index].result.is_none() {
                self.advance_point(index, &mut reads, &mut writes);
            }
        }
        let mut commands: Vec<_> =
            by_node(reads).into_iter().map(|(node, points)| Command::Read { node, points }).collect();
        commands.extend(by_node(writes).into_iter().map(|(node, points)| Command::WriteBack { node, points }));
        if !self.finished && self.points.iter().all(|point| point.result.is_some()) {
            self.finished = true;
            commands.push(Command::Finish);
        }
        commands
    }

    fn advance_point(
        &mut self,
        index: PointIndex,
        reads: &mut Vec<(NodeId, PointIndex)>,
        writes: &mut Vec<(NodeId, PointIndex)>,
    ) {
        let point = &mut self.points[index];
        if !point.read {
            // First enough answers …
            while point.answers.len() + point.reading.len() - point.late.len() < point.required {
                let Some(node) = point.spare.pop_front() else { break };
                point.reading.insert(node);
                reads.push((node, index));
            }
            if point.answers.len() + point.reading.len() < point.required {
                return self.fail(index, "");
            }
            if point.answers.len() < point.required {
                return;
            }
            point.read = true;
            // A late answer must not change what is being written back.
            point.spare.extend(std::mem::take(&mut point.reading));
            point.late.clear();
            let newest = point.newest_version();
            for (node, version) in &point.answers {
                let group = if *version == newest { &mut point.holders } else { &mut point.writing_back };
                group.insert(*node);
            }
            if !self.writes_back || newest.is_none() {
                point.result = Some(Ok(()));
                return;
            }
            if point.holders.len() < point.required {
                writes.extend(point.writing_back.iter().map(|node| (*node, index)));
            }
        }
        // … then the newest of them at as many replicas; where one failed to take it, another does.
        if point.holders.len() >= point.required {
            point.result = Some(Ok(()));
            return;
        }
        while point.holders.len() + point.writing_back.len() - point.late.len() < point.required {
            let Some(node) = point.spare.pop_front() else { break };
            point.writing_back.insert(node);
            writes.push((node, index));
        }
        if point.holders.len() + point.writing_back.len() < point.required {
            self.fail(index, "");
        }
    }

    fn fail(&mut self, index: PointIndex, when: &str) {
        let point = &mut self.points[index];
        let (answered, what) = if point.read {
            (point.holders.len(), "replicas have the newest version")
        } else {
            (point.answers.len(), "replicas answered")
        };
        point.result.get_or_insert_with(|| {
            Err(format!(
                "{answered} of {} {what}{when} and {} are needed ({})",
                point.replicas.len(),
                point.required,
                self.failures.of(&point.replicas)
            ))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn record(time: u64) -> Record {
        Record { id: 1.into(), version: Version { time, node: node(9), seq: 0 }, value: None }
    }

    fn down() -> Failed {
        Failed { reason: "down".into(), may_have_happened: false }
    }

    fn three(level: Level) -> (Read<Record>, Vec<Command>) {
        Read::new(vec![vec![node(1), node(2), node(3)]], level)
    }

    #[test]
    fn replicas_that_agree_are_not_written_to() {
        let (mut read, commands) = three(Level::Quorum);
        let asked = |number| Command::Read { node: node(number), points: vec![0] };
        assert_eq!(commands, [asked(1), asked(2)], "no more than a majority is asked");
        assert_eq!(read.on_read(node(2), &[0], Ok(vec![Some(record(5))])), []);
        assert_eq!(read.on_read(node(1), &[0], Err(down())), [asked(3)], "another takes the place of one that failed");
        assert_eq!(read.on_read(node(3), &[0], Ok(vec![Some(record(5))])), [Command::Finish]);
        assert_eq!(read.into_results(), [Ok(Some(record(5)))]);
    }

    #[test]
    fn what_only_some_have_is_written_back_before_it_is_answered() {
        let (mut read, _) = three(Level::Quorum);
        read.on_read(node(1), &[0], Ok(vec![Some(record(5))]));
        let back = |number| Command::WriteBack { node: node(number), points: vec![0] };
        assert_eq!(read.on_read(node(2), &[0], Ok(vec![Some(record(4))])), [back(2)]);
        assert_eq!(read.newest(0), Some(&record(5)));
        assert_eq!(read.on_written_back(node(2), &[0], Err(down())), [back(3)]);
        let written = Outcome::Written(record(6).version);
        assert_eq!(read.on_written_back(node(3), &[0], Ok(vec![written])), [Command::Finish]);
        assert_eq!(read.into_results(), [Ok(Some(record(5)))]);
    }

    #[test]
    fn a_part_of_a_record_is_never_written_back_and_told_to_be_read_whole_where_replicas_differ() {
        let replicas = vec![vec![node(1), node(2), node(3)]; 4];
        let (mut read, _) = Read::parts(replicas, Level::Quorum);
        let all = [0, 1, 2, 3];
        let partial = |time| Some(Partial(record(time)));
        assert_eq!(read.on_read(node(1), &all, Ok(vec![partial(5), partial(5), None, None])), []);
        let finish = read.on_read(node(2), &all, Ok(vec![partial(5), partial(4), None, partial(3)]));
        assert_eq!(finish, [Command::Finish], "nothing is written back");
        assert_eq!(read.unsettled(), [1, 3], "those that two replicas do not agree about");
        let (mut read, _) = Read::parts(vec![vec![node(1), node(2), node(3)]], Level::One);
        assert_eq!(read.on_read(node(1), &[0], Ok(vec![partial(5)])), [Command::Finish]);
        assert_eq!(read.unsettled(), [] as [usize; 0], "one replica is all that level one asks for");
    }

    #[test]
    fn a_read_without_enough_replicas_says_who_failed() {
        let (mut read, _) = three(Level::Quorum);
        read.on_read(node(1), &[0], Err(down()));
        assert_eq!(read.on_read(node(2), &[0], Err(down())), [Command::Finish]);
        let results = read.into_results();
        let Err(told) = &results[0] else { panic!("{results:?}") };
        assert!(told.contains("and 2 are needed (node 01010101: down; node 02020202: down)"), "{told}");
    }

    #[test]
    fn one_replica_is_enough_at_one() {
        let (mut read, commands) = three(Level::One);
        assert_eq!(commands.len(), 1);
        assert_eq!(read.on_read(node(1), &[0], Ok(vec![None])), [Command::Finish]);
        assert_eq!(read.into_results(), [Ok(None)]);
    }

    #[test]
    fn others_stand_in_for_who_is_late_and_what_those_say_later_changes_nothing() {
        let (mut read, commands) = three(Level::Quorum);
        assert_eq!(commands, [1, 2].map(|number| Command::Read { node: node(number), points: vec![0] }));
        assert_eq!(read.on_read(node(1), &[0], Ok(vec![Some(record(5))])), []);
        assert_eq!(read.hedge(), [Command::Read { node: node(3), points: vec![0] }]);
        assert_eq!(read.hedge(), [], "there is nobody else to ask");
        assert_eq!(
            read.on_read(node(3), &[0], Ok(vec![None])),
            [Command::WriteBack { node: node(3), points: vec![0] }]
        );
        assert_eq!(
            read.on_read(node(2), &[0], Ok(vec![Some(record(7))])),
            [],
            "no majority holds 7, so it is not read"
        );
        assert_eq!(read.hedge(), [Command::WriteBack { node: node(2), points: vec![0] }]);
        assert_eq!(
            read.on_written_back(node(2), &[0], Ok(vec![Outcome::Written(record(7).version)])),
            [Command::Finish]
        );
        assert_eq!(read.into_results(), [Ok(Some(record(5)))]);
    }

    #[test]
    fn versions_are_compared_and_never_written_back() {
        let replicas = vec![vec![node(1), node(2), node(3)]];
        let (mut read, _) = Read::versions(replicas, Level::Quorum);
        assert_eq!(read.on_read(node(1), &[0], Ok(vec![Some(record(5).version)])), []);
        assert_eq!(read.on_read(node(2), &[0], Ok(vec![None])), [Command::Finish]);
        assert_eq!(read.into_results(), [Ok(Some(record(5).version))]);
    }

    #[test]
    fn a_deadline_ends_it() {
        let (mut read, _) = three(Level::All);
        read.on_read(node(1), &[0], Ok(vec![None]));
        assert_eq!(read.on_deadline(), [Command::Finish]);
        assert!(read.into_results()[0].as_ref().is_err_and(|told| told.contains("before the deadline")));
    }
}
