//! A mesh, its clients and everything between them, in virtual time.

mod faults;
mod gossip;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use vecino_mesh::event::{self, Change, Command, Event, OpId};
use vecino_mesh::machine::CallId;
use vecino_mesh::message::{Reply, Request};
use vecino_mesh::time::Time;
use vecino_model::Outcome;
use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::message::DropCollection;

use crate::client::{COLLECTION, Client, Ended, Wanted, create};
use crate::host::{Caller, Host, Outstanding};
use crate::links::{End, Fate, IDLE_TIMEOUT, Links};
use crate::plan::{ClientPlan, Deed, Options, Plan, START};
use crate::record::Record;
use crate::replica::Kind;
use crate::wire;

/// How often nodes gossip.
const GOSSIP_EVERY: Duration = Duration::from_millis(400);
/// A node that was not heard for so long is down.
const DOWN_AFTER: Duration = Duration::from_millis(1_800);
/// When the collection is made.
const CREATE_AT: Duration = Duration::from_secs(2);
/// How long the mesh has after the last fault before it is looked at.
const SETTLE: Duration = Duration::from_secs(15);
/// How often clients ask silent nodes whether they answer again.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// What is acknowledged before it is flushed is flushed after about this long.
const LATE_FLUSH: Duration = Duration::from_millis(30);
/// When it is tried again to make the collection.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// A run that has not ended by then never will.
const END_MAX: Duration = Duration::from_secs(3_600);

/// What happens at a time.
enum Happens {
    Fault(usize),
    Restart { node: usize },
    CutNow { from: End, to: End, length: Duration },
    Gossip,
    Node { node: usize, life: u32, event: Event },
    Engine { node: usize, life: u32, op: OpId, call: CallId, request: Request },
    Persist { node: usize, life: u32, op: OpId, call: CallId, change: Change },
    Flush { node: usize, life: u32 },
    Arrive { from: End, to: usize, life: u32, caller: Caller, request: Request, deadline: Time },
    Reply { caller: Caller, result: Result<Reply, RpcError> },
    Timeout { caller: Caller },
    ClientNext { client: usize },
    ClientWake { client: usize, deed: u64 },
    ClientProbe,
    Create { node: usize },
    Drop { node: usize },
    Finish,
}

struct Scheduled {
    at: Time,
    number: u64,
    happens: Happens,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Clients and faults.
    Busy,
    /// The faults are over.
    Settling,
    /// Each point is read and written once more.
    Final,
    /// It is over.
    Over,
}

/// The mesh.
pub(crate) struct World {
    plan: Plan,
    options: Options,
    now: Time,
    scheduled: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    random: fastrand::Rng,
    pub(crate) hosts: Vec<Host>,
    clients: Vec<Client>,
    links: Links,
    phase: Phase,
    faults_end: Time,
    next_deed: u64,
    next_value: u64,
    dropping: Option<u64>,
    pub(crate) record: Record,
    pub(crate) events: u64,
}

impl World {
    pub(crate) fn new(plan: Plan, options: Options) -> Self {
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let flushes_first = !options.plants.has(vecino_mesh::plants::Plant::AcknowledgedBeforeTheFlush);
        let kind = Kind { is_engine: plan.is_engine, flushes_first };
        let hosts = (0..plan.nodes)
            .map(|number| Host::new(number, (0..4).map(|_| random.u64(..)).collect(), kind, options.plants))
            .collect();
        let mut clients: Vec<Client> = plan
            .clients
            .iter()
            .enumerate()
            .map(|(number, client)| Client::new(client.clone(), plan.nodes, options.plants, number % 4 != 3))
            .collect();
        // The last one looks at every point in the end, and makes and drops the collection.
        clients.push(Client::new(ClientPlan::default(), plan.nodes, options.plants, true));
        let links = Links::of(&plan);
        let faults_end = plan.faults.iter().map(|(at, fault)| Time::default() + *at + fault.length()).max();
        let faults_end = faults_end.unwrap_or_default();
        let record = Record::new(options.trace);
        let mut world = Self {
            plan,
            options,
            now: Time::default(),
            scheduled: 0,
            queue: BinaryHeap::new(),
            random,
            hosts,
            clients,
            links,
            phase: Phase::Busy,
            faults_end,
            next_deed: 0,
            next_value: 0,
            dropping: None,
            record,
            events: 0,
        };
        world.begin();
        world
    }

