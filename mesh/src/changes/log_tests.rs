//! Several nodes choose entries together, and all of them have one log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;
use vecino_model::{CollectionId, CollectionSchema, DiskId, Fsync, MeshId, NodeId};

use super::log::{AdoptError, Asked, ChangeLog, ENTRIES_KEPT, InstallError};
use super::*;
use crate::register::{Acceptor, Ballot, Command, End, Failure, Promise, Proposer};

fn node(number: usize) -> NodeId {
    NodeId::from_bytes([number as u8; 16])
}

fn disk(number: usize) -> DiskId {
    DiskId([number as u8; 16])
}

fn newcomer(number: usize) -> Newcomer {
    let place = LayoutNode { zone: String::new(), tokens: vec![number as u64] };
    Newcomer { disk: disk(number), place }
}

fn begin(nodes: usize) -> State {
    let members = (0..nodes).map(|number| (node(number), newcomer(number))).collect();
    let acceptors = (0..nodes).map(|number| (node(number), disk(number))).collect();
    State::begin(&entry(&[Change::Form { mesh: MeshId([1; 16]), members, acceptors }])).unwrap().0
}

fn entry(changes: &[Change]) -> Entry {
    Entry { changes: changes.iter().map(|change| EncodedChange::new(change).unwrap()).collect() }
}

fn create(number: u64) -> Change {
    let schema = CollectionSchema { fields: BTreeMap::new(), replication_factor: 1, fsync: Fsync::Always };
    let id = CollectionId(std::array::from_fn(|byte| number.to_le_bytes()[byte % 8]));
    Change::Create { id, name: format!("c{number}"), schema, restoring: None }
}

fn log(number: usize) -> ChangeLog {
    ChangeLog::new(node(number), disk(number), begin(3), Acceptor::default())
}

fn ballot(round: u64, number: usize) -> Ballot {
    Ballot { round, node: node(number) }
}

#[test]
fn who_is_behind_and_who_does_not_accept_have_no_say() {
    let mut one = log(1);
    let second = Arc::new(entry(&[create(1)]));
    assert_eq!(one.prepare(3, ballot(1, 0)), Asked::Behind { number: 1 });
    assert_eq!(one.prepare(2, ballot(1, 0)), Asked::Answer(Ok(Promise { accepted: None })));
    assert_eq!(one.accept(2, ballot(1, 0), Arc::clone(&second)), Asked::Answer(Ok(())));
    assert_eq!(one.acceptor().accepted, Some((ballot(1, 0), Arc::clone(&second))));
    assert_eq!(one.install(3, Arc::clone(&second)), Err(InstallError::Gap { number: 3, last: 1 }));
    assert_eq!(one.install(2, Arc::clone(&second)), Ok(Some(vec![Ok(())])));
    assert_eq!(one.acceptor(), &Acceptor::default(), "the next entry is another register");
    assert_eq!(one.prepare(2, ballot(9, 0)), Asked::Chosen(Some(Arc::clone(&second))));
    assert_eq!(one.install(2, Arc::clone(&second)), Ok(None));
    let another = Arc::new(entry(&[create(2)]));
    assert_eq!(one.install(2, another), Err(InstallError::Another { number: 2 }));
    one.set_disk(disk(77));
    assert_eq!(one.prepare(3, ballot(1, 0)), Asked::NoAcceptor, "that disk is not named");
    assert_eq!(log(7).accept(2, ballot(1, 0), second), Asked::NoAcceptor);
}

#[test]
fn entries_and_acceptors_survive_their_bytes_and_garbage_is_an_error() {
    let mut one = log(1);
    let wanted = Arc::new(entry(&[create(1), Change::Drop { id: CollectionId([3; 16]) }]));
    assert_eq!(Entry::decode(&wanted.encode()).unwrap(), *wanted);
    let none = decode_acceptor(&encode_acceptor(2, one.acceptor())).unwrap();
    assert_eq!(none, (2, Acceptor::default()));
    one.prepare(2, ballot(7, 0));
    one.accept(2, ballot(9, 2), Arc::clone(&wanted));
    let encoded = encode_acceptor(2, one.acceptor());
    assert_eq!(decode_acceptor(&encoded).unwrap(), (2, one.acceptor().clone()));
    let absurd = Acceptor { promised: Some(ballot(u64::MAX, 1)), accepted: None };
    let told = decode_acceptor(&encode_acceptor(2, &absurd)).unwrap_err().to_string();
    assert!(told.contains("over the limit"), "{told}");
    for cut in 0..encoded.len() {
        assert!(decode_acceptor(&encoded[..cut]).is_err());
    }
    let unknown = Entry { changes: vec![EncodedChange { kind: 900, format: 3, body: vec![0; 70] }] };
    assert_eq!(Entry::decode(&unknown.encode()).unwrap(), unknown, "it is handed on as it is");
}

