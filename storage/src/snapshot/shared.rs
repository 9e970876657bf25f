//! What the store, the writer and open snapshots of one directory have in common: which manifests count, which pages they
//! name, and what may be removed.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::error::SnapshotError;
use super::manifest::{MANIFEST_BYTES_MAX, Manifest, PageName};
use crate::disk::{Disk, join, read_whole};
use crate::file::TEMPORARY_SUFFIX;

/// How many snapshots are kept: the newest, and one to fall back on.
pub(super) const SNAPSHOTS_KEPT: usize = 2;
/// Folder of the pages.
pub(super) const PAGES_DIR: &str = "pages";
/// Ending of the name of a page.
pub(super) const PAGE_SUFFIX: &str = ".page";
/// Ending of the name of a manifest.
pub(super) const MANIFEST_SUFFIX: &str = ".manifest";

/// What store, writer and open snapshots have in common.
pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub dir: String,
    pub state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// Manifests that verify, newest first; at most [`SNAPSHOTS_KEPT`].
    pub kept: Vec<Kept>,
    /// Manifests that do not verify or may not be gone, by path. They go when a new snapshot is complete.
    pub damaged: Vec<String>,
    /// Why the newest of them does not.
    pub damage: Option<SnapshotError>,
    /// Manifests that someone may still read, though no longer kept.
    pub open: Vec<Weak<Manifest>>,
    /// Pages that did not verify when they were read: the next snapshot writes them anew.
    pub bad_pages: HashSet<PageName>,
    pub next_sequence: u64,
    pub writing: bool,
}

pub(super) struct Kept {
    pub path: String,
    pub manifest: Arc<Manifest>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn pages_dir(&self) -> String {
        join(&self.dir, PAGES_DIR)
    }

    pub(super) fn page_path(&self, page: &PageName) -> String {
        join(&self.pages_dir(), &format!("{}{PAGE_SUFFIX}", page.to_hex()))
    }

    pub(super) fn manifest_path(&self, sequence: u64) -> String {
        join(&self.dir, &format!("{sequence:020}{MANIFEST_SUFFIX}"))
    }

    pub(super) fn load(&self) -> Result<(), SnapshotError> {
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

    pub(super) fn read_manifest(&self, path: &str) -> Result<Manifest, SnapshotError> {
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
    pub(super) fn keep(&self, path: String, manifest: Manifest) {
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
    pub(super) fn withdraw(&self, path: &str) {
        self.drop_manifests(vec![path.to_owned()]);
    }

    /// Removes manifests for good, before their pages may go. While one may still be there, no page is removed.
    pub(super) fn drop_manifests(&self, paths: Vec<String>) {
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

    pub(super) fn has_page(&self, page: &PageName, bytes: usize) -> bool {
        self.disk.open_read(&self.page_path(page)).and_then(|file| file.len()).is_ok_and(|len| len == bytes as u64)
    }

    /// Removes pages that no manifest names, and temporary files. What cannot be removed now is left to the next time.
    pub(super) fn collect(&self) {
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
    pub(super) fn remove(&self, path: &str) -> bool {
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

/// The number in the name of a manifest.
pub(super) fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(MANIFEST_SUFFIX)?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
