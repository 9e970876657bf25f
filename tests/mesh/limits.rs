//! A node whose memory is limited: what it refuses, what goes on, and that nobody kills it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vecino::process::NodeProcess;
use vecino_client::{Client, Level, Outcome, Point, PointId, Value};
use vecino_engine::memory::MemoryLimit;

use crate::lab::{FILMS, Lab, create_films, film, get, put, put_films};

/// Bytes of the payload of a large point.
const LARGE: usize = 16 * 1024;
/// Large points in one batch.
const BATCH: u64 = 50;

/// A film whose payload takes much memory.
pub fn large(id: u64) -> Point {
    let mut point = film(id, 1);
    let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(LARGE).collect();
    point.payload.insert("text".to_owned(), Value::Text(text));
    point
}

/// Puts large films until one is refused; gives those that were acknowledged, and the reason.
pub async fn fill(client: &Client, first: u64) -> (Vec<u64>, String) {
    let mut acknowledged = Vec::new();
    for first in (first..first + 1_000_000).step_by(BATCH as usize) {
        let ids: Vec<u64> = (first..first + BATCH).collect();
        let outcomes = put(client, ids.iter().map(|id| large(*id)).collect(), Level::Quorum).await;
        let mut refused = None;
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Written(_) => acknowledged.push(id),
                Outcome::Unavailable(reason) => refused = Some(reason),
                other => panic!("{other:?}"),
            }
        }
        if let Some(reason) = refused {
            return (acknowledged, reason);
        }
    }
    unreachable!("a machine with so much room")
}

/// Puts a film until it is taken.
pub async fn put_with_patience(client: &Client, id: u64) {
    let started = Instant::now();
    loop {
        let outcome = put(client, vec![film(id, 1)], Level::Quorum).await.remove(0);
        match outcome {
            Outcome::Written(_) => return,
            _ => assert!(started.elapsed() < Duration::from_secs(40), "{outcome:?}"),
        }
    }
}

/// Deletes films and expects every one to be acknowledged.
pub async fn delete(client: &Client, ids: &[u64]) {
    client.collection(FILMS).delete(ids.iter().copied()).await.unwrap();
}

