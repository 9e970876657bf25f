//! One process to a data directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Holds a data directory for this process until dropped; the kernel lets go of it also when the process is killed.
#[derive(Debug)]
pub struct DirLock {
    file: File,
    path: PathBuf,
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("data directory {} is in use by {holder}: stop it, or give this node another directory", path.display())]
    Held {
        /// The data directory.
        path: PathBuf,
        /// Who has it, as far as the lock file tells.
        holder: String,
    },
    /// The lock file cannot be made or locked.
    #[error("cannot lock data directory {}: {source}", path.display())]
    Io {
        /// The data directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DirLock {
    /// Locks `path`, making the directory where it does not exist.
    pub fn acquire(path: impl AsRef<Path>) -> Result<DirLock, LockError> {
        let path = path.as_ref().to_path_buf();
        let failed = |source| LockError::Io { path: path.clone(), source };
        fs::create_dir_all(&path).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path.join(LOCK_FILE)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let known = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
                let holder = if known { format!("process {}", pid.trim()) } else { "another process".to_owned() };
                return Err(LockError::Held { path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // The process id is for people; the lock is what holds.
        let note = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        note(&mut file).map_err(failed)?;
        Ok(DirLock { file, path })
    }

    /// The directory that is locked.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing the file would unlock too; a descriptor inherited by a child process must not keep the lock.
        let _ = self.file.unlock();
    }
}

/// Lies in the data directory for ever: removing it would let two processes lock two files of one name.
const LOCK_FILE: &str = "vecino.lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_directory_and_holder_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep/data");
        let lock = DirLock::acquire(&data).unwrap();
        let refusal = DirLock::acquire(&data).unwrap_err().to_string();
        assert!(refusal.contains(data.to_str().unwrap()), "{refusal}");
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        drop(lock);
        assert_eq!(DirLock::acquire(&data).unwrap().path(), data);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let refusal = DirLock::acquire(file.join("below")).unwrap_err().to_string();
        assert!(refusal.contains(file.to_str().unwrap()), "{refusal}");
    }
}
