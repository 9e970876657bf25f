//! The real binary on disks that fill up and fail: a small file system in memory, and a library between it and the system.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use vecino::process::NodeProcess;
use vecino_client::{Client, Level, Outcome, Point};

use crate::lab::{FILMS, Lab, check_films, create_films, film, get, nearest, put, put_films};
use crate::limits::{delete, fill, large, put_with_patience};

/// A file system in memory, in a namespace of its own, so that nothing of it is left behind.
struct SmallDisk {
    keeper: Child,
    folder: PathBuf,
}

impl SmallDisk {
    /// NotOpen where this process may not mount.
    fn new(folder: PathBuf, megabytes: u32) -> Option<Self> {
        std::fs::create_dir(&folder).unwrap();
        let script = format!("mount -t tmpfs -o size={megabytes}m vecino \"$0\" && echo mounted && exec sleep 600");
        let mut keeper = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .arg(&folder)
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(keeper.stdout.take()?).read_line(&mut line).ok()?;
        let disk = Self { keeper, folder };
        (line.trim() == "mounted").then_some(disk)
    }

    /// A command that starts another one where the file system is.
    fn launcher(&self) -> Vec<OsString> {
        ["nsenter", "--target", &self.keeper.id().to_string(), "--mount", "--"].map(OsString::from).into()
    }

