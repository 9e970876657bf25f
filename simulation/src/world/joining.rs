//! Nodes that look for the mesh: carries out what [`vecino_mesh::joining`] decides.

use std::time::Duration;

use vecino_mesh::event::Change;
use vecino_mesh::joining::{Arrival, Command, Joined, Joining, Stranger};
use vecino_mesh::machine::{CallId, Stepped};
use vecino_mesh::message::Reply;
use vecino_mesh::time::Time;
use vecino_model::MeshId;
use vecino_model::error::{ErrorCode, RpcError};

use super::{Happens, World};
use crate::host::{Caller, address_of};
use crate::links::End;

/// How long it takes to look up a name.
const RESOLVE: Duration = Duration::from_millis(1);

impl World {
    /// A node that belongs to no mesh begins to look for one.
    pub(super) fn begin_joining(&mut self, node: usize) {
        self.trace(|| format!("node {node} looks for a mesh"));
        let seeds = (0..self.plan.nodes).map(|seed| address_of(seed).to_string()).collect();
        let new_mesh = MeshId(self.random.u128(..).to_le_bytes());
        let host = &mut self.hosts[node];
        (host.is_up, host.is_begun) = (true, true);
        // The tokens that suit the ring best take long to find, and are looked at elsewhere.
        let tokens = host.tokens.clone();
        let stranger = Stranger { node: host.id, address: address_of(node), seeds, tokens, new_mesh };
        host.joining = Some(Joining::new(stranger, host.now(self.now)));
        self.join_on(node, None);
    }

    /// A node that was asked for a mesh has answered, or has not.
    pub(super) fn joining_answered(&mut self, node: usize, call: CallId, result: Result<Reply, RpcError>) {
        let answered = result.and_then(|reply| match reply {
            Reply::Joined(reply) => Ok(reply),
            _ => Err(RpcError::new(ErrorCode::Protocol, "the reply is to a request of another kind")),
        });
        self.join_on(node, Some((call, Arrival::Answered(answered))));
    }

    pub(super) fn join_on(&mut self, node: usize, arrived: Option<(CallId, Arrival)>) {
        let now = self.hosts[node].now(self.now);
        let Some(joining) = &mut self.hosts[node].joining else { return };
        let Stepped { commands, wake_at, is_done: _ } = joining.step(now, arrived);
        if let Some(joined) = joining.joined() {
            return self.joined(node, joined);
        }
        let life = self.hosts[node].life;
        for command in commands {
            match command {
                Command::Resolve { call, seed } => {
                    let resolved = seed.parse().map(|address| vec![address]);
                    let arrival = Arrival::Resolved(resolved.map_err(|_| format!("{seed} is no address")));
                    self.after(RESOLVE, Happens::Join { node, life, arrived: Some((call, arrival)) });
                }
                Command::Ask { call, address, request, until } => {
                    let Some(to) = (0..self.hosts.len()).find(|to| address_of(*to) == address) else { continue };
                    let caller = Caller::Joiner { node, life, call };
                    self.trace(|| format!("node {node} asks node {to} for a mesh"));
                    self.at(until, Happens::Timeout { caller });
                    self.send(End::Node(node), to, caller, request.into(), until);
                }
                Command::Say(notice) => self.trace(|| format!("node {node} says {notice:?}")),
            }
        }
        if wake_at != Time::NEVER {
            self.at(wake_at, Happens::Join { node, life, arrived: None });
        }
    }

    /// A node belongs to a mesh, and takes its catalog over.
    fn joined(&mut self, node: usize, joined: Joined) {
        let Joined { mesh, tokens, members, catalog, seed } = joined;
        match seed {
            Some(seed) => self.trace(|| format!("node {node} joins through {seed}")),
            None => self.trace(|| format!("node {node} starts a mesh")),
        }
        let now = self.now;
        let host = &mut self.hosts[node];
        host.joining = None;
        host.join(mesh, tokens, members);
        // What it cannot keep now it fetches again.
        let _ = host.persist(Change::Merge(catalog), now);
        self.take_part(node);
    }

    /// There is one mesh, and every node that was to join it has.
    pub(super) fn check_meshes(&mut self) {
        let begun = self.hosts.iter().filter(|host| host.is_begun && !host.is_gone);
        let meshes: Vec<(usize, Option<MeshId>)> = begun.map(|host| (host.number, host.mesh())).collect();
        if let Some((node, _)) = meshes.iter().find(|(_, mesh)| mesh.is_none()) {
            self.record.fail("one mesh", format!("node {node} has not found the mesh"));
        } else if let Some(pair) = meshes.windows(2).find(|pair| pair[0].1 != pair[1].1) {
            let (one, other) = (pair[0].0, pair[1].0);
            self.record.fail("one mesh", format!("nodes {one} and {other} are in different meshes"));
        }
    }
}
