//! Whole meshes of registers in virtual time: delays, losses, duplicates, crashes and skewed clocks from a seed.
//!
//! Each schedule runs a few clients against a few points and judges the history of every point by its versions (Lynch,
//! "Distributed Algorithms", 1996, lemma 13.16): an operation that begins after another has ended must not see an older
//! version than that one did, and a write must see a newer one. Replicas keep what they have acknowledged over a crash,
//! and lose what is on its way. Two rules are switched off in turn to show that the judge finds what they prevent.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::hlc::Hlc;
use vecino_model::{Level, NodeId, Outcome, PointId, Record, Version};

use super::read::{self, Read};
use super::write::{self, Failed, SendNumber, Write};

const NODES: u8 = 5;
const REPLICAS: u8 = 3;
const POINTS: u64 = 2;
const OPERATIONS: usize = 60;
const DEADLINE: u64 = 400;
const HEDGE_AFTER: u64 = 40;

/// Which rule is broken, to see that it is missed.
#[derive(Clone, Copy, PartialEq)]
enum Rules {
    Kept,
    ReadsDoNotWriteBack,
    WritesDoNotAsk,
}

#[derive(Clone, Debug)]
enum Message {
    Versions,
    Read,
    Apply {
        record: Record,
        /// Under which number a write wants to be told.
        send: SendNumber,
    },
}

#[derive(Clone, Debug)]
enum Answer {
    Version(Option<Version>),
    Record(Option<Record>),
    Applied(Outcome),
    Failed(Failed),
}

#[derive(Clone, Debug)]
enum Event {
    Start(usize),
    Deliver { operation: usize, to: NodeId, message: Message },
    Answer { operation: usize, from: NodeId, to: Message, answer: Answer },
    Deadline(usize),
    Hedge(usize),
}

enum Machine {
    Write(Write),
    Read(Read<Record>),
    Done,
}

struct Operation {
    point: u64,
    coordinator: usize,
    machine: Machine,
    start: u64,
    stamp: Option<Version>,
    /// When it ended and with which version, if it succeeded.
    end: Option<(u64, Version)>,
    is_write: bool,
}

