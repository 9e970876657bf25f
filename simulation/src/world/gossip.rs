//! What the nodes hear of each other, and what all of them have in the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use vecino_mesh::event::Event;
use vecino_mesh::time::Time;
use vecino_mesh::wall_clocks;
use vecino_model::{Member, NodeId, NodeState, PointId, Version, View};

use super::{DOWN_AFTER, GOSSIP_EVERY, Happens, World};
use crate::client::COLLECTION;
use crate::host::{Host, address_of};
use crate::links::{End, Links};

impl World {
    /// What every node hears of the others.
    pub(super) fn gossip(&mut self) {
        let now = self.now;
        let hears = |hosts: &[Host], links: &Links, from: usize, to: usize| {
            hosts[from].takes_part()
                && hosts[to].takes_part()
                && hosts[from].mesh() == hosts[to].mesh()
                && hosts[from].paused_until <= now
                && hosts[to].paused_until <= now
                && links.is_open(End::Node(from), End::Node(to), now)
        };
        let nodes = self.hosts.len();
        let digests: Vec<String> = self.hosts.iter().map(Host::digest).collect();
        for to in 0..nodes {
            if !self.hosts[to].takes_part() || self.hosts[to].paused_until > now {
                continue;
            }
            self.hosts[to].flush_hints();
            for (from, digest) in digests.iter().enumerate() {
                let is_heard = hears(&self.hosts, &self.links, from, to)
                    || (0..nodes)
                        .any(|by| hears(&self.hosts, &self.links, from, by) && hears(&self.hosts, &self.links, by, to));
                // What comes over a third node does not tell the clock of the first.
                if from != to && hears(&self.hosts, &self.links, from, to) {
                    self.hear_clock(End::Node(from), to, self.clock_told(End::Node(from)));
                }
                if is_heard {
                    self.hosts[to].heard[from] = now;
                    self.hosts[to].digests[from].clone_from(digest);
                }
            }
            let view = self.view_of(to);
            let is_new = self.hosts[to].node.as_ref().is_some_and(|node| **node.core().peers().view() != view);
            if is_new {
                self.decide(to, Event::Members(Arc::new(view)));
                self.hosts[to].remember_members();
            }
        }
        self.after(GOSSIP_EVERY, Happens::Gossip);
    }

    /// What a node tells of its clock with what it sends now; clients tell nothing.
    pub(super) fn clock_told(&self, from: End) -> u32 {
        match from {
            End::Node(node) => wall_clocks::told(self.hosts[node].now(self.now).wall_ms),
            End::Client(_) => wall_clocks::UNTOLD,
        }
    }

    /// A node hears what another told of its clock.
    pub(super) fn hear_clock(&mut self, from: End, to: usize, told: u32) {
        if let End::Node(from) = from {
            let node = self.hosts[from].id;
            self.decide(to, Event::ClockHeard { node, told });
        }
    }

    fn view_of(&self, node: usize) -> View {
        let host = &self.hosts[node];
        let known = (0..self.hosts.len()).filter(|other| *other == node || host.heard[*other] > Time::default());
        let member = |other: usize| {
            let is_up = other == node || self.now.since(host.heard[other]) < DOWN_AFTER;
            let id = self.hosts[other].id;
            let member = Member {
                id,
                address: address_of(other),
                state: if is_up { NodeState::Up } else { NodeState::Down },
                tokens: self.hosts[other].tokens.clone(),
                generation: 1,
                name: String::new(),
                software: String::new(),
                points: 0,
                bytes: 0,
                catalog_digest: host.digests[other].clone(),
            };
            (id, member)
        };
        View { members: known.map(member).collect() }
    }

    /// What was acknowledged is on every replica of its point, in that version or a newer one.
    pub(super) fn check_replicas(&mut self) {
        let mut newest: BTreeMap<(NodeId, u64), Version> = BTreeMap::new();
        for host in &self.hosts {
            for record in host.replicas.values().flat_map(|replica| replica.all()) {
                if let PointId::Number(point) = record.id {
                    newest.insert((host.id, point), record.version);
                }
            }
        }
        let deciding = self.hosts.iter().filter_map(|host| host.node.as_ref());
        let Some(route) = deciding.filter_map(|node| node.core().collections.route(COLLECTION)).next() else { return };
        let missing = self.record.acknowledged.iter().find_map(|(point, version)| {
            let lacks = |node: &NodeId| newest.get(&(*node, *point)).is_none_or(|held| held < version);
            let replicas = route.replicas_of(&PointId::Number(*point));
            replicas.into_iter().find(lacks).map(|node| (*point, *version, node))
        });
        if let Some((point, version, node)) = missing {
            let held = newest.get(&(node, point)).map_or("nothing".to_owned(), Version::to_string);
            let node = node.short();
            let told = format!("point {point} was written with version {version}, and its replica {node} has {held}");
            self.record.fail("every replica", told);
        }
    }
}
