//! The first request on an accepted connection: who is there, and whether this node accepts it.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::ConnectionError;
use tokio::time::timeout;
use vecino_certs::{ALPN_CLIENT, ALPN_PEER, PeerCertificate, Role};
use vecino_model::MeshId;

use crate::admission::{Admission, Party, Share};
use crate::answer::{ANSWER_WAIT, Answer, answer};
use crate::error::{ErrorCode, RpcError};
use crate::frame::{PROTOCOL_VERSION, REQUEST_HEADER_BYTES, RequestHeader};
use crate::message::{ConnectionClass, Hello, HelloReply, Kind, PeerIdentity, Rpc};
use crate::node_id;
use crate::quic::{alpn, certificate};
use crate::refusal::{Refusal, same_mesh};
use crate::rpc::{self, Caller, Service};
use crate::stream::{ResetOnDrop, read_body, read_header};

/// Longest hello: an identity, an address and a name.
const HELLO_BYTES_MAX: usize = 16 * 1024;

/// An accepted connection after its hello.
pub(crate) struct Accepted {
    pub(crate) quic: quinn::Connection,
    pub(crate) caller: Caller,
    /// The peer's listening address, which gossip replies go to; absent for clients.
    pub(crate) advertised: Option<SocketAddr>,
    /// What the peer said; its node joins a mesh once and says hello again when it does.
    pub(crate) mesh_told: Option<MeshId>,
    pub(crate) share: Share,
    /// What the connection is for, for logs: any request is served on either.
    pub(crate) class: ConnectionClass,
}

/// Why there is no accepted connection.
pub(crate) enum Greeting {
    /// One side does not accept the other.
    Refused(Refusal),
    /// The connection was lost.
    Lost(ConnectionError),
}

/// Reads the hello, judges it and answers it. Whoever is refused is told why before the connection is closed.
pub(crate) async fn greet(
    service: &dyn Service,
    software: String,
    admission: &Admission,
    quic: &quinn::Connection,
) -> Result<Accepted, Greeting> {
    let certificate = certificate(quic).map_err(|error| Greeting::Refused(error.into()))?;
    let alpn = alpn(quic);
    let (send, mut recv) = quic.accept_bi().await.map_err(Greeting::Lost)?;
    let mut send = ResetOnDrop::new(send);
    let own = service.identity();
    let judged = match read_hello(&mut recv).await {
        Ok(hello) => match judge_hello(&alpn, &certificate, &hello, &own) {
            Ok(caller) => {
                let address = advertised(&caller, &hello, quic).await;
                address.and_then(|address| {
                    let share = admission.connect(party(&caller, &certificate))?;
                    Ok((caller, address, hello, share))
                })
            }
            Err(refusal) => Err(refusal),
        },
        Err(refusal) => Err(refusal),
    };
    let (reply, version) = match &judged {
        Ok((_, _, hello, _)) => {
            (rpc::encode(&HelloReply::to(hello, own, software)).map(Answer::Reply), PROTOCOL_VERSION)
        }
        Err(Refusal::TooMany(too_many)) => (Err(RpcError::from(*too_many)), PROTOCOL_VERSION),
        Err(refusal) => {
            let version = if let Refusal::Frame(error) = refusal { error.answer_version() } else { PROTOCOL_VERSION };
            (Err(RpcError::new(ErrorCode::Forbidden, refusal)), version)
        }
    };
    answer(&mut send, Hello::KIND, reply, version).await.map_err(|error| Greeting::Refused(Refusal::NotSent(error)))?;
    let (caller, advertised, hello, share) = match judged {
        Ok(judged) => judged,
        Err(reason) => {
            // Closing discards what was not acknowledged, and the reason would be lost.
            let _ = timeout(ANSWER_WAIT, send.settled()).await;
            return Err(Greeting::Refused(reason));
        }
    };
    Ok(Accepted {
        quic: quic.clone(),
        caller,
        advertised,
        class: hello.class,
        mesh_told: hello.peer.and_then(|peer| peer.mesh_id),
        share,
    })
}

async fn read_hello(recv: &mut quinn::RecvStream) -> Result<Hello, Refusal> {
    let header = read_header::<REQUEST_HEADER_BYTES>(recv).await.map_err(Refusal::of_reading)?;
    let header = RequestHeader::decode(&header)?;
    let Some(kind) = Kind::of(header.kind).filter(|kind| kind.number == Hello::KIND) else {
        return Err(Refusal::NotAHello { kind: header.kind });
    };
    kind.check(header.stream, header.features)?;
    let bytes = header.body_bytes as usize;
    if bytes > HELLO_BYTES_MAX {
        return Err(Refusal::LongHello { bytes, max: HELLO_BYTES_MAX });
    }
    let body = read_body(recv, bytes, None).await.map_err(Refusal::of_reading)?;
    Ok(rpc::decode(Hello::NAME, &body)?)
}

/// Whose connection it is, as admission counts it.
fn party(caller: &Caller, certificate: &PeerCertificate) -> Party {
    let key = certificate.key_id.to_bytes();
    match caller {
        Caller::Client(_) => Party::Client(key),
        Caller::Peer(_) => Party::Peer(key),
    }
}

/// Decides which caller a connection belongs to, or why it is refused.
fn judge_hello(
    alpn: &[u8],
    certificate: &PeerCertificate,
    hello: &Hello,
    own: &PeerIdentity,
) -> Result<Caller, Refusal> {
    if alpn == ALPN_CLIENT {
        return Ok(Caller::Client(certificate.name.clone()));
    }
    if alpn != ALPN_PEER {
        return Err(Refusal::Alpn(String::from_utf8_lossy(alpn).into_owned()));
    }
    if certificate.role != Role::Node {
        return Err(Refusal::NotANode { name: certificate.name.clone() });
    }
    let peer = hello.peer.as_ref().ok_or(Refusal::NoIdentity)?;
    let proved = node_id(certificate.key_id);
    if peer.node_id != proved {
        return Err(Refusal::ForeignId { claimed: peer.node_id, proved });
    }
    same_mesh(peer.node_id, peer.mesh_id, own)?;
    Ok(Caller::Peer(peer.node_id))
}

/// The listening address of a node: gossip goes there. Of several, the one it came from is preferred, then one of the
/// same family.
async fn advertised(caller: &Caller, hello: &Hello, quic: &quinn::Connection) -> Result<Option<SocketAddr>, Refusal> {
    let (Caller::Peer(_), Some(peer)) = (caller, &hello.peer) else { return Ok(None) };
    if let Ok(address) = peer.advertise.parse() {
        return Ok(Some(address));
    }
    let remote = quic.remote_address().ip().to_canonical();
    let found = tokio::net::lookup_host(&peer.advertise).await;
    let found: Vec<SocketAddr> = found
        .map_err(|source| Refusal::Unresolved { address: peer.advertise.clone(), source: Arc::new(source) })?
        .collect();
    let best = found.iter().max_by_key(|address| (address.ip() == remote, address.is_ipv4() == remote.is_ipv4()));
    best.copied().map(Some).ok_or_else(|| Refusal::NoAddress { address: peer.advertise.clone() })
}
