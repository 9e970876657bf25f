//! The journal of an import: what it belongs to, and the ids acknowledged so far, one a line, so that the same command goes
//! on from there.
//!
//! The first line says of which mesh, which collection and which file it is. A journal of any other is refused: its ids would
//! make the import skip rows that were never loaded. A number is written as its digits, a text as a JSON string, so that every
//! id stays on its line and the two cannot be mistaken for each other. Lines are only ever added, after their points were
//! acknowledged; what a crash leaves half written at the end is cut off when the journal is opened. Losing lines is harmless:
//! their points are put again.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vecino_client::PointId;

/// What a journal belongs to: its first line, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Which form of journal this is: [`FORMAT`].
    vecino_journal: u32,
    /// Id of the mesh.
    mesh: String,
    /// Id of the collection, new each time one is created.
    collection: String,
    /// Name of the collection, for people.
    name: String,
    /// The file, as it was named, for people.
    file: String,
    /// Size of the file.
    bytes: u64,
    /// BLAKE3 of the file.
    blake3: String,
}

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
    /// The file that is imported cannot be read.
    #[error("{}: {source}", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not begin with a head.
    #[error(
        "journal {} begins with {text:?}, which is no line of a journal of `vecino import`: name another file with \
         --journal",
        path.display()
    )]
    NoJournal {
        /// The journal.
        path: PathBuf,
        /// What stands in its first line.
        text: String,
    },
    /// It was written before journals said what they belong to.
    #[error(
        "journal {} was written by an earlier vecino, which did not note to which collection and file it belongs, so the \
         rows that it names may never have been loaded there: remove it, and all rows are sent again, which does no harm",
        path.display()
    )]
    Headless {
        /// The journal.
        path: PathBuf,
    },
    /// It was written by a newer program.
    #[error("journal {} has form {found}, and this program knows form {FORMAT}: use a newer vecino", path.display())]
    NewerFormat {
        /// The journal.
        path: PathBuf,
        /// Its form.
        found: u32,
    },
    /// It belongs to another import.
    #[error(
        "journal {} is not of this import: {difference}. Rows that it names would be skipped without ever having been \
         loaded: remove it, or name another with --journal, and all rows are sent",
        path.display()
    )]
    Stranger {
        /// The journal.
        path: PathBuf,
        /// What it belongs to, and what is imported.
        difference: String,
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

impl Head {
    /// The head for an import of this file, which is read through.
    pub fn of(mesh: String, collection: String, name: String, file: &Path) -> Result<Self, JournalError> {
        let source = |source| JournalError::Source { path: file.to_owned(), source };
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(file).map_err(source)?).map_err(source)?;
        Ok(Self {
            vecino_journal: FORMAT,
            mesh,
            collection,
            name,
            file: file.display().to_string(),
            bytes: hasher.count(),
            blake3: hasher.finalize().to_hex().to_string(),
        })
    }

    fn line(&self) -> String {
        let head = serde_json::to_string(self).expect("strings and numbers always make JSON");
        format!("{head}\n")
    }

    /// What is different about an import, in words; `None` where an import with this head may go on with what the other
    /// left. A file may be moved, but not changed.
    fn difference(&self, earlier: &Self) -> Option<String> {
        let Self { vecino_journal: _, mesh, collection, name, file, bytes, blake3 } = self;
        if earlier.mesh != *mesh {
            return Some(format!("it is of mesh {}, and this is mesh {mesh}", earlier.mesh));
        }
        if earlier.collection != *collection {
            return Some(if earlier.name == *name {
                format!("collection {name:?} was dropped and created anew since")
            } else {
                format!("it is of collection {:?}, and this is {name:?}", earlier.name)
            });
        }
        if (earlier.bytes, &earlier.blake3) == (*bytes, blake3) {
            return None;
        }
        Some(if earlier.file == *file {
            let sizes = match earlier.bytes == *bytes {
                true => format!("it still has {bytes} bytes, but others"),
                false => format!("it had {} bytes and has {bytes}", earlier.bytes),
            };
            format!("{file} was changed since ({sizes})")
        } else {
            format!("it is of the file {} ({} bytes), and this is {file} ({bytes} bytes)", earlier.file, earlier.bytes)
        })
    }
}

