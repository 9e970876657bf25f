//! A file of nothing in the data directory, given up when the disk is full, so that deletes can be logged all the same.
//!
//! While it is given up no puts are taken, for they would use the room up; it is made again as soon as there is room,
//! and puts are taken again. A disk that cannot be written for another reason has no use for ballast.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};
use vecino_storage::Disk;

/// Where it stands in the data directory.
pub const BALLAST_FILE: &str = "ballast";
/// Bytes of the ballast.
pub const BALLAST_BYTES: u64 = 16 << 20;

/// Pause between attempts to make it again.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes written at a time where the file system cannot reserve any.
const CHUNK: usize = 1 << 20;

/// The ballast of one node.
pub struct Ballast {
    disk: Option<Arc<dyn Disk>>,
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Why there is none, where the disk is full.
    missing: Option<String>,
    /// When making it was last tried.
    tried: Option<Instant>,
}

impl Ballast {
    /// Makes the file where it is not there yet. A disk that has no room for it is treated as full.
    pub fn load(disk: Arc<dyn Disk>, bytes: u64) -> Self {
        let ballast = Self { disk: Some(disk), bytes, state: Mutex::new(State { missing: None, tried: None }) };
        if let Err(error) = ballast.make() {
            ballast.could_not_be_made(&mut ballast.lock(), &error);
        }
        ballast
    }

    /// No ballast, and puts are always taken: for what keeps nothing on a disk of its own.
    pub fn none() -> Self {
        Self { disk: None, bytes: 0, state: Mutex::new(State { missing: None, tried: None }) }
    }

    /// Why puts are not to be taken now, if they are not. Tries to make the ballast again, once in a while.
    pub fn puts_closed(&self) -> Option<String> {
        let mut state = self.lock();
        let is_soon = state.tried.is_some_and(|tried| tried.elapsed() < PAUSE);
        if state.missing.is_some() && !is_soon {
            match self.make() {
                Ok(()) => {
                    info!(bytes = self.bytes, "there is room on the disk again: the ballast is whole, puts are taken");
                    *state = State { missing: None, tried: None };
                }
                Err(error) => self.could_not_be_made(&mut state, &error),
            }
        }
        state.missing.clone()
    }

    /// Whether it is in its place.
    pub fn is_whole(&self) -> bool {
        self.lock().missing.is_none()
    }

    /// Gives the room up for what has to be written although the disk is full. Whether there was any to give.
    pub fn release(&self) -> bool {
        let Some(disk) = &self.disk else { return false };
        let mut state = self.lock();
        if state.missing.is_some() {
            return false;
        }
        if let Err(error) = disk.open_write(BALLAST_FILE).and_then(|file| file.truncate(0)) {
            warn!(%error, "the disk is full, and the ballast cannot be given up");
            return false;
        }
        warn!(
            bytes = self.bytes,
            "the disk is full: gave the ballast up for deletes, and takes no puts until there is room"
        );
        state.missing = Some(format!("the disk is full, to within the {} bytes kept for deletes", self.bytes));
        state.tried = Some(Instant::now());
        true
    }

    fn make(&self) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let file = match disk.open_write(BALLAST_FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(BALLAST_FILE)?,
            other => other?,
        };
        let fill = || {
            file.preallocate(self.bytes)?;
            let mut at = file.len()?;
            while at < self.bytes {
                let bytes = (self.bytes - at).min(CHUNK as u64);
                file.write_at(&vec![0; bytes as usize], at)?;
                at += bytes;
            }
            file.sync()
        };
        fill().inspect_err(|_| {
            // A part of it is room that something else may need.
            let _ = file.truncate(0);
        })
    }

    fn could_not_be_made(&self, state: &mut State, error: &io::Error) {
        state.tried = Some(Instant::now());
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            state.missing = Some(format!("the disk is full: {} bytes must be free for deletes", self.bytes));
        } else {
            warn!(%error, "the ballast cannot be made");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use vecino_storage::{Fault, FaultyDisk, MemDisk};

    use super::*;

    fn forget_pause(ballast: &Ballast) {
        ballast.lock().tried = None;
    }

    #[test]
    fn it_is_given_up_once_and_made_again_when_there_is_room() {
        let memory = MemDisk::new();
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        let len = || memory.open_read(BALLAST_FILE).unwrap().len().unwrap();
        let ballast = Ballast::load(Arc::new(disk.clone()), 1000);
        assert_eq!((ballast.is_whole(), len(), ballast.puts_closed()), (true, 1000, None));
        disk.set(Fault::Room(0));
        assert!(ballast.release());
        assert_eq!((ballast.is_whole(), len()), (false, 0));
        assert!(!ballast.release(), "there is nothing left to give up");
        disk.set(Fault::Room(999));
        forget_pause(&ballast);
        assert!(ballast.puts_closed().unwrap().contains("the disk is full"));
        assert_eq!(len(), 0, "a part of the ballast would be room that deletes need");
        disk.heal();
        assert!(ballast.puts_closed().is_some(), "it is not tried at every batch");
        forget_pause(&ballast);
        assert_eq!((ballast.puts_closed(), len(), ballast.is_whole()), (None, 1000, true));
    }

    #[test]
    fn it_is_written_where_room_cannot_be_reserved_and_a_disk_without_room_is_full_from_the_start() {
        let memory = MemDisk::new();
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        disk.set(Fault::CannotReserve);
        disk.set(Fault::Room(10));
        let ballast = Ballast::load(Arc::new(disk.clone()), 3 << 20);
        assert!(!ballast.is_whole() && !ballast.release());
        disk.set(Fault::Room(4 << 20));
        forget_pause(&ballast);
        assert_eq!(ballast.puts_closed(), None);
        assert_eq!(memory.open_read(BALLAST_FILE).unwrap().len().unwrap(), 3 << 20);
    }

    #[test]
    fn a_disk_that_fails_otherwise_has_no_ballast_and_closes_nothing() {
        let disk = FaultyDisk::new(Arc::new(MemDisk::new()));
        disk.set(Fault::Nth(1, io::ErrorKind::ReadOnlyFilesystem));
        let ballast = Ballast::load(Arc::new(disk), 1000);
        assert_eq!((ballast.is_whole(), ballast.puts_closed()), (true, None));
        assert!(Ballast::none().is_whole() && !Ballast::none().release());
    }
}
