//! Scans: streams of points and of pages, where they go on, and what an error leaves.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, TryStreamExt};
use vecino_client::{
    ErrorCode, Fields, Level, PointId, RawPayload, RawStoredPoint, Retry, ScanCursor, Vector, Version,
};
use vecino_net::error::RpcError;
use vecino_net::message::{ScanReply, ScanStream};

use crate::fake::{Asked, Clients, FakeMesh, reply};

fn stored(id: u64) -> RawStoredPoint {
    let vectors = Fields::from([(String::new(), Vector(vec![0.5, -1.0]))]);
    RawStoredPoint { id: id.into(), vectors, payload: RawPayload::default(), version: Version::ZERO }
}

/// A collection of the points 0 to 6, with a page in the middle that is empty.
fn scan_page(asked: &Asked) -> Result<Vec<u8>, RpcError> {
    let ScanStream { scan } = asked.read();
    let begin = scan.after.map_or(0, |cursor| cursor.position + 1);
    let end = if begin == 3 { 4 } else { (begin + u64::from(scan.limit)).min(7) };
    let points = if begin == 3 { Vec::new() } else { (begin..end).map(stored).collect() };
    let next = (end < 7).then(|| ScanCursor { position: end - 1, id: (end - 1).into() });
    reply::<ScanStream>(ScanReply { points, next })
}

#[tokio::test]
async fn a_scan_gives_every_page_and_goes_on_where_another_stopped() {
    let mesh = FakeMesh::new();
    let node = mesh.quick_node(|asked| scan_page(&asked));
    let films = mesh.client(&[node.address]).await.collection("films");
    let mut pages = films.scan().page_points(3).pages();
    assert_eq!(pages.cursor(), None);
    let (mut sizes, mut ids, mut cursor) = (Vec::new(), Vec::new(), None);
    while let Some(page) = pages.try_next().await.unwrap() {
        sizes.push(page.len());
        ids.extend(page.into_iter().map(|point| point.id));
        cursor = cursor.or(pages.cursor().cloned());
    }
    assert_eq!(sizes, [3, 3], "the empty page is passed over");
    assert_eq!(ids, [0, 1, 2, 4, 5, 6].map(PointId::from));
    assert_eq!((pages.try_next().await.unwrap(), pages.cursor()), (None, None));

    let rest: Vec<_> = films.scan().page_points(3).after(cursor).points().try_collect().await.unwrap();
    assert_eq!(rest.iter().map(|point| point.id.clone()).collect::<Vec<_>>(), [4, 5, 6].map(PointId::from));
}

#[tokio::test]
async fn the_cursor_of_a_stream_of_points_never_passes_one_that_was_not_given_out() {
    let mesh = FakeMesh::new();
    let node = mesh.quick_node(|asked| scan_page(&asked));
    let films = mesh.client(&[node.address]).await.collection("films");
    for taken in 0..=6_usize {
        let mut points = films.scan().page_points(3).points();
        let mut seen = Vec::new();
        for _ in 0..taken {
            seen.push(points.try_next().await.unwrap().unwrap().id);
        }
        let cursor = points.cursor().cloned();
        if taken == 6 {
            assert_eq!((points.try_next().await.unwrap(), points.cursor()), (None, None));
            continue;
        }
        let mut rest = films.scan().page_points(3).after(cursor).points();
        while let Some(point) = rest.next().await {
            seen.push(point.unwrap().id);
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2, 4, 5, 6].map(PointId::from), "after {taken} points");
    }
}

#[tokio::test]
async fn a_page_that_cannot_be_read_is_an_error_and_is_asked_for_again() {
    let mesh = FakeMesh::new();
    let broken = AtomicBool::new(true);
    let node = mesh.quick_node(move |asked| {
        let ScanStream { scan } = asked.read();
        assert_eq!((scan.collection.as_str(), scan.level), ("films", Level::One));
        assert_eq!((scan.with_vectors, scan.with_payload), (false, true));
        if scan.after.is_some() && broken.swap(false, Ordering::SeqCst) {
            return Err(RpcError::new(ErrorCode::Internal, "the page is lost").with_retry(Retry::No));
        }
        scan_page(&asked)
    });
    let films = mesh.client(&[node.address]).await.collection("films");
    let mut points = films.scan().page_points(3).level(Level::One).with_vectors(false).points();
    let (mut ids, mut errors) = (Vec::new(), 0);
    while let Some(point) = points.next().await {
        match point {
            Ok(point) => ids.push(point.id),
            Err(error) => {
                assert!(error.to_string().contains("the page is lost"), "{error}");
                errors += 1;
            }
        }
    }
    assert_eq!((ids.len(), errors), (6, 1));
}
