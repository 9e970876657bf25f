//! The one thread that writes a collection: it drains its queue into one batch, logs, flushes once, applies in order.
//!
//! A full disk refuses a batch and changes nothing. A flush that fails ends the log, for nobody knows what is on the disk;
//! the writer opens it anew before the next batch, which puts on the disk what was in doubt, and applies that too.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info};
use vecino_index::Slot;
use vecino_net::message::{Outcome, Record, RecordValue};
use vecino_net::model::{Fsync, Version};
use vecino_storage::{Log, LogError};

use super::indexers::link_some;
use super::persist::LogPlace;
use super::slots::Slots;
use super::tables::Key;
use super::{ApplyError, Core, UNLINKED_MAX, record};

/// Bytes of records after which a batch is not made larger.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Pause between attempts to open a log anew.
const HEAL_PAUSE: Duration = Duration::from_secs(1);

/// Slots that the writer links at a time when the indexers are behind.
const HELP_SLOTS: usize = 64;

type Answer = oneshot::Sender<Result<Vec<Outcome>, ApplyError>>;

/// What the writer can be told.
pub(super) enum Command {
    /// Apply records.
    Apply {
        /// The records.
        records: Vec<Record>,
        /// Where the outcomes go.
        answer: Answer,
    },
    /// Make everything logged so far durable and say what lsn comes next.
    Flush {
        /// Where the lsn goes.
        answer: oneshot::Sender<Result<u64, LogError>>,
    },
    /// Remove log segments that snapshots have made superfluous.
    CutLog {
        /// First lsn that must stay.
        before: u64,
    },
}

/// Batches that are logged and flushed together.
#[derive(Default)]
struct Group {
    /// Encoded records that are newer than what is there.
    encoded: Vec<Vec<u8>>,
    accepted: Vec<(Key, Record)>,
    /// Newest version of each point in `accepted`.
    pending: HashMap<Key, Version>,
    answers: Vec<(Answer, Vec<Outcome>)>,
    bytes: usize,
    /// Who waits for a flush after the batches.
    flushes: Vec<oneshot::Sender<Result<u64, LogError>>>,
    /// Where the log is to be cut after all that.
    cut: Option<u64>,
}

/// Runs until every sender of its queue is gone.
pub(super) fn run(
    core: &Arc<Core>,
    (log, reopen): (Log, LogPlace),
    slots: Slots,
    commands: mpsc::Receiver<Command>,
    runtime: &tokio::runtime::Handle,
) {
    Writer { core, log, reopen, tried: None, commands, slots }.run(runtime);
}

struct Writer<'a> {
    core: &'a Arc<Core>,
    log: Log,
    reopen: LogPlace,
    /// When opening a log that had failed was last tried.
    tried: Option<Instant>,
    commands: mpsc::Receiver<Command>,
    slots: Slots,
}

