//! The list of a snapshot's pages as bytes, drawn in `docs/disk.md`. Pure: no file is touched here.

use super::error::SnapshotError;
use super::limits::ARENAS_MAX;
use crate::preamble::{PREAMBLE_BYTES, Preamble, encode, judge, u32_at, u64_at};

/// The newest format of snapshots that this program reads, and the one that it writes.
pub const SNAPSHOT_FORMAT_VERSION: u32 = 1;
/// Bytes of a page; only the last one of an arena is shorter.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// Largest manifest: room for the names of about 8 TiB of pages.
pub(super) const MANIFEST_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Blake3 hash of a page's contents.
pub(super) type PageName = blake3::Hash;

/// What a snapshot consists of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Numbers the snapshots of a directory.
    pub sequence: u64,
    /// The snapshot holds the records before this one.
    pub lsn: u64,
    pub arenas: Vec<Arena>,
}

/// One named run of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arena {
    pub name: String,
    pub bytes: u64,
    pub pages: Vec<PageName>,
}

impl Arena {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), bytes: 0, pages: Vec::new() }
    }
}

impl Manifest {
    pub fn pages(&self) -> impl Iterator<Item = &PageName> {
        self.arenas.iter().flat_map(|arena| &arena.pages)
    }

    pub fn encode(&self) -> Vec<u8> {
        let Self { sequence, lsn, arenas } = self;
        let mut out = Vec::new();
        encode(MAGIC, SNAPSHOT_FORMAT_VERSION, &mut out);
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(&lsn.to_le_bytes());
        out.extend_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
        out.extend_from_slice(&(arenas.len() as u32).to_le_bytes());
        for Arena { name, bytes, pages } in arenas {
            out.extend_from_slice(&(name.len() as u32).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&bytes.to_le_bytes());
            pages.iter().for_each(|page| out.extend_from_slice(page.as_bytes()));
        }
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    pub fn decode(bytes: &[u8], path: &str) -> Result<Self, SnapshotError> {
        match judge(bytes, MAGIC, SNAPSHOT_FORMAT_VERSION) {
            Preamble::Known => {}
            Preamble::Newer(found) => {
                let (file, known) = (path.to_owned(), SNAPSHOT_FORMAT_VERSION);
                return Err(SnapshotError::NewerFormat { file, found, known });
            }
            Preamble::Bad(reason) => return Err(SnapshotError::corrupt(path, 0, reason)),
        }
        let Some((body, hash)) = bytes.split_last_chunk::<HASH_BYTES>() else {
            return Err(SnapshotError::corrupt(path, bytes.len() as u64, "the file is shorter than a manifest"));
        };
        if blake3::hash(body) != blake3::Hash::from_bytes(*hash) {
            let offset = PREAMBLE_BYTES as u64;
            return Err(SnapshotError::corrupt(path, offset, "the hash of the manifest does not match"));
        }
        Fields { rest: &body[PREAMBLE_BYTES.min(body.len())..] }.manifest().ok_or_else(|| {
            SnapshotError::corrupt(path, PREAMBLE_BYTES as u64, "the fields of the manifest do not add up")
        })
    }
}

/// The fields of a manifest that are not read yet. Sizes are checked against what is there before anything is allocated.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn manifest(mut self) -> Option<Manifest> {
        let (sequence, lsn) = (self.u64()?, self.u64()?);
        if self.u32()? as usize != PAGE_BYTES {
            return None;
        }
        let count = self.u32()? as usize;
        if count > ARENAS_MAX {
            return None;
        }
        let mut arenas = Vec::with_capacity(count);
        for _ in 0..count {
            arenas.push(self.arena()?);
        }
        self.rest.is_empty().then_some(Manifest { sequence, lsn, arenas })
    }

    fn arena(&mut self) -> Option<Arena> {
        let name_bytes = self.u32()? as usize;
        let name = std::str::from_utf8(self.take(name_bytes)?).ok()?.to_owned();
        let bytes = self.u64()?;
        let pages = usize::try_from(bytes.div_ceil(PAGE_BYTES as u64)).ok()?;
        let names = self.take(pages.checked_mul(HASH_BYTES)?)?;
        let (names, _) = names.as_chunks::<HASH_BYTES>();
        let pages = names.iter().map(|name| blake3::Hash::from_bytes(*name)).collect();
        Some(Arena { name, bytes, pages })
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32_at(bytes, 0))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64_at(bytes, 0))
    }
}

const MAGIC: &[u8; 8] = b"VECINOSN";
const HASH_BYTES: usize = 32;