    /// Number of things that clients began.
    pub(crate) fn deeds(&self) -> usize {
        self.next_deed as usize
    }

    /// The plan of the run.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    fn begin(&mut self) {
        for node in 0..self.plan.nodes {
            self.start(node);
        }
        self.after(Duration::from_millis(100), Happens::Gossip);
        self.after(PROBE_EVERY, Happens::ClientProbe);
        self.after(CREATE_AT, Happens::Create { node: 0 });
        for number in 0..self.plan.faults.len() {
            let at = self.plan.faults[number].0;
            self.at(Time::default() + at, Happens::Fault(number));
        }
        for client in 0..self.plan.clients.len() {
            let pause = self.clients[client].plan.deeds.first().map_or(Duration::ZERO, |(pause, _)| *pause);
            self.at(Time::default() + START + pause, Happens::ClientNext { client });
        }
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self) {
        while self.phase != Phase::Over {
            let Some(Reverse(Scheduled { at, happens, .. })) = self.queue.pop() else { break };
            self.now = at;
            self.events += 1;
            if at > Time::default() + END_MAX {
                self.record.fail("ends", "the run does not end".to_owned());
                break;
            }
            self.happens(happens);
        }
    }

    fn at(&mut self, at: Time, happens: Happens) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled { at: at.max(self.now), number: self.scheduled, happens }));
    }

    fn after(&mut self, delay: Duration, happens: Happens) {
        self.at(self.now + delay, happens);
    }

    fn happens(&mut self, happens: Happens) {
        // A node that is paused does everything later.
        let paused = match &happens {
            Happens::Node { node, .. }
            | Happens::Engine { node, .. }
            | Happens::Persist { node, .. }
            | Happens::Flush { node, .. } => Some(*node),
            Happens::Arrive { to, .. } => Some(*to),
            Happens::Timeout { caller: Caller::Node { node, .. } }
            | Happens::Reply { caller: Caller::Node { node, .. }, .. } => Some(*node),
            _ => None,
        };
        if let Some(until) = paused.map(|node| self.hosts[node].paused_until).filter(|until| *until > self.now) {
            return self.at(until, happens);
        }
        match happens {
            Happens::Fault(number) => self.fault(number),
            Happens::Restart { node } => self.start(node),
            Happens::CutNow { from, to, length } => self.links.cut(from, to, self.now + length),
            Happens::Gossip => self.gossip(),
            Happens::Node { node, life, event } => {
                if self.is_alive(node, life) {
                    self.decide(node, event);
                }
            }
            Happens::Engine { node, life, op, call, request } => {
                if self.is_alive(node, life) {
                    self.engine(node, op, call, request);
                }
            }
            Happens::Persist { node, life, op, call, change } => {
                if self.is_alive(node, life) {
                    let result = self.hosts[node].persist(change, self.now);
                    self.decide(node, Event::Answered { op, call, result, request: None });
                }
            }
            Happens::Flush { node, life } => {
                if self.is_alive(node, life) {
                    self.hosts[node].replicas.values_mut().for_each(|replica| replica.flush());
                }
            }
            Happens::Arrive { from, to, life, caller, request, deadline } => {
                self.arrive(from, (to, life), caller, request, deadline);
            }
            Happens::Reply { caller, result } => self.reply(caller, result),
            Happens::Timeout { caller } => {
                let message = "no reply within its time";
                self.reply(caller, Err(RpcError::new(ErrorCode::Timeout, message)));
            }
            Happens::ClientNext { client } => self.client_next(client),
            Happens::ClientWake { client, deed } => {
                if self.clients[client].doing.as_ref().is_some_and(|doing| doing.number == deed) {
                    self.client_step(client, None);
                }
            }
            Happens::ClientProbe => self.client_probe(),
            Happens::Create { node } => self.administer(node, create(COLLECTION, self.plan.replicas)),
            Happens::Drop { node } => {
                let name = COLLECTION.to_owned();
                self.dropping = Some(self.record.begin_drop(self.clients.len() - 1, self.plan.points));
                self.administer(node, DropCollection { name }.into());
            }
            Happens::Finish => self.next_phase(),
        }
    }

    fn is_alive(&self, node: usize, life: u32) -> bool {
        self.hosts[node].is_up && self.hosts[node].life == life
    }

    // ------------------------------------------------------------------------------------------------------- nodes

    fn start(&mut self, node: usize) {
        if self.hosts[node].is_up {
            return;
        }
        let seed = self.random.u64(..);
        self.hosts[node].start(self.plan.nodes, seed, self.now);
        self.trace(|| format!("node {node} starts"));
        self.decide(node, Event::Started);
    }

    fn crash(&mut self, node: usize) {
        let seed = self.random.u64(..);
        self.trace(|| format!("node {node} loses its power"));
        self.hosts[node].crash(seed);
    }

    /// Has a node decide, and carries out what it decides.
    fn decide(&mut self, node: usize, event: Event) {
        let host = &mut self.hosts[node];
        let now = host.now(self.now);
        let event = match event {
            // What was sent comes back with the answer, as the drivers of real nodes have it.
            Event::Answered { op, call, result, request } => {
                let sent = host.calls.remove(&(op, call)).and_then(|outstanding| outstanding.request);
                Event::Answered { op, call, result, request: request.or(sent) }
            }
            event => event,
        };
        let Some(decider) = &mut host.node else { return };
        let commands = decider.handle(now, event);
        for command in commands {
            self.carry_out(node, command);
        }
    }

    fn carry_out(&mut self, node: usize, command: Command) {
        let life = self.hosts[node].life;
        match command {
            Command::Send { op, call, to, request, deadline } => {
                let Some(to) = self.hosts.iter().position(|host| host.id == to) else { return };
                self.trace(|| format!("node {node} op {op} sends {} to node {to}", request.name()));
                let kept = matches!(request, Request::ReplicaApply(_)).then(|| request.clone());
                self.hosts[node].calls.insert((op, call), Outstanding { request: kept });
                let caller = Caller::Node { node, life, op, call };
                self.at(deadline, Happens::Timeout { caller });
                self.send(End::Node(node), to, caller, request, deadline);
            }
            Command::GiveUp { op, call } => {
                let event = Event::Answered { op, call, result: Err(event::given_up()), request: None };
                self.after(Duration::ZERO, Happens::Node { node, life, event });
            }
            Command::Engine { op, call, request } => {
                let delay = Host::engine_delay(&mut self.random);
                self.after(delay, Happens::Engine { node, life, op, call, request });
            }
            Command::Persist { op, call, change } => {
                let delay = Host::engine_delay(&mut self.random) * 4;
                self.after(delay, Happens::Persist { node, life, op, call, change });
            }
            Command::Answer { op, result } => {
                let Some(caller) = self.hosts[node].callers.remove(&op) else { return };
                self.trace(|| format!("node {node} op {op} answers {}", told(&result)));
                let to = match caller {
                    Caller::Node { node, .. } => End::Node(node),
                    Caller::Client { client, .. } => End::Client(client),
                };
                let result = if self.plan.is_encoded { wire::reply(result) } else { result };
                if let Fate::Arrives(delay) = self.links.send(End::Node(node), to, self.now, &mut self.random) {
                    self.after(delay, Happens::Reply { caller, result });
                }
            }
            Command::Wake { op, at } => {
                if at != Time::NEVER {
                    self.at(at, Happens::Node { node, life, event: Event::Woken { op } });
                }
            }
        }
    }

    fn engine(&mut self, node: usize, op: OpId, call: CallId, request: Request) {
        let applied = match &request {
            Request::ReplicaApply(apply) => Some(apply.records.clone()),
            _ => None,
        };
        let result = self.hosts[node].engine(request, self.now);
        if let (Some(records), Ok(Reply::Outcomes(outcomes))) = (applied, &result) {
            for (record, outcome) in records.iter().zip(outcomes) {
                if *outcome == Outcome::Written(record.version) {
                    let id = self.hosts[node].id;
                    self.record.applied(id, record);
                }
            }
            if self.hosts[node].acknowledges_early() {
                let life = self.hosts[node].life;
                let delay = LATE_FLUSH.mul_f64(self.random.f64() * 2.0);
                self.after(delay, Happens::Flush { node, life });
            }
        }
        self.decide(node, Event::Answered { op, call, result, request: None });
    }

    // ---------------------------------------------------------------------------------------------------- messages

    fn send(&mut self, from: End, to: usize, caller: Caller, request: Request, deadline: Time) {
        let request = if self.plan.is_encoded { wire::request(request) } else { request };
        // A connection delivers once; what arrives twice was sent twice, and nobody sends a write twice that has no stamps.
        let is_single = match &request {
            Request::Put(put) => put.stamps.is_empty(),
            Request::Delete(delete) => delete.stamps.is_empty(),
            _ => false,
        };
        let times = if !is_single && self.random.u32(..1_000) < self.plan.duplicates { 2 } else { 1 };
        for _ in 0..times {
            if let Fate::Arrives(delay) = self.links.send(from, End::Node(to), self.now, &mut self.random) {
                let (life, request) = (self.hosts[to].life, request.clone());
                self.after(delay, Happens::Arrive { from, to, life, caller, request, deadline });
            }
        }
    }

    fn arrive(&mut self, from: End, (to, life): (usize, u32), caller: Caller, request: Request, deadline: Time) {
        let host = &mut self.hosts[to];
        if !host.is_up || host.life != life {
            // A node that was started again says that it does not know the connection; one that is off says nothing.
            let silence = if host.is_up { Duration::from_millis(1) } else { IDLE_TIMEOUT };
            let lost = RpcError::new(ErrorCode::Connection, "the connection was lost");
            return self.after(silence, Happens::Reply { caller, result: Err(lost) });
        }
        let op = host.next_op;
        host.next_op += 1;
        host.callers.insert(op, caller);
        let asks = match from {
            End::Node(number) => event::Caller::Peer(self.hosts[number].id),
            End::Client(_) => event::Caller::Client,
        };
        self.trace(|| format!("node {to} op {op} is asked for {} by {from:?}", request.name()));
        self.decide(to, Event::Request { op, caller: asks, request, deadline });
    }

    fn reply(&mut self, caller: Caller, result: Result<Reply, RpcError>) {
        match caller {
            Caller::Node { node, life, op, call } => {
                if self.is_alive(node, life) && self.hosts[node].calls.contains_key(&(op, call)) {
                    self.decide(node, Event::Answered { op, call, result, request: None });
                }
            }
            Caller::Client { client, deed, call } => {
                if self.clients[client].doing.as_ref().is_some_and(|doing| doing.number == deed) {
                    self.client_step(client, Some((call, result)));
                } else if deed == ADMINISTRATION && client == self.clients.len() - 1 {
                    self.administered(result);
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------ clients

    fn client_next(&mut self, client: usize) {
        let Some((_, deed)) = self.clients[client].plan.deeds.get(self.clients[client].next).copied() else {
            return self.finish_if_done();
        };
        self.clients[client].next += 1;
        self.next_deed += 1;
        self.next_value += 1;
        let number = self.next_deed;
        let value = match deed {
            Deed::PutAt(_, place) => crate::value::at(place, self.next_value),
            _ => self.next_value,
        };
        let began = self.record.begin(client, deed, value);
        self.trace(|| format!("client {client} begins {deed:?} with value {value}"));
        let now = vecino_mesh::time::Now { time: self.now, wall_ms: 0 };
        let chance = self.random.f64();
        self.clients[client].begin(number, deed, value, began, now, chance);
        self.client_step(client, None);
    }

    fn client_step(&mut self, client: usize, arrived: Option<(CallId, Result<Reply, RpcError>)>) {
        let now = vecino_mesh::time::Now { time: self.now, wall_ms: 0 };
        let stepped = self.clients[client].step(now, arrived);
        let Some(number) = self.clients[client].doing.as_ref().map(|doing| doing.number) else { return };
        for Wanted { call, place, request, until } in stepped.wanted {
            let caller = Caller::Client { client, deed: number, call };
            self.trace(|| format!("client {client} sends {} to node {place}", request.name()));
            self.at(until, Happens::Timeout { caller });
            self.send(End::Client(client), place, caller, request, until);
        }
        if let Some(ended) = stepped.ended {
            self.client_ended(client, &ended);
        } else if stepped.wake_at != Time::NEVER {
            self.at(stepped.wake_at, Happens::ClientWake { client, deed: number });
        }
    }

    fn client_ended(&mut self, client: usize, ended: &Ended) {
        let Some(doing) = self.clients[client].doing.take() else { return };
        if self.phase == Phase::Busy {
            self.record.took.push(self.now.since(doing.since));
        }
        self.trace(|| format!("client {client} has ended {:?}: {}", doing.deed, crate::record::told(ended)));
        let is_done = self.record.end(client, &doing, ended);
        if self.phase == Phase::Final && !is_done {
            let what =
                format!("{:?} fails though nothing is wrong any more: {}", doing.deed, crate::record::told(ended));
            self.record.fail("available", what);
        }
        let pause = self.clients[client].plan.deeds.get(self.clients[client].next).map(|(pause, _)| *pause);
        match pause {
            Some(pause) => self.after(pause, Happens::ClientNext { client }),
            None => self.finish_if_done(),
        }
    }

    fn client_probe(&mut self) {
        for client in 0..self.clients.len() {
            for node in self.clients[client].silent() {
                let (there, back) = ((End::Client(client), End::Node(node)), (End::Node(node), End::Client(client)));
                let is_open =
                    self.links.is_open(there.0, there.1, self.now) && self.links.is_open(back.0, back.1, self.now);
                if is_open && self.hosts[node].is_up && self.hosts[node].paused_until <= self.now {
                    self.clients[client].is_there(node);
                }
            }
        }
        self.after(PROBE_EVERY, Happens::ClientProbe);
    }

    fn finish_if_done(&mut self) {
        let is_idle = |client: &Client| client.doing.is_none() && client.next >= client.plan.deeds.len();
        if self.clients.iter().all(is_idle) && matches!(self.phase, Phase::Busy | Phase::Final) {
            let at = if self.phase == Phase::Busy { self.faults_end } else { self.now + SETTLE };
            self.at(at, Happens::Finish);
        }
    }

    fn next_phase(&mut self) {
        self.phase = match self.phase {
            Phase::Busy => {
                self.trace(|| "the faults are over".to_owned());
                self.mend();
                self.after(SETTLE, Happens::Finish);
                Phase::Settling
            }
            Phase::Settling => {
                if self.plan.keeps_coordinators() {
                    self.check_replicas();
                }
                let looker = self.clients.len() - 1;
                let points = 0..self.plan.points;
                let reads = points.clone().map(|point| (Duration::ZERO, Deed::Get(point)));
                let writes = points.clone().map(|point| (Duration::ZERO, Deed::Put(point)));
                let again = points.map(|point| (Duration::ZERO, Deed::Get(point)));
                let deeds = reads.chain(writes).chain(again).collect();
                self.clients[looker] = Client::new(ClientPlan { deeds }, self.plan.nodes, self.options.plants, true);
                self.after(Duration::ZERO, Happens::ClientNext { client: looker });
                Phase::Final
            }
            Phase::Final | Phase::Over => Phase::Over,
        };
    }

    fn mend(&mut self) {
        self.links.mend();
        for node in 0..self.plan.nodes {
            self.hosts[node].paused_until = self.now;
            self.hosts[node].refuses_until = self.now;
            self.hosts[node].set_clock();
            self.start(node);
        }
    }

    fn trace(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        self.record.trace(now, what);
    }
}

/// The deed of making and dropping the collection.
const ADMINISTRATION: u64 = u64::MAX;

fn told(result: &Result<Reply, RpcError>) -> String {
    match result {
        Ok(reply) => format!("{reply:?}").chars().take(160).collect(),
        Err(error) => format!("{}: {error}", error.code.name()),
    }
}
