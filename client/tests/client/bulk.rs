//! Bulk loading: batches, the bound on what is on its way, what is written again, and what is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use vecino_client::{
    BulkError, BulkEvent, BulkOptions, BulkSummary, ErrorCode, Level, Outcome, Payload, Point, PointId, RawPoint,
    Version, point,
};
use vecino_net::error::RpcError;
use vecino_net::message::Put;

use crate::fake::{Clients, FakeMesh, FakeNode, reply};

fn a_point(id: u64) -> Point {
    point(id, vec![id as f32; 8], Payload::new())
}

fn written(_: &RawPoint) -> Outcome {
    Outcome::Written(Version::ZERO)
}

/// A node that judges each point, and remembers the batches that it was sent.
fn node(
    mesh: &FakeMesh,
    judge: impl Fn(&RawPoint) -> Outcome + Send + Sync + 'static,
) -> (FakeNode, Arc<Mutex<Vec<Vec<RawPoint>>>>) {
    let batches = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&batches);
    let node = mesh.quick_node(move |asked| {
        let put: Put = asked.read();
        let outcomes = put.points.iter().map(&judge).collect();
        seen.lock().unwrap().push(put.points);
        reply::<Put>(outcomes)
    });
    (node, batches)
}

fn ids(points: &[RawPoint]) -> Vec<PointId> {
    points.iter().map(|point| point.id.clone()).collect()
}

/// Pushes points and finishes.
async fn load(options: BulkOptions<'_>, points: impl IntoIterator<Item = Point>) -> Result<BulkSummary, BulkError> {
    let mut loader = options.start();
    for point in points {
        loader.push(point).await?;
    }
    loader.finish().await
}

#[tokio::test]
async fn pushing_waits_while_as_many_batches_as_allowed_are_on_their_way() {
    const BATCH: usize = 10;
    const IN_FLIGHT: usize = 3;
    const POINTS: u64 = 200;
    let mesh = FakeMesh::new();
    let (gate, now, most) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let node = {
        let (gate, now, most) = (Arc::clone(&gate), Arc::clone(&now), Arc::clone(&most));
        mesh.node(move |asked| {
            let (gate, now, most, arrived) = (Arc::clone(&gate), Arc::clone(&now), Arc::clone(&most), arrived.clone());
            async move {
                let put: Put = asked.read();
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                arrived.send(put.points.len()).unwrap();
                gate.acquire().await.unwrap().forget();
                now.fetch_sub(1, Ordering::SeqCst);
                reply::<Put>(put.points.iter().map(written).collect())
            }
        })
    };
    let client = mesh.client(&[node.address]).await;
    let mut acknowledged = BTreeSet::new();
    let pushed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pushed);
    let loading = tokio::spawn(async move {
        let options = client.collection("c").bulk().batch_points(BATCH).in_flight(IN_FLIGHT);
        let mut loader = options
            .on_event(|event| {
                let BulkEvent::Written { ids } = event else { panic!("{event:?}") };
                assert!(ids.iter().all(|id| acknowledged.insert(id.clone())), "reported once");
            })
            .start();
        for id in 0..POINTS {
            loader.push(a_point(id)).await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
        }
        assert_eq!(loader.finish().await.unwrap().all_written().unwrap(), POINTS);
        acknowledged
    });
    for _ in 0..IN_FLIGHT {
        assert_eq!(arrivals.recv().await.unwrap(), BATCH);
    }
    // Everything that can run has run once the loader waits: one batch more is collected, and no more.
    while pushed.load(Ordering::SeqCst) < (IN_FLIGHT + 1) * BATCH {
        tokio::task::yield_now().await;
    }
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pushed.load(Ordering::SeqCst), (IN_FLIGHT + 1) * BATCH);
    assert!(arrivals.try_recv().is_err());
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    assert_eq!(loading.await.unwrap(), (0..POINTS).map(PointId::from).collect());
    assert_eq!(most.load(Ordering::SeqCst), IN_FLIGHT);
}

