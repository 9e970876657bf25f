//! A node in this process that answers what a test tells it to, over real QUIC on the loopback interface.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use vecino_certs::{Authority, Identity, IssueOptions, Role};
use vecino_client::{Client, ClientBuilder, NodeId};
use vecino_model::MeshId;
use vecino_net::endpoint::{Endpoint, EndpointOptions};
use vecino_net::error::RpcError;
use vecino_net::message::{PeerIdentity, Rpc};
use vecino_net::rpc::{CallContext, Service, decode, encode};

/// A mesh of fakes: its authority, which issues to nodes and clients.
pub struct FakeMesh {
    authority: Authority,
    _dir: tempfile::TempDir,
}

/// One fake, which answers until it is dropped.
pub struct FakeNode {
    pub address: SocketAddr,
    _endpoint: Endpoint,
}

/// A request as the fake received it.
pub struct Asked {
    pub context: CallContext,
    pub kind: u16,
    body: Bytes,
}

impl Asked {
    /// The request itself, which must be an `R`.
    pub fn read<R: Rpc>(&self) -> R {
        assert_eq!(self.kind, R::KIND, "a {} was expected", R::NAME);
        decode(R::NAME, &self.body).unwrap()
    }
}

/// Answers an `R`.
pub fn reply<R: Rpc>(reply: R::Reply) -> Result<Vec<u8>, RpcError> {
    encode(&reply)
}

struct FakeService<H> {
    node_id: NodeId,
    handler: H,
}

#[async_trait]
impl<H, F> Service for FakeService<H>
where
    H: Fn(Asked) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Vec<u8>, RpcError>> + Send + 'static,
{
    fn identity(&self) -> PeerIdentity {
        PeerIdentity { node_id: self.node_id, mesh_id: Some(MeshId([7; 16])), advertise: String::new() }
    }

    async fn serve(&self, context: CallContext, kind: u16, body: Bytes) -> Result<Vec<u8>, RpcError> {
        (self.handler)(Asked { context, kind, body }).await
    }
}

impl FakeMesh {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::init(dir.path(), "fake mesh").unwrap();
        Self { authority, _dir: dir }
    }

    pub fn identity(&self, role: Role) -> Identity {
        self.authority.issue(&IssueOptions::new("fake", role)).unwrap().identity().unwrap()
    }

    /// A node that answers with `handler`.
    pub fn node<H, F>(&self, handler: H) -> FakeNode
    where
        H: Fn(Asked) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<u8>, RpcError>> + Send + 'static,
    {
        let identity = self.identity(Role::Node);
        let service = FakeService { node_id: vecino_net::node_id(identity.key_id()), handler };
        let options = EndpointOptions { listen: ([127, 0, 0, 1], 0).into(), ..EndpointOptions::default() };
        let endpoint = Endpoint::server(&identity, options, Arc::new(service)).unwrap();
        FakeNode { address: endpoint.local_addr(), _endpoint: endpoint }
    }

    /// A client of these nodes, in this order.
    pub async fn client(&self, addresses: &[SocketAddr]) -> Client {
        self.builder(addresses).build().await.unwrap()
    }

    pub fn builder(&self, addresses: &[SocketAddr]) -> ClientBuilder {
        let builder = Client::builder().identity(self.identity(Role::Client));
        addresses.iter().fold(builder, |builder, address| builder.connect(address.to_string()))
    }
}
