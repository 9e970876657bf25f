//! Measures the index: builds it from a file, then answers `search EF [THREADS]` lines on standard input.
//!
//! ```text
//! ann --base F --query F --gt F --metric euclidean|cosine|dot|manhattan
//!     [--limit N] [--m 16] [--ef-construction 200] [--threads 1] [--profile fast|compact|plain] [--kernel avx512|avx2|neon|scalar] [--seed 0]
//!     [--churn 0] [--flat N]
//! ```
//! `--churn N` replaces every point N times, in random order and a hundredth at a time, before the line about the build is
//! printed: the same points under other slots. `--flat N` makes no graph of up to N points.
//!
//! Vectors are `.npy` (f32, f16 or u8, two-dimensional, C order) or `.fvecs`; the exact answers are `.npy` (int32) or
//! `.ivecs`, nearest first, at least ten a query. Each answer is one line of JSON on standard output.

use std::error::Error;
use std::io::BufRead;
use std::time::Instant;

use vecino_index::{Index, Kernel, Metric, Params, Profile, SearchOptions, Slot};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What each query of a share found, and its nanoseconds.
type Answers = Vec<(Vec<Slot>, u128)>;

/// Results compared with the exact answers.
const K: usize = 10;
/// Points are replaced by so many parts of all at a time.
const CHURN_SHARE: usize = 100;
/// Nodes looked at in one step of consolidation.
const CHURN_NODES: usize = 64;

/// A two-dimensional array, row after row.
struct Table<T> {
    width: usize,
    values: Vec<T>,
}

struct Options {
    base: String,
    query: String,
    gt: String,
    limit: usize,
    threads: usize,
    churn: usize,
    params: Params,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    let base = read_vectors(&options.base)?.limit(options.limit);
    let queries = read_vectors(&options.query)?;
    let truth = read_answers(&options.gt)?;
    if base.width != queries.width || truth.width < K || truth.rows().len() < queries.rows().len() {
        return Err(format!(
            "{} has {} dimensions, {} has {}, and {} has {} answers to each of {} queries; they must fit together",
            options.base,
            base.width,
            options.query,
            queries.width,
            options.gt,
            truth.width,
            truth.rows().len()
        )
        .into());
    }
    let params = Params { dim: base.width, ..options.params.clone() };

    let (wall, cpu) = (Instant::now(), cpu_seconds());
    let index = build(&base, params, options.threads)?;
    let rows = churn(&index, &base, options.churn, options.threads)?;
    println!(
        r#"{{"ev":"build","n":{},"slots":{},"dim":{},"wall_s":{:.3},"cpu_s":{:.3},"bytes_per_vector":{:.1},"kernel":"{}"}}"#,
        index.len_live(),
        index.slots(),
        base.width,
        wall.elapsed().as_secs_f64(),
        cpu_seconds() - cpu,
        index.memory_bytes() as f64 / index.len_live() as f64,
        index.kernel().name(),
    );
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["search", ef] => search(&index, &rows, &queries, &truth, ef.parse()?, 1)?,
            ["search", ef, threads] => search(&index, &rows, &queries, &truth, ef.parse()?, threads.parse()?)?,
            ["quit"] | [] => break,
            _ => return Err(format!("{line:?} is no command; there are `search EF [THREADS]` and `quit`").into()),
        }
    }
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options {
        base: String::new(),
        query: String::new(),
        gt: String::new(),
        limit: usize::MAX,
        threads: 1,
        churn: 0,
        params: Params::new(1, Metric::Euclidean),
    };
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<usize>().map_err(|error| format!("{flag} {value}: {error}"));
        match flag.as_str() {
            "--base" => options.base = value,
            "--query" => options.query = value,
            "--gt" => options.gt = value,
            "--limit" => options.limit = number()?,
            "--threads" => options.threads = number()?.max(1),
            "--churn" => options.churn = number()?,
            "--flat" => options.params.flat_live_max = Some(number()?),
            "--m" => options.params.m = number()?,
            "--ef-construction" => options.params.ef_construction = number()?,
            "--seed" => options.params.seed = number()? as u64,
            "--metric" => {
                options.params.metric = match value.as_str() {
                    "euclidean" => Metric::Euclidean,
                    "cosine" => Metric::Cosine,
                    "dot" => Metric::Dot,
                    "manhattan" => Metric::Manhattan,
                    _ => return Err(format!("--metric {value}: euclidean, cosine, dot or manhattan").into()),
                }
            }
            "--profile" | "--quantization" => {
                let profile = Profile::ALL.into_iter().find(|profile| profile.name() == value);
                options.params.profile = profile.ok_or_else(|| format!("{flag} {value}: fast, compact or plain"))?;
            }
            "--kernel" => {
                let kernel = Kernel::ALL.into_iter().find(|kernel| kernel.name() == value);
                options.params.kernel = Some(kernel.ok_or_else(|| format!("--kernel {value}: no such kernel"))?);
            }
            _ => return Err(format!("{flag}: no such option").into()),
        }
    }
    for (flag, value) in [("--base", &options.base), ("--query", &options.query), ("--gt", &options.gt)] {
        if value.is_empty() {
            return Err(format!("{flag} FILE is needed").into());
        }
    }
    Ok(options)
}

