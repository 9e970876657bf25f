//! The one thread that writes a collection: it drains its queue into one batch, logs, flushes once, applies in order.
//!
//! What has to be stored is known to have memory before it is logged. A disk that cannot be written refuses puts and
//! changes nothing; where it is full, deletes go on, at last in the room of the ballast. A flush that fails ends the log,
//! for it is unknown what is on the disk; the writer opens it anew before the next batch, which puts on the disk what was
//! in doubt, and applies that too.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info};
use vecino_model::{Fsync, Outcome, Record, RecordValue, validate};
use vecino_storage::{Log, LogError};
use vecino_supervise::caught;

use crate::core::Core;
use crate::disk_fault::DiskFault;
use crate::group::{Accepted, Answer, Group, InBatch};
use crate::indexers::{Linkable, link_some};
use crate::key::Key;
use crate::persist::opening::LogPlace;
use crate::record;
use crate::slots::Slots;
use crate::tables::Tables;

/// Bytes of vectors of one field that may wait for the indexers. Each is searched exactly until it is linked, and that many
/// are read in some hundredths of a second: above this the writer helps linking, which slows down puts.
const UNLINKED_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Bytes of records after which a batch is not made larger.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Pause between attempts to open a log anew.
const HEAL_PAUSE: Duration = Duration::from_secs(1);

/// Fewer buried slots than this are never worth a wait.
const BURIED_MIN: usize = 10_000;

/// Slots that the writer links at a time when the indexers are behind.
const HELP_SLOTS: usize = 64;

/// What the writer can be told.
pub(crate) enum Command {
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

/// What puts have to pass beside being valid and new.
struct PutRules {
    /// Why none are taken now.
    closed: Option<String>,
    /// Slots that are used again before new ones are.
    vacant: usize,
}

/// Records that were not logged.
struct Failure {
    fault: DiskFault,
    reason: String,
    /// Whether they may be on the disk all the same.
    is_in_doubt: bool,
}

impl Failure {
    fn left_room_for_deletes(&self) -> bool {
        self.fault == DiskFault::Full && !self.is_in_doubt
    }
}

/// Runs until every sender of its queue is gone.
pub(crate) fn run(
    core: &Arc<Core>,
    (log, log_place): (Log, LogPlace),
    slots: Slots,
    commands: &mut mpsc::Receiver<Command>,
    runtime: &tokio::runtime::Handle,
) {
    Writer { core, log, log_place, tried: None, fault: None, commands, slots }.run(runtime);
}

struct Writer<'a> {
    core: &'a Arc<Core>,
    log: Log,
    log_place: LogPlace,
    /// When opening a log that had failed was last tried.
    tried: Option<Instant>,
    /// What was last wrong with the disk, until something is written again.
    fault: Option<DiskFault>,
    commands: &'a mut mpsc::Receiver<Command>,
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
    fn take(&mut self, command: Command, group: &mut Group) {
        match command {
            Command::CutLog { before } => group.cut = Some(before),
            Command::Flush { answer } => group.flushes.push(answer),
            Command::Apply { records, answer } => {
                let batch = group.begin_batch(records.iter().map(record::encoded_bytes).sum());
                let puts = PutRules {
                    closed: self.core.share.resources.ballast.puts_closed(),
                    vacant: self.slots.vacant(&self.core.tables(), &self.core.fields),
                };
                let numbered = records.into_iter().enumerate();
                let outcomes =
                    numbered.map(|(number, record)| self.admit(record, (batch, number), &puts, group)).collect();
                group.add_batch(answer, outcomes);
            }
        }
    }

