//! Taking a snapshot.

use std::collections::HashSet;
use std::io;

use super::error::SnapshotError;
use super::limits::{ARENA_NAME_BYTES_MAX, ARENAS_MAX};
use super::manifest::{Arena, MANIFEST_BYTES_MAX, Manifest, PAGE_BYTES, PageName};
use super::shared::Shared;
use crate::disk::join;
use crate::file::{TEMPORARY_SUFFIX, replace};

/// Takes the bytes of a snapshot, arena by arena. Nothing of it counts before [`SnapshotWriter::finish`].
pub struct SnapshotWriter<'a> {
    shared: &'a Shared,
    sequence: u64,
    lsn: u64,
    arenas: Vec<Arena>,
    /// The bytes of the open arena that do not fill a page yet.
    page: Vec<u8>,
    /// Pages that are on disk and hold what their names say.
    known: HashSet<PageName>,
    pages_written: u64,
    failed: bool,
}

/// What a snapshot came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// The snapshot holds the records before this one.
    pub lsn: u64,
    /// Pages that it consists of.
    pub pages: u64,
    /// Those that were not on disk already.
    pub pages_written: u64,
    /// Bytes of all arenas.
    pub bytes: u64,
}

impl<'a> SnapshotWriter<'a> {
    pub(super) fn new(shared: &'a Shared, lsn: u64, sequence: u64, known: HashSet<PageName>) -> Self {
        Self { shared, sequence, lsn, arenas: Vec::new(), page: Vec::new(), known, pages_written: 0, failed: false }
    }

    /// Ends the arena before, if there is one, and begins the arena `name`.
    pub fn begin_arena(&mut self, name: &str) -> io::Result<()> {
        self.check_complete()?;
        let refuse = |reason| Err(SnapshotError::Arena { name: name.to_owned(), reason }.into_io());
        if name.is_empty() || name.len() > ARENA_NAME_BYTES_MAX {
            return refuse("the length of the name is out of range");
        }
        if self.arenas.iter().any(|arena| arena.name == name) {
            return refuse("the name is taken");
        }
        if self.arenas.len() == ARENAS_MAX {
            return refuse("there are too many");
        }
        self.end_page()?;
        self.arenas.push(Arena::new(name));
        Ok(())
    }

    /// Appends bytes to the arena that was begun last.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.check_complete()?;
        let Some(arena) = self.arenas.last_mut() else {
            return Err(SnapshotError::Arena { name: String::new(), reason: "none was begun" }.into_io());
        };
        arena.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PAGE_BYTES - self.page.len()));
            self.page.extend_from_slice(now);
            bytes = later;
            if self.page.len() == PAGE_BYTES {
                self.end_page()?;
            }
        }
        Ok(())
    }

    /// Completes the snapshot: pages, then the manifest, then its name become durable; then the oldest snapshot and the
    /// pages that only it had are removed. After an error the older snapshots are as they were.
    pub fn finish(mut self) -> Result<SnapshotSummary, SnapshotError> {
        self.check_complete().and_then(|()| self.end_page()).map_err(SnapshotError::from_io)?;
        let shared = self.shared;
        let manifest = Manifest { sequence: self.sequence, lsn: self.lsn, arenas: std::mem::take(&mut self.arenas) };
        let summary = SnapshotSummary {
            lsn: self.lsn,
            pages: manifest.pages().count() as u64,
            pages_written: self.pages_written,
            bytes: manifest.arenas.iter().map(|arena| arena.bytes).sum(),
        };
        let path = shared.manifest_path(self.sequence);
        let bytes = manifest.encode();
        if bytes.len() > MANIFEST_BYTES_MAX {
            let source = io::Error::new(io::ErrorKind::FileTooLarge, "it would be over the limit of 256 MiB");
            return Err(SnapshotError::io("write", &path, source));
        }
        let pages_dir = shared.pages_dir();
        shared.disk.sync_dir(&pages_dir).map_err(|source| SnapshotError::io("flush", &pages_dir, source))?;
        if let Err(failed) = replace(&*shared.disk, &path, &bytes) {
            if failed.may_be_replaced {
                shared.withdraw(&path);
            }
            return Err(SnapshotError::io(failed.action, &path, failed.source));
        }
        shared.keep(path, manifest);
        Ok(summary)
    }

    /// Pages that had to be written so far.
    pub fn pages_written(&self) -> u64 {
        self.pages_written
    }

    fn check_complete(&self) -> io::Result<()> {
        if self.failed { Err(SnapshotError::Incomplete.into_io()) } else { Ok(()) }
    }

    /// Writes the page that was being filled, if it holds anything, unless the disk has it already.
    fn end_page(&mut self) -> io::Result<()> {
        if self.page.is_empty() {
            return Ok(());
        }
        let name = blake3::hash(&self.page);
        if !(self.known.contains(&name) && self.shared.has_page(&name, self.page.len())) {
            self.write_page(&name).map_err(|error| {
                self.failed = true;
                error.into_io()
            })?;
            self.known.insert(name);
            self.pages_written += 1;
        }
        self.page.clear();
        if let Some(arena) = self.arenas.last_mut() {
            arena.pages.push(name);
        }
        Ok(())
    }

    fn write_page(&self, name: &PageName) -> Result<(), SnapshotError> {
        let shared = self.shared;
        let path = shared.page_path(name);
        let temporary = join(&shared.pages_dir(), &format!("{}{TEMPORARY_SUFFIX}", name.to_hex()));
        let io = |action, source| SnapshotError::io(action, &path, source);
        let file = shared.disk.create(&temporary).map_err(|source| io("create", source))?;
        file.write_at(&self.page, 0).map_err(|source| io("write", source))?;
        file.sync().map_err(|source| io("flush", source))?;
        drop(file);
        shared.disk.rename(&temporary, &path).map_err(|source| io("rename", source))
    }
}

impl Drop for SnapshotWriter<'_> {
    fn drop(&mut self) {
        self.shared.collect();
        self.shared.lock().writing = false;
    }
}
