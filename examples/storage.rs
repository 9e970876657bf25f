//! Measures what durability costs on one node, beside a bare program that writes and flushes the same bytes.
//!
//! ```text
//! storage [--program target/release/vecino] [--points 1000000] [--dim 128] [--batch 1000] [--in-flight 8] [--dir DIR]
//! ```
//! It prints one line of JSON for each of these, in turn:
//! `bare` (a file, one flush a batch), `ingest` (through the client library, acknowledged after the flush), `written` (bytes that the
//! node wrote to the disk for it, with the snapshot at the end, beside the bytes of the vectors), `restart` (from starting the
//! killed node to its first answer), `puts` (latency of small batches with and without a snapshot under way, in turns).

use std::error::Error;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vecino::process::NodeProcess;
use vecino_client::{Client, Metric, Payload, point};
use vecino_model::Serving;

mod support;

use support::Result;

/// The collection that is made.
const NAME: &str = "storage";
/// How long puts are measured with and without a snapshot under way, and how often in turn.
const TURN: Duration = Duration::from_secs(4);
const TURNS: usize = 4;
/// Pause before a snapshot is asked for again, while one is being taken.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// How long a node may take to answer.
const READY_WAIT: Duration = Duration::from_secs(600);

struct Options {
    program: PathBuf,
    points: usize,
    dim: usize,
    batch: usize,
    in_flight: usize,
    dir: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Arc::new(parse()?);
    let Options { points, dim, batch, .. } = *options;
    let vectors = Arc::new(support::vectors(points, dim));
    std::fs::create_dir_all(&options.dir)?;

