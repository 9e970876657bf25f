//! An authority, nodes and clients of its mesh, a service that obeys its requests, and the log as tests see it.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;
use vecino_certs::{Authority, Identity, IssueOptions, Role};
use vecino_mesh::roster::Roster;
use vecino_model::{MeshId, NodeId, Outcome, Payload, RawPayload, RawPoint, ScanCursor, Value};
use vecino_net::endpoint::{Endpoint, EndpointOptions};
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::membership::{Decider, MembershipOptions};
use vecino_net::message::{
    CatalogFetch, DropCollection, Dropped, ListCollections, PeerIdentity, Put, ReplicaVersions, Rpc, Scan, ScanReply,
    ScanStream,
};
use vecino_net::node_id;
use vecino_net::rpc::{ChunkSender, RequestContext, Service, decode, encode};

/// Ends a test that hangs; never decides one that does not.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Size of each chunk of the service's answers, nearly.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Awaits what must happen.
pub async fn soon<F: Future>(what: &str, event: F) -> F::Output {
    timeout(PATIENCE, event).await.unwrap_or_else(|_| panic!("{what} did not happen within {PATIENCE:?}"))
}

/// The authority of one mesh.
pub struct Mesh {
    pub authority: Authority,
    pub dir: tempfile::TempDir,
}

impl Mesh {
    pub fn new() -> Self {
        listen_to_logs();
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::init(dir.path().join("authority"), "test").unwrap();
        Self { authority, dir }
    }

    pub fn node(&self) -> Identity {
        self.authority.issue(&IssueOptions::new("node", Role::Node)).unwrap().identity().unwrap()
    }

    pub fn client(&self) -> Identity {
        self.authority.issue(&IssueOptions::new("somebody", Role::Client)).unwrap().identity().unwrap()
    }

    pub fn expired_node(&self) -> Identity {
        let not_before = Some(SystemTime::now() - Duration::from_secs(3 * 86_400));
        let options = IssueOptions { days: 1, not_before, ..IssueOptions::new("late", Role::Node) };
        self.authority.issue(&options).unwrap().identity().unwrap()
    }

    /// A node that listens on a free port.
    pub fn server(&self) -> Server {
        Server::start(&self.node(), options())
    }

    pub fn client_endpoint(&self) -> Endpoint {
        Endpoint::client(&self.client(), options()).unwrap()
    }
}

pub fn options() -> EndpointOptions {
    EndpointOptions { listen: "127.0.0.1:0".parse().unwrap(), ..EndpointOptions::default() }
}

/// A node and what its service sees.
pub struct Server {
    pub endpoint: Endpoint,
    pub service: Arc<Obedient>,
    pub id: NodeId,
    pub address: SocketAddr,
}

impl Server {
    pub fn start(identity: &Identity, options: EndpointOptions) -> Self {
        let service = Arc::new(Obedient::new(node_id(identity.key_id())));
        let endpoint = Endpoint::server(identity, options, Arc::clone(&service) as _).unwrap();
        let address = endpoint.local_addr();
        service.identity.lock().unwrap().advertise = address.to_string();
        Self { endpoint, service, id: node_id(identity.key_id()), address }
    }

    pub fn join(&self, mesh: u8) {
        self.service.identity.lock().unwrap().mesh_id = Some(MeshId([mesh; 16]));
    }
}

/// A service that does what the name in a [`DropCollection`] says, so that tests can steer it by requests.
pub struct Obedient {
    pub identity: Mutex<PeerIdentity>,
    /// After how many questions for the identity one panics, itself included; none does at 0.
    pub identity_panics_in: AtomicUsize,
    /// Calls of `hang`, `wait` and [`ReplicaVersions`] under way.
    pub held: watch::Sender<usize>,
    /// Calls of `hang` and `wait` that were dropped before they were done.
    pub cancelled: watch::Sender<usize>,
    /// Lets `wait` go on.
    pub released: watch::Sender<bool>,
    /// Chunks made, over all calls.
    pub chunks: watch::Sender<usize>,
    /// Contexts of all calls.
    pub contexts: Mutex<Vec<RequestContext>>,
    /// What it tells of its clock.
    pub clock: AtomicU32,
    /// What it was told of the clocks of others.
    pub clocks: watch::Sender<Vec<(NodeId, u32)>>,
}

impl Obedient {
    fn new(node_id: NodeId) -> Self {
        Self {
            identity: Mutex::new(PeerIdentity { node_id, mesh_id: None, advertise: String::new() }),
            identity_panics_in: AtomicUsize::new(0),
            held: watch::Sender::new(0),
            cancelled: watch::Sender::new(0),
            released: watch::Sender::new(false),
            chunks: watch::Sender::new(0),
            contexts: Mutex::default(),
            clock: AtomicU32::new(0),
            clocks: watch::Sender::default(),
        }
    }