    /// Decides whether a record is to be logged, before anything is.
    fn admit(&self, record: Record, in_batch: InBatch, puts: &PutRules, group: &mut Group) -> Outcome {
        let norms_before = group.norms.len();
        if let Some(RecordValue { vectors, payload }) = &record.value {
            // Once, for the index too: what other nodes send is not trusted.
            let checked = validate::payload(payload)
                .and_then(|()| validate::norms(&self.core.schema, vectors, |norm| group.norms.push(norm)));
            if let Err(invalid) = checked {
                return Outcome::Refused(invalid.to_string());
            }
        }
        let norms = norms_before..group.norms.len();
        let key = self.core.key(&record.id);
        if let Some(pending) = group.pending(&key).filter(|pending| *pending >= record.version) {
            return group.overtake(in_batch, key, pending);
        }
        if let Some(known) = self.core.tables().version(&key).filter(|known| *known >= record.version) {
            return Outcome::Written(known);
        }
        if let Some(value) = &record.value {
            if let Some(reason) = &puts.closed {
                return self.unavailable(reason);
            }
            // The highest slot that this put may come to lie in is below this one.
            let end = self.core.tables().slots() + (group.puts + 1).saturating_sub(puts.vacant);
            let slot = self.core.fields.bytes_beyond(&group.extent, &value.vectors, end);
            let bytes = slot + Tables::point_bytes(&record.id, value.payload.as_bytes().len());
            if let Err(over) = self.core.share.account.reserve(&mut group.room, bytes as u64) {
                return Outcome::Unavailable(over.to_string());
            }
            self.core.fields.extend(&mut group.extent, &value.vectors, end);
        }
        let encoded = record::encode_behind(&record, group.encoded());
        if encoded.len() > vecino_storage::RECORD_BYTES_MAX {
            group.encoded().truncate(encoded.start);
            return Outcome::Refused(format!(
                "the point takes {} bytes in the log: at most {} are allowed",
                encoded.len(),
                vecino_storage::RECORD_BYTES_MAX
            ));
        }
        group.accept(Accepted { in_batch, key, record, norms, encoded })
    }

    /// Logs, flushes, applies, answers.
    fn write(&mut self, mut group: Group) {
        self.make_slots(&mut group);
        self.log(&mut group);
        if !group.accepted.is_empty() {
            for Accepted { in_batch: _, key, record, norms, encoded: _ } in std::mem::take(&mut group.accepted) {
                self.apply(key, record, Some(&group.norms[norms]));
            }
            self.core.logged_bytes.fetch_add(group.bytes as u64, Ordering::AcqRel);
            self.core.next_lsn.store(self.log.next_lsn(), Ordering::Release);
            self.core.log_bytes.store(self.log.bytes(), Ordering::Relaxed);
            self.core.settle_memory();
            self.core.wake_indexers();
        }
        drop(group.room.take());
        group.answer();
        // Searches pay for every unlinked slot, so puts wait for linking before the tail grows long.
        while self.core.fields.unlinked_bytes() > UNLINKED_BYTES_MAX && !self.core.faults.is_linking_given_up() {
            self.help(|| _ = link_some(&**self.core, HELP_SLOTS));
        }
        // New slots are used up for as long as what is buried waits to leave the graph.
        for index in self.core.indexes() {
            let mut is_more = true;
            while is_more && index.deleted() > BURIED_MIN.max(index.len_live() / 2) {
                is_more = false;
                self.help(|| is_more = index.consolidate(HELP_SLOTS));
            }
        }
    }

    /// Does a part of what is for the indexers to do. A panic in it is no reason to write no more.
    fn help(&self, work: impl FnOnce()) {
        if let Err(panic) = caught("helping to link", work) {
            self.core.panicked(&panic);
        }
    }

    /// Has the indexes make room for what is to be stored, for once it is logged it must be stored.
    fn make_slots(&mut self, group: &mut Group) {
        if let Err(reason) = self.core.fields.reserve(&group.extent) {
            error!(collection = self.core.name, %reason, "puts are refused: the system gives no memory");
            group.give_up_puts(&self.unavailable(&reason));
        }
    }

