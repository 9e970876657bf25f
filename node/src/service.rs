//! Answers requests: which kind goes where.

use std::net::SocketAddr;
use std::sync::OnceLock;

use async_trait::async_trait;
use bytes::Bytes;
use tracing::{debug, info};
use vecino_mesh::message::Ask;
use vecino_mesh::wall_clocks;
use vecino_model::{MeshId, NodeId};
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::message::{
    CatalogApply, CatalogFetch, CreateCollection, Delete, DescribeCollection, DropCollection, Get, Join,
    ListCollections, Members, NodeSnapshot, NodeStats, PeerIdentity, Probe, Put, ReplicaApply, ReplicaRead,
    ReplicaScan, ReplicaSearch, ReplicaVersions, RingInfo, Rpc, Scan, ScanStream, Search, Stamp, Status, TakeSnapshot,
};
use vecino_net::rpc::{ChunkSender, RequestContext, Service, decode, encode};

use crate::driver::Driver;
use crate::scan_stream::scan_stream;
use crate::wall_clock::{SystemClock, WallClock};

/// What a node answers with.
pub struct NodeService {
    node_id: NodeId,
    advertise: SocketAddr,
    /// NotOpen until the mesh is known: connections made before say so.
    mesh_id: OnceLock<MeshId>,
    /// Absent until the node takes part in gossip; it answers no request before.
    driver: OnceLock<Driver>,
}

impl NodeService {
    /// A service that answers nothing yet.
    pub fn new(node_id: NodeId, advertise: SocketAddr) -> Self {
        Self { node_id, advertise, mesh_id: OnceLock::new(), driver: OnceLock::new() }
    }

    /// Says on new connections that this node belongs to a mesh.
    pub fn set_mesh(&self, mesh_id: MeshId) {
        let _ = self.mesh_id.set(mesh_id);
    }

    /// Begins to answer.
    pub fn open(&self, driver: Driver) {
        let _ = self.driver.set(driver);
    }

    fn driver(&self) -> Result<&Driver, RpcError> {
        self.driver.get().ok_or_else(|| {
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

    fn clock_told(&self) -> u32 {
        wall_clocks::told(SystemClock.now_ms())
    }

    fn clock_heard(&self, node: NodeId, told: u32) {
        if let Some(driver) = self.driver.get() {
            driver.clock_heard(node, told);
        }
    }

    async fn serve(&self, context: RequestContext, kind: u16, body: Bytes) -> Result<Vec<u8>, RpcError> {
        let RequestContext { caller, trace, .. } = &context;
        debug!(%trace, %caller, kind, bytes = body.len(), "request");
        let (driver, context, body) = (self.driver()?, &context, &*body);
        match kind {
            CreateCollection::KIND => {
                answer(body, async |request| {
                    let created = driver.ask::<CreateCollection>(context, request).await?;
                    let replicas = created.schema.replication_factor;
                    info!(collection = created.name, id = %created.id, replicas, "created collection");
                    Ok(created)
                })
                .await
            }
            DropCollection::KIND => {
                answer(body, async |request: DropCollection| {
                    let collection = request.name.clone();
                    let dropped = driver.ask(context, request).await?;
                    info!(collection, freed_bytes = dropped.freed_bytes, "dropped collection");
                    Ok(dropped)
                })
                .await
            }
            ListCollections::KIND => decide::<ListCollections>(driver, context, body).await,
            DescribeCollection::KIND => decide::<DescribeCollection>(driver, context, body).await,
            Status::KIND => decide::<Status>(driver, context, body).await,
            RingInfo::KIND => decide::<RingInfo>(driver, context, body).await,
            TakeSnapshot::KIND => decide::<TakeSnapshot>(driver, context, body).await,
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
            NodeSnapshot::KIND => decide::<NodeSnapshot>(driver, context, body).await,
            NodeStats::KIND => decide::<NodeStats>(driver, context, body).await,
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
        let driver = self.driver()?;
        match kind {
            ScanStream::KIND => scan_stream(driver, &context, decode(ScanStream::NAME, &body)?, &chunks).await,
            unknown => Err(unknown_kind(unknown)),
        }
    }
}

fn unknown_kind(kind: u16) -> RpcError {
    RpcError::new(ErrorCode::Protocol, format_args!("requests of kind {kind} are not known to this version"))
}

async fn answer<R: Rpc>(
    body: &[u8],
    work: impl AsyncFnOnce(R) -> Result<R::Reply, RpcError>,
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