    async fn hold(&self) {
        struct Held<'a>(&'a Obedient, bool);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                self.0.held.send_modify(|held| *held -= 1);
                if !self.1 {
                    self.0.cancelled.send_modify(|cancelled| *cancelled += 1);
                }
            }
        }
        self.held.send_modify(|held| *held += 1);
        let mut held = Held(self, false);
        self.released.subscribe().wait_for(|released| *released).await.unwrap();
        held.1 = true;
    }
}

#[async_trait]
impl Service for Obedient {
    fn identity(&self) -> PeerIdentity {
        let one_less = |left: usize| left.checked_sub(1);
        let left = self.identity_panics_in.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        assert!(left != Ok(1), "as asked");
        self.identity.lock().unwrap().clone()
    }

    fn clock_told(&self) -> u32 {
        self.clock.load(Ordering::SeqCst)
    }

    fn clock_heard(&self, node: NodeId, told: u32) {
        self.clocks.send_modify(|clocks| clocks.push((node, told)));
    }

    async fn serve(&self, context: RequestContext, kind: u16, body: Bytes) -> Result<Vec<u8>, RpcError> {
        self.contexts.lock().unwrap().push(context);
        match kind {
            DropCollection::KIND => {
                let request: DropCollection = decode(DropCollection::NAME, &body)?;
                match request.name.as_str() {
                    "wait" => self.hold().await,
                    "panic" => panic!("as asked"),
                    "fail" => return Err(RpcError::new(ErrorCode::NotFound, "as asked")),
                    _ => {}
                }
                encode(&Dropped::default())
            }
            ReplicaVersions::KIND => {
                self.hold().await;
                encode(&[(); 0])
            }
            ListCollections::KIND | CatalogFetch::KIND => encode(&[(); 0]),
            Put::KIND => {
                let put: Put = decode(Put::NAME, &body)?;
                encode(&put.points.iter().map(|point| Outcome::Refused(size(point).to_string())).collect::<Vec<_>>())
            }
            Scan::KIND => {
                let scan: Scan = decode(Scan::NAME, &body)?;
                let payload = Payload::from([("text".into(), Value::Text("x".repeat(scan.limit as usize)))]).into();
                let version = vecino_model::Version::ZERO;
                let point =
                    vecino_model::RawStoredPoint { id: 1.into(), vectors: Default::default(), payload, version };
                encode(&ScanReply { points: vec![point], next: None })
            }
            kind => Err(RpcError::invalid(format_args!("kind {kind} is not for tests"))),
        }
    }

    /// As many chunks as the limit says, each with its number as the place to go on from and about [`CHUNK_BYTES`] of
    /// payload; then what the name of the collection says.
    async fn serve_chunks(
        &self,
        context: RequestContext,
        _kind: u16,
        body: Bytes,
        chunks: ChunkSender,
    ) -> Result<(), RpcError> {
        self.contexts.lock().unwrap().push(context);
        let ScanStream { scan } = decode(ScanStream::NAME, &body)?;
        let payload = RawPayload::from(Payload::from([("text".into(), Value::Text("x".repeat(CHUNK_BYTES)))]));
        for position in 0..u64::from(scan.limit) {
            let (id, payload, version) = (1.into(), payload.clone(), vecino_model::Version::ZERO);
            let point = vecino_model::RawStoredPoint { id, vectors: Default::default(), payload, version };
            let next = Some(ScanCursor { position, id: position.into() });
            self.chunks.send_modify(|made| *made += 1);
            chunks.send::<ScanStream>(&ScanReply { points: vec![point], next }).await?;
        }
        match scan.collection.as_str() {
            "wait" => self.hold().await,
            "panic" => panic!("as asked"),
            "fail" => return Err(RpcError::new(ErrorCode::NotFound, "as asked")),
            _ => {}
        }
        Ok(())
    }
}

/// Number of f32 in the point's default field.
pub fn size(point: &RawPoint) -> usize {
    point.vectors.get("").map_or(0, |vector| vector.0.len())
}

/// A request that the service obeys.
pub fn order(name: &str) -> DropCollection {
    DropCollection { name: name.into() }
}

/// What was logged, by all tests of this process.
pub static LOG: LazyLock<watch::Sender<String>> = LazyLock::new(|| watch::Sender::new(String::new()));

struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.send_modify(|log| log.push_str(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn listen_to_logs() {
    let _ = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(|| LogWriter)
        .try_init();
}

/// Awaits a warning that has all of `parts` in one line.
pub async fn warned(parts: &[&str]) {
    let found = |log: &String| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    let mut log = LOG.subscribe();
    if timeout(PATIENCE, log.wait_for(found)).await.is_err() {
        panic!("no warning with {parts:?} in:\n{}", *LOG.borrow());
    }
}

/// What decides who is up, as a node has it.
pub fn decider(options: &MembershipOptions) -> Decider {
    let MembershipOptions { node_id, down_after, gossip_interval, .. } = *options;
    Box::new(Roster::new(node_id, down_after, gossip_interval * 2).into_decider())
}
