//! Histories of real nodes that are killed, stopped and cut off from each other, judged as those of the simulation are.
//!
//! Two histories with kills and stops, unless `VECINO_HISTORIES` says how many, and `VECINO_HISTORIES_AT_ONCE` how many at
//! a time. In a network namespace of its own, where `nft` is there, links are cut too:
//!
//! ```sh
//! cargo test --release --test mesh --no-run
//! unshare --net sh -c 'ip link set lo up && VECINO_HISTORIES=200 VECINO_HISTORIES_AT_ONCE=4 \
//!     cargo test --release --test mesh histories -- --nocapture'
//! ```

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vecino::process::NodeProcess;
use vecino_client::{Client, Level, Metric, Outcome, PointId, Value, payload, point};
use vecino_simulation::checkers::history::{History, Kind};
use vecino_simulation::checkers::search::{Hit, Search, Searches};
use vecino_simulation::checkers::{linearizable, versions};

use crate::lab::{FILMS, Lab};

const NODES: usize = 3;
const CLIENTS: usize = 4;
const POINTS: u64 = 12;
/// Points lie at places from 0 to this on a line.
const PLACES: u64 = 1_000;
const HITS: u32 = 3;
const LENGTH: Duration = Duration::from_secs(20);
/// How long a fault lasts at most.
const FAULT_MS_MAX: u64 = 3_000;
/// How long a mesh may take to answer for everything after the last fault.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the clients of one history did and saw. Times are numbers of what was written down.
#[derive(Default)]
struct Record {
    tick: u64,
    history: History,
    /// Each with the place that was searched for.
    searches: Vec<(Search, u64)>,
    versions: versions::Versions,
    done: usize,
    failed: Vec<String>,
    longest: Duration,
}

impl Record {
    fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }
}

/// Where a value lies.
fn place(value: u64) -> u64 {
    fastrand::Rng::with_seed(value).u64(..PLACES)
}

fn value_in(payload: &vecino_client::Payload) -> u64 {
    let Value::Int(value) = payload["value"] else { panic!("a payload that nobody put: {payload:?}") };
    value as u64
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Record>>);

