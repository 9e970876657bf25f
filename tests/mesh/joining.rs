//! Nodes find each other, in whatever order they start.

use vecino_client::{Level, NodeState};

use crate::lab::{Lab, check_films, create_films, free_addresses, put_films};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identical_nodes_with_one_seed_list_make_one_mesh_in_any_order() {
    let lab = Lab::new();
    let seeds = free_addresses::<3>();
    // The one that comes first in the list starts last.
    let mut starting = tokio::task::JoinSet::new();
    for (number, address) in seeds.iter().enumerate().rev() {
        let mut command = lab.node(&format!("n{number}"), &seeds);
        command.listen = *address;
        starting.spawn(command.start());
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    }
    let mesh: Vec<_> = starting.join_all().await.into_iter().map(|started| started.unwrap()).collect();
    for node in &mesh {
        assert_eq!(node.mesh_id(), mesh[0].mesh_id());
        lab.await_nodes(&lab.client(node).await, 3, NodeState::Up).await;
    }
    let owned: Vec<f64> =
        lab.client(&mesh[0]).await.status().await.unwrap().nodes.iter().map(|node| node.owns).collect();
    assert!(owned.iter().all(|share| (share * 3.0 - 1.0).abs() < 0.1), "{owned:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_later_answers_for_everything_and_keeps_what_is_created_from_then_on() {
    let lab = Lab::new();
    let mesh = lab.mesh(2).await;
    let client = lab.client(&mesh[0]).await;
    create_films(&client, 2).await;
    put_films(&client, 0..200, 1, Level::All).await;

    let late = lab.node("late", &[mesh[1].address()]).start().await.unwrap();
    assert_eq!(late.mesh_id(), mesh[0].mesh_id());
    let asked = lab.client(&late).await;
    lab.await_nodes(&asked, 3, NodeState::Up).await;
    let ids: Vec<u64> = (0..200).collect();
    check_films(&asked, &ids, 1).await;
    put_films(&asked, 200..300, 1, Level::All).await;
    check_films(&client, &(200..300).collect::<Vec<_>>(), 1).await;
    let films = asked.collection(crate::lab::FILMS).describe().await.unwrap();
    assert_eq!((films.placement.len(), films.points), (2, 300));

    lab.await_nodes(&client, 3, NodeState::Up).await;
    let books = client.collection("books").create(2, vecino_client::Metric::Dot).await.unwrap();
    assert_eq!((books.placement.len(), books.schema.replication_factor), (3, 3));
}
