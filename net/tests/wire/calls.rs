//! Calls between willing parties: answers, deadlines, limits, cancelling, closing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vecino_model::limits::FRAME_BYTES_MAX;
use vecino_model::{Fields, Level, NodeId, Outcome, Payload, RawPayload, RawPoint, Vector};
use vecino_net::endpoint::{Endpoint, EndpointOptions};
use vecino_net::error::{ErrorCode, Retry};
use vecino_net::message::{CatalogFetch, Dropped, Hello, ListCollections, Put, Scan, TakeSnapshot};
use vecino_net::rpc::{Caller, TraceId};

use crate::fixture::{Mesh, PATIENCE, Server, options, order, soon};

fn put(floats: usize) -> Put {
    let vectors = Fields::from([(String::new(), Vector(vec![0.5; floats]))]);
    Put {
        stamps: Vec::new(),
        collection: "c".into(),
        points: vec![RawPoint { id: 1.into(), vectors, payload: RawPayload::default() }],
        level: Level::One,
    }
}

#[tokio::test]
async fn a_node_answers_nodes_and_clients_and_knows_them() {
    let mesh = Mesh::new();
    let (server, peer) = (mesh.server(), mesh.server());
    let client = mesh.client_endpoint();
    let trace = TraceId::random();
    let listed = trace.scope(client.call(server.address, None, &ListCollections {}, PATIENCE)).await;
    assert!(listed.unwrap().is_empty());
    assert!(peer.endpoint.call(server.address, Some(server.id), &CatalogFetch {}, PATIENCE).await.unwrap().is_empty());
    let contexts = server.service.contexts.lock().unwrap().clone();
    let callers: Vec<_> = contexts.iter().map(|context| context.caller.clone()).collect();
    assert_eq!(callers, [Caller::Client("somebody".into()), Caller::Peer(peer.id)]);
    assert_eq!(contexts[0].trace, trace);
    assert_ne!(contexts[1].trace, trace);
}

#[tokio::test]
async fn the_epoch_of_the_caller_comes_with_every_request_and_never_falls() {
    let mesh = Mesh::new();
    let (server, peer) = (mesh.server(), mesh.server());
    for known in [0, 7, 3] {
        peer.endpoint.raise_epoch(known);
        peer.endpoint.call(server.address, Some(server.id), &CatalogFetch {}, PATIENCE).await.unwrap();
    }
    let epochs: Vec<_> = server.service.contexts.lock().unwrap().iter().map(|context| context.epoch).collect();
    assert_eq!(epochs, [0, 7, 7]);
}

#[tokio::test]
async fn bodies_larger_than_every_window_arrive_whole_both_ways() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let floats = 40 * 1024 * 1024 / 4;
    let outcomes = client.call(server.address, None, &put(floats), PATIENCE).await.unwrap();
    assert_eq!(outcomes, [Outcome::Refused(floats.to_string())]);
    let scan = Scan {
        collection: "c".into(),
        after: None,
        limit: 40 << 20,
        level: Level::One,
        with_vectors: true,
        with_payload: true,
    };
    let reply = client.call(server.address, None, &scan, PATIENCE).await.unwrap();
    let text = vecino_model::Value::Text("x".repeat(40 << 20));
    assert!(reply.points[0].payload == RawPayload::from(Payload::from([("text".to_owned(), text)])));
}

#[tokio::test]
async fn a_frame_over_the_maximum_is_refused_on_either_side() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let error = client.call(server.address, None, &put(FRAME_BYTES_MAX / 4), PATIENCE).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Invalid);
    assert!(error.message.contains(&FRAME_BYTES_MAX.to_string()), "{error}");
    let scan = Scan {
        collection: "c".into(),
        after: None,
        limit: FRAME_BYTES_MAX as u32,
        level: Level::One,
        with_vectors: true,
        with_payload: true,
    };
    let error = client.call(server.address, None, &scan, PATIENCE).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Invalid);
    assert!(error.message.contains("Scan") && error.message.contains(&FRAME_BYTES_MAX.to_string()), "{error}");
    client.call(server.address, None, &ListCollections {}, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn errors_and_panics_of_the_service_are_answers() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let error = client.call(server.address, None, &order("fail"), PATIENCE).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::NotFound, "as asked"));
    let error = client.call(server.address, None, &order("panic"), PATIENCE).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Internal);
    assert_eq!(client.call(server.address, None, &order("do"), PATIENCE).await, Ok(Dropped::default()));
}

