//! What writes a collection: groups of batches are logged, flushed once, and applied in order. Synchronous and without
//! a thread or a queue of its own: [`Collection`](crate::Collection) has both, and
//! [`LocalCollection`](crate::LocalCollection) neither.
//!
//! What has to be stored is known to have memory before it is logged. A disk that cannot be written refuses puts and
//! changes nothing; where it is full, deletes go on, at last in the room of the ballast. A flush that fails ends the
//! log, for it is unknown what is on the disk; the writer opens it anew before the next group, which puts on the disk
//! what was in doubt, and applies that too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tracing::{debug, error, info};
use vecino_model::{CollectionId, CollectionSchema, Outcome, Parts, Record, RecordValue, validate};
use vecino_storage::{Log, LogError};
use vecino_supervise::caught;

use crate::core::Core;
use crate::disk_fault::DiskFault;
use crate::faults::Faults;
use crate::group::{Accepted, Group, InBatch};
use crate::key::Key;
use crate::linking::{Linkable, link_some};
use crate::persist::opening::{LogPlace, Opened};
use crate::record;
use crate::slots::Slots;
use crate::tables::Tables;

/// Bytes of vectors of one field that may wait for the indexers. Each is searched exactly until it is linked, and that many
/// are read in some hundredths of a second: above this the writer helps linking, which slows down puts.
const UNLINKED_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Fewer buried slots than this are never worth a wait.
const BURIED_MIN: usize = 10_000;

/// Slots that the writer links at a time when the indexers are behind.
const HELP_SLOTS: usize = 64;

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

/// Writes one collection.
pub(crate) struct Writer {
    core: Arc<Core>,
    log: Log,
    log_place: LogPlace,
    /// Pause between attempts to open the log anew.
    heal_pause: Duration,
    /// When opening a log that had failed was last tried.
    tried: Option<Instant>,
    /// What was last wrong with the disk, until something is written again.
    fault: Option<DiskFault>,
    slots: Slots,
}

impl Writer {
    /// The writer of what was opened, which nobody has begun to link.
    pub fn new(opened: Opened, id: CollectionId, schema: CollectionSchema, heal_pause: Duration) -> Self {
        let Opened { tables, fields, log, log_place, snapshots, snapshot_lsn, replayed_bytes, share } = opened;
        fields.ask_before_growing(share.account.budget());
        // Before anything is consolidated: slots that become vacant from then on are handed out by the indexes.
        let slots = Slots::of(&tables, &fields);
        let core = Core {
            name: share.account.collection().to_owned(),
            id,
            schema,
            tables: RwLock::new(tables),
            fields,
            snapshots: Mutex::new(snapshots),
            next_lsn: AtomicU64::new(log.next_lsn()),
            snapshot_lsn: AtomicU64::new(snapshot_lsn),
            log_bytes: AtomicU64::new(log.bytes()),
            logged_bytes: AtomicU64::new(replayed_bytes),
            snapshot_logged_bytes: AtomicU64::new(0),
            faults: Faults::default(),
            share,
        };
        Self { core: Arc::new(core), log, log_place, heal_pause, tried: None, fault: None, slots }
    }

    /// What readers share with it.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Adds a batch to a group, deciding which of its records are to be logged.
    pub fn admit(&mut self, records: Vec<Record>, group: &mut Group) {
        let batch = group.begin_batch(records.iter().map(record::encoded_bytes).sum());
        let puts = PutRules {
            closed: self.core.share.resources.ballast.puts_closed(),
            vacant: self.slots.vacant(&self.core.tables(), &self.core.fields),
        };
        let numbered = records.into_iter().enumerate();
        let outcomes = numbered.map(|(number, record)| self.admit_one(record, (batch, number), &puts, group)).collect();
        group.add_batch(outcomes);
    }

    /// Logs and flushes what was admitted, and applies it. Whether anything was applied.
    pub fn write(&mut self, group: &mut Group) -> bool {
        self.make_slots(group);
        self.log(group);
        if group.accepted.is_empty() {
            return false;
        }
        for Accepted { in_batch: _, key, record, norms, encoded: _ } in std::mem::take(&mut group.accepted) {
            self.apply(key, record, Some(&group.norms[norms]));
        }
        self.core.logged_bytes.fetch_add(group.bytes as u64, Ordering::AcqRel);
        self.core.next_lsn.store(self.log.next_lsn(), Ordering::Release);
        self.core.log_bytes.store(self.log.bytes(), Ordering::Relaxed);
        self.core.settle_memory();
        true
    }

    /// Does what linking and consolidation are too far behind with. `linkable` is the collection.
    pub fn catch_up(&self, linkable: &dyn Linkable) {
        // Searches pay for every unlinked slot, so puts wait for linking before the tail grows long.
        while self.core.fields.unlinked_bytes() > UNLINKED_BYTES_MAX && !self.core.faults.is_linking_given_up() {
            help(linkable, || _ = link_some(linkable, HELP_SLOTS));
        }
        // New slots are used up for as long as what is buried waits to leave the graph.
        for index in linkable.indexes() {
            let mut is_more = true;
            while is_more && index.deleted() > BURIED_MIN.max(index.len_live() / 2) {
                is_more = false;
                help(linkable, || is_more = index.consolidate(HELP_SLOTS));
            }
        }
    }

    /// Makes everything logged so far durable; gives the lsn that comes next.
    pub fn flush(&mut self) -> Result<u64, LogError> {
        self.log.flush().map(|_| self.log.next_lsn())
    }

    /// Makes what was logged durable where the schema says that it is time.
    pub fn flush_if_due(&mut self) {
        if let Err(reason) = self.log.commit() {
            error!(collection = self.core.name, %reason, "the log could not be flushed");
        }
    }

    /// Removes log segments that snapshots have made superfluous. `before` is the first lsn that must stay.
    pub fn cut_log(&mut self, before: u64) {
        match self.log.truncate_before(before) {
            Ok(freed) => debug!(collection = self.core.name, before, freed, "cut the log behind the older snapshot"),
            Err(reason) => error!(collection = self.core.name, %reason, "the log could not be cut"),
        }
        self.core.log_bytes.store(self.log.bytes(), Ordering::Relaxed);
    }

    /// Decides whether a record is to be logged, before anything is.
    fn admit_one(&self, record: Record, in_batch: InBatch, puts: &PutRules, group: &mut Group) -> Outcome {
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
        let known = self.core.tables().version(&key);
        if let Some(known) = known.filter(|known| *known >= record.version) {
            // Versions are unique; a stamp that is sent with another value was made up, or copied.
            if known == record.version && !self.is_stored(&record) {
                let (id, version) = (&record.id, record.version);
                return Outcome::Refused(format!(
                    "version {version} of point {id:?} belongs to another value here: ask for another stamp"
                ));
            }
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

    /// Whether this very record is what its point is, or was overwritten just now.
    fn is_stored(&self, record: &Record) -> bool {
        let stored = self.core.read_parts(std::slice::from_ref(&record.id), Parts::ALL).pop().flatten();
        stored.is_none_or(|stored| stored.version != record.version || stored.value == record.value)
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
        let is_soon = self.tried.is_some_and(|tried| tried.elapsed() < self.heal_pause);
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
}

/// Does a part of what others have not come to do. A panic in it is no reason to write no more.
fn help(linkable: &dyn Linkable, work: impl FnOnce()) {
    if let Err(panic) = caught("helping to link", work) {
        linkable.panicked(&panic);
    }
}