#[test]
fn who_is_far_behind_takes_the_state() {
    let mut one = log(1);
    let mut two = log(2);
    for number in 0..ENTRIES_KEPT as u64 + 10 {
        one.install(number + 2, Arc::new(entry(&[create(number)]))).unwrap();
    }
    let last = one.state().number();
    assert_eq!((one.entries_from(last + 1).unwrap().len(), one.entries_from(last).unwrap().len()), (0, 1));
    assert_eq!(one.entries_from(two.state().number() + 1), None, "the first of them is gone");
    assert_eq!((one.entry(5), one.entry(last).is_some(), one.entry(last + 1)), (None, true, None));
    two.adopt(one.state().clone()).unwrap();
    assert_eq!(two.state(), one.state());
    assert_eq!(two.adopt(one.state().clone()), Err(AdoptError::Old));
    let next = Arc::new(entry(&[create(5_000)]));
    two.install(last + 1, Arc::clone(&next)).unwrap();
    assert_eq!(two.entries_from(last + 1), Some(vec![next]));
    let mut other = one.clone();
    other.install(last + 1, Arc::new(entry(&[create(6_000)]))).unwrap();
    assert_eq!(two.adopt(other.state().clone()), Err(AdoptError::Another));
}

// -------------------------------------------------------------------------------------------------------- by chance

#[derive(Clone)]
enum Content {
    Prepare,
    Accept(Arc<Entry>),
    Promised(Asked<Promise<Arc<Entry>>>),
    Accepted(Asked<()>),
    /// The sender has entries up to this number.
    Has(u64),
    Entries(u64, Vec<Arc<Entry>>),
}

#[derive(Clone)]
struct Message {
    from: usize,
    to: usize,
    number: u64,
    ballot: Ballot,
    content: Content,
}

struct Host {
    log: ChangeLog,
    /// What it wants chosen, and is not yet in its log.
    waiting: Vec<Change>,
    attempt: Option<(u64, Proposer<Arc<Entry>>)>,
    seen: Option<Ballot>,
}

struct Mesh {
    random: Rng,
    hosts: Vec<Host>,
    messages: Vec<Message>,
    /// What is in any log.
    chosen: BTreeMap<u64, Arc<Entry>>,
    /// Numbers of which two entries were chosen.
    differing: BTreeSet<u64>,
    /// Whether a node whose disk was lost goes on as if nothing had happened.
    votes_with_any_disk: bool,
    disks: usize,
    is_calm: bool,
}

const HOSTS: usize = 6;
/// Disks that come later have numbers above.
const DISKS: usize = 100;

impl Mesh {
    fn new(seed: u64, votes_with_any_disk: bool) -> Self {
        let random = Rng::with_seed(seed);
        let members = 3 + 2 * (seed as usize % 2);
        let host = |number| {
            let log = ChangeLog::new(node(number), disk(number), begin(members), Acceptor::default());
            Host { log, waiting: Vec::new(), attempt: None, seen: None }
        };
        let hosts = (0..HOSTS).map(host).collect();
        Self {
            random,
            hosts,
            messages: Vec::new(),
            chosen: BTreeMap::new(),
            differing: BTreeSet::new(),
            votes_with_any_disk,
            disks: DISKS,
            is_calm: false,
        }
    }

    /// A node has something to change.
    fn want(&mut self, number: u64) {
        let of = self.random.usize(..HOSTS);
        let state = self.hosts[of].log.state();
        let other = self.random.usize(..HOSTS);
        let change = match self.random.u8(..6) {
            0 if !state.members().contains_key(&node(other)) => {
                Change::Join { node: node(other), newcomer: newcomer(other), after: state.newest_layout().0 }
            }
            1 => Change::Seat { after: state.seated(), acceptors: best_acceptors(state, |id| id != node(other)) },
            _ => create(number),
        };
        self.hosts[of].waiting.push(change);
    }