#[tokio::test]
async fn a_deadline_ends_the_call_and_the_work() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let error = client.call(server.address, None, &order("wait"), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!((error.code, error.retry), (ErrorCode::Timeout, Retry::Unknown));
    assert!(error.message.contains("DropCollection"), "{error}");
    soon("cancelling", server.service.cancelled.subscribe().wait_for(|cancelled| *cancelled == 1)).await.unwrap();
    assert_eq!(*server.service.held.borrow(), 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_the_work() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let mut held = server.service.held.subscribe();
    let mut cancelled = server.service.cancelled.subscribe();
    let call = {
        let (client, address) = (client.clone(), server.address);
        tokio::spawn(async move { client.call(address, None, &order("wait"), PATIENCE).await })
    };
    soon("the call", held.wait_for(|held| *held == 1)).await.unwrap();
    call.abort();
    soon("cancelling", cancelled.wait_for(|cancelled| *cancelled == 1)).await.unwrap();

    let call = {
        let (client, address) = (client.clone(), server.address);
        tokio::spawn(async move { client.call(address, None, &order("wait"), PATIENCE).await })
    };
    soon("the call", held.wait_for(|held| *held == 1)).await.unwrap();
    client.close(Duration::ZERO).await;
    soon("cancelling", cancelled.wait_for(|cancelled| *cancelled == 2)).await.unwrap();
    assert_eq!(call.await.unwrap().unwrap_err().code, ErrorCode::Connection);
}

#[tokio::test]
async fn more_requests_than_permits_are_answered_overloaded() {
    let mesh = Mesh::new();
    let limited = EndpointOptions { max_concurrent_requests_per_connection: 2, ..options() };
    let server = Server::start(&mesh.node(), limited);
    let client = mesh.client_endpoint();
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let (client, address) = (client.clone(), server.address);
            tokio::spawn(async move { client.call(address, None, &order("wait"), PATIENCE).await })
        })
        .collect();
    soon("two calls", server.service.held.subscribe().wait_for(|held| *held == 2)).await.unwrap();
    let error = client.call(server.address, None, &order("do"), PATIENCE).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert!(error.retry_after().is_some_and(|pause| !pause.is_zero()), "{error:?}");
    server.service.released.send_replace(true);
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(Dropped::default()));
    }
    assert_eq!(client.call(server.address, None, &order("do"), PATIENCE).await, Ok(Dropped::default()));
}

