//! A disk that fails on demand, around any other.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile};

/// Wraps a disk and makes its operations fail as told. Clones are handles to the same faults.
///
/// Operations that change something (create, write, flush, rename, remove, truncate, preallocate, make a directory) are
/// numbered from 1 in the order in which they come, over all files.
#[derive(Clone)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    state: Arc<Mutex<State>>,
}

/// A way for a disk to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation with this number fails with this kind of error, once.
    Nth(u64, io::ErrorKind),
    /// The same, but the operation is carried out all the same: what it did is there, unbeknown to the caller.
    NthDone(u64, io::ErrorKind),
    /// The operation with this number panics, once: what a bug in the code around a disk would do.
    NthPanics(u64),
    /// Reserving space does nothing, as on a file system that cannot: a full disk shows only while writing.
    CannotReserve,
    /// Every flush of a file or directory fails.
    EverySync,
    /// Every flush says that it has worked and does nothing.
    LyingSync,
    /// Files can grow by this many bytes in all; then the disk is full. What is removed gives room again.
    Room(u64),
    /// The machine stops at the operation with this number, before it is done or after; from then on everything fails.
    Halt {
        /// Which operation.
        at: u64,
        /// Whether it is still carried out, unbeknown to the caller.
        done: bool,
    },
}

impl FaultyDisk {
    /// A disk without faults.
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Adds a fault; one of the same sort is replaced.
    pub fn set(&self, fault: Fault) {
        let mut state = self.lock();
        match fault {
            Fault::Nth(n, kind) => state.nth = Some((n, kind, false)),
            Fault::NthDone(n, kind) => state.nth = Some((n, kind, true)),
            Fault::NthPanics(n) => state.panics = Some(n),
            Fault::CannotReserve => state.cannot_reserve = true,
            Fault::EverySync => state.every_sync = true,
            Fault::LyingSync => state.lying_sync = true,
            Fault::Room(bytes) => state.room = Some(bytes),
            Fault::Halt { at, done } => state.halt = Some((at, done)),
        }
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        let operations = self.lock().operations;
        *self.lock() = State { operations, ..State::default() };
    }

    /// How many operations that change something were asked for.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn read<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.lock().halted {
            return Err(halted());
        }
        act()
    }

    fn change<T>(&self, is_sync: bool, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut state = self.lock();
        if state.halted {
            return Err(halted());
        }
        state.operations += 1;
        let number = state.operations;
        if state.panics == Some(number) {
            drop(state);
            panic!("injected fault: operation {number} panics");
        }
        if let Some((at, done)) = state.halt.filter(|(at, _)| number >= *at) {
            state.halted = true;
            drop(state);
            if done && number == at {
                act()?;
            }
            return Err(halted());
        }
        if is_sync && state.every_sync {
            return Err(io::Error::other("injected fault: this disk cannot flush"));
        }
        if let Some((_, kind, done)) = state.nth.filter(|(n, ..)| number == *n) {
            drop(state);
            if done {
                act()?;
            }
            return Err(io::Error::new(kind, format!("injected fault: operation {number} fails")));
        }
        drop(state);
        act()
    }

    fn lies(&self) -> bool {
        self.lock().lying_sync
    }

    /// Takes `wanted` bytes of room, or all that is left; returns the number taken.
    fn take_room(&self, wanted: u64) -> u64 {
        let mut state = self.lock();
        let Some(room) = &mut state.room else { return wanted };
        let taken = wanted.min(*room);
        *room -= taken;
        taken
    }

    fn give_room(&self, bytes: u64) {
        if let Some(room) = &mut self.lock().room {
            *room += bytes;
        }
    }

    fn len_of(&self, path: &str) -> u64 {
        self.inner.open_read(path).and_then(|file| file.len()).unwrap_or(0)
    }

    fn wrap(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FaultyFile { disk: self.clone(), file })
    }
}

#[derive(Default)]
struct State {
    operations: u64,
    nth: Option<(u64, io::ErrorKind, bool)>,
    panics: Option<u64>,
    cannot_reserve: bool,
    every_sync: bool,
    lying_sync: bool,
    room: Option<u64>,
    halt: Option<(u64, bool)>,
    halted: bool,
}

fn halted() -> io::Error {
    io::Error::other("injected fault: the machine has stopped")
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "injected fault: no room left")
}

impl Disk for FaultyDisk {
    fn open_read(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        self.read(|| self.inner.open_read(path)).map(|file| self.wrap(file))
    }

    fn open_write(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        self.read(|| self.inner.open_write(path)).map(|file| self.wrap(file))
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let freed = self.len_of(path);
        let file = self.change(false, || self.inner.create(path))?;
        self.give_room(freed);
        Ok(self.wrap(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let freed = if from == to { 0 } else { self.len_of(to) };
        self.change(false, || self.inner.rename(from, to))?;
        self.give_room(freed);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let freed = self.len_of(path);
        self.change(false, || self.inner.remove(path))?;
        self.give_room(freed);
        Ok(())
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        self.change(false, || self.inner.remove_dir_all(path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.read(|| self.inner.list(dir))
    }

    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        self.change(false, || self.inner.create_dir_all(dir))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.change(true, || if self.lies() { Ok(()) } else { self.inner.sync_dir(dir) })
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    file: Box<dyn DiskFile>,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.read(|| self.file.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.change(false, || {
            let len = self.file.len()?;
            let growth = (offset + bytes.len() as u64).saturating_sub(len);
            let room = self.disk.take_room(growth);
            if room == growth {
                return self.file.write_at(bytes, offset);
            }
            // As a real one does, the full disk takes what still fits.
            let fits = (len + room).saturating_sub(offset).min(bytes.len() as u64) as usize;
            self.file.write_at(&bytes[..fits], offset)?;
            Err(full())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change(true, || if self.disk.lies() { Ok(()) } else { self.file.sync() })
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.read(|| self.file.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.change(false, || {
            let before = self.file.len()?;
            self.file.truncate(len)?;
            self.disk.give_room(before.saturating_sub(len));
            Ok(())
        })
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        if self.disk.lock().cannot_reserve {
            return Ok(());
        }
        self.disk.change(false, || {
            let growth = len.saturating_sub(self.file.len()?);
            let room = self.disk.take_room(growth);
            if room < growth {
                self.disk.give_room(room);
                return Err(full());
            }
            self.file.preallocate(len)
        })
    }
}
