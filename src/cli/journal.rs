//! The journal of an import: the ids acknowledged so far, one a line, so that the same command goes on from there.
//!
//! A number is written as its digits, a text as a JSON string, so that every id stays on its line and the two cannot
//! be mistaken for each other. Lines are only ever added, after their points were acknowledged; what a crash leaves
//! half written at the end is cut off when the journal is opened. Losing lines is harmless: their points are put again.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use vecino_client::PointId;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    earlier: HashSet<PointId>,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("journal {}: {source}", path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no id. Going on would mean to guess.
    #[error("journal {}, line {line}: {text:?} is no id: is this a journal of `vecino import`?", path.display())]
    Line {
        /// The journal.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
}

impl Journal {
    /// Opens the journal, or starts one, and reads the ids in it.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut earlier = HashSet::new();
        for (index, line) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            let line = &line[..line.len() - 1];
            let id = parse_line(line).ok_or_else(|| JournalError::Line {
                path: path.to_owned(),
                line: index + 1,
                text: String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_SHOWN)]).into_owned(),
            })?;
            earlier.insert(id);
        }
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(io)?;
        }
        file.seek(SeekFrom::Start(whole as u64)).map_err(io)?;
        Ok(Self { path: path.to_owned(), file, earlier })
    }

    /// Whether an earlier run had this id acknowledged.
    pub fn contains(&self, id: &PointId) -> bool {
        self.earlier.contains(id)
    }

    /// How many ids earlier runs had acknowledged.
    #[cfg(test)]
    fn earlier_count(&self) -> usize {
        self.earlier.len()
    }

    /// Adds ids that were acknowledged. They are handed to the operating system before this returns.
    pub fn append(&mut self, ids: &[PointId]) -> Result<(), JournalError> {
        let mut lines = Vec::new();
        for id in ids {
            serde_json::to_writer(&mut lines, id).expect("an id always makes JSON");
            lines.push(b'\n');
        }
        let written = self.file.write_all(&lines).and_then(|()| self.file.flush());
        written.map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }
}

/// An id is either JSON number or JSON string; JSON escapes line feeds, so neither spans lines.
fn parse_line(line: &[u8]) -> Option<PointId> {
    let is_id = line.first().is_some_and(|first| first.is_ascii_digit() || *first == b'"');
    is_id.then(|| serde_json::from_slice(line).ok()).flatten()
}

/// Most bytes of a wrong line that are shown.
const LINE_BYTES_SHOWN: usize = 60;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_folder<T>(act: impl FnOnce(&Path) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        act(&dir.path().join("journal"))
    }

    #[test]
    fn ids_of_earlier_runs_are_known_and_types_kept_apart() {
        in_folder(|path| {
            let mut journal = Journal::open(path).unwrap();
            assert_eq!(journal.earlier_count(), 0);
            journal.append(&[7.into(), "7".into()]).unwrap();
            journal.append(&["a\n\"b\u{0}é".into(), u64::MAX.into()]).unwrap();
            assert!(!journal.contains(&7.into()), "this run's own ids are not skipped");
            drop(journal);
            let text = std::fs::read_to_string(path).unwrap();
            assert_eq!(text, "7\n\"7\"\n\"a\\n\\\"b\\u0000é\"\n18446744073709551615\n");
            let mut journal = Journal::open(path).unwrap();
            for id in [7.into(), "7".into(), "a\n\"b\u{0}é".into(), u64::MAX.into()] {
                assert!(journal.contains(&id), "{id:?}");
            }
            assert!(!journal.contains(&8.into()));
            journal.append(&[8.into()]).unwrap();
            assert_eq!(Journal::open(path).unwrap().earlier_count(), 5);
        });
    }

    #[test]
    fn a_tail_torn_at_any_byte_is_cut_and_never_read_as_another_id() {
        let whole = b"12345\n\"abc\"\n67890\n";
        let ids = [12345.into(), "abc".into(), 67890.into()];
        for length in 0..=whole.len() {
            in_folder(|path| {
                std::fs::write(path, &whole[..length]).unwrap();
                let mut journal = Journal::open(path).unwrap();
                let lines = whole[..length].iter().filter(|byte| **byte == b'\n').count();
                assert_eq!(journal.earlier_count(), lines, "{length} bytes");
                assert!(ids[..lines].iter().all(|id: &PointId| journal.contains(id)));
                journal.append(&ids[lines..]).unwrap();
                assert_eq!(std::fs::read(path).unwrap(), whole, "{length} bytes");
            });
        }
    }

    #[test]
    fn a_line_that_is_no_id_is_refused_and_the_file_left_alone() {
        for bad in ["", "abc", "-1", "1.5", "\"a", "null", "{}", "[1]", "18446744073709551616", "1 2"] {
            in_folder(|path| {
                let text = format!("1\n{bad}\n2");
                std::fs::write(path, &text).unwrap();
                let error = Journal::open(path).unwrap_err();
                assert!(matches!(&error, JournalError::Line { line: 2, text, .. } if text == bad), "{error}");
                assert_eq!(std::fs::read_to_string(path).unwrap(), text);
            });
        }
    }

    #[test]
    fn a_journal_that_cannot_be_opened_is_named() {
        in_folder(|path| {
            let path = path.join("absent");
            let error = Journal::open(&path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("journal {}: ", path.display())), "{error}");
        });
    }

    proptest! {
        #[test]
        fn any_ids_survive(
            ids in prop::collection::vec(
                prop_oneof![any::<u64>().prop_map(PointId::Number), any::<String>().prop_map(PointId::Text)],
                0..30,
            )
        ) {
            in_folder(|path| {
                Journal::open(path).unwrap().append(&ids).unwrap();
                let journal = Journal::open(path).unwrap();
                let distinct: HashSet<_> = ids.iter().cloned().collect();
                prop_assert_eq!(&journal.earlier, &distinct);
                Ok(())
            })?;
        }
    }
}