impl Shared {
    fn with<T>(&self, look: impl FnOnce(&mut Record) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a value, or deletes the point where there is none.
    async fn write(&self, client: &Client, number: usize, at: u64, value: Option<u64>) {
        let begun = self.with(|record| {
            let now = record.tick();
            record.history.begin(number, at, value.map_or(Kind::Delete, Kind::Put), now)
        });
        let films = client.collection(FILMS);
        let ended = match value {
            Some(value) => films.put([point(at, [place(value) as f32], payload! { "value": value })]).each().await,
            None => films.delete([at]).each().await,
        };
        self.with(|record| {
            let now = record.tick();
            match ended.map(|report| report.outcomes()[0].clone()) {
                Ok(Outcome::Written(version)) => {
                    record.history.done(begun, now);
                    record.versions.observe(at, version, value, versions::Place::Answer(number)).unwrap();
                    record.done += 1;
                }
                Ok(Outcome::Unavailable(reason)) => {
                    record.history.nothing(begun, now);
                    record.failed.push(format!("write: {reason}"));
                }
                Ok(Outcome::Refused(reason)) => panic!("{reason}"),
                Ok(Outcome::Unknown(reason)) => {
                    record.history.unknown(begun, now);
                    record.failed.push(format!("write: {reason}"));
                }
                Err(error) => {
                    record.history.unknown(begun, now);
                    record.failed.push(format!("write: {error}"));
                }
            }
        });
    }

    async fn get(&self, client: &Client, number: usize, at: u64) -> bool {
        let begun = self.with(|record| {
            let now = record.tick();
            record.history.begin(number, at, Kind::Get(None), now)
        });
        let ended = client.collection(FILMS).get_one(at).level(Level::Quorum).await;
        self.with(|record| {
            let now = record.tick();
            match ended {
                Ok(found) => {
                    let seen = found.as_ref().map(|found| value_in(&found.payload));
                    record.history.read(begun, seen, now);
                    if let Some(found) = found {
                        record.versions.observe(at, found.version, seen, versions::Place::Answer(number)).unwrap();
                    }
                    record.done += 1;
                    true
                }
                Err(error) => {
                    record.history.unknown(begun, now);
                    record.failed.push(format!("get: {error}"));
                    false
                }
            }
        })
    }

    async fn search(&self, client: &Client, number: usize, near: u64) {
        let began = self.with(Record::tick);
        let found = client.collection(FILMS).search([near as f32]).k(HITS).exact(true).with_payload(true).await;
        self.with(|record| {
            let ended = record.tick();
            match found {
                Ok(found) => {
                    let hit = |hit: &vecino_client::Hit| {
                        let PointId::Number(point) = hit.id else { panic!("a hit that nobody put: {hit:?}") };
                        Hit { point, value: value_in(hit.payload.as_ref().unwrap()) }
                    };
                    let hits = found.hits.iter().map(hit).collect();
                    record.searches.push((Search { client: number, began, ended, k: HITS as usize, hits }, near));
                    record.done += 1;
                }
                Err(error) => record.failed.push(format!("search: {error}")),
            }
        });
    }

    /// Does one thing after another until then.
    async fn work(self, client: Client, number: usize, seed: u64, until: Instant) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut count = 0;
        while Instant::now() < until {
            let (at, begun) = (random.u64(..POINTS), Instant::now());
            match random.u8(..10) {
                0..=3 => {
                    count += 1;
                    self.write(&client, number, at, Some((number as u64 + 1) << 32 | count)).await;
                }
                4 => self.write(&client, number, at, None).await,
                5..=7 => drop(self.get(&client, number, at).await),
                _ => self.search(&client, number, random.u64(..PLACES)).await,
            }
            self.with(|record| record.longest = record.longest.max(begun.elapsed()));
            tokio::time::sleep(Duration::from_millis(random.u64(..30))).await;
        }
    }
}

/// Whether links may be cut: nobody else is in this network namespace, and packets can be filtered.
fn may_cut() -> bool {
    let interfaces = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let is_alone = interfaces.lines().skip(2).all(|line| line.trim_start().starts_with("lo:"));
    is_alone && Command::new("nft").arg("--version").output().is_ok_and(|ran| ran.status.success())
}

