//! Who is kept out by whom: half-sent requests, full classes, many connections, deadlines that are none.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use vecino_certs::{ALPN_CLIENT, Identity};
use vecino_model::{CollectionId, Level};
use vecino_net::endpoint::{Endpoint, EndpointOptions};
use vecino_net::error::{ErrorCode, Retry, RpcError};
use vecino_net::frame::RequestHeader;
use vecino_net::message::{
    CatalogFetch, DropCollection, Dropped, ListCollections, ReplicaVersions, Rpc, Scan, ScanStream,
};
use vecino_net::rpc::{TraceId, encode};

use crate::fixture::{Mesh, PATIENCE, Server, options, order, soon};
use crate::raw::{Raw, reply};

/// A connection of a client that has said hello.
async fn greeted(identity: &Identity, to: &Server) -> Raw {
    let raw = Raw::connect(identity, ALPN_CLIENT, to.address).await.unwrap();
    raw.hello(None).await.unwrap();
    raw
}

/// Begins a request on a stream of its own, of which the body never comes.
async fn half_sent(raw: &Raw, deadline_ms: u32) -> (quinn::SendStream, quinn::RecvStream) {
    let header = RequestHeader::new(DropCollection::KIND, 1_000, deadline_ms, TraceId::from_bytes([7; 16]));
    let (mut send, recv) = soon("a stream", raw.quic.open_bi()).await.unwrap();
    send.write_all(&header.encode()).await.unwrap();
    (send, recv)
}

/// What a whole request of this deadline is answered with.
async fn whole(raw: &Raw, deadline_ms: u32) -> Result<Vec<u8>, RpcError> {
    let body = encode(&ListCollections {}).unwrap();
    let header = RequestHeader::new(ListCollections::KIND, body.len() as u32, deadline_ms, TraceId::random());
    reply(&raw.send(&[&header.encode()[..], &body].concat()).await.unwrap())
}

async fn answered(recv: &mut quinn::RecvStream) -> RpcError {
    reply(&soon("an answer", recv.read_to_end(1 << 20)).await.unwrap()).unwrap_err()
}

/// A call of a node for a request of its client, which the service holds.
fn replica_call(from: &Server, to: &Server) -> JoinHandle<Result<usize, RpcError>> {
    let (endpoint, address) = (from.endpoint.clone(), to.address);
    let request = ReplicaVersions { collection: CollectionId([3; 16]), ids: Vec::new() };
    tokio::spawn(async move { endpoint.call(address, None, &request, PATIENCE).await.map(|reply| reply.len()) })
}

fn waiting_call(from: &Endpoint, to: &Server) -> JoinHandle<Result<Dropped, RpcError>> {
    let (endpoint, address) = (from.clone(), to.address);
    tokio::spawn(async move { endpoint.call(address, None, &order("wait"), PATIENCE).await })
}

async fn held(server: &Server, count: usize) {
    soon("the calls", server.service.held.subscribe().wait_for(|held| *held == count)).await.unwrap();
}

#[tokio::test]
async fn a_client_that_sends_half_requests_keeps_nobody_else_out() {
    let mesh = Mesh::new();
    let request_wait = Duration::from_secs(8);
    let server = Server::start(&mesh.node(), EndpointOptions { request_wait, ..options() });
    let (peer, client) = (mesh.server(), mesh.client_endpoint());
    let attacker = mesh.client();
    let began = Instant::now();
    let (mut connections, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let raw = greeted(&attacker, &server).await;
        for _ in 0..500 {
            streams.push(half_sent(&raw, u32::MAX).await);
        }
        connections.push(raw);
    }
    // The node has seen all of them once it answers a request that came behind them.
    assert!(whole(&connections[4], 20_000).await.is_ok(), "even a whole request of the same client is served");
    assert_eq!(client.call(server.address, None, &order("do"), PATIENCE).await, Ok(Dropped::default()));
    assert!(peer.endpoint.call(server.address, Some(server.id), &CatalogFetch {}, PATIENCE).await.unwrap().is_empty());
    let call = replica_call(&peer, &server);
    held(&server, 1).await;
    server.service.released.send_replace(true);
    assert_eq!(call.await.unwrap(), Ok(0));
    assert!(began.elapsed() < request_wait, "the half requests were not there any more: the machine is too slow");

    for (_send, mut recv) in streams {
        let ended = answered(&mut recv).await;
        assert_eq!((ended.code, ended.retry), (ErrorCode::Timeout, Retry::Safe));
        assert!(ended.message.contains("1000 bytes of a DropCollection"), "{ended}");
    }
    assert!(began.elapsed() < PATIENCE, "not as long as their deadline says");
}