struct World {
    random: fastrand::Rng,
    rules: Rules,
    now: u64,
    sequence: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    pending: BTreeMap<u64, Event>,
    stores: BTreeMap<(NodeId, u64), Record>,
    down: BTreeMap<NodeId, u64>,
    clocks: Vec<(Hlc, u64)>,
    operations: Vec<Operation>,
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

impl World {
    fn new(seed: u64, rules: Rules) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        // Clocks differ by less than what replicas refuse.
        let clocks = (0..NODES).map(|_| (Hlc::default(), random.u64(0..400))).collect();
        let mut world = Self {
            random,
            rules,
            now: 1_000,
            sequence: 0,
            events: BinaryHeap::new(),
            pending: BTreeMap::new(),
            stores: BTreeMap::new(),
            down: BTreeMap::new(),
            clocks,
            operations: Vec::new(),
        };
        for operation in 0..OPERATIONS {
            let after = world.random.u64(0..4_000);
            world.schedule(after, Event::Start(operation));
            world.operations.push(Operation {
                point: world.random.u64(0..POINTS),
                coordinator: world.random.usize(0..NODES as usize),
                machine: Machine::Done,
                start: 0,
                stamp: None,
                end: None,
                is_write: world.random.bool(),
            });
        }
        world
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now + after, self.sequence)));
        self.pending.insert(self.sequence, event);
    }

    fn run(&mut self) {
        while let Some(Reverse((at, sequence))) = self.events.pop() {
            self.now = at;
            let Some(event) = self.pending.remove(&sequence) else { continue };
            if self.random.u32(0..100) == 0 {
                let victim = node(self.random.u8(0..NODES));
                let back = self.now + self.random.u64(50..500);
                self.down.insert(victim, back);
            }
            self.step(event);
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Start(operation) => self.start(operation),
            Event::Deliver { operation, to, message } => self.deliver(operation, to, message),
            Event::Hedge(operation) => {
                let again = matches!(self.operations[operation].machine, Machine::Read(_));
                self.with_machine(operation, |machine| match machine {
                    Machine::Read(read) => (Vec::new(), read.hedge()),
                    Machine::Write(_) | Machine::Done => (Vec::new(), Vec::new()),
                });
                if again {
                    self.schedule(HEDGE_AFTER, Event::Hedge(operation));
                }
            }
            Event::Deadline(operation) => self.with_machine(operation, |machine| match machine {
                Machine::Write(write) => (write.on_deadline(), Vec::new()),
                Machine::Read(read) => (Vec::new(), read.on_deadline()),
                Machine::Done => (Vec::new(), Vec::new()),
            }),
            Event::Answer { operation, from, to, answer } => {
                self.with_machine(operation, |machine| match (machine, answer, to) {
                    (Machine::Write(write), Answer::Version(version), _) => {
                        (write.on_versions(from, Ok(vec![version])), Vec::new())
                    }
                    (Machine::Write(write), Answer::Failed(failed), Message::Versions) => {
                        (write.on_versions(from, Err(failed)), Vec::new())
                    }
                    (Machine::Write(write), Answer::Applied(outcome), Message::Apply { send, .. }) => {
                        (write.on_written(send, Ok(vec![outcome])), Vec::new())
                    }
                    (Machine::Write(write), Answer::Failed(failed), Message::Apply { send, .. }) => {
                        (write.on_written(send, Err(failed)), Vec::new())
                    }
                    (Machine::Read(read), Answer::Record(record), _) => {
                        (Vec::new(), read.on_read(from, &[0], Ok(vec![record])))
                    }
                    (Machine::Read(read), Answer::Failed(failed), Message::Read) => {
                        (Vec::new(), read.on_read(from, &[0], Err(failed)))
                    }
                    (Machine::Read(read), Answer::Applied(outcome), _) => {
                        (Vec::new(), read.on_written_back(from, &[0], Ok(vec![outcome])))
                    }
                    (Machine::Read(read), Answer::Failed(failed), _) => {
                        (Vec::new(), read.on_written_back(from, &[0], Err(failed)))
                    }
                    _ => (Vec::new(), Vec::new()),
                });
            }
        }
    }

    fn start(&mut self, operation: usize) {
        let now = self.now;
        let first = self.operations[operation].point as u8;
        let mut replicas: Vec<_> = (0..REPLICAS).map(|step| node((first + step) % NODES)).collect();
        self.random.shuffle(&mut replicas);
        self.operations[operation].start = now;
        let (writes, reads);
        if self.operations[operation].is_write {
            let (mut write, mut commands) = Write::new(vec![replicas], Level::Quorum);
            if self.rules == Rules::WritesDoNotAsk {
                // As if every replica had said that it knows of nothing.
                let asked: Vec<_> = commands
                    .iter()
                    .filter_map(|command| match command {
                        write::Command::AskVersions { node, .. } => Some(*node),
                        _ => None,
                    })
                    .collect();
                commands = asked.into_iter().flat_map(|node| write.on_versions(node, Ok(vec![None]))).collect();
            }
            self.operations[operation].machine = Machine::Write(write);
            (writes, reads) = (commands, Vec::new());
        } else {
            let (mut read, commands) = Read::new(vec![replicas], Level::Quorum);
            read.writes_back = self.rules != Rules::ReadsDoNotWriteBack;
            self.operations[operation].machine = Machine::Read(read);
            (writes, reads) = (Vec::new(), commands);
        }
        self.schedule(DEADLINE, Event::Deadline(operation));
        self.schedule(HEDGE_AFTER, Event::Hedge(operation));
        self.carry_out(operation, writes, reads);
    }

    fn with_machine(
        &mut self,
        operation: usize,
        act: impl FnOnce(&mut Machine) -> (Vec<write::Command>, Vec<read::Command>),
    ) {
        let (writes, reads) = act(&mut self.operations[operation].machine);
        self.carry_out(operation, writes, reads);
    }

    fn carry_out(&mut self, operation: usize, writes: Vec<write::Command>, reads: Vec<read::Command>) {
        for command in writes {
            match command {
                write::Command::AskVersions { node, .. } => self.send(operation, node, Message::Versions),
                write::Command::Stamp { points } => {
                    let coordinator = self.operations[operation].coordinator;
                    let (clock, ahead) = &mut self.clocks[coordinator];
                    let now = self.now + *ahead;
                    if self.rules != Rules::WritesDoNotAsk {
                        clock.observe(points[0].1.time, now).expect("clocks differ by less than the limit");
                    }
                    let stamp = Version { time: clock.tick(now), node: node(coordinator as u8), seq: 0 };
                    self.operations[operation].stamp = Some(stamp);
                    self.with_machine(operation, |machine| match machine {
                        Machine::Write(write) => (write.on_stamped(vec![(0, stamp)]), Vec::new()),
                        _ => (Vec::new(), Vec::new()),
                    });
                }
                write::Command::Write { node, send, .. } => {
                    let stamp = self.operations[operation].stamp.expect("stamped before it is written");
                    let id = PointId::Number(self.operations[operation].point);
                    let record = Record { id, version: stamp, value: None };
                    self.send(operation, node, Message::Apply { record, send });
                }
                write::Command::Finish => {
                    let Machine::Write(write) =
                        std::mem::replace(&mut self.operations[operation].machine, Machine::Done)
                    else {
                        continue;
                    };
                    if let Outcome::Written(version) = write.into_outcomes()[0] {
                        self.operations[operation].end = Some((self.now, version));
                    }
                }
            }
        }
        for command in reads {
            match command {
                read::Command::Read { node, .. } => self.send(operation, node, Message::Read),
                read::Command::WriteBack { node, .. } => {
                    let Machine::Read(read) = &self.operations[operation].machine else { continue };
                    let newest = read.newest(0).expect("something to write back").clone();
                    self.send(operation, node, Message::Apply { record: newest, send: 0 });
                }
                read::Command::Finish => {
                    let Machine::Read(read) = std::mem::replace(&mut self.operations[operation].machine, Machine::Done)
                    else {
                        continue;
                    };
                    if let Ok(record) = &read.into_results()[0] {
                        let version = record.as_ref().map_or(Version::ZERO, |record| record.version);
                        self.operations[operation].end = Some((self.now, version));
                    }
                }
            }
        }
    }

    fn delay(&mut self) -> u64 {
        if self.random.u32(0..10) == 0 { self.random.u64(50..900) } else { self.random.u64(1..20) }
    }

    fn send(&mut self, operation: usize, to: NodeId, message: Message) {
        match self.random.u32(0..100) {
            0..5 => {}
            5..10 => {
                let failed = Failed { reason: "refused".into(), may_have_happened: false };
                let after = self.delay();
                self.schedule(
                    after,
                    Event::Answer { operation, from: to, to: message, answer: Answer::Failed(failed) },
                );
            }
            draw => {
                for _ in 0..1 + u32::from(draw < 15) {
                    let after = self.delay();
                    self.schedule(after, Event::Deliver { operation, to, message: message.clone() });
                }
            }
        }
    }

    fn deliver(&mut self, operation: usize, to: NodeId, message: Message) {
        if self.down.get(&to).is_some_and(|back| *back > self.now) {
            return;
        }
        let place = (to, self.operations[operation].point);
        let known = self.stores.get(&place).map(|record| record.version);
        let answer = match &message {
            Message::Versions => Answer::Version(known),
            Message::Read => Answer::Record(self.stores.get(&place).cloned()),
            Message::Apply { record, .. } => {
                if known < Some(record.version) {
                    self.stores.insert(place, record.clone());
                }
                Answer::Applied(Outcome::Written(record.version.max(known.unwrap_or(Version::ZERO))))
            }
        };
        if self.random.u32(0..20) > 0 {
            let after = self.delay();
            self.schedule(after, Event::Answer { operation, from: to, to: message, answer });
        }
    }

    /// What is wrong with the history, if anything.
    fn judge(&self) -> Result<usize, String> {
        let mut completed = 0;
        for point in 0..POINTS {
            let all: Vec<_> = self.operations.iter().filter(|operation| operation.point == point).collect();
            let done: Vec<_> = all.iter().filter_map(|operation| Some((operation, operation.end?))).collect();
            completed += done.len();
            for (after, (_, seen)) in &done {
                for (_, (ended, version)) in done.iter().filter(|(_, (ended, _))| *ended < after.start) {
                    if seen < version || after.is_write && seen == version {
                        return Err(format!(
                            "point {point}: an operation that began at {} saw {seen}, though {version} was there at {ended}",
                            after.start
                        ));
                    }
                }
                let written =
                    all.iter().any(|write| write.stamp == Some(*seen) && write.start <= after.end.expect("done").0);
                if *seen != Version::ZERO && !written {
                    return Err(format!("point {point}: {seen} was read and never written"));
                }
            }
        }
        Ok(completed)
    }
}