fn build(base: &Table<f32>, params: Params, threads: usize) -> Result<Index> {
    let index = Index::new(params)?;
    for (slot, vector) in (0..).zip(base.rows()) {
        index.store(slot, vector).map_err(|error| format!("row {slot}: {error}"))?;
    }
    link(&index, threads);
    Ok(index)
}

/// Links what is stored, and takes what is deleted out of the graph.
fn link(index: &Index, threads: usize) {
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(slot) = index.next_unlinked() {
                    index.link(slot);
                }
                while index.consolidate(CHURN_NODES) {}
            });
        }
    });
}

/// Replaces all points so many times. Gives the row of each slot.
fn churn(index: &Index, base: &Table<f32>, times: usize, threads: usize) -> Result<Vec<usize>> {
    let mut rows: Vec<usize> = (0..base.rows().len()).collect();
    let mut slots: Vec<Slot> = (0..rows.len() as Slot).collect();
    let mut random = fastrand::Rng::with_seed(1);
    let mut vacant = Vec::new();
    for _ in 0..times {
        let mut order: Vec<usize> = (0..slots.len()).collect();
        random.shuffle(&mut order);
        for some in order.chunks(order.len().div_ceil(CHURN_SHARE).max(1)) {
            for row in some {
                index.mark_deleted(slots[*row]);
                if vacant.is_empty() {
                    vacant = index.take_vacant();
                }
                let slot = vacant.pop().unwrap_or(rows.len() as Slot);
                index.store(slot, &base.values[row * base.width..][..base.width])?;
                rows.resize(rows.len().max(slot as usize + 1), 0);
                (rows[slot as usize], slots[*row]) = (*row, slot);
            }
            link(index, threads);
        }
    }
    while index.consolidate_idle(CHURN_NODES) {}
    index.take_vacant();
    Ok(rows)
}

/// Asks every query once, one at a time on each thread, and prints what came of it.
fn search(
    index: &Index,
    rows: &[usize],
    queries: &Table<f32>,
    truth: &Table<i32>,
    ef: usize,
    threads: usize,
) -> Result<()> {
    let ask = |query: &[f32]| index.search(query, &SearchOptions::new(K, ef));
    for query in queries.rows().take(5) {
        ask(query)?;
    }
    let queries: Vec<&[f32]> = queries.rows().collect();
    let share = queries.len().div_ceil(threads.max(1));
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    let answer = |query: &&[f32]| {
        let begun = Instant::now();
        let hits = ask(query).map_err(|error| error.to_string())?;
        Ok((hits.iter().map(|hit| hit.slot).collect(), begun.elapsed().as_nanos()))
    };
    let answers = std::thread::scope(|scope| -> std::result::Result<Vec<Answers>, String> {
        let spawn = |queries| scope.spawn(move || <[&[f32]]>::iter(queries).map(answer).collect());
        let workers: Vec<_> = queries.chunks(share).map(spawn).collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| "a search panicked")?).collect()
    })?;
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let answers: Vec<_> = answers.into_iter().flatten().collect();
    let found = answers.iter().zip(truth.rows()).map(|((slots, _), truth)| {
        slots.iter().filter(|slot| truth[..K].contains(&(rows[**slot as usize] as i32))).count()
    });
    let recall = found.sum::<usize>() as f64 / (K * answers.len()) as f64;
    let mut nanos: Vec<u128> = answers.iter().map(|(_, nanos)| *nanos).collect();
    nanos.sort_unstable();
    let percentile = |share: f64| nanos[((nanos.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    let count = answers.len() as f64;
    println!(
        r#"{{"ev":"search","ef":{ef},"threads":{threads},"recall10":{recall:.5},"qps_wall":{:.1},"qps_cpu":{:.1},"p50_us":{:.1},"p99_us":{:.1}}}"#,
        count / wall,
        count / cpu.max(1e-9),
        percentile(0.50),
        percentile(0.99),
    );
    Ok(())
}

/// Processor time of all threads of this process so far, in seconds; wall time where the system does not say.
#[cfg(unix)]
#[allow(unsafe_code, reason = "the standard library does not tell processor time")]
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec through a pointer to one.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

#[cfg(not(unix))]
fn cpu_seconds() -> f64 {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed().as_secs_f64()
}

impl<T> Table<T> {
    fn rows(&self) -> std::slice::ChunksExact<'_, T> {
        self.values.chunks_exact(self.width)
    }

    fn limit(mut self, rows: usize) -> Self {
        self.values.truncate(rows.saturating_mul(self.width));
        self
    }
}

fn read_vectors(path: &str) -> Result<Table<f32>> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let table = if path.ends_with(".fvecs") {
        read_vecs(&bytes, f32::from_le_bytes)
    } else {
        read_npy(&bytes).and_then(|(kind, width, data)| {
            let values = match kind.as_str() {
                "<f4" => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
                "<f2" => data.as_chunks().0.iter().map(|bytes| half_to_f32(u16::from_le_bytes(*bytes))).collect(),
                "|u1" => data.iter().map(|byte| f32::from(*byte)).collect(),
                _ => return Err(format!("its values are {kind}; f32, f16 and u8 can be read").into()),
            };
            Ok(Table { width, values })
        })
    };
    table.map_err(|error| format!("{path}: {error}").into())
}