    let bare = bare(&options.dir.join("bare"), batch * (dim * 4 + 40), points.div_ceil(batch).min(500))?;
    let bare_rate = batch as f64 / bare;
    println!(r#"{{"ev":"bare","vectors_per_s":{bare_rate:.0}}}"#);

    let data = options.dir.join("node");
    let command = support::node(&options.program, data.clone());
    let node = command.start().await?;
    let certs = node.client_certs().ok_or("the node made no client certificate")?.to_owned();
    let client = client(&node, &certs).await?;
    client.collection(NAME).create(dim as u32, Metric::Euclidean).await?;
    let before = written(&node)?;
    let begun = Instant::now();
    let latencies = load(&client, &options, &vectors).await?;
    let took = begun.elapsed().as_secs_f64();
    let rate = points as f64 / took;
    println!(
        r#"{{"ev":"ingest","points":{points},"wall_s":{took:.2},"vectors_per_s":{rate:.0},"of_bare":{:.2},"p50_ms":{:.1},"p99_ms":{:.1}}}"#,
        rate / bare_rate,
        percentile(&latencies, 0.50),
        percentile(&latencies, 0.99),
    );

    let begun = Instant::now();
    settle(&client).await?;
    let settled = begun.elapsed().as_secs_f64();
    snapshot(&client).await?;
    let bytes = written(&node)? - before;
    println!(
        r#"{{"ev":"written","settle_s":{settled:.1},"bytes_per_vector":{:.0},"of_raw":{:.2}}}"#,
        bytes as f64 / points as f64,
        bytes as f64 / (points * dim * 4) as f64,
    );

    client.close().await;
    let command = node.kill().await?;
    let begun = Instant::now();
    let node = command.start().await?;
    let client = self::client(&node, &certs).await?;
    let query = vectors[..dim].to_vec();
    let hits = loop {
        match client.collection(NAME).search(query.clone()).k(10).await {
            Ok(reply) => break reply.hits.len(),
            Err(error) if begun.elapsed() > READY_WAIT => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let first_answer = begun.elapsed().as_secs_f64();
    let (resident, peak) = (memory(&node, "VmRSS:")?, memory(&node, "VmHWM:")?);
    settle(&client).await?;
    println!(
        r#"{{"ev":"restart","first_answer_s":{first_answer:.2},"hits":{hits},"resident_mib":{},"peak_mib":{},"resident_later_mib":{}}}"#,
        resident >> 10,
        peak >> 10,
        memory(&node, "VmRSS:")? >> 10,
    );

    let (mut without, mut during) = (Vec::new(), Vec::new());
    let snapshots = AtomicU64::new(0);
    for turn in 0..2 * TURNS {
        if turn % 2 == 0 {
            without.extend(puts(&client, &options, &vectors, turn).await?);
            continue;
        }
        let over = AtomicBool::new(false);
        let (latencies, ()) = tokio::try_join!(
            async {
                let latencies = puts(&client, &options, &vectors, turn).await;
                over.store(true, Ordering::Relaxed);
                latencies
            },
            async {
                while !over.load(Ordering::Relaxed) {
                    snapshot(&client).await?;
                    snapshots.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            },
        )?;
        during.extend(latencies);
    }
    let (p99_without, p99_during) = (percentile(&without, 0.99), percentile(&during, 0.99));
    println!(
        r#"{{"ev":"puts","batches":{},"p99_ms":{p99_without:.1},"batches_during":{},"p99_during_ms":{p99_during:.1},"ratio":{:.2},"snapshots":{}}}"#,
        without.len(),
        during.len(),
        p99_during / p99_without,
        snapshots.load(Ordering::Relaxed),
    );
    client.close().await;
    node.stop().await?;
    Ok(())
}

fn parse() -> Result<Options> {
    let mut options = Options {
        program: "target/release/vecino".into(),
        points: 1_000_000,
        dim: 128,
        batch: 1_000,
        in_flight: 8,
        dir: std::env::temp_dir().join(format!("vecino-storage-{}", std::process::id())),
    };
    support::flags(|flag, value| {
        match flag {
            "--program" => options.program = value.path(),
            "--dir" => options.dir = value.path(),
            "--points" => options.points = value.number()?,
            "--dim" => options.dim = value.number()?,
            "--batch" => options.batch = value.number()?.max(1),
            "--in-flight" => options.in_flight = value.number()?.max(1),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

/// Seconds that writing and flushing so many bytes takes a program that does nothing else.
fn bare(path: &Path, bytes: usize, batches: usize) -> Result<f64> {
    let mut file = std::fs::File::create(path)?;
    let batch: Vec<u8> = (0..bytes).map(|at| (at * 7919) as u8).collect();
    let begun = Instant::now();
    for _ in 0..batches {
        file.write_all(&batch)?;
        file.sync_data()?;
    }
    let took = begun.elapsed().as_secs_f64() / batches as f64;
    std::fs::remove_file(path)?;
    Ok(took)
}

async fn client(node: &NodeProcess, certs: &Path) -> Result<Client> {
    let timeout = Duration::from_secs(60);
    Ok(Client::builder().connect(node.address().to_string()).certs(certs).timeout(timeout).build().await?)
}

async fn load(client: &Client, options: &Options, vectors: &Arc<Vec<f32>>) -> Result<Vec<f64>> {
    let next = Arc::new(AtomicU64::new(0));
    let Options { points, dim, batch, in_flight, .. } = *options;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (client, vectors, next) = (client.clone(), Arc::clone(vectors), Arc::clone(&next));
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let first = next.fetch_add(batch as u64, Ordering::Relaxed) as usize;
                if first >= points {
                    return Ok::<_, Box<dyn Error + Send + Sync>>(latencies);
                }
                let batch: Vec<_> = (first..points.min(first + batch))
                    .map(|at| point(at as u64, vectors[at * dim..][..dim].to_vec(), Payload::new()))
                    .collect();
                latencies.push(put(&client, batch).await?);
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    Ok(latencies)
}

/// Overwrites points for one turn, one batch after another.
async fn puts(client: &Client, options: &Options, vectors: &[f32], turn: usize) -> Result<Vec<f64>> {
    let Options { points, dim, batch, .. } = *options;
    let mut latencies = Vec::new();
    let mut random = fastrand::Rng::with_seed(turn as u64);
    let begun = Instant::now();
    while begun.elapsed() < TURN {
        let one = |_| {
            let (at, of) = (random.usize(..points), random.usize(..points));
            point(at as u64, vectors[of * dim..][..dim].to_vec(), Payload::new())
        };
        let batch = (0..(batch / 10).max(1)).map(one).collect();
        latencies.push(put(client, batch).await?);
    }
    Ok(latencies)
}

/// Writes one batch; the milliseconds until it was acknowledged.
async fn put(client: &Client, batch: Vec<vecino_client::Point>) -> Result<f64> {
    let begun = Instant::now();
    client.collection(NAME).put(batch).await?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Waits until every point is linked, and all codes are made.
async fn settle(client: &Client) -> Result<()> {
    loop {
        let info = client.collection(NAME).describe().await?;
        if info.nodes.values().all(|stats| stats.unlinked == 0 && stats.serving == Serving::Open) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Takes a snapshot, after the one that the node may be taking by itself.
async fn snapshot(client: &Client) -> Result<()> {
    loop {
        let reports = client.collection(NAME).snapshot().await?;
        match reports.into_iter().find_map(|report| report.error) {
            None => return Ok(()),
            Some(reason) if reason.contains("is being taken already") => tokio::time::sleep(BUSY_PAUSE).await,
            Some(reason) => return Err(reason.into()),
        }
    }
}

/// Bytes that the node has written to the disk.
fn written(node: &NodeProcess) -> Result<u64> {
    proc(node, "io", "write_bytes:")
}

/// Kibibytes of memory, by the name that the kernel gives them.
fn memory(node: &NodeProcess, name: &str) -> Result<u64> {
    proc(node, "status", name)
}

fn proc(node: &NodeProcess, file: &str, name: &str) -> Result<u64> {
    let id = node.process_id().ok_or("the node has ended")?;
    let mut text = String::new();
    std::fs::File::open(format!("/proc/{id}/{file}"))?.read_to_string(&mut text)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name} in {file}"))?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}

fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(((sorted.len() as f64 - 1.0) * share) as usize).copied().unwrap_or(f64::NAN)
}