fn first_violation(rules: Rules, seeds: std::ops::Range<u64>) -> (usize, Option<String>) {
    let mut completed = 0;
    for seed in seeds {
        let mut world = World::new(seed, rules);
        world.run();
        match world.judge() {
            Ok(done) => completed += done,
            Err(violation) => return (completed, Some(format!("seed {seed}: {violation}"))),
        }
    }
    (completed, None)
}

#[test]
fn a_point_is_linearizable_at_quorum() {
    let seeds = match std::env::var("VECINO_SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..3_000,
    };
    let runs = seeds.end - seeds.start;
    let (completed, violation) = first_violation(Rules::Kept, seeds);
    assert_eq!(violation, None, "replay with VECINO_SIMULATION_SEED");
    assert!(
        completed as u64 > runs * OPERATIONS as u64 / 2,
        "only {completed} operations succeeded in {runs} schedules"
    );
}

#[test]
fn the_judge_finds_reads_that_do_not_write_back() {
    let (_, violation) = first_violation(Rules::ReadsDoNotWriteBack, 0..3_000);
    println!("{}", violation.expect("reads without write-back are not linearizable"));
}

#[test]
fn the_judge_finds_writes_that_do_not_ask_for_versions() {
    let (_, violation) = first_violation(Rules::WritesDoNotAsk, 0..3_000);
    println!("{}", violation.expect("last writer wins is not linearizable"));
}
