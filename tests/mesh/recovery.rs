//! What was acknowledged is there after nodes were killed at any moment.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use vecino_client::{BulkEvent, Client, Level, NodeState, Outcome, PointId};

use crate::lab::{Lab, check_films, create_films, film, nearest, put, put_films};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_loses_nothing_when_a_node_is_killed_and_started_again_in_its_midst() {
    const FILMS: u64 = 6_000;
    let lab = Lab::new();
    let mut mesh = lab.mesh(3).await;
    let client = lab.client(&mesh[0]).await;
    create_films(&client, 3).await;
    let mut acknowledged = BTreeSet::new();
    let note = |event: BulkEvent<'_>| {
        let BulkEvent::Written { ids } = event else { return };
        acknowledged.extend(ids.iter().map(|id| match id {
            PointId::Number(id) => *id,
            PointId::Text(id) => panic!("{id:?} was never put"),
        }));
    };
    let bulk = client.collection(crate::lab::FILMS).bulk();
    let mut loader = bulk.batch_points(100).in_flight(4).on_event(note).start();
    let mut killed = None;
    for id in 0..FILMS {
        loader.push(film(id, 1)).await.unwrap();
        if id == FILMS / 3 {
            killed = Some(mesh.remove(1).kill().await.unwrap());
        }
        if id == FILMS * 2 / 3 {
            mesh.insert(1, killed.take().unwrap().start().await.unwrap());
        }
    }
    assert_eq!(loader.finish().await.unwrap().all_written().unwrap(), FILMS);
    assert_eq!(acknowledged.len() as u64, FILMS, "two of three nodes were there all the time");
    let acknowledged: Vec<u64> = acknowledged.into_iter().collect();
    for node in &mesh {
        let client = lab.client(node).await;
        lab.await_nodes(&client, 3, NodeState::Up).await;
        for id in (0..FILMS).step_by(97) {
            assert_eq!(nearest(&client, id, 1).await, (id.into(), 0.0));
        }
        check_films(&client, &acknowledged, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_over_and_over_under_load_keeps_what_it_acknowledged() {
    let lab = Lab::new();
    let mut node = lab.node("n1", &[]).start().await.unwrap();
    create_films(&lab.client(&node).await, 1).await;
    let mut acknowledged = Vec::new();
    let mut next = 0;
    for round in 0..6u64 {
        let client = lab.client(&node).await.with_timeout(Duration::from_secs(2));
        let (writer, mut written) = write_until_it_fails(client.clone(), next);
        written.wait_for(|written| *written > 0).await.unwrap();
        // One of the moments in which a batch, a flush or a snapshot is under way.
        tokio::time::sleep(Duration::from_millis(150 + 70 * round)).await;
        if round % 2 == 1 {
            let snapshot = tokio::spawn(async move { client.snapshot().await });
            tokio::time::sleep(Duration::from_millis(round * 3)).await;
            snapshot.abort();
        }
        let command = node.kill().await.unwrap();
        let (written, reached) = writer.await.unwrap();
        assert!(!written.is_empty(), "nothing was written before the kill");
        acknowledged.extend(written);
        next = reached;
        node = command.start().await.unwrap();
        let client = lab.client(&node).await;
        check_films(&client, &acknowledged, 1).await;
        for id in acknowledged.iter().step_by(acknowledged.len() / 20 + 1) {
            assert_eq!(nearest(&client, *id, 1).await, ((*id).into(), 0.0));
        }
    }
}

/// Writes in the background. Gives the ids that were acknowledged and the first id that was never sent, and meanwhile how
/// many have been acknowledged.
fn write_until_it_fails(client: Client, first: u64) -> (JoinHandle<(Vec<u64>, u64)>, watch::Receiver<usize>) {
    let (told, written) = watch::channel(0);
    (tokio::spawn(write(client, first, told)), written)
}

async fn write(client: Client, mut next: u64, told: watch::Sender<usize>) -> (Vec<u64>, u64) {
    let mut acknowledged = Vec::new();
    loop {
        let batch: Vec<u64> = (next..next + 50).collect();
        next += 50;
        let points = batch.iter().map(|id| film(*id, 1));
        let Ok(report) = client.collection(crate::lab::FILMS).put(points).each().await else {
            return (acknowledged, next);
        };
        acknowledged.extend(
            batch
                .into_iter()
                .zip(report.into_outcomes())
                .filter(|(_, outcome)| matches!(outcome, Outcome::Written(_)))
                .map(|(id, _)| id),
        );
        told.send_replace(acknowledged.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_that_loses_power_as_a_whole_finds_itself_and_its_data_again() {
    let lab = Lab::new();
    let mesh = lab.mesh(3).await;
    let mesh_id = mesh[0].mesh_id().to_owned();
    let client = lab.client(&mesh[0]).await;
    create_films(&client, 3).await;
    let ids: Vec<u64> = (0..500).collect();
    put_films(&client, ids.iter().copied(), 1, Level::All).await;
    let mut commands = Vec::new();
    for node in mesh {
        commands.push(node.kill().await.unwrap());
    }
    // The others come first, and nobody is told of a seed: they remember where they were.
    let mut mesh = Vec::new();
    for mut command in commands.into_iter().rev() {
        command.seeds.clear();
        mesh.push(command.start().await.unwrap());
    }
    for node in &mesh {
        assert_eq!(node.mesh_id(), mesh_id);
        let client = lab.client(node).await;
        lab.await_nodes(&client, 3, NodeState::Up).await;
        check_films(&client, &ids, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_brings_the_graph_back_without_linking_and_a_stop_in_order_leaves_nothing_to_replay() {
    let lab = Lab::new();
    let node = lab.node("n1", &[]).start().await.unwrap();
    let client = lab.client(&node).await;
    create_films(&client, 1).await;
    put_films(&client, 0..3_000, 1, Level::Quorum).await;
    let stats = |info: vecino_client::CollectionInfo| info.nodes.into_values().next().unwrap();
    while stats(client.collection(crate::lab::FILMS).describe().await.unwrap()).unlinked > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let reports = client.snapshot().await.unwrap();
    assert_eq!((reports[0].lsn, &reports[0].error), (3_001, &None));

    let node = node.kill().await.unwrap().start().await.unwrap();
    let opened = |log: &str| log.lines().rfind(|line| line.contains("opened collection")).unwrap().to_owned();
    assert!(opened(&node.log()).contains("replayed=0 points=3000"), "{}", opened(&node.log()));
    // The threads that link have no time to link three thousand points before the first answer; the graph is loaded.
    let client = lab.client(&node).await;
    let found = stats(client.collection(crate::lab::FILMS).describe().await.unwrap());
    assert_eq!((found.points, found.unlinked), (3_000, 0));
    assert_eq!(nearest(&client, 77, 1).await, (77.into(), 0.0));

    put_films(&client, 3_000..3_100, 1, Level::Quorum).await;
    let (status, command) = node.stop().await.unwrap();
    assert!(status.success(), "{status}");
    let node = command.start().await.unwrap();
    assert!(opened(&node.log()).contains("replayed=0 points=3100"), "{}", opened(&node.log()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_told_to_stop_finishes_what_it_has_begun() {
    let lab = Lab::new();
    let node = lab.node("n1", &[]).start().await.unwrap();
    let client = lab.client(&node).await.with_timeout(Duration::from_secs(5));
    create_films(&client, 1).await;
    let (writer, mut written) = write_until_it_fails(client, 0);
    written.wait_for(|written| *written > 0).await.unwrap();
    let (status, command) = node.stop().await.unwrap();
    assert!(status.success(), "{status}");
    let (acknowledged, _) = writer.await.unwrap();
    assert!(!acknowledged.is_empty());
    let node = command.start().await.unwrap();
    check_films(&lab.client(&node).await, &acknowledged, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_collection_is_gone_from_disk_and_its_name_begins_anew() {
    let lab = Lab::new();
    let mut mesh = lab.mesh(3).await;
    let client = lab.client(&mesh[0]).await;
    create_films(&client, 3).await;
    put_films(&client, 0..100, 1, Level::All).await;
    // One node sleeps through the drop and the creation of another collection under the same name.
    let away = mesh.remove(2).kill().await.unwrap();
    lab.await_nodes(&client, 2, NodeState::Up).await;
    client.collection(crate::lab::FILMS).drop_collection().await.unwrap();
    create_films(&client, 2).await;
    put(&client, vec![film(1_000, 1)], Level::Quorum).await;
    let back = away.start().await.unwrap();
    let asked = lab.client(&back).await;
    lab.await_nodes(&asked, 3, NodeState::Up).await;
    let left = |name: &str| std::fs::read_dir(lab.path(name).join("collections")).unwrap().count();
    let started = std::time::Instant::now();
    while left("n3-data") > 0 {
        assert!(started.elapsed() < Duration::from_secs(20), "the node keeps what was dropped while it was away");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((left("n1-data"), left("n2-data")), (1, 1));
    check_films(&asked, &[1_000], 1).await;
    assert_eq!(
        crate::lab::get(&asked, &[1], Level::Quorum).await,
        [None],
        "the old collection's points are not in the new one"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_just_come_back_reads_and_writes_before_gossip_has_told_it_who_is_up() {
    let lab = Lab::new();
    let mut mesh = lab.mesh(3).await;
    let client = lab.client(&mesh[0]).await;
    create_films(&client, 3).await;
    put_films(&client, 0..10, 1, Level::All).await;
    for _ in 0..3 {
        let back = mesh.remove(1).kill().await.unwrap().start().await.unwrap();
        // The client tries only a few times, in less than it takes gossip to judge.
        let asked = lab.client(&back).await;
        check_films(&asked, &(0..10).collect::<Vec<_>>(), 1).await;
        put_films(&asked, 10..20, 1, Level::All).await;
        assert_eq!(nearest(&asked, 3, 1).await, (3.into(), 0.0));
        mesh.insert(1, back);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_by_a_node_that_knows_nothing_of_the_name_destroys_nothing() {
    let lab = Lab::new();
    let mut mesh = lab.mesh(3).await;
    let ignorant = mesh.remove(2).kill().await.unwrap();
    let client = lab.client(&mesh[0]).await;
    lab.await_nodes(&client, 2, NodeState::Up).await;
    create_films(&client, 2).await;
    let ids: Vec<u64> = (0..100).collect();
    put_films(&client, ids.iter().copied(), 1, Level::All).await;
    let mut away = Vec::new();
    for node in mesh {
        away.push(node.kill().await.unwrap());
    }
    let alone = ignorant.start().await.unwrap();
    let asked = lab.client(&alone).await.with_timeout(Duration::from_secs(2));
    let films = asked.collection(crate::lab::FILMS);
    let refused = films.create(3, vecino_client::Metric::Dot).await.unwrap_err();
    assert_eq!(refused.code(), Some(vecino_client::ErrorCode::Unavailable), "{refused}");
    let mut mesh = vec![alone];
    for command in away {
        mesh.push(command.start().await.unwrap());
    }
    for node in &mesh {
        let client = lab.client(node).await;
        lab.await_nodes(&client, 3, NodeState::Up).await;
        check_films(&client, &ids, 1).await;
    }
}
