//! A node in a process of its own, which can be killed as a crash would: this test program, started again.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::fixture::decider;
use vecino_certs::{Identity, IssueOptions, Role};
use vecino_model::{MeshId, NodeId};
use vecino_net::endpoint::EndpointOptions;
use vecino_net::membership::{Membership, MembershipOptions};
use vecino_net::node_id;

use crate::fixture::{Mesh, Server, options};

const DIR: &str = "VECINO_NET_TEST_DIR";
const LISTEN: &str = "VECINO_NET_TEST_LISTEN";
const SEED: &str = "VECINO_NET_TEST_SEED";
const GENERATION: &str = "VECINO_NET_TEST_GENERATION";

/// The mesh that children gossip in.
pub const MESH: MeshId = MeshId([0x77; 16]);

/// Folder and identity of a node that runs as a child, over all of its lives.
pub struct Node {
    dir: PathBuf,
    pub id: NodeId,
}

impl Node {
    pub fn new(mesh: &Mesh, name: &str) -> Self {
        let dir = mesh.dir.path().join(name);
        let issued = mesh.authority.issue(&IssueOptions::new(name, Role::Node)).unwrap();
        issued.write(&dir).unwrap();
        Self { dir, id: node_id(issued.key_id()) }
    }

    /// Starts a life, and returns once it listens; with a seed it gossips.
    pub fn start(&self, listen: SocketAddr, seed: Option<SocketAddr>, generation: u64) -> Life {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["child::live", "--exact", "--nocapture"])
            .env(DIR, &self.dir)
            .env(LISTEN, listen.to_string())
            .env(GENERATION, generation.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(seed) = seed {
            command.env(SEED, seed.to_string());
        }
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| line.unwrap().strip_prefix("listening ").map(|address| address.parse().unwrap()))
            .expect("the child listens");
        Life { process, address }
    }
}

/// A running child; killed when dropped.
pub struct Life {
    process: Child,
    pub address: SocketAddr,
}

impl Life {
    /// Ends the process as a power failure would, and returns once it is gone.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The child's main function: does nothing unless it was started by [`Node::start`]. Ends with its parent.
#[test]
fn live() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(Path::new(&dir)));
}

async fn run(dir: &Path) {
    let variable = |name| std::env::var(name).unwrap();
    let identity = Identity::load(dir, Role::Node).unwrap();
    let options =
        EndpointOptions { listen: variable(LISTEN).parse().unwrap(), state_dir: Some(dir.join("state")), ..options() };
    let server = Server::start(&identity, options);
    let membership = match std::env::var(SEED) {
        Ok(seed) => {
            let generation = variable(GENERATION).parse().unwrap();
            let mut options =
                MembershipOptions::new(node_id(identity.key_id()), MESH, server.address, generation, vec![generation]);
            options.seeds = vec![seed];
            Some(Membership::start(options.clone(), &server.endpoint, decider(&options)).await.unwrap())
        }
        Err(_) => None,
    };
    println!("\nlistening {}", server.address);
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await;
    drop(membership);
}
