//! Opening a collection: its newest usable snapshot, and its log from there on.

use std::sync::Arc;

use tracing::{info, warn};
use vecino_index::Slot;
use vecino_model::{CollectionId, CollectionSchema, Fsync, Record, RecordValue, position};
use vecino_storage::{Disk, Log, LogError, LogOptions, SnapshotStore, SyncPolicy};

use crate::fields::FieldIndexes;
use crate::key::Key;
use crate::memory::Account;
use crate::persist::errors::{LoadError, OpenError};
use crate::persist::loading::load;
use crate::persist::paths::{log_dir, snapshots_dir};
use crate::progress::{Phase, Progress};
use crate::record;
use crate::resources::Share;
use crate::tables::Tables;

/// Bytes of one log segment.
pub(crate) const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Records that are replayed before memory is asked for again.
const CHUNK: u64 = 1024;

/// A collection's parts, opened.
pub(crate) struct Opened {
    pub tables: Tables,
    pub fields: FieldIndexes,
    pub log: Log,
    pub log_place: LogPlace,
    pub snapshots: SnapshotStore,
    pub snapshot_lsn: u64,
    pub replayed_bytes: u64,
    pub share: Share,
}

/// Where a log is, to open it again.
pub(crate) struct LogPlace {
    disk: Arc<dyn Disk>,
    directory: String,
    options: LogOptions,
}

impl LogPlace {
    /// Opens the log again; recovery settles what was in doubt.
    pub fn reopen(&self, id: CollectionId) -> Result<Log, LogError> {
        Ok(Log::open(Arc::clone(&self.disk), &self.directory, id.0, self.options)?.0)
    }
}

/// Loads the newest usable snapshot and replays the log behind it.
pub(crate) fn recover(
    disk: Arc<dyn Disk>,
    directory: &str,
    id: CollectionId,
    schema: &CollectionSchema,
    segment_bytes: u64,
    share: Share,
    progress: &Progress,
) -> Result<Opened, OpenError> {
    let sync = match schema.fsync {
        Fsync::Always => SyncPolicy::Always,
        Fsync::EveryMs(ms) => SyncPolicy::EveryMs(ms),
        Fsync::Never => SyncPolicy::Never,
    };
    let options = LogOptions { segment_bytes, sync };
    let snapshots = SnapshotStore::open(Arc::clone(&disk), &snapshots_dir(directory))?;
    let log_place = LogPlace { disk, directory: log_dir(directory), options };
    let (log, recovery) = Log::open(Arc::clone(&log_place.disk), &log_place.directory, id.0, options)?;
    if recovery.torn_bytes_cut > 0 {
        warn!(directory, bytes = recovery.torn_bytes_cut, "the log ended in a write that never finished; cut it");
    }
    let (mut tables, fields, snapshot_lsn) =
        load_newest(&snapshots, id, schema, recovery.first_lsn, &share.account, progress)?;
    progress.begin(Phase::Replay, log.next_lsn().saturating_sub(snapshot_lsn));
    let (mut replayed, mut replayed_bytes) = (0u64, 0u64);
    let mut over_limit = None;
    let done = log.replay(snapshot_lsn, &mut |lsn, bytes| {
        if replayed.is_multiple_of(CHUNK)
            && let Err(over) = share.account.open_with(memory_bytes(&tables, &fields))
        {
            over_limit = Some(over.clone());
            return Err(over.into());
        }
        replay_one(&mut tables, &fields, id, bytes).map_err(|reason| OpenError::Record { lsn, reason })?;
        replayed += 1;
        progress.add(1);
        replayed_bytes += bytes.len() as u64;
        Ok(())
    });
    if let Some(over) = over_limit {
        return Err(OpenError::Memory(over));
    }
    done?;
    share.account.open_with(memory_bytes(&tables, &fields)).map_err(OpenError::Memory)?;
    info!(directory, snapshot_lsn, replayed, points = tables.live(), "opened collection");
    Ok(Opened { tables, fields, log, log_place, snapshots, snapshot_lsn, replayed_bytes, share })
}

fn load_newest(
    snapshots: &SnapshotStore,
    id: CollectionId,
    schema: &CollectionSchema,
    first_lsn: u64,
    account: &Account,
    progress: &Progress,
) -> Result<(Tables, FieldIndexes, u64), OpenError> {
    let mut reason = String::new();
    for snapshot in snapshots.snapshots() {
        let lsn = snapshot.lsn();
        match load(&snapshot, id, schema, account, progress) {
            Ok((tables, fields)) => return Ok((tables, fields, lsn)),
            // The older one would not fit either, and nothing is wrong with this one.
            Err(LoadError::Memory(over)) => return Err(OpenError::Memory(over)),
            Err(error) => {
                warn!(lsn, error = causes(&error), "a snapshot cannot be used; trying what is older");
                reason = causes(&error);
            }
        }
    }
    if first_lsn > 1 {
        if reason.is_empty() {
            reason = "there is none".to_owned();
        }
        return Err(OpenError::Incomplete { first_lsn, reason });
    }
    Ok((Tables::default(), FieldIndexes::new(id, schema)?, 1))
}

/// An error with what caused it: which page it was, and where.
fn causes(error: &LoadError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn memory_bytes(tables: &Tables, fields: &FieldIndexes) -> u64 {
    (tables.memory_bytes() + fields.memory_bytes()) as u64
}

fn replay_one(
    tables: &mut Tables,
    fields: &FieldIndexes,
    collection: CollectionId,
    bytes: &[u8],
) -> Result<(), String> {
    let Record { id, version, value } = record::decode(bytes).map_err(|error| error.to_string())?;
    let key = Key { position: position(collection, &id), id };
    if tables.version(&key).is_some_and(|known| known >= version) {
        return Ok(());
    }
    let slot = tables.slots() as Slot;
    let value = match value {
        None => None,
        Some(RecordValue { vectors, payload }) => {
            fields.store(slot, &vectors).map_err(|error| error.to_string())?;
            Some((slot, payload.into_bytes()))
        }
    };
    if let Some(buried) = tables.apply(key, version, value).and_then(|applied| applied.buried) {
        fields.mark_deleted(buried);
    }
    Ok(())
}
