//! The example programs of the client library, against a real node; and what it says when a node refuses.

use vecino_client::{ClientError, ErrorCode, Metric, Payload, payload, point};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_leaves_out_what_was_not_asked_for() {
    let lab = Lab::new();
    let node = lab.mesh(1).await.remove(0);
    let films = lab.client(&node).await.collection("films");
    films.create(2, Metric::Dot).await.unwrap();
    films.put((0..5).map(|id| point(id, [id as f32, 1.0], payload! { "id": id }))).await.unwrap();
    for (with_vectors, with_payload) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut points = films.scan().page_points(2).with_vectors(with_vectors).with_payload(with_payload).points();
        let mut count = 0;
        while let Some(point) = points.try_next().await.unwrap() {
            assert_eq!((!point.vectors.is_empty(), !point.payload.is_empty()), (with_vectors, with_payload));
            count += 1;
        }
        assert_eq!(count, 5);
    }
}

/// Named after what went wrong: the journal of a collection that was dropped made the import into a new one skip every row and
/// say that all was done; and of a file with a zero vector the rows before it were stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_neither_skips_rows_that_were_never_loaded_nor_stores_a_bad_file_in_part() {
    let lab = Lab::new();
    let node = lab.mesh(1).await.remove(0);
    let films = lab.client(&node).await.collection("films");
    films.create(2, Metric::Cosine).await.unwrap();
    let (file, journal) = (lab.path("films.jsonl"), lab.path("journal"));
    let (file, journal) = (file.to_str().unwrap(), journal.to_str().unwrap());
    std::fs::write(file, "{\"id\":1,\"vector\":[1,2]}\n{\"id\":2,\"vector\":[0,0]}\n").unwrap();
    let refused = lab.ask(&node, &["import", "films", file]);
    refused.fails(1, &["point 2: the vector is all zeros", "nothing was sent"]);
    assert_eq!(films.get_one(1).await.unwrap(), None);

    std::fs::write(file, "{\"id\":1,\"vector\":[1,2]}\n{\"id\":2,\"vector\":[2,1]}\n").unwrap();
    let arguments = ["import", "films", file, "--journal", journal, "--json"];
    assert_eq!(lab.ask(&node, &arguments).json()["acknowledged"], 2);
    assert_eq!(lab.ask(&node, &arguments).json()["acknowledged"], 0, "the journal has them");
    films.drop_collection().await.unwrap();
    films.create(2, Metric::Cosine).await.unwrap();
    lab.ask(&node, &arguments).fails(1, &["was dropped and created anew since", "remove it, or name another"]);
    std::fs::remove_file(journal).unwrap();
    assert_eq!(lab.ask(&node, &arguments).json()["acknowledged"], 2);
    assert!(films.get_one(2).await.unwrap().is_some());
}
