//! Snapshots: named arenas, cut into pages that are named by their contents, listed in a manifest.
//!
//! Pages that two snapshots have in common are on disk once. A snapshot exists from the moment that its manifest has its
//! name; before that, and after it was dropped, its pages are garbage that the next collection removes. Two are kept, so
//! that the older can stand in for a damaged newer one; the log is cut only behind the older. Bytes are drawn in
//! `docs/disk.md`.

mod error;
mod inspect;
mod manifest;
mod reader;
mod writer;

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

pub use error::SnapshotError;
pub use inspect::{InspectedSnapshot, SnapshotsInspection, inspect_snapshots};
pub use manifest::{ARENA_NAME_BYTES_MAX, ARENAS_MAX, PAGE_BYTES, SNAPSHOT_FORMAT_VERSION};
pub use reader::{ArenaPages, ArenaReader, Snapshot};
pub use writer::{SnapshotSummary, SnapshotWriter};

use crate::disk::{Disk, join, read_whole};
use crate::file::TEMPORARY_SUFFIX;
use manifest::{MANIFEST_BYTES_MAX, Manifest, PageName};

/// The snapshots in one directory: `*.manifest` there, the pages in `pages/`.
pub struct SnapshotStore {
    shared: Arc<Shared>,
}

/// What store, writer and open snapshots have in common.
struct Shared {
    disk: Arc<dyn Disk>,
    dir: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Manifests that verify, newest first; at most [`SNAPSHOTS_KEPT`].
    kept: Vec<Kept>,
    /// Manifests that do not verify or may not be gone, by path. They go when a new snapshot is complete.
    damaged: Vec<String>,
    /// Why the newest of them does not.
    damage: Option<SnapshotError>,
    /// Manifests that someone may still read, though no longer kept.
    open: Vec<Weak<Manifest>>,
    /// Pages that did not verify when they were read: the next snapshot writes them anew.
    bad_pages: HashSet<PageName>,
    next_sequence: u64,
    writing: bool,
}

struct Kept {
    path: String,
    manifest: Arc<Manifest>,
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
        Ok(SnapshotWriter::new(self, lsn, sequence, known))
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

    fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn pages_dir(&self) -> String {
        join(&self.dir, PAGES_DIR)
    }

    fn page_path(&self, page: &PageName) -> String {
        join(&self.pages_dir(), &format!("{}{PAGE_SUFFIX}", page.to_hex()))
    }

    fn manifest_path(&self, sequence: u64) -> String {
        join(&self.dir, &format!("{sequence:020}{MANIFEST_SUFFIX}"))
    }

    fn load(&self) -> Result<(), SnapshotError> {
        let mut names = self.disk.list(&self.dir).map_err(|source| SnapshotError::io("list", &self.dir, source))?;
        // Names sort like their numbers: newest first.
        names.reverse();
        // A process that was killed may have left names that are seen, or gone, but not durably yet.
        self.disk.sync_dir(&self.dir).map_err(|source| SnapshotError::io("flush", &self.dir, source))?;
        let mut gone = Vec::new();
        let mut state = self.lock();
        for name in names {
            let path = join(&self.dir, &name);
            if name.ends_with(TEMPORARY_SUFFIX) {
                self.remove(&path);
                continue;
            }
            let Some(sequence) = sequence_of(&name) else { continue };
            state.next_sequence = state.next_sequence.max(sequence.saturating_add(1));
            match self.read_manifest(&path) {
                Ok(manifest) if state.kept.len() < SNAPSHOTS_KEPT => {
                    state.kept.push(Kept { path, manifest: Arc::new(manifest) });
                }
                // A third is left from a crash between completing the newest and removing the oldest.
                Ok(_) => gone.push(path),
                Err(error @ (SnapshotError::NewerFormat { .. } | SnapshotError::Io { .. })) => return Err(error),
                Err(error) => {
                    tracing::warn!(path, %error, "a snapshot is damaged; an older one or the log stands in for it");
                    state.damaged.push(path);
                    state.damage.get_or_insert(error);
                }
            }
        }
        drop(state);
        self.drop_manifests(gone);
        Ok(())
    }

