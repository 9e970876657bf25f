//! Calls to a node that was killed and came back.

use std::time::Duration;

use vecino_net::endpoint::{Endpoint, EndpointOptions};
use vecino_net::error::ErrorCode;
use vecino_net::message::Dropped;

use crate::child::Node;
use crate::fixture::{Mesh, PATIENCE, options, order};

/// With these the idle timeout cannot end a connection, nor a keep-alive find out about it, before the test is over.
fn endless() -> EndpointOptions {
    EndpointOptions { idle_timeout: 20 * PATIENCE, keep_alive: 10 * PATIENCE, ..options() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_to_a_node_that_was_killed_and_restarted_does_not_hang_and_the_next_one_works() {
    let mesh = Mesh::new();
    let node = Node::new(&mesh, "crashing");
    let life = node.start("127.0.0.1:0".parse().unwrap(), None, 1);
    let address = life.address;
    let caller = Endpoint::client(&mesh.client(), endless()).unwrap();
    assert_eq!(caller.call(address, Some(node.id), &order("do"), PATIENCE).await, Ok(Dropped::default()));
    life.kill();
    let life = node.start(address, None, 2);
    assert_eq!(life.address, address);

    // A packet of the old connection that was still on its way may have brought the reset before the call; then the
    // call dials anew. Without the reset it would hang until its deadline.
    let started = std::time::Instant::now();
    match caller.call(address, Some(node.id), &order("do"), PATIENCE).await {
        Ok(Dropped { .. }) => println!("dialled anew within {:?}", started.elapsed()),
        Err(error) => {
            println!("failed after {:?}: {error}", started.elapsed());
            assert_eq!(error.code, ErrorCode::Connection, "a timeout would mean that it hung: {error}");
            assert!(error.message.contains("restarted"), "{error}");
        }
    }
    assert_eq!(caller.call(address, Some(node.id), &order("do"), PATIENCE).await, Ok(Dropped::default()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_fails_at_once_when_its_node_is_killed_and_restarted() {
    let mesh = Mesh::new();
    let node = Node::new(&mesh, "crashing");
    let life = node.start("127.0.0.1:0".parse().unwrap(), None, 1);
    let address = life.address;
    // Keep-alives reach the new life, whose answer is the reset.
    let watchful = EndpointOptions { keep_alive: Duration::from_millis(200), idle_timeout: 20 * PATIENCE, ..options() };
    let caller = Endpoint::client(&mesh.client(), watchful).unwrap();
    caller.call(address, None, &order("do"), PATIENCE).await.unwrap();
    let call = {
        let caller = caller.clone();
        tokio::spawn(async move { caller.call(address, None, &order("wait"), PATIENCE).await })
    };
    life.kill();
    let _life = node.start(address, None, 2);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::Connection, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_known_to_be_lost_is_replaced_without_an_error() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let caller = mesh.client_endpoint();
    caller.call(server.address, None, &order("do"), PATIENCE).await.unwrap();
    let address = server.address;
    server.endpoint.close(Duration::ZERO).await;
    drop(server);
    let again = crate::fixture::Server::start(&mesh.node(), EndpointOptions { listen: address, ..options() });
    assert_eq!(caller.call(address, Some(again.id), &order("do"), PATIENCE).await, Ok(Dropped::default()));
}
