//! Measures the log against a bare file: the same bytes, one flush a batch, side by side in alternating rounds.
//!
//! `cargo run --release -p vecino-storage --example append -- [DIRECTORY] [BATCHES]`

use std::error::Error;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vecino_storage::{Log, LogOptions, RealDisk};

const RECORDS: usize = 1000;
const RECORD_BYTES: usize = 512;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().unwrap_or_else(|| "target".to_owned());
    let batches: usize = arguments.next().map_or(Ok(200), |n| n.parse())?;
    let dir = Path::new(&parent).join(format!("append-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    println!("{ROUNDS} rounds of {batches} batches of {RECORDS} records of {RECORD_BYTES} bytes, one flush a batch");
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let bare = bare(&dir.join("bare"), batches)?;
        let log = log(&dir, batches)?;
        let rate = |time: Duration| (batches * RECORDS) as f64 / time.as_secs_f64();
        println!("round {round}: bare {:>9.0} records/s, log {:>9.0} records/s", rate(bare), rate(log));
        ratios.push(bare.as_secs_f64() / log.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    println!("log against bare, median: {:.2}", ratios[ROUNDS / 2]);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn records() -> Vec<Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(7);
    (0..RECORDS).map(|_| (0..RECORD_BYTES).map(|_| rng.u8(..)).collect()).collect()
}

/// Writes and flushes, nothing more: no checksum, no header, no copy.
fn bare(path: &Path, batches: usize) -> Result<Duration, Box<dyn Error>> {
    let batch = records().concat();
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.sync_all()?;
    let start = Instant::now();
    for number in 0..batches {
        file.write_all_at(&batch, (number * batch.len()) as u64)?;
        file.sync_data()?;
    }
    let time = start.elapsed();
    std::fs::remove_file(path)?;
    Ok(time)
}

fn log(dir: &Path, batches: usize) -> Result<Duration, Box<dyn Error>> {
    let records = records();
    let batch: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let disk = Arc::new(RealDisk::new(dir.to_path_buf()));
    let (mut log, _) = Log::open(disk, "log", [1; 16], LogOptions::default())?;
    let start = Instant::now();
    for _ in 0..batches {
        log.append(&batch)?;
        log.commit()?;
    }
    let time = start.elapsed();
    drop(log);
    std::fs::remove_dir_all(dir.join("log"))?;
    Ok(time)
}
