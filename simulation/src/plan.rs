//! What a seed stands for: how many nodes and clients, what the clients do, and what goes wrong when.

use std::time::Duration;

use vecino_mesh::plants::Plants;

/// What is asked of a run beside its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Rules that are broken on purpose.
    pub plants: Plants,
    /// Faults, too, whose rules come later: disks that are emptied, collections that are dropped and made again.
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
}

/// A client: what it does, one after the other, with these pauses before.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientPlan {
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
    /// The disk of a node that is off is emptied.
    EmptyDisk { node: usize, off: Duration },
    /// The collection is dropped and made again.
    Recreate { node: usize },
    /// Another collection is made through a node, or is not.
    Create { node: usize },
}

impl Fault {
    /// How long it lasts.
    pub(crate) fn length(&self) -> Duration {
        match self {
            Self::Crash { off, .. } | Self::EmptyDisk { off, .. } => *off,
            Self::Pause { length, .. }
            | Self::Cut { length, .. }
            | Self::Partition { length, .. }
            | Self::Slow { length, .. }
            | Self::Overload { length, .. }
            | Self::ClientCut { length, .. } => *length,
            Self::Flap { times, period, .. } => *period * 2 * *times,
            Self::ClockJump { .. } | Self::ClockDrift { .. } | Self::Recreate { .. } | Self::Create { .. } => {
                Duration::ZERO
            }
        }
    }
}

/// What a seed stands for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub seed: u64,
    pub nodes: usize,
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
        while faults.len() < FAULTS {
            let at = START + busy.mul_f64(random.f64());
            faults.push((at, fault(&mut random, (nodes, clients), busy, calm, options.all_faults)));
        }
        Self {
            seed,
            nodes,
            replicas,
            points,
            clients: plans,
            faults,
            delay: Duration::from_micros([80, 300, 2_000, 20_000][random.usize(..4)]),
            loss: [0, 0, 5, 30][random.usize(..4)],
            duplicates: [0, 20, 100][random.usize(..3)],
            is_engine: seed % 10 == 7,
            is_encoded: seed % 10 == 3,
        }
    }

    /// A quiet mesh of so many nodes and one point after another, in which nothing goes wrong by itself.
    pub(crate) fn quiet(nodes: usize, points: u64) -> Self {
        Self {
            seed: 1,
            nodes,
            replicas: 3,
            points,
            clients: Vec::new(),
            faults: Vec::new(),
            delay: Duration::from_micros(300),
            loss: 0,
            duplicates: 0,
            is_engine: false,
            is_encoded: false,
        }
    }

    /// Whether replicas lose nothing of what they were sent but by refusing it, or by not hearing it: then each of them is
    /// to have everything soon.
    pub(crate) fn keeps_coordinators(&self) -> bool {
        let is_crash =
            |fault: &Fault| matches!(fault, Fault::Crash { .. } | Fault::EmptyDisk { .. } | Fault::Recreate { .. });
        !self.faults.iter().any(|(_, fault)| is_crash(fault))
    }
}

/// Where points lie: from 0 to this.
pub(crate) const SPREAD: u64 = 1_000;
/// When clients begin.
pub(crate) const START: Duration = Duration::from_secs(5);

fn fault(random: &mut fastrand::Rng, (nodes, clients): (usize, usize), busy: Duration, calm: bool, all: bool) -> Fault {
    let node = random.usize(..nodes);
    let other = (node + random.usize(1..nodes)) % nodes;
    // Most are short beside the run, so that much happens; some are as long as they come.
    let short = busy.mul_f64(0.02 + 0.5 * random.f64());
    let length = if random.u8(..8) == 0 { Duration::from_secs(random.u64(1..60)) } else { short };
    let kinds = if all { 16 } else { 13 };
    match random.u32(..kinds) {
        0 | 1 if !calm => Fault::Crash { node, off: length },
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
        11 => Fault::ClientCut { client: random.usize(..clients), node, length },
        12 => Fault::Create { node },
        13 | 14 => Fault::EmptyDisk { node, off: length },
        _ => Fault::Recreate { node },
    }
}
