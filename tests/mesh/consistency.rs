//! What levels promise, with nodes away.

use vecino_client::{ErrorCode, Level, NodeState, Outcome, Value};

use crate::lab::{
    FILMS, Lab, PATIENCE, await_that, check_films, create_films, film, get, nearest, put, put_films, vector,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_missed_is_right_all_the_same_when_asked_there_and_deletes_stay_deleted() {
    let lab = Lab::new();
    let mut mesh = lab.mesh(3).await;
    let client = lab.client(&mesh[0]).await;
    create_films(&client, 3).await;
    put_films(&client, 0..60, 1, Level::All).await;

    let away = mesh.remove(1).kill().await.unwrap();
    // At once, before anybody has noticed.
    assert_eq!(nearest(&client, 7, 1).await, (7.into(), 0.0));
    put_films(&client, 0..20, 2, Level::Quorum).await;
    let deleted: Vec<u64> = (20..40).collect();
    client.collection(FILMS).delete(deleted.iter().copied()).await.unwrap();
    put_films(&client, 60..80, 2, Level::Quorum).await;

    let back = away.start().await.unwrap();
    let asked = lab.client(&back).await;
    lab.await_nodes(&asked, 3, NodeState::Up).await;
    // Search first: reading would repair what is read.
    for id in (0..20).chain(60..80) {
        assert_eq!(nearest(&asked, id, 2).await, (id.into(), 0.0), "the new vector is found");
        let all = asked.collection(FILMS).search(vector(id, 1)).k(80).await.unwrap();
        assert!(all.hits.iter().all(|hit| hit.score > 0.0), "the old vector of film {id} is found");
    }
    let all = asked.collection(FILMS).search(vector(0, 0)).k(100).await.unwrap();
    assert_eq!(all.hits.len(), 60);
    assert!(all.hits.iter().all(|hit| !deleted.iter().any(|id| hit.id == (*id).into())), "a deleted film came back");
    for id in &deleted {
        let error = asked.collection(FILMS).search_like(*id).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::NotFound), "{error}");
    }
    assert!(get(&asked, &deleted, Level::Quorum).await.iter().all(Option::is_none));
    let put_again: Vec<u64> = (0..20).chain(60..80).collect();
    check_films(&asked, &put_again, 2).await;
    check_films(&asked, &(40..60).collect::<Vec<_>>(), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_without_vectors_is_written_back_with_them() {
    let lab = Lab::new();
    let mut mesh = lab.mesh(3).await;
    let client = lab.client(&mesh[0]).await;
    create_films(&client, 3).await;
    put_films(&client, 0..20, 1, Level::All).await;
    let away = mesh.remove(1).kill().await.unwrap();
    put_films(&client, 0..10, 2, Level::Quorum).await;
    let back = away.start().await.unwrap();
    let asked = lab.client(&back).await;
    lab.await_nodes(&asked, 3, NodeState::Up).await;
    let ids: Vec<u64> = (0..20).collect();
    let read = asked.collection(FILMS).get(ids.iter().copied()).with_vectors(false).await.unwrap();
    for (id, found) in ids.iter().zip(read) {
        let found = found.unwrap();
        let time = if *id < 10 { 2 } else { 1 };
        assert_eq!((found.vectors.len(), &found.payload["time"]), (0, &Value::Int(time)), "film {id}");
    }
    // What the node that was away holds by now itself.
    for (id, found) in ids.iter().zip(get(&asked, &ids, Level::One).await) {
        let time = if *id < 10 { 2 } else { 1 };
        assert_eq!(found.unwrap().vectors[""].0, vector(*id, time), "film {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_down_gets_what_it_missed_from_a_node_that_was_killed_meanwhile() {
    let lab = Lab::new();
    let mut mesh = lab.mesh(3).await;
    let client = lab.client(&mesh[0]).await;
    create_films(&client, 3).await;
    put_films(&client, 0..40, 1, Level::All).await;
    let away = mesh.remove(2).kill().await.unwrap();
    // Some before it is known to be down, and some after that.
    put_films(&client, 0..10, 2, Level::Quorum).await;
    lab.await_all(&mesh, 2, NodeState::Up).await;
    put_films(&client, 10..20, 2, Level::Quorum).await;
    let folder = lab.path("n1-data").join("hints");
    await_that("what the third node missed is on the disk of the first", || {
        folder.read_dir().is_ok_and(|mut nodes| nodes.next().is_some())
    })
    .await;
    // The log is written when the replicas have failed to answer, and a put is acknowledged before that.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let asked = mesh.remove(0).kill().await.unwrap().start().await.unwrap();
    let back = away.start().await.unwrap();
    mesh.extend([asked, back]);
    lab.await_all(&mesh, 3, NodeState::Up).await;
    let third = lab.client(&mesh[2]).await;
    let ids: Vec<u64> = (0..20).collect();
    let begun = std::time::Instant::now();
    loop {
        // What the third node holds itself.
        let held = get(&third, &ids, Level::One).await;
        let has = |id: &u64, found: &Option<_>| {
            found.as_ref().is_some_and(|found: &vecino_client::StoredPoint| found.vectors[""].0 == vector(*id, 2))
        };
        if ids.iter().zip(&held).all(|(id, found)| has(id, found)) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "it has not got what it missed: {held:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    await_that("nothing is left of what was handed over", || {
        folder.read_dir().is_ok_and(|mut nodes| nodes.next().is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_need_as_many_nodes_as_they_say() {
    let lab = Lab::new();
    let mut mesh = lab.mesh(3).await;
    let client = lab.client(&mesh[0]).await;
    create_films(&client, 3).await;
    put_films(&client, 0..50, 1, Level::All).await;
    mesh.remove(2).kill().await.unwrap();
    lab.await_all(&mesh, 2, NodeState::Up).await;
    put_films(&client, 50..60, 1, Level::Quorum).await;
    let outcome = put(&client, vec![film(60, 1)], Level::All).await.remove(0);
    assert!(
        matches!(&outcome, Outcome::Unknown(reason) | Outcome::Unavailable(reason) if reason.contains("3")),
        "{outcome:?}"
    );

    mesh.remove(1).kill().await.unwrap();
    lab.await_nodes(&client, 1, NodeState::Up).await;
    let short = client.with_timeout(std::time::Duration::from_secs(2));
    let outcome = put(&short, vec![film(61, 1)], Level::Quorum).await.remove(0);
    assert!(
        matches!(&outcome, Outcome::Unavailable(reason) if reason.contains("1 of 3") || reason.contains("2")),
        "{outcome:?}"
    );
    let error = short.collection(FILMS).get([1]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Unavailable), "{error}");
    let error = short.collection(FILMS).search(vector(1, 1)).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Unavailable), "{error}");
    assert!(error.to_string().contains("level quorum needs 2"), "{error}");

    // Who says that a part is enough gets what there is, and is told that no range was asked as the level says.
    let reply = client.collection(FILMS).search(vector(1, 1)).k(1).allow_partial(true).await.unwrap();
    assert_eq!((&reply.hits[0].id, reply.coverage), (&1.into(), 0.0));

    // One is enough where one is all that is asked for.
    put_films(&client, 70..80, 1, Level::One).await;
    assert!(get(&client, &[1, 75], Level::One).await.iter().all(Option::is_some));
    let found = client.collection(FILMS).search(vector(75, 1)).k(1).level(Level::One).await.unwrap();
    assert_eq!((&found.hits[0].id, found.coverage), (&75.into(), 1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_without_a_live_replica_is_an_error_that_names_it() {
    let lab = Lab::new();
    let mut mesh = lab.mesh(3).await;
    let client = lab.client(&mesh[0]).await;
    create_films(&client, 1).await;
    put_films(&client, 0..300, 1, Level::Quorum).await;
    let ring = client.collection(FILMS).ring().await.unwrap();
    let gone = mesh.remove(1);
    let gone_id = gone.node_id().to_owned();
    gone.kill().await.unwrap();
    lab.await_all(&mesh, 2, NodeState::Up).await;
    let short = client.with_timeout(std::time::Duration::from_secs(2));
    let error = short.collection(FILMS).search(vector(1, 1)).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Unavailable), "{error}");
    let lost: Vec<_> = ring.ranges.iter().filter(|range| range.replicas[0].to_string() == gone_id).collect();
    let told = error.to_string();
    let named = lost.iter().any(|range| told.contains(&format!("{:016x}..={:016x}", range.start, range.end)));
    assert!(named && told.contains(&gone_id[..8]), "{error}");

    // Part of an answer only for those who say that they want it, and it says how much it is.
    let reply = client.collection(FILMS).search(vector(1, 1)).k(300).allow_partial(true).await.unwrap();
    let owned = 1.0 - ring.owns.iter().find(|(node, _)| node.to_string() == gone_id).unwrap().1;
    assert!((reply.coverage - owned).abs() < 1e-9, "{} {owned}", reply.coverage);
    assert!((150..250).contains(&reply.hits.len()), "{} of 300 films, two thirds of the ring", reply.hits.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn search_through_any_node_finds_what_a_flat_search_finds() {
    const COUNT: u64 = 1_500;
    let lab = Lab::new();
    let mesh = lab.mesh(3).await;
    let client = lab.client(&mesh[0]).await;
    create_films(&client, 2).await;
    put_films(&client, 0..COUNT, 1, Level::Quorum).await;
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
    for node in &mesh {
        let films = lab.client(node).await.collection(FILMS);
        let (mut found, mut wanted) = (0, 0);
        for query in 0..50 {
            let query = vector(query, 99);
            let mut oracle: Vec<(f32, u64)> = (0..COUNT).map(|id| (distance(&query, &vector(id, 1)), id)).collect();
            oracle.sort_by(|a, b| a.0.total_cmp(&b.0));
            let exact = films.search(query.clone()).k(10).exact(true).await.unwrap();
            let ids: Vec<_> = exact.hits.iter().map(|hit| hit.id.clone()).collect();
            assert_eq!(ids, oracle[..10].iter().map(|(_, id)| (*id).into()).collect::<Vec<_>>());
            assert!((exact.hits[9].score - oracle[9].0).abs() < 1e-5);
            let reply = films.search(query.clone()).k(10).await.unwrap();
            wanted += 10;
            found += reply.hits.iter().filter(|hit| ids.contains(&hit.id)).count();
            // A threshold keeps what is at least as good, and nothing else.
            let threshold = (oracle[4].0 + oracle[5].0) / 2.0;
            let near = films.search(query).k(10).threshold(threshold).await.unwrap();
            assert!(near.hits.len() <= 5 && near.hits.iter().all(|hit| hit.score <= threshold), "{:?}", near.hits);
        }
        assert!(found * 100 >= wanted * 97, "{found} of {wanted} found");
        // What is like a film is what is near to its vector, without the film itself.
        let like = films.search_like(5).k(10).exact(true).await.unwrap();
        let near = films.search(vector(5, 1)).k(11).exact(true).await.unwrap();
        assert_eq!(near.hits[0].id, 5.into());
        assert_eq!(like.hits, near.hits[1..]);
    }
}
