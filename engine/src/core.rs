//! What the readers, the writer and those that link slots of one collection share.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use vecino_index::{Index, Reading};
use vecino_model::{CollectionId, CollectionSchema, Fields, Parts, PointId, RawPayload, Record, RecordValue, position};
use vecino_storage::SnapshotStore;
use vecino_supervise::Panicked;

use crate::faults::Faults;
use crate::fields::FieldIndexes;
use crate::key::{Entry, Key};
use crate::linking::Linkable;
use crate::resources::Share;
use crate::tables::Tables;

/// What readers, the writer and those that link slots share.
pub(crate) struct Core {
    pub(crate) name: String,
    pub(crate) id: CollectionId,
    pub(crate) schema: CollectionSchema,
    pub(crate) tables: RwLock<Tables>,
    pub(crate) fields: FieldIndexes,
    pub(crate) snapshots: Mutex<SnapshotStore>,
    /// The tables hold every record before this log sequence number.
    pub(crate) next_lsn: AtomicU64,
    /// The last snapshot holds every record before this one.
    pub(crate) snapshot_lsn: AtomicU64,
    pub(crate) log_bytes: AtomicU64,
    /// Bytes of records logged, and how many of them the last snapshot covers; those replayed on opening count.
    pub(crate) logged_bytes: AtomicU64,
    pub(crate) snapshot_logged_bytes: AtomicU64,
    pub(crate) faults: Faults,
    pub(crate) share: Share,
}

impl Core {
    pub(crate) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn key(&self, id: &PointId) -> Key {
        Key { position: position(self.id, id), id: id.clone() }
    }

    /// While it lives, what a slot of the tables holds stays what it is.
    pub(crate) fn reading(&self) -> Vec<Reading<'_>> {
        self.fields.reading()
    }

    /// The record of a point, with these parts of it.
    pub(crate) fn record(&self, id: PointId, entry: Entry, parts: Parts) -> Record {
        let Entry { version, live } = entry;
        let value = live.map(|live| RecordValue {
            vectors: if parts.vectors { self.fields.vectors(live.slot) } else { Fields::new() },
            payload: if parts.payload { RawPayload::from_bytes(live.payload.clone()) } else { RawPayload::default() },
        });
        Record { id, version, value }
    }

    /// Has the account say what the collection really takes.
    pub(crate) fn settle_memory(&self) {
        let tables = self.tables().memory_bytes();
        self.share.account.hold((self.fields.memory_bytes() + tables) as u64);
    }
}

impl Linkable for Core {
    fn indexes(&self) -> Vec<&Index> {
        if self.faults.is_linking_given_up() {
            return Vec::new();
        }
        self.fields.graphs().collect()
    }

    fn panicked(&self, panic: &Panicked) {
        self.faults.linking_panicked(panic);
    }
}