#[tokio::test]
async fn refused_points_are_counted_with_their_reasons_and_the_others_written() {
    let mesh = FakeMesh::new();
    let (node, _) = node(&mesh, |point| match point.id {
        PointId::Number(id) if id % 2 == 1 => Outcome::Refused(format!("vector has NaN at {id}")),
        _ => written(point),
    });
    let client = mesh.client(&[node.address]).await;
    let mut refused = BTreeSet::new();
    let options = client.collection("c").bulk().batch_points(7).on_event(|event| {
        if let BulkEvent::NotWritten { point } = event {
            assert!(refused.insert(point.id.clone()), "reported once");
        }
    });
    let summary = load(options, (0..40).map(a_point)).await.unwrap();
    assert_eq!(refused, (0..20).map(|half| PointId::from(2 * half + 1)).collect());
    assert_eq!((summary.written, summary.refused, summary.failed, summary.unsent), (20, 20, 0, 0));
    assert_eq!(summary.first_unwritten.len(), 10, "reasons are bounded");
    let error = summary.all_written().unwrap_err().to_string();
    assert!(error.contains("20 refused") && error.contains("was refused: vector has NaN at"), "{error}");
}

#[tokio::test]
async fn what_a_mesh_did_not_take_is_written_again_and_nothing_else() {
    let mesh = FakeMesh::new();
    let away = AtomicUsize::new(30);
    let (node, batches) = node(&mesh, move |point| {
        let third = matches!(point.id, PointId::Number(id) if id % 3 == 0);
        let still_away = || away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        match third && still_away() {
            true => Outcome::Unavailable("one replica is away".into()),
            false => written(point),
        }
    });
    let client = mesh.client(&[node.address]).await.with_timeout(Duration::from_millis(300));
    let (mut waited, mut resumed) = (0, 0);
    let options = client.collection("c").bulk().batch_points(10).level(Level::All).on_event(|event| match event {
        BulkEvent::Waiting { points, reason } => {
            assert!((1..=14).contains(&points) && reason == "one replica is away", "{event:?}");
            waited += 1;
        }
        BulkEvent::Resumed => resumed += 1,
        _ => {}
    });
    assert_eq!(load(options, (0..40).map(a_point)).await.unwrap().all_written().unwrap(), 40);
    assert!(waited >= 1 && resumed >= 1, "{waited} {resumed}");
    let mut times: BTreeMap<PointId, usize> = BTreeMap::new();
    for id in batches.lock().unwrap().iter().flat_map(|batch| ids(batch)) {
        *times.entry(id).or_default() += 1;
    }
    assert!((0..40).filter(|id| id % 3 != 0).all(|id| times[&id.into()] == 1), "{times:?}");
}

/// Named after what went wrong: patience counted the pauses only, so that six seconds of it took twenty-four.
#[tokio::test]
async fn patience_is_wall_clock_time() {
    const PATIENCE: Duration = Duration::from_millis(1200);
    let mesh = FakeMesh::new();
    let node = mesh.node(|_| std::future::pending());
    let client = mesh.client(&[node.address]).await.with_timeout(Duration::from_secs(30));
    let began = Instant::now();
    let error = load(client.collection("c").bulk().patience(PATIENCE), [a_point(1)]).await.unwrap_err();
    let took = began.elapsed();
    let BulkError::GaveUp { points, waited, .. } = &error else { panic!("{error}") };
    assert_eq!(*points, 1);
    assert!(*waited >= PATIENCE && *waited <= took, "{error}");
    // The last attempt may take a second longer than patience; other work on this machine some more.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_loader_that_gave_up_says_what_it_left_and_takes_no_more() {
    let mesh = FakeMesh::new();
    let (node, _) = node(&mesh, |point| match point.id {
        PointId::Number(7) => Outcome::Unavailable("one replica is away".into()),
        _ => written(point),
    });
    let client = mesh.client(&[node.address]).await.with_timeout(Duration::from_millis(100));
    let mut loader = client.collection("c").bulk().patience(Duration::ZERO).start();
    for id in 0..10 {
        loader.push(a_point(id)).await.unwrap();
    }
    let error = loader.flush().await.unwrap_err().to_string();
    assert_eq!(error, "gave up after waiting 0 s for 1 points: one replica is away");
    assert!(matches!(loader.push(a_point(11)).await, Err(BulkError::Ended)));
    let summary = loader.stop().await;
    assert_eq!((summary.written, summary.failed, summary.unsent), (9, 1, 0));
    assert!(summary.all_written().is_err());
}

#[tokio::test]
async fn an_unknown_outcome_is_final_where_the_caller_says_so() {
    let mesh = FakeMesh::new();
    let (node, batches) = node(&mesh, |_| Outcome::Unknown("one of two replicas is late".into()));
    let client = mesh.client(&[node.address]).await;
    let summary = load(client.collection("c").bulk().repeat_unknown(false), [a_point(1)]).await.unwrap();
    assert_eq!((summary.written, summary.refused, summary.failed), (0, 0, 1));
    assert_eq!(batches.lock().unwrap().len(), 1);
    assert!(summary.to_string().contains("may or may not have been written"), "{summary}");
}