#[tokio::test]
async fn bodies_beyond_the_memory_set_aside_are_answered_overloaded() {
    let mesh = Mesh::new();
    let server = Server::start(&mesh.node(), EndpointOptions { request_bytes_max: 1 << 20, ..options() });
    let client = mesh.client_endpoint();
    let error = client.call(server.address, None, &put(1 << 20), PATIENCE).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Overloaded);
    for _ in 0..8 {
        client.call(server.address, None, &put(1 << 16), PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn what_only_nodes_may_ask_is_forbidden_to_clients() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let error = client.call(server.address, None, &CatalogFetch {}, PATIENCE).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Forbidden);
    assert!(error.message.contains("CatalogFetch") && error.message.contains("somebody"), "{error}");
    assert!(server.service.contexts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn another_node_than_expected_gets_nothing() {
    let mesh = Mesh::new();
    let (server, peer) = (mesh.server(), mesh.server());
    let expected = NodeId::from_bytes([9; 16]);
    let error = peer.endpoint.call(server.address, Some(expected), &order("do"), PATIENCE).await.unwrap_err();
    assert_eq!((error.code, error.retry), (ErrorCode::Connection, Retry::Safe));
    assert!(error.message.contains(&expected.to_string()) && error.message.contains(&server.id.to_string()), "{error}");
    assert!(server.service.contexts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn calls_at_once_share_one_connection() {
    let mesh = Mesh::new();
    let (server, peer) = (mesh.server(), mesh.server());
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (endpoint, address) = (peer.endpoint.clone(), server.address);
            tokio::spawn(async move { endpoint.call(address, None, &order("do"), PATIENCE).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(Dropped::default()));
    }
    assert_eq!(server.endpoint.open_connections(), 1);
}

#[tokio::test]
async fn nodes_that_dial_each_other_at_once_are_both_served() {
    let mesh = Mesh::new();
    let (one, two) = (mesh.server(), mesh.server());
    let request = order("do");
    let (there, back) = tokio::join!(
        one.endpoint.call(two.address, Some(two.id), &request, PATIENCE),
        two.endpoint.call(one.address, Some(one.id), &request, PATIENCE),
    );
    assert_eq!((there, back), (Ok(Dropped::default()), Ok(Dropped::default())));
}

#[tokio::test]
async fn a_closing_node_finishes_what_it_began_and_turns_the_rest_away() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let call = {
        let (client, address) = (client.clone(), server.address);
        tokio::spawn(async move { client.call(address, None, &order("wait"), PATIENCE).await })
    };
    soon("the call", server.service.held.subscribe().wait_for(|held| *held == 1)).await.unwrap();
    let closing = {
        let endpoint = server.endpoint.clone();
        tokio::spawn(async move { endpoint.close(PATIENCE).await })
    };
    let refused = soon("refusals", async {
        loop {
            match client.call(server.address, None, &order("do"), PATIENCE).await {
                Ok(Dropped { .. }) => tokio::task::yield_now().await,
                Err(error) => return error,
            }
        }
    });
    assert_eq!(refused.await.code, ErrorCode::NotReady);
    server.service.released.send_replace(true);
    assert_eq!(
        call.await.unwrap(),
        Ok(Dropped::default()),
        "the answer arrives although the node closes right behind it"
    );
    soon("closing", closing).await.unwrap();
    let error = client.call(server.address, None, &order("do"), PATIENCE).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Connection, "{error}");
}

#[tokio::test]
async fn an_address_that_failed_is_left_alone_for_a_moment() {
    let mesh = Mesh::new();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let rest = Duration::from_secs(3600);
    let patient = EndpointOptions { dial_timeout: Duration::from_millis(100), back_off_max: rest, ..options() };
    let client = Endpoint::client(&mesh.client(), patient).unwrap();
    let error = client.call(address, None, &order("do"), PATIENCE).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Connection, "{error}");
    assert!(error.retry_after().is_some(), "nothing was sent: {error:?}");
    let mut packets = 0;
    silent.set_nonblocking(true).unwrap();
    let drain = |packets: &mut usize| {
        while silent.recv(&mut [0; 2048]).is_ok() {
            *packets += 1
        }
    };
    drain(&mut packets);
    assert!(packets > 0);
    // Failures in a row until the rest is long enough that the next call must come within it.
    let error = soon("resting", async {
        loop {
            let error = client.call(address, None, &order("do"), PATIENCE).await.unwrap_err();
            if error.message.contains("has not been reachable for") {
                return error;
            }
        }
    })
    .await;
    assert!(error.message.contains("no answer within 100ms"), "{error}");
    assert_eq!(error.code, ErrorCode::Connection);
}

#[tokio::test]
async fn a_hello_can_be_repeated_and_unknown_requests_are_refused_by_the_service() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let hello = Hello { peer: None, software: "again".into(), class: Default::default(), tells_clock: false };
    let reply = client.call(server.address, None, &hello, PATIENCE).await.unwrap();
    assert_eq!(reply.identity.node_id, server.id);
    let error = client.call(server.address, None, &TakeSnapshot { collection: None }, PATIENCE).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Invalid);
}

#[tokio::test]
async fn a_node_says_hello_again_once_it_has_joined_a_mesh() {
    let mesh = Mesh::new();
    let (server, peer) = (mesh.server(), mesh.server());
    server.join(1);
    peer.endpoint.call(server.address, None, &CatalogFetch {}, PATIENCE).await.unwrap();
    peer.join(2);
    let error = peer.endpoint.call(server.address, None, &CatalogFetch {}, PATIENCE).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Connection);
    assert!(error.message.contains(&"01".repeat(16)) && error.message.contains(&"02".repeat(16)), "{error}");
    assert_eq!(Arc::clone(&server.service).contexts.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_panic_in_a_hello_is_counted_and_costs_one_connection() {
    vecino_supervise::count_panics();
    let mesh = Mesh::new();
    let server = mesh.server();
    let before = vecino_supervise::panics();
    server.service.identity_panics_in.store(1, Ordering::SeqCst);
    let error = mesh.client_endpoint().call(server.address, None, &ListCollections {}, PATIENCE).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Connection, "{error}");
    assert!(vecino_supervise::panics() > before);
    crate::fixture::warned(&["serving a connection", "it panicked", "as asked"]).await;
    mesh.client_endpoint().call(server.address, None, &ListCollections {}, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_panic_while_a_node_is_dialled_is_told_and_the_next_call_dials_again() {
    let mesh = Mesh::new();
    let (server, peer) = (mesh.server(), mesh.server());
    // The pool asks first, and then the dial itself does.
    peer.service.identity_panics_in.store(2, Ordering::SeqCst);
    let error = peer.endpoint.call(server.address, None, &CatalogFetch {}, PATIENCE).await.unwrap_err();
    assert!(error.message.contains("dialling a node panicked: as asked"), "{error}");
    let again = async {
        // The pool rests a moment after a dial that failed.
        while peer.endpoint.call(server.address, None, &CatalogFetch {}, PATIENCE).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon("a dial", again).await;
}
