//! What can be wrong with a file, in words that name the place, the value and the limit.

use std::io;
use std::path::{Path, PathBuf};

use vecino_model::limits::DIM_MAX;

/// A file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct FileError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a file. Rows and values are counted from 0, lines from 1, as editors do.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be opened.
    #[error("cannot be opened: {0}")]
    Open(io::Error),
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// It is a folder.
    #[error("is a folder")]
    Folder,
    /// There is nothing in it.
    #[error("is empty: at least one row is needed")]
    Empty,
    /// Its extension names no format that is known here.
    #[error("extension {found:?} is no format that is read here: use {known}")]
    Extension {
        /// The extension.
        found: String,
        /// What can be read.
        known: &'static str,
    },
    /// A row has another length than the first.
    #[error("row {row} at byte {byte} has {found} values, the first row has {expected}: all rows must be as long")]
    Ragged {
        /// Row number.
        row: u64,
        /// Where it begins.
        byte: u64,
        /// Its length.
        found: i64,
        /// Length of the first row.
        expected: usize,
    },
    /// A dimension beyond the limits.
    #[error("dimension {found} at byte {byte} is not in 1..={DIM_MAX}")]
    Dim {
        /// Where it is written.
        byte: u64,
        /// What is written.
        found: i64,
    },
    /// It ends within a row.
    #[error("row {row} at byte {byte} needs {expected} bytes, the file ends after {found}: it is truncated")]
    TruncatedRow {
        /// Row number.
        row: u64,
        /// Where it begins.
        byte: u64,
        /// Bytes that it needs.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// Its size is not what its header promises.
    #[error("has {found} bytes, its header promises {expected}{}", if found < expected { ": it is truncated" } else { "" })]
    Size {
        /// Its size.
        found: u64,
        /// What the header promises, header included.
        expected: u64,
    },
    /// A value that is NaN or infinite.
    #[error("row {row}, value {column} is {value}: vectors hold finite numbers only")]
    NotFinite {
        /// Row number.
        row: u64,
        /// Position in the row.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A row number that is none.
    #[error("row {row}, value {column} is {value}: a row number is 0 or more")]
    NegativeRowNumber {
        /// Row number in this file.
        row: u64,
        /// Position in the row.
        column: usize,
        /// The value.
        value: i64,
    },
    /// It is no `.npy` file.
    #[error("does not begin with the .npy signature")]
    NpySignature,
    /// An `.npy` version that is not known.
    #[error("has .npy version {major}.{minor}, known are 1.0, 2.0 and 3.0")]
    NpyVersion {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// The header of an `.npy` file is wrong.
    #[error(".npy header: {0}")]
    NpyHeader(String),
    /// The values are of a type that is not read here.
    #[error("holds values of type {found}, it must be {known}")]
    NpyType {
        /// The type.
        found: String,
        /// What can be read.
        known: &'static str,
    },
    /// The array is stored column by column.
    #[error("is stored in Fortran order: save it with numpy.ascontiguousarray")]
    NpyFortranOrder,
    /// The array is no table.
    #[error("has the shape {found}, it must have two dimensions: rows and values")]
    NpyShape {
        /// The shape.
        found: String,
    },
    /// A line is wrong.
    #[error("line {line}: {message}")]
    Line {
        /// Line number, from 1.
        line: u64,
        /// What is wrong.
        message: String,
    },
}

impl Problem {
    /// The problem of this file.
    pub fn of(self, path: &Path) -> FileError {
        FileError { path: path.to_owned(), problem: self }
    }
}
