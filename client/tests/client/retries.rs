//! What the client does when a node fails: whom it asks next, when, and when it gives up.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use vecino_client::{ClientError, ErrorCode, Level, Metric, Outcome, Retry, Version, point};
use vecino_net::error::RpcError;
use vecino_net::message::{DropCollection, ListCollections, Put};

use crate::fake::{Clients, FakeMesh, FakeNode, reply};

fn points(ids: std::ops::Range<u64>) -> Vec<vecino_client::Point> {
    ids.map(|id| point(id, vec![1.0], Default::default())).collect()
}

fn written(count: usize) -> Vec<Outcome> {
    vec![Outcome::Written(Version::ZERO); count]
}

/// A node that answers with these failures first, one for each request, and with no collections afterwards; counts the
/// requests.
fn failing(mesh: &FakeMesh, failures: Vec<RpcError>) -> (FakeNode, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    let node = mesh.node(move |_| {
        let index = counter.fetch_add(1, Ordering::SeqCst) as usize;
        std::future::ready(match failures.get(index) {
            Some(error) => Err(error.clone()),
            None => reply::<ListCollections>(Vec::new()),
        })
    });
    (node, count)
}

#[tokio::test]
async fn an_overloaded_node_is_asked_again_after_the_pause_that_it_asked_for() {
    const PAUSE: Duration = Duration::from_millis(60);
    let mesh = FakeMesh::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&asked);
    let node = mesh.node(move |_| {
        let mut times = times.lock().unwrap();
        times.push(Instant::now());
        let overloaded = RpcError::new(ErrorCode::Overloaded, "busy").with_retry(Retry::AfterMs(60));
        std::future::ready(if times.len() < 4 { Err(overloaded) } else { reply::<ListCollections>(Vec::new()) })
    });
    let client = mesh.client(&[node.address]).await;
    assert!(client.collections().await.unwrap().is_empty());
    let times = asked.lock().unwrap();
    assert_eq!(times.len(), 4);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= PAUSE), "{times:?}");
}

#[tokio::test]
async fn a_node_that_cannot_serve_now_is_left_for_the_next_one() {
    let mesh = FakeMesh::new();
    for code in [ErrorCode::NotReady, ErrorCode::Unavailable, ErrorCode::Overloaded] {
        let (first, first_count) = failing(&mesh, vec![RpcError::new(code, "not now"); 100]);
        let (second, second_count) = failing(&mesh, Vec::new());
        let client = mesh.client(&[first.address, second.address]).await;
        for _ in 0..3 {
            client.collections().await.unwrap();
        }
        assert_eq!(
            first_count.load(Ordering::SeqCst),
            1,
            "{code:?}: the node that answered is asked first from then on"
        );
        assert_eq!(second_count.load(Ordering::SeqCst), 3, "{code:?}");
    }
}

#[tokio::test]
async fn a_dead_address_is_left_for_the_next_one_and_not_tried_first_again() {
    let mesh = FakeMesh::new();
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    dead.set_nonblocking(true).unwrap();
    let (node, count) = failing(&mesh, Vec::new());
    let client = mesh.client(&[dead.local_addr().unwrap(), node.address]).await;
    client.collections().await.unwrap();
    let mut datagram = [0; 2048];
    assert!(dead.recv(&mut datagram).is_ok(), "the first address was tried");
    while dead.recv(&mut datagram).is_ok() {}
    client.collections().await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert!(dead.recv(&mut datagram).is_err(), "the dead address was not tried again");
}

