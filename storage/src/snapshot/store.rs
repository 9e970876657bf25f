//! The snapshots in one directory.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::error::SnapshotError;
use super::reader::Snapshot;
use super::shared::{SNAPSHOTS_KEPT, Shared};
use super::writer::SnapshotWriter;
use crate::disk::Disk;

/// The snapshots in one directory: `*.manifest` there, the pages in `pages/`.
pub struct SnapshotStore {
    shared: Arc<Shared>,
}

impl SnapshotStore {
    /// Opens the snapshots in `dir`, making it where there is none, and removes what an interrupted one has left.
    ///
    /// A damaged manifest is no error here, see [`SnapshotStore::latest`]; one of a newer format is.
    pub fn open(disk: Arc<dyn Disk>, dir: &str) -> Result<Self, SnapshotError> {
        let shared = Shared { disk, dir: dir.to_owned(), state: Mutex::default() };
        let pages = shared.pages_dir();
        shared.disk.create_dir_all(&pages).map_err(|source| SnapshotError::io("make directory", &pages, source))?;
        shared.load()?;
        shared.collect();
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The newest snapshot whose manifest verifies; `None` where none was ever completed.
    ///
    /// Where the newest manifest is damaged, the older one is taken, and a warning says why. Where there are manifests
    /// and none verifies, that is an error; the log from lsn 1 is then the way back, if it still reaches there.
    pub fn latest(&self) -> Result<Option<Snapshot>, SnapshotError> {
        if let Some(snapshot) = self.snapshots().into_iter().next() {
            return Ok(Some(snapshot));
        }
        match &self.shared.lock().damage {
            Some(damage) => Err(damage.again()),
            None => Ok(None),
        }
    }

    /// Every snapshot whose manifest verifies, newest first: where reading the first fails, the next may serve.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let mut state = self.shared.lock();
        let manifests: Vec<_> = state.kept.iter().map(|kept| (kept.path.clone(), kept.manifest.clone())).collect();
        state.open.retain(|manifest| manifest.strong_count() > 0);
        state.open.extend(manifests.iter().map(|(_, manifest)| Arc::downgrade(manifest)));
        manifests.into_iter().map(|(path, manifest)| Snapshot::new(self.shared.clone(), path, manifest)).collect()
    }

    /// Begins a snapshot that holds every record before `lsn`: a replay of the log from `lsn` on completes it.
    ///
    /// One at a time. Dropped unfinished, the writer takes back what it wrote.
    pub fn begin(&self, lsn: u64) -> Result<SnapshotWriter<'_>, SnapshotError> {
        let mut state = self.shared.lock();
        if state.writing {
            return Err(SnapshotError::InProgress { dir: self.shared.dir.clone() });
        }
        state.writing = true;
        let mut known = HashSet::new();
        state.kept.iter().for_each(|kept| known.extend(kept.manifest.pages().copied()));
        state.bad_pages.iter().for_each(|page| {
            known.remove(page);
        });
        let sequence = state.next_sequence;
        drop(state);
        Ok(SnapshotWriter::new(&self.shared, lsn, sequence, known))
    }

    /// Lsn of the older of the two kept snapshots: the log may be cut before it, and no further. `None` while there are
    /// not two, because then the log is the only way back from a damaged snapshot.
    pub fn oldest_kept_lsn(&self) -> Option<u64> {
        let state = self.shared.lock();
        if state.kept.len() < SNAPSHOTS_KEPT {
            return None;
        }
        state.kept.iter().map(|kept| kept.manifest.lsn).min()
    }
}
