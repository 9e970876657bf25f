//! A small node without vectors: a log, snapshots of everything in it, and a model of what has to survive.

use std::io::{self, Read};
use std::sync::Arc;

use vecino_storage::{Disk, Log, LogError, LogOptions, Recovery, Snapshot, SnapshotError, SnapshotStore, SyncPolicy};

pub const COLLECTION: [u8; 16] = *b"a collection id!";
pub const LOG_DIR: &str = "films/log";
pub const SNAPSHOT_DIR: &str = "films/snapshots";

pub fn options(segment_bytes: u64, sync: SyncPolicy) -> LogOptions {
    LogOptions { segment_bytes, sync }
}

pub fn open_log(disk: &Arc<dyn Disk>, options: LogOptions) -> Result<(Log, Recovery), LogError> {
    Log::open(disk.clone(), LOG_DIR, COLLECTION, options)
}

/// Every record from `from` on.
pub fn replayed(log: &Log, from: u64) -> Result<Vec<Vec<u8>>, LogError> {
    let mut records = Vec::new();
    let mut next = from;
    let applied = log.replay(from, &mut |lsn, record| {
        assert_eq!(lsn, next, "records come in order");
        next += 1;
        records.push(record.to_vec());
        Ok(())
    })?;
    assert_eq!(applied, records.len() as u64);
    Ok(records)
}

/// A record whose contents and length depend on seed and lsn, some empty, some longer than several sectors.
pub fn record(seed: u64, lsn: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ lsn);
    let len = match rng.u8(..8) {
        0 => 0,
        1 => rng.usize(..2000),
        _ => rng.usize(..200),
    };
    (0..len).map(|_| rng.u8(..)).collect()
}

/// What can go wrong when a node comes back.
#[derive(Debug)]
pub enum Failure {
    Log(LogError),
    Snapshot(SnapshotError),
    Arena(io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Log(e) => e.fmt(f),
            Self::Snapshot(e) => e.fmt(f),
            Self::Arena(e) => e.fmt(f),
        }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}

pub struct Node {
    pub log: Log,
    pub snapshots: SnapshotStore,
    /// Every record that is in the log or in a snapshot, from lsn 1 on.
    pub records: Vec<Vec<u8>>,
    pub recovery: Recovery,
}

impl Node {
    /// Comes back as a node does: the newest snapshot that can be read in full, else the older, else none; then the log.
    pub fn open(disk: &Arc<dyn Disk>, options: LogOptions) -> Result<Node, Failure> {
        let (log, recovery) = open_log(disk, options)?;
        let snapshots = SnapshotStore::open(disk.clone(), SNAPSHOT_DIR)?;
        let mut failure = snapshots.latest().err().map(Failure::Snapshot);
        let mut loaded = None;
        for snapshot in snapshots.snapshots() {
            match load(&snapshot) {
                Ok(records) => {
                    loaded = Some((snapshot.lsn(), records));
                    break;
                }
                Err(error) => failure = failure.or(Some(Failure::Arena(error))),
            }
        }
        let (lsn, mut records) = loaded.unwrap_or((1, Vec::new()));
        match replayed(&log, lsn) {
            Ok(tail) => records.extend(tail),
            // That the log does not reach back is only the consequence of what is wrong with the snapshots.
            Err(LogError::Missing { .. }) if failure.is_some() => return Err(failure.unwrap()),
            Err(error) => return Err(error.into()),
        }
        Ok(Node { log, snapshots, records, recovery })
    }

    pub fn snapshot(&mut self) -> Result<(), Failure> {
        self.log.flush()?;
        let mut writer = self.snapshots.begin(self.log.next_lsn())?;
        let write = |writer: &mut vecino_storage::SnapshotWriter<'_>| {
            writer.begin_arena("unchanging")?;
            writer.write(&[42; 1000])?;
            writer.begin_arena("empty")?;
            writer.begin_arena("records")?;
            for record in &self.records {
                writer.write(&(record.len() as u32).to_le_bytes())?;
                writer.write(record)?;
            }
            Ok(())
        };
        write(&mut writer).map_err(Failure::Arena)?;
        writer.finish()?;
        Ok(())
    }

    pub fn cut_log(&mut self) -> Result<u64, Failure> {
        Ok(match self.snapshots.oldest_kept_lsn() {
            Some(lsn) => self.log.truncate_before(lsn)?,
            None => 0,
        })
    }
}