    /// A disk is lost: the node comes back with another one, and with what others tell it.
    fn lose_disk(&mut self, of: usize) {
        let state = self.hosts[of].log.state();
        let Some(member) = state.members().get(&node(of)) else { return };
        // One in each run: with a majority of acceptors on lost disks nothing could be chosen any more.
        let is_known_everywhere = self.hosts.iter().all(|host| host.log.state().number() == state.number());
        if !self.votes_with_any_disk && (self.disks > DISKS || !is_known_everywhere) {
            return;
        }
        if self.votes_with_any_disk {
            let (state, disk) = (state.clone(), member.disk);
            self.hosts[of].log = ChangeLog::new(node(of), disk, state, Acceptor::default());
            return;
        }
        self.disks += 1;
        let was = member.disk;
        let number = self.disks;
        let host = &mut self.hosts[of];
        host.log.set_disk(disk(number));
        host.attempt = None;
        host.waiting.push(Change::ReplaceDisk { node: node(of), was, disk: disk(number) });
    }

    fn try_next(&mut self, of: usize) {
        let host = &mut self.hosts[of];
        let wanted = Arc::new(entry(&host.waiting));
        let (number, attempt, first) = host.log.attempt(host.seen, wanted);
        host.seen = Some(attempt.ballot());
        host.attempt = Some((number, attempt));
        self.carry_out(of, first);
    }

    fn carry_out(&mut self, of: usize, command: Command<Arc<Entry>>) {
        let Some((number, attempt)) = &self.hosts[of].attempt else { return };
        let (number, ballot) = (*number, attempt.ballot());
        let (to, content) = match command {
            Command::Prepare { to } => (to, Content::Prepare),
            Command::Accept { to, value } => (to, Content::Accept(value)),
            Command::End(End::Chosen(entry)) => return self.install(of, number, entry),
            Command::End(End::Overtaken { above }) => {
                let host = &mut self.hosts[of];
                (host.seen, host.attempt) = (host.seen.max(Some(above)), None);
                return;
            }
            Command::End(End::NoMajority) => {
                self.hosts[of].attempt = None;
                return;
            }
        };
        for to in to.iter().map(|id| usize::from(id.as_bytes()[0])) {
            self.messages.push(Message { from: of, to, number, ballot, content: content.clone() });
        }
    }

    fn install(&mut self, of: usize, number: u64, entry: Arc<Entry>) {
        let known = self.chosen.entry(number).or_insert_with(|| Arc::clone(&entry));
        if known != &entry {
            self.differing.insert(number);
            return;
        }
        let host = &mut self.hosts[of];
        if number == host.log.state().number() + 1 {
            host.log.install(number, Arc::clone(&entry)).unwrap();
            let encoded = |change: &Change| EncodedChange::new(change).unwrap();
            host.waiting.retain(|change| !entry.changes.contains(&encoded(change)));
        }
        if host.attempt.as_ref().is_some_and(|(of, _)| *of <= host.log.state().number()) {
            host.attempt = None;
        }
    }

    fn tell(&mut self, from: usize, to: usize) {
        let number = self.hosts[from].log.state().number();
        let ballot = ballot(0, from);
        self.messages.push(Message { from, to, number, ballot, content: Content::Has(number) });
    }

    fn step(&mut self) {
        let index = self.random.usize(..self.messages.len());
        if !self.is_calm && self.random.u8(..12) == 0 {
            self.messages.swap_remove(index);
            return;
        }
        let is_doubled = !self.is_calm && self.random.u8(..12) == 0;
        let message = self.messages[index].clone();
        if !is_doubled {
            self.messages.swap_remove(index);
        }
        let Message { from, to, number, ballot, content } = message;
        let host = &mut self.hosts[to];
        let answer = match content {
            Content::Prepare => Content::Promised(host.log.prepare(number, ballot)),
            Content::Accept(entry) => Content::Accepted(host.log.accept(number, ballot, entry)),
            Content::Promised(answer) => {
                return self.answered(to, from, (number, ballot), answer, Proposer::on_promise);
            }
            Content::Accepted(answer) => {
                return self.answered(to, from, (number, ballot), answer, Proposer::on_accepted);
            }
            Content::Has(number) => {
                let own = host.log.state().number();
                match host.log.entries_from(number + 1) {
                    Some(entries) if own > number => Content::Entries(number + 1, entries),
                    _ if own < number => Content::Has(own),
                    _ => return,
                }
            }
            Content::Entries(first, entries) => {
                (first..).zip(entries).for_each(|(number, entry)| self.install(to, number, entry));
                return;
            }
        };
        self.messages.push(Message { from: to, to: from, number, ballot, content: answer });
    }