fn resident(node: &NodeProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process_id().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// A control group with a limit on memory, removed in the end.
struct ControlGroup(PathBuf);

impl ControlGroup {
    /// NotOpen where this process may not make one.
    fn new(limit: u64) -> Option<Self> {
        let name = format!("vecino-test-{}", std::process::id());
        for (root, file) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
            let folder = Path::new(root).join(&name);
            if std::fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = Self(folder);
            if std::fs::write(group.0.join(file), limit.to_string()).is_ok() {
                return Some(group);
            }
        }
        None
    }

    /// A command that starts another one in the group.
    fn launcher(&self) -> Vec<OsString> {
        let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        ["sh", "-c", script].into_iter().map(OsString::from).chain([self.0.clone().into_os_string()]).collect()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let started = Instant::now();
        // The group is in use until its last process is gone for good.
        while std::fs::remove_dir(&self.0).is_err() && started.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_a_small_control_group_refuses_puts_in_time_and_is_never_killed() {
    const GROUP: u64 = 256 << 20;
    let lab = Lab::new();
    let Some(group) = ControlGroup::new(GROUP) else {
        eprintln!("skipped: this process may not make a control group for memory (root may)");
        return;
    };
    let mut command = lab.node("n1", &[]);
    command.launcher = group.launcher();
    let node = command.start().await.unwrap();
    let client = lab.client(&node).await;
    create_films(&client, 1).await;
    let memory = |status: &serde_json::Value, field: &str| status["nodes"][0]["memory"][field].as_u64().unwrap();
    let limit = GROUP * 70 / 100;
    assert_eq!(memory(&lab.ask(&node, &["status", "--json"]).json(), "limit_bytes"), limit);

    let (acknowledged, reason) = fill(&client, 0).await;
    assert!(["\"films\"", "limit of 179.2 MiB", "--memory-limit"].iter().all(|word| reason.contains(word)), "{reason}");
    let taken = resident(&node);
    let status = lab.ask(&node, &["status", "--json"]).json();
    let used = memory(&status, "used_bytes");
    let films = status["nodes"][0]["collections"][FILMS]["memory_bytes"].as_u64().unwrap();
    println!(
        "{} points of {LARGE} bytes; used {used}, films {films}, limit {limit}, resident {taken}",
        acknowledged.len()
    );
    assert!(used <= limit && used > limit * 9 / 10, "{used} of {limit} are used");
    assert!(films > limit / 2 && films < used);
    assert!(taken < GROUP, "the node takes {taken} bytes");

    // Reads and deletes go on, and what was refused is not there.
    assert!(get(&client, &acknowledged[..200], Level::Quorum).await.iter().all(Option::is_some));
    delete(&client, &acknowledged[..100]).await;
    assert!(get(&client, &acknowledged[..100], Level::Quorum).await.iter().all(Option::is_none));
    // The payloads of a hundred points make room for some others.
    put_with_patience(&client, 5_000_000).await;

    // A restart finds what was accepted, in the same memory.
    let node = node.kill().await.unwrap().start().await.unwrap();
    let client = lab.client(&node).await;
    assert!(get(&client, &acknowledged[100..300], Level::Quorum).await.iter().all(Option::is_some));
    // With less it stays closed, says why, and is not killed; with more it is back.
    let mut command = node.kill().await.unwrap();
    command.memory_limit = Some(MemoryLimit::Bytes(64 << 20));
    let node = command.start().await.unwrap();
    let asked = lab.client(&node).await.collection(FILMS).get([1]).await.unwrap_err();
    assert!(asked.to_string().contains("limit of 64.0 MiB"), "{asked}");
    let status = lab.ask(&node, &["status", "--json"]).json();
    let error = status["nodes"][0]["collections"][FILMS]["error"].as_str().unwrap();
    assert!(error.contains("limit of 64.0 MiB") && error.contains("--memory-limit"), "{error}");
    let mut command = node.kill().await.unwrap();
    command.memory_limit = None;
    let node = command.start().await.unwrap();
    let client = lab.client(&node).await;
    assert!(get(&client, &acknowledged[100..300], Level::Quorum).await.iter().all(Option::is_some));

    // What is dropped gives its memory back.
    client.collection(FILMS).drop_collection().await.unwrap();
    let status = lab.ask(&node, &["status", "--json"]).json();
    assert!(memory(&status, "used_bytes") < limit / 2, "{status}");
    create_films(&client, 1).await;
    put_with_patience(&client, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accounted_is_what_the_process_takes() {
    // Wide vectors with small payloads, and small vectors with text ids: index and tables each.
    for (name, dim, points, has_text_ids) in [("wide", 512, 12_000u64, false), ("named", 2, 60_000, true)] {
        let lab = Lab::new();
        let node = lab.node("n1", &[]).start().await.unwrap();
        let client = lab.client(&node).await;
        client.collection(name).create(dim, vecino_client::Metric::Euclidean).await.unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let before = resident(&node);
        for first in (0..points).step_by(1_000) {
            let point = |id: u64| {
                let id = if has_text_ids { PointId::Text(format!("the point with number {id}")) } else { id.into() };
                let vector = (0..dim).map(|_| random.f32()).collect::<Vec<f32>>();
                let mut point = vecino_client::point(0, vector, film(0, 1).payload);
                point.id = id;
                point
            };
            client.collection(name).put((first..first + 1_000).map(point)).await.unwrap();
        }
        // The room for links and codes is accounted when a point is stored, and taken when it is linked.
        let told = loop {
            let told = client.collection(name).describe().await.unwrap().nodes.into_values().next().unwrap();
            if told.unlinked == 0 {
                break told;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let taken = resident(&node) - before;
        println!("{name}: {} bytes accounted, {taken} resident more", told.memory_bytes);
        // A process keeps more beside, whatever is stored: what the allocator keeps for each thread that took requests or
        // linked, of the largest that it had. Requests of 2 MiB leave up to 36 MiB in four such heaps, small ones 7 MiB.
        assert!(told.memory_bytes < taken * 11 / 10, "{name}: {} accounted of {taken}", told.memory_bytes);
        assert!(taken < told.memory_bytes * 5 / 4 + (48 << 20), "{name}: {} accounted of {taken}", told.memory_bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drop_says_how_many_bytes_it_freed_on_all_nodes() {
    let lab = Lab::new();
    let mesh = lab.mesh(3).await;
    let client = lab.client(&mesh[0]).await;
    create_films(&client, 2).await;
    put_films(&client, 0..2_000, 1, Level::All).await;
    client.snapshot().await.unwrap();
    fn bytes(folder: &Path) -> u64 {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let size = |entry: std::fs::DirEntry| match entry.file_type().unwrap().is_dir() {
            true => bytes(&entry.path()),
            false => entry.metadata().unwrap().len(),
        };
        entries.map(size).sum()
    }
    let there: u64 = (1..=3).map(|number| bytes(&lab.path(&format!("n{number}-data")).join("collections"))).sum();
    assert!(there > 100_000);
    let dropped = lab.ask(&mesh[1], &["collection", "drop", FILMS, "--json"]).json();
    assert_eq!((dropped["dropped"].as_str(), dropped["freed_bytes"].as_u64()), (Some(FILMS), Some(there)));
    let gone = lab.ask(&mesh[1], &["collection", "drop", FILMS]);
    gone.fails(1, &["does not exist"]);
}
