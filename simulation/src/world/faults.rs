//! What goes wrong, and how the collection is made and dropped.

use std::time::Duration;

use vecino_mesh::machine::CallId;
use vecino_mesh::message::{Reply, Request};
use vecino_model::error::{ErrorCode, RpcError};

use super::{ADMINISTRATION, Happens, Phase, RETRY_AFTER, World, told};
use crate::client::create;
use crate::host::Caller;
use crate::links::End;
use crate::plan::Fault;

impl World {
    pub(super) fn fault(&mut self, number: usize) {
        let fault = self.plan.faults[number].1.clone();
        self.trace(|| format!("fault: {fault:?}"));
        let now = self.now;
        let end = now + fault.length();
        match fault {
            Fault::Crash { node, off } | Fault::EmptyDisk { node, off } if self.hosts[node].is_up => {
                self.crash(node);
                if matches!(fault, Fault::EmptyDisk { .. }) {
                    self.hosts[node].empty();
                }
                self.after(off, Happens::Restart { node });
            }
            Fault::Crash { .. } | Fault::EmptyDisk { .. } => {}
            Fault::Pause { node, length: _ } => {
                self.hosts[node].paused_until = self.hosts[node].paused_until.max(end);
            }
            Fault::Cut { from, to, length: _ } => self.links.cut(End::Node(from), End::Node(to), end),
            Fault::Partition { side, length: _ } => {
                for from in 0..self.plan.nodes {
                    for to in 0..self.plan.nodes {
                        if side >> from & 1 != side >> to & 1 {
                            self.links.cut(End::Node(from), End::Node(to), end);
                        }
                    }
                }
            }
            Fault::Flap { from, to, times, period } => {
                for time in 0..times {
                    let (from, to) = (End::Node(from), End::Node(to));
                    self.after(period * 2 * time, Happens::CutNow { from, to, length: period });
                }
            }
            Fault::Slow { factor, length: _ } => self.links.slow(factor, end),
            Fault::ClockJump { node, by_ms } => self.hosts[node].jump(by_ms),
            Fault::ClockDrift { node, ppm } => self.hosts[node].drift(ppm, now),
            Fault::Overload { node, length: _ } => {
                self.hosts[node].refuses_until = self.hosts[node].refuses_until.max(end);
            }
            Fault::ClientCut { client, node, length: _ } => {
                self.links.cut(End::Client(client), End::Node(node), end);
                self.links.cut(End::Node(node), End::Client(client), end);
            }
            Fault::Create { node } => {
                let request = create("another", self.plan.replicas);
                self.administer(node, request);
            }
            Fault::Recreate { node } => self.after(Duration::ZERO, Happens::Drop { node }),
        }
    }

    pub(super) fn administer(&mut self, node: usize, request: Request) {
        let client = self.clients.len() - 1;
        let caller = Caller::Client { client, deed: ADMINISTRATION, call: node as CallId };
        let deadline = self.now + Duration::from_secs(10);
        self.at(deadline, Happens::Timeout { caller });
        self.send(End::Client(client), node, caller, request, deadline);
    }

    pub(super) fn administered(&mut self, result: Result<Reply, RpcError>) {
        self.trace(|| format!("the collection: {}", told(&result)));
        match result {
            Ok(Reply::Dropped(_)) => self.after(Duration::ZERO, Happens::Create { node: 0 }),
            Ok(_) => {
                if let Some(drop) = self.dropping.take() {
                    self.record.end_drop(drop, self.plan.points, true);
                }
            }
            Err(error) if error.code == ErrorCode::AlreadyExists => {}
            // Whether it was dropped, or made, is not known; it is made if it is not there.
            Err(_) if self.phase != Phase::Final => self.after(RETRY_AFTER, Happens::Create { node: 0 }),
            Err(_) => {}
        }
    }
}
