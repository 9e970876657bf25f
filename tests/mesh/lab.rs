//! A folder with an authority, nodes in processes, and the command line to ask them with.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vecino::process::{NodeCommand, NodeProcess};
use vecino_certs::{Authority, IssueOptions, Role};
use vecino_client::{Client, Level, Metric, NodeState, Outcome, Point, PointId, StoredPoint, Value, payload, point};

/// The binary under test.
pub const VECINO: &str = env!("CARGO_BIN_EXE_vecino");
/// The collection that most tests use.
pub const FILMS: &str = "films";
/// Values of its vectors.
pub const DIM: usize = 8;
/// How long a mesh may take to notice something. No statement about its speed: that is judged by the crate `net`.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Lab {
    pub folder: TempDir,
    authority: Authority,
}

impl Lab {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::init(folder.path().join("ca"), "lab").unwrap();
        authority
            .issue(&IssueOptions::new("client", Role::Client))
            .unwrap()
            .write(folder.path().join("client"))
            .unwrap();
        Self { folder, authority }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn client_certs(&self) -> PathBuf {
        self.path("client")
    }

    /// What starts a node of this name, with a certificate of this lab.
    pub fn node(&self, name: &str, seeds: &[SocketAddr]) -> NodeCommand {
        let certs = self.path(name);
        if !certs.exists() {
            self.authority.issue(&IssueOptions::new(name, Role::Node)).unwrap().write(&certs).unwrap();
        }
        NodeCommand {
            program: VECINO.into(),
            data: self.path(&format!("{name}-data")),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            certs: Some(certs),
            seeds: seeds.iter().map(SocketAddr::to_string).collect(),
            memory_limit: None,
            launcher: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// So many nodes that see each other.
    pub async fn mesh(&self, nodes: usize) -> Vec<NodeProcess> {
        let mut mesh: Vec<NodeProcess> = Vec::new();
        for number in 1..=nodes {
            let seeds: Vec<_> = mesh.first().map(NodeProcess::address).into_iter().collect();
            mesh.push(self.node(&format!("n{number}"), &seeds).start().await.unwrap());
        }
        self.await_all(&mesh, nodes, NodeState::Up).await;
        mesh
    }

    /// Waits until each of these nodes sees this number of nodes in a state.
    pub async fn await_all(&self, mesh: &[NodeProcess], count: usize, state: NodeState) {
        for node in mesh {
            self.await_nodes(&self.client(node).await, count, state).await;
        }
    }

    /// A client that asks this node first.
    pub async fn client(&self, node: &NodeProcess) -> Client {
        let builder = Client::builder().connect(node.address().to_string()).certs(self.client_certs());
        builder.build().await.unwrap()
    }

    /// Waits until the node that is asked sees so many nodes in a state.
    pub async fn await_nodes(&self, client: &Client, count: usize, state: NodeState) {
        let started = Instant::now();
        loop {
            let status = client.status().await.unwrap();
            if status.nodes.iter().filter(|node| node.state == state).count() == count {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "not {count} nodes {state:?}: {status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a command against a node.
    pub fn ask(&self, node: &NodeProcess, arguments: &[&str]) -> Ran {
        let connect = node.address().to_string();
        let certs = self.client_certs();
        let connection = ["--connect", &connect, "--certs", certs.to_str().unwrap()];
        run(self.folder.path(), &[arguments, &connection].concat())
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Its answer, where it succeeded and said one JSON object.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(self.out.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// Fails with this exit code, and says this on standard error.
    #[track_caller]
    pub fn fails(&self, code: i32, saying: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(saying.iter().all(|text| self.err.contains(text)), "{saying:?} is not all in {self:?}");
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A command, started in a folder, that nothing in the environment configures.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(VECINO);
    command.args(arguments).current_dir(folder).stdin(std::process::Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VECINO_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end.
pub fn run(folder: &Path, arguments: &[&str]) -> Ran {
    command(folder, arguments).output().unwrap().into()
}

/// The first line of a node's log that has these words. The node may write it after it has answered.
pub async fn logged(node: &NodeProcess, words: &str) -> String {
    let begun = Instant::now();
    loop {
        let log = node.log();
        if let Some(line) = log.lines().find(|line| line.contains(words)) {
            return line.to_owned();
        }
        assert!(begun.elapsed() < PATIENCE, "no {words:?} in {log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until something is so.
pub async fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not so: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ports that were free a moment ago.
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let sockets: [UdpSocket; N] = std::array::from_fn(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    sockets.map(|socket| socket.local_addr().unwrap())
}

/// A vector that only this id and time have.
pub fn vector(id: u64, time: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(id << 20 | time);
    (0..DIM).map(|_| random.f32()).collect()
}

pub fn film(id: u64, time: u64) -> Point {
    point(id, vector(id, time), payload! { "time": time })
}

pub async fn create_films(client: &Client, replicas: u32) {
    client.collection(FILMS).create(DIM as u32, Metric::Euclidean).replicas(replicas).await.unwrap();
}

/// Puts films and expects every one to be acknowledged.
pub async fn put_films(client: &Client, ids: impl Iterator<Item = u64>, time: u64, level: Level) {
    client.collection(FILMS).put(ids.map(|id| film(id, time))).level(level).await.unwrap();
}

pub async fn put(client: &Client, points: Vec<Point>, level: Level) -> Vec<Outcome> {
    client.collection(FILMS).put(points).level(level).each().await.unwrap().into_outcomes()
}

pub async fn get(client: &Client, ids: &[u64], level: Level) -> Vec<Option<StoredPoint>> {
    client.collection(FILMS).get(ids.iter().copied()).level(level).await.unwrap()
}

/// Every one of these films is as it was put at a time, read at `quorum` through this client's node.
pub async fn check_films(client: &Client, ids: &[u64], time: u64) {
    for some in ids.chunks(1_000) {
        for (id, found) in some.iter().zip(get(client, some, Level::Quorum).await) {
            let found = found.unwrap_or_else(|| panic!("film {id} was acknowledged and is gone"));
            assert_eq!(found.vectors[""].0, vector(*id, time), "film {id}");
            assert_eq!(found.payload["time"], Value::Int(time as i64));
        }
    }
}

/// The film that is nearest to where this one was put at a time.
pub async fn nearest(client: &Client, id: u64, time: u64) -> (PointId, f32) {
    let reply = client.collection(FILMS).search(vector(id, time)).k(1).await.unwrap();
    assert_eq!(reply.coverage, 1.0);
    (reply.hits[0].id.clone(), reply.hits[0].score)
}