fn read_answers(path: &str) -> Result<Table<i32>> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let table = if path.ends_with(".ivecs") {
        read_vecs(&bytes, i32::from_le_bytes)
    } else {
        read_npy(&bytes).and_then(|(kind, width, data)| match kind.as_str() {
            "<i4" => {
                Ok(Table { width, values: data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect() })
            }
            _ => Err(format!("its values are {kind}; int32 can be read").into()),
        })
    };
    table.map_err(|error| format!("{path}: {error}").into())
}

/// The fvecs and ivecs format: each row is its width as i32, then so many values of four bytes.
fn read_vecs<T>(bytes: &[u8], value: fn([u8; 4]) -> T) -> Result<Table<T>> {
    let (words, rest) = bytes.as_chunks::<4>();
    let width = words.first().map_or(0, |word| i32::from_le_bytes(*word)) as usize;
    if width == 0 || width > words.len() || !rest.is_empty() || words.len() % (width + 1) != 0 {
        return Err(format!("{} bytes are no whole rows of {width} values", bytes.len()).into());
    }
    if words.chunks_exact(width + 1).any(|row| i32::from_le_bytes(row[0]) as usize != width) {
        return Err(format!("its rows differ in width; the first has {width} values").into());
    }
    let values = words.chunks_exact(width + 1).flat_map(|row| row[1..].iter().map(|word| value(*word))).collect();
    Ok(Table { width, values })
}

/// The numpy format, versions 1 and 2: type of the values, width of a row, and the values' bytes.
fn read_npy(bytes: &[u8]) -> Result<(String, usize, &[u8])> {
    let short = || "it ends within its header";
    if bytes.get(..6) != Some(b"\x93NUMPY") {
        return Err("it does not begin like an npy file".into());
    }
    let version = *bytes.get(6).ok_or_else(short)?;
    let (start, length) = match version {
        1 => (10, u16::from_le_bytes(bytes.get(8..10).ok_or_else(short)?.try_into()?) as usize),
        _ => (12, u32::from_le_bytes(bytes.get(8..12).ok_or_else(short)?.try_into()?) as usize),
    };
    let header = std::str::from_utf8(bytes.get(start..start + length).ok_or_else(short)?)?;
    let after =
        |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' '])).ok_or_else(short);
    let kind = after("'descr'")?.trim_start_matches('\'').split('\'').next().unwrap_or_default().to_owned();
    if after("'fortran_order'")?.starts_with("True") {
        return Err("it is in Fortran order; save it in C order".into());
    }
    let shape = after("'shape'")?.trim_start_matches('(').split(')').next().unwrap_or_default();
    let shape = shape.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse::<usize>);
    let shape = shape.collect::<std::result::Result<Vec<_>, _>>()?;
    let [rows, width] = shape[..] else {
        return Err(format!("it has {} dimensions; it must have 2", shape.len()).into());
    };
    let value_bytes: usize = kind.get(2..).unwrap_or_default().parse()?;
    let data = &bytes[start + length..];
    if width == 0 || data.len() != rows * width * value_bytes {
        return Err(
            format!("it has {} bytes of values; {rows} × {width} × {value_bytes} were promised", data.len()).into()
        );
    }
    Ok((kind, width, data))
}

/// IEEE 754 binary16, exactly.
fn half_to_f32(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(bits >> 15), u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction as f32 / 16_777_216.0,
        31 => f32::from_bits(0x7f80_0000 | fraction << 13),
        _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
    };
    f32::from_bits(magnitude.to_bits() | sign << 31)
}