impl Writer<'_> {
    fn run(&mut self, runtime: &tokio::runtime::Handle) {
        // With `every MS` a quiet spell must still end in a flush.
        let idle = match self.core.schema.fsync {
            Fsync::EveryMs(ms) => Some(Duration::from_millis(u64::from(ms))),
            Fsync::Always | Fsync::Never => None,
        };
        loop {
            let first = match idle {
                None => self.commands.blocking_recv(),
                Some(idle) => {
                    match runtime.block_on(async { tokio::time::timeout(idle, self.commands.recv()).await }) {
                        Ok(command) => command,
                        Err(_) => {
                            self.flush_if_due();
                            continue;
                        }
                    }
                }
            };
            let Some(first) = first else { break };
            let mut group = Group::default();
            self.take(first, &mut group);
            while group.bytes < GROUP_BYTES_MAX {
                let Ok(next) = self.commands.try_recv() else { break };
                self.take(next, &mut group);
            }
            let (flushes, cut) = (std::mem::take(&mut group.flushes), group.cut);
            self.write(group);
            for answer in flushes {
                // A snapshot that was given up does not wait for this any more.
                let _ = answer.send(self.log.flush().map(|_| self.log.next_lsn()));
            }
            if let Some(before) = cut {
                self.cut_log(before);
            }
        }
        if let Err(reason) = self.log.flush() {
            error!(collection = self.core.name, %reason, "the log could not be flushed before closing");
        }
        debug!(collection = self.core.name, "the writer has stopped");
    }

    /// Adds a command to the group.
    fn take(&self, command: Command, group: &mut Group) {
        match command {
            Command::CutLog { before } => group.cut = Some(before),
            Command::Flush { answer } => group.flushes.push(answer),
            Command::Apply { records, answer } => {
                let outcomes = records.into_iter().map(|record| self.admit(record, group)).collect();
                group.answers.push((answer, outcomes));
            }
        }
    }

    /// Decides whether a record is to be logged, before anything is.
    fn admit(&self, record: Record, group: &mut Group) -> Outcome {
        if let Some(RecordValue { vectors, payload: _ }) = &record.value
            && let Err(invalid) = crate::validate::fields(&self.core.schema, vectors)
        {
            return Outcome::Refused(invalid.to_string());
        }
        let key = self.core.key(&record.id);
        let known = group.pending.get(&key).copied().or_else(|| self.core.tables().version(&key));
        if let Some(known) = known.filter(|known| *known >= record.version) {
            return Outcome::Written(known);
        }
        let encoded = record::encode(&record);
        if encoded.len() > vecino_storage::RECORD_BYTES_MAX {
            return Outcome::Refused(format!(
                "the point takes {} bytes in the log: at most {} are allowed",
                encoded.len(),
                vecino_storage::RECORD_BYTES_MAX
            ));
        }
        let version = record.version;
        group.bytes += encoded.len();
        group.encoded.push(encoded);
        group.pending.insert(key.clone(), version);
        group.accepted.push((key, record));
        Outcome::Written(version)
    }

    /// Logs, flushes, applies, answers.
    fn write(&mut self, group: Group) {
        let Group { encoded, accepted, pending: _, answers, bytes, flushes: _, cut: _ } = group;
        if !encoded.is_empty() {
            let records: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
            let healed = self.heal();
            let logged = healed.and_then(|()| self.log.append(&records)).and_then(|_| self.log.commit());
            if let Err(reason) = logged {
                error!(collection = self.core.name, %reason, "a write was not logged");
                let (collection, is_full) = (self.core.name.clone(), matches!(reason, LogError::Full { .. }));
                let reason = reason.to_string();
                let error = if is_full {
                    ApplyError::Full { collection, reason }
                } else {
                    ApplyError::Log { collection, reason }
                };
                for (answer, _) in answers {
                    let _ = answer.send(Err(error.clone()));
                }
                return;
            }
            for (key, record) in accepted {
                self.apply(key, record);
            }
            self.core.logged_bytes.fetch_add(bytes as u64, Ordering::AcqRel);
            self.core.next_lsn.store(self.log.next_lsn(), Ordering::Release);
            self.core.log_bytes.store(self.log.bytes(), Ordering::Relaxed);
            self.core.wake_indexers();
        }
        for (answer, outcomes) in answers {
            // Who asked may have given up; what was written stays written.
            let _ = answer.send(Ok(outcomes));
        }
        // Searches pay for every unlinked slot, so puts wait for linking before the tail grows long.
        while self.core.indexes.iter().any(|(_, index)| index.unlinked() > UNLINKED_MAX) {
            link_some(&**self.core, HELP_SLOTS);
        }
        // New slots are used up for as long as what is buried waits to leave the graph.
        for (_, index) in &self.core.indexes {
            while index.buried() > UNLINKED_MAX.max(index.len_live() / 2) && index.consolidate(HELP_SLOTS) {}
        }
    }

    /// Makes one logged record the newest version of its point.
    fn apply(&mut self, key: Key, record: Record) {
        let Record { id: _, version, value } = record;
        let value = value.map(|RecordValue { vectors, payload }| {
            let next = self.core.tables().slots() as Slot;
            let slot = self.slots.take(&self.core.indexes, next);
            for (name, index) in &self.core.indexes {
                if let Some(vector) = vectors.get(name)
                    && let Err(reason) = index.store(slot, &vector.0)
                {
                    // The vector was checked before it was logged; the point is there, and only this field cannot find it.
                    error!(collection = self.core.name, field = name, slot, %reason, "the index refused a vector");
                }
            }
            (slot, payload.into_boxed_slice())
        });
        let applied = self.core.tables.write().unwrap_or_else(PoisonError::into_inner).apply(key, version, value);
        if let Some(slot) = applied.and_then(|applied| applied.buried) {
            self.core.indexes.iter().for_each(|(_, index)| index.bury(slot));
        }
    }

    /// Opens a log anew that a failed flush has ended, and applies what was in doubt and turns out to be there.
    fn heal(&mut self) -> Result<(), LogError> {
        let is_soon = self.tried.is_some_and(|tried| tried.elapsed() < HEAL_PAUSE);
        if !self.log.is_poisoned() || is_soon {
            return Ok(());
        }
        self.tried = Some(Instant::now());
        let log = self.reopen.open(self.core.id)?;
        let mut applied = 0;
        log.replay(self.core.next_lsn.load(Ordering::Acquire), &mut |_, bytes| {
            let record = record::decode(bytes)?;
            let key = self.core.key(&record.id);
            let known = self.core.tables().version(&key);
            if known.is_none_or(|known| known < record.version) {
                self.apply(key, record);
                applied += 1;
            }
            Ok(())
        })?;
        self.log = log;
        self.tried = None;
        self.core.next_lsn.store(self.log.next_lsn(), Ordering::Release);
        info!(collection = self.core.name, applied, "opened the log again after a failed flush");
        Ok(())
    }

    fn flush_if_due(&mut self) {
        if let Err(reason) = self.log.commit() {
            error!(collection = self.core.name, %reason, "the log could not be flushed");
        }
    }

    fn cut_log(&mut self, before: u64) {
        match self.log.truncate_before(before) {
            Ok(freed) => debug!(collection = self.core.name, before, freed, "cut the log behind the older snapshot"),
            Err(reason) => error!(collection = self.core.name, %reason, "the log could not be cut"),
        }
        self.core.log_bytes.store(self.log.bytes(), Ordering::Relaxed);
    }
}
