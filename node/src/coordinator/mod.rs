//! What a node does with a request that any client may send to any node: route it to the replicas, gather, answer.
//!
//! Decisions are made in the pure modules [`vecino_mesh::quorum`], [`vecino_mesh::fanout`] and [`vecino_mesh::merge`]; here their commands are carried
//! out. A replica that is this node itself is called without a network between.

mod admin;
mod points;
mod scan;
mod search;
mod status;

pub use self::admin::to_rpc_error;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};
use vecino_model::{CatalogEntry, Member, MeshId, NodeId, NodeState, View};
use vecino_net::endpoint::Endpoint;
use vecino_net::error::{ErrorCode, Retry, RpcError};
use vecino_net::message::{CatalogFetch, Rpc};
use vecino_net::rpc::TraceId;

use crate::blocking::blocking;
use crate::replica::ReplicaRequest;
use crate::route::Route;
use crate::store::Store;
use vecino_mesh::quorum::write::Failed;

/// How long catalogs are looked for on other nodes when a collection is not known here.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a node gossips before it takes a silent member for one that is down.
const SETTLING: Duration = Duration::from_secs(3);

/// How long a node may take before another is asked beside it.
const HEDGE_AFTER: Duration = Duration::from_millis(300);

/// Answers clients' requests. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
}

struct Shared {
    node_id: NodeId,
    mesh_id: MeshId,
    endpoint: Endpoint,
    store: Arc<Store>,
    view: watch::Receiver<Arc<View>>,
    /// Where nodes were when this one last ran, until gossip says where they are.
    remembered: BTreeMap<NodeId, SocketAddr>,
    started: Instant,
    /// Bytes of records on their way to each replica.
    writing: Mutex<HashMap<NodeId, usize>>,
}

impl Coordinator {
    /// A coordinator on a node that has joined its mesh.
    pub fn new(
        node_id: NodeId,
        mesh_id: MeshId,
        endpoint: Endpoint,
        store: Arc<Store>,
        view: watch::Receiver<Arc<View>>,
        remembered: BTreeMap<NodeId, SocketAddr>,
    ) -> Self {
        let started = Instant::now();
        let shared = Shared { node_id, mesh_id, endpoint, store, view, remembered, started, writing: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The mesh.
    pub fn mesh_id(&self) -> MeshId {
        self.shared.mesh_id
    }

    /// The members of the mesh, as of now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.shared.view.borrow())
    }

    /// Whether a node is worth asking. A node that has just started cannot tell yet which members are down, and asks all.
    fn is_up(&self, node: NodeId) -> bool {
        let is_settling = self.shared.started.elapsed() < SETTLING;
        node == self.shared.node_id
            || match self.view().members.get(&node) {
                Some(member) => member.state == NodeState::Up || is_settling,
                None => is_settling && self.shared.remembered.contains_key(&node),
            }
    }

    /// Members that are up, this node among them.
    fn up(&self) -> Vec<Member> {
        self.view().members.values().filter(|member| member.state == NodeState::Up).cloned().collect()
    }

    /// The collection of this name, looked for on other nodes too where it is not known here.
    async fn route(&self, name: &str) -> Result<Arc<Route>, RpcError> {
        if let Some(route) = self.shared.store.route(name) {
            return Ok(route);
        }
        self.refresh_catalog().await;
        self.shared.store.route(name).ok_or_else(|| {
            RpcError::new(
                ErrorCode::NotFound,
                format_args!("collection {name:?} does not exist; `vecino collection list` shows those that do"),
            )
        })
    }

    /// Fetches the catalog of one node and takes over what is new in it.
    pub async fn fetch_catalog_of(&self, node: NodeId) {
        let Some(address) = self.address(node) else { return };
        match self.shared.endpoint.call(address, Some(node), &CatalogFetch {}, REFRESH_TIMEOUT).await {
            Ok(entries) => self.take_over(entries).await,
            Err(error) => debug!(node = %node.short(), %error, "a catalog could not be fetched"),
        }
    }

    /// Fetches the catalogs of all nodes that are up and takes over what is new in them.
    async fn refresh_catalog(&self) {
        let fetches = self.ask_all(&self.other_members_up(), &CatalogFetch {}, REFRESH_TIMEOUT).await;
        for (_, answer) in fetches {
            if let Ok(entries) = answer {
                self.take_over(entries).await;
            }
        }
    }

    /// Takes over the entries of another node's catalog that are newer than those known here.
    pub async fn take_over(&self, entries: Vec<CatalogEntry>) {
        let store = Arc::clone(&self.shared.store);
        match blocking(move || store.merge_all(entries)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%error, "a catalog could not be taken over"),
            Err(error) => warn!(%error, "a catalog could not be taken over"),
        }
    }

