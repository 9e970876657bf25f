//! `vecino export`: a collection as `.jsonl`, in ring order. Importing it gives the same points, bit for bit.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;
use vecino_client::{PointId, ScanRequest, StoredPoint};

use super::args::ExportArgs;
use super::connection::connect_running;
use super::failure::Failure;
use super::output::{Style, json, print};
use super::text::cut;
use crate::files::json::{PayloadRef, VectorsRef};

/// Carries out the command.
pub async fn run(args: ExportArgs, style: Style) -> Result<(), Failure> {
    if let Some(path) = &args.out {
        check_format(path)?;
    }
    let client = connect_running(&args.connection).await?;
    let scan = client.collection(&args.collection).scan().page_points(PAGE_POINTS).level(args.level.level);
    match args.out {
        None => {
            let mut out = Pipe { out: BufWriter::new(io::stdout()), closed: false };
            let copied = copy(scan, &mut out, "standard output").await;
            client.close().await;
            // A reader such as `head` that has seen enough is no failure.
            if out.closed { Ok(()) } else { copied.map(|_| ()) }
        }
        Some(path) => {
            let mut file = NewFile::create(&path)?;
            let name = path.display().to_string();
            let exported = copy(scan, &mut file.writer, &name).await?;
            client.close().await;
            file.complete()?;
            print(&render(exported, &path, style))
        }
    }
}

/// Refuses a file whose name promises a format that is not written.
fn check_format(path: &Path) -> Result<(), Failure> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("jsonl" | "ndjson") => Ok(()),
        found => {
            let found = found.map_or("no extension".to_owned(), |found| format!("the extension {:?}", cut(found)));
            let message = format!("--out {} has {found}, and an export is .jsonl: name it so", path.display());
            Err(Failure::new("usage", message))
        }
    }
}

/// A writer that remembers whether its reader has closed the pipe.
struct Pipe<W> {
    out: W,
    closed: bool,
}

impl<W> Pipe<W> {
    fn noted<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        self.closed |= done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        done
    }
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.out.write(bytes);
        self.noted(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.out.flush();
        self.noted(done)
    }
}

async fn copy(scan: ScanRequest, out: &mut impl Write, name: &str) -> Result<u64, Failure> {
    let mut pages = scan.pages();
    let mut exported = 0;
    while let Some(points) = pages.try_next().await? {
        for point in &points {
            write_point(point, out).map_err(|error| Failure::io(name, &error))?;
        }
        exported += points.len() as u64;
    }
    out.flush().map_err(|error| Failure::io(name, &error))?;
    Ok(exported)
}

/// Writes a point as one line; see [`crate::files::json::PointLine`], which reads it.
fn write_point(point: &StoredPoint, out: &mut impl Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        id: &'a PointId,
        vector: VectorsRef<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<PayloadRef<'a>>,
    }
    let StoredPoint { id, vectors, payload, version: _ } = point;
    let payload = Some(payload).filter(|payload| !payload.is_empty()).map(PayloadRef);
    serde_json::to_writer(&mut *out, &Line { id, vector: VectorsRef(vectors), payload })?;
    out.write_all(b"\n")
}

fn render(exported: u64, path: &Path, style: Style) -> String {
    #[derive(Serialize)]
    struct Exported<'a> {
        exported: u64,
        file: &'a Path,
    }
    match style {
        Style::Json if path.to_str().is_some() => json(&Exported { exported, file: path }),
        Style::Json => json(&Exported { exported, file: Path::new(&*path.to_string_lossy()) }),
        _ => format!("exported {exported} points to {}", path.display()),
    }
}

/// A file that appears under its name only when it is complete.
struct NewFile {
    path: PathBuf,
    writer: BufWriter<NamedTempFile<File>>,
}

impl NewFile {
    fn create(path: &Path) -> Result<Self, Failure> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new().prefix(".vecino-export-").tempfile_in(folder);
        let file = file.map_err(|error| Failure::io(&path.display().to_string(), &error))?;
        Ok(Self { path: path.to_owned(), writer: BufWriter::new(file) })
    }

    fn complete(self) -> Result<(), Failure> {
        let Self { path, writer } = self;
        let fail = |error: &io::Error| Failure::io(&path.display().to_string(), error);
        let file = writer.into_inner().map_err(|error| fail(error.error()))?;
        file.as_file().sync_all().map_err(|error| fail(&error))?;
        let file = file.persist(&path).map_err(|error| fail(&error.error))?;
        make_ordinary(&file).map_err(|error| fail(&error))
    }
}