#[tokio::test]
async fn a_failure_that_would_come_again_is_reported_at_once_with_the_node() {
    let mesh = FakeMesh::new();
    let (node, count) =
        failing(&mesh, vec![RpcError::new(ErrorCode::NotFound, "collection \"films\" does not exist"); 9]);
    let (other, other_count) = failing(&mesh, Vec::new());
    let client = mesh.client(&[node.address, other.address]).await;
    let error = client.collection("films").describe().await.unwrap_err();
    assert_eq!((error.code(), error.node()), (Some(ErrorCode::NotFound), Some(node.address)));
    assert!(!error.is_safe_to_retry() && !error.is_unknown());
    assert_eq!(error.to_string(), format!("{}: collection \"films\" does not exist", node.address));
    assert_eq!((count.load(Ordering::SeqCst), other_count.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn every_node_gets_a_few_chances_before_the_mesh_is_reported_unavailable() {
    let mesh = FakeMesh::new();
    let (one, one_count) =
        failing(&mesh, vec![RpcError::new(ErrorCode::Unavailable, "range 1..2 has no live replica"); 99]);
    let (two, two_count) =
        failing(&mesh, vec![RpcError::new(ErrorCode::Unavailable, "range 1..2 has no live replica"); 99]);
    let error = mesh.client(&[one.address, two.address]).await.collections().await.unwrap_err();
    assert_eq!((one_count.load(Ordering::SeqCst), two_count.load(Ordering::SeqCst)), (3, 3));
    assert!(error.is_safe_to_retry());
    let text = error.to_string();
    assert!(text.contains("range 1..2") && text.contains("6 attempts") && text.contains("nothing happened"), "{text}");
}

#[tokio::test]
async fn an_uncertain_put_is_repeated_and_an_uncertain_create_is_not() {
    let mesh = FakeMesh::new();
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    let lost = || RpcError::new(ErrorCode::Connection, "the reply was lost");
    let node = mesh.node(move |asked| {
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        std::future::ready(if first { Err(lost()) } else { reply::<Put>(written(asked.read::<Put>().points.len())) })
    });
    let client = mesh.client(&[node.address]).await;
    let collection = client.collection("c");
    assert_eq!(collection.put(points(0..2)).await.unwrap(), [Version::ZERO; 2]);
    assert_eq!(count.swap(0, Ordering::SeqCst), 2);

    let once = collection.put(points(0..2)).repeat_unknown(false);
    assert!(once.await.unwrap_err().is_unknown());
    assert_eq!(count.swap(0, Ordering::SeqCst), 1);

    let error = collection.create(1, Metric::Dot).await.unwrap_err();
    assert!(error.is_unknown() && !error.is_safe_to_retry());
    assert!(error.to_string().contains("whether it took effect is unknown"), "{error}");
    assert_eq!(count.swap(0, Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_create_that_surely_did_not_happen_is_repeated() {
    let mesh = FakeMesh::new();
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    let node = mesh.node(move |asked| {
        asked.read::<DropCollection>();
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        let not_ready = RpcError::new(ErrorCode::NotReady, "has not joined a mesh yet");
        std::future::ready(if first {
            Err(not_ready)
        } else {
            reply::<DropCollection>(vecino_net::message::Dropped::default())
        })
    });
    mesh.client(&[node.address]).await.collection("c").drop_collection().await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn only_unsettled_points_of_a_batch_are_written_again() {
    let mesh = FakeMesh::new();
    let (sender, mut batches) = mpsc::unbounded_channel();
    let node = mesh.node(move |asked| {
        let put: Put = asked.read();
        let ids: Vec<_> = put.points.iter().map(|point| point.id.to_string()).collect();
        let first = ids.len() == 5;
        sender.send(ids).unwrap();
        let outcomes = put.points.iter().map(|point| match (first, point.id.to_string().as_str()) {
            (true, "1") => Outcome::Unknown("one replica was late".into()),
            (true, "2") => Outcome::Refused("vector has dimension 1, not 2".into()),
            (true, "3") => Outcome::Unavailable("one of two replicas".into()),
            _ => Outcome::Written(Version::ZERO),
        });
        std::future::ready(reply::<Put>(outcomes.collect()))
    });
    let client = mesh.client(&[node.address]).await;
    let report = client.collection("c").put(points(0..5)).level(Level::All).each().await.unwrap();
    let refused = Outcome::Refused("vector has dimension 1, not 2".into());
    let mut expected = written(5);
    expected[2] = refused;
    assert_eq!(report.outcomes(), expected);
    assert_eq!(batches.recv().await.unwrap(), ["0", "1", "2", "3", "4"]);
    assert_eq!(batches.recv().await.unwrap(), ["1", "3"]);
    assert!(batches.try_recv().is_err());
}

#[tokio::test]
async fn a_node_that_never_answers_is_given_up_at_the_deadline_and_its_work_is_cancelled() {
    struct Cancelled(mpsc::UnboundedSender<()>);
    impl Drop for Cancelled {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    const PATIENCE: Duration = Duration::from_millis(300);
    let mesh = FakeMesh::new();
    let (cancelled, mut cancellations) = mpsc::unbounded_channel();
    let (deadlines, mut deadline) = mpsc::unbounded_channel();
    let node = mesh.node(move |asked| {
        let guard = Cancelled(cancelled.clone());
        deadlines.send(asked.context.deadline.saturating_duration_since(Instant::now())).unwrap();
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    });
    let client = mesh.client(&[node.address]).await.with_timeout(PATIENCE);
    let began = Instant::now();
    let error = client.collections().await.unwrap_err();
    assert!(began.elapsed() >= PATIENCE, "it gave up after {:?}", began.elapsed());
    assert_eq!(error.code(), Some(ErrorCode::Timeout));
    assert!(error.is_safe_to_retry(), "a read does nothing: {error}");
    assert!(deadline.recv().await.unwrap() <= PATIENCE, "the node knows the deadline");
    cancellations.recv().await.unwrap();
}

#[tokio::test]
async fn a_client_of_another_mesh_is_refused_with_the_reason() {
    let (mesh, other) = (FakeMesh::new(), FakeMesh::new());
    let (node, count) = failing(&mesh, Vec::new());
    let error = other.client(&[node.address]).await.collections().await.unwrap_err();
    let ClientError::Request { attempts, code, message, .. } = &error else { panic!("{error}") };
    assert_eq!((*attempts, *code), (1, ErrorCode::Connection));
    assert!(message.to_lowercase().contains("certificate"), "{message}");
    assert_eq!(count.load(Ordering::SeqCst), 0);
}
