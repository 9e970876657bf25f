//! Who is refused, and that both sides say why; garbage, and that it harms nobody else.

use std::time::Duration;

use tokio::time::timeout;
use vecino_certs::{ALPN_CLIENT, ALPN_PEER, Identity};
use vecino_model::NodeId;
use vecino_model::limits::FRAME_BYTES_MAX;
use vecino_net::endpoint::{Endpoint, EndpointOptions};
use vecino_net::error::{ErrorCode, Retry, RpcError};
use vecino_net::frame::{MAGIC, PROTOCOL_VERSION, Part, ReplyHeader, RequestHeader};
use vecino_net::message::{CatalogFetch, Dropped, ListCollections, Rpc};
use vecino_net::rpc::{TraceId, decode, encode};

use crate::fixture::{Mesh, PATIENCE, Server, options, order, soon, warned};
use crate::raw::{Raw, reply, request};

/// A node with `identity` calls `server`: both must refuse, and both must log `reason`.
async fn refused_on_both_sides(identity: &Identity, server: &Server, reason: &str) {
    let stranger = Server::start(identity, options());
    let error = stranger.endpoint.call(server.address, None, &order("do"), PATIENCE).await.unwrap_err();
    assert_eq!((error.code, error.retry), (ErrorCode::Connection, Retry::No), "{error}");
    assert!(error.message.contains(reason), "{error}");
    warned(&["connection to node refused", &format!("address={}", server.address), reason]).await;
    warned(&["connection refused", &format!("remote={}", stranger.address), reason]).await;
    assert!(server.service.contexts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_node_of_another_authority_is_refused_with_the_reason_on_both_sides() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    refused_on_both_sides(&other.node(), &mesh.server(), "is not signed by the authority").await;
}

#[tokio::test]
async fn an_expired_node_is_refused_with_the_reason_on_both_sides() {
    let mesh = Mesh::new();
    refused_on_both_sides(&mesh.expired_node(), &mesh.server(), "expired").await;
}

#[tokio::test]
async fn a_node_that_presents_an_expired_certificate_is_not_called() {
    let mesh = Mesh::new();
    let late = Server::start(&mesh.expired_node(), options());
    let caller = mesh.server();
    let error = caller.endpoint.call(late.address, None, &order("do"), PATIENCE).await.unwrap_err();
    assert!(error.message.contains("expired"), "{error}");
    warned(&["connection to node refused", &format!("address={}", late.address), "expired"]).await;
    warned(&["connection refused", &format!("remote={}", caller.address), "expired"]).await;
}

#[tokio::test]
async fn a_node_that_claims_another_id_than_its_keys_is_refused_with_the_reason_on_both_sides() {
    let mesh = Mesh::new();
    let (server, liar) = (mesh.server(), mesh.server());
    let claimed = NodeId::from_bytes([0xab; 16]);
    liar.service.identity.lock().unwrap().node_id = claimed;
    let error = liar.endpoint.call(server.address, None, &order("do"), PATIENCE).await.unwrap_err();
    let (claim, key) = (format!("claims to be node {claimed}"), format!("key is that of node {}", liar.id));
    assert!(error.message.contains(&claim) && error.message.contains(&key), "{error}");
    warned(&["connection to node refused", &format!("address={}", server.address), &claim, &key]).await;
    warned(&["connection refused", &format!("remote={}", liar.address), &claim, &key]).await;

    let error = server.endpoint.call(liar.address, None, &order("do"), PATIENCE).await.unwrap_err();
    assert!(error.message.contains(&claim) && error.message.contains(&key), "{error}");
    warned(&["connection to node refused", &format!("address={}", liar.address), &claim]).await;
    warned(&["connection refused", &format!("remote={}", server.address), &claim]).await;
}

#[tokio::test]
async fn a_node_of_another_mesh_is_refused_with_the_reason_on_both_sides() {
    let mesh = Mesh::new();
    let (server, other) = (mesh.server(), mesh.server());
    server.join(0x31);
    other.join(0x32);
    let error = other.endpoint.call(server.address, None, &CatalogFetch {}, PATIENCE).await.unwrap_err();
    let (ours, theirs) = ("31".repeat(16), "32".repeat(16));
    assert!(error.message.contains(&ours) && error.message.contains(&theirs), "{error}");
    warned(&["connection to node refused", &format!("address={}", server.address), &ours, &theirs]).await;
    warned(&["connection refused", &format!("remote={}", other.address), &ours, &theirs]).await;
}

#[tokio::test]
async fn a_clients_certificate_opens_no_connection_between_nodes() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client();
    let raw = Raw::connect(&client, ALPN_PEER, server.address).await.unwrap();
    let error = raw.hello(Some(vecino_net::node_id(client.key_id()))).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Forbidden);
    assert!(error.message.contains("somebody") && error.message.contains("client"), "{error}");
    let closed = soon("closing", raw.quic.closed()).await.to_string();
    assert!(closed.contains("somebody"), "{closed}");
    warned(&["connection refused", "certificate \\\"somebody\\\" is a client's"]).await;
    assert!(Endpoint::server(&client, options(), server.service.clone()).is_err());
}

