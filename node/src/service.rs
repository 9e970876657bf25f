//! Answers requests: which kind goes where.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use tracing::debug;
use vecino_mesh::message::Ask;
use vecino_model::{MeshId, NodeId};
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::message::{
    CatalogApply, CatalogFetch, CreateCollection, Delete, DescribeCollection, DropCollection, Get, Join,
    ListCollections, Members, NodeSnapshot, NodeStats, PeerIdentity, Probe, Put, ReplicaApply, ReplicaRead,
    ReplicaScan, ReplicaSearch, ReplicaVersions, RingInfo, Rpc, Scan, ScanStream, Search, Stamp, Status, TakeSnapshot,
};
use vecino_net::rpc::{ChunkSender, RequestContext, Service, TraceId, decode, encode};

use crate::coordinator::Coordinator;
use crate::driver::Driver;
use crate::snapshots;
use crate::store::Store;

/// What a node answers with.
pub struct NodeService {
    node_id: NodeId,
    advertise: SocketAddr,
    store: Arc<Store>,
    /// NotOpen until the mesh is known: connections made before say so.
    mesh_id: OnceLock<MeshId>,
    /// Absent until the node takes part in gossip; it answers no request before.
    coordinator: OnceLock<Coordinator>,
}

impl NodeService {
    /// A service that answers nothing yet.
    pub fn new(node_id: NodeId, advertise: SocketAddr, store: Arc<Store>) -> Self {
        Self { node_id, advertise, store, mesh_id: OnceLock::new(), coordinator: OnceLock::new() }
    }

    /// Says on new connections that this node belongs to a mesh.
    pub fn set_mesh(&self, mesh_id: MeshId) {
        let _ = self.mesh_id.set(mesh_id);
    }

    /// Begins to answer.
    pub fn open(&self, coordinator: Coordinator) {
        let _ = self.coordinator.set(coordinator);
    }

    fn coordinator(&self) -> Result<&Coordinator, RpcError> {
        self.coordinator.get().ok_or_else(|| {
            let message = format_args!("node {} is starting and not in its mesh yet", self.node_id.short());
            RpcError::new(ErrorCode::NotReady, message)
        })
    }
}

#[async_trait]
impl Service for NodeService {
    fn identity(&self) -> PeerIdentity {
        PeerIdentity {
            node_id: self.node_id,
            mesh_id: self.mesh_id.get().copied(),
            advertise: self.advertise.to_string(),
        }
    }

    async fn serve(&self, context: RequestContext, kind: u16, body: Bytes) -> Result<Vec<u8>, RpcError> {
        let RequestContext { caller, trace, .. } = &context;
        debug!(%trace, %caller, kind, bytes = body.len(), "request");
        let (own, context, body) = (self.coordinator()?, &context, &*body);
        let driver = own.driver();
        match kind {
            CreateCollection::KIND => {
                let (owned, context) = (own.clone(), context.clone());
                answer(body, |request| to_its_end(async move { owned.create_collection(&context, request).await }))
                    .await
            }
            DropCollection::KIND => {
                let (owned, context) = (own.clone(), context.clone());
                answer(body, |request| to_its_end(async move { owned.drop_collection(&context, request).await })).await
            }
            ListCollections::KIND => answer(body, |ListCollections {}| own.list_collections(context)).await,
            DescribeCollection::KIND => answer(body, |request| own.describe_collection(context, request)).await,
            Status::KIND => answer(body, |Status {}| own.status(context)).await,
            RingInfo::KIND => answer(body, |request| own.ring(context, request)).await,
            TakeSnapshot::KIND => answer(body, |request| own.take_snapshot(context, request)).await,
            Put::KIND => decide::<Put>(driver, context, body).await,
            Get::KIND => decide::<Get>(driver, context, body).await,
            Delete::KIND => decide::<Delete>(driver, context, body).await,
            Members::KIND => decide::<Members>(driver, context, body).await,
            Stamp::KIND => decide::<Stamp>(driver, context, body).await,
            Search::KIND => decide::<Search>(driver, context, body).await,
            Scan::KIND => decide::<Scan>(driver, context, body).await,
            Join::KIND => decide::<Join>(driver, context, body).await,
            CatalogFetch::KIND => decide::<CatalogFetch>(driver, context, body).await,
            CatalogApply::KIND => decide::<CatalogApply>(driver, context, body).await,
            ReplicaVersions::KIND => decide::<ReplicaVersions>(driver, context, body).await,
            ReplicaApply::KIND => decide::<ReplicaApply>(driver, context, body).await,
            ReplicaRead::KIND => decide::<ReplicaRead>(driver, context, body).await,
            ReplicaSearch::KIND => decide::<ReplicaSearch>(driver, context, body).await,
            ReplicaScan::KIND => decide::<ReplicaScan>(driver, context, body).await,
            Probe::KIND => decide::<Probe>(driver, context, body).await,
            NodeSnapshot::KIND => {
                answer(body, |request| snapshots::take(Arc::clone(&self.store), self.node_id, request)).await
            }
            NodeStats::KIND => answer(body, |NodeStats {}| async { Ok(own.stats_here()) }).await,
            unknown => Err(unknown_kind(unknown)),
        }
    }

    async fn serve_chunks(
        &self,
        context: RequestContext,
        kind: u16,
        body: Bytes,
        chunks: ChunkSender,
    ) -> Result<(), RpcError> {
        let RequestContext { caller, trace, .. } = &context;
        debug!(%trace, %caller, kind, bytes = body.len(), "request");
        let own = self.coordinator()?;
        match kind {
            ScanStream::KIND => own.scan_stream(&context, decode(ScanStream::NAME, &body)?, &chunks).await,
            unknown => Err(unknown_kind(unknown)),
        }
    }
}

fn unknown_kind(kind: u16) -> RpcError {
    RpcError::new(ErrorCode::Protocol, format_args!("requests of kind {kind} are not known to this version"))
}

async fn answer<R: Rpc, F: Future<Output = Result<R::Reply, RpcError>>>(
    body: &[u8],
    work: impl FnOnce(R) -> F,
) -> Result<Vec<u8>, RpcError> {
    encode(&work(decode(R::NAME, body)?).await?)
}

/// Answers what the node decides about.
async fn decide<R: Rpc + Ask<Answer = R::Reply>>(
    driver: &Driver,
    context: &RequestContext,
    body: &[u8],
) -> Result<Vec<u8>, RpcError> {
    encode(&driver.ask(context, decode::<R>(R::NAME, body)?).await?)
}

/// Does work that must not stop half-way when its caller goes away.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, RpcError>> + Send + 'static,
) -> Result<T, RpcError> {
    let trace = TraceId::current().unwrap_or_else(TraceId::random);
    let done = tokio::spawn(trace.scope(work)).await;
    done.unwrap_or_else(|error| Err(RpcError::new(ErrorCode::Internal, format_args!("the request failed: {error}"))))
}
