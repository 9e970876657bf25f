//! For tests only, behind the feature `testing`: a node in this process that answers what a test tells it to, over real QUIC
//! on the loopback interface.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use vecino_certs::{Authority, Identity, IssueOptions, Role};
use vecino_model::{MeshId, NodeId, Version};

use crate::endpoint::{Endpoint, EndpointOptions};
use crate::error::RpcError;
use crate::message::{Members, MembersReply, PeerIdentity, Rpc, Stamp, Stamped};
use crate::rpc::{ChunkSender, RequestContext, Service, decode, encode};

/// Id of every fake mesh.
pub const FAKE_MESH: MeshId = MeshId([7; 16]);

/// A mesh of fakes: its authority, which issues to nodes and clients, and a folder for a test's files.
pub struct FakeMesh {
    authority: Authority,
    dir: tempfile::TempDir,
}

/// One fake, which answers until it is dropped.
#[derive(Debug)]
pub struct FakeNode {
    /// Where it listens.
    pub address: SocketAddr,
    _endpoint: Endpoint,
}

/// A request as the fake received it.
#[derive(Debug)]
pub struct Asked {
    /// Deadline and trace.
    pub context: RequestContext,
    /// Number of the request.
    pub kind: u16,
    body: Bytes,
}

impl Asked {
    /// The request itself.
    ///
    /// # Panics
    /// When it is no `R`.
    pub fn read<R: Rpc>(&self) -> R {
        assert_eq!(self.kind, R::KIND, "a {} was expected", R::NAME);
        decode(R::NAME, &self.body).expect("what was asked decodes")
    }
}

/// Answers an `R`.
///
/// # Errors
/// Never: the type is that of a service's answer.
pub fn reply<R: Rpc>(reply: R::Reply) -> Result<Vec<u8>, RpcError> {
    encode(&reply)
}

struct FakeService<H> {
    node_id: NodeId,
    handler: H,
    /// Whether the handler is asked everything. Else points are stamped, and members told, without it.
    hears_all: bool,
    stamps: AtomicU64,
}

#[async_trait]
impl<H, F> Service for FakeService<H>
where
    H: Fn(Asked) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Vec<u8>, RpcError>> + Send + 'static,
{
    fn identity(&self) -> PeerIdentity {
        PeerIdentity { node_id: self.node_id, mesh_id: Some(FAKE_MESH), advertise: String::new() }
    }

    async fn serve(&self, context: RequestContext, kind: u16, body: Bytes) -> Result<Vec<u8>, RpcError> {
        if !self.hears_all && kind == Stamp::KIND {
            let stamp: Stamp = decode(Stamp::NAME, &body)?;
            let version = |_| {
                let time = self.stamps.fetch_add(1, Ordering::Relaxed);
                Stamped::Version(Version { time, node: self.node_id, seq: 0 })
            };
            return reply::<Stamp>(stamp.ids.iter().map(version).collect());
        }
        if !self.hears_all && kind == Members::KIND {
            return reply::<Members>(MembersReply::new(Vec::new()));
        }
        (self.handler)(Asked { context, kind, body }).await
    }

    /// What the handler answers is the only chunk: a test that gives the rest is asked for it.
    async fn serve_chunks(
        &self,
        context: RequestContext,
        kind: u16,
        body: Bytes,
        chunks: ChunkSender,
    ) -> Result<(), RpcError> {
        let chunk = (self.handler)(Asked { context, kind, body }).await?;
        chunks.send_encoded("a request to a fake", chunk).await
    }
}

impl FakeMesh {
    /// A mesh without nodes.
    ///
    /// # Panics
    /// When certificates cannot be made or written.
    #[expect(clippy::new_without_default, reason = "it makes keys and files")]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder for tests can be made");
        let authority = Authority::init(dir.path().join("ca"), "fake mesh").expect("an authority can be made");
        let client = authority.issue(&IssueOptions::new("client", Role::Client)).expect("a certificate is issued");
        client.write(dir.path().join("client")).expect("the certificate can be written");
        Self { authority, dir }
    }

    /// A folder that is removed with the mesh.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Folder of a client's certificate.
    pub fn client_certs(&self) -> PathBuf {
        self.dir.path().join("client")
    }

    /// A new identity.
    ///
    /// # Panics
    /// When none can be issued.
    pub fn identity(&self, role: Role) -> Identity {
        let issued = self.authority.issue(&IssueOptions::new("fake", role)).expect("a certificate is issued");
        issued.identity().expect("what was issued is an identity")
    }

    /// A node that answers with `handler`. It stamps points, and tells that it knows no members, by itself.
    ///
    /// # Panics
    /// When there is no socket for it.
    pub fn node<H, F>(&self, handler: H) -> FakeNode
    where
        H: Fn(Asked) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<u8>, RpcError>> + Send + 'static,
    {
        self.serve(handler, false)
    }

    /// A node that answers everything with `handler`.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn node_that_hears_all<H, F>(&self, handler: H) -> FakeNode
    where
        H: Fn(Asked) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<u8>, RpcError>> + Send + 'static,
    {
        self.serve(handler, true)
    }

    fn serve<H, F>(&self, handler: H, hears_all: bool) -> FakeNode
    where
        H: Fn(Asked) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<u8>, RpcError>> + Send + 'static,
    {
        let identity = self.identity(Role::Node);
        let node_id = crate::node_id(identity.key_id());
        let service = FakeService { node_id, handler, hears_all, stamps: AtomicU64::new(1) };
        let options = EndpointOptions { listen: ([127, 0, 0, 1], 0).into(), ..EndpointOptions::default() };
        let endpoint = Endpoint::server(&identity, options, Arc::new(service)).expect("a loopback socket is free");
        FakeNode { address: endpoint.local_addr(), _endpoint: endpoint }
    }

    /// A node that answers with `handler`, which need not wait for anything.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn quick_node<H>(&self, handler: H) -> FakeNode
    where
        H: Fn(Asked) -> Result<Vec<u8>, RpcError> + Send + Sync + 'static,
    {
        self.node(move |asked| std::future::ready(handler(asked)))
    }
}
