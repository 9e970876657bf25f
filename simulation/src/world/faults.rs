//! What goes wrong, and how the collection is made and dropped.

use std::time::Duration;

use vecino_mesh::machine::CallId;
use vecino_mesh::message::{Reply, Request};
use vecino_model::error::{ErrorCode, RpcError};

use super::{ADMINISTRATION, Administration, Happens, Phase, RETRY_AFTER, World, told};
use crate::client::create;
use crate::host::Caller;
use crate::links::End;
use crate::plan::Fault;

/// Bytes that a full disk still takes, at the most.
const ROOM_MAX: u64 = 4 * 1024;

impl World {
    pub(super) fn fault(&mut self, number: usize) {
        let fault = self.plan.faults[number].1.clone();
        self.trace(|| format!("fault: {fault:?}"));
        let now = self.now;
        let end = now + fault.length();
        match fault {
            Fault::Crash { node, off }
            | Fault::EmptyDisk { node, off }
            | Fault::RollBack { node, off, .. }
            | Fault::Damage { node, off }
            | Fault::LoseFolder { node, off } => {
                if self.hosts[node].is_up {
                    self.crash(node);
                    self.harm(number, &fault);
                    self.after(off, Happens::Restart { node });
                }
            }
            Fault::Pause { node, length: _ } => {
                self.hosts[node].paused_until = self.hosts[node].paused_until.max(end);
            }
            Fault::Cut { from, to, length: _ } => self.links.cut(End::Node(from), End::Node(to), end),
            Fault::Partition { side, length: _ } => {
                for from in 0..self.hosts.len() {
                    for to in 0..self.hosts.len() {
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
            Fault::FullDisk { node, length } => {
                self.hosts[node].full_until = self.hosts[node].full_until.max(end);
                // Some of what is written still fits.
                let room = self.random.u64(..ROOM_MAX);
                self.hosts[node].fill(room);
                self.after(length, Happens::Room { node });
            }
            Fault::Join { node } => self.start(node),
            Fault::Remove { node } => self.remove(node),
            Fault::Leave { node } => {
                self.hosts[node].replicas.values_mut().for_each(|replica| replica.flush());
                self.hosts[node].flush_hints();
                self.remove(node);
            }
            Fault::Replace { node, by } => {
                self.remove(node);
                self.start(by);
            }
            // No rule changes the replicas of a collection yet.
            Fault::Replicas { .. } => {}
            Fault::ClientCut { client, node, length: _ } => {
                self.links.cut(End::Client(client), End::Node(node), end);
                self.links.cut(End::Node(node), End::Client(client), end);
            }
            Fault::Create { node } => {
                let request = create("another", self.plan.replicas);
                self.administer(node, Administration::Another, request);
            }
            Fault::Recreate { node } => self.after(Duration::ZERO, Happens::Drop { node }),
        }
    }

    /// What becomes of the disk of a node that is off.
    fn harm(&mut self, number: usize, fault: &Fault) {
        match *fault {
            Fault::EmptyDisk { node, .. } => self.hosts[node].empty(),
            Fault::RollBack { node, .. } => {
                if let Some(image) = self.images.remove(&number) {
                    let seed = self.random.u64(..);
                    self.hosts[node].roll_back(image, seed);
                }
            }
            Fault::Damage { node, .. } => self.hosts[node].damage(&mut self.random),
            Fault::LoseFolder { node, .. } => self.hosts[node].lose_folder(&mut self.random),
            _ => {}
        }
    }

    /// What is on a disk is kept, for a fault that comes.
    pub(super) fn fork(&mut self, fault: usize) {
        if let Fault::RollBack { node, .. } = self.plan.faults[fault].1
            && self.hosts[node].is_member()
        {
            let image = self.hosts[node].fork();
            self.images.insert(fault, image);
        }
    }

    /// There is room on a node's disk again.
    pub(super) fn make_room(&mut self, node: usize) {
        self.hosts[node].full_until = self.now;
        self.hosts[node].make_room();
    }

    /// A node goes for good.
    fn remove(&mut self, node: usize) {
        if self.hosts[node].is_up {
            self.crash(node);
        }
        self.hosts[node].is_gone = true;
    }

    pub(super) fn administer(&mut self, node: usize, what: Administration, request: Request) {
        self.administrations += 1;
        let (client, call) = (self.looker, self.administrations);
        self.administering.insert(call, what);
        let caller = Caller::Client { client, deed: ADMINISTRATION, call };
        let deadline = self.now + Duration::from_secs(10);
        self.at(deadline, Happens::Timeout { caller });
        self.send(End::Client(client), node, caller, request, deadline);
    }

    /// A collection was made or dropped, or was not. Each request ends once.
    pub(super) fn administered(&mut self, call: CallId, result: Result<Reply, RpcError>) {
        let Some(what) = self.administering.remove(&call) else { return };
        self.trace(|| format!("the collection: {}", told(&result)));
        match (what, result) {
            (Administration::Another, _) => {}
            (Administration::Drop, Ok(_)) => self.after(Duration::ZERO, Happens::Create { node: 0 }),
            (Administration::Create, Ok(_)) => {
                if let Some(drop) = self.dropping.take() {
                    self.record.end_drop(drop, self.plan.points, true);
                }
            }
            (_, Err(error)) if error.code == ErrorCode::AlreadyExists => {}
            // Whether it was dropped, or made, is not known; it is made if it is not there.
            (_, Err(_)) if self.phase != Phase::Final => self.after(RETRY_AFTER, Happens::Create { node: 0 }),
            (_, Err(_)) => {}
        }
    }
}
