//! The example programs of the client library, against a real node; and what it says when a node refuses.

use vecino_client::{ClientError, ErrorCode, Metric, Payload, point};

use crate::lab::Lab;

#[path = "../../client/examples/bulk_load.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod bulk_load;
#[path = "../../client/examples/errors_and_levels.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod errors_and_levels;
#[path = "../../client/examples/quick_start.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod quick_start;
#[path = "../../client/examples/scan_export.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod scan_export;
#[path = "../../client/examples/typed_payloads.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod typed_payloads;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_runs_against_a_node() {
    let lab = Lab::new();
    let node = lab.mesh(1).await.remove(0);
    let client = lab.client(&node).await;
    quick_start::run(&client).await.unwrap();
    bulk_load::run(&client).await.unwrap();
    typed_payloads::run(&client).await.unwrap();
    scan_export::run(&client).await.unwrap();
    errors_and_levels::run(&client).await.unwrap();
    assert!(client.collections().await.unwrap().is_empty(), "each cleans up behind itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_a_node_refuses_is_an_error_that_says_what_is_wrong() {
    let lab = Lab::new();
    let node = lab.mesh(1).await.remove(0);
    let films = lab.client(&node).await.collection("films");
    films.create(3, Metric::Cosine).await.unwrap();
    let points = [point(1, [0.1, 0.2, 0.3], Payload::new()), point(2, [0.1, 0.2], Payload::new())];
    let error = films.put(points).await.unwrap_err();
    assert!(matches!(error, ClientError::NotWritten(_)), "{error}");
    assert_eq!(error.code(), Some(ErrorCode::Invalid));
    assert!(error.to_string().contains("point 2 was refused") && error.to_string().contains("dimension 2"), "{error}");
    assert!(films.get_one(1).await.unwrap().is_some(), "the other point was written");
}
