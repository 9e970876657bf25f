//! What a seed stands for: how many nodes and clients, what the clients do, and what goes wrong when.

use std::time::Duration;

use vecino_mesh::plants::Plants;
use vecino_mesh::turns::TurnLimits;

/// What is asked of a run beside its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Rules that are broken on purpose.
    pub plants: Plants,
    /// Faults, too, whose rules come later: disks that are emptied, rolled back or damaged, folders that are lost,
    /// collections that are dropped and made again, nodes that go for good.
    pub all_faults: bool,
    /// Whether what happens is written down.
    pub trace: bool,
}

/// What one client does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Puts a new value at a point.
    Put(u64),
    /// Puts a new value that lies at a place, from 0 to 1,000: point and place.
    PutAt(u64, u64),
    /// Deletes a point.
    Delete(u64),
    /// Reads a point.
    Get(u64),
    /// Searches exactly, for so many points near this place.
    Search(u32, u64),
    /// Asks for a version of a point at level `one`, and writes nothing.
    StampOne(u64),
}

/// A client: what it does, one after the other, with these pauses before.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientPlan {
    /// Whether what it writes counts as large.
    pub is_large: bool,
    pub deeds: Vec<(Duration, Deed)>,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are what the variants say")]
pub enum Fault {
    /// The power of a node goes, and comes back after a while.
    Crash { node: usize, off: Duration },
    /// A node does nothing for a while, and then goes on.
    Pause { node: usize, length: Duration },
    /// Packets from one node to another are lost for a while.
    Cut { from: usize, to: usize, length: Duration },
    /// These nodes and the others do not hear each other for a while.
    Partition { side: u16, length: Duration },
    /// A link that is cut and mended again and again.
    Flap { from: usize, to: usize, times: u32, period: Duration },
    /// Messages take much longer for a while.
    Slow { factor: u32, length: Duration },
    /// The wall clock of a node jumps by this many milliseconds.
    ClockJump { node: usize, by_ms: i64 },
    /// The wall clock of a node runs too fast or too slow from then on, by so many millionths.
    ClockDrift { node: usize, ppm: i64 },
    /// A replica refuses what it is to apply for a while, as one does that has too much to do or no room.
    Overload { node: usize, length: Duration },
    /// A client's packets to a node are lost for a while.
    ClientCut { client: usize, node: usize, length: Duration },
    /// The disk of a node takes no puts for a while, for it is full.
    FullDisk { node: usize, length: Duration },
    /// A new node comes, and looks for the mesh. New nodes have the numbers after those that were there first.
    Join { node: usize },
    /// The disk of a node that is off is emptied.
    EmptyDisk { node: usize, off: Duration },
    /// The disk of a node that is off is again as it was this time before.
    RollBack { node: usize, by: Duration, off: Duration },
    /// A byte changes on the disk of a node that is off.
    Damage { node: usize, off: Duration },
    /// The folder of a collection is gone from the disk of a node that is off.
    LoseFolder { node: usize, off: Duration },
    /// A node dies, and does not come back.
    Remove { node: usize },
    /// A node is stopped in good order, and does not come back.
    Leave { node: usize },
    /// A node dies, and does not come back; a new one comes in its place.
    Replace { node: usize, by: usize },
    /// The collection is to have another number of replicas. No rule does that yet, so nothing happens.
    Replicas { replicas: u32 },
    /// The collection is dropped and made again.
    Recreate { node: usize },
    /// Another collection is made through a node, or is not.
    Create { node: usize },
}

impl Fault {
    /// How long it lasts.
    pub(crate) fn length(&self) -> Duration {
        match self {
            Self::Crash { off, .. }
            | Self::EmptyDisk { off, .. }
            | Self::RollBack { off, .. }
            | Self::Damage { off, .. }
            | Self::LoseFolder { off, .. } => *off,
            Self::Pause { length, .. }
            | Self::Cut { length, .. }
            | Self::Partition { length, .. }
            | Self::Slow { length, .. }
            | Self::Overload { length, .. }
            | Self::FullDisk { length, .. }
            | Self::ClientCut { length, .. } => *length,
            Self::Flap { times, period, .. } => *period * 2 * *times,
            Self::ClockJump { .. }
            | Self::ClockDrift { .. }
            | Self::Recreate { .. }
            | Self::Create { .. }
            | Self::Join { .. }
            | Self::Remove { .. }
            | Self::Leave { .. }
            | Self::Replace { .. }
            | Self::Replicas { .. } => Duration::ZERO,
        }
    }
}