#[tokio::test]
async fn nothing_is_served_before_the_hello() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let raw = Raw::connect(&mesh.client(), ALPN_CLIENT, server.address).await.unwrap();
    let error = raw.ask(ListCollections::KIND, &encode(&ListCollections {}).unwrap()).await.unwrap_err();
    assert!(error.message.contains("hello"), "{error}");
    soon("closing", raw.quic.closed()).await;
    assert!(server.service.contexts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_version_that_is_not_spoken_gets_a_clear_answer() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let raw = Raw::connect(&mesh.client(), ALPN_CLIENT, server.address).await.unwrap();
    raw.hello(None).await.unwrap();
    let error = reply(&raw.send(&[&MAGIC[..], &[9, 0]].concat()).await.unwrap()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Protocol);
    assert!(error.message.contains("version 9") && error.message.contains(&PROTOCOL_VERSION.to_string()), "{error}");
    assert!(raw.ask(ListCollections::KIND, &encode(&ListCollections {}).unwrap()).await.is_ok());

    let stranger = Raw::connect(&mesh.client(), ALPN_CLIENT, server.address).await.unwrap();
    let error = reply(&stranger.send(&[&MAGIC[..], &[9, 0]].concat()).await.unwrap()).unwrap_err();
    assert!(error.message.contains("version 9"), "{error}");
}

/// The bytes that a node or client of version 1 sends: its header had 36 bytes.
fn frame_of_version_1(kind: u8, body: &[u8]) -> Vec<u8> {
    let start = [&b"VCNO\x01\x00"[..], &[kind, 0], &[0, 0], &[0, 0]].concat();
    let rest = [&(body.len() as u32).to_le_bytes()[..], &20_000_u32.to_le_bytes(), &[7; 16]].concat();
    [start, rest, body.to_vec()].concat()
}

/// Reads an answer as version 1 does.
fn error_of_version_1(answer: &[u8]) -> RpcError {
    assert_eq!(answer[..6], *b"VCNO\x01\x00");
    assert_eq!(answer[8..12], [1, 0, 0, 0], "the flags say that it is an error, and nothing else");
    let body_bytes = u32::from_le_bytes(answer[12..16].try_into().unwrap());
    assert_eq!(body_bytes as usize, answer.len() - 16);
    decode("RpcError", &answer[16..]).unwrap()
}

