//! `.fvecs`, `.bvecs` and `.ivecs`: every row is its dimension as a little-endian i32 and then that many f32, u8 or
//! i32 (the format of the TEXMEX corpora, <http://corpus-texmex.irisa.fr/>).

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use vecino_model::limits::DIM_MAX;

use super::error::{FileError, Problem};
use super::row::{Row, first_not_finite, open, plain_row};

/// What the values of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// `.fvecs`.
    F32,
    /// `.bvecs`.
    U8,
    /// `.ivecs`.
    I32,
}

impl Element {
    fn bytes(self) -> u64 {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::U8 => 1,
        }
    }
}

/// Reads rows, each as the bytes of its values.
#[derive(Debug)]
pub(super) struct VecsReader {
    path: PathBuf,
    file: BufReader<File>,
    element: Element,
    dim: usize,
    rows: u64,
    next: u64,
    bytes: Vec<u8>,
}

impl VecsReader {
    /// Reads the dimension of the first row and compares the file's size with it.
    pub(super) fn open(path: &Path, element: Element) -> Result<Self, FileError> {
        let (file, size) = open(path)?;
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        if size < 4 {
            return Err(Problem::TruncatedRow { row: 0, byte: 0, expected: 4, found: size }.of(path));
        }
        let mut dim = [0; 4];
        file.read_exact(&mut dim).map_err(|source| Problem::Read(source).of(path))?;
        file.seek_relative(-4).map_err(|source| Problem::Read(source).of(path))?;
        let found = i32::from_le_bytes(dim);
        let dim = match u32::try_from(found) {
            Ok(dim @ 1..=DIM_MAX) => dim,
            _ => return Err(Problem::Dim { byte: 0, found: found.into() }.of(path)),
        };
        let row_bytes = 4 + u64::from(dim) * element.bytes();
        // Where the rows are ragged this is off; the row that is meets its own check.
        let rows = size.div_ceil(row_bytes);
        let mut reader = Self {
            path: path.to_owned(),
            file,
            element,
            dim: dim as usize,
            rows,
            next: 0,
            bytes: vec![0; (row_bytes - 4) as usize],
        };
        if !size.is_multiple_of(row_bytes) {
            return Err(reader.find_uneven_row(size));
        }
        Ok(reader)
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// The next row as a point.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        let (number, element) = (self.next, self.element);
        let Some(bytes) = self.next_bytes()? else { return Ok(None) };
        let values: Vec<f32> = match element {
            Element::U8 => bytes.iter().map(|value| f32::from(*value)).collect(),
            Element::F32 => bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
            Element::I32 => bytes.as_chunks().0.iter().map(|value| i32::from_le_bytes(*value) as f32).collect(),
        };
        if let Some((column, value)) = first_not_finite(&values) {
            return Err(Problem::NotFinite { row: number, column, value }.of(&self.path));
        }
        Ok(Some(plain_row(number, values)))
    }

