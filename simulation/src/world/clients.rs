//! What clients do.

use vecino_mesh::machine::CallId;
use vecino_mesh::message::Reply;
use vecino_mesh::time::Time;
use vecino_model::error::RpcError;

use super::{Happens, PROBE_EVERY, Phase, World};
use crate::client::{Ended, Wanted};
use crate::host::Caller;
use crate::links::End;
use crate::plan::Deed;

impl World {
    pub(super) fn client_next(&mut self, client: usize) {
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

    pub(super) fn client_step(&mut self, client: usize, arrived: Option<(CallId, Result<Reply, RpcError>)>) {
        let now = vecino_mesh::time::Now { time: self.now, wall_ms: 0 };
        for node in 0..self.hosts.len() {
            if self.hears(client, node) {
                self.clients[client].hears(node, self.now);
            }
        }
        let stepped = self.clients[client].step(now, arrived);
        let Some(number) = self.clients[client].doing.as_ref().map(|doing| doing.number) else { return };
        for Wanted { call, node, request, until } in stepped.wanted {
            let caller = Caller::Client { client, deed: number, call };
            self.trace(|| format!("client {client} sends {} to node {node}", request.name()));
            self.at(until, Happens::Timeout { caller });
            self.send(End::Client(client), node, caller, request, until);
        }
        if let Some(ended) = stepped.ended {
            self.client_ended(client, &ended);
        } else if stepped.wake_at != Time::NEVER {
            self.at(stepped.wake_at, Happens::ClientWake { client, deed: number });
        }
    }

    pub(super) fn client_ended(&mut self, client: usize, ended: &Ended) {
        let Some(doing) = self.clients[client].doing.take() else { return };
        if self.phase == Phase::Busy {
            self.record.took.push(self.now.since(doing.since));
            self.record.ended_at = self.now;
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

    pub(super) fn client_probe(&mut self) {
        let members: Vec<usize> = (0..self.hosts.len()).filter(|node| self.hosts[*node].takes_part()).collect();
        for client in 0..self.clients.len() {
            self.clients[client].learn(&members);
            for node in self.clients[client].silent() {
                if self.hears(client, node) {
                    self.clients[client].is_there(node);
                }
            }
        }
        self.after(PROBE_EVERY, Happens::ClientProbe);
    }

    /// Whether a client hears a node that it asks something.
    fn hears(&self, client: usize, node: usize) -> bool {
        let (client, host) = (End::Client(client), &self.hosts[node]);
        let is_open = |from, to| self.links.is_open(from, to, self.now);
        is_open(client, End::Node(node))
            && is_open(End::Node(node), client)
            && host.is_up
            && host.paused_until <= self.now
    }
}
