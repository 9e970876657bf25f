//! Imports into a node in this process, over real QUIC, that answers as each test needs it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use clap::Parser;
use vecino_client::{
    CollectionSchema, ErrorCode, FieldSchema, Metric, Outcome, PointId, RawPoint, StatusReply, Vector, Version,
};
use vecino_model::{CollectionId, MeshId};
use vecino_net::error::RpcError;
use vecino_net::message::{DescribeCollection, Put, Rpc, Status};

use super::*;
use crate::cli::args::{Cli, ClientCommand, Command};
use vecino_net::testing::{Asked, FakeMesh, FakeNode, reply};

fn info(fields: &[(&str, u32)]) -> CollectionInfo {
    let mut schema = vecino_client::schema(3, Metric::Dot);
    let field =
        |dim| FieldSchema { dim, metric: Metric::Dot, m: 16, ef_construction: 200, profile: Default::default() };
    schema.fields = fields.iter().map(|(name, dim)| ((*name).to_owned(), field(*dim))).collect();
    let id = CollectionId([0; 16]);
    CollectionInfo::new("films".into(), id, schema, Default::default())
}

#[test]
fn a_file_that_does_not_fit_is_refused_with_both_numbers() {
    let check = |fields: &[(&'static str, usize)], info: &CollectionInfo| {
        check_fields(info, fields.iter().copied()).map_err(|failure| failure.render(false))
    };
    let plain = info(&[("", 3)]);
    assert_eq!(check(&[("", 3)], &plain), Ok(()));
    assert_eq!(
        check(&[("", 4)], &plain).unwrap_err(),
        "error: the file's vectors have dimension 4, collection \"films\" takes 3"
    );
    assert_eq!(
        check(&[("title", 3)], &plain).unwrap_err(),
        "error: the file has the vector field \"title\", collection \"films\" has \"\""
    );
    let two = info(&[("image", 2), ("title", 3)]);
    assert_eq!(check(&[("image", 2), ("title", 3)], &two), Ok(()));
    assert_eq!(
        check(&[("image", 3), ("title", 3)], &two).unwrap_err(),
        "error: the file's vectors of field \"image\" have dimension 3, collection \"films\" takes 2"
    );
    assert_eq!(
        check(&[("image", 2)], &two).unwrap_err(),
        "error: the file has 1 vector fields, collection \"films\" has 2"
    );
}

/// What a fake node did with the points that it was sent.
#[derive(Default)]
struct Seen {
    /// The last vector of each id that was acknowledged.
    written: BTreeMap<PointId, Vector>,
    /// How many points were acknowledged.
    acknowledged: usize,
    /// How many puts came.
    puts: usize,
}

/// Answers what is asked of the mesh and of the collection `films` of dimension 2, created for the `creation`th time.
fn about(asked: &Asked, metric: Metric, creation: u8) -> Result<Vec<u8>, RpcError> {
    match asked.kind {
        Status::KIND => {
            let answered_by = vecino_model::NodeId::from_bytes([1; 16]);
            reply::<Status>(StatusReply::new(MeshId([7; 16]), answered_by, Vec::new()))
        }
        _ => {
            let mut info = info(&[("", 2)]);
            info.id = CollectionId([creation; 16]);
            let CollectionSchema { fields, .. } = &mut info.schema;
            fields.values_mut().for_each(|field| field.metric = metric);
            reply::<DescribeCollection>(info)
        }
    }
}

/// A node with the collection `films` of dimension 2, whose points have the outcomes that `judge` gives them.
fn node(mesh: &FakeMesh, judge: impl Fn(&RawPoint) -> Outcome + Send + Sync + 'static) -> (FakeNode, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = Arc::clone(&seen);
    let node = mesh.quick_node(move |asked: Asked| {
        if asked.kind != Put::KIND {
            return about(&asked, Metric::Dot, 0);
        }
        let mut seen = shared.lock().unwrap();
        seen.puts += 1;
        let outcomes = asked.read::<Put>().points.into_iter().map(|mut point| {
            let outcome = judge(&point);
            if matches!(outcome, Outcome::Written(_)) {
                seen.acknowledged += 1;
                seen.written.insert(point.id, point.vectors.remove("").unwrap());
            }
            outcome
        });
        reply::<Put>(outcomes.collect())
    });
    (node, seen)
}

fn written(_: &RawPoint) -> Outcome {
    Outcome::Written(Version::ZERO)
}

/// `vecino import films FILE …` for a file of these lines.
fn arguments(mesh: &FakeMesh, node: &FakeNode, file: &Path, more: &[&str]) -> ImportArgs {
    let address = node.address.to_string();
    let line = ["vecino", "import", "films", file.to_str().unwrap(), "--connect", &address, "--certs"];
    let certs = mesh.client_certs();
    let line = [&line, [certs.to_str().unwrap()].as_slice(), more].concat();
    match Cli::try_parse_from(line).unwrap().command {
        Command::Client(ClientCommand::Import(args)) => args,
        other => panic!("{other:?}"),
    }
}

fn file_of(mesh: &FakeMesh, rows: u64) -> std::path::PathBuf {
    let path = mesh.dir().join("rows.jsonl");
    let lines: String = (0..rows).map(|row| format!("{{\"vector\":[{row},1]}}\n")).collect();
    std::fs::write(&path, lines).unwrap();
    path
}

async fn import_quietly(args: &ImportArgs) -> (Tally, Result<(), Failure>) {
    let (_sender, interrupts) = watch::channel(0);
    import(args, Style::Json, interrupts).await.unwrap()
}

fn numbers(range: std::ops::Range<u64>) -> Vec<PointId> {
    range.map(PointId::Number).collect()
}

#[tokio::test]
async fn every_row_is_written_once_and_a_second_run_with_the_journal_sends_nothing() {
    let mesh = FakeMesh::new();
    let (node, seen) = node(&mesh, written);
    let journal = mesh.dir().join("journal");
    let more = ["--batch", "7", "--in-flight", "3", "--journal", journal.to_str().unwrap(), "--id-offset", "100"];
    let args = arguments(&mesh, &node, &file_of(&mesh, 50), &more);
    let (tally, end) = import_quietly(&args).await;
    end.unwrap();
    assert_eq!((tally.summary.written, tally.failed(), tally.skipped), (50, 0, 0));
    {
        let seen = seen.lock().unwrap();
        assert_eq!((seen.acknowledged, seen.puts), (50, 8));
        assert!(seen.written.keys().eq(&numbers(100..150)));
        assert_eq!(seen.written[&107.into()], Vector(vec![7.0, 1.0]));
    }
    let (tally, end) = import_quietly(&args).await;
    end.unwrap();
    assert_eq!((tally.summary.written, tally.failed(), tally.skipped), (0, 0, 50));
    assert_eq!(seen.lock().unwrap().puts, 8);
}

#[tokio::test]
async fn after_ctrl_c_the_journal_has_what_was_acknowledged_and_the_rest_follows() {
    let mesh = FakeMesh::new();
    let (sender, interrupts) = watch::channel(0);
    let (node, seen) = node(&mesh, move |point| {
        if point.id == PointId::Number(20) {
            sender.send_replace(1);
        }
        written(point)
    });
    let journal = mesh.dir().join("journal");
    let more = ["--batch", "5", "--in-flight", "2", "--journal", journal.to_str().unwrap()];
    let args = arguments(&mesh, &node, &file_of(&mesh, 200), &more);
    let (tally, end) = import(&args, Style::Json, interrupts).await.unwrap();
    assert!(end.unwrap_err().render(true).contains(r#""code":"interrupted""#));
    let first = tally.summary.written;
    assert!((21..200).contains(&first), "{first} before the interruption was noticed");
    assert_eq!(tally.failed(), 0, "what was in flight was waited for");
    assert_eq!(seen.lock().unwrap().acknowledged as u64, first);
    let (tally, end) = import_quietly(&args).await;
    end.unwrap();
    assert_eq!((tally.skipped, tally.summary.written), (first, 200 - first));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.acknowledged, 200, "no point was sent twice");
    assert!(seen.written.keys().eq(&numbers(0..200)));
}

#[tokio::test]
async fn a_mesh_that_comes_back_within_patience_costs_nothing() {
    let mesh = FakeMesh::new();
    let away = AtomicUsize::new(60);
    let (node, seen) = node(&mesh, move |point| {
        let is_third = matches!(point.id, PointId::Number(number) if number % 3 == 0);
        let still_away = || away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if is_third && still_away() { Outcome::Unavailable("one replica is away".into()) } else { written(point) }
    });
    let more = ["--batch", "10", "--timeout", "300ms", "--patience", "30"];
    let args = arguments(&mesh, &node, &file_of(&mesh, 40), &more);
    let (tally, end) = import_quietly(&args).await;
    end.unwrap();
    assert_eq!((tally.summary.written, tally.failed()), (40, 0));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.acknowledged, 40, "what was acknowledged is not sent again");
    assert!(seen.written.keys().eq(&numbers(0..40)));
}

#[tokio::test]
async fn patience_ends_and_says_so() {
    let mesh = FakeMesh::new();
    let (node, _seen) = node(&mesh, |point| match point.id {
        PointId::Number(7) => Outcome::Unavailable("one replica is away".into()),
        _ => written(point),
    });
    let journal = mesh.dir().join("journal");
    let more = ["--batch", "10", "--timeout", "200ms", "--patience", "0", "--journal", journal.to_str().unwrap()];
    let args = arguments(&mesh, &node, &file_of(&mesh, 10), &more);
    let (tally, end) = import_quietly(&args).await;
    let error = end.unwrap_err().render(false);
    assert_eq!(error, "error: gave up after waiting 0 s (--patience) for 1 points: one replica is away");
    assert_eq!((tally.summary.written, tally.failed()), (9, 1));
    let lines = std::fs::read_to_string(&journal).unwrap();
    assert!(lines.lines().any(|line| line == "8") && !lines.lines().any(|line| line == "7"), "{lines}");
}

#[tokio::test]
async fn refused_points_are_counted_and_the_others_written() {
    let mesh = FakeMesh::new();
    let (node, _seen) = node(&mesh, |point| match point.id {
        PointId::Number(number) if number % 10 == 4 => Outcome::Refused("payload too large".into()),
        _ => written(point),
    });
    let args = arguments(&mesh, &node, &file_of(&mesh, 30), &["--batch", "4"]);
    let (tally, end) = import_quietly(&args).await;
    end.unwrap();
    assert_eq!((tally.summary.written, tally.failed()), (27, 3));
    let lines = tally.unwritten_lines();
    let expected = [4, 14, 24].map(|id| format!("point {id} was refused: payload too large"));
    assert!(expected.iter().all(|line| lines.contains(line)), "{lines:?}");
}

#[tokio::test]
async fn of_two_rows_with_one_id_the_later_one_stands() {
    let mesh = FakeMesh::new();
    let first_try = AtomicUsize::new(0);
    // The first row has to be sent again, which would put it behind the others if they were on their way already.
    let (node, seen) = node(&mesh, move |point| match point.vectors[""].0[0] {
        1.0 if first_try.fetch_add(1, Ordering::SeqCst) == 0 => Outcome::Unavailable("one replica is away".into()),
        _ => written(point),
    });
    let path = mesh.dir().join("twice.jsonl");
    let line = |id: &str, value: u32| format!("{{\"id\":\"{id}\",\"vector\":[{value},0]}}\n");
    std::fs::write(&path, [line("a", 1), line("b", 2), line("a", 3), line("a", 4)].concat()).unwrap();
    let (tally, end) = import_quietly(&arguments(&mesh, &node, &path, &["--batch", "1"])).await;
    end.unwrap();
    assert_eq!(tally.summary.written, 4);
    assert_eq!(seen.lock().unwrap().written[&"a".into()], Vector(vec![4.0, 0.0]));
}

#[tokio::test]
async fn ctrl_c_ends_the_wait_for_a_mesh_that_is_not_there() {
    let mesh = FakeMesh::new();
    let (node, _seen) = node(&mesh, written);
    let args = arguments(&mesh, &node, &file_of(&mesh, 3), &["--patience", "3600", "--timeout", "60m"]);
    drop(node);
    let (sender, interrupts) = watch::channel(0);
    let importing = tokio::spawn(async move { import(&args, Style::Json, interrupts).await.map(|(tally, _)| tally) });
    sender.send_replace(1);
    let error = importing.await.unwrap().unwrap_err();
    assert!(error.render(true).contains(r#""code":"interrupted""#));
}

/// Named after what went wrong: six seconds of patience took twenty-four, since attempts did not count.
#[tokio::test]
async fn patience_with_a_mesh_that_is_not_there_is_wall_clock_time() {
    let mesh = FakeMesh::new();
    let node = mesh.node(|_| std::future::pending());
    let args = arguments(&mesh, &node, &file_of(&mesh, 3), &["--patience", "2", "--timeout", "60s"]);
    let (_sender, interrupts) = watch::channel(0);
    let began = Instant::now();
    let error = import(&args, Style::Json, interrupts).await.unwrap_err().render(false);
    let took = began.elapsed();
    assert!(error.contains("DescribeCollection") || error.contains("before the deadline"), "{error}");
    // The last attempt may take a second; other work on this machine some more.
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn nothing_is_sent_of_a_file_that_is_wrong_anywhere() {
    let mesh = FakeMesh::new();
    let (node, seen) = node(&mesh, written);
    let path = mesh.dir().join("wrong.jsonl");
    for (lines, words) in [
        ("{\"vector\":[1,2]}\n{\"vector\":[1]}\n", "line 2: vector has 1 values, line 1 has 2"),
        ("{\"vector\":[1,2]}\n{\"vector\":[1,NaN]}\n", "line 2: column 14: NaN"),
        ("{\"vector\":[1,2,3]}\n", "vectors have dimension 3, collection \"films\" takes 2"),
        ("", "is empty"),
        ("{\"vector\":[1,2]}\n{\"id\":\"x\",\"vector\":[1,2],\"payload\":{\"a\":1e999}}\n", "line 2"),
        ("{\"vector\":[1,2]}\n{\"id\":\"x\",\"vector\":[1e30,2]}\n", "row 1 (counted from 0), point \"x\": the vector"),
    ] {
        std::fs::write(&path, lines).unwrap();
        let (_sender, interrupts) = watch::channel(0);
        let args = arguments(&mesh, &node, &path, &["--batch", "1"]);
        let error = import(&args, Style::Json, interrupts).await.unwrap_err().render(false);
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(seen.lock().unwrap().puts, 0);
}

/// Named after what went wrong: the row before the zero vector was stored, although a bad row is to store nothing.
#[tokio::test]
async fn a_zero_vector_under_cosine_stores_nothing() {
    let mesh = FakeMesh::new();
    let puts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&puts);
    let node = mesh.quick_node(move |asked| {
        counter.fetch_add(usize::from(asked.kind == Put::KIND), Ordering::SeqCst);
        about(&asked, Metric::Cosine, 0)
    });
    let path = mesh.dir().join("zero.jsonl");
    std::fs::write(&path, "{\"id\":1,\"vector\":[1,2]}\n{\"id\":2,\"vector\":[0,0]}\n").unwrap();
    let (_sender, interrupts) = watch::channel(0);
    let error = import(&arguments(&mesh, &node, &path, &[]), Style::Plain, interrupts).await.unwrap_err().render(false);
    assert!(error.contains("row 1 (counted from 0), point 2: the vector is all zeros"), "{error}");
    assert!(error.contains("cosine") && error.ends_with("nothing was sent"), "{error}");
    assert_eq!(error.matches("cosine").count(), 1, "the reason is told once: {error}");
    assert_eq!(puts.load(Ordering::SeqCst), 0);
}

/// Named after what went wrong: with the journal of the dropped collection every row was skipped, and the import said that
/// all was done.
#[tokio::test]
async fn a_journal_does_not_skip_what_a_new_collection_never_had() {
    let mesh = FakeMesh::new();
    let creation = Arc::new(AtomicUsize::new(1));
    let current = Arc::clone(&creation);
    let node = mesh.quick_node(move |asked| match asked.kind {
        Put::KIND => reply::<Put>(asked.read::<Put>().points.iter().map(written).collect()),
        _ => about(&asked, Metric::Dot, current.load(Ordering::SeqCst) as u8),
    });
    let journal = mesh.dir().join("journal");
    let args = arguments(&mesh, &node, &file_of(&mesh, 5), &["--journal", journal.to_str().unwrap()]);
    let (tally, end) = import_quietly(&args).await;
    end.unwrap();
    assert_eq!(tally.summary.written, 5);
    creation.store(2, Ordering::SeqCst);
    let refused = async || {
        let (_sender, interrupts) = watch::channel(0);
        import(&args, Style::Json, interrupts).await.unwrap_err().render(false)
    };
    let error = refused().await;
    assert!(error.contains("collection \"films\" was dropped and created anew since"), "{error}");
    creation.store(1, Ordering::SeqCst);
    std::fs::write(&args.file, "{\"id\":1,\"vector\":[9,9]}\n").unwrap();
    let error = refused().await;
    assert!(error.contains("was changed since"), "{error}");
    std::fs::write(&journal, "1\n2\n").unwrap();
    let error = refused().await;
    assert!(error.contains("written by an earlier vecino"), "{error}");
}

#[test]
fn only_with_a_journal_does_the_same_command_go_on() {
    assert!(interrupted(true).render(false).ends_with("the same command goes on from here"));
    let without = interrupted(false).render(false);
    assert!(without.contains("nothing remembers") && without.contains("--journal FILE"), "{without}");
}

#[tokio::test]
async fn a_batch_that_is_refused_as_a_whole_ends_the_import() {
    let mesh = FakeMesh::new();
    let puts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&puts);
    let node = mesh.quick_node(move |asked| {
        if asked.kind != Put::KIND {
            return about(&asked, Metric::Dot, 0);
        }
        counter.fetch_add(1, Ordering::SeqCst);
        Err(RpcError::new(ErrorCode::NotFound, "collection \"films\" was dropped"))
    });
    let args = arguments(&mesh, &node, &file_of(&mesh, 100), &["--batch", "5", "--in-flight", "1"]);
    let (tally, end) = import_quietly(&args).await;
    assert!(end.unwrap_err().render(false).contains("collection \"films\" was dropped"));
    assert_eq!(tally.summary.written, 0);
    assert!(puts.load(Ordering::SeqCst) <= 3, "{puts:?} of 20 batches were sent");
}
