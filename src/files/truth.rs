//! Exact answers: for each query the row numbers of its true neighbours, nearest first, from `.ivecs` or `.npy`.

use std::path::Path;

use super::error::{FileError, Problem};
use super::npy::{self, NpyRows};
use super::row::extension;
use super::vecs::{self, VecsReader};

/// Reads the first `queries` rows, or all when there are fewer.
pub fn read(path: &Path, queries: u64) -> Result<Vec<Vec<u64>>, FileError> {
    match extension(path).as_str() {
        "ivecs" => read_ivecs(path, queries),
        "npy" => read_npy(path, queries),
        found => Err(Problem::Extension { found: found.to_owned(), known: ".ivecs or .npy" }.of(path)),
    }
}

fn read_ivecs(path: &Path, queries: u64) -> Result<Vec<Vec<u64>>, FileError> {
    let mut reader = VecsReader::open(path, vecs::Element::I32)?;
    let mut rows = Vec::new();
    while (rows.len() as u64) < queries
        && let Some(bytes) = reader.next_bytes()?
    {
        let values = bytes.as_chunks().0.iter().map(|value| i64::from(i32::from_le_bytes(*value)));
        rows.push(row_numbers(rows.len() as u64, values).map_err(|problem| problem.of(path))?);
    }
    Ok(rows)
}

fn read_npy(path: &Path, queries: u64) -> Result<Vec<Vec<u64>>, FileError> {
    let known = [npy::Element::I32, npy::Element::I64, npy::Element::U32];
    let mut reader = NpyRows::open(path, &known, "\"<i4\", \"<i8\" or \"<u4\"")?;
    let element = reader.element();
    let mut rows = Vec::with_capacity(reader.rows().min(queries) as usize);
    while (rows.len() as u64) < queries
        && let Some((row, bytes)) = reader.next_bytes()?
    {
        let numbers = match element {
            npy::Element::U32 => {
                row_numbers(row, bytes.as_chunks().0.iter().map(|value| u32::from_le_bytes(*value).into()))
            }
            npy::Element::I64 => row_numbers(row, bytes.as_chunks().0.iter().map(|value| i64::from_le_bytes(*value))),
            _ => row_numbers(row, bytes.as_chunks().0.iter().map(|value| i32::from_le_bytes(*value).into())),
        };
        rows.push(numbers.map_err(|problem| problem.of(path))?);
    }
    Ok(rows)
}

fn row_numbers(row: u64, values: impl Iterator<Item = i64>) -> Result<Vec<u64>, Problem> {
    values
        .enumerate()
        .map(|(column, value)| u64::try_from(value).map_err(|_| Problem::NegativeRowNumber { row, column, value }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::npy::tests::{header, npy};

    fn read_bytes(name: &str, bytes: &[u8], queries: u64) -> Result<Vec<Vec<u64>>, FileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read(&path, queries)
    }

    #[test]
    fn every_integer_type_is_read() {
        let rows = [[5_u64, 0], [1, 70_000]];
        let expected: Vec<Vec<u64>> = rows.iter().map(|row| row.to_vec()).collect();
        let flat = || rows.iter().flatten();
        let i32s: Vec<u8> = flat().flat_map(|value| (*value as i32).to_le_bytes()).collect();
        let i64s: Vec<u8> = flat().flat_map(|value| (*value as i64).to_le_bytes()).collect();
        let ivecs: Vec<u8> = i32s.chunks(8).flat_map(|row| [&[2, 0, 0, 0], row].concat()).collect();
        assert_eq!(read_bytes("a.npy", &npy(1, &header("<i4", 2, 2), &i32s), 9).unwrap(), expected);
        assert_eq!(read_bytes("a.npy", &npy(1, &header("<u4", 2, 2), &i32s), 9).unwrap(), expected);
        assert_eq!(read_bytes("a.npy", &npy(1, &header("<i8", 2, 2), &i64s), 9).unwrap(), expected);
        assert_eq!(read_bytes("a.ivecs", &ivecs, 9).unwrap(), expected);
        assert_eq!(read_bytes("a.ivecs", &ivecs, 1).unwrap(), expected[..1]);
        assert_eq!(read_bytes("a.npy", &npy(1, &header("<i4", 2, 2), &i32s), 1).unwrap(), expected[..1]);
        let largest = npy(1, &header("<u4", 1, 1), &[0xff; 4]);
        assert_eq!(read_bytes("a.npy", &largest, 1).unwrap(), [[u64::from(u32::MAX)]]);
    }

    #[test]
    fn what_is_no_row_number_is_named() {
        let negative = npy(1, &header("<i4", 1, 2), &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        let error = read_bytes("a.npy", &negative, 1).unwrap_err();
        assert_eq!(error.problem.to_string(), "row 0, value 1 is -1: a row number is 0 or more");
        let floats = npy(1, &header("<f4", 1, 1), &[0; 4]);
        let error = read_bytes("a.npy", &floats, 1).unwrap_err();
        assert_eq!(error.problem.to_string(), r#"holds values of type "<f4", it must be "<i4", "<i8" or "<u4""#);
        assert!(read_bytes("a.ivecs", &[2, 0, 0, 0, 1, 0, 0, 0], 1).is_err());
        assert!(read_bytes("a.fvecs", &[1], 1).unwrap_err().to_string().contains("use .ivecs or .npy"));
    }
}
