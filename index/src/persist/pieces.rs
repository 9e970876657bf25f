//! Reading arenas in pieces, on all processors.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::LoadError;
use crate::persist::arenas::{ArenaPieces, ArenaSource, PIECE_MULTIPLE};

/// Slots that one thread deals with at a time.
const RANGE_SLOTS: u32 = 4096;

/// One arena that is as long as it should be.
pub(crate) struct Pieces<'s> {
    arena: &'static str,
    pieces: Box<dyn ArenaPieces + 's>,
    bytes: u64,
}

impl<'s> Pieces<'s> {
    /// Opens an arena that must be `expected` bytes long.
    pub fn open(source: &'s dyn ArenaSource, arena: &'static str, expected: u64) -> Result<Self, LoadError> {
        let io = |source| LoadError::Io { arena, source };
        let pieces = source.open(arena).map_err(io)?.ok_or(LoadError::Missing { arena })?;
        let bytes = pieces.bytes();
        if bytes < expected {
            return Err(LoadError::Truncated { arena, got: bytes, expected });
        }
        if bytes > expected {
            return Err(LoadError::Trailing { arena, expected });
        }
        let length = pieces.piece_bytes();
        if length == 0 || !length.is_multiple_of(PIECE_MULTIPLE) {
            return Err(io(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("pieces of {length} bytes: a multiple of {PIECE_MULTIPLE} is needed"),
            )));
        }
        Ok(Self { arena, pieces, bytes })
    }

    /// Reads every piece once, in any order and on all processors, and hands it on with the place of its first byte in
    /// the arena.
    pub fn for_each(&self, take: impl Fn(u64, &[u8]) -> Result<(), LoadError> + Sync) -> Result<(), LoadError> {
        let count = self.bytes.div_ceil(self.pieces.piece_bytes() as u64);
        in_parallel(count, Vec::new, |piece, buffer| {
            let first = self.read(piece, buffer)?;
            take(first, buffer)
        })
    }

    /// The whole arena, which is a small one.
    pub fn whole(&self) -> Result<Vec<u8>, LoadError> {
        let (mut all, mut buffer) = (Vec::new(), Vec::new());
        self.in_order(&mut buffer, |bytes| {
            all.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(all)
    }

    /// Reads every piece once, one after another.
    pub fn in_order(
        &self,
        buffer: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        for piece in 0..self.bytes.div_ceil(self.pieces.piece_bytes() as u64) {
            self.read(piece, buffer)?;
            take(buffer)?;
        }
        Ok(())
    }

    /// Reads one piece; gives the place of its first byte.
    fn read(&self, piece: u64, buffer: &mut Vec<u8>) -> Result<u64, LoadError> {
        let arena = self.arena;
        self.pieces.read(piece, buffer).map_err(|source| LoadError::Io { arena, source })?;
        let length = self.pieces.piece_bytes() as u64;
        let first = piece * length;
        let expected = length.min(self.bytes - first);
        if buffer.len() as u64 != expected {
            return Err(LoadError::Truncated { arena, got: first + buffer.len() as u64, expected: self.bytes });
        }
        Ok(first)
    }
}

/// Does every job below `count` once, on as many threads as there are processors, each with working memory of its own.
/// Of several failures the one of the first job is told.
pub(crate) fn in_parallel<S>(
    count: u64,
    memory: impl Fn() -> S + Sync,
    job: impl Fn(u64, &mut S) -> Result<(), LoadError> + Sync,
) -> Result<(), LoadError> {
    let next = AtomicU64::new(0);
    let has_failed = AtomicBool::new(false);
    let failure: Mutex<Option<(u64, LoadError)>> = Mutex::new(None);
    let work = || {
        let mut memory = memory();
        while !has_failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            if let Err(error) = job(number, &mut memory) {
                has_failed.store(true, Ordering::Relaxed);
                let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                if failure.as_ref().is_none_or(|(earlier, _)| number < *earlier) {
                    *failure = Some((number, error));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..(processors() as u64).min(count) {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Does something for every slot below `slots`, in ranges that are divided among the processors, each with working memory
/// of its own.
pub(crate) fn for_slots<S>(
    slots: u32,
    memory: impl Fn() -> S + Sync,
    job: impl Fn(Range<u32>, &mut S) -> Result<(), LoadError> + Sync,
) -> Result<(), LoadError> {
    in_parallel(u64::from(slots.div_ceil(RANGE_SLOTS)), memory, |number, memory| {
        let first = number as u32 * RANGE_SLOTS;
        job(first..first.saturating_add(RANGE_SLOTS).min(slots), memory)
    })
}

/// Threads that can run at a time.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
