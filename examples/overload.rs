//! Measures what a mesh does when more is written than it can take: many writers with large batches, and searches beside
//! them. `tests/measure/overload` starts a mesh for it.
//!
//! ```text
//! overload --certs DIR --connect ADDRESS... [--writers 64] [--seconds 30] [--searchers 1] [--collection NAME]
//! ```
//! Each writer puts one batch of 1,000 points of 128 dimensions after the other at `quorum`, with the default settings of the
//! client library; up to eight clients share them, each with its own connections. It prints one line of JSON: batches that
//! were acknowledged and that failed, a second, and how long puts and searches took, in milliseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vecino_client::{Client, Metric, Payload, point};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const BATCH: u64 = 1_000;
const DIM: usize = 128;
const CLIENTS_MAX: usize = 8;
/// Pause between two searches.
const SEARCH_EVERY: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Tally {
    took: Vec<Duration>,
    failed: u64,
    reason: Option<String>,
}

impl Tally {
    fn count<T, E: std::fmt::Display>(&mut self, began: Instant, result: std::result::Result<T, E>) {
        match result {
            Ok(_) => self.took.push(began.elapsed()),
            Err(error) => {
                self.failed += 1;
                self.reason = Some(error.to_string());
            }
        }
    }

    fn add(&mut self, Self { took, failed, reason }: Self) {
        self.took.extend(took);
        self.failed += failed;
        self.reason = self.reason.take().or(reason);
    }

    /// What this share of them took at the most, in milliseconds; they are in order.
    fn ms(&self, share: f64) -> String {
        let at = ((self.took.len() as f64 * share) as usize).min(self.took.len().saturating_sub(1));
        self.took.get(at).map_or_else(|| "null".into(), |took| format!("{:.1}", took.as_secs_f64() * 1e3))
    }
}

struct Options {
    certs: String,
    nodes: Vec<String>,
    writers: usize,
    searchers: usize,
    seconds: u64,
    collection: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = parse()?;
    let clients = options.writers.clamp(1, CLIENTS_MAX);
    let mut made = Vec::new();
    for first in 0..clients {
        let mut nodes = options.nodes.clone();
        let nodes_count = nodes.len();
        nodes.rotate_left(first % nodes_count);
        let builder = Client::builder().certs(&options.certs);
        made.push(nodes.into_iter().fold(builder, |builder, node| builder.connect(node)).build().await?);
    }
    made[0].collection(&options.collection).create(DIM as u32, Metric::Euclidean).await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let writers = (0..options.writers).map(|writer| {
        let (films, is_over) = (made[writer % clients].collection(&options.collection), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut tally = Tally::default();
            for batch in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let first = ((writer as u64) << 40) + batch * BATCH;
                let points = (first..first + BATCH).map(|id| point(id, vector(), Payload::new()));
                let points: Vec<_> = points.collect();
                let began = Instant::now();
                tally.count(began, films.put(points).await);
            }
            tally
        })
    });
    let writers: Vec<_> = writers.collect();
    let searchers = (0..options.searchers).map(|searcher| {
        let (films, is_over) = (made[searcher % clients].collection(&options.collection), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut tally = Tally::default();
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                tally.count(began, films.search(vector()).k(10).await);
                tokio::time::sleep(SEARCH_EVERY).await;
            }
            tally
        })
    });
    let searchers: Vec<_> = searchers.collect();
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    is_over.store(true, Ordering::Relaxed);
    let (mut puts, mut searches) = (Tally::default(), Tally::default());
    for writer in writers {
        puts.add(writer.await?);
    }
    let seconds = began.elapsed().as_secs_f64();
    for searcher in searchers {
        searches.add(searcher.await?);
    }
    puts.took.sort();
    searches.took.sort();
    println!(
        concat!(
            r#"{{"writers":{},"seconds":{:.1},"batches":{},"batches_per_s":{:.2},"failed":{},"#,
            r#""put_p50_ms":{},"put_p99_ms":{},"searches":{},"searches_failed":{},"#,
            r#""search_p50_ms":{},"search_p99_ms":{}}}"#
        ),
        options.writers,
        seconds,
        puts.took.len(),
        puts.took.len() as f64 / seconds,
        puts.failed,
        puts.ms(0.5),
        puts.ms(0.99),
        searches.took.len(),
        searches.failed,
        searches.ms(0.5),
        searches.ms(0.99),
    );
    for reason in [puts.reason, searches.reason].into_iter().flatten() {
        eprintln!("one that failed: {reason}");
    }
    Ok(())
}

fn vector() -> Vec<f32> {
    (0..DIM).map(|_| fastrand::f32()).collect()
}

fn parse() -> Result<Options> {
    let collection = format!("overload{}", fastrand::u32(..));
    let (certs, nodes) = (String::new(), Vec::new());
    let mut options = Options { certs, nodes, writers: 64, searchers: 1, seconds: 30, collection };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--certs" => options.certs = value,
            "--connect" => options.nodes.push(value),
            "--writers" => options.writers = value.parse()?,
            "--searchers" => options.searchers = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            "--collection" => options.collection = value,
            other => return Err(format!("{other} is not known").into()),
        }
    }
    if options.nodes.is_empty() || options.certs.is_empty() {
        return Err(
            "usage: overload --certs DIR --connect ADDRESS... [--writers N] [--searchers N] [--seconds S]".into()
        );
    }
    Ok(options)
}
