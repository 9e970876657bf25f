//! Looking at what lies on disk without changing a byte: for people who ask what is wrong, while nothing has it open.
//!
//! Opening stops at the first thing that is wrong; inspecting goes on behind it, so that all of it is told, and looks
//! also where opening does not: at every frame of every segment and every page of every snapshot. What a finding means
//! for the data is for the caller to say, who knows which snapshots can be read. Small files need nothing of this:
//! [`read_verified`](crate::read_verified) changes nothing.

use std::io;
use std::ops::Range;

pub use crate::log::{LogInspection, inspect_log};
pub use crate::snapshot::{InspectedSnapshot, SnapshotsInspection, inspect_snapshots};

/// Something on disk that is not as it should be, or not needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What kind of thing it is.
    pub kind: FindingKind,
    /// What is wrong with it, in words.
    pub reason: String,
}

/// What a [`Finding`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindingKind {
    /// A file that a crash left before it had its name.
    Temporary,
    /// A write that a crash left unfinished at the end of the log: opening cuts these bytes.
    TornTail {
        /// How many they are.
        bytes: u64,
    },
    /// The log is not what was written, and opening refuses it.
    Log {
        /// The records that cannot be read for it; the end is [`u64::MAX`] where nobody knows how many there were. Empty
        /// where they can be read, but not as the continuation of what is before them.
        lost: Range<u64>,
    },
    /// A manifest that does not verify.
    Manifest,
    /// A page that is missing or does not hold what its name says.
    Page {
        /// The manifests that name it.
        manifests: Vec<String>,
    },
    /// A page that no manifest names.
    UnreferencedPage {
        /// How long it is.
        bytes: u64,
    },
    /// A snapshot older than the two that are kept, left by a crash.
    SurplusManifest,
    /// A file of a newer program.
    Newer,
    /// The system does not let it be read.
    Unreadable,
}

impl Finding {
    pub(crate) fn new(file: &str, offset: u64, kind: FindingKind, reason: impl ToString) -> Self {
        Self { file: file.to_owned(), offset, kind, reason: reason.to_string() }
    }

    pub(crate) fn temporary(file: &str) -> Self {
        Self::new(file, 0, FindingKind::Temporary, "a crash left it before it was complete")
    }
}

/// What a directory holds; nothing where there is none.
pub(crate) fn names(disk: &dyn crate::Disk, dir: &str, findings: &mut Vec<Finding>) -> Vec<String> {
    match disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            findings.push(Finding::new(dir, 0, FindingKind::Unreadable, format!("it cannot be listed: {error}")));
            Vec::new()
        }
    }
}