/// What a seed stands for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub seed: u64,
    /// How many nodes there are in the beginning.
    pub nodes: usize,
    /// The same with those that come later.
    pub nodes_in_all: usize,
    pub replicas: u32,
    pub points: u64,
    pub clients: Vec<ClientPlan>,
    pub faults: Vec<(Duration, Fault)>,
    /// Usual time of a message between two nodes.
    pub delay: Duration,
    /// Messages lost, of a thousand.
    pub loss: u32,
    /// Requests that arrive twice, of a thousand.
    pub duplicates: u32,
    pub is_engine: bool,
    pub is_encoded: bool,
    /// Whether the nodes have no mesh in the beginning, and find each other.
    pub forms: bool,
    /// Which writes take turns on a node, and how many at a time.
    pub turns: TurnLimits,
    /// How long a replica takes to apply a batch, one after the other. Without it a batch takes hardly any time.
    pub apply_takes: Option<Duration>,
    /// Whether no crash comes before what other nodes have missed is flushed.
    pub keeps_hints: bool,
}

/// Operations of a run, over all clients.
const OPERATIONS: usize = 200;
/// Faults of a run.
const FAULTS: usize = 14;

impl Plan {
    /// The plan of a seed.
    pub(crate) fn of(seed: u64, options: Options) -> Self {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let nodes = [3, 3, 3, 4, 5, 5, 7, 9][random.usize(..8)];
        let replicas = if nodes >= 5 && random.u8(..4) == 0 { 5 } else { 3 };
        // In some runs nearly everything is written and searched in one place, and replicas miss much of it.
        let focus = (random.u8(..4) == 0).then(|| random.u64(..SPREAD));
        let points = if focus.is_some() { 24 } else { [2, 4, 8, 40][random.usize(..4)] };
        let clients = random.usize(3..8);
        let writes = random.u32(3..8);
        let think = Duration::from_micros(random.u64(500..60_000));
        let mut plans = vec![ClientPlan::default(); clients];
        let deed = |random: &mut fastrand::Rng, operation: usize| {
            let point = random.u64(..points);
            if let Some(focus) = focus.filter(|_| random.u8(..10) > 0) {
                return match random.u32(..10) {
                    0 => Deed::Delete(point),
                    // First all come near, then they go away, and few come again: who has missed that has a list of what
                    // is not there any more.
                    1..=5 if operation < OPERATIONS / 3 => Deed::PutAt(point, (focus + random.u64(..10)) % SPREAD),
                    1 => Deed::PutAt(point, (focus + 30 + random.u64(..30)) % SPREAD),
                    2..=5 => Deed::PutAt(point, (focus + 500 + random.u64(..20)) % SPREAD),
                    _ => Deed::Search(random.u32(3..=7), focus),
                };
            }
            match random.u32(..10) {
                at if at < writes && random.u32(..6) == 0 => Deed::Delete(point),
                at if at < writes => Deed::Put(point),
                9 => Deed::Search(random.u32(1..=4), random.u64(..SPREAD)),
                8 if points > 8 => Deed::Search(random.u32(1..=12), random.u64(..SPREAD)),
                _ => Deed::Get(point),
            }
        };
        for operation in 0..OPERATIONS {
            let client = if operation < clients { operation } else { random.usize(..clients) };
            let pause = think.mul_f64(random.f64() * 2.0);
            plans[client].deeds.push((pause, deed(&mut random, operation)));
        }
        // In some runs what is written is large, to some clients and to the nodes.
        let takes_turns = seed % 4 == 1;
        plans.iter_mut().step_by(2).for_each(|client| client.is_large = takes_turns);
        let busy = think.mul_f64(OPERATIONS as f64 / clients as f64 * 1.5) + Duration::from_millis(500);
        let calm = random.u8(..4) == 0;
        let mut faults: Vec<(Duration, Fault)> = Vec::new();
        if focus.is_some() {
            // One replica misses much, and then another one the little that comes next.
            for _ in 0..2 {
                let (first, at) = (random.usize(..nodes), START + busy.mul_f64(0.15 + 0.2 * random.f64()));
                let second = (first + random.usize(1..nodes)) % nodes;
                let length = busy.mul_f64(0.1 + 0.4 * random.f64());
                faults.push((at, Fault::Overload { node: first, length }));
                let length_of_second = busy.mul_f64(0.01 + 0.04 * random.f64());
                faults.push((at + length, Fault::Overload { node: second, length: length_of_second }));
            }
        }
        let joins = [0, 0, 1, 2][random.usize(..4)];
        for node in nodes..nodes + joins {
            faults.push((START + busy.mul_f64(random.f64()), Fault::Join { node }));
        }
        let mut draw = Draw { nodes: nodes + joins, clients, replicas, busy, calm, is_one_gone: false };
        while faults.len() < FAULTS {
            let at = START + busy.mul_f64(random.f64());
            let later = options.all_faults && random.u8(..3) == 0;
            faults.push((at, if later { draw.later_fault(&mut random) } else { draw.fault(&mut random) }));
        }
        Self {
            seed,
            nodes,
            nodes_in_all: draw.nodes,
            replicas,
            points,
            clients: plans,
            faults,
            delay: Duration::from_micros([80, 300, 2_000, 20_000][random.usize(..4)]),
            loss: [0, 0, 5, 30][random.usize(..4)],
            duplicates: [0, 20, 100][random.usize(..3)],
            is_engine: seed % 10 == 7,
            is_encoded: seed % 10 == 3,
            forms: random.u8(..8) == 0,
            turns: if takes_turns { TurnLimits { large_bytes: 0, at_once: 2 } } else { TurnLimits::default() },
            apply_takes: None,
            keeps_hints: false,
        }
    }

