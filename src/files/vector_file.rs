//! A file of vectors in any of the formats.

use std::path::Path;

use super::error::{FileError, Problem};
use super::jsonl::JsonlReader;
use super::npy::NpyReader;
use super::row::{Row, extension};
use super::vecs::{self, VecsReader};

/// A file of vectors that is being read row by row.
#[derive(Debug)]
pub struct VectorFile {
    reader: Reader,
    /// After the first error there is nothing more to read.
    failed: bool,
}

impl VectorFile {
    /// Opens a file by its extension. Where the format allows it the file's size is checked against what its header
    /// promises, so that a truncated file is refused before its first row.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let reader = match extension(path).as_str() {
            "fvecs" => Reader::Vecs(VecsReader::open(path, vecs::Element::F32)?),
            "bvecs" => Reader::Vecs(VecsReader::open(path, vecs::Element::U8)?),
            "npy" => Reader::Npy(NpyReader::open(path)?),
            "jsonl" | "ndjson" => Reader::Jsonl(JsonlReader::open(path)?),
            found => {
                let problem = Problem::Extension { found: found.to_owned(), known: ".fvecs, .bvecs, .npy or .jsonl" };
                return Err(problem.of(path));
            }
        };
        Ok(Self { reader, failed: false })
    }

    /// Number of rows, where the format tells without reading them all.
    pub fn rows(&self) -> Option<u64> {
        match &self.reader {
            Reader::Vecs(reader) => Some(reader.rows()),
            Reader::Npy(reader) => Some(reader.rows()),
            Reader::Jsonl(_) => None,
        }
    }

    /// Dimension of the rows, where the format tells before the first one.
    pub fn dim(&self) -> Option<usize> {
        match &self.reader {
            Reader::Vecs(reader) => Some(reader.dim()),
            Reader::Npy(reader) => Some(reader.dim()),
            Reader::Jsonl(_) => None,
        }
    }
}

impl Iterator for VectorFile {
    type Item = Result<Row, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = match &mut self.reader {
            Reader::Vecs(reader) => reader.next_row(),
            Reader::Npy(reader) => reader.next_row(),
            Reader::Jsonl(reader) => reader.next_row(),
        };
        self.failed = row.is_err();
        row.transpose()
    }
}

#[derive(Debug)]
enum Reader {
    Vecs(VecsReader),
    Npy(NpyReader),
    Jsonl(JsonlReader),
}

#[cfg(test)]
mod tests {
    use vecino_model::PointId;

    use super::*;
    use crate::files::row::plain_row;

    #[test]
    fn a_file_is_known_by_its_extension() {
        let dir = tempfile::tempdir().unwrap();
        for (name, expected) in [
            ("a.csv", "\"csv\" is no format that is read here: use .fvecs, .bvecs, .npy or .jsonl"),
            ("a", "\"\" is no format that is read here: use .fvecs, .bvecs, .npy or .jsonl"),
            ("a.ivecs", "\"ivecs\" is no format that is read here: use .fvecs, .bvecs, .npy or .jsonl"),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, b"x").unwrap();
            let error = VectorFile::open(&path).unwrap_err();
            assert_eq!(error.to_string(), format!("{}: extension {expected}", path.display()));
        }
    }

    #[test]
    fn absent_empty_and_folder_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let problem = |name: &str| VectorFile::open(&dir.path().join(name)).unwrap_err().problem;
        assert!(matches!(problem("a.npy"), Problem::Open(error) if error.kind() == std::io::ErrorKind::NotFound));
        for name in ["e.npy", "e.fvecs", "e.bvecs", "e.jsonl"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
            assert_eq!(problem(name).to_string(), "is empty: at least one row is needed");
        }
        std::fs::create_dir(dir.path().join("d.npy")).unwrap();
        assert_eq!(problem("d.npy").to_string(), "is a folder");
    }

    #[test]
    fn a_row_without_an_id_is_numbered() {
        let row = plain_row(7, vec![1.0]);
        assert_eq!(row.point_id(100), Some(PointId::Number(107)));
        assert_eq!(row.point_id(u64::MAX), None);
        let named = Row { id: Some("a".into()), ..row };
        assert_eq!(named.point_id(100), Some("a".into()));
    }

    #[test]
    fn nothing_is_read_after_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "{\"vector\":[1]}\nx\n{\"vector\":[1]}\n").unwrap();
        let rows: Vec<_> = VectorFile::open(&path).unwrap().map(|row| row.is_ok()).collect();
        assert_eq!(rows, [true, false]);
    }
}