    fn other_members_up(&self) -> Vec<Member> {
        self.up().into_iter().filter(|member| member.id != self.shared.node_id).collect()
    }

    /// Sends one request to several nodes at once; answers in no particular order.
    async fn ask_all<R: Rpc + Clone + Sync>(
        &self,
        members: &[Member],
        request: &R,
        timeout: Duration,
    ) -> HashMap<NodeId, Result<R::Reply, RpcError>> {
        let mut calls = tokio::task::JoinSet::new();
        for Member { id, address, .. } in members {
            let (endpoint, request, id, address) = (self.shared.endpoint.clone(), request.clone(), *id, *address);
            let trace = TraceId::current().unwrap_or_else(TraceId::random);
            calls.spawn(trace.scope(async move { (id, endpoint.call(address, Some(id), &request, timeout).await) }));
        }
        calls.join_all().await.into_iter().collect()
    }

    /// How many nodes belong to the mesh, as far as this one knows, itself among them.
    fn known_nodes(&self) -> usize {
        let view = self.view();
        let gossiped = view.members.keys();
        gossiped.chain(self.shared.remembered.keys()).chain([&self.shared.node_id]).collect::<BTreeSet<_>>().len()
    }

    fn address(&self, node: NodeId) -> Option<SocketAddr> {
        let gossiped = self.view().members.get(&node).map(|member| member.address);
        gossiped.or_else(|| self.shared.remembered.get(&node).copied())
    }

    /// Asks one replica, this node or another.
    async fn ask<R: ReplicaRequest>(&self, node: NodeId, request: R, deadline: Instant) -> Result<R::Reply, Failed> {
        let answer = self.call(node, request, deadline).await;
        answer.map_err(|error| Failed { may_have_happened: !surely_did_nothing(&error), reason: error.message })
    }

    async fn call<R: ReplicaRequest>(&self, node: NodeId, request: R, deadline: Instant) -> Result<R::Reply, RpcError> {
        if node == self.shared.node_id {
            return request.answer(&self.shared.store).await;
        }
        let not_asked = |reason: &str| Err(RpcError::new(ErrorCode::Unavailable, reason));
        let Some(address) = self.address(node) else {
            return not_asked("its address is not known: it was not seen since this node started");
        };
        // What is asked of a dead node waits for a timeout, and holds its memory until then.
        if !self.is_up(node) {
            return not_asked("it is down");
        }
        let left = deadline.saturating_duration_since(Instant::now());
        self.shared.endpoint.call(address, Some(node), &request, left).await
    }
}

/// Whether a request that failed this way changed nothing. Where that is not certain, it may have.
fn surely_did_nothing(error: &RpcError) -> bool {
    match error.retry {
        Retry::Safe | Retry::AfterMs(_) => true,
        Retry::Unknown => false,
        Retry::No => matches!(error.code, ErrorCode::Invalid | ErrorCode::NotFound | ErrorCode::Forbidden),
    }
}

/// Starts work that may outlive the request that it is for, under that request's trace.
fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    match TraceId::current() {
        Some(trace) => tokio::spawn(trace.scope(work)),
        None => tokio::spawn(work),
    };
}

/// What is left of a request's time for the replicas, so that the answer still reaches the caller.
fn replica_deadline(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    Instant::now() + left.mul_f64(0.9)
}
