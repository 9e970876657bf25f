//! Reading a snapshot. Changes nothing on disk.

use std::io;
use std::sync::Arc;

use super::error::SnapshotError;
use super::manifest::{Arena, Manifest, PAGE_BYTES};
use super::shared::Shared;

/// A complete snapshot. While it is held, its pages stay on disk.
pub struct Snapshot {
    shared: Arc<Shared>,
    path: String,
    manifest: Arc<Manifest>,
}

impl Snapshot {
    pub(super) fn new(shared: Arc<Shared>, path: String, manifest: Arc<Manifest>) -> Self {
        Self { shared, path, manifest }
    }

    /// The snapshot holds the records before this lsn: a replay of the log from here on completes it.
    pub fn lsn(&self) -> u64 {
        self.manifest.lsn
    }

    /// Path of the manifest, for messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Names of the arenas, in the order in which they were written.
    pub fn arenas(&self) -> impl Iterator<Item = &str> {
        self.manifest.arenas.iter().map(|arena| arena.name.as_str())
    }

    /// Bytes of all arenas together.
    pub fn bytes(&self) -> u64 {
        self.manifest.arenas.iter().map(|arena| arena.bytes).sum()
    }

    /// The pages of the arena `name`; `None` where the snapshot has none of that name.
    pub fn pages(&self, name: &str) -> Option<ArenaPages<'_>> {
        let arena = self.manifest.arenas.iter().find(|arena| arena.name == name)?;
        Some(ArenaPages { shared: &self.shared, arena })
    }

    /// A reader of the arena `name`; `None` where the snapshot has none of that name.
    pub fn open_arena(&self, name: &str) -> Result<Option<ArenaReader<'_>>, SnapshotError> {
        let Some(arena) = self.manifest.arenas.iter().find(|arena| arena.name == name) else { return Ok(None) };
        Ok(Some(ArenaReader { shared: &self.shared, arena, next_page: 0, page: Vec::new(), offset: 0 }))
    }
}

/// The pages of one arena, to be read in any order and by any number of threads.
pub struct ArenaPages<'a> {
    shared: &'a Shared,
    arena: &'a Arena,
}

impl ArenaPages<'_> {
    /// Length of the arena in bytes.
    pub fn bytes(&self) -> u64 {
        self.arena.bytes
    }

    /// How many pages it has; each but the last is [`PAGE_BYTES`] long.
    pub fn count(&self) -> usize {
        self.arena.pages.len()
    }

    /// Reads a page, counted from 0, in place of what is in `page`, and verifies it. A page that is not there, or not
    /// what it should be, is written anew by the next snapshot.
    pub fn read(&self, index: usize, page: &mut Vec<u8>) -> Result<(), SnapshotError> {
        self.shared.read_page(self.arena, index, page).inspect_err(|_| {
            self.shared.lock().bad_pages.insert(self.arena.pages[index]);
        })
    }
}

/// Reads one arena from its beginning. Every page is verified before a byte of it is handed out; a bad one is an
/// [`io::Error`] of kind `InvalidData` around a [`SnapshotError`], and the next snapshot writes that page anew.
pub struct ArenaReader<'a> {
    shared: &'a Shared,
    arena: &'a Arena,
    next_page: usize,
    page: Vec<u8>,
    offset: usize,
}

impl ArenaReader<'_> {
    /// Length of the arena in bytes.
    pub fn len(&self) -> u64 {
        self.arena.bytes
    }

    /// Whether the arena holds nothing.
    pub fn is_empty(&self) -> bool {
        self.arena.bytes == 0
    }

    fn load_page(&mut self) -> Result<(), SnapshotError> {
        ArenaPages { shared: self.shared, arena: self.arena }.read(self.next_page, &mut self.page)?;
        self.next_page += 1;
        self.offset = 0;
        Ok(())
    }
}

impl Shared {
    /// Reads one page of an arena and verifies it.
    pub(super) fn read_page(&self, arena: &Arena, index: usize, page: &mut Vec<u8>) -> Result<(), SnapshotError> {
        let name = arena.pages[index];
        let path = self.page_path(&name);
        let expected = (arena.bytes - (index * PAGE_BYTES) as u64).min(PAGE_BYTES as u64) as usize;
        let context = format!("page {index} of arena {:?}", arena.name);
        let mut read = || {
            let file = self.disk.open_read(&path)?;
            // One byte more than there should be, to notice a page that is too long.
            page.resize(expected + 1, 0);
            let read = file.read_at(page, 0)?;
            page.truncate(read);
            Ok(())
        };
        read().map_err(|source: io::Error| {
            if source.kind() == io::ErrorKind::NotFound {
                SnapshotError::corrupt(&path, 0, format!("{context} is missing"))
            } else {
                SnapshotError::io("read", &path, source)
            }
        })?;
        if page.len() != expected {
            let reason = format!("{context} is not the {expected} bytes long that it should be");
            return Err(SnapshotError::corrupt(&path, page.len().min(expected) as u64, reason));
        }
        if blake3::hash(page) != name {
            return Err(SnapshotError::corrupt(&path, 0, format!("{context} does not hash to its name")));
        }
        Ok(())
    }
}

impl io::Read for ArenaReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.offset == self.page.len() {
            if self.next_page == self.arena.pages.len() || buffer.is_empty() {
                return Ok(0);
            }
            self.load_page().map_err(|error| {
                self.page.clear();
                self.offset = 0;
                error.into_io()
            })?;
        }
        let read = buffer.len().min(self.page.len() - self.offset);
        buffer[..read].copy_from_slice(&self.page[self.offset..self.offset + read]);
        self.offset += read;
        Ok(read)
    }
}
