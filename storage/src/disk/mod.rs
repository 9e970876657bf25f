//! What the rest of the crate asks of a disk, as a trait, and the path rules that every implementation shares.
//!
//! The contract is POSIX at its weakest: bytes are safe only after [`DiskFile::sync`], a name only after
//! [`Disk::sync_dir`] of its directory, and whatever was not flushed may be kept, dropped or reordered by sectors of
//! 512 bytes. A test suite (`tests/disk.rs`) holds every implementation to it.

mod faulty;
mod mem;
mod real;

use std::io;

pub use faulty::{Fault, FaultyDisk};
pub use mem::{CrashReport, MemDisk};
pub use real::RealDisk;

/// A tree of files under one root. Paths are relative, parts separated by `/`, without `.` and `..`.
pub trait Disk: Send + Sync + 'static {
    /// Opens an existing file for reading only.
    fn open_read(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open_write(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Makes a file, or empties the one that is there.
    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, replacing what had it. At no moment does `to` name anything but the old or the new.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Removes a directory and all below it. One that is not there is no error; the root itself is refused.
    fn remove_dir_all(&self, path: &str) -> io::Result<()>;
    /// The names in a directory, sorted.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Makes a directory and its parents; those made survive a crash. One that is there is no error.
    fn create_dir_all(&self, dir: &str) -> io::Result<()>;
    /// Makes names durable: files made, renamed and removed in `dir` stay so.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
}

/// One open file. Reads and writes name their offset, so that a handle has no position and needs no lock.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`, growing the file (with zeros in a gap) where needed. On an error any part may be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes contents and length durable.
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it holds no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Reserves room for `len` bytes, so that writing them does not meet a full disk. Where the platform can, the file
    /// is then `len` bytes long, the new ones zero; where it cannot, nothing happens.
    fn preallocate(&self, len: u64) -> io::Result<()>;
}

/// Splits `path` into directory and name; the directory of a bare name is the root, `""`.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// `dir/name`, or `name` where `dir` is the root.
pub(crate) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// Whether the error says that there is no room: the operation may work later, when there is.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads a whole file of at most `bytes_max` bytes.
pub(crate) fn read_whole(disk: &dyn Disk, path: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open_read(path)?;
    let len = file.len()?;
    if len > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path} is {len} bytes long, more than the limit of {bytes_max}"),
        ));
    }
    let mut bytes = vec![0; len as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Refuses a path that leaves the root or has empty parts. The empty path is the root itself, a directory.
fn check(path: &str) -> io::Result<()> {
    let part_ok = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
    if path.is_empty() || path.split('/').all(part_ok) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("path {path:?} is not a relative path of plain names")))
}

fn check_not_root(path: &str) -> io::Result<()> {
    if path.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root of a disk cannot be removed"));
    }
    Ok(())
}
