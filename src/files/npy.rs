//! `.npy`, NumPy's array format, versions 1.0, 2.0 and 3.0
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>): a signature, a header that is a Python
//! dictionary, and then the values.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use half::f16;
use vecino_model::limits::DIM_MAX;

use super::error::{FileError, Problem};
use super::row::{Row, first_not_finite, open, plain_row};

/// What the values of an array are; always little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// `<f4`
    F32,
    /// `<f2`
    F16,
    /// `|u1`
    U8,
    /// `<i4`
    I32,
    /// `<i8`
    I64,
    /// `<u4`
    U32,
}

impl Element {
    fn bytes(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::F16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::I64 => 8,
        }
    }

    /// From the `descr` of a header: an optional byte order and a type with its size.
    fn parse(descr: &str) -> Option<Self> {
        let little_endian = descr.trim_start_matches(['<', '|', '=']);
        match little_endian {
            "f4" => Some(Self::F32),
            "f2" => Some(Self::F16),
            "u1" => Some(Self::U8),
            "i4" => Some(Self::I32),
            "i8" => Some(Self::I64),
            "u4" => Some(Self::U32),
            _ => None,
        }
    }
}

/// The rows of a two-dimensional array, each as the bytes of its values.
#[derive(Debug)]
pub(super) struct NpyRows {
    path: PathBuf,
    file: BufReader<File>,
    element: Element,
    dim: usize,
    rows: u64,
    next: u64,
    bytes: Vec<u8>,
}

impl NpyRows {
    /// Reads the header and compares the file's size with it. `known` are the element types that the caller can use.
    pub(super) fn open(path: &Path, known: &[Element], known_names: &'static str) -> Result<Self, FileError> {
        let (file, size) = open(path)?;
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let (header, header_bytes) = read_header(&mut file).map_err(|problem| problem.of(path))?;
        let array = Array::parse(&header).map_err(|problem| problem.of(path))?;
        let element = Element::parse(&array.descr).filter(|element| known.contains(element));
        let element = element
            .ok_or_else(|| Problem::NpyType { found: format!("{:?}", array.descr), known: known_names }.of(path))?;
        if array.fortran_order {
            return Err(Problem::NpyFortranOrder.of(path));
        }
        let [rows, dim] = array.shape[..] else {
            return Err(Problem::NpyShape { found: shape_text(&array.shape) }.of(path));
        };
        if !(1..=u64::from(DIM_MAX)).contains(&dim) {
            // The header's shape is the only place where the dimension is written.
            return Err(Problem::Dim { byte: 0, found: i64::try_from(dim).unwrap_or(i64::MAX) }.of(path));
        }
        if rows == 0 {
            return Err(Problem::Empty.of(path));
        }
        let row_bytes = dim * element.bytes();
        let expected = rows.checked_mul(row_bytes).and_then(|bytes| bytes.checked_add(header_bytes));
        if expected != Some(size) {
            return Err(Problem::Size { found: size, expected: expected.unwrap_or(u64::MAX) }.of(path));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            element,
            dim: dim as usize,
            rows,
            next: 0,
            bytes: vec![0; row_bytes as usize],
        })
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn element(&self) -> Element {
        self.element
    }

    /// Number of the next row and the bytes of its values.
    pub(super) fn next_bytes(&mut self) -> Result<Option<(u64, &[u8])>, FileError> {
        if self.next == self.rows {
            return Ok(None);
        }
        self.file.read_exact(&mut self.bytes).map_err(|source| Problem::Read(source).of(&self.path))?;
        self.next += 1;
        Ok(Some((self.next - 1, &self.bytes)))
    }
}

/// An array of vectors.
#[derive(Debug)]
pub(super) struct NpyReader {
    rows: NpyRows,
}

impl NpyReader {
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let known = [Element::F32, Element::F16, Element::U8];
        Ok(Self { rows: NpyRows::open(path, &known, "\"<f4\", \"<f2\" or \"|u1\"")? })
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows.rows
    }

    pub(super) fn dim(&self) -> usize {
        self.rows.dim
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        let element = self.rows.element;
        let Some((row, bytes)) = self.rows.next_bytes()? else { return Ok(None) };
        let values: Vec<f32> = match element {
            Element::F16 => bytes.as_chunks().0.iter().map(|value| f16::from_le_bytes(*value).to_f32()).collect(),
            Element::U8 => bytes.iter().map(|value| f32::from(*value)).collect(),
            _ => bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
        };
        if let Some((column, value)) = first_not_finite(&values) {
            return Err(Problem::NotFinite { row, column, value }.of(&self.rows.path));
        }
        Ok(Some(plain_row(row, values)))
    }
}

