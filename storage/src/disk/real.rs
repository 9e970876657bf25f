//! The file system of the machine.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Disk, DiskFile, check, check_not_root};

/// The files below one directory of the machine's file system.
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// A disk whose paths are relative to `root`, which must exist by the time it is used.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory that paths are relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn at(&self, path: &str) -> io::Result<PathBuf> {
        check(path)?;
        Ok(if path.is_empty() { self.root.clone() } else { self.root.join(path) })
    }
}

impl Disk for RealDisk {
    fn open_read(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(RealFile::boxed(File::open(self.at(path)?)?))
    }

    fn open_write(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(RealFile::boxed(OpenOptions::new().read(true).write(true).open(self.at(path)?)?))
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.at(path)?)?;
        Ok(RealFile::boxed(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from)?, self.at(to)?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.at(path)?)
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        check_not_root(path)?;
        match fs::remove_dir_all(self.at(path)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(dir)?)? {
            // A name that is not UTF-8 was not made by this crate, which makes ASCII names only.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        let path = self.at(dir)?;
        let missing: Vec<&Path> = path.ancestors().take_while(|a| !a.as_os_str().is_empty() && !a.is_dir()).collect();
        fs::create_dir_all(&path)?;
        for made in missing {
            let parent = made.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.at(dir)?)?.sync_all()
    }
}

/// `resized` remembers that the length was changed by a call of its own since the last flush: then the whole inode is
/// flushed, not only what reading back the data needs.
struct RealFile {
    file: File,
    resized: AtomicBool,
}

impl RealFile {
    fn boxed(file: File) -> Box<dyn DiskFile> {
        Box::new(Self { file, resized: AtomicBool::new(true) })
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if self.resized.swap(false, Ordering::Relaxed) { self.file.sync_all() } else { self.file.sync_data() }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.resized.store(true, Ordering::Relaxed);
        self.file.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.resized.store(true, Ordering::Relaxed);
        reserve(&self.file, len)
    }
}

#[cfg(target_os = "linux")]
fn reserve(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;

    let from = file.metadata()?.len();
    if from >= len {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), from, len - from) {
        // A file system that cannot reserve: writing meets a full disk where it comes.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(_file: &File, _len: u64) -> io::Result<()> {
    Ok(())
}
