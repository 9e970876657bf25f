//! Nodes find each other, notice who is gone, and take the returned back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chitchat::ChitchatMessage;
use chitchat::transport::{ChannelTransport, Socket, Transport};
use tokio::sync::{Notify, watch};
use vecino_model::{Member, NodeId, NodeState, View};
use vecino_net::membership::{Membership, MembershipError, MembershipOptions, VALUE_BYTES_MAX};

use crate::child::{MESH, Node};
use crate::fixture::{Mesh, Server, decider, soon};

/// What the issue asks for on default settings.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);

pub fn options(server: &Server, generation: u64, seeds: &[SocketAddr]) -> MembershipOptions {
    let tokens = vec![generation, u64::from(server.address.port())];
    let mut options = MembershipOptions::new(server.id, MESH, server.address, generation, tokens);
    options.name = "node of the test".to_owned();
    options.seeds = seeds.iter().map(SocketAddr::to_string).collect();
    options
}

async fn start(options: MembershipOptions, server: &Server) -> Result<Membership, MembershipError> {
    let decider = decider(&options);
    Membership::start(options, &server.endpoint, decider).await
}

async fn start_on(options: MembershipOptions, transport: impl Transport) -> Result<Membership, MembershipError> {
    let decider = decider(&options);
    Membership::start_on(options, Box::new(transport), decider).await
}

async fn until(view: &mut watch::Receiver<Arc<View>>, what: &str, holds: impl Fn(&View) -> bool) -> Duration {
    let started = Instant::now();
    drop(soon(what, view.wait_for(|view| holds(view))).await.unwrap());
    started.elapsed()
}

fn member(view: &View, id: NodeId) -> Option<&Member> {
    view.members.get(&id)
}