    /// A quiet mesh of so many nodes and one point after another, in which nothing goes wrong by itself.
    pub(crate) fn quiet(nodes: usize, points: u64) -> Self {
        Self {
            seed: 1,
            nodes,
            nodes_in_all: nodes,
            replicas: 3,
            points,
            clients: Vec::new(),
            faults: Vec::new(),
            delay: Duration::from_micros(300),
            loss: 0,
            duplicates: 0,
            is_engine: false,
            is_encoded: false,
            forms: false,
            turns: TurnLimits::default(),
            apply_takes: None,
            keeps_hints: false,
        }
    }

    /// Something goes wrong at this time.
    pub(crate) fn add(&mut self, at: Duration, fault: Fault) {
        if let Fault::Join { node } | Fault::Replace { by: node, .. } = fault {
            self.nodes_in_all = self.nodes_in_all.max(node + 1);
        }
        self.faults.push((at, fault));
    }

    /// Whether replicas lose nothing of what they were sent but by refusing it, or by not hearing it: then each of them is
    /// to have everything soon.
    pub(crate) fn keeps_coordinators(&self) -> bool {
        if self.keeps_hints {
            return true;
        }
        let is_crash = |fault: &Fault| {
            matches!(
                fault,
                Fault::Crash { .. }
                    | Fault::EmptyDisk { .. }
                    | Fault::RollBack { .. }
                    | Fault::Damage { .. }
                    | Fault::LoseFolder { .. }
                    | Fault::Remove { .. }
                    | Fault::Leave { .. }
                    | Fault::Replace { .. }
                    | Fault::Recreate { .. }
            )
        };
        !self.faults.iter().any(|(_, fault)| is_crash(fault))
    }
}

/// Where points lie: from 0 to this.
pub(crate) const SPREAD: u64 = 1_000;
/// When clients begin.
pub(crate) const START: Duration = Duration::from_secs(5);

/// What faults are drawn with.
struct Draw {
    nodes: usize,
    clients: usize,
    replicas: u32,
    busy: Duration,
    calm: bool,
    /// One node of a mesh may be gone for good; a second one could take the last majority of a range along.
    is_one_gone: bool,
}

impl Draw {
    /// Most are short beside the run, so that much happens; some are as long as they come.
    fn length(&self, random: &mut fastrand::Rng) -> Duration {
        let short = self.busy.mul_f64(0.02 + 0.5 * random.f64());
        if random.u8(..8) == 0 { Duration::from_secs(random.u64(1..60)) } else { short }
    }

    /// A fault that nothing may be lost for.
    fn fault(&self, random: &mut fastrand::Rng) -> Fault {
        let node = random.usize(..self.nodes);
        let other = (node + random.usize(1..self.nodes)) % self.nodes;
        let length = self.length(random);
        match random.u32(..14) {
            0 | 1 if !self.calm => Fault::Crash { node, off: length },
            0 | 2 => Fault::Pause { node, length },
            1 | 3 => Fault::Cut { from: node, to: other, length },
            4 => Fault::Partition { side: random.u16(..), length },
            5 => Fault::Flap { from: node, to: other, times: random.u32(2..8), period: length / 8 },
            6 => Fault::Slow { factor: random.u32(2..50), length },
            7 => {
                let by = [50, 400, 2_000, 600_000, 3_600_000][random.usize(..5)];
                Fault::ClockJump { node, by_ms: if random.bool() { by } else { -by } }
            }
            8 => Fault::ClockDrift { node, ppm: random.i64(-200_000..200_000) },
            9 | 10 => Fault::Overload { node, length },
            11 => Fault::ClientCut { client: random.usize(..self.clients), node, length },
            12 => Fault::FullDisk { node, length },
            _ => Fault::Create { node },
        }
    }

    /// A fault whose rules come later.
    fn later_fault(&mut self, random: &mut fastrand::Rng) -> Fault {
        let node = random.usize(..self.nodes);
        let off = self.length(random);
        match random.u32(..9) {
            0 => Fault::EmptyDisk { node, off },
            1 => Fault::RollBack { node, by: self.busy.mul_f64(random.f64()), off },
            2 => Fault::Damage { node, off },
            3 => Fault::LoseFolder { node, off },
            4 => Fault::Replicas { replicas: if self.replicas == 3 { 5 } else { 3 } },
            5..=7 if !self.is_one_gone => {
                self.is_one_gone = true;
                match random.u8(..3) {
                    0 => Fault::Remove { node },
                    1 => Fault::Leave { node },
                    _ => {
                        self.nodes += 1;
                        Fault::Replace { node, by: self.nodes - 1 }
                    }
                }
            }
            _ => Fault::Recreate { node },
        }
    }
}