    fn read_manifest(&self, path: &str) -> Result<Manifest, SnapshotError> {
        let bytes = read_whole(&*self.disk, path, MANIFEST_BYTES_MAX as u64).map_err(|source| {
            if source.kind() == io::ErrorKind::InvalidData {
                SnapshotError::corrupt(path, 0, source)
            } else {
                SnapshotError::io("read", path, source)
            }
        })?;
        Manifest::decode(&bytes, path)
    }

    /// Takes a complete snapshot into the kept ones and drops what is then too many.
    fn keep(&self, path: String, manifest: Manifest) {
        let mut state = self.lock();
        state.next_sequence = manifest.sequence + 1;
        for page in manifest.pages() {
            state.bad_pages.remove(page);
        }
        state.damaged.retain(|damaged| *damaged != path);
        state.kept.insert(0, Kept { path, manifest: Arc::new(manifest) });
        state.damage = None;
        let excess = state.kept.len().min(SNAPSHOTS_KEPT);
        let excess = state.kept.split_off(excess).into_iter().map(|kept| kept.path);
        let mut gone = std::mem::take(&mut state.damaged);
        gone.extend(excess);
        drop(state);
        self.drop_manifests(gone);
    }

    /// Sees to it that a manifest which may or may not have been completed does not turn up later.
    fn withdraw(&self, path: &str) {
        self.drop_manifests(vec![path.to_owned()]);
    }

    /// Removes manifests for good, before their pages may go. While one may still be there, no page is removed.
    fn drop_manifests(&self, paths: Vec<String>) {
        if paths.is_empty() {
            return;
        }
        let all_removed = paths.iter().filter(|path| !self.remove(path)).count() == 0;
        let result = self.disk.sync_dir(&self.dir);
        if let Err(error) = &result {
            tracing::warn!(dir = self.dir, %error, "could not make the removal of old snapshots durable");
        }
        if !all_removed || result.is_err() {
            self.lock().damaged.extend(paths);
        }
    }

    fn has_page(&self, page: &PageName, bytes: usize) -> bool {
        self.disk.open_read(&self.page_path(page)).and_then(|file| file.len()).is_ok_and(|len| len == bytes as u64)
    }

    /// Removes pages that no manifest names, and temporary files. What cannot be removed now is left to the next time.
    fn collect(&self) {
        let state = self.lock();
        // The pages of a manifest that cannot be read are unknown, so none can be told from garbage.
        if !state.damaged.is_empty() {
            return;
        }
        let open: Vec<Arc<Manifest>> = state.open.iter().filter_map(Weak::upgrade).collect();
        let mut named = HashSet::new();
        state.kept.iter().for_each(|kept| named.extend(kept.manifest.pages().map(|page| self.page_path(page))));
        open.iter().for_each(|manifest| named.extend(manifest.pages().map(|page| self.page_path(page))));
        drop(state);
        let dir = self.pages_dir();
        match self.disk.list(&dir) {
            Ok(names) => {
                names.iter().map(|name| join(&dir, name)).filter(|path| !named.contains(path)).for_each(|path| {
                    if path.ends_with(PAGE_SUFFIX) || path.ends_with(TEMPORARY_SUFFIX) {
                        self.remove(&path);
                    }
                })
            }
            Err(error) => tracing::warn!(dir, %error, "could not list pages to remove unused ones"),
        }
    }

    /// Removes a file; whether it is gone.
    fn remove(&self, path: &str) -> bool {
        match self.disk.remove(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                tracing::warn!(path, %error, "could not remove a file that is no longer needed");
                false
            }
        }
    }
}

fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(MANIFEST_SUFFIX)?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// How many snapshots are kept: the newest, and one to fall back on.
const SNAPSHOTS_KEPT: usize = 2;
const PAGES_DIR: &str = "pages";
const PAGE_SUFFIX: &str = ".page";
const MANIFEST_SUFFIX: &str = ".manifest";