#[tokio::test]
async fn half_requests_beyond_what_one_certificate_may_have_are_refused() {
    let mesh = Mesh::new();
    let server = Server::start(&mesh.node(), EndpointOptions { max_arriving_requests_per_certificate: 3, ..options() });
    let identity = mesh.client();
    let (one, other) = (greeted(&identity, &server).await, greeted(&identity, &server).await);
    let mut open = Vec::new();
    for raw in [&one, &one, &other] {
        open.push(half_sent(raw, 20_000).await);
    }
    let refused = loop {
        // The three may not have arrived yet.
        match whole(&other, 20_000).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code, ErrorCode::Overloaded);
    assert!(
        refused.message.contains("3 requests of this certificate") && refused.retry_after().is_some(),
        "{refused:?}"
    );
    assert!(whole(&greeted(&mesh.client(), &server).await, 20_000).await.is_ok());
    open.clear();
    soon("room", async {
        while whole(&other, 20_000).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn more_than_256_requests_of_one_node_are_all_served() {
    let mesh = Mesh::new();
    let (server, peer) = (mesh.server(), mesh.server());
    let calls: Vec<_> = (0..600).map(|_| replica_call(&peer, &server)).collect();
    held(&server, 600).await;
    server.service.released.send_replace(true);
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(0));
    }
    assert_eq!(server.endpoint.open_connections(), 1);
}

#[tokio::test]
async fn clients_that_have_every_permit_leave_nodes_theirs_and_nodes_leave_clients_theirs() {
    let mesh = Mesh::new();
    let few = EndpointOptions { max_concurrent_requests: 2, max_concurrent_replica_requests: 2, ..options() };
    let server = Server::start(&mesh.node(), few);
    let (clients, peers) = ([mesh.client_endpoint(), mesh.client_endpoint()], [mesh.server(), mesh.server()]);
    let waiting: Vec<_> = clients.iter().map(|client| waiting_call(client, &server)).collect();
    held(&server, 2).await;
    let late = mesh.client_endpoint();
    let refused = late.call(server.address, None, &order("do"), PATIENCE).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Overloaded);
    assert!(refused.message.contains("this node has 2 requests of clients"), "{refused}");
    // One certificate gets half.
    let refused = clients[0].call(server.address, None, &order("do"), PATIENCE).await.unwrap_err();
    assert!(refused.message.contains("this certificate has 1"), "{refused}");

    let asked: Vec<_> = peers.iter().map(|peer| replica_call(peer, &server)).collect();
    held(&server, 4).await;
    let third = mesh.server();
    let refused = replica_call(&third, &server).await.unwrap().unwrap_err();
    assert!(refused.message.contains("this node has 2 requests of nodes"), "{refused}");
    third.endpoint.call(server.address, Some(server.id), &CatalogFetch {}, PATIENCE).await.unwrap();
    server.service.released.send_replace(true);
    for call in waiting {
        assert_eq!(call.await.unwrap(), Ok(Dropped::default()));
    }
    for call in asked {
        assert_eq!(call.await.unwrap(), Ok(0));
    }
    assert_eq!(late.call(server.address, None, &order("do"), PATIENCE).await, Ok(Dropped::default()));
}