fn nft(script: &str) {
    let ran = Command::new("nft").arg(script).output().unwrap();
    assert!(ran.status.success(), "nft {script}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn signal(node: &NodeProcess, signal: Signal) {
    kill_process(Pid::from_raw(node.process_id().unwrap() as i32).unwrap(), signal).unwrap();
}

/// One thing after another goes wrong until then, and is right again in the end. Mostly one node at a time; in one fault of
/// six another one follows at once, so that there is no majority.
async fn break_things(mut mesh: Vec<NodeProcess>, seed: u64, cuts: bool, until: Instant) -> Vec<NodeProcess> {
    let mut random = fastrand::Rng::with_seed(seed);
    let table = format!("vecino_{}", mesh[0].address().port());
    while Instant::now() < until {
        let length = Duration::from_millis(random.u64(200..FAULT_MS_MAX));
        let at = random.usize(..NODES);
        match random.u8(..if cuts { 6 } else { 4 }) {
            0 | 1 => {
                let command = mesh.remove(at).kill().await.unwrap();
                tokio::time::sleep(length).await;
                mesh.insert(at, command.start().await.unwrap());
            }
            2 | 3 => {
                let other = (at + 1) % NODES;
                let both = random.u8(..6) == 0;
                signal(&mesh[at], Signal::STOP);
                if both {
                    signal(&mesh[other], Signal::STOP);
                }
                tokio::time::sleep(length).await;
                signal(&mesh[at], Signal::CONT);
                if both {
                    signal(&mesh[other], Signal::CONT);
                }
            }
            kind => {
                let drop = |from: SocketAddr, to: SocketAddr| {
                    format!("add rule inet {table} in udp sport {} udp dport {} drop;", from.port(), to.port())
                };
                let chain = "{ type filter hook input priority 0; }";
                let mut script = format!("add table inet {table}; add chain inet {table} in {chain};");
                let (node, others) = (mesh[at].address(), [1, 2].map(|step| mesh[(at + step) % NODES].address()));
                for other in if random.bool() { &others[..] } else { &others[..1] } {
                    script += &drop(node, *other);
                    if kind == 5 {
                        script += &drop(*other, node);
                    }
                }
                nft(&script);
                tokio::time::sleep(length).await;
                nft(&format!("delete table inet {table}"));
            }
        }
        tokio::time::sleep(Duration::from_millis(random.u64(..1_500))).await;
    }
    mesh
}

/// One history of one mesh; gives how many operations it has, how many failed, and the longest of them.
async fn history(seed: u64, cuts: bool) -> (usize, usize, Duration) {
    let lab = Lab::new();
    let mesh = lab.mesh(NODES).await;
    let seeds: Vec<SocketAddr> = mesh.iter().map(NodeProcess::address).collect();
    let client = lab.client(&mesh[0]).await;
    client.collection(FILMS).create(1, Metric::Euclidean).replicas(NODES as u32).await.unwrap();
    let shared = Shared(Arc::default());
    let mut random = fastrand::Rng::with_seed(seed);
    let until = Instant::now() + LENGTH;
    let mut working = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let client = lab.client(&mesh[number % NODES]).await;
        working.spawn(shared.clone().work(client, number, random.u64(..), until));
    }
    let mesh = break_things(mesh, random.u64(..), cuts, until).await;
    while let Some(worked) = working.join_next().await {
        worked.unwrap();
    }
    // Everything is read once more, through each node.
    for (number, node) in mesh.iter().enumerate() {
        let (client, begun) = (lab.client(node).await, Instant::now());
        for at in 0..POINTS {
            while !shared.get(&client, CLIENTS + number, at).await {
                assert!(begun.elapsed() < PATIENCE, "point {at} cannot be read at {seeds:?} after all faults");
            }
        }
    }
    shared.with(|record| {
        let told = |what: &dyn std::fmt::Display| format!("VECINO_HISTORY_SEED={seed}: {what}");
        let operations = record.history.operations().to_vec();
        linearizable::check(&operations).unwrap_or_else(|violation| panic!("{}", told(&violation)));
        let judge = Searches::new(&operations);
        for (search, near) in &record.searches {
            let judged = judge.check(search, |value| place(value).abs_diff(*near));
            judged.unwrap_or_else(|violation| panic!("{} in {search:?} near {near}", told(&violation)));
        }
        assert!(record.done > 100, "{}", told(&format_args!("only {} operations: {:?}", record.done, record.failed)));
        for failed in record.failed.iter().take(3) {
            println!("seed {seed}: {failed}");
        }
        (record.done, record.failed.len(), record.longest)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_of_nodes_that_are_killed_stopped_and_cut_off_are_linearizable() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (count, at_once) = (number("VECINO_HISTORIES").unwrap_or(2), number("VECINO_HISTORIES_AT_ONCE").unwrap_or(2));
    let first = number("VECINO_HISTORY_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let cuts = may_cut();
    println!("VECINO_HISTORY_SEED={first}, {count} histories, links are {}", if cuts { "cut" } else { "not cut" });
    let mut seeds = first..first + count;
    let mut running = tokio::task::JoinSet::new();
    let (mut done, mut failed, mut longest) = (0, 0, Duration::ZERO);
    loop {
        while running.len() < at_once as usize
            && let Some(seed) = seeds.next()
        {
            running.spawn(history(seed, cuts));
        }
        let Some(ended) = running.join_next().await else { break };
        let (did, missed, slowest) = ended.unwrap();
        (done, failed, longest) = (done + did, failed + missed, longest.max(slowest));
    }
    println!("{count} histories: {done} operations, {failed} failed, the longest took {longest:.1?}; no violation");
}
