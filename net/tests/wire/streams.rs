//! Answers in chunks: order, errors, who waits for whom, and giving up on either side.

use std::time::Duration;

use vecino_model::Level;
use vecino_net::endpoint::{Chunks, Endpoint};
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::message::{Dropped, ListCollections, Rpc, Scan, ScanStream};
use vecino_net::rpc::{TraceId, encode};

use crate::fixture::{CHUNK_BYTES, Mesh, PATIENCE, Server, order, soon};

/// Asks for this many chunks; the name says what the service does after them.
fn stream(name: &str, chunks: u32) -> ScanStream {
    let collection = name.to_owned();
    let (level, with_vectors, with_payload) = (Level::One, true, true);
    ScanStream { scan: Scan { collection, after: None, limit: chunks, level, with_vectors, with_payload } }
}

async fn open(from: &Endpoint, to: &Server, name: &str, chunks: u32) -> Chunks<ScanStream> {
    from.call_streaming(to.address, None, &stream(name, chunks), 2 * PATIENCE).await.unwrap()
}

/// Numbers of the chunks that come, and what ends them.
async fn read(mut chunks: Chunks<ScanStream>) -> (Vec<u64>, Option<RpcError>) {
    let mut numbers = Vec::new();
    loop {
        match soon("a chunk", chunks.try_next()).await {
            Ok(Some(page)) => numbers.push(page.next.unwrap().position),
            Ok(None) => return (numbers, None),
            Err(error) => {
                assert!(matches!(chunks.try_next().await, Ok(None)), "nothing comes after an error");
                return (numbers, Some(error));
            }
        }
    }
}

#[tokio::test]
async fn chunks_come_in_their_order_and_an_end_behind_them() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    for count in [0, 1, 50] {
        let (numbers, error) = read(open(&client, &server, "end", count).await).await;
        assert_eq!((numbers, error), ((0..count.into()).collect(), None));
    }
    let trace = TraceId::random();
    read(trace.scope(open(&client, &server, "end", 1)).await).await;
    assert_eq!(server.service.contexts.lock().unwrap().last().unwrap().trace, trace);
}

#[tokio::test]
async fn an_error_and_a_panic_come_behind_the_chunks_that_were_sent_before() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let (numbers, error) = read(open(&client, &server, "fail", 3).await).await;
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!(error.map(|error| (error.code, error.message)), Some((ErrorCode::NotFound, "as asked".to_owned())));
    let (numbers, error) = read(open(&client, &server, "panic", 2).await).await;
    assert_eq!((numbers.len(), error.unwrap().code), (2, ErrorCode::Internal));
}

#[tokio::test]
async fn a_caller_that_reads_slowly_holds_the_node_up() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let mut chunks = open(&client, &server, "end", 100).await;
    // What fits the window of the stream, one chunk that is being sent, one in the channel, and one being made.
    let ahead = (4 << 20) / CHUNK_BYTES + 3;
    for read in 1..=100 {
        soon("a chunk", chunks.try_next()).await.unwrap().unwrap();
        let made = *server.service.chunks.borrow();
        assert!(made <= read + ahead, "{made} chunks were made when {read} were read");
    }
    assert!(chunks.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn dropping_the_chunks_cancels_the_work() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let mut cancelled = server.service.cancelled.subscribe();
    let mut chunks = open(&client, &server, "wait", 1).await;
    assert!(soon("a chunk", chunks.try_next()).await.unwrap().is_some());
    drop(chunks);
    soon("cancelling", cancelled.wait_for(|cancelled| *cancelled == 1)).await.unwrap();
}

#[tokio::test]
async fn a_chunk_that_was_given_up_half_read_is_not_taken_for_the_end() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let mut chunks = open(&client, &server, "wait", 0).await;
    soon("the call", server.service.held.subscribe().wait_for(|held| *held == 1)).await.unwrap();
    assert!(tokio::time::timeout(Duration::ZERO, chunks.try_next()).await.is_err());
    assert_eq!(chunks.try_next().await.unwrap_err().code, ErrorCode::Protocol);
}

#[tokio::test]
async fn the_deadline_of_a_stream_ends_it_and_its_work() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let request = stream("wait", 2);
    let chunks = client.call_streaming(server.address, None, &request, Duration::from_millis(300)).await.unwrap();
    let (numbers, error) = read(chunks).await;
    assert_eq!((numbers.len(), error.unwrap().code), (2, ErrorCode::Timeout));
    soon("cancelling", server.service.cancelled.subscribe().wait_for(|cancelled| *cancelled == 1)).await.unwrap();
}

#[tokio::test]
async fn ordinary_calls_do_not_wait_behind_streams_that_nobody_reads() {
    let mesh = Mesh::new();
    let (server, peer) = (mesh.server(), mesh.server());
    let mut unread = Vec::new();
    for _ in 0..20 {
        unread.push(open(&peer.endpoint, &server, "end", 1000).await);
    }
    // As much as the window of a whole connection holds; the rest of every stream waits.
    let full = (32 << 20) / CHUNK_BYTES;
    soon("a full window", server.service.chunks.subscribe().wait_for(|made| *made >= full)).await.unwrap();
    let answer = peer.endpoint.call(server.address, Some(server.id), &order("do"), PATIENCE).await;
    assert_eq!(answer, Ok(Dropped::default()));
    assert_eq!(server.endpoint.open_connections(), 2);
    drop(unread);
    let (numbers, error) = read(open(&peer.endpoint, &server, "end", 5).await).await;
    assert_eq!((numbers.len(), error), (5, None), "what was given up makes room");
}

#[tokio::test]
async fn a_closing_node_waits_for_streams_that_are_being_read() {
    let mesh = Mesh::new();
    let server = mesh.server();
    let client = mesh.client_endpoint();
    let chunks = open(&client, &server, "end", 40).await;
    soon("a chunk", server.service.chunks.subscribe().wait_for(|made| *made > 0)).await.unwrap();
    let closing = {
        let endpoint = server.endpoint.clone();
        tokio::spawn(async move { endpoint.close(PATIENCE).await })
    };
    let (numbers, error) = read(chunks).await;
    assert_eq!((numbers.len(), error), (40, None));
    soon("closing", closing).await.unwrap();
}

#[tokio::test]
async fn a_kind_that_has_one_reply_cannot_be_asked_for_chunks_nor_the_other_way_round() {
    use crate::raw::{Raw, reply, request};
    use vecino_net::frame::{RequestHeader, StreamKind};

    let mesh = Mesh::new();
    let server = mesh.server();
    let raw = Raw::connect(&mesh.client(), vecino_certs::ALPN_CLIENT, server.address).await.unwrap();
    raw.hello(None).await.unwrap();
    let body = encode(&ListCollections {}).unwrap();
    let mut header = RequestHeader::decode(&request(ListCollections::KIND, &body)).unwrap();
    header.stream = StreamKind::Chunks;
    let refused = reply(&raw.send(&[&header.encode()[..], &body].concat()).await.unwrap()).unwrap_err();
    assert!(refused.message.contains("ListCollections") && refused.message.contains("Chunks"), "{refused}");
    let refused = raw.ask(ScanStream::KIND, &encode(&stream("end", 1)).unwrap()).await.unwrap_err();
    assert!(refused.code == ErrorCode::Protocol && refused.message.contains("ScanStream"), "{refused}");
    let refused = raw.ask(vecino_net::message::GOSSIP_KIND, b"").await.unwrap_err();
    assert!(refused.message.contains("one direction"), "{refused}");
}