impl Journal {
    /// Opens the journal of this import, or starts one, and reads the ids in it.
    pub fn open(path: &Path, head: &Head) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let head_line = head.line();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole == 0 {
            // Nothing, or what a crash left of the head of this very import.
            if !head_line.as_bytes().starts_with(&bytes) {
                return Err(no_head(path, &bytes));
            }
            file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
            file.write_all(head_line.as_bytes()).map_err(io)?;
            return Ok(Self { path: path.to_owned(), file, earlier: HashSet::new() });
        }
        let mut lines = bytes[..whole].split_inclusive(|byte| *byte == b'\n').map(|line| &line[..line.len() - 1]);
        let first = lines.next().unwrap_or_default();
        check_head(path, first, head)?;
        let mut earlier = HashSet::new();
        for (index, line) in lines.enumerate() {
            let id = parse_line(line).ok_or_else(|| JournalError::Line {
                path: path.to_owned(),
                line: index + 2,
                text: shown(line),
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

/// The first line must be the head of this import.
fn check_head(path: &Path, line: &[u8], head: &Head) -> Result<(), JournalError> {
    #[derive(Deserialize)]
    struct Format {
        vecino_journal: u32,
    }
    let Ok(Format { vecino_journal: found }) = serde_json::from_slice(line) else {
        return Err(no_head(path, line));
    };
    if found > FORMAT {
        return Err(JournalError::NewerFormat { path: path.to_owned(), found });
    }
    let earlier: Head = serde_json::from_slice(line).map_err(|_| no_head(path, line))?;
    match head.difference(&earlier) {
        None => Ok(()),
        Some(difference) => Err(JournalError::Stranger { path: path.to_owned(), difference }),
    }
}

fn no_head(path: &Path, line: &[u8]) -> JournalError {
    let path = path.to_owned();
    if parse_line(line).is_some() {
        return JournalError::Headless { path };
    }
    JournalError::NoJournal { path, text: shown(line) }
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_SHOWN)]).into_owned()
}

/// The form of journal that is written here.
const FORMAT: u32 = 1;
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

    fn head() -> Head {
        Head {
            vecino_journal: FORMAT,
            mesh: "ab".into(),
            collection: "cd".into(),
            name: "films".into(),
            file: "films.jsonl".into(),
            bytes: 100,
            blake3: "ef".into(),
        }
    }

    const HEAD: &str = "{\"vecino_journal\":1,\"mesh\":\"ab\",\"collection\":\"cd\",\"name\":\"films\",\
                        \"file\":\"films.jsonl\",\"bytes\":100,\"blake3\":\"ef\"}\n";

    #[test]
    fn ids_of_earlier_runs_are_known_and_types_kept_apart() {
        in_folder(|path| {
            let mut journal = Journal::open(path, &head()).unwrap();
            assert_eq!(journal.earlier_count(), 0);
            journal.append(&[7.into(), "7".into()]).unwrap();
            journal.append(&["a\n\"b\u{0}é".into(), u64::MAX.into()]).unwrap();
            assert!(!journal.contains(&7.into()), "this run's own ids are not skipped");
            drop(journal);
            let text = std::fs::read_to_string(path).unwrap();
            assert_eq!(text, format!("{HEAD}7\n\"7\"\n\"a\\n\\\"b\\u0000é\"\n18446744073709551615\n"));
            let mut journal = Journal::open(path, &head()).unwrap();
            for id in [7.into(), "7".into(), "a\n\"b\u{0}é".into(), u64::MAX.into()] {
                assert!(journal.contains(&id), "{id:?}");
            }
            assert!(!journal.contains(&8.into()));
            journal.append(&[8.into()]).unwrap();
            assert_eq!(Journal::open(path, &head()).unwrap().earlier_count(), 5);
        });
    }

    #[test]
    fn a_tail_torn_at_any_byte_is_cut_and_never_read_as_another_id() {
        let whole = format!("{HEAD}12345\n\"abc\"\n67890\n");
        let ids = [12345.into(), "abc".into(), 67890.into()];
        for length in 0..=whole.len() {
            in_folder(|path| {
                std::fs::write(path, &whole[..length]).unwrap();
                let mut journal = Journal::open(path, &head()).unwrap();
                let lines = whole[..length].bytes().filter(|byte| *byte == b'\n').count().saturating_sub(1);
                assert_eq!(journal.earlier_count(), lines, "{length} bytes");
                assert!(ids[..lines].iter().all(|id: &PointId| journal.contains(id)));
                journal.append(&ids[lines..]).unwrap();
                assert_eq!(std::fs::read_to_string(path).unwrap(), whole, "{length} bytes");
            });
        }
    }

