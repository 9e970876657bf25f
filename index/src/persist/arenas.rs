//! Where a dump goes to and a load comes from: named runs of bytes. The caller makes pages or files of them.

use std::io;

/// What the length of a piece is a multiple of.
pub const PIECE_MULTIPLE: usize = 64;

/// Takes the arenas of a dump, one after another.
pub trait ArenaSink {
    /// A new arena begins; what is written from now on belongs to it.
    fn begin(&mut self, arena: &str) -> io::Result<()>;
    /// The next bytes of the arena.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Gives the arenas of a dump back.
pub trait ArenaSource: Sync {
    /// An arena, or `None` where there is none of that name.
    fn open<'s>(&'s self, arena: &str) -> io::Result<Option<Box<dyn ArenaPieces + 's>>>;
}

/// One arena in pieces that are read in any order, by any number of threads at once.
pub trait ArenaPieces: Sync {
    /// Bytes of the arena.
    fn bytes(&self) -> u64;
    /// Bytes of each piece but the last, which may be shorter: a multiple of [`PIECE_MULTIPLE`], so that no value of an
    /// arena lies in two pieces.
    fn piece_bytes(&self) -> usize;
    /// Reads the piece of that number, counted from 0, in place of what is in `into`.
    fn read(&self, piece: u64, into: &mut Vec<u8>) -> io::Result<()>;
}