    fn answered<T>(
        &mut self,
        of: usize,
        from: usize,
        (number, ballot): (u64, Ballot),
        answer: Asked<T>,
        tell: Tell<T>,
    ) {
        let is_this = |(known, attempt): &(u64, Proposer<_>)| *known == number && attempt.ballot() == ballot;
        if !self.hosts[of].attempt.as_ref().is_some_and(is_this) {
            return;
        }
        let answer = match answer {
            Asked::Answer(answer) => answer.map_err(Failure::Refused),
            Asked::Chosen(Some(entry)) => return self.install(of, number, entry),
            Asked::Chosen(None) | Asked::NoAcceptor => Err(Failure::Silent),
            Asked::Behind { .. } => {
                self.tell(from, of);
                Err(Failure::Silent)
            }
        };
        let Some((_, attempt)) = &mut self.hosts[of].attempt else { return };
        let next = tell(attempt, node(from), answer);
        next.into_iter().for_each(|command| self.carry_out(of, command));
    }
}

/// Tells an attempt what a node answered.
type Tell<T> = fn(&mut Proposer<Arc<Entry>>, NodeId, Result<T, Failure>) -> Option<Command<Arc<Entry>>>;

/// A while in which everything goes wrong.
fn run(seed: u64, votes_with_any_disk: bool) -> Mesh {
    let mut mesh = Mesh::new(seed, votes_with_any_disk);
    for number in 0..1_500 {
        match mesh.random.u32(..100) {
            0..8 => mesh.want(number),
            8..20 => {
                let of = mesh.random.usize(..HOSTS);
                if !mesh.hosts[of].waiting.is_empty() {
                    mesh.try_next(of);
                }
            }
            20..30 => {
                let (from, to) = (mesh.random.usize(..HOSTS), mesh.random.usize(..HOSTS));
                mesh.tell(from, to);
            }
            // Such a fault is rare, and so is the harm of it.
            30..46 if votes_with_any_disk || mesh.random.u8(..16) == 0 => {
                let of = mesh.random.usize(..HOSTS);
                mesh.lose_disk(of);
            }
            _ if !mesh.messages.is_empty() => mesh.step(),
            _ => {}
        }
    }
    mesh
}

#[test]
fn all_nodes_have_one_log_whoever_proposes_and_whatever_is_lost() {
    let (mut entries, mut seats, mut disks) = (0, 0, 0);
    for seed in 0..400 {
        let mut mesh = run(seed, false);
        mesh.is_calm = true;
        for round in 0.. {
            assert!(round < 1_000, "seed {seed}: it comes to no end");
            while !mesh.messages.is_empty() {
                mesh.step();
            }
            let numbers: BTreeSet<u64> = mesh.hosts.iter().map(|host| host.log.state().number()).collect();
            let next = mesh.hosts.iter().position(|host| !host.waiting.is_empty());
            if next.is_none() && numbers.len() == 1 {
                break;
            }
            (0..HOSTS).for_each(|from| (0..HOSTS).for_each(|to| mesh.tell(from, to)));
            next.into_iter().for_each(|of| mesh.try_next(of));
        }
        let state = mesh.hosts[0].log.state();
        assert!(mesh.differing.is_empty(), "seed {seed}: two entries of number {:?}", mesh.differing);
        assert!(mesh.hosts.iter().all(|host| host.log.state() == state), "seed {seed}");
        assert!(mesh.chosen.keys().copied().eq(2..=state.number()), "seed {seed}: no number is left out");
        entries += mesh.chosen.len();
        seats += usize::from(state.seated() > 1);
        disks += usize::from(mesh.disks > DISKS);
    }
    println!("{entries} entries; acceptors changed in {seats} runs, disks in {disks}");
    assert!(entries > 2_000 && seats > 30 && disks > 200, "{entries} entries, {seats} runs, {disks} runs");
}

#[test]
fn a_disk_that_forgot_must_not_accept_entries() {
    let found = (0..3_000).filter(|seed| !run(*seed, true).differing.is_empty()).count();
    println!("two entries of one number in {found} of 3,000 runs");
    assert!(found > 0);
}