/// The header's text, and the byte at which the values begin.
fn read_header(file: &mut impl Read) -> Result<(String, u64), Problem> {
    let mut take = |bytes: &mut [u8], what: &str| match file.read_exact(bytes) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(Problem::NpyHeader(format!("the file ends within {what}: it is truncated")))
        }
        Err(error) => Err(Problem::Read(error)),
    };
    let mut start = [0; 8];
    take(&mut start, "the signature")?;
    if start[..6] != *SIGNATURE {
        return Err(Problem::NpySignature);
    }
    let (length, prefix) = match (start[6], start[7]) {
        (1, 0) => {
            let mut length = [0; 2];
            take(&mut length, "the header's length")?;
            (u32::from(u16::from_le_bytes(length)), 10)
        }
        (2 | 3, 0) => {
            let mut length = [0; 4];
            take(&mut length, "the header's length")?;
            (u32::from_le_bytes(length), 12)
        }
        (major, minor) => return Err(Problem::NpyVersion { major, minor }),
    };
    if length > HEADER_BYTES_MAX {
        return Err(Problem::NpyHeader(format!("{length} bytes long, the limit is {HEADER_BYTES_MAX}")));
    }
    let mut header = vec![0; length as usize];
    take(&mut header, "the header")?;
    let header = String::from_utf8(header).map_err(|_| Problem::NpyHeader("no UTF-8".to_owned()))?;
    Ok((header, prefix + u64::from(length)))
}

/// What a header says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Array {
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl Array {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, keys in any order.
    fn parse(header: &str) -> Result<Self, Problem> {
        let mut cursor = Cursor { rest: header };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        cursor.expect('{')?;
        while !cursor.accept('}') {
            let key = cursor.string()?;
            cursor.expect(':')?;
            match key {
                "descr" if cursor.rest.trim_start().starts_with('[') => {
                    // A structured type; only the fact matters.
                    return Err(Problem::NpyType { found: "a structure".to_owned(), known: "a single number type" });
                }
                "descr" => descr = Some(cursor.string()?.to_owned()),
                "fortran_order" => fortran_order = Some(cursor.boolean()?),
                "shape" => shape = Some(cursor.tuple()?),
                _ => return Err(Problem::NpyHeader(format!("unknown key {key:?}"))),
            }
            if !cursor.accept(',') {
                cursor.expect('}')?;
                break;
            }
        }
        if !cursor.rest.trim().is_empty() {
            return Err(cursor.unexpected("the end"));
        }
        let missing = |key: &str| Problem::NpyHeader(format!("key {key:?} is missing"));
        Ok(Self {
            descr: descr.ok_or_else(|| missing("descr"))?,
            fortran_order: fortran_order.ok_or_else(|| missing("fortran_order"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
        })
    }
}

/// Reads the few forms of Python literals that headers use.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn accept(&mut self, wanted: char) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, wanted: char) -> Result<(), Problem> {
        if self.accept(wanted) { Ok(()) } else { Err(self.unexpected(&format!("{wanted:?}"))) }
    }

    fn string(&mut self) -> Result<&'a str, Problem> {
        self.rest = self.rest.trim_start();
        let quote = self.rest.chars().next().filter(|quote| matches!(quote, '\'' | '"'));
        let quoted = quote.and_then(|quote| self.rest[1..].split_once(quote));
        let (string, rest) = quoted.ok_or_else(|| self.unexpected("a string"))?;
        self.rest = rest;
        Ok(string)
    }

    fn boolean(&mut self) -> Result<bool, Problem> {
        self.rest = self.rest.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(self.unexpected("True or False"))
    }

    fn tuple(&mut self) -> Result<Vec<u64>, Problem> {
        let mut numbers = Vec::new();
        self.expect('(')?;
        while !self.accept(')') {
            self.rest = self.rest.trim_start();
            let digits = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let number = self.rest[..digits].parse().map_err(|_| self.unexpected("a number of 64 bits"))?;
            numbers.push(number);
            // Python 2 wrote a long as 3L.
            self.rest = self.rest[digits..].strip_prefix('L').unwrap_or(&self.rest[digits..]);
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(numbers)
    }

    fn unexpected(&self, wanted: &str) -> Problem {
        let found: String = self.rest.trim().chars().take(20).collect();
        Problem::NpyHeader(format!("{found:?} found where {wanted} should be"))
    }
}

