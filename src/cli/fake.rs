//! A node in this process that answers what a test tells it to, over real QUIC on the loopback interface.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use vecino_certs::{Authority, IssueOptions, Role};
use vecino_model::{MeshId, NodeId};
use vecino_net::endpoint::{Endpoint, EndpointOptions};
use vecino_net::error::RpcError;
use vecino_net::message::{PeerIdentity, Rpc};
use vecino_net::rpc::{CallContext, Service, decode, encode};

/// A mesh of fakes: its authority, and a folder for a test's files.
pub struct FakeMesh {
    authority: Authority,
    dir: tempfile::TempDir,
}

/// One fake, which answers until it is dropped.
pub struct FakeNode {
    pub address: SocketAddr,
    _endpoint: Endpoint,
}

/// A request as the fake received it.
pub struct Asked {
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

impl<H> Service for FakeService<H>
where
    H: Fn(Asked) -> Result<Vec<u8>, RpcError> + Send + Sync + 'static,
{
    fn identity(&self) -> PeerIdentity {
        PeerIdentity { node_id: self.node_id, mesh_id: Some(MeshId([7; 16])), advertise: String::new() }
    }

    fn serve<'a, 'b>(
        &'a self,
        _: CallContext,
        kind: u16,
        body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, RpcError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { (self.handler)(Asked { kind, body }) })
    }
}

impl FakeMesh {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::init(dir.path().join("ca"), "fake mesh").unwrap();
        let client = authority.issue(&IssueOptions::new("client", Role::Client)).unwrap();
        client.write(dir.path().join("client")).unwrap();
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

    /// A node that answers with `handler`.
    pub fn node(&self, handler: impl Fn(Asked) -> Result<Vec<u8>, RpcError> + Send + Sync + 'static) -> FakeNode {
        let identity = self.authority.issue(&IssueOptions::new("node", Role::Node)).unwrap().identity().unwrap();
        let service = FakeService { node_id: vecino_net::node_id(identity.key_id()), handler };
        let options = EndpointOptions { listen: ([127, 0, 0, 1], 0).into(), ..EndpointOptions::default() };
        let endpoint = Endpoint::server(&identity, options, Arc::new(service)).unwrap();
        FakeNode { address: endpoint.local_addr(), _endpoint: endpoint }
    }
}
