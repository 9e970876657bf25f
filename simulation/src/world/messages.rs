//! Requests and replies on their way.

use std::time::Duration;

use vecino_mesh::event::{self, Event};
use vecino_mesh::message::{Reply, Request};
use vecino_mesh::time::Time;
use vecino_model::error::{ErrorCode, RpcError};

use super::{ADMINISTRATION, Happens, World};
use crate::host::Caller;
use crate::links::{End, Fate, IDLE_TIMEOUT};
use crate::wire;

impl World {
    pub(super) fn send(&mut self, from: End, to: usize, caller: Caller, request: Request, deadline: Time) {
        let request = if self.plan.is_encoded { wire::request(request) } else { request };
        // A connection delivers once; what arrives twice was sent twice, and nobody sends a write twice that has no stamps.
        let is_single = match &request {
            Request::Put(put) => put.stamps.is_empty(),
            Request::Delete(delete) => delete.stamps.is_empty(),
            _ => false,
        };
        let times = if !is_single && self.random.u32(..1_000) < self.plan.duplicates { 2 } else { 1 };
        let clock = self.clock_told(from);
        for _ in 0..times {
            if let Fate::Arrives(delay) = self.links.send(from, End::Node(to), self.now, &mut self.random) {
                let (life, request) = (self.hosts[to].life, request.clone());
                self.after(delay, Happens::Arrive { from, to, life, caller, request, deadline, clock });
            }
        }
    }

    pub(super) fn arrive(
        &mut self,
        (from, clock): (End, u32),
        (to, life): (usize, u32),
        caller: Caller,
        request: Request,
        deadline: Time,
    ) {
        let host = &mut self.hosts[to];
        if !host.is_up || host.life != life {
            // A node that was started again says that it does not know the connection; one that is off says nothing.
            let silence = if host.is_up { Duration::from_millis(1) } else { IDLE_TIMEOUT };
            let lost = RpcError::new(ErrorCode::Connection, "the connection was lost");
            return self.after(silence, Happens::Reply { caller, result: Err(lost) });
        }
        if host.node.is_none() {
            let starting = RpcError::new(ErrorCode::NotReady, "it is starting and not in its mesh yet");
            return self.answer(to, caller, Err(starting));
        }
        self.hear_clock(from, to, clock);
        let host = &mut self.hosts[to];
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

    pub(super) fn reply(&mut self, caller: Caller, result: Result<Reply, RpcError>) {
        match caller {
            Caller::Node { node, life, op, call } => {
                if self.is_alive(node, life) && self.hosts[node].calls.contains_key(&(op, call)) {
                    self.decide(node, Event::Answered { op, call, result, request: None });
                }
            }
            Caller::Joiner { node, life, call } => {
                if self.is_alive(node, life) {
                    self.joining_answered(node, call, result);
                }
            }
            Caller::Client { client, deed, call } => {
                if self.clients[client].doing.as_ref().is_some_and(|doing| doing.number == deed) {
                    self.client_step(client, Some((call, result)));
                } else if deed == ADMINISTRATION && client == self.looker {
                    self.administered(call, result);
                }
            }
        }
    }

    /// An answer sets out.
    pub(super) fn answer(&mut self, from: usize, caller: Caller, result: Result<Reply, RpcError>) {
        let to = match caller {
            Caller::Node { node, .. } | Caller::Joiner { node, .. } => End::Node(node),
            Caller::Client { client, .. } => End::Client(client),
        };
        let result = if self.plan.is_encoded { wire::reply(result) } else { result };
        if let Fate::Arrives(delay) = self.links.send(End::Node(from), to, self.now, &mut self.random) {
            self.after(delay, Happens::Reply { caller, result });
        }
    }
}
