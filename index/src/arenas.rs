//! Where a dump goes to and a load comes from: named streams of bytes. The caller makes pages or files of them.

use std::io;

/// Takes the arenas of a dump, one after another.
pub trait ArenaSink {
    /// A new arena begins; what is written from now on belongs to it.
    fn begin(&mut self, arena: &str) -> io::Result<()>;
    /// The next bytes of the arena.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Gives the arenas of a dump back.
pub trait ArenaSource {
    /// The bytes of an arena from its beginning, or `None` where there is no arena of that name.
    fn open<'s>(&'s mut self, arena: &str) -> io::Result<Option<Box<dyn io::Read + 's>>>;
}
