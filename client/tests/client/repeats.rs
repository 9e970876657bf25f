//! What a write is sent with when it is sent again, and what it is said to have come to; and how long a client waits for a
//! node that says nothing.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vecino_client::{ErrorCode, NodeId, Outcome, Retry, Version, payload, point};
use vecino_net::error::RpcError;
use vecino_net::message::{Delete, Get, Put, Rpc, Stamp, Stamped};

use crate::fake::{Asked, Clients, FakeMesh, reply};

fn stamp(time: u64) -> Version {
    Version { time, node: NodeId::from_bytes([5; 16]), seq: 7 }
}

/// Named after what went wrong: the node that was asked again stamped the put anew, so that it took effect a second time,
/// over what another client had written in between.
#[tokio::test]
async fn a_put_that_is_sent_again_takes_effect_once() {
    let mesh = FakeMesh::new();
    let (seen, asked_for_stamps) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU32::new(0)));
    let node = |loses_first: bool| {
        let (seen, asked, puts) = (Arc::clone(&seen), Arc::clone(&asked_for_stamps), AtomicU32::new(0));
        mesh.node_that_hears_all(move |request| {
            std::future::ready(match request.kind {
                Stamp::KIND => {
                    let first = u64::from(asked.fetch_add(1, Ordering::SeqCst)) * 10;
                    let ids = request.read::<Stamp>().ids;
                    reply::<Stamp>((0..ids.len()).map(|at| Stamped::Version(stamp(first + at as u64))).collect())
                }
                Put::KIND => {
                    let put: Put = request.read();
                    seen.lock().unwrap().push((put.points.len(), put.stamps.clone()));
                    let round = puts.fetch_add(1, Ordering::SeqCst);
                    if loses_first && round == 0 {
                        Err(RpcError::new(ErrorCode::Connection, "the reply was lost"))
                    } else if !loses_first && round == 0 {
                        let rest = put.stamps.iter().skip(1).map(|stamp| Outcome::Written(*stamp));
                        reply::<Put>([Outcome::Unknown("late".into())].into_iter().chain(rest).collect())
                    } else {
                        reply::<Put>(put.stamps.iter().map(|stamp| Outcome::Written(*stamp)).collect())
                    }
                }
                _ => Err(RpcError::new(ErrorCode::NotReady, "not now")),
            })
        })
    };
    let (one, other) = (node(true), node(false));
    let films = mesh.client(&[one.address, other.address]).await.collection("films");
    let versions = films.put([point(1, [0.5], payload! {}), point(2, [0.5], payload! {})]).await.unwrap();
    assert_eq!(versions, [stamp(0), stamp(1)]);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let (whole, rest) = (vec![stamp(0), stamp(1)], vec![stamp(0)]);
    assert_eq!(seen, [(2, whole.clone()), (2, whole), (1, rest)], "one lost, one partly unknown, one for the rest");
    assert_eq!(asked_for_stamps.load(Ordering::SeqCst), 1);
}

/// Named after what went wrong: a later attempt whose outcome was unknown left the "was not written" of the first in place.
#[tokio::test]
async fn an_outcome_says_unavailable_only_where_nothing_was_written() {
    let mesh = FakeMesh::new();
    let puts = AtomicU32::new(0);
    let node = mesh.quick_node(move |asked| match (asked.kind, puts.fetch_add(1, Ordering::SeqCst)) {
        (Put::KIND, 0) => reply::<Put>(vec![Outcome::Unavailable("one of two replicas".into())]),
        _ => Err(RpcError::new(ErrorCode::Timeout, "nobody knows").with_retry(Retry::Unknown)),
    });
    let client = mesh.client(&[node.address]).await.with_timeout(Duration::from_millis(400));
    let each = client.collection("films").put([point(1, [0.5], payload! {})]).each().await.unwrap();
    assert!(matches!(&each.outcomes()[0], Outcome::Unknown(_)), "{:?}", each.outcomes());
}

/// Named after what went wrong: a node that failed inside, or an answer that made no sense, counted as a refusal.
#[tokio::test]
async fn a_write_that_a_node_failed_at_is_unknown() {
    let mesh = FakeMesh::new();
    for failure in [
        Err(RpcError::new(ErrorCode::Internal, "the node panicked")),
        reply::<Put>(Vec::new()),
        Ok(b"no answer at all".to_vec()),
    ] {
        let node = mesh.quick_node(move |_| failure.clone());
        let client = mesh.client(&[node.address]).await.with_timeout(Duration::from_millis(400));
        let films = client.collection("films");
        let put = films.put([point(1, [0.5], payload! {})]).await.unwrap_err();
        assert!(put.is_unknown(), "{put}");
        let delete = films.delete([1]).repeat_unknown(false).await.unwrap_err();
        assert!(delete.is_unknown(), "{delete}");
    }
    // What was refused is refused.
    let node = mesh.quick_node(|asked| match asked.kind {
        Delete::KIND => Err(RpcError::new(ErrorCode::NotFound, "there is no such collection")),
        _ => Err(RpcError::invalid("the batch is too large")),
    });
    let films = mesh.client(&[node.address]).await.collection("films");
    assert!(!films.put([point(1, [0.5], payload! {})]).await.unwrap_err().is_unknown());
    assert!(!films.delete([1]).await.unwrap_err().is_unknown());
}