/// A temporary file is its owner's alone; an export is a file like any other.
#[cfg(unix)]
fn make_ordinary(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_ordinary(_: &File) -> io::Result<()> {
    Ok(())
}

/// Points in one page. A page of the largest vectors in a few fields still fits a frame.
const PAGE_POINTS: u32 = 500;

#[cfg(test)]
mod tests {
    use clap::Parser;
    use vecino_client::{ErrorCode, Fields, Payload, ScanCursor, Value, Vector, Version};
    use vecino_net::error::RpcError;
    use vecino_net::message::{ScanReply, ScanStream};

    use super::*;
    use crate::cli::args::{Cli, ClientCommand, Command};
    use crate::files::VectorFile;
    use vecino_net::testing::{FakeMesh, reply};

    fn point(id: impl Into<PointId>, fields: &[(&str, &[f32])], payload: Payload) -> StoredPoint {
        let vectors: Fields =
            fields.iter().map(|(name, values)| ((*name).to_owned(), Vector(values.to_vec()))).collect();
        StoredPoint { id: id.into(), vectors, payload, version: Version::ZERO }
    }

    #[test]
    fn what_is_exported_imports_the_same() {
        let values = [0.1, -0.0, f32::MIN_POSITIVE, f32::MAX, 1.0e-45, 16_777_217.0, std::f32::consts::PI];
        let payload = Payload::from([
            ("float".into(), Value::Float(2.0)),
            ("exact".into(), Value::Float(0.1 + 0.2)),
            ("big".into(), Value::UInt(u64::MAX)),
            ("line".into(), Value::Text("a\n\"b\u{2028}".into())),
        ]);
        let points = [point(7, &[("", &values)], payload), point("7\n", &[("", &values)], Payload::new())];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let mut file = NewFile::create(&path).unwrap();
        for point in &points {
            write_point(point, &mut file.writer).unwrap();
        }
        assert!(!path.exists(), "nothing stands under the name before the file is complete");
        file.complete().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        let rows: Vec<_> = VectorFile::open(&path).unwrap().map(|row| row.unwrap()).collect();
        for (row, point) in rows.iter().zip(&points) {
            assert_eq!(row.id.as_ref(), Some(&point.id));
            assert_eq!(row.payload, point.payload);
            let bits = |fields: &Fields| fields[""].0.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&row.vectors), bits(&point.vectors));
        }
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn a_line_has_a_payload_only_where_the_point_has_one() {
        let line = |point: &StoredPoint| {
            let mut bytes = Vec::new();
            write_point(point, &mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(line(&point(1, &[("", &[0.5])], Payload::new())), "{\"id\":1,\"vector\":[0.5]}\n");
        assert_eq!(
            line(&point("a", &[("t", &[0.5])], [("n".into(), Value::Int(1))].into())),
            "{\"id\":\"a\",\"vector\":{\"t\":[0.5]},\"payload\":{\"n\":1}}\n"
        );
    }

    #[test]
    fn an_export_that_stops_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        std::fs::write(&path, "old").unwrap();
        let mut file = NewFile::create(&path).unwrap();
        write_point(&point(1, &[("", &[0.5])], Payload::new()), &mut file.writer).unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let Err(failure) = NewFile::create(Path::new("/nonexistent/out.jsonl")) else { panic!("no such folder") };
        assert!(failure.render(false).starts_with("error: /nonexistent/out.jsonl: "));
    }

    #[test]
    fn the_answer_counts() {
        assert_eq!(render(3, Path::new("a.jsonl"), Style::Json), r#"{"exported":3,"file":"a.jsonl"}"#);
        assert_eq!(render(3, Path::new("a.jsonl"), Style::Plain), "exported 3 points to a.jsonl");
    }

    #[test]
    fn a_name_that_promises_another_format_is_refused() {
        for name in ["a.jsonl", "a.JSONL", "b.ndjson"] {
            assert!(check_format(Path::new(name)).is_ok(), "{name}");
        }
        for (name, words) in [("a.parquet", "extension \"parquet\""), ("a.npy", "\"npy\""), ("a", "no extension")] {
            let failure = check_format(Path::new(name)).unwrap_err();
            assert!(failure.render(false).contains(words) && failure.exit_code() == 2, "{failure:?}");
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_told_from_a_failure() {
        struct Fails(io::ErrorKind);
        impl Write for Fails {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for (kind, closed) in [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::StorageFull, false)] {
            let mut pipe = Pipe { out: Fails(kind), closed: false };
            let point = point(1, &[("", &[0.5])], Payload::new());
            assert!(write_point(&point, &mut pipe).is_err());
            assert_eq!(pipe.closed, closed, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn pages_are_written_in_their_order_and_a_failure_leaves_no_file() {
        let mesh = FakeMesh::new();
        let (path, certs) = (mesh.dir().join("out.jsonl"), mesh.client_certs());
        let export = async |fails: bool| {
            let node = mesh.quick_node(move |asked| {
                let ScanStream { scan } = asked.read();
                let page = scan.after.map_or(0, |cursor| cursor.position);
                if fails && page == 2 {
                    return Err(RpcError::new(ErrorCode::Internal, "page 2 is lost"));
                }
                let next = (page < 3).then(|| ScanCursor { position: page + 1, id: page.into() });
                reply::<ScanStream>(ScanReply {
                    points: vec![point(page, &[("", &[0.5])], Payload::new()).into()],
                    next,
                })
            });
            let address = node.address.to_string();
            let line =
                ["vecino", "export", "films", "--connect", &address, "--certs", certs.to_str().unwrap(), "--out"];
            match Cli::try_parse_from([&line, [path.to_str().unwrap()].as_slice()].concat()).unwrap().command {
                Command::Client(ClientCommand::Export(args)) => run(args, Style::Plain).await,
                other => panic!("{other:?}"),
            }
        };
        assert!(export(true).await.unwrap_err().render(false).contains("page 2 is lost"));
        assert!(!path.exists());
        export(false).await.unwrap();
        let ids: Vec<_> = VectorFile::open(&path).unwrap().map(|row| row.unwrap().id.unwrap()).collect();
        assert_eq!(ids, [0, 1, 2, 3].map(PointId::Number));
    }
}
