//! A party that speaks QUIC and TLS but not necessarily vecino's protocol.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use vecino_certs::{Identity, NODE_SERVER_NAME};
use vecino_model::NodeId;
use vecino_net::error::RpcError;
use vecino_net::frame::{Part, REPLY_HEADER_BYTES, ReplyHeader, RequestHeader};
use vecino_net::message::{ConnectionClass, Hello, PeerIdentity, Rpc};
use vecino_net::rpc::{TraceId, decode, encode};

use crate::fixture::soon;

/// A connection without a hello.
pub struct Raw {
    _endpoint: quinn::Endpoint,
    pub quic: quinn::Connection,
}

impl Raw {
    pub async fn connect(identity: &Identity, alpn: &[u8], to: SocketAddr) -> Result<Self, quinn::ConnectionError> {
        let tls = vecino_certs::client_config(identity, alpn).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let quic = soon("the handshake", endpoint.connect_with(config, to, NODE_SERVER_NAME).unwrap()).await?;
        Ok(Self { _endpoint: endpoint, quic })
    }

    /// Sends bytes as a request and reads whatever comes back.
    pub async fn send(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let (mut send, mut recv) = self.quic.open_bi().await.map_err(|error| error.to_string())?;
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        soon("an answer", recv.read_to_end(1 << 20)).await.map_err(|error| format!("{error:?}"))
    }

    pub async fn ask(&self, kind: u16, body: &[u8]) -> Result<Vec<u8>, RpcError> {
        reply(&self.send(&request(kind, body)).await.unwrap())
    }

    pub async fn hello(&self, claimed: Option<NodeId>) -> Result<Vec<u8>, RpcError> {
        let peer = claimed.map(|node_id| PeerIdentity { node_id, mesh_id: None, advertise: "127.0.0.1:9".to_owned() });
        let hello = Hello { peer, software: "raw".into(), class: ConnectionClass::Ordinary, tells_clock: false };
        self.ask(Hello::KIND, &encode(&hello).unwrap()).await
    }
}

pub fn request(kind: u16, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader::new(kind, body.len() as u32, 20_000, TraceId::from_bytes([7; 16]));
    [&header.encode()[..], body].concat()
}

pub fn reply(bytes: &[u8]) -> Result<Vec<u8>, RpcError> {
    let header = ReplyHeader::decode(bytes).unwrap();
    let body = &bytes[REPLY_HEADER_BYTES..];
    assert_eq!(header.body_bytes as usize, body.len());
    if header.part == Part::Error { Err(decode("RpcError", body).unwrap()) } else { Ok(body.to_vec()) }
}