/// Named after what went wrong: a client waited for five seconds, the half of its time, when the node that it was connected
/// to was killed or paused.
#[tokio::test]
async fn a_client_does_not_wait_for_a_silent_node() {
    let mesh = FakeMesh::new();
    let is_silent = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let node = |may_be_silent: bool| {
        let is_silent = Arc::clone(&is_silent);
        mesh.node(move |asked| {
            let waits = may_be_silent && is_silent.load(Ordering::SeqCst);
            async move {
                if waits {
                    std::future::pending::<()>().await;
                }
                match asked.kind {
                    Get::KIND => reply::<Get>(vec![None; asked.read::<Get>().ids.len()]),
                    _ => reply::<Put>(asked.read::<Put>().stamps.into_iter().map(Outcome::Written).collect()),
                }
            }
        })
    };
    let (first, second) = (node(true), node(false));
    let client = mesh.client(&[first.address, second.address]).await;
    let films = client.collection("films");
    for _ in 0..20 {
        films.get([1]).await.unwrap();
        films.put([point(1, [0.5], payload! {})]).await.unwrap();
    }
    is_silent.store(true, Ordering::SeqCst);
    let began = Instant::now();
    for _ in 0..10 {
        films.get([1]).await.unwrap();
        films.put([point(1, [0.5], payload! {})]).await.unwrap();
    }
    // One wait of a fifth of a second at the most, and then the other is asked first; the half of ten seconds before.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// Points whose put is large.
fn many_points() -> Vec<vecino_client::Point> {
    (0..100).map(|id| point(id, vec![0.5], payload! {})).collect()
}

fn answer(put: Put) -> Result<Vec<u8>, RpcError> {
    reply::<Put>(put.stamps.into_iter().map(Outcome::Written).collect())
}

/// Named after what went wrong: a batch was sent to a second node after half of the time, though the first was at work on it,
/// and so all nodes did twice what they could not do once.
#[tokio::test]
async fn a_large_put_is_left_to_the_node_that_has_it_while_that_is_alive() {
    let mesh = FakeMesh::new();
    let second_puts = Arc::new(AtomicU32::new(0));
    let first = mesh.node(|asked| async move {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        answer(asked.read())
    });
    let counter = Arc::clone(&second_puts);
    let second = mesh.quick_node(move |asked| {
        counter.fetch_add(1, Ordering::SeqCst);
        answer(asked.read())
    });
    let client = mesh.client(&[first.address, second.address]).await.with_timeout(Duration::from_millis(2_500));
    client.collection("films").put(many_points()).await.unwrap();
    assert_eq!(second_puts.load(Ordering::SeqCst), 0);
}

/// Reads that are large are as much work to send as writes are.
#[tokio::test]
async fn a_large_get_is_left_to_the_node_that_has_it_while_that_is_alive() {
    let mesh = FakeMesh::new();
    let second_gets = Arc::new(AtomicU32::new(0));
    let nothing = |asked: Asked| {
        let Get { ids, .. } = asked.read();
        reply::<Get>(vec![None; ids.len()])
    };
    let first = mesh.node(move |asked| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        nothing(asked)
    });
    let counter = Arc::clone(&second_gets);
    let second = mesh.quick_node(move |asked| {
        counter.fetch_add(1, Ordering::SeqCst);
        nothing(asked)
    });
    let client = mesh.client(&[first.address, second.address]).await;
    let ids = |count: usize| (0..count).map(|id| format!("{id:0>100}"));
    client.collection("films").get(ids(1_000)).await.unwrap();
    assert_eq!(second_gets.load(Ordering::SeqCst), 0);
    client.collection("films").get(ids(1)).await.unwrap();
    assert!(second_gets.load(Ordering::SeqCst) > 0, "a small one goes to a second node when the first is late");
}

/// A node that is paused acknowledges nothing.
#[tokio::test]
async fn a_large_put_goes_to_a_second_node_where_the_first_says_nothing_at_all() {
    let mesh = FakeMesh::new();
    let begun = Arc::new(tokio::sync::Notify::new());
    let first = mesh.node({
        let begun = Arc::clone(&begun);
        move |_| {
            begun.notify_one();
            std::future::pending()
        }
    });
    let second = mesh.quick_node(|asked| answer(asked.read()));
    let relay = Relay::to(first.address).await;
    let client = mesh.client(&[relay.address, second.address]).await;
    let put = tokio::spawn({
        let films = client.collection("films");
        async move { films.put(many_points()).await }
    });
    begun.notified().await;
    relay.is_cut.store(true, Ordering::SeqCst);
    let cut = Instant::now();
    put.await.unwrap().unwrap();
    assert!(cut.elapsed() < Duration::from_secs(2), "{:?}", cut.elapsed());
}

/// Passes packets on to a node and back, until it is cut.
struct Relay {
    address: std::net::SocketAddr,
    is_cut: Arc<std::sync::atomic::AtomicBool>,
}

impl Relay {
    async fn to(node: std::net::SocketAddr) -> Self {
        let bind = || tokio::net::UdpSocket::bind((node.ip(), 0));
        let (outside, inside) = (Arc::new(bind().await.unwrap()), Arc::new(bind().await.unwrap()));
        inside.connect(node).await.unwrap();
        let relay = Self { address: outside.local_addr().unwrap(), is_cut: Arc::default() };
        let is_cut = Arc::clone(&relay.is_cut);
        tokio::spawn(async move {
            let (mut there, mut back, mut client) = ([0; 2048], [0; 2048], None);
            while !is_cut.load(Ordering::SeqCst) {
                tokio::select! {
                    Ok((bytes, from)) = outside.recv_from(&mut there) => {
                        client = Some(from);
                        let _ = inside.send(&there[..bytes]).await;
                    }
                    Ok(bytes) = inside.recv(&mut back) => {
                        if let Some(client) = client {
                            let _ = outside.send_to(&back[..bytes], client).await;
                        }
                    }
                }
            }
            // The sockets stay open: a closed port would say that nobody is there.
            std::future::pending::<()>().await;
        });
        relay
    }
}
