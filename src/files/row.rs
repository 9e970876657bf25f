//! Rows of a file, and what every reader of rows needs.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

use vecino_model::{Fields, Payload, PointId, Vector};

use super::error::{FileError, Problem};

/// One row of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Row number, from 0.
    pub number: u64,
    /// The id that the file gives the row, if it gives any.
    pub id: Option<PointId>,
    /// Its vectors; under the default field where the file does not name fields.
    pub vectors: Fields,
    /// Its payload; empty where the file has none.
    pub payload: Payload,
}

impl Row {
    /// The id in the file, or else the row number plus `offset`; `None` when that sum is beyond 64 bits.
    pub fn point_id(&self, offset: u64) -> Option<PointId> {
        self.id.clone().or_else(|| self.number.checked_add(offset).map(PointId::Number))
    }
}

/// The extension in lower case, without the dot.
pub(super) fn extension(path: &Path) -> String {
    path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase()
}

/// Opens a file for reading and returns its size.
pub(super) fn open(path: &Path) -> Result<(File, u64), FileError> {
    let file = File::open(path).map_err(|source| Problem::Open(source).of(path))?;
    let metadata = file.metadata().map_err(|source| Problem::Open(source).of(path))?;
    if metadata.is_dir() {
        return Err(Problem::Folder.of(path));
    }
    if metadata.len() == 0 {
        return Err(Problem::Empty.of(path));
    }
    Ok((file, metadata.len()))
}

/// A row without id and payload.
pub(super) fn plain_row(number: u64, values: Vec<f32>) -> Row {
    let vectors = Fields::from([(vecino_model::DEFAULT_FIELD.to_owned(), Vector(values))]);
    Row { number, id: None, vectors, payload: Payload::new() }
}

/// The first value that is not finite.
pub(super) fn first_not_finite(values: &[f32]) -> Option<(usize, f32)> {
    values.iter().copied().enumerate().find(|(_, value)| !value.is_finite())
}