    /// Logs and flushes what was accepted; what cannot be is taken out of the group.
    fn log(&mut self, group: &mut Group) {
        if group.accepted.is_empty() {
            return;
        }
        let Err(mut failure) = self.append(group) else { return };
        if failure.left_room_for_deletes() {
            group.give_up_puts(&self.told(&failure));
            // Deletes are small, so they may fit where puts do not; and if not, there is the ballast.
            for attempt in [|_: &Self| true, |writer: &Self| writer.core.share.resources.ballast.release()] {
                if group.accepted.is_empty() || !failure.left_room_for_deletes() || !attempt(self) {
                    break;
                }
                match self.append(group) {
                    Ok(()) => return,
                    Err(again) => failure = again,
                }
            }
        }
        group.give_up(|_| true, &self.told(&failure));
    }

    fn append(&mut self, group: &Group) -> Result<(), Failure> {
        let mut is_in_doubt = false;
        let logged = self.heal().and_then(|()| {
            let was_poisoned = self.log.is_poisoned();
            let appended = self.log.append(&group.logged());
            // A batch that could not be written in full, and not be cut off either, may turn up again.
            is_in_doubt = appended.is_ok() || self.log.is_poisoned() && !was_poisoned;
            appended.and_then(|_| self.log.commit())
        });
        let before = self.fault;
        let Err(reason) = logged else {
            self.fault = None;
            if before.is_some() {
                info!(collection = self.core.name, "writes are logged again");
            }
            return Ok(());
        };
        // A log that was ended by a failure is refused for no other reason than that.
        let fault = DiskFault::of(&reason).or(before).unwrap_or(DiskFault::Other);
        self.fault = Some(fault);
        if self.fault != before {
            error!(collection = self.core.name, %reason, "a write was not logged");
        }
        Err(Failure { fault, reason: reason.to_string(), is_in_doubt })
    }

    fn told(&self, failure: &Failure) -> Outcome {
        let Failure { fault, reason, is_in_doubt } = failure;
        if *is_in_doubt {
            Outcome::Unknown(format!("collection {:?} may have logged this or not: {fault} ({reason})", self.core.name))
        } else {
            self.unavailable(format_args!("{fault} ({reason})"))
        }
    }

    fn unavailable(&self, reason: impl std::fmt::Display) -> Outcome {
        Outcome::Unavailable(format!("collection {:?} cannot take this now: {reason}", self.core.name))
    }

    /// Makes one logged record the newest version of its point. `norms` are those of its vectors, where they were checked.
    fn apply(&mut self, key: Key, record: Record, norms: Option<&[f64]>) {
        let Record { id: _, version, value } = record;
        let value = value.map(|RecordValue { vectors, payload }| {
            let slot = self.slots.take(&self.core.tables(), &self.core.fields);
            let stored = match norms {
                Some(norms) => self.core.fields.store_checked(slot, &vectors, norms),
                None => self.core.fields.store(slot, &vectors),
            };
            if let Err(reason) = stored {
                // The vector was checked and its slot made before it was logged; the point is there, and only this
                // field cannot find it.
                error!(collection = self.core.name, slot, %reason, "an index refused a vector");
            }
            (slot, payload.into_bytes())
        });
        let applied = self.core.tables.write().unwrap_or_else(PoisonError::into_inner).apply(key, version, value);
        if let Some(slot) = applied.and_then(|applied| applied.buried) {
            self.core.fields.mark_deleted(slot);
        }
    }

    /// Opens a log anew that a failed flush has ended, and applies what was in doubt and turns out to be there.
    fn heal(&mut self) -> Result<(), LogError> {
        let is_soon = self.tried.is_some_and(|tried| tried.elapsed() < HEAL_PAUSE);
        if !self.log.is_poisoned() || is_soon {
            return Ok(());
        }
        self.tried = Some(Instant::now());
        let log = self.log_place.reopen(self.core.id)?;
        let mut applied = 0;
        log.replay(self.core.next_lsn.load(Ordering::Acquire), &mut |_, bytes| {
            let record = record::decode(bytes)?;
            let key = self.core.key(&record.id);
            let known = self.core.tables().version(&key);
            if known.is_none_or(|known| known < record.version) {
                self.apply(key, record, None);
                applied += 1;
            }
            Ok(())
        })?;
        self.log = log;
        self.tried = None;
        self.core.next_lsn.store(self.log.next_lsn(), Ordering::Release);
        self.core.settle_memory();
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