    /// The bytes of the next row's values, without its dimension.
    pub(super) fn next_bytes(&mut self) -> Result<Option<&[u8]>, FileError> {
        if self.next == self.rows {
            return Ok(None);
        }
        let mut dim = [0; 4];
        self.read_exact_or(&mut dim)?;
        let found = i32::from_le_bytes(dim);
        if usize::try_from(found) != Ok(self.dim) {
            let byte = self.next * (4 + self.bytes.len() as u64);
            let ragged = Problem::Ragged { row: self.next, byte, found: found.into(), expected: self.dim };
            return Err(ragged.of(&self.path));
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        let read = self.read_exact_or(&mut bytes);
        self.bytes = bytes;
        read?;
        self.next += 1;
        Ok(Some(&self.bytes))
    }

    fn read_exact_or(&mut self, bytes: &mut [u8]) -> Result<(), FileError> {
        self.file.read_exact(bytes).map_err(|source| Problem::Read(source).of(&self.path))
    }

    /// The size is no whole number of rows, so some row is uneven or the last one is cut: finds which.
    fn find_uneven_row(&mut self, size: u64) -> FileError {
        let row_bytes = 4 + self.bytes.len() as u64;
        self.rows = size / row_bytes;
        loop {
            match self.next_bytes() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return error,
            }
        }
        let byte = self.next * row_bytes;
        let mut dim = [0; 4];
        // A last row with another dimension is ragged; one with the right dimension, or not even that, is cut.
        if size - byte >= 4 && self.file.read_exact(&mut dim).is_ok() {
            let found = i32::from_le_bytes(dim);
            if usize::try_from(found) != Ok(self.dim) {
                let ragged = Problem::Ragged { row: self.next, byte, found: found.into(), expected: self.dim };
                return ragged.of(&self.path);
            }
        }
        Problem::TruncatedRow { row: self.next, byte, expected: row_bytes, found: size - byte }.of(&self.path)
    }
}

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::files::VectorFile;

    fn row(values: &[f32]) -> Vec<u8> {
        let mut bytes = (values.len() as i32).to_le_bytes().to_vec();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    fn read(name: &str, bytes: &[u8]) -> Result<Vec<Vec<f32>>, FileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let file = VectorFile::open(&path)?;
        let (rows, dim) = (file.rows().unwrap(), file.dim().unwrap());
        let vectors = file.map(|row| Ok(row?.vectors.remove("").unwrap().0)).collect::<Result<Vec<_>, FileError>>()?;
        assert_eq!((vectors.len() as u64, vectors[0].len()), (rows, dim));
        Ok(vectors)
    }

    fn problem(name: &str, bytes: &[u8]) -> String {
        read(name, bytes).unwrap_err().problem.to_string()
    }

    proptest! {
        #[test]
        fn fvecs_round_trip(
            (dim, values) in (1_usize..20).prop_flat_map(|dim| {
                (Just(dim), prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, dim..dim * 10))
            })
        ) {
            let rows: Vec<Vec<f32>> = values.chunks_exact(dim).map(<[f32]>::to_vec).collect();
            let bytes: Vec<u8> = rows.iter().flat_map(|values| row(values)).collect();
            prop_assert_eq!(read("a.fvecs", &bytes).unwrap(), rows);
        }

        #[test]
        fn bvecs_round_trip(rows in prop::collection::vec(prop::array::uniform7(any::<u8>()), 1..20)) {
            let bytes: Vec<u8> = rows.iter().flat_map(|row| [&[7, 0, 0, 0], row.as_slice()].concat()).collect();
            let expected: Vec<Vec<f32>> = rows.iter().map(|row| row.map(f32::from).to_vec()).collect();
            prop_assert_eq!(read("a.bvecs", &bytes).unwrap(), expected);
        }

        #[test]
        fn any_bytes_are_an_error_or_rows(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            let _ = read("a.fvecs", &bytes);
            let _ = read("a.bvecs", &bytes);
        }
    }

    #[test]
    fn rows_keep_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("A.FVECS");
        std::fs::write(&path, [row(&[1.0]), row(&[2.0]), row(&[3.0])].concat()).unwrap();
        let numbers: Vec<_> = VectorFile::open(&path).unwrap().map(|row| row.unwrap().number).collect();
        assert_eq!(numbers, [0, 1, 2]);
    }

    #[test]
    fn a_file_cut_at_any_byte_is_refused_before_its_first_row() {
        let bytes = [row(&[1.0, 2.0]), row(&[3.0, 4.0])].concat();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.fvecs");
        for length in 1..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let opened = VectorFile::open(&path);
            assert_eq!(opened.is_ok(), length == 12, "{length} bytes");
        }
        assert_eq!(
            problem("a.fvecs", &bytes[..20]),
            "row 1 at byte 12 needs 12 bytes, the file ends after 8: it is truncated"
        );
        assert_eq!(
            problem("a.fvecs", &bytes[..3]),
            "row 0 at byte 0 needs 4 bytes, the file ends after 3: it is truncated"
        );
    }

    #[test]
    fn ragged_rows_are_refused_whether_or_not_the_size_fits() {
        let uneven = "row 1 at byte 12 has 1 values, the first row has 2: all rows must be as long";
        assert_eq!(problem("a.fvecs", &[row(&[1.0, 2.0]), row(&[3.0])].concat()), uneven);
        assert_eq!(problem("a.fvecs", &[row(&[1.0, 2.0]), row(&[3.0]), row(&[4.0, 5.0])].concat()), uneven);
        // 1 + 3 values are as long as 2 + 2: only reading finds this one.
        let hidden = [row(&[1.0, 2.0]), row(&[3.0]), row(&[4.0, 5.0, 6.0])].concat();
        assert_eq!(problem("a.fvecs", &hidden), uneven);
    }

    #[test]
    fn a_dimension_over_the_limit_is_refused_without_reading_it() {
        for (dim, text) in [(0, "0"), (-1, "-1"), (16_385, "16385"), (i32::MAX, "2147483647")] {
            let mut bytes = i32::to_le_bytes(dim).to_vec();
            bytes.extend([0; 8]);
            assert_eq!(problem("a.fvecs", &bytes), format!("dimension {text} at byte 0 is not in 1..=16384"));
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_named() {
        for (value, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            assert_eq!(
                problem("a.fvecs", &[row(&[1.0, 2.0]), row(&[3.0, value])].concat()),
                format!("row 1, value 1 is {text}: vectors hold finite numbers only")
            );
        }
    }
}