    fn resize(&self, megabytes: u32) {
        let [nsenter, arguments @ ..] = &self.launcher()[..] else { unreachable!() };
        let size = format!("remount,size={megabytes}m");
        let remount = Command::new(nsenter).args(arguments).args(["mount", "-o", &size]).arg(&self.folder).status();
        assert!(remount.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_takes_deletes_and_drops_and_puts_again_when_it_is_given_room() {
    let lab = Lab::new();
    let Some(disk) = SmallDisk::new(lab.path("disk"), 48) else {
        eprintln!("skipped: this process may not mount a file system (root may)");
        return;
    };
    let mut command = lab.node("n1", &[]);
    command.launcher = disk.launcher();
    command.data = disk.folder.join("data");
    let node = command.start().await.unwrap();
    let client = lab.client(&node).await;
    create_films(&client, 1).await;
    let (mut acknowledged, reason) = fill(&client, 0).await;
    assert!(reason.contains("the disk is full") && reason.contains("\"films\""), "{reason}");
    // What a batch has no room for a point may have, and a small one the longest.
    for (first, make) in [(1_000_000, large as fn(u64) -> Point), (1_100_000, |id| film(id, 1))] {
        for id in first.. {
            match put(&client, vec![make(id)], Level::Quorum).await.remove(0) {
                Outcome::Written(_) => acknowledged.push(id),
                Outcome::Unavailable(reason) => {
                    assert!(reason.contains("the disk is full"), "{reason}");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(acknowledged.len() > 500, "{} films fit", acknowledged.len());
    assert!(get(&client, &acknowledged[..200], Level::Quorum).await.iter().all(Option::is_some));
    assert_eq!(nearest(&client, 7, 1).await, (7.into(), 0.0));
    let (deleted, kept) = acknowledged.split_at(acknowledged.len() / 2);
    for some in deleted.chunks(100) {
        delete(&client, some).await;
    }
    assert!(node.log().contains("gave the ballast up"), "the deletes fit without");
    let outcome = put(&client, vec![film(1_200_000, 1)], Level::Quorum).await.remove(0);
    assert!(matches!(&outcome, Outcome::Unavailable(reason) if reason.contains("the disk is full")), "{outcome:?}");

    disk.resize(80);
    put_with_patience(&client, 1_200_001).await;
    let check = async |client: &Client| {
        for some in deleted.chunks(500) {
            assert!(get(client, some, Level::Quorum).await.iter().all(Option::is_none), "a delete came back");
        }
        for some in kept.chunks(500) {
            assert!(get(client, some, Level::Quorum).await.iter().all(Option::is_some), "a film was lost");
        }
        assert!(get(client, &[1_200_001], Level::Quorum).await[0].is_some());
    };
    check(&client).await;
    let node = node.kill().await.unwrap().start().await.unwrap();
    let client = lab.client(&node).await;
    check(&client).await;

    // Full again: a drop is taken all the same, and gives room by itself.
    let (_, reason) = fill(&client, 2_000_000).await;
    assert!(reason.contains("the disk is full"), "{reason}");
    let freed = client.collection(FILMS).drop_collection().await.unwrap().freed_bytes;
    assert!(freed > 16 << 20, "{freed} bytes were freed");
    create_films(&client, 1).await;
    put_with_patience(&client, 1).await;
}

/// What makes calls of the node fail: a library that is loaded before the system's, told by a file.
struct Faults {
    library: PathBuf,
    control: PathBuf,
}

impl Faults {
    fn build(lab: &Lab) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mesh/faults.c");
        let library = lab.path("faults.so");
        let mut compiler = Command::new("cc");
        let built = compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
        assert!(built.unwrap().success(), "cc could not build the library");
        Self { library, control: lab.path("faults") }
    }

    /// Variables that have a node's calls fail for files under its data directory.
    fn environment(&self, data: &Path) -> Vec<(String, OsString)> {
        let variables = [("LD_PRELOAD", &*self.library), ("FAULTS_CONTROL", &*self.control), ("FAULTS_UNDER", data)];
        variables.map(|(name, path)| (name.to_owned(), path.as_os_str().to_owned())).into()
    }

    /// From now on these calls fail with these errors: `CALL ERRNO`, one a line.
    fn set(&self, calls: &str) {
        let next = self.control.with_extension("next");
        std::fs::write(&next, calls).unwrap();
        std::fs::rename(next, &self.control).unwrap();
    }

    fn clear(&self) {
        std::fs::remove_file(&self.control).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_fail_under_the_real_binary_are_told_in_plain_words_and_pass_by_themselves() {
    let lab = Lab::new();
    let faults = Faults::build(&lab);
    let mut command = lab.node("n1", &[]);
    command.environment = faults.environment(&command.data);
    let node = command.start().await.unwrap();
    let client = lab.client(&node).await;
    create_films(&client, 1).await;
    let mut acknowledged: Vec<u64> = (0..100).collect();
    put_films(&client, acknowledged.iter().copied(), 1, Level::Quorum).await;
    let cases = [
        ("pwrite 28", "the disk is full"),
        ("pwrite 30", "the file system is read-only"),
        ("pwrite 24", "too many files are open"),
        ("pwrite 5", "input/output errors"),
        ("pwrite 5\nfsync 5\nfdatasync 5", "input/output errors"),
        ("fsync 5\nfdatasync 5", "input/output errors"),
        ("fdatasync 28\nfsync 28", "the disk is full"),
        ("fdatasync 5\nopen 24", ""),
    ];
    let mut refused = Vec::new();
    for (number, (calls, words)) in (1..).zip(cases) {
        let first = number * 1_000;
        faults.set(calls);
        // The first may be in doubt, the second is surely refused: the log waits to be opened anew.
        for first in [first, first + 100] {
            let ids: Vec<u64> = (first..first + 20).collect();
            let outcomes = put(&client, ids.iter().map(|id| film(*id, 1)).collect(), Level::Quorum).await;
            for (id, outcome) in ids.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Unavailable(reason) => {
                        assert!(reason.contains(words), "{calls:?}: {reason}");
                        refused.push(id);
                    }
                    Outcome::Unknown(reason) => assert!(reason.contains(words), "{calls:?}: {reason}"),
                    other => panic!("{calls:?}: {other:?}"),
                }
            }
        }
        check_films(&client, &acknowledged, 1).await;
        assert_eq!(nearest(&client, 7, 1).await, (7.into(), 0.0), "{calls:?}");
        faults.clear();
        put_with_patience(&client, first + 500).await;
        acknowledged.push(first + 500);
    }
    assert!(refused.len() > 150, "most puts are surely refused, and {} were", refused.len());

    // A collection that cannot be made says why, and can be made later.
    for (calls, words) in [("open 24", "Too many open files"), ("pwrite 28", "No space left"), ("open 30", "Read-only")]
    {
        faults.set(calls);
        let other = client.collection("other");
        let error = other.create(2, vecino_client::Metric::Dot).await.unwrap_err().to_string();
        assert!(error.contains(words), "{calls:?}: {error}");
        faults.clear();
        other.create(2, vecino_client::Metric::Dot).await.unwrap();
        other.drop_collection().await.unwrap();
    }

    check_films(&client, &acknowledged, 1).await;
    let mut command = node.kill().await.unwrap();
    command.environment.clear();
    let node: NodeProcess = command.start().await.unwrap();
    let client = lab.client(&node).await;
    check_films(&client, &acknowledged, 1).await;
    assert!(get(&client, &refused, Level::Quorum).await.iter().all(Option::is_none), "a refused film is there");
}
