//! Answers requests: which kind goes where.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tracing::debug;
use vecino_model::{CatalogEntry, MeshId, NodeId};
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::message::{
    CatalogApply, CatalogFetch, CreateCollection, Delete, DescribeCollection, DropCollection, Dropped, Get, Join,
    JoinReply, ListCollections, NodeSnapshot, NodeStats, PeerIdentity, Put, ReplicaApply, ReplicaRead, ReplicaScan,
    ReplicaSearch, ReplicaVersions, RingInfo, Rpc, Scan, ScanStream, Search, Status, TakeSnapshot,
};
use vecino_net::rpc::{Caller, ChunkSender, RequestContext, Service, TraceId, decode, encode};

use crate::blocking::blocking;
use crate::coordinator::{Coordinator, to_rpc_error};
use crate::join::TokenAllocator;
use crate::replica::ReplicaRequest;
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
    tokens: TokenAllocator,
}

impl NodeService {
    /// A service that answers nothing yet.
    pub fn new(node_id: NodeId, advertise: SocketAddr, store: Arc<Store>) -> Self {
        Self {
            node_id,
            advertise,
            store,
            mesh_id: OnceLock::new(),
            coordinator: OnceLock::new(),
            tokens: TokenAllocator::default(),
        }
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

    fn join(&self, coordinator: &Coordinator, caller: &Caller, request: Join) -> Result<JoinReply, RpcError> {
        let Caller::Peer(node) = caller else {
            return Err(RpcError::new(ErrorCode::Forbidden, "only a node can join a mesh"));
        };
        let view = coordinator.view();
        let placement = view.members.values().map(|member| (member.id, member.tokens.clone())).collect();
        let members: BTreeMap<NodeId, String> =
            view.members.values().map(|member| (member.id, member.address.to_string())).collect();
        Ok(JoinReply {
            mesh_id: coordinator.mesh_id(),
            tokens: self.tokens.tokens_for(*node, request.tokens, &placement, Instant::now()),
            members,
            catalog: self.store.entries(),
        })
    }

    async fn apply_to_catalog(&self, CatalogApply { entry }: CatalogApply) -> Result<Dropped, RpcError> {
        self.store.clock().check_drift(entry.version).map_err(RpcError::invalid)?;
        let store = Arc::clone(&self.store);
        let merged = blocking(move || store.apply(entry)).await?;
        merged.map(Dropped::new).map_err(to_rpc_error)
    }

    /// Answers for this node's replica. A collection that is not known here was perhaps created just now, and who asks
    /// knows of it.
    async fn answer_as_replica<R: ReplicaRequest>(
        &self,
        coordinator: &Coordinator,
        caller: &Caller,
        body: &[u8],
    ) -> Result<Vec<u8>, RpcError> {
        let request: R = decode(R::NAME, body)?;
        if let Caller::Peer(peer) = caller
            && !self.store.keeps(request.collection())
        {
            debug!(peer = %peer.short(), collection = %request.collection(), "asking who wants it about a collection");
            coordinator.fetch_catalog_of(*peer).await;
        }
        encode(&request.answer(&self.store).await?)
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
            Put::KIND => answer(body, |request| own.put(context, request)).await,
            Get::KIND => answer(body, |request| own.get(context, request)).await,
            Delete::KIND => answer(body, |request| own.delete(context, request)).await,
            Search::KIND => answer(body, |request| own.search(context, request)).await,
            Scan::KIND => answer(body, |request| own.scan(context, request)).await,
            Status::KIND => answer(body, |Status {}| own.status(context)).await,
            RingInfo::KIND => answer(body, |request| own.ring(context, request)).await,
            TakeSnapshot::KIND => answer(body, |request| own.take_snapshot(context, request)).await,
            Join::KIND => answer(body, |request| async { self.join(own, caller, request) }).await,
            CatalogFetch::KIND => {
                answer(body, |CatalogFetch {}| async { Ok::<Vec<CatalogEntry>, _>(self.store.entries()) }).await
            }
            CatalogApply::KIND => answer(body, |request| self.apply_to_catalog(request)).await,
            ReplicaVersions::KIND => self.answer_as_replica::<ReplicaVersions>(own, caller, body).await,
            ReplicaApply::KIND => self.answer_as_replica::<ReplicaApply>(own, caller, body).await,
            ReplicaRead::KIND => self.answer_as_replica::<ReplicaRead>(own, caller, body).await,
            ReplicaSearch::KIND => self.answer_as_replica::<ReplicaSearch>(own, caller, body).await,
            ReplicaScan::KIND => self.answer_as_replica::<ReplicaScan>(own, caller, body).await,
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

/// Does work that must not stop half-way when its caller goes away.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, RpcError>> + Send + 'static,
) -> Result<T, RpcError> {
    let trace = TraceId::current().unwrap_or_else(TraceId::random);
    let done = tokio::spawn(trace.scope(work)).await;
    done.unwrap_or_else(|error| Err(RpcError::new(ErrorCode::Internal, format_args!("the request failed: {error}"))))
}