fn is(view: &View, id: NodeId, state: NodeState) -> bool {
    member(view, id).is_some_and(|member| member.state == state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_converge_notice_a_stopped_one_and_take_it_back() {
    let mesh = Mesh::new();
    let identities = [mesh.node(), mesh.node(), mesh.node()];
    let mut servers: Vec<_> =
        identities.iter().map(|identity| Server::start(identity, crate::fixture::options())).collect();
    let seeds = [servers[0].address];
    let mut members = Vec::new();
    for server in &servers {
        members.push(start(options(server, 1, &seeds), server).await.unwrap());
    }
    let ids: Vec<_> = servers.iter().map(|server| server.id).collect();
    members[1].publish(12, 3456);
    members[1].publish_catalog_digest("digest".into());
    for membership in &members {
        let mut view = membership.view();
        until(&mut view, "three nodes up", |view| ids.iter().all(|id| is(view, *id, NodeState::Up))).await;
        until(&mut view, "the load", |view| {
            let one = &view.members[&ids[1]];
            (one.points, one.bytes, one.catalog_digest.as_str()) == (12, 3456, "digest")
        })
        .await;
        let seen = view.borrow().members[&ids[2]].clone();
        assert_eq!(seen.address, servers[2].address);
        assert_eq!(seen.tokens, [1, u64::from(servers[2].address.port())]);
        assert_eq!((seen.generation, seen.software.starts_with("vecino ")), (1, true));
        assert_eq!(seen.name, "node of the test");
    }

    let stopped = servers.pop().unwrap();
    members.pop().unwrap().shutdown().await;
    stopped.endpoint.close(Duration::ZERO).await;
    for membership in &members {
        let took = until(&mut membership.view(), "noticing", |view| is(view, ids[2], NodeState::Down)).await;
        println!("down after {took:?}");
        assert!(took < NOTICED_WITHIN, "{took:?}");
    }
    let again = vecino_net::endpoint::EndpointOptions { listen: stopped.address, ..crate::fixture::options() };
    drop(stopped);
    let returned = Server::start(&identities[2], again);
    let _third = start(options(&returned, 2, &seeds), &returned).await.unwrap();
    for membership in &members {
        let back = |view: &View| is(view, ids[2], NodeState::Up) && view.members[&ids[2]].generation == 2;
        let took = until(&mut membership.view(), "returning", back).await;
        println!("up after {took:?}");
        assert!(took < NOTICED_WITHIN, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_noticed_and_so_is_its_return() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let membership = start(options(&server, 1, &[]), &server).await.unwrap();
    let mut view = membership.view();
    let node = Node::new(&mesh, "crashing");
    let life = node.start("127.0.0.1:0".parse().unwrap(), Some(server.address), 1);
    let address = life.address;
    until(&mut view, "the first life", |view| is(view, node.id, NodeState::Up)).await;
    life.kill();
    let took = until(&mut view, "its death", |view| is(view, node.id, NodeState::Down)).await;
    println!("down after {took:?}");
    assert!(took < NOTICED_WITHIN, "{took:?}");
    let _life = node.start(address, Some(server.address), 2);
    let took = until(&mut view, "its second life", |view| is(view, node.id, NodeState::Up)).await;
    println!("up after {took:?}");
    assert!(took < NOTICED_WITHIN, "{took:?}");
    assert_eq!(view.borrow().members[&node.id].tokens, [2]);
}

#[tokio::test]
async fn nodes_of_another_mesh_do_not_appear() {
    let network = ChannelTransport::with_mtu(vecino_net::gossip::GOSSIP_BYTES_MAX);
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let start = |number: u8, mesh| {
        let id = NodeId::from_bytes([number; 16]);
        let mut options = MembershipOptions::new(id, mesh, address(number.into()), 1, vec![number.into()]);
        options.seeds = vec![address(1).to_string()];
        start_on(options, network.clone())
    };
    let one = start(1, MESH).await.unwrap();
    let _stranger = start(2, vecino_model::MeshId([1; 16])).await.unwrap();
    let _three = start(3, MESH).await.unwrap();
    let mut view = one.view();
    until(&mut view, "the third", |view| is(view, NodeId::from_bytes([3; 16]), NodeState::Up)).await;
    assert!(member(&view.borrow(), NodeId::from_bytes([2; 16])).is_none());
}

#[tokio::test]
async fn options_that_cannot_be_gossiped_are_refused() {
    let network = ChannelTransport::with_mtu(vecino_net::gossip::GOSSIP_BYTES_MAX);
    let address = "127.0.0.1:1".parse().unwrap();
    let base = |tokens| MembershipOptions::new(NodeId::from_bytes([1; 16]), MESH, address, 1, tokens);
    let start = |options| start_on(options, network.clone());
    assert!(start(base(vec![])).await.is_err_and(|error| matches!(error, MembershipError::NoTokens)));
    let error = start(base(vec![u64::MAX; 500])).await.unwrap_err().to_string();
    assert!(error.contains("tokens") && error.contains(&VALUE_BYTES_MAX.to_string()), "{error}");
    let error = start(MembershipOptions { generation: 1 << 56, ..base(vec![1]) }).await.unwrap_err().to_string();
    assert!(error.contains("2^56"), "{error}");
}

/// A transport whose next receive panics when it is told to.
#[derive(Clone)]
struct Brittle {
    inner: ChannelTransport,
    panic: Arc<AtomicBool>,
    poke: Arc<Notify>,
    opened: Arc<AtomicUsize>,
    /// Which time of opening panics, counted from 1.
    open_panics: usize,
}

struct BrittleSocket(Box<dyn Socket>, Brittle);

#[async_trait]
impl Transport for Brittle {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        assert_ne!(self.opened.fetch_add(1, Ordering::SeqCst) + 1, self.open_panics, "as asked");
        Ok(Box::new(BrittleSocket(self.inner.open(listen).await?, self.clone())))
    }
}

#[async_trait]
impl Socket for BrittleSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.0.send(to, message).await
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        tokio::select! {
            message = self.0.recv() => message,
            () = self.1.poke.notified() => {
                assert!(!self.1.panic.swap(false, Ordering::SeqCst), "as asked");
                std::future::pending().await
            }
        }
    }
}

#[tokio::test]
async fn a_panic_in_the_gossip_loop_starts_it_again_and_the_node_stays_up() {
    // Opening the transport is never told to panic.
    let opened = gossip_that_panics(0, [0x51, 0x52]).await;
    assert_eq!(opened, 2);
}

#[tokio::test]
async fn a_panic_while_gossip_is_started_again_has_it_started_once_more() {
    let opened = gossip_that_panics(2, [0x53, 0x54]).await;
    assert_eq!(opened, 3);
    crate::fixture::warned(&["starting gossip", "it panicked", "as asked"]).await;
}

/// Has the gossip of one node panic, and the opening of its transport at the time given; how often that was opened until
/// another node heard of it again.
async fn gossip_that_panics(open_panics: usize, nodes: [u8; 2]) -> usize {
    crate::fixture::listen_to_logs();
    let network = ChannelTransport::with_mtu(vecino_net::gossip::GOSSIP_BYTES_MAX);
    let [one, two] = nodes.map(|node| NodeId::from_bytes([node; 16]));
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (panic, poke, opened) = Default::default();
    let brittle = Brittle { inner: network.clone(), panic, poke, opened, open_panics };
    let mut options = MembershipOptions::new(one, MESH, address(1), 7, vec![1]);
    let failing = start_on(options.clone(), brittle.clone()).await.unwrap();
    (options.node_id, options.advertise) = (two, address(2));
    options.seeds = vec![address(1).to_string()];
    let watching = start_on(options, network).await.unwrap();
    let mut view = watching.view();
    until(&mut view, "the first", |view| is(view, one, NodeState::Up)).await;
    failing.publish(1, 1);
    until(&mut view, "its load", |view| view.members[&one].points == 1).await;

    brittle.panic.store(true, Ordering::SeqCst);
    brittle.poke.notify_one();
    crate::fixture::warned(&["gossip failed and is started again", "panicked"]).await;
    failing.publish(2, 2);
    until(&mut view, "its new load", |view| view.members[&one].points == 2).await;
    let seen = view.borrow().members[&one].clone();
    assert_eq!((seen.state, seen.generation), (NodeState::Up, 7));
    brittle.opened.load(Ordering::SeqCst)
}
