//! Measures how long one node takes to link what was loaded, alone and while clients search.
//!
//! ```text
//! linking [--program target/release/vecino] [--points 1000000] [--dim 128] [--clients 4] [--dir DIR]
//! ```
//! It prints one line of JSON for `alone` and one for `searched`, from the end of the load to the last point that is linked,
//! and their ratio.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vecino_client::{Client, Metric, Payload, point};

mod support;

use support::Result;

/// The collection that is made.
const NAME: &str = "linking";
/// Points of one put.
const BATCH: usize = 1_000;

struct Options {
    program: PathBuf,
    points: usize,
    dim: usize,
    clients: usize,
    dir: PathBuf,
}

/// What linking took.
struct Linked {
    /// Points that waited when the load had ended.
    waiting: u64,
    seconds: f64,
    searches: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = parse()?;
    let vectors = Arc::new(support::vectors(options.points, options.dim));
    let alone = link(&options, &vectors, 0).await?;
    tell("alone", &options, &alone);
    let searched = link(&options, &vectors, options.clients).await?;
    tell("searched", &options, &searched);
    println!(r#"{{"ev":"ratio","searched_to_alone":{:.2}}}"#, searched.seconds / alone.seconds);
    Ok(())
}

fn tell(event: &str, options: &Options, linked: &Linked) {
    let Linked { waiting, seconds, searches } = linked;
    println!(
        r#"{{"ev":"{event}","points":{},"waiting":{waiting},"linked_s":{seconds:.1},"searches_per_s":{:.1}}}"#,
        options.points,
        *searches as f64 / seconds,
    );
}

fn parse() -> Result<Options> {
    let mut options = Options {
        program: "target/release/vecino".into(),
        points: 1_000_000,
        dim: 128,
        clients: 4,
        dir: std::env::temp_dir().join(format!("vecino-linking-{}", std::process::id())),
    };
    support::flags(|flag, value| {
        match flag {
            "--program" => options.program = value.path(),
            "--dir" => options.dir = value.path(),
            "--points" => options.points = value.number()?,
            "--dim" => options.dim = value.number()?,
            "--clients" => options.clients = value.number()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

/// Loads a node and waits until everything is linked, while this number of clients searches.
async fn link(options: &Options, vectors: &Arc<Vec<f32>>, clients: usize) -> Result<Linked> {
    let (points, dim) = (options.points, options.dim);
    std::fs::create_dir_all(&options.dir)?;
    let data = options.dir.join(format!("node-{clients}"));
    let command = support::node(&options.program, data.clone());
    let node = command.start().await?;
    let certs = node.client_certs().ok_or("the node made no client certificate")?.to_owned();
    let (address, timeout) = (node.address().to_string(), Duration::from_secs(60));
    let client = Client::builder().connect(address).certs(certs).timeout(timeout).build().await?;
    client.collection(NAME).create(dim as u32, Metric::Euclidean).await?;
    for first in (0..points).step_by(BATCH) {
        let point = |at: usize| point(at as u64, vectors[at * dim..][..dim].to_vec(), Payload::new());
        client.collection(NAME).put((first..points.min(first + BATCH)).map(point).collect::<Vec<_>>()).await?;
    }

    let (begun, waiting) = (Instant::now(), unlinked(&client).await?);
    let (is_over, searches) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut searching = tokio::task::JoinSet::new();
    for number in 0..clients {
        let (client, vectors) = (client.clone(), Arc::clone(vectors));
        let (is_over, searches) = (Arc::clone(&is_over), Arc::clone(&searches));
        searching.spawn(async move {
            let mut random = fastrand::Rng::with_seed(number as u64);
            while !is_over.load(Ordering::Relaxed) {
                let query = vectors[random.usize(..points) * dim..][..dim].to_vec();
                client.collection(NAME).search(query).k(10).await?;
                searches.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
    }
    while unlinked(&client).await? > 0 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    is_over.store(true, Ordering::Relaxed);
    while let Some(done) = searching.join_next().await {
        done??;
    }
    client.close().await;
    node.stop().await?;
    std::fs::remove_dir_all(data)?;
    Ok(Linked { waiting, seconds, searches: searches.load(Ordering::Relaxed) })
}

/// Points that wait to be linked.
async fn unlinked(client: &Client) -> Result<u64> {
    let info = client.collection(NAME).describe().await?;
    Ok(info.nodes.values().map(|stats| stats.unlinked).sum())
}