fn load(snapshot: &Snapshot) -> io::Result<Vec<Vec<u8>>> {
    assert_eq!(snapshot.arenas().collect::<Vec<_>>(), ["unchanging", "empty", "records"]);
    let mut bytes = Vec::new();
    let mut read = |name: &str| {
        bytes.clear();
        snapshot.open_arena(name).map_err(io::Error::other)?.unwrap().read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes.clone())
    };
    assert_eq!(read("unchanging")?, [42; 1000]);
    assert_eq!(read("empty")?, []);
    let bytes = read("records")?;
    let mut rest = &bytes[..];
    let mut records = Vec::new();
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (record, tail) = tail.split_at(u32::from_le_bytes(*len) as usize);
        records.push(record.to_vec());
        rest = tail;
    }
    assert_eq!(records.len() as u64, snapshot.lsn() - 1);
    Ok(records)
}

/// What a run has been promised and what it has tried.
#[derive(Default)]
pub struct Promise {
    /// All that was ever handed to append and not refused for good, from lsn 1 on.
    pub tried: Vec<Vec<u8>>,
    /// Records up to this lsn were reported durable.
    pub durable: u64,
}

impl Promise {
    /// Everything durable is back, in order, and what else is back is a prefix of what was tried.
    pub fn check(&self, node: &Node, context: &str) {
        let back = node.records.len();
        assert!(back as u64 >= self.durable, "{context}: {back} records are back of {} acknowledged", self.durable);
        assert!(back <= self.tried.len(), "{context}: {back} records are back of {} written", self.tried.len());
        assert!(node.records[..] == self.tried[..back], "{context}: records are not what was written");
        assert_eq!(node.log.next_lsn(), back as u64 + 1, "{context}");
        // Nothing rots here, so no fallback is needed: every snapshot that is there is there in full.
        for snapshot in node.snapshots.snapshots() {
            let records = load(&snapshot).unwrap_or_else(|e| panic!("{context}: {}: {e}", snapshot.path()));
            assert!(records[..] == self.tried[..records.len()], "{context}");
        }
    }
}

/// Runs a random workload until it is done or something fails.
pub fn work(
    node: &mut Node,
    promise: &mut Promise,
    rng: &mut fastrand::Rng,
    seed: u64,
    steps: usize,
) -> Result<(), Failure> {
    for _ in 0..steps {
        match rng.u8(..20) {
            0..10 => {
                let first = node.log.next_lsn();
                let batch: Vec<Vec<u8>> = (0..rng.u64(1..6)).map(|i| record(seed, first + i)).collect();
                promise.tried.truncate(first as usize - 1);
                promise.tried.extend(batch.iter().cloned());
                let slices: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
                match node.log.append(&slices) {
                    Ok(lsn) => assert_eq!(lsn, first, "a batch is numbered as announced"),
                    Err(error) => {
                        if let LogError::Full { .. } = error {
                            // Refused is refused: none of it may ever come back.
                            promise.tried.truncate(first as usize - 1);
                            continue;
                        }
                        return Err(error.into());
                    }
                }
                node.records.extend(batch);
            }
            10..17 => promise.durable = promise.durable.max(node.log.commit()?),
            17..19 => {
                match node.snapshot() {
                    Err(Failure::Snapshot(SnapshotError::Full { .. })) => continue,
                    other => other?,
                }
                promise.durable = promise.durable.max(node.log.durable_lsn());
            }
            _ => {
                node.cut_log()?;
            }
        }
    }
    Ok(())
}