/// A shape as Python writes it.
fn shape_text(shape: &[u64]) -> String {
    match shape {
        [only] => format!("({only},)"),
        _ => format!("({})", shape.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
    }
}

const SIGNATURE: &[u8; 6] = b"\x93NUMPY";
/// Longest header. NumPy writes some 120 bytes for a plain array.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Bytes that are read at once.
const BUFFER_BYTES: usize = 256 * 1024;

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::files::VectorFile;

    /// A file as NumPy writes it.
    pub(in crate::files) fn npy(major: u8, header: &str, values: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([major, 0]);
        if major == 1 {
            bytes.extend((header.len() as u16).to_le_bytes());
        } else {
            bytes.extend((header.len() as u32).to_le_bytes());
        }
        bytes.extend(header.as_bytes());
        bytes.extend(values);
        bytes
    }

    pub(in crate::files) fn header(descr: &str, rows: usize, dim: usize) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}{:30}\n", "")
    }

    fn read(bytes: &[u8]) -> Result<Vec<Vec<f32>>, FileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        std::fs::write(&path, bytes).unwrap();
        let file = VectorFile::open(&path)?;
        let (rows, dim) = (file.rows().unwrap(), file.dim().unwrap());
        let vectors = file.map(|row| Ok(row?.vectors.remove("").unwrap().0)).collect::<Result<Vec<_>, FileError>>()?;
        assert_eq!((vectors.len() as u64, vectors[0].len()), (rows, dim));
        Ok(vectors)
    }

    fn problem(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().problem.to_string()
    }

    fn f32_bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    proptest! {
        #[test]
        fn f32_round_trip(
            (dim, values) in (1_usize..20).prop_flat_map(|dim| {
                (Just(dim), prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, dim..dim * 10))
            }),
            major in 1_u8..=3,
        ) {
            let rows: Vec<Vec<f32>> = values.chunks_exact(dim).map(<[f32]>::to_vec).collect();
            let bytes = npy(major, &header("<f4", rows.len(), dim), &f32_bytes(&rows.concat()));
            prop_assert_eq!(read(&bytes).unwrap(), rows);
        }

        #[test]
        fn f16_and_u8_round_trip(values in prop::collection::vec(any::<u8>(), 2..60)) {
            let rows = values.len() / 2;
            let expected: Vec<Vec<f32>> = values.as_chunks::<2>().0.iter().map(|row| row.map(f32::from).to_vec()).collect();
            let bytes = npy(1, &header("|u1", rows, 2), &values[..rows * 2]);
            prop_assert_eq!(&read(&bytes).unwrap(), &expected);
            let halves: Vec<u8> =
                expected.concat().iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
            prop_assert_eq!(&read(&npy(1, &header("<f2", rows, 2), &halves)).unwrap(), &expected);
        }

        #[test]
        fn any_bytes_are_an_error_or_rows(bytes in prop::collection::vec(any::<u8>(), 1..200), major in 0_u8..5) {
            let _ = read(&bytes);
            let _ = read(&npy(major, &String::from_utf8_lossy(&bytes), &bytes));
        }

        #[test]
        fn any_header_is_an_error_or_an_array(header in "[ {}()':,0-9descrfotanhpFalseTu_<>|\\[\\]]{0,60}") {
            let _ = Array::parse(&header);
        }
    }

    #[test]
    fn half_floats_have_their_known_values() {
        let bytes = npy(1, &header("<f2", 1, 4), &[0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00, 0xff, 0x7b]);
        assert_eq!(read(&bytes).unwrap(), [[1.0, -2.0, 5.960_464_5e-8, 65504.0]]);
    }

    #[test]
    fn a_file_cut_at_any_byte_is_refused_before_its_first_row() {
        let bytes = npy(1, &header("<f4", 3, 2), &f32_bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        for length in 1..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = VectorFile::open(&path).unwrap_err().to_string();
            assert!(error.contains("truncated"), "{length} bytes: {error}");
        }
        let size = bytes.len();
        let cut = problem(&bytes[..size - 5]);
        assert_eq!(cut, format!("has {} bytes, its header promises {size}: it is truncated", size - 5));
        let longer = problem(&[bytes, vec![0]].concat());
        assert_eq!(longer, format!("has {} bytes, its header promises {size}", size + 1));
    }

    #[test]
    fn headers_that_cannot_be_used_say_why() {
        let of = |header: &str| problem(&npy(1, header, &[0; 8]));
        for (header, message) in [
            (
                "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2)}",
                "is stored in Fortran order: save it with numpy.ascontiguousarray",
            ),
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1)}",
                r#"holds values of type "<f8", it must be "<f4", "<f2" or "|u1""#,
            ),
            (
                "{'descr': '>f4', 'fortran_order': False, 'shape': (1, 2)}",
                r#"holds values of type ">f4", it must be "<f4", "<f2" or "|u1""#,
            ),
            (
                "{'descr': '<i4', 'fortran_order': False, 'shape': (1, 2)}",
                r#"holds values of type "<i4", it must be "<f4", "<f2" or "|u1""#,
            ),
            (
                "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}",
                "holds values of type a structure, it must be a single number type",
            ),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
                "has the shape (2,), it must have two dimensions: rows and values",
            ),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': ()}",
                "has the shape (), it must have two dimensions: rows and values",
            ),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 2)}",
                "has the shape (1, 1, 2), it must have two dimensions: rows and values",
            ),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 2)}", "is empty: at least one row is needed"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 0)}", "dimension 0 at byte 0 is not in 1..=16384"),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 99999)}",
                "dimension 99999 at byte 0 is not in 1..=16384",
            ),
            ("{'descr': '<f4', 'fortran_order': False}", ".npy header: key \"shape\" is missing"),
            ("{'descr': '<f4', 'shape': (1, 2)}", ".npy header: key \"fortran_order\" is missing"),
            ("{'fortran_order': False, 'shape': (1, 2)}", ".npy header: key \"descr\" is missing"),
            ("{'colour': '<f4'}", ".npy header: unknown key \"colour\""),
            ("{'shape': (-1, 2)}", ".npy header: \"-1, 2)}\" found where a number of 64 bits should be"),
            (
                "{'shape': (99999999999999999999, 2)}",
                ".npy header: \"99999999999999999999\" found where a number of 64 bits should be",
            ),
            ("{'fortran_order': maybe}", ".npy header: \"maybe}\" found where True or False should be"),
            ("{'descr", ".npy header: \"'descr\" found where a string should be"),
            ("{} x", ".npy header: \"x\" found where the end should be"),
        ] {
            assert_eq!(of(header), message, "{header}");
        }
    }

    #[test]
    fn a_promise_beyond_64_bits_is_no_overflow() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551615, 16384)}";
        assert!(
            problem(&npy(1, header, &[0; 8])).contains("its header promises 18446744073709551615: it is truncated")
        );
    }

    #[test]
    fn what_is_no_npy_file_is_told() {
        assert_eq!(problem(b"PK\x03\x04 not an array"), "does not begin with the .npy signature");
        assert_eq!(problem(&npy(4, "{}", &[])), "has .npy version 4.0, known are 1.0, 2.0 and 3.0");
        let mut long = npy(2, "", &[]);
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(problem(&long), ".npy header: 4294967295 bytes long, the limit is 65536");
        let mut no_text = npy(1, "{'descr'", &[]);
        no_text[12] = 0xff;
        assert_eq!(problem(&no_text), ".npy header: no UTF-8");
    }

    #[test]
    fn a_value_that_is_not_finite_is_named() {
        let bytes = npy(1, &header("<f4", 2, 2), &f32_bytes(&[1.0, 2.0, f32::NAN, 4.0]));
        assert_eq!(problem(&bytes), "row 1, value 0 is NaN: vectors hold finite numbers only");
        let infinite_half = npy(1, &header("<f2", 1, 2), &[0, 0, 0x00, 0xfc]);
        assert_eq!(problem(&infinite_half), "row 0, value 1 is -inf: vectors hold finite numbers only");
    }

    #[test]
    fn a_header_may_order_its_keys_and_quote_them_as_it_likes() {
        let header = r#"{ "shape":(2L,1L),"fortran_order" : False , "descr":"|u1" }"#;
        assert_eq!(read(&npy(1, header, &[3, 4])).unwrap(), [[3.0], [4.0]]);
    }
}
