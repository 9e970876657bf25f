//! `.jsonl`: one point a line, `{"id": 1, "vector": [0.1, …], "payload": {…}}`. `id` (a number or a string) and
//! `payload` may be absent; `vector` may be a map of named fields, of which a point may lack some. A point without an id gets its row number. Empty lines
//! are skipped, but counted; a byte order mark before the first line is skipped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use vecino_model::PointId;
use vecino_model::limits::{DIM_MAX, FIELDS_MAX, POINT_ID_BYTES_MAX};

use super::error::{FileError, Problem};
use super::json::PointLine;
use super::row::{Row, first_not_finite, open};

/// Reads points.
#[derive(Debug)]
pub(super) struct JsonlReader {
    path: PathBuf,
    file: BufReader<File>,
    line: u64,
    row: u64,
    buffer: Vec<u8>,
    /// Dimension of each field, and the line that set it.
    dims: BTreeMap<String, (usize, u64)>,
}

impl JsonlReader {
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let (file, _) = open(path)?;
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Self { path: path.to_owned(), file, line: 0, row: 0, buffer: Vec::new(), dims: BTreeMap::new() })
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        loop {
            if !self.next_line()? {
                // Empty lines alone are as good as nothing.
                return if self.row == 0 { Err(Problem::Empty.of(&self.path)) } else { Ok(None) };
            }
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
        }
        let row = self.parse().map_err(|message| Problem::Line { line: self.line, message }.of(&self.path))?;
        self.row += 1;
        Ok(Some(row))
    }

    /// Reads a line into the buffer; false at the end of the file.
    fn next_line(&mut self) -> Result<bool, FileError> {
        self.buffer.clear();
        let mut line = (&mut self.file).take(LINE_BYTES_MAX + 1);
        let length = line.read_until(b'\n', &mut self.buffer).map_err(|source| Problem::Read(source).of(&self.path))?;
        self.line += 1;
        if self.line == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.buffer.drain(..BYTE_ORDER_MARK.len());
        }
        if length as u64 > LINE_BYTES_MAX {
            let message = format!("more than {LINE_BYTES_MAX} bytes long, which is the limit");
            return Err(Problem::Line { line: self.line, message }.of(&self.path));
        }
        Ok(length > 0)
    }

    fn parse(&mut self) -> Result<Row, String> {
        if self.row == 0 && self.buffer.trim_ascii_start().starts_with(b"[") {
            let file = self.path.display();
            return Err(format!(
                "the file is one JSON array, and .jsonl has one object a line: `jq -c '.[]' {file}` writes it so"
            ));
        }
        let PointLine { id, vector, payload } =
            serde_json::from_slice(&self.buffer).map_err(|error| self.explain(&error))?;
        let vectors = vector.0;
        if vectors.is_empty() {
            return Err("\"vector\" has no field".to_owned());
        }
        if let Some(PointId::Text(text)) = &id
            && !(1..=POINT_ID_BYTES_MAX).contains(&text.len())
        {
            return Err(format!("\"id\" has {} bytes, it must have 1 to {POINT_ID_BYTES_MAX}", text.len()));
        }
        for (field, vector) in &vectors {
            let found = vector.0.len();
            match self.dims.get(field) {
                Some((expected, line)) if *expected != found => {
                    let field = field_text(field);
                    return Err(format!("vector{field} has {found} values, line {line} has {expected}"));
                }
                Some(_) => {}
                None if self.dims.len() == FIELDS_MAX => {
                    let field = field_text(field);
                    return Err(format!(
                        "vector{field} is one field more than the {FIELDS_MAX} that a collection may have"
                    ));
                }
                None if !(1..=DIM_MAX as usize).contains(&found) => {
                    return Err(format!("vector{} has {found} values, it must have 1 to {DIM_MAX}", field_text(field)));
                }
                None => {
                    self.dims.insert(field.clone(), (found, self.line));
                }
            }
            if let Some((column, value)) = first_not_finite(&vector.0) {
                return Err(format!("vector{}, value {column} is {value}: it must be finite", field_text(field)));
            }
        }
        let payload = payload.map(vecino_client::payload_from_json).transpose().map_err(|error| error.to_string())?;
        Ok(Row { number: self.row, id, vectors, payload: payload.unwrap_or_default() })
    }

    /// What the JSON parser said, with the column but without the line, which is always 1 for it.
    fn explain(&self, error: &serde_json::Error) -> String {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let text = text.strip_suffix(&place).unwrap_or(&text);
        let at = &self.buffer[error.column().saturating_sub(1).min(self.buffer.len())..];
        let word = at.split(|byte| !byte.is_ascii_alphabetic() && *byte != b'-').next().unwrap_or_default();
        match word {
            b"NaN" | b"Infinity" | b"-Infinity" => {
                let word = String::from_utf8_lossy(word);
                format!("column {}: {word} is no JSON number, and vectors hold finite numbers only", error.column())
            }
            _ => format!("column {}: {text}", error.column()),
        }
    }
}

/// ` "name"`, or nothing for the unnamed field.
fn field_text(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!(" {field:?}") }
}

