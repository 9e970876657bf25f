//! From the work of clients under faults to a last look at everything.

use std::time::Duration;

use super::{Happens, Phase, SETTLE, World};
use crate::client::Client;
use crate::plan::{ClientPlan, Deed, SPREAD};

/// How many points a node that joined is asked for: so few that a run takes no longer.
const POINTS_READ: u64 = 8;
/// How many points it is asked to find.
const SEARCHED: u32 = 5;

impl World {
    pub(super) fn finish_if_done(&mut self) {
        let is_idle = |client: &Client| client.doing.is_none() && client.next >= client.plan.deeds.len();
        if self.clients.iter().all(is_idle) && matches!(self.phase, Phase::Busy | Phase::Final) {
            let at = if self.phase == Phase::Busy { self.faults_end } else { self.now + SETTLE };
            self.at(at, Happens::Finish);
        }
    }

    pub(super) fn next_phase(&mut self) {
        self.phase = match self.phase {
            Phase::Busy => {
                self.trace(|| "the faults are over".to_owned());
                self.mend();
                self.after(SETTLE, Happens::Finish);
                Phase::Settling
            }
            Phase::Settling => {
                self.check_meshes();
                if self.plan.keeps_coordinators() {
                    self.check_replicas();
                }
                self.look_at_everything();
                Phase::Final
            }
            Phase::Final | Phase::Over => Phase::Over,
        };
    }

    pub(super) fn mend(&mut self) {
        self.links.mend();
        self.plan.apply_takes = None;
        for node in 0..self.hosts.len() {
            self.hosts[node].paused_until = self.now;
            self.hosts[node].refuses_until = self.now;
            self.make_room(node);
            self.hosts[node].set_clock();
            if self.hosts[node].is_begun {
                self.start(node);
            }
        }
    }

    /// Reads and writes each point once more, and has each node that joined answer for what was there before it.
    fn look_at_everything(&mut self) {
        let points = 0..self.plan.points;
        let reads = points.clone().map(|point| (Duration::ZERO, Deed::Get(point)));
        let writes = points.clone().map(|point| (Duration::ZERO, Deed::Put(point)));
        let again = points.map(|point| (Duration::ZERO, Deed::Get(point)));
        let deeds = reads.chain(writes).chain(again).collect();
        let members: Vec<usize> = (0..self.hosts.len()).filter(|node| self.hosts[*node].takes_part()).collect();
        self.clients[self.looker] = self.client(ClientPlan { is_large: false, deeds }, members);
        self.after(Duration::ZERO, Happens::ClientNext { client: self.looker });
        for node in self.plan.nodes..self.hosts.len() {
            if self.hosts[node].is_begun && !self.hosts[node].is_gone {
                let points = (0..self.plan.points).step_by(self.plan.points.div_ceil(POINTS_READ).max(1) as usize);
                let reads = points.map(|point| (Duration::ZERO, Deed::Get(point)));
                let search = (Duration::ZERO, Deed::Search(SEARCHED, self.random.u64(..SPREAD)));
                let deeds = reads.chain([search]).collect();
                let client = self.client(ClientPlan { is_large: false, deeds }, vec![node]).faithful();
                self.clients.push(client);
                self.after(Duration::ZERO, Happens::ClientNext { client: self.clients.len() - 1 });
            }
        }
    }
}