#[tokio::test]
async fn no_deadline_at_all_is_refused_by_name_and_the_longest_one_is_cut() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let raw = greeted(&mesh.client(), &server).await;
    let refused = whole(&raw, 0).await.unwrap_err();
    assert_eq!((refused.code, refused.retry), (ErrorCode::Timeout, Retry::Safe));
    assert!(refused.message.contains("deadline_ms of a ListCollections is 0"), "{refused}");
    let (_send, mut recv) = half_sent(&raw, 0).await;
    assert!(answered(&mut recv).await.message.contains("deadline_ms of a DropCollection is 0"));
    assert!(server.service.contexts.lock().unwrap().is_empty(), "nothing was done");

    let minute = Duration::from_secs(60);
    assert!(whole(&raw, u32::MAX).await.is_ok());
    let client = mesh.client_endpoint();
    let (level, with_vectors, with_payload) = (Level::One, true, true);
    let scan = Scan { collection: "end".into(), after: None, limit: 1, level, with_vectors, with_payload };
    let mut chunks =
        client.call_streaming(server.address, None, &ScanStream { scan }, Duration::MAX).await.expect("it is cut");
    assert!(soon("a chunk", chunks.try_next()).await.unwrap().is_some());
    let now = Instant::now();
    let left: Vec<_> = server.service.contexts.lock().unwrap().iter().map(|context| context.deadline - now).collect();
    assert!(left[0] <= minute && left[0] > minute / 2, "one reply has a minute: {left:?}");
    assert!(left[1] > 30 * minute && left[1] <= 60 * minute, "a scan may last: {left:?}");
}

#[tokio::test]
async fn a_deadline_that_passes_before_the_request_is_whole_says_that_nothing_was_done() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let raw = greeted(&mesh.client(), &server).await;
    let (_send, mut recv) = half_sent(&raw, 100).await;
    let late = answered(&mut recv).await;
    assert_eq!((late.code, late.retry), (ErrorCode::Timeout, Retry::Safe), "{late}");
}

#[tokio::test]
async fn idle_connections_of_clients_keep_neither_other_clients_nor_nodes_out() {
    let mesh = Mesh::new();
    let few = EndpointOptions { max_connections: 8, max_connections_per_client: 3, ..options() };
    let server = Server::start(&mesh.node(), few);
    let (hoarder, mut idle) = (mesh.client(), Vec::new());
    for _ in 0..3 {
        idle.push(greeted(&hoarder, &server).await);
    }
    let one_more = Raw::connect(&hoarder, ALPN_CLIENT, server.address).await.unwrap();
    let refused = one_more.hello(None).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Overloaded);
    assert!(refused.message.contains("this certificate has 3 connections"), "{refused}");
    soon("closing", one_more.quic.closed()).await;
    for _ in 0..3 {
        idle.push(greeted(&mesh.client(), &server).await);
    }
    let client = mesh.client_endpoint();
    let refused = client.call(server.address, None, &order("do"), PATIENCE).await.unwrap_err();
    assert!(refused.message.contains("6 connections of clients"), "{refused}");
    assert!(refused.retry_after().is_some(), "there may be room later: {refused:?}");
    let peers = [mesh.server(), mesh.server()];
    for peer in &peers {
        peer.endpoint.call(server.address, Some(server.id), &CatalogFetch {}, PATIENCE).await.unwrap();
    }
    idle.clear();
    soon("room", async {
        while client.call(server.address, None, &order("do"), PATIENCE).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_without_a_hello_takes_little_and_is_closed_after_five_seconds() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let began = Instant::now();
    let raw = Raw::connect(&mesh.client(), ALPN_CLIENT, server.address).await.unwrap();
    let (mut send, _recv) = raw.quic.open_bi().await.unwrap();
    assert!(timeout(Duration::from_millis(100), raw.quic.open_bi()).await.is_err(), "there is one stream");
    assert!(timeout(Duration::from_millis(100), raw.quic.open_uni()).await.is_err(), "and none of one direction");
    let header = RequestHeader::new(1, 60_000, u32::MAX, TraceId::random());
    send.write_all(&header.encode()).await.unwrap();
    let closed = soon("closing", raw.quic.closed()).await.to_string();
    assert!(closed.contains("60000"), "a hello is not so long: {closed}");

    let silent = Raw::connect(&mesh.client(), ALPN_CLIENT, server.address).await.unwrap();
    let closed = soon("closing", silent.quic.closed()).await.to_string();
    assert!(closed.contains("no hello within 5s"), "{closed}");
    assert!(began.elapsed() < Duration::from_secs(15));
    soon("forgetting", async {
        while server.endpoint.open_connections() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