#[tokio::test]
async fn a_batch_that_is_refused_as_a_whole_ends_the_load() {
    let mesh = FakeMesh::new();
    let node = mesh.quick_node(|_| Err(RpcError::new(ErrorCode::NotFound, "no such collection")));
    let client = mesh.client(&[node.address]).await;
    let mut loader = client.collection("c").bulk().batch_points(2).in_flight(1).start();
    let mut end = Ok(());
    for id in 0..100 {
        end = loader.push(a_point(id)).await;
        if end.is_err() {
            break;
        }
    }
    let Err(BulkError::Request(error)) = end else { panic!("{end:?}") };
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
    let summary = loader.stop().await;
    assert_eq!((summary.written, summary.refused), (0, 0));
    assert!(summary.failed >= 2 && summary.failed + summary.unsent < 10, "{summary:?}");
}

#[tokio::test]
async fn points_of_one_id_are_written_in_the_order_in_which_they_were_pushed() {
    let mesh = FakeMesh::new();
    let first_try = AtomicUsize::new(0);
    // The first has to be sent again, which would put it behind the others if they were on their way already.
    let (node, batches) = node(&mesh, move |point| match point.vectors[""].0[0] {
        1.0 if first_try.fetch_add(1, Ordering::SeqCst) == 0 => Outcome::Unavailable("one replica is away".into()),
        _ => written(point),
    });
    let client = mesh.client(&[node.address]).await;
    let points = [("a", 1.0), ("b", 2.0), ("a", 3.0), ("a", 4.0)].map(|(id, x)| point(id, [x], Payload::new()));
    assert_eq!(load(client.collection("c").bulk(), points).await.unwrap().all_written().unwrap(), 4);
    let batches = batches.lock().unwrap();
    let of_a: Vec<f32> =
        batches.iter().flatten().filter(|point| point.id == "a".into()).map(|point| point.vectors[""].0[0]).collect();
    assert_eq!(of_a, [1.0, 1.0, 3.0, 4.0]);
}

#[tokio::test]
async fn batches_are_bounded_in_bytes_and_a_larger_point_goes_alone() {
    let mesh = FakeMesh::new();
    let (node, batches) = node(&mesh, written);
    let client = mesh.client(&[node.address]).await;
    // About 4 KB, 4 KB, 4 KB, 40 KB, 4 KB.
    let points = [(0, 1000), (1, 1000), (2, 1000), (3, 10_000), (4, 1000)];
    let points = points.map(|(id, dim)| point(id, vec![1.0; dim], Payload::new()));
    let summary = load(client.collection("c").bulk().batch_bytes(10_000).in_flight(1), points).await.unwrap();
    assert_eq!(summary.written, 5);
    let seen: Vec<_> = batches.lock().unwrap().iter().map(|batch| ids(batch)).collect();
    let expected: Vec<Vec<PointId>> = vec![vec![0.into(), 1.into()], vec![2.into()], vec![3.into()], vec![4.into()]];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_stopped_loader_waits_for_what_is_on_its_way_and_sends_nothing_more() {
    let mesh = FakeMesh::new();
    let (node, batches) = node(&mesh, written);
    let client = mesh.client(&[node.address]).await;
    let mut loader = client.collection("c").bulk().batch_points(4).start();
    for id in 0..6 {
        loader.push(a_point(id)).await.unwrap();
    }
    let summary = loader.stop().await;
    assert_eq!((summary.written, summary.failed, summary.unsent), (4, 0, 2));
    assert_eq!(batches.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_loader_that_is_dropped_before_its_end_says_so_in_the_log() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mesh = FakeMesh::new();
    let (node, _) = node(&mesh, written);
    let client = mesh.client(&[node.address]).await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let text = || String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    load(client.collection("c").bulk(), [a_point(1)]).await.unwrap().all_written().unwrap();
    assert!(!text().contains("dropped"), "{}", text());
    let mut loader = client.collection("c").bulk().start();
    loader.push(a_point(1)).await.unwrap();
    drop(loader);
    assert!(text().contains("dropped before finish()") && text().contains("points=1"), "{}", text());
}