#[tokio::test]
async fn version_1_is_told_in_its_own_frames_which_version_is_spoken() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let raw = Raw::connect(&mesh.client(), ALPN_CLIENT, server.address).await.unwrap();
    // `Hello` of version 1: no peer, and a name of software.
    let hello = b"\x82\xa4peer\xc0\xa8software\xa3old";
    let error = error_of_version_1(&raw.send(&frame_of_version_1(1, hello)).await.unwrap());
    assert!(error.message.contains("version 1 ") && error.message.contains("version 2"), "{error}");
    let closed = soon("closing", raw.quic.closed()).await.to_string();
    assert!(closed.contains("version 1 ") && closed.contains("version 2"), "{closed}");

    let mixed = Raw::connect(&mesh.client(), ALPN_CLIENT, server.address).await.unwrap();
    mixed.hello(None).await.unwrap();
    let error = error_of_version_1(&mixed.send(&frame_of_version_1(4, b"\x80")).await.unwrap());
    assert_eq!(error.code, ErrorCode::Protocol);
    assert!(error.message.contains("version 1 ") && error.message.contains("version 2"), "{error}");
    assert!(server.service.contexts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_node_that_answers_in_version_1_is_refused_with_both_versions() {
    let mesh = Mesh::new();
    let identity = mesh.node();
    let tls =
        quinn::crypto::rustls::QuicServerConfig::try_from(vecino_certs::server_config(&identity).unwrap()).unwrap();
    let config = quinn::ServerConfig::with_crypto(std::sync::Arc::new(tls));
    let old = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = old.local_addr().unwrap();
    tokio::spawn(async move {
        let quic = old.accept().await.unwrap().await.unwrap();
        let (mut send, _recv) = quic.accept_bi().await.unwrap();
        send.write_all(b"VCNO\x01\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00").await.unwrap();
        send.finish().unwrap();
        quic.closed().await;
    });
    let error = mesh.client_endpoint().call(address, None, &order("do"), PATIENCE).await.unwrap_err();
    assert!(error.message.contains("version 1 ") && error.message.contains("version 2"), "{error}");
    assert_eq!(error.retry, vecino_net::error::Retry::No, "asking again does not mend it");
}

#[tokio::test]
async fn what_a_request_needs_and_this_node_does_not_know_is_refused_and_nothing_is_done() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let raw = Raw::connect(&mesh.client(), ALPN_CLIENT, server.address).await.unwrap();
    raw.hello(None).await.unwrap();
    let body = encode(&ListCollections {}).unwrap();
    let mut header = RequestHeader::decode(&request(ListCollections::KIND, &body)).unwrap();
    header.features = 0b100;
    let refused = reply(&raw.send(&[&header.encode()[..], &body].concat()).await.unwrap()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Protocol);
    assert!(refused.message.contains("ListCollections") && refused.message.contains("0x0004"), "{refused}");
    let mut reserved = request(ListCollections::KIND, &body);
    reserved[9] = 1;
    let refused = reply(&raw.send(&reserved).await.unwrap()).unwrap_err();
    assert!(refused.message.contains("offset 9"), "{refused}");
    assert!(server.service.contexts.lock().unwrap().is_empty());
    // A field that nobody knows is passed over.
    assert!(raw.ask(ListCollections::KIND, b"\x81\xa8surprise\xc3").await.is_ok());
}

#[tokio::test]
async fn an_oversized_frame_is_refused_by_its_header() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let raw = Raw::connect(&mesh.client(), ALPN_CLIENT, server.address).await.unwrap();
    raw.hello(None).await.unwrap();
    let body_bytes = FRAME_BYTES_MAX as u32 + 1;
    let header = RequestHeader::new(4, body_bytes, 1000, TraceId::random());
    // The stream stays open: the answer must come before any body.
    let (mut send, mut recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&header.encode()).await.unwrap();
    let answer = soon("the refusal", recv.read_to_end(4096)).await.unwrap();
    let error = reply(&answer).unwrap_err();
    assert!(error.message.contains(&body_bytes.to_string()), "{error}");
    assert!(error.message.contains(&FRAME_BYTES_MAX.to_string()), "{error}");
}

#[tokio::test]
async fn a_length_that_lies_takes_no_memory_from_others() {
    let mesh = Mesh::new();
    let limited = EndpointOptions { request_bytes_max: 1 << 20, ..options() };
    let server = Server::start(&mesh.node(), limited);
    let raw = Raw::connect(&mesh.client(), ALPN_CLIENT, server.address).await.unwrap();
    raw.hello(None).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..16 {
        let header = RequestHeader::new(4, 900 << 10, 60_000, TraceId::random());
        let (mut send, recv) = raw.quic.open_bi().await.unwrap();
        send.write_all(&[&header.encode()[..], b"x"].concat()).await.unwrap();
        open.push((send, recv));
    }
    // A whole request on the same connection, behind the others, is served.
    raw.ask(ListCollections::KIND, &encode(&ListCollections {}).unwrap()).await.unwrap();
    let client = mesh.client_endpoint();
    assert_eq!(client.call(server.address, None, &order(&"x".repeat(1 << 19)), PATIENCE).await, Ok(Dropped::default()));
}

