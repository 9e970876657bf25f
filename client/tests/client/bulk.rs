//! Bulk loading: batches, the bound on what is on its way, and reports on every point.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use vecino_client::{BatchReport, BulkOptions, ErrorCode, Outcome, Payload, Point, PointId, Version, point};
use vecino_net::error::RpcError;
use vecino_net::message::Put;

use crate::fake::{FakeMesh, reply};

fn a_point(id: u64) -> Point {
    point(id, vec![id as f32; 8], Payload::new())
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
                reply::<Put>(vec![Outcome::Written(Version::ZERO); put.points.len()])
            }
        })
    };
    let client = mesh.client(&[node.address]).await;
    let options = BulkOptions { batch_points: BATCH, in_flight: IN_FLIGHT, ..BulkOptions::default() };
    let mut loader = client.bulk_loader("c", options);
    let pushed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pushed);
    let loading = tokio::spawn(async move {
        let mut acknowledged = BTreeSet::new();
        let mut note = |report: Option<BatchReport>| {
            let report = report?;
            assert!(report.error.is_none() && report.refused.is_empty() && report.unknown.is_empty());
            assert!(report.acknowledged.into_iter().all(|id| acknowledged.insert(id)), "reported once");
            Some(())
        };
        for id in 0..POINTS {
            note(loader.push(a_point(id)).await);
            counter.fetch_add(1, Ordering::SeqCst);
        }
        while note(loader.next().await).is_some() {}
        assert_eq!(loader.batches_in_flight(), 0);
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
async fn every_point_is_reported_once_with_its_reason() {
    let mesh = FakeMesh::new();
    let node = mesh.node(|asked| {
        let outcomes = asked.read::<Put>().points.into_iter().map(|point| match point.id {
            PointId::Number(id) if id % 10 == 3 => Outcome::Refused(format!("point {id}: vector has NaN at 0")),
            PointId::Number(id) if id % 10 == 4 => Outcome::Unknown(format!("point {id}: one of two replicas")),
            PointId::Number(id) if id % 10 == 5 => Outcome::Unavailable(format!("point {id}: no replica")),
            _ => Outcome::Written(Version::ZERO),
        });
        std::future::ready(reply::<Put>(outcomes.collect()))
    });
    // A short time for writing unsettled points again, which here never helps.
    let client = mesh.client(&[node.address]).await.with_timeout(Duration::from_millis(250));
    let mut loader = client.bulk_loader("c", BulkOptions { batch_points: 7, ..BulkOptions::default() });
    let mut reports = Vec::new();
    for id in 0..40 {
        reports.extend(loader.push(a_point(id)).await);
    }
    while let Some(report) = loader.next().await {
        reports.push(report);
    }
    let acknowledged: BTreeSet<_> = reports.iter().flat_map(|report| report.acknowledged.clone()).collect();
    assert_eq!(acknowledged, (0..40).filter(|id| !(3..=5).contains(&(id % 10))).map(PointId::from).collect());
    for (list, digit, word) in [
        (reports.iter().flat_map(|report| &report.refused).collect::<Vec<_>>(), 3, "NaN"),
        (reports.iter().flat_map(|report| &report.unknown).collect(), 4, "one of two"),
        (reports.iter().flat_map(|report| &report.unavailable).collect(), 5, "no replica"),
    ] {
        let ids: BTreeSet<_> = list.iter().map(|point| point.id.clone()).collect();
        assert_eq!((ids, list.len()), ((0..4).map(|tens| PointId::from(tens * 10 + digit)).collect(), 4));
        assert!(
            list.iter()
                .all(|point| point.reason.contains(&format!("point {}", point.id)) && point.reason.contains(word))
        );
    }
}

#[tokio::test]
async fn batches_are_bounded_in_bytes_and_a_larger_point_goes_alone() {
    let mesh = FakeMesh::new();
    let (sender, mut batches) = mpsc::unbounded_channel();
    let node = mesh.node(move |asked| {
        let put: Put = asked.read();
        sender.send(put.points.iter().map(|point| point.id.clone()).collect::<Vec<_>>()).unwrap();
        std::future::ready(reply::<Put>(vec![Outcome::Written(Version::ZERO); put.points.len()]))
    });
    let client = mesh.client(&[node.address]).await;
    let options = BulkOptions { batch_bytes: 10_000, in_flight: 1, ..BulkOptions::default() };
    let mut loader = client.bulk_loader("c", options);
    // About 4 KB, 4 KB, 4 KB, 40 KB, 4 KB.
    for (id, dim) in [(0, 1000), (1, 1000), (2, 1000), (3, 10_000), (4, 1000)] {
        loader.push(point(id, vec![1.0; dim], Payload::new())).await;
    }
    while loader.next().await.is_some() {}
    let mut seen = Vec::new();
    while let Ok(batch) = batches.try_recv() {
        seen.push(batch);
    }
    let expected: Vec<Vec<PointId>> = vec![vec![0.into(), 1.into()], vec![2.into()], vec![3.into()], vec![4.into()]];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_batch_that_fails_as_a_whole_says_what_became_of_its_points() {
    let mesh = FakeMesh::new();
    for (code, list) in [(ErrorCode::NotFound, 0), (ErrorCode::Unavailable, 1)] {
        let node = mesh.node(move |_| std::future::ready(Err(RpcError::new(code, "no such luck"))));
        let client = mesh.client(&[node.address]).await;
        let mut loader = client.bulk_loader("c", BulkOptions::default());
        assert!(loader.push(a_point(1)).await.is_none());
        let report = loader.next().await.unwrap();
        assert_eq!(report.error.as_ref().unwrap().code(), Some(code));
        let lists = [&report.refused, &report.unavailable];
        assert_eq!((lists[list].len(), lists[1 - list].len()), (1, 0), "{code:?}");
        assert!(lists[list][0].reason.contains("no such luck"));
        assert!(report.acknowledged.is_empty() && report.unknown.is_empty());
        assert!(loader.next().await.is_none());
    }
}