/// What some programs write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Longest line: room for the largest vectors in sixteen digits each and the largest payload.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes that are read at once.
const BUFFER_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use vecino_model::{Fields, Payload, Value, Vector};

    use super::*;
    use crate::files::VectorFile;

    fn read(text: impl AsRef<[u8]>) -> Result<Vec<Row>, FileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, text).unwrap();
        VectorFile::open(&path)?.collect()
    }

    fn problem(text: impl AsRef<[u8]>) -> String {
        read(text).unwrap_err().problem.to_string()
    }

    fn default_field(values: &[f32]) -> Fields {
        Fields::from([(String::new(), Vector(values.to_vec()))])
    }

    #[test]
    fn points_are_read_with_and_without_id_and_payload() {
        let rows = read(concat!(
            "{\"id\": 7, \"vector\": [1, 2.5], \"payload\": {\"title\": \"a\", \"n\": 1}}\r\n",
            "\n",
            "{\"vector\":[3,4],\"payload\":null}\n",
            "{\"id\":\"x\",\"vector\":[5,6]}",
        ))
        .unwrap();
        let payload = Payload::from([("title".into(), Value::Text("a".into())), ("n".into(), Value::Int(1))]);
        assert_eq!(
            rows,
            [
                Row { number: 0, id: Some(7.into()), vectors: default_field(&[1.0, 2.5]), payload },
                Row { number: 1, id: None, vectors: default_field(&[3.0, 4.0]), payload: Payload::new() },
                Row { number: 2, id: Some("x".into()), vectors: default_field(&[5.0, 6.0]), payload: Payload::new() },
            ]
        );
    }

    #[test]
    fn fields_may_be_named() {
        let rows = read(r#"{"vector":{"title":[1],"image":[2,3]}}"#).unwrap();
        assert_eq!(
            rows[0].vectors,
            Fields::from([("title".into(), Vector(vec![1.0])), ("image".into(), Vector(vec![2.0, 3.0]))])
        );
    }

    #[test]
    fn a_line_may_lack_fields_that_others_have_and_each_field_keeps_its_dimension() {
        let rows =
            read("{\"vector\":{\"a\":[1]}}\n{\"vector\":{\"b\":[2,3]}}\n{\"vector\":{\"b\":[4,5],\"a\":[6]}}").unwrap();
        assert_eq!(rows.iter().map(|row| row.vectors.len()).collect::<Vec<_>>(), [1, 1, 2]);
        let error = read("{\"vector\":{\"a\":[1]}}\n{\"vector\":{\"b\":[2,3]}}\n{\"vector\":{\"b\":[4]}}").unwrap_err();
        assert!(error.to_string().ends_with("line 3: vector \"b\" has 1 values, line 2 has 2"), "{error}");
        let field = |number: usize| format!("{{\"vector\":{{\"f{number}\":[1]}}}}\n");
        let many: String = (0..=FIELDS_MAX).map(field).collect();
        let error = read(&many).unwrap_err();
        assert!(error.to_string().contains("one field more than the 16"), "{error}");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let good = "{\"vector\":[1,2]}\n";
        for (bad, message) in [
            ("{\"vector\":[1]}", "line 2: vector has 1 values, line 1 has 2"),
            ("{\"vector\":[]}", "line 2: vector has 0 values, line 1 has 2"),
            ("{\"vector\":{}}", "line 2: \"vector\" has no field"),
            ("{\"vector\":[1,NaN]}", "line 2: column 14: NaN is no JSON number, and vectors hold finite numbers only"),
            ("{\"vector\":[1,1e39]}", "line 2: column 17: number out of range"),
            ("{\"vector\":[1,\"a\"]}", "line 2: column 16: invalid type: string \"a\", expected f32"),
            (
                "{\"vector\":[1,2],\"vektor\":1}",
                "line 2: column 24: unknown field `vektor`, expected one of `id`, `vector`, `payload`",
            ),
            ("{\"id\":1}", "line 2: column 8: missing field `vector`"),
            ("{\"id\":\"\",\"vector\":[1,2]}", "line 2: \"id\" has 0 bytes, it must have 1 to 512"),
            ("{\"vector\":[1,2]} x", "line 2: column 18: trailing characters"),
            (
                "{\"vector\":[1,2],\"payload\":[]}",
                "line 2: payload is a list, not a JSON object such as {\"title\": \"…\"}",
            ),
            ("{\"vector\":[1,2", "line 2: column 14: EOF while parsing a list"),
        ] {
            assert_eq!(problem(format!("{good}{bad}")), message, "{bad}");
        }
        for (id, column) in [("-5", 8), ("1.5", 9), ("[]", 8), ("true", 10), ("18446744073709551616", 26)] {
            let message = problem(format!("{{\"id\":{id},\"vector\":[1]}}"));
            assert!(message.starts_with(&format!("line 1: column {column}: ")), "{id}: {message}");
            assert!(!message.contains("PointId"), "{id}: {message}");
        }
        assert!(problem("{\"id\":-5,\"vector\":[1]}").contains("id -5 is negative"));
        assert!(problem(b"{\"id\":\"\xff\",\"vector\":[1]}").starts_with("line 1: column "));
        assert_eq!(problem("{\"vector\":[]}"), "line 1: vector has 0 values, it must have 1 to 16384");
        assert_eq!(problem("\n \n"), "is empty: at least one row is needed");
    }

    #[test]
    fn a_json_array_is_told_from_lines() {
        for text in ["[{\"vector\":[1]}]", "\n  [\n{\"vector\":[1]}\n]"] {
            let message = problem(text);
            assert!(message.contains("one JSON array") && message.contains("jq -c '.[]'"), "{message}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let rows = read("\u{feff}{\"id\":1,\"vector\":[1]}\n{\"id\":2,\"vector\":[2]}\n").unwrap();
        assert_eq!(rows.iter().map(|row| row.id.clone().unwrap()).collect::<Vec<_>>(), [1.into(), 2.into()]);
        assert_eq!(problem("\u{feff}\n"), "is empty: at least one row is needed");
    }

    #[test]
    fn a_line_that_never_ends_is_refused() {
        let bytes = vec![b' '; LINE_BYTES_MAX as usize + 2];
        assert_eq!(problem(bytes), "line 1: more than 16777216 bytes long, which is the limit");
    }
}
