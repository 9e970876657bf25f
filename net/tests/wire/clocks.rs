//! What is told of clocks: by nodes, to those who take it, with requests and gossip.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use chitchat::transport::Transport;
use chitchat::{ChitchatMessage, Deserializable};
use quinn::crypto::rustls::QuicServerConfig;
use vecino_certs::{ALPN_PEER, Identity};
use vecino_net::frame::{Part, REQUEST_HEADER_BYTES, ReplyHeader, RequestHeader};
use vecino_net::message::{CatalogFetch, Hello, HelloReply, ListCollections, PeerIdentity, Rpc};
use vecino_net::node_id;
use vecino_net::rpc::{decode, encode};

use crate::fixture::{Mesh, PATIENCE, soon};
use crate::raw::{Raw, reply, request};

#[tokio::test]
async fn nodes_tell_their_clocks_with_requests_and_gossip_and_clients_do_not() {
    let mesh = Mesh::new();
    let (one, two) = (mesh.server(), mesh.server());
    mesh.client_endpoint().call(two.address, None, &ListCollections {}, PATIENCE).await.unwrap();
    one.endpoint.call(two.address, None, &CatalogFetch {}, PATIENCE).await.unwrap();
    assert_eq!(*two.service.clocks.borrow(), [], "a clock that is 0 is not told");
    for told in [7, u32::MAX] {
        one.service.clock.store(told, Ordering::SeqCst);
        one.endpoint.call(two.address, None, &CatalogFetch {}, PATIENCE).await.unwrap();
    }
    assert_eq!(*two.service.clocks.borrow(), [(one.id, 7), (one.id, u32::MAX)]);

    one.service.clock.store(8, Ordering::SeqCst);
    let mut socket = one.endpoint.gossip_transport(one.address).open(one.address).await.unwrap();
    let syn = [&45_139_u16.to_le_bytes()[..], &[0, 0], &0_u16.to_le_bytes(), &1_u16.to_le_bytes(), b"a"].concat();
    socket.send(two.address, ChitchatMessage::deserialize(&mut &syn[..]).unwrap()).await.unwrap();
    let mut clocks = two.service.clocks.subscribe();
    soon("the gossip", clocks.wait_for(|clocks| clocks.last() == Some(&(one.id, 8)))).await.unwrap();
}

#[tokio::test]
async fn what_a_client_puts_in_the_place_of_the_clock_counts_for_nothing() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let raw = Raw::connect(&mesh.client(), vecino_certs::ALPN_CLIENT, server.address).await.unwrap();
    raw.hello(None).await.unwrap();
    let body = encode(&ListCollections {}).unwrap();
    let mut header = RequestHeader::decode(&request(ListCollections::KIND, &body)).unwrap();
    header.clock = 7;
    reply(&raw.send(&[&header.encode()[..], &body].concat()).await.unwrap()).unwrap();
    assert_eq!(*server.service.clocks.borrow(), []);
}

/// A caller of a release before does not ask, and is answered as it was.
#[tokio::test]
async fn a_node_that_does_not_ask_is_told_nothing_of_clocks() {
    let mesh = Mesh::new();
    let (server, old) = (mesh.server(), mesh.node());
    let raw = Raw::connect(&old, ALPN_PEER, server.address).await.unwrap();
    let bytes = raw.hello(Some(node_id(old.key_id()))).await.unwrap();
    assert!(!decode::<HelloReply>("HelloReply", &bytes).unwrap().takes_clock);
    assert!(!bytes.windows(5).any(|word| word == b"clock"));
}

/// A node of a release before this one, in which the place of the clock was reserved, and refused where it was not 0.
#[tokio::test]
async fn a_node_that_does_not_take_clocks_is_told_none() {
    let mesh = Mesh::new();
    let (caller, old) = (mesh.server(), mesh.node());
    caller.service.clock.store(7, Ordering::SeqCst);
    let tls = QuicServerConfig::try_from(vecino_certs::server_config(&old).unwrap()).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = endpoint.local_addr().unwrap();
    let serving = tokio::spawn(serve_two(endpoint, old));
    caller.endpoint.call(address, None, &CatalogFetch {}, PATIENCE).await.unwrap();
    let headers = soon("both requests", serving).await.unwrap();
    assert_eq!(headers.map(|header| (header.kind, header.clock)), [(Hello::KIND, 0), (CatalogFetch::KIND, 0)]);
}

/// Answers a hello and a request as the release before did; gives their headers.
async fn serve_two(endpoint: quinn::Endpoint, identity: Identity) -> [RequestHeader; 2] {
    let quic = endpoint.accept().await.unwrap().await.unwrap();
    let peer = PeerIdentity { node_id: node_id(identity.key_id()), mesh_id: None, advertise: "127.0.0.1:9".into() };
    // An identity and the name of the software are all that it said.
    let hello = [&b"\x82\xa8identity"[..], &encode(&peer).unwrap(), b"\xa8software\xa3old"].concat();
    let mut headers = Vec::new();
    for answer in [hello, encode(&[(); 0]).unwrap()] {
        let (mut send, mut recv) = quic.accept_bi().await.unwrap();
        let asked = recv.read_to_end(1 << 16).await.unwrap();
        let header = RequestHeader::decode(&asked).unwrap();
        assert_eq!(asked.len(), REQUEST_HEADER_BYTES + header.body_bytes as usize);
        headers.push(header);
        let reply = ReplyHeader::new(header.kind, Part::Reply, answer.len() as u32);
        send.write_all(&[&reply.encode()[..], &answer].concat()).await.unwrap();
        send.finish().unwrap();
        let _ = send.stopped().await;
    }
    headers.try_into().unwrap()
}