    /// Named after what went wrong: a journal held ids only, so an import into a collection that was dropped and created anew,
    /// or of another or an edited file, skipped every row and said that all was done.
    #[test]
    fn a_journal_of_another_collection_or_file_is_refused_and_left_alone() {
        for (change, words) in [
            ((|head| head.mesh = "12".into()) as fn(&mut Head), "it is of mesh ab, and this is mesh 12"),
            (|head| head.collection = "34".into(), "collection \"films\" was dropped and created anew since"),
            (
                |head| (head.collection, head.name) = ("34".into(), "books".into()),
                "it is of collection \"films\", and this is \"books\"",
            ),
            (
                |head| (head.bytes, head.blake3) = (120, "01".into()),
                "films.jsonl was changed since (it had 100 bytes and has 120)",
            ),
            (|head| head.blake3 = "01".into(), "films.jsonl was changed since (it still has 100 bytes, but others)"),
            (
                |head| (head.file, head.blake3) = ("other.npy".into(), "01".into()),
                "it is of the file films.jsonl (100 bytes), and this is other.npy (100 bytes)",
            ),
        ] {
            in_folder(|path| {
                Journal::open(path, &head()).unwrap().append(&[1.into()]).unwrap();
                let mut other = head();
                change(&mut other);
                let error = Journal::open(path, &other).unwrap_err().to_string();
                assert!(error.contains(words) && error.contains("remove it, or name another"), "{error}");
                assert_eq!(std::fs::read_to_string(path).unwrap(), format!("{HEAD}1\n"));
            });
        }
    }

    #[test]
    fn a_file_that_was_only_moved_goes_on() {
        in_folder(|path| {
            Journal::open(path, &head()).unwrap().append(&[1.into()]).unwrap();
            let moved = Head { file: "elsewhere/films.jsonl".into(), ..head() };
            assert!(Journal::open(path, &moved).unwrap().contains(&1.into()));
        });
    }

    #[test]
    fn a_journal_without_a_head_is_refused_with_what_to_do() {
        for (text, words) in [
            ("7\n\"a\"\n", "earlier vecino"),
            ("7", "earlier vecino"),
            ("a,b\n1,2\n", "begins with \"a,b\", which is no line of a journal"),
            ("{\"id\":1}\n", "which is no line of a journal"),
            ("{\"vecino", ""),
            ("{\"vecino_journal\":2}\n", "use a newer vecino"),
        ] {
            in_folder(|path| {
                std::fs::write(path, text).unwrap();
                match Journal::open(path, &head()) {
                    Ok(_) => assert_eq!(words, "", "a torn head is written anew"),
                    Err(error) => {
                        assert!(!words.is_empty() && error.to_string().contains(words), "{text}: {error}");
                        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
                    }
                }
            });
        }
    }

    #[test]
    fn a_head_says_what_the_file_holds() {
        in_folder(|path| {
            std::fs::write(path, b"abc").unwrap();
            let head = Head::of("m".into(), "c".into(), "n".into(), path).unwrap();
            assert_eq!((head.bytes, head.blake3.as_str()), (3, blake3::hash(b"abc").to_hex().as_str()));
            let absent = Head::of("m".into(), "c".into(), "n".into(), &path.join("absent")).unwrap_err();
            assert!(absent.to_string().contains("absent"), "{absent}");
        });
    }

    #[test]
    fn a_line_that_is_no_id_is_refused_and_the_file_left_alone() {
        for bad in ["", "abc", "-1", "1.5", "\"a", "null", "{}", "[1]", "18446744073709551616", "1 2"] {
            in_folder(|path| {
                let text = format!("{HEAD}1\n{bad}\n2");
                std::fs::write(path, &text).unwrap();
                let error = Journal::open(path, &head()).unwrap_err();
                assert!(matches!(&error, JournalError::Line { line: 3, text, .. } if text == bad), "{error}");
                assert_eq!(std::fs::read_to_string(path).unwrap(), text);
            });
        }
    }

    #[test]
    fn a_journal_that_cannot_be_opened_is_named() {
        in_folder(|path| {
            let path = path.join("absent");
            let error = Journal::open(&path, &head()).unwrap_err().to_string();
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
                Journal::open(path, &head()).unwrap().append(&ids).unwrap();
                let journal = Journal::open(path, &head()).unwrap();
                let distinct: HashSet<_> = ids.iter().cloned().collect();
                prop_assert_eq!(&journal.earlier, &distinct);
                Ok(())
            })?;
        }
    }
}
