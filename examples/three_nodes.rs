//! Measures three nodes on this machine: what a put takes, how long a client stalls when its node is gone, and whether every
//! replica has what was written under load.
//!
//! ```text
//! three_nodes --what puts|stalls|loaders [--program target/release/vecino] [--rounds 5] [--dir DIR]
//! ```
//! It prints one line of JSON for each round. Clients have the settings that they have by default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;
use vecino::process::{NodeCommand, NodeProcess};
use vecino_certs::{Authority, IssueOptions, Role};
use vecino_client::{Client, Metric, Payload, Point, point};

mod support;

use support::Result;

/// The collection that is made.
const NAME: &str = "measured";
const DIM: usize = 128;
/// Puts of a round of `puts` that are measured.
const PUTS: u64 = 3_000;
/// Puts before these, which are not measured.
const WARM_UP: u64 = 300;
/// Loaders of a round of `loaders`, puts that each has under way, and points of all of them together.
const LOADERS: u64 = 8;
const UNDER_WAY: u64 = 64;
const LOADED: u64 = 9_600;
/// How long requests go on after a node is gone.
const WATCHED: Duration = Duration::from_secs(12);

struct Options {
    what: String,
    program: PathBuf,
    rounds: usize,
    dir: PathBuf,
}

struct Mesh {
    nodes: Vec<NodeProcess>,
    certs: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut options = Options {
        what: String::new(),
        program: "target/release/vecino".into(),
        rounds: 5,
        dir: std::env::temp_dir().join(format!("vecino-three-nodes-{}", std::process::id())),
    };
    support::flags(|flag, value| {
        match flag {
            "--what" => options.what = value.path().to_string_lossy().into_owned(),
            "--program" => options.program = value.path(),
            "--dir" => options.dir = value.path(),
            "--rounds" => options.rounds = value.number()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if !["puts", "stalls", "loaders"].contains(&options.what.as_str()) {
        return Err(format!("--what {:?}: use puts, stalls or loaders", options.what).into());
    }
    std::fs::create_dir_all(&options.dir)?;
    for round in 0..options.rounds {
        let dir = options.dir.join(round.to_string());
        let mesh = Mesh::start(&options, &dir).await?;
        match options.what.as_str() {
            "puts" => puts(&mesh).await?,
            "stalls" => stalls(mesh, round).await?,
            _ => loaders(&mesh).await?,
        }
        std::fs::remove_dir_all(&dir)?;
    }
    // Whatever else is in it stays.
    let _ = std::fs::remove_dir(&options.dir);
    Ok(())
}

impl Mesh {
    async fn start(options: &Options, dir: &std::path::Path) -> Result<Self> {
        let authority = Authority::init(dir.join("ca"), "measuring")?;
        let certs = dir.join("client");
        authority.issue(&IssueOptions::new("client", Role::Client))?.write(&certs)?;
        let mut nodes: Vec<NodeProcess> = Vec::new();
        for number in 0..3 {
            let of_node = dir.join(format!("certs-{number}"));
            authority.issue(&IssueOptions::new(format!("n{number}"), Role::Node))?.write(&of_node)?;
            let seeds = nodes.first().map(|node| node.address().to_string()).into_iter().collect();
            let command = support::node(&options.program, dir.join(format!("node-{number}")));
            nodes.push(NodeCommand { certs: Some(of_node), seeds, ..command }.start().await?);
        }
        let mesh = Self { nodes, certs };
        let client = mesh.client(0).await?;
        while client.status().await?.nodes.len() < 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Longer than a node takes its neighbours for up without having heard of them.
        tokio::time::sleep(Duration::from_secs(4)).await;
        client.collection(NAME).create(DIM as u32, Metric::Euclidean).replicas(3).await?;
        Ok(mesh)
    }

    /// A client that begins with this node.
    async fn client(&self, node: usize) -> Result<Client> {
        client(self.nodes[node].address(), &self.certs).await
    }
}

async fn client(address: SocketAddr, certs: &std::path::Path) -> Result<Client> {
    Ok(Client::builder().connect(address.to_string()).certs(certs).build().await?)
}

fn vector(id: u64) -> Vec<f32> {
    static VECTORS: LazyLock<Vec<f32>> = LazyLock::new(|| support::vectors(LOADED as usize, DIM));
    VECTORS[(id % LOADED) as usize * DIM..][..DIM].to_vec()
}

fn point_of(id: u64) -> Point {
    point(id, vector(id), Payload::new())
}

/// Single puts at `quorum`, one after another.
async fn puts(mesh: &Mesh) -> Result<()> {
    let client = mesh.client(0).await?;
    let mut took = Vec::new();
    for id in 0..WARM_UP + PUTS {
        let begun = Instant::now();
        client.collection(NAME).put([point_of(id)]).await?;
        if id >= WARM_UP {
            took.push(begun.elapsed());
        }
    }
    took.sort();
    let at = |share: f64| took[(took.len() as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(r#"{{"ev":"puts","puts":{PUTS},"p50_ms":{:.3},"p99_ms":{:.3}}}"#, at(0.5), at(0.99));
    Ok(())
}

/// What requests took, and why some failed.
#[derive(Default)]
struct Watched {
    count: u64,
    longest: Duration,
    failed: Vec<String>,
}

/// Puts, gets and searches through one node, which is killed, or stopped in every second round.
async fn stalls(mut mesh: Mesh, round: usize) -> Result<()> {
    let watched = Arc::new(Mutex::new(Watched::default()));
    let is_watched = Arc::new(AtomicBool::new(false));
    let mut working = JoinSet::new();
    for number in 0..3u64 {
        let (client, watched, is_watched) = (mesh.client(0).await?, Arc::clone(&watched), Arc::clone(&is_watched));
        working.spawn(async move {
            let collection = client.collection(NAME);
            for id in 0.. {
                let begun = Instant::now();
                let id = id % 1_000;
                let ended = match number {
                    0 => collection.put([point_of(id)]).await.map(drop),
                    1 => collection.get_one(id).await.map(drop),
                    _ => collection.search(vector(id)).k(10).await.map(drop),
                };
                if is_watched.load(Ordering::Relaxed)
                    && let Ok(mut watched) = watched.lock()
                {
                    watched.count += 1;
                    watched.longest = watched.longest.max(begun.elapsed());
                    watched.failed.extend(ended.err().map(|error| error.to_string()));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    is_watched.store(true, Ordering::Relaxed);
    let node = mesh.nodes.remove(0);
    let pid = node.process_id().and_then(|pid| Pid::from_raw(pid as i32)).ok_or("the node has ended")?;
    let is_killed = round.is_multiple_of(2);
    kill_process(pid, if is_killed { Signal::KILL } else { Signal::STOP })?;
    tokio::time::sleep(WATCHED).await;
    working.shutdown().await;
    if !is_killed {
        kill_process(pid, Signal::KILL)?;
    }
    drop(node);
    let watched = watched.lock().map_err(|_| "a client has panicked")?;
    let Watched { count, longest, failed } = &*watched;
    println!(
        r#"{{"ev":"{}","requests":{count},"failed":{},"longest_s":{:.3}}}"#,
        if is_killed { "killed" } else { "paused" },
        failed.len(),
        longest.as_secs_f64(),
    );
    failed.iter().take(3).for_each(|failed| eprintln!("{failed}"));
    Ok(())
}

/// Loaders with many single puts under way, and what each replica has five seconds later.
async fn loaders(mesh: &Mesh) -> Result<()> {
    let begun = Instant::now();
    let mut loading = JoinSet::new();
    for loader in 0..LOADERS {
        let client = mesh.client(0).await?;
        for number in 0..UNDER_WAY {
            let client = client.clone();
            loading.spawn(async move {
                let mut failed = 0;
                for id in (loader * UNDER_WAY + number..LOADED).step_by((LOADERS * UNDER_WAY) as usize) {
                    if let Err(error) = client.collection(NAME).put([point_of(id)]).await {
                        eprintln!("point {id}: {error}");
                        failed += 1;
                    }
                }
                failed
            });
        }
    }
    let failed: u64 = loading.join_all().await.into_iter().sum();
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let stats = mesh.client(0).await?.collection(NAME).describe().await?.nodes;
    let missing: Vec<u64> = stats.values().map(|stats| LOADED.saturating_sub(stats.points)).collect();
    println!(
        r#"{{"ev":"loaders","points":{LOADED},"failed":{failed},"seconds":{:.1},"missing_on_each":{missing:?}}}"#,
        took.as_secs_f64(),
    );
    Ok(())
}
