//! Nodes as processes on this machine: what the demonstration and the tests start, kill and start again.

use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use vecino_engine::memory::MemoryLimit;

/// How long a node may take until it answers requests.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How long a node may take to stop when it is asked to.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// Bytes of a node's log that an error quotes.
const QUOTED_BYTES: u64 = 2_000;

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeCommand {
    /// The vecino binary.
    pub program: PathBuf,
    /// Its data directory; its log goes beside it, with the ending `.log`.
    pub data: PathBuf,
    /// Where it listens; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Its certificate; made by itself where absent.
    pub certs: Option<PathBuf>,
    /// Addresses of nodes to join through.
    pub seeds: Vec<String>,
    /// How much memory it may take; its own default where absent.
    pub memory_limit: Option<MemoryLimit>,
    /// A command that starts the program, with the program and its arguments behind it; the program itself where empty.
    pub launcher: Vec<OsString>,
    /// Variables of the environment that the node gets beside those of this process.
    pub environment: Vec<(String, OsString)>,
}

/// A node that runs in a process of its own. It is killed when dropped.
#[derive(Debug)]
pub struct NodeProcess {
    command: NodeCommand,
    child: Child,
    ready: Ready,
}

/// What a node says when it is ready.
#[derive(Clone, Debug, Deserialize)]
struct Ready {
    node: String,
    mesh: String,
    address: SocketAddr,
    client_certs: Option<PathBuf>,
}

#[derive(Deserialize)]
struct ReadyLine {
    ready: Ready,
}

/// Why a node's process is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The system refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The node stopped before it was ready, or did not become ready in time.
    #[error("the node in {data} {what}; the end of its log:\n{log}", data = data.display())]
    NotReady {
        /// Its data directory.
        data: PathBuf,
        /// What it did instead.
        what: String,
        /// What it said last.
        log: String,
    },
}

impl NodeCommand {
    /// Starts the node and waits until it is ready.
    pub async fn start(self) -> Result<NodeProcess, ProcessError> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(|source| ProcessError::Io { action: format!("write {}", self.log().display()), source })?;
        let mut words = self.launcher.iter().map(OsString::as_os_str).chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(["node", "--json", "--listen", &self.listen.to_string(), "--data"]).arg(&self.data);
        if let Some(certs) = &self.certs {
            command.arg("--certs").arg(certs);
        }
        for seed in &self.seeds {
            command.args(["--seed", seed]);
        }
        if let Some(limit) = self.memory_limit {
            command.args(["--memory-limit", &limit.to_string()]);
        }
        // What the environment says of nodes is meant for other ones.
        for name in ["DATA", "LISTEN", "ADVERTISE", "SEEDS", "CERTS", "CONFIG", "LOG_FORMAT", "MEMORY_LIMIT"] {
            command.env_remove(format!("VECINO_{name}"));
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|source| ProcessError::Io { action: format!("start {}", self.program.display()), source })?;
        let Some(stdout) = child.stdout.take() else { unreachable!("standard output was asked for") };
        let mut line = String::new();
        let read = timeout(READY_WAIT, BufReader::new(stdout).read_line(&mut line)).await;
        let ready = match read {
            Ok(Ok(_)) => serde_json::from_str::<ReadyLine>(&line).ok(),
            Ok(Err(_)) | Err(_) => None,
        };
        match ready {
            Some(ReadyLine { ready }) => Ok(NodeProcess { command: self, child, ready }),
            None => {
                let what = match child.try_wait() {
                    Ok(Some(status)) => format!("stopped with {status}"),
                    _ if read.is_err() => format!("was not ready after {READY_WAIT:?}"),
                    _ => format!("stopped, or said {line:?} instead of being ready"),
                };
                Err(ProcessError::NotReady { what, log: self.end_of_log(), data: self.data })
            }
        }
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    fn end_of_log(&self) -> String {
        let read = || {
            let mut file = std::fs::File::open(self.log())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(QUOTED_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("(cannot be read: {error})"))
    }
}

impl NodeProcess {
    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.ready.address
    }

    /// Its node id, 32 hex digits.
    pub fn node_id(&self) -> &str {
        &self.ready.node
    }

    /// Its mesh.
    pub fn mesh_id(&self) -> &str {
        &self.ready.mesh
    }

    /// The client certificate that it made, where it made its own authority.
    pub fn client_certs(&self) -> Option<&Path> {
        self.ready.client_certs.as_deref()
    }

    /// Its process id; absent once it has ended.
    pub fn process_id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.command.log()).unwrap_or_default()
    }

    /// Kills it as a power cut would, with SIGKILL, and gives what starts it again at the same address.
    pub async fn kill(mut self) -> Result<NodeCommand, ProcessError> {
        self.child.kill().await.map_err(|source| ProcessError::Io { action: "kill a node".to_owned(), source })?;
        Ok(self.again())
    }

    /// Asks it to stop, with SIGTERM, waits until it has, and gives how it ended and what starts it again.
    pub async fn stop(mut self) -> Result<(ExitStatus, NodeCommand), ProcessError> {
        let failed = |action: &str, source| ProcessError::Io { action: action.to_owned(), source };
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            kill_process(pid, Signal::TERM).map_err(|error| failed("ask a node to stop", error.into()))?;
        }
        let status = match timeout(STOP_WAIT, self.child.wait()).await {
            Ok(status) => status.map_err(|source| failed("wait for a node to stop", source))?,
            Err(elapsed) => return Err(failed("wait for a node to stop", std::io::Error::other(elapsed))),
        };
        Ok((status, self.again()))
    }

    fn again(self) -> NodeCommand {
        NodeCommand { listen: SocketAddr::new(self.command.listen.ip(), self.ready.address.port()), ..self.command }
    }
}
