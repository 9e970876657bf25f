//! Puts and deletes are errors unless everything was written.

use vecino_client::{ClientError, ErrorCode, Outcome, PointId, Version, payload, point};
use vecino_net::message::{Delete, Put, Rpc};

use crate::fake::{Clients, FakeMesh, FakeNode, reply};

/// A node that refuses the point 1, cannot say what became of 2, and cannot reach replicas of 3.
fn node(mesh: &FakeMesh) -> FakeNode {
    let outcome = |id: &PointId| match id {
        PointId::Number(1) => Outcome::Refused("the vector has dimension 2, and the schema says 3".into()),
        PointId::Number(2) => Outcome::Unknown("one of two replicas is late".into()),
        PointId::Number(3) => Outcome::Unavailable("no replica answers".into()),
        _ => Outcome::Written(Version::ZERO),
    };
    mesh.quick_node(move |asked| match asked.kind {
        Put::KIND => reply::<Put>(asked.read::<Put>().points.iter().map(|point| outcome(&point.id)).collect()),
        _ => reply::<Delete>(asked.read::<Delete>().ids.iter().map(outcome).collect()),
    })
}

/// Named after what went wrong: a put whose every point was refused was `Ok`, and the first program that anyone wrote lost
/// its data silently.
#[tokio::test]
async fn a_put_that_was_refused_is_an_error() {
    let mesh = FakeMesh::new();
    let node = node(&mesh);
    let films = mesh.client(&[node.address]).await.collection("films");
    let error = films.put([point(1, [0.5, 0.5], payload! {})]).await.unwrap_err();
    assert!(matches!(error, ClientError::NotWritten(_)), "{error}");
    assert_eq!(error.to_string(), "point 1 was refused: the vector has dimension 2, and the schema says 3");
    assert_eq!((error.code(), error.is_safe_to_retry(), error.is_unknown()), (Some(ErrorCode::Invalid), false, false));
    let error = films.delete([7, 1]).await.unwrap_err();
    assert!(error.to_string().starts_with("1 of 2 points were not written; the first: point 1 was refused"), "{error}");
}

#[tokio::test]
async fn an_error_holds_the_outcome_of_every_point_and_says_what_may_be_done() {
    let mesh = FakeMesh::new();
    let node = node(&mesh);
    // A short time for writing unsettled points again, which here never helps.
    let client = mesh.client(&[node.address]).await.with_timeout(std::time::Duration::from_millis(250));
    let films = client.collection("films");
    assert_eq!(films.put([point(8, [0.5], payload! {}), point(9, [0.5], payload! {})]).await.unwrap().len(), 2);
    let error = films.delete([8, 3]).await.unwrap_err();
    assert!(error.is_safe_to_retry() && !error.is_unknown(), "{error}");
    assert!(error.to_string().ends_with("no replica answers; trying again is safe"), "{error}");
    let error = films.delete([3, 2]).await.unwrap_err();
    assert!(!error.is_safe_to_retry() && error.is_unknown(), "{error}");
    let report = error.write_report().unwrap();
    let unwritten: Vec<_> = report.unwritten().map(|point| point.id).collect();
    assert_eq!(unwritten, [3, 2].map(PointId::from));

    let each = films.delete([8, 1]).each().await.unwrap();
    assert_eq!(each.outcomes()[0], Outcome::Written(Version::ZERO));
    assert!(matches!(&each.outcomes()[1], Outcome::Refused(reason) if reason.contains("dimension 2")));
    assert!(each.all_written().is_err());
}
