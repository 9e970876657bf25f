//! A mesh, its clients and everything between them, in virtual time.

mod clients;
mod faults;
mod gossip;
mod joining;
mod messages;
mod nodes;
mod phases;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use vecino_mesh::event::{Change, Event, OpId};
use vecino_mesh::joining::Arrival;
use vecino_mesh::machine::CallId;
use vecino_mesh::message::{Reply, Request};
use vecino_mesh::time::Time;
use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::message::DropCollection;

use crate::client::{COLLECTION, Client, create};
use crate::host::{Caller, Host, Image};
use crate::links::{End, Links};
use crate::plan::{ClientPlan, Fault, Options, Plan, START};
use crate::record::Record;
use crate::replica::Kind;

/// How often nodes gossip.
const GOSSIP_EVERY: Duration = Duration::from_millis(400);
/// A node that was not heard for so long is down.
const DOWN_AFTER: Duration = Duration::from_millis(1_800);
/// When the collection is made.
const CREATE_AT: Duration = Duration::from_secs(2);
/// Nodes that have to find each other come within this time.
const FORM_WITHIN: Duration = Duration::from_millis(800);
/// How much later everything else then is: what is written to a collection before its creation is acknowledged may go with
/// it when that fails.
const FORMING: Duration = Duration::from_secs(8);
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
    Fork { fault: usize },
    Room { node: usize },
    Join { node: usize, life: u32, arrived: Option<(CallId, Arrival)> },
    CutNow { from: End, to: End, length: Duration },
    Gossip,
    Node { node: usize, life: u32, event: Event },
    Engine { node: usize, life: u32, op: OpId, call: CallId, request: Request },
    Persist { node: usize, life: u32, op: OpId, call: CallId, change: Change },
    Flush { node: usize, life: u32 },
    Arrive { from: End, to: usize, life: u32, caller: Caller, request: Request, deadline: Time, clock: u32 },
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

/// What is asked for about collections.
#[derive(Clone, Copy, Debug)]
enum Administration {
    /// The collection of the run is made.
    Create,
    /// It is dropped.
    Drop,
    /// Another one is made, or is not.
    Another,
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
    /// The client that looks at every point in the end, and makes and drops the collection.
    looker: usize,
    links: Links,
    phase: Phase,
    faults_end: Time,
    next_deed: u64,
    next_value: u64,
    dropping: Option<u64>,
    /// What was asked for about collections and is not answered yet.
    administering: BTreeMap<CallId, Administration>,
    administrations: CallId,
    /// What was on a disk, by the fault that will bring it back.
    images: BTreeMap<usize, Image>,
    pub(crate) record: Record,
    pub(crate) events: u64,
}

impl World {
    pub(crate) fn new(plan: Plan, options: Options) -> Self {
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let flushes_first = !options.plants.has(vecino_mesh::plants::Plant::AcknowledgedBeforeTheFlush);
        let kind = Kind { is_engine: plan.is_engine, flushes_first };
        let mut hosts: Vec<Host> = (0..plan.nodes_in_all)
            .map(|number| Host::new(number, (0..4).map(|_| random.u64(..)).collect(), kind, plan.turns, options.plants))
            .collect();
        if !plan.forms {
            hosts[..plan.nodes].iter_mut().for_each(|host| host.is_member_from_the_beginning(plan.nodes));
        }
        let nodes: Vec<usize> = (0..plan.nodes).collect();
        let client = |(number, client): (usize, &ClientPlan)| {
            Client::new(client.clone(), nodes.clone(), options.plants, number % 4 != 3)
        };
        let mut clients: Vec<Client> = plan.clients.iter().enumerate().map(client).collect();
        let looker = clients.len();
        clients.push(Client::new(ClientPlan::default(), nodes, options.plants, true));
        let links = Links::of(&plan);
        let forming = if plan.forms { FORMING } else { Duration::ZERO };
        let faults_end = plan.faults.iter().map(|(at, fault)| Time::default() + forming + *at + fault.length()).max();
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
            looker,
            links,
            phase: Phase::Busy,
            faults_end,
            next_deed: 0,
            next_value: 0,
            dropping: None,
            administering: BTreeMap::new(),
            administrations: 0,
            images: BTreeMap::new(),
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
            // Nodes that have to find each other come in any order.
            let delay = if self.plan.forms { FORM_WITHIN.mul_f64(self.random.f64()) } else { Duration::ZERO };
            if delay.is_zero() { self.start(node) } else { self.after(delay, Happens::Restart { node }) }
        }
        self.after(Duration::from_millis(100), Happens::Gossip);
        self.after(PROBE_EVERY, Happens::ClientProbe);
        let formed = Time::default() + if self.plan.forms { FORMING } else { Duration::ZERO };
        self.at(formed + CREATE_AT, Happens::Create { node: 0 });
        for number in 0..self.plan.faults.len() {
            let at = self.plan.faults[number].0;
            if let Fault::RollBack { by, .. } = &self.plan.faults[number].1 {
                self.at(formed + at.saturating_sub(*by), Happens::Fork { fault: number });
            }
            self.at(formed + at, Happens::Fault(number));
        }
        for client in 0..self.plan.clients.len() {
            let pause = self.clients[client].plan.deeds.first().map_or(Duration::ZERO, |(pause, _)| *pause);
            self.at(formed + START + pause, Happens::ClientNext { client });
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
            | Happens::Flush { node, .. }
            | Happens::Join { node, .. } => Some(*node),
            Happens::Arrive { to, .. } => Some(*to),
            Happens::Timeout { caller: Caller::Node { node, .. } | Caller::Joiner { node, .. } }
            | Happens::Reply { caller: Caller::Node { node, .. } | Caller::Joiner { node, .. }, .. } => Some(*node),
            _ => None,
        };
        if let Some(until) = paused.map(|node| self.hosts[node].paused_until).filter(|until| *until > self.now) {
            return self.at(until, happens);
        }
        match happens {
            Happens::Fault(number) => self.fault(number),
            Happens::Restart { node } => self.start(node),
            Happens::Fork { fault } => self.fork(fault),
            Happens::Room { node } => {
                if self.hosts[node].full_until <= self.now {
                    self.make_room(node);
                }
            }
            Happens::Join { node, life, arrived } => {
                if self.is_alive(node, life) {
                    self.join_on(node, arrived);
                }
            }
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
            Happens::Arrive { from, to, life, caller, request, deadline, clock } => {
                self.arrive((from, clock), (to, life), caller, request, deadline);
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
            Happens::Create { node } => {
                self.administer(node, Administration::Create, create(COLLECTION, self.plan.replicas));
            }
            Happens::Drop { node } => {
                let name = COLLECTION.to_owned();
                self.dropping = Some(self.record.begin_drop(self.looker, self.plan.points));
                self.administer(node, Administration::Drop, DropCollection { name }.into());
            }
            Happens::Finish => self.next_phase(),
        }
    }

    /// A client that knows these nodes.
    fn client(&self, plan: ClientPlan, nodes: Vec<usize>) -> Client {
        Client::new(plan, nodes, self.options.plants, true)
    }

    fn is_alive(&self, node: usize, life: u32) -> bool {
        self.hosts[node].is_up && self.hosts[node].life == life
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
