//! What is wrong with a disk that cannot be written, in words that say what to do.

use std::error::Error;
use std::fmt;
use std::io;

use rustix::io::Errno;

/// Why something could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// No room.
    Full,
    /// The file system may not be written to.
    ReadOnly,
    /// The process, or the machine, has too many files open.
    TooManyFiles,
    /// The device fails.
    Failing,
    /// Something else.
    Other,
}

impl DiskFault {
    /// What an error comes from, however many others are around it; absent where it does not come from the disk.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut causes = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
        causes.find_map(|cause| cause.downcast_ref::<io::Error>()).map(Self::of_io)
    }

    fn of_io(error: &io::Error) -> Self {
        match (error.kind(), error.raw_os_error().map(Errno::from_raw_os_error)) {
            (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => Self::Full,
            (io::ErrorKind::ReadOnlyFilesystem, _) => Self::ReadOnly,
            (_, Some(Errno::MFILE | Errno::NFILE)) => Self::TooManyFiles,
            (_, Some(Errno::IO)) => Self::Failing,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the disk is full: free some space, and it goes on by itself",
            Self::ReadOnly => "the file system is read-only: make it writable, and it goes on by itself",
            Self::TooManyFiles => {
                "too many files are open: raise the limit (ulimit -n) or close some, and it goes on by itself"
            }
            Self::Failing => "the disk reports input/output errors: check it; it is tried again with every batch",
            Self::Other => "the disk cannot be written; it is tried again with every batch",
        })
    }
}

#[cfg(test)]
mod tests {
    use vecino_storage::LogError;

    use super::*;

    #[test]
    fn the_cause_is_found_in_what_the_log_says() {
        let log = |errno: Errno| {
            let source = io::Error::from_raw_os_error(errno.raw_os_error());
            LogError::Io { action: "write", path: "log".into(), source }
        };
        let cases = [
            (Errno::NOSPC, DiskFault::Full),
            (Errno::DQUOT, DiskFault::Full),
            (Errno::ROFS, DiskFault::ReadOnly),
            (Errno::MFILE, DiskFault::TooManyFiles),
            (Errno::NFILE, DiskFault::TooManyFiles),
            (Errno::IO, DiskFault::Failing),
            (Errno::PERM, DiskFault::Other),
        ];
        for (errno, fault) in cases {
            assert_eq!(DiskFault::of(&log(errno)), Some(fault), "{errno:?}");
            let around = LogError::Apply { lsn: 1, source: Box::new(log(errno)) };
            assert_eq!(DiskFault::of(&around), Some(fault), "{errno:?} inside another");
        }
        assert_eq!(DiskFault::of(&LogError::BatchTooLarge { bytes: 1 }), None);
    }
}
