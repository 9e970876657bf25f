//! What was found in a data directory, what it means, and what may be done about it.

use std::fmt;

use serde::Serialize;

/// What a data directory holds and what is wrong with it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whose data these are, as far as that can be read.
    pub node: Option<String>,
    /// The collections that have files here.
    pub collections: Vec<CollectionReport>,
    /// What was found, first the node's own files, then each collection's.
    pub findings: Vec<Diagnosis>,
}

/// What one collection's files hold.
#[derive(Clone, Debug, Serialize)]
pub struct CollectionReport {
    /// Its name; absent where the catalog does not say.
    pub name: Option<String>,
    /// Its id.
    pub id: String,
    /// Files of its log.
    pub segments: u64,
    /// Whole frames in them.
    pub frames: u64,
    /// Whole records in those.
    pub records: u64,
    /// Lsn of the first record that the log should hold.
    pub first_lsn: u64,
    /// Lsn that the next record would get, as far as the log can be read.
    pub next_lsn: u64,
    /// Its snapshots whose manifest verifies, newest first.
    pub snapshots: Vec<SnapshotReport>,
    /// Pages that they name, each counted once.
    pub pages: u64,
    /// Whether everything that was durable can be read here.
    pub is_complete: bool,
}

/// What one snapshot holds.
#[derive(Clone, Debug, Serialize)]
pub struct SnapshotReport {
    /// Its manifest.
    pub file: String,
    /// It holds the records before this one.
    pub lsn: u64,
    /// Pages that it consists of.
    pub pages: u64,
    /// Bytes of its arenas.
    pub bytes: u64,
    /// Live points in it, where it could be read and the schema is known.
    pub points: Option<u64>,
    /// Whether a node could load it.
    pub is_usable: bool,
}

/// One thing that is wrong or superfluous.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Which file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub problem: String,
    /// Who still has what it concerns.
    pub loss: Loss,
    /// The same in words.
    pub meaning: String,
    /// What puts it right without losing anything; nothing where that cannot be.
    pub repairs: Vec<Repair>,
}

/// What a finding means for the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Nothing is lost, and a node opens the directory as it is.
    Nothing,
    /// Nothing is lost, because another snapshot or the log has it.
    Recoverable,
    /// What it concerns is not in this directory any more.
    OnlyReplicas,
    /// This program cannot tell.
    Unknown,
}

impl Report {
    /// The findings that concern data: all but what is superfluous.
    pub fn damage(&self) -> impl Iterator<Item = &Diagnosis> {
        self.findings.iter().filter(|diagnosis| diagnosis.loss != Loss::Nothing)
    }

    /// Everything that can be put right.
    pub fn repairs(&self) -> impl Iterator<Item = &Repair> {
        self.findings.iter().flat_map(|diagnosis| &diagnosis.repairs)
    }
}

/// Something that may be done because it loses nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// Removes a file.
    Remove(String),
    /// Cuts a file.
    Cut {
        /// Which file.
        file: String,
        /// How many bytes stay.
        at: u64,
    },
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove(file) => write!(f, "removed {file}"),
            Self::Cut { file, at } => write!(f, "cut {file} at offset {at}"),
        }
    }
}
