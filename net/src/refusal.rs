//! Why one side of a connection does not accept the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quinn::ConnectionError;
use vecino_model::{MeshId, NodeId};

use crate::admission::TooMany;
use crate::error::RpcError;
use crate::frame::FrameError;
use crate::message::PeerIdentity;
use crate::quic::{CertificateError, describe};
use crate::stream::ReadFrameError;

/// Why one side does not accept the other. Trying again does not mend it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The other side's certificate is missing or cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The handshake failed, or the other side closed the connection.
    #[error("{}", describe(.0))]
    Connection(#[source] ConnectionError),
    /// Handshake or hello took too long.
    #[error("no hello within {0:?}")]
    NoHello(Duration),
    /// The hello, or the answer to it, could not be read, or is an error.
    #[error(transparent)]
    Hello(#[from] RpcError),
    /// What came back is no reply.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The hello, or the reply to it, could not be read.
    #[error(transparent)]
    Unread(Arc<ReadFrameError>),
    /// The hello is longer than any can be.
    #[error("a hello of {bytes} bytes exceeds the maximum of {max}")]
    LongHello { bytes: usize, max: usize },
    /// Too many connections are open.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// Something was asked before the hello.
    #[error("the first request is of kind {kind}, not a hello")]
    NotAHello { kind: u16 },
    /// The hello was answered with the reply to something else.
    #[error("the hello was answered as if it were of kind {answered}")]
    OtherKind { answered: u16 },
    /// The hello could not be sent, or its answer.
    #[error("the hello could not be sent or answered: {0}")]
    NotSent(#[source] quinn::WriteError),
    /// A protocol that is not spoken here, as TLS agreed on it.
    #[error("protocol {0:?} is not spoken here")]
    Alpn(String),
    /// A client dialled as a node.
    #[error("certificate {name:?} is a client's: connections between nodes need a node's certificate")]
    NotANode { name: String },
    /// A node did not say which one it is.
    #[error("the hello of a node does not say which one it is")]
    NoIdentity,
    /// A node claims an id that is not that of its key.
    #[error("it claims to be node {claimed} but its key is that of node {proved}")]
    ForeignId { claimed: NodeId, proved: NodeId },
    /// The two nodes belong to different meshes.
    #[error("node {node} belongs to mesh {mesh}, node {own} to mesh {own_mesh}")]
    OtherMesh { node: NodeId, mesh: MeshId, own: NodeId, own_mesh: MeshId },
    /// The address that a node advertises does not resolve.
    #[error("advertised address {address:?}: {source}")]
    Unresolved { address: String, source: Arc<io::Error> },
    /// The address that a node advertises resolves to nothing.
    #[error("advertised address {address:?} has no address")]
    NoAddress { address: String },
}

impl Refusal {
    /// What reading a hello failed with.
    pub(crate) fn of_reading(error: ReadFrameError) -> Self {
        match error {
            ReadFrameError::Frame(error) => Self::Frame(error),
            error => Self::Unread(Arc::new(error)),
        }
    }
}

/// Checks that a node belongs to the same mesh as this one, where both belong to one.
pub(crate) fn same_mesh(node: NodeId, mesh: Option<MeshId>, own: &PeerIdentity) -> Result<(), Refusal> {
    match (own.mesh_id, mesh) {
        (Some(own_mesh), Some(mesh)) if own_mesh != mesh => {
            Err(Refusal::OtherMesh { node, mesh, own: own.node_id, own_mesh })
        }
        _ => Ok(()),
    }
}