#[tokio::test]
async fn a_connection_from_before_both_joined_different_meshes_is_refused() {
    let mesh = Mesh::new();
    let (server, peer) = (mesh.server(), mesh.server());
    peer.join(0x42);
    peer.endpoint.call(server.address, None, &CatalogFetch {}, PATIENCE).await.unwrap();
    server.join(0x41);
    let error = peer.endpoint.call(server.address, None, &CatalogFetch {}, PATIENCE).await.unwrap_err();
    let (ours, theirs) = ("41".repeat(16), "42".repeat(16));
    assert!(error.message.contains(&ours) && error.message.contains(&theirs), "{error}");
    warned(&["connection refused", &format!("remote={}", peer.address), &ours, &theirs]).await;
    assert_eq!(server.service.contexts.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_body_that_is_shorter_or_longer_than_its_length_is_refused() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let raw = Raw::connect(&mesh.client(), ALPN_CLIENT, server.address).await.unwrap();
    raw.hello(None).await.unwrap();
    let whole = request(ListCollections::KIND, &encode(&ListCollections {}).unwrap());
    for wrong in [&whole[..whole.len() - 1], &[&whole[..], b"x"].concat()] {
        let error = reply(&raw.send(wrong).await.unwrap()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Protocol, "{error}");
    }
    assert!(raw.send(&whole).await.is_ok_and(|answer| ReplyHeader::decode(&answer).unwrap().part == Part::Reply));
    let error = raw.ask(99, b"\x80").await.unwrap_err();
    assert!(error.code == ErrorCode::Protocol && error.message.contains("99"), "{error}");
}

#[tokio::test]
async fn garbage_on_a_stream_closes_that_connection_and_nothing_else() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let waiting = {
        let (client, address) = (client.clone(), server.address);
        tokio::spawn(async move { client.call(address, None, &order("wait"), PATIENCE).await })
    };
    soon("the call", server.service.held.subscribe().wait_for(|held| *held == 1)).await.unwrap();
    let raw = Raw::connect(&mesh.client(), ALPN_CLIENT, server.address).await.unwrap();
    raw.hello(None).await.unwrap();
    assert!(raw.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nand so on").await.is_err());
    let closed = soon("closing", raw.quic.closed()).await.to_string();
    assert!(closed.contains("does not speak"), "{closed}");
    server.service.released.send_replace(true);
    assert_eq!(waiting.await.unwrap(), Ok(Dropped::default()));
}

#[tokio::test]
async fn garbage_datagrams_are_ignored() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    client.call(server.address, None, &order("do"), PATIENCE).await.unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..500 {
        let mut datagram = vec![0; random.usize(1..1_500)];
        random.fill(&mut datagram);
        socket.send_to(&datagram, server.address).unwrap();
    }
    assert_eq!(client.call(server.address, None, &order("do"), PATIENCE).await, Ok(Dropped::default()));
    let fresh = mesh.client_endpoint();
    assert_eq!(fresh.call(server.address, None, &order("do"), PATIENCE).await, Ok(Dropped::default()));
}

#[tokio::test]
async fn more_connections_than_allowed_are_refused() {
    let mesh = Mesh::new();
    let limited = EndpointOptions { max_connections: 2, ..options() };
    let server = Server::start(&mesh.node(), limited);
    let clients: Vec<_> = (0..2).map(|_| mesh.client_endpoint()).collect();
    for client in &clients {
        client.call(server.address, None, &order("do"), PATIENCE).await.unwrap();
    }
    let late = mesh.client_endpoint();
    assert!(timeout(PATIENCE, late.call(server.address, None, &order("do"), PATIENCE)).await.unwrap().is_err());
    clients[0].close(Duration::ZERO).await;
    soon("room", async {
        while late.call(server.address, None, &order("do"), PATIENCE).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
