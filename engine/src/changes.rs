//! What a node has of the log of changes, on its disk.
//!
//! Bytes alone: what they mean is decided in `mesh`. In `changes/` there is a log of the entries, one record each; a small file
//! with the state that they go on from; and a small file with what this node has promised and accepted of the next entry.
//! All of it is flushed when a call returns, whatever `fsync` collections have: an acceptor that forgets lets two entries
//! of one number be chosen. Drawn in `docs/disk.md`.

use std::sync::Arc;

use vecino_storage::{Disk, FileError, Log, LogError, LogOptions, SyncPolicy, read_verified, write_atomically};

/// The folder.
pub const CHANGES: &str = "changes";
const LOG: &str = "changes/log";
const STATE: &str = "changes/state";
const ACCEPTOR: &str = "changes/acceptor";
/// What stands in the log where that of another has the id of its collection.
const LOG_ID: [u8; 16] = *b"log of changes  ";
/// Entries are small.
const SEGMENT_BYTES: u64 = 1 << 20;
/// What stands before an entry, and before a state: its number.
const NUMBER_BYTES: usize = 8;

/// What is on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundChanges {
    /// A state, with its number.
    pub state: Option<(u64, Vec<u8>)>,
    /// The entries behind it, from its number plus one on.
    pub entries: Vec<Vec<u8>>,
    /// What was promised and accepted, of whatever entry.
    pub acceptor: Option<Vec<u8>>,
}

