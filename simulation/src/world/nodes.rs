//! What nodes decide, carried out: the part of a driver.

use std::time::Duration;

use vecino_mesh::event::{self, Command, Event, OpId};
use vecino_mesh::machine::CallId;
use vecino_mesh::message::{Reply, Request};
use vecino_mesh::time::Time;
use vecino_model::Outcome;

use super::{Happens, LATE_FLUSH, World, told};
use crate::host::{Caller, Host, Outstanding};
use crate::links::End;

impl World {
    pub(super) fn start(&mut self, node: usize) {
        if self.hosts[node].is_up || self.hosts[node].is_gone {
            return;
        }
        if !self.hosts[node].is_member() {
            return self.begin_joining(node);
        }
        self.take_part(node);
    }

    /// A node that belongs to the mesh begins to work.
    pub(super) fn take_part(&mut self, node: usize) {
        let seed = self.random.u64(..);
        let nodes = self.hosts.len();
        self.hosts[node].start(nodes, seed, self.now);
        self.trace(|| format!("node {node} starts"));
        self.decide(node, Event::Started);
    }

    pub(super) fn crash(&mut self, node: usize) {
        let seed = self.random.u64(..);
        self.trace(|| format!("node {node} loses its power"));
        self.hosts[node].crash(seed);
    }

    /// Has a node decide, and carries out what it decides.
    pub(super) fn decide(&mut self, node: usize, event: Event) {
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

    pub(super) fn carry_out(&mut self, node: usize, command: Command) {
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
                let mut at = self.now + Host::engine_delay(&mut self.random);
                if let (Some(takes), Request::ReplicaApply(_)) = (self.plan.apply_takes, &request) {
                    at = self.hosts[node].apply_at(takes, self.now);
                }
                self.at(at, Happens::Engine { node, life, op, call, request });
            }
            Command::Persist { op, call, change } => {
                let delay = Host::engine_delay(&mut self.random) * 4;
                self.after(delay, Happens::Persist { node, life, op, call, change });
            }
            Command::Answer { op, result } => {
                let Some(caller) = self.hosts[node].callers.remove(&op) else { return };
                self.trace(|| format!("node {node} op {op} answers {}", told(&result)));
                self.answer(node, caller, result);
            }
            Command::Wake { op, at } => {
                if at != Time::NEVER {
                    self.at(at, Happens::Node { node, life, event: Event::Woken { op } });
                }
            }
        }
    }

    pub(super) fn engine(&mut self, node: usize, op: OpId, call: CallId, request: Request) {
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
}
