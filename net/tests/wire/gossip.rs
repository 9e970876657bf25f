//! What chitchat demands of a transport, asked of ours and of an in-memory one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use chitchat::transport::{ChannelTransport, Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable};
use vecino_net::gossip::GOSSIP_BYTES_MAX;
use vecino_net::membership::Membership;

use crate::fixture::{Mesh, Server, decider, soon};

/// A party of a network: where it is reached, and its transport.
struct Party {
    address: SocketAddr,
    transport: Box<dyn Transport>,
    _server: Option<Server>,
}

impl Party {
    async fn open(&self) -> Box<dyn Socket> {
        self.transport.open(self.address).await.unwrap()
    }
}

/// A message of exactly this size that can be told from others: a SYN, an empty digest, and the name of a mesh.
fn message(bytes: usize, number: u8) -> ChitchatMessage {
    let start = [&45_139_u16.to_le_bytes()[..], &[0, 0], &0_u16.to_le_bytes()].concat();
    let name = vec![b'a' + number; bytes - start.len() - 2];
    let raw = [&start[..], &(name.len() as u16).to_le_bytes(), &name].concat();
    ChitchatMessage::deserialize(&mut &raw[..]).unwrap()
}

fn number(message: &ChitchatMessage) -> u8 {
    let ChitchatMessage::Syn { cluster_id, .. } = message else { panic!("{message:?} is no SYN") };
    cluster_id.as_bytes()[0] - b'a'
}

async fn conforms(mut party: impl FnMut() -> Party) {
    let (one, two, absent) = (party(), party(), party());
    let mut first = one.open().await;
    assert!(one.transport.open(one.address).await.is_err(), "an address is open once at a time");

    // Nobody listens yet: sending is not an error, and does not wait for the other side.
    soon("sending", first.send(two.address, message(100, 0))).await.unwrap();
    soon("sending", first.send(absent.address, message(100, 0))).await.unwrap();

    let mut second = two.open().await;
    // What was sent before may arrive or not; from here on everything does, in any order.
    for number in 1..=10 {
        first.send(two.address, message(100 + usize::from(number), number)).await.unwrap();
    }
    let mut arrived = BTreeSet::new();
    while arrived.len() < 10 {
        let (from, message) = soon("a message", second.recv()).await.unwrap();
        assert_eq!(from, one.address, "messages come from the listening address");
        if number(&message) > 0 {
            arrived.insert(number(&message));
        }
    }
    assert_eq!(arrived, (1..=10).collect());

    // The answer goes to where the message came from.
    second.send(one.address, message(100, 11)).await.unwrap();
    let (from, answer) = soon("the answer", first.recv()).await.unwrap();
    assert_eq!((from, number(&answer)), (two.address, 11));

    let large = message(GOSSIP_BYTES_MAX, 12);
    first.send(two.address, message(GOSSIP_BYTES_MAX, 12)).await.unwrap();
    assert_eq!(soon("the large message", second.recv()).await.unwrap(), (one.address, large));

    // Dropping a receive that has begun loses nothing.
    let (sent, mut received) = (8, BTreeSet::new());
    for number in 0..sent {
        first.send(two.address, message(100, number)).await.unwrap();
        let begun = tokio::time::timeout(std::time::Duration::ZERO, second.recv()).await;
        received.extend(begun.ok().map(|message| self::number(&message.unwrap().1)));
    }
    while received.len() < usize::from(sent) {
        received.insert(number(&soon("a message", second.recv()).await.unwrap().1));
    }
    assert_eq!(received, (0..sent).collect());

    drop(first);
    let mut again = one.open().await;
    again.send(two.address, message(100, 13)).await.unwrap();
    assert_eq!(number(&soon("a message", second.recv()).await.unwrap().1), 13);
}

#[tokio::test]
async fn the_in_memory_transport_conforms() {
    let network = ChannelTransport::with_mtu(GOSSIP_BYTES_MAX);
    let ports = AtomicU16::new(1);
    conforms(|| Party {
        address: SocketAddr::from(([127, 0, 0, 1], ports.fetch_add(1, Ordering::Relaxed))),
        transport: Box::new(network.clone()),
        _server: None,
    })
    .await;
}

#[tokio::test]
async fn the_quic_transport_conforms() {
    let mesh = Mesh::new();
    conforms(|| {
        let server = mesh.server();
        let transport = server.endpoint.gossip_transport(server.address);
        Party { address: server.address, transport: Box::new(transport), _server: Some(server) }
    })
    .await;
}

#[tokio::test]
async fn gossip_opens_only_at_the_advertised_address() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let transport = server.endpoint.gossip_transport(server.address);
    let error = transport.open("127.0.0.1:1".parse().unwrap()).await.err().unwrap().to_string();
    assert!(error.contains("127.0.0.1:1") && error.contains(&server.address.to_string()), "{error}");
    let _open = transport.open(server.address).await.unwrap();
    let options = crate::membership::options(&server, 1, &[]);
    let error = Membership::start(options.clone(), &server.endpoint, decider(&options)).await.unwrap_err().to_string();
    assert!(error.contains("open already"), "{error}");
}
