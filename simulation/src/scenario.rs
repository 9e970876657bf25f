//! A run that is written down and not drawn from a seed: to show what happens in one situation.

use std::time::Duration;

use vecino_mesh::turns::TurnLimits;

use crate::plan::{ClientPlan, Deed, Fault, Options, Plan, START};
use crate::run::{Report, run_plan};

/// A quiet mesh, what its clients do, and what goes wrong.
#[derive(Clone, Debug)]
pub struct Scenario {
    plan: Plan,
    options: Options,
}

impl Scenario {
    /// A mesh of so many nodes, three replicas, and these points.
    pub fn new(nodes: usize, points: u64) -> Self {
        Self { plan: Plan::quiet(nodes, points), options: Options::default() }
    }

    /// The same with rules broken, or written down.
    pub fn with(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// The same mesh, whose chances fall as another seed says.
    pub fn seed(mut self, seed: u64) -> Self {
        self.plan.seed = seed;
        self
    }

    /// The same mesh, whose replicas are the engine on disks in memory.
    pub fn over_the_engine(mut self) -> Self {
        self.plan.is_engine = true;
        self
    }

    /// The same nodes, which have no mesh in the beginning and find each other.
    pub fn forming(mut self) -> Self {
        self.plan.forms = true;
        self
    }

    /// One client more, which does these things one after the other, each after a pause. It asks node 0 first, and another
    /// where that one does not answer.
    pub fn client(mut self, deeds: impl IntoIterator<Item = (Duration, Deed)>) -> Self {
        self.plan.clients.push(ClientPlan { is_large: false, deeds: deeds.into_iter().collect() });
        self
    }

    /// All writes count as large, to clients and to nodes. A node works on this number of them at a time.
    pub fn large(mut self, at_once: usize) -> Self {
        self.plan.clients.iter_mut().for_each(|client| client.is_large = true);
        self.plan.turns = TurnLimits { large_bytes: 0, at_once };
        self
    }

    /// Replicas take this long to apply a batch, one after the other.
    pub fn apply_takes(mut self, takes: Duration) -> Self {
        self.plan.apply_takes = Some(takes);
        self
    }

    /// No crash comes before what other nodes have missed is flushed: so every replica is to have everything in the end.
    pub fn keeping_hints(mut self) -> Self {
        self.plan.keeps_hints = true;
        self
    }

    /// Something goes wrong so long after the clients began.
    pub fn fault(mut self, after: Duration, fault: Fault) -> Self {
        self.plan.add(START + after, fault);
        self
    }

    /// Something is wrong before the clients begin.
    pub fn fault_before(mut self, fault: Fault) -> Self {
        self.plan.add(START - Duration::from_secs(1), fault);
        self
    }

    /// Runs it.
    pub fn run(&self) -> Report {
        run_plan(self.plan.clone(), self.options)
    }
}
