//! Taking a snapshot of a collection.
//!
//! A snapshot is fuzzy: it runs beside the writer. It holds every record before its lsn, and perhaps later ones;
//! replaying the log from its lsn puts those right, since applying a record twice changes nothing. The slot table is
//! written before the indexes, so a slot that it names has its vectors in the index arenas that follow; slots in the
//! arenas that the table does not name are buried on loading.

use std::borrow::Cow;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, TryLockError};

use vecino_index::{ArenaSink, Slot};
use vecino_storage::SnapshotSummary;

use crate::core::Core;
use crate::key::{Entry, Key, Live};
use crate::persist::errors::TakeError;
use crate::persist::layout::{FORMAT, META, Meta, POINTS, TOMBSTONES, field_arena};
use crate::persist::pace::Paced;
use crate::record::{self, ENTRY_BYTES_MAX, SnapshotEntry};

/// Slots or entries that are copied under one read lock.
const CHUNK: usize = 1024;

/// Takes a snapshot; gives also the lsn before which the log may be cut.
///
/// `flush` makes the log durable and gives its next lsn, before which every record is in the tables.
pub(crate) fn take(
    core: &Core,
    mut flush: impl FnMut() -> Result<u64, TakeError>,
) -> Result<(SnapshotSummary, Option<u64>), TakeError> {
    let store = match core.snapshots.try_lock() {
        Ok(store) => store,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return Err(TakeError::Busy(core.name.clone())),
    };
    let logged_bytes = core.logged_bytes.load(Ordering::Acquire);
    let lsn = flush()?;
    let mut writer = store.begin(lsn)?;
    // A slot that the table names has its vector in the indexes, however long that takes.
    let reading = core.reading();
    write_arenas(core, &mut Paced::new(&core.logged_bytes, &mut writer))?;
    drop(reading);
    // A version that was overwritten meanwhile is in the snapshot no more, so what overwrote it must be as durable.
    flush()?;
    let summary = writer.finish()?;
    core.snapshot_lsn.store(lsn, Ordering::Release);
    core.snapshot_logged_bytes.store(logged_bytes, Ordering::Release);
    Ok((summary, store.oldest_kept_lsn()))
}

fn write_arenas(core: &Core, writer: &mut Paced<'_, '_>) -> io::Result<()> {
    let fields = core.fields.names().cloned().collect();
    writer.begin_arena(META)?;
    write_entry(writer, &Meta { format: FORMAT, collection: core.id, fields }.encode())?;

    writer.begin_arena(POINTS)?;
    let slots = core.tables().slots();
    for first in (0..slots).step_by(CHUNK) {
        let chunk: Vec<Arc<Live>> = {
            let tables = core.tables();
            (first..(first + CHUNK).min(slots)).filter_map(|slot| tables.in_slot(slot as Slot).cloned()).collect()
        };
        for live in chunk {
            let Live { key, version, slot, payload } = &*live;
            let (id, payload) = (Cow::Borrowed(&key.id), Cow::Borrowed(&**payload));
            let entry = SnapshotEntry { id, version: *version, slot: Some(*slot), payload };
            write_entry(writer, &record::encode_entry(&entry))?;
        }
    }

    writer.begin_arena(TOMBSTONES)?;
    let mut after: Option<Key> = None;
    loop {
        let chunk: Vec<_> = {
            let tables = core.tables();
            let seen = |(key, entry): (Key, &Entry)| (key, entry.version, entry.live.is_none());
            tables.after(after.as_ref(), CHUNK).map(seen).collect()
        };
        let Some((last, _, _)) = chunk.last() else { break };
        after = Some(last.clone());
        for (key, version, _) in chunk.into_iter().filter(|(_, _, tombstone)| *tombstone) {
            let (id, payload) = (Cow::Borrowed(&key.id), Cow::Borrowed([].as_slice()));
            write_entry(writer, &record::encode_entry(&SnapshotEntry { id, version, slot: None, payload }))?;
        }
    }

    for (number, index) in core.fields.all().enumerate() {
        index.dump(&mut FieldSink { writer, number })?;
    }
    Ok(())
}

/// Writes an entry behind its length.
fn write_entry(writer: &mut Paced<'_, '_>, entry: &[u8]) -> io::Result<()> {
    if entry.len() > ENTRY_BYTES_MAX {
        let told = format!("an entry of {} bytes is over the limit of {ENTRY_BYTES_MAX}", entry.len());
        return Err(io::Error::other(told));
    }
    writer.write(&(entry.len() as u32).to_le_bytes())?;
    writer.write(entry)
}

/// The arenas of one field's index, each under the field's number.
struct FieldSink<'w, 'p, 's> {
    writer: &'w mut Paced<'p, 's>,
    number: usize,
}

impl ArenaSink for FieldSink<'_, '_, '_> {
    fn begin(&mut self, arena: &str) -> io::Result<()> {
        self.writer.begin_arena(&field_arena(self.number, arena))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write(bytes)
    }
}