/// Why what is on the disk cannot be used, or nothing more be written.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// The log of entries.
    #[error("the log of changes: {0}")]
    Log(#[from] LogError),
    /// A small file.
    #[error("the log of changes: {0}")]
    File(#[from] FileError),
    /// Making the folder.
    #[error("the log of changes: cannot make {CHANGES}: {0}")]
    Folder(#[source] std::io::Error),
    /// The files do not fit together.
    #[error("the log of changes does not hang together: {0}")]
    Gap(String),
}

/// The log of changes on one disk.
pub struct ChangeStore {
    disk: Arc<dyn Disk>,
    log: Log,
    /// The number of the state, and of the last entry.
    state: Option<u64>,
    last: u64,
}

impl ChangeStore {
    /// Opens what is there; nothing on a new disk.
    ///
    /// # Errors
    /// Where something of it is damaged or missing: then this disk does not know what it has promised, and must not vote.
    pub fn open(disk: Arc<dyn Disk>) -> Result<(Self, FoundChanges), ChangesError> {
        disk.create_dir_all(CHANGES).map_err(ChangesError::Folder)?;
        let options = LogOptions { segment_bytes: SEGMENT_BYTES, sync: SyncPolicy::Always };
        let (mut log, recovery) = Log::open(Arc::clone(&disk), LOG, LOG_ID, options)?;
        // What is read is handed out as durable.
        log.flush()?;
        let state = read_verified(&*disk, STATE)?.map(|bytes| numbered(&bytes)).transpose()?;
        let mut next = state.as_ref().map(|(number, _)| number + 1);
        let mut entries = Vec::new();
        let mut gap = None;
        log.replay(recovery.first_lsn, &mut |_, record| {
            let (number, entry) = numbered(record)?;
            match next {
                Some(expected) if number == expected => {
                    entries.push(entry);
                    next = Some(number + 1);
                }
                // Entries that the state holds are still there until their segment goes.
                Some(expected) if number < expected => {}
                expected => gap = gap.take().or(Some((number, expected))),
            }
            Ok(())
        })?;
        if let Some((number, expected)) = gap {
            let told = match expected {
                Some(expected) => format!("entry {number} comes where {expected} is due"),
                None => format!("entry {number} is there, and no state that it goes on from"),
            };
            return Err(ChangesError::Gap(told));
        }
        let acceptor = read_verified(&*disk, ACCEPTOR)?;
        let last = next.map_or(0, |next| next - 1);
        let store = Self { disk, log, state: state.as_ref().map(|(number, _)| *number), last };
        Ok((store, FoundChanges { state, entries, acceptor }))
    }

    /// The number of the last entry that is here; 0 where there is none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Number of entries behind the state.
    pub fn behind_state(&self) -> u64 {
        self.last - self.state.unwrap_or(0)
    }

    /// Keeps the next entry.
    ///
    /// # Errors
    /// Where it cannot be written, or another number is due. Nothing of it is kept then.
    pub fn append(&mut self, number: u64, entry: &[u8]) -> Result<(), ChangesError> {
        if self.state.is_none() || number != self.last + 1 {
            return Err(ChangesError::Gap(format!("entry {number} cannot follow entry {}", self.last)));
        }
        self.reopen_if_ended()?;
        self.log.append(&[&with_number(number, entry)])?;
        if let Err(error) = self.log.commit() {
            // It may be there or not. It is chosen, so it may stay, and is told again in any case.
            self.reopen_if_ended()?;
            return Err(error.into());
        }
        self.last = number;
        Ok(())
    }

    /// Keeps a state in place of all entries up to its number; newer entries stay.
    ///
    /// # Errors
    /// Where it cannot be written: what was there before is there still. Where only old entries could not be removed, they
    /// are passed over when they are read.
    pub fn save_state(&mut self, number: u64, state: &[u8]) -> Result<(), ChangesError> {
        write_atomically(&*self.disk, STATE, &with_number(number, state))?;
        self.state = Some(number);
        if number >= self.last {
            self.last = number;
            self.reopen_if_ended()?;
            let next = self.log.next_lsn();
            self.log.truncate_before(next)?;
        }
        Ok(())
    }

    /// Keeps what this node has promised and accepted.
    ///
    /// # Errors
    /// Where it cannot be written: then it must not be answered.
    pub fn save_acceptor(&mut self, acceptor: &[u8]) -> Result<(), ChangesError> {
        Ok(write_atomically(&*self.disk, ACCEPTOR, acceptor)?)
    }

    /// Opens the log anew that a failed flush has ended.
    fn reopen_if_ended(&mut self) -> Result<(), ChangesError> {
        if self.log.is_poisoned() {
            let (opened, found) = Self::open(Arc::clone(&self.disk))?;
            let found = found.state.map_or(0, |(number, _)| number) + found.entries.len() as u64;
            *self = Self { last: found, ..opened };
        }
        Ok(())
    }
}

fn with_number(number: u64, bytes: &[u8]) -> Vec<u8> {
    [&number.to_le_bytes(), bytes].concat()
}

fn numbered(bytes: &[u8]) -> Result<(u64, Vec<u8>), ChangesError> {
    let (number, rest) = bytes
        .split_first_chunk::<NUMBER_BYTES>()
        .ok_or_else(|| ChangesError::Gap("an entry or a state without a number".to_owned()))?;
    Ok((u64::from_le_bytes(*number), rest.to_vec()))
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use vecino_storage::{Fault, FaultyDisk, MemDisk};

    use super::*;

    fn open(disk: &MemDisk) -> (ChangeStore, FoundChanges) {
        ChangeStore::open(Arc::new(disk.clone())).unwrap()
    }

    fn entry(number: u64) -> Vec<u8> {
        vec![number as u8; 200]
    }

    /// What there is to be of it.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Known {
        last: u64,
        acceptor: Option<Vec<u8>>,
    }

    fn check(found: &FoundChanges, known: &Known, context: &str) {
        let (number, state) = found.state.clone().unwrap();
        assert_eq!(state, number.to_le_bytes(), "{context}");
        let entries: Vec<Vec<u8>> = (number + 1..=known.last).map(entry).collect();
        assert_eq!(found.entries, entries, "{context}");
        assert_eq!(found.acceptor, known.acceptor, "{context}");
    }

    #[test]
    fn a_new_disk_has_nothing_and_what_is_kept_is_found_again() {
        let disk = MemDisk::new();
        let (mut store, found) = open(&disk);
        assert_eq!(found, FoundChanges::default());
        assert!(store.append(1, b"x").unwrap_err().to_string().contains("cannot follow"), "there is no state");
        store.save_state(1, &1_u64.to_le_bytes()).unwrap();
        (2..50).for_each(|number| store.append(number, &entry(number)).unwrap());
        assert!(store.append(51, b"x").is_err() && store.append(49, b"x").is_err());
        store.save_acceptor(b"promised").unwrap();
        assert_eq!((store.last(), store.behind_state()), (49, 48));
        check(&open(&disk).1, &Known { last: 49, acceptor: Some(b"promised".to_vec()) }, "opened again");
        store.save_state(49, &49_u64.to_le_bytes()).unwrap();
        assert_eq!((store.last(), store.behind_state()), (49, 0));
        store.append(50, &entry(50)).unwrap();
        let (_, found) = open(&disk);
        assert_eq!((found.state.unwrap().0, found.entries.len()), (49, 1));
        // The state of another node, far ahead.
        store.save_state(900, &900_u64.to_le_bytes()).unwrap();
        store.append(901, &entry(901)).unwrap();
        check(&open(&disk).1, &Known { last: 901, acceptor: Some(b"promised".to_vec()) }, "taken over");
    }

    /// A life of several hundred operations, with a power cut after each: what a call that returned has kept is there.
    #[test]
    fn what_a_call_has_kept_survives_a_power_cut_at_any_time() {
        for seed in 0..20 {
            let mut random = Rng::with_seed(seed);
            let disk = MemDisk::new();
            let (mut store, _) = open(&disk);
            store.save_state(1, &1_u64.to_le_bytes()).unwrap();
            let mut known = Known { last: 1, acceptor: None };
            for step in 0..150 {
                match random.u8(..8) {
                    0..5 => {
                        known.last += 1;
                        store.append(known.last, &entry(known.last)).unwrap();
                    }
                    5 | 6 => {
                        known.acceptor = Some(vec![random.u8(..); 40]);
                        store.save_acceptor(known.acceptor.as_ref().unwrap()).unwrap();
                    }
                    _ => {
                        known.last += u64::from(random.bool()) * random.u64(..5);
                        store.save_state(known.last, &known.last.to_le_bytes()).unwrap();
                    }
                }
                let after = disk.fork();
                after.crash(random.u64(..));
                check(&open(&after).1, &known, &format!("seed {seed}, step {step}"));
            }
        }
    }

    /// Every operation of the disk fails in turn, and loses its power then: nothing half-kept is found.
    #[test]
    fn a_disk_that_fails_keeps_what_was_there_before() {
        let mut failed = 0;
        for operation in 0..400 {
            let mem = MemDisk::new();
            let disk = FaultyDisk::new(Arc::new(mem.clone()));
            let (mut store, _) = ChangeStore::open(Arc::new(disk.clone())).unwrap();
            store.save_state(1, &1_u64.to_le_bytes()).unwrap();
            let (mut last, mut acceptors) = (1, vec![None]);
            disk.set(Fault::Nth(disk.operations() + operation, std::io::ErrorKind::Other));
            for number in 2..12_u64 {
                let kept = store.append(number, &entry(number)).is_ok();
                failed += u64::from(!kept);
                last = store.last();
                if !kept && last < number {
                    break;
                }
                let acceptor = vec![number as u8; 9];
                match store.save_acceptor(&acceptor) {
                    Ok(()) => acceptors = vec![Some(acceptor)],
                    Err(_) => acceptors.push(Some(acceptor)),
                }
                if number == 6 {
                    let _ = store.save_state(6, &6_u64.to_le_bytes());
                }
            }
            drop(store);
            mem.crash(operation);
            let (store, found) = open(&mem);
            assert!(store.last() >= last, "operation {operation}: entry {last} is gone, {} is there", store.last());
            let known = Known { last: store.last(), acceptor: found.acceptor.clone() };
            check(&found, &known, &format!("operation {operation}"));
            assert!(acceptors.contains(&found.acceptor), "operation {operation}: {acceptors:?}");
        }
        assert!(failed > 5, "{failed} appends failed");
    }

    #[test]
    fn damage_is_told_and_never_read_over() {
        let disk = MemDisk::new();
        let (mut store, _) = open(&disk);
        store.save_state(1, &1_u64.to_le_bytes()).unwrap();
        (2..30).for_each(|number| store.append(number, &entry(number)).unwrap());
        store.save_acceptor(&[7; 50]).unwrap();
        drop(store);
        let log = format!("{LOG}/{}", disk.list(LOG).unwrap()[0]);
        for (path, at) in [(log.as_str(), 900), (STATE, 60), (ACCEPTOR, 70)] {
            let damaged = disk.fork();
            damaged.flip(path, at, 1);
            assert!(ChangeStore::open(Arc::new(damaged)).is_err(), "{path}");
        }
        disk.remove(STATE).unwrap();
        let told = ChangeStore::open(Arc::new(disk)).err().unwrap().to_string();
        assert!(told.contains("no state that it goes on from"), "{told}");
    }
}
