//! Data folders that were written before the crates were split open with everything that was in them.
//!
//! `tests/fixtures/make` says how the folders were made. Their keys are not kept, so each folder is given the identity of a
//! new certificate: in the two files that name nodes, the old node ids are replaced by the new ones. Nothing else is
//! touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use vecino::process::NodeProcess;
use vecino_certs::{Identity, Role};
use vecino_client::NodeState;
use vecino_model::NodeId;
use vecino_storage::{RealDisk, read_verified, write_atomically};

use crate::lab::{Lab, free_addresses, run};

/// The one field of the file `node` that this test must know.
#[derive(Deserialize)]
struct Owner {
    node_id: NodeId,
}

fn unpack(lab: &Lab, archive: &str) {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(archive);
    let status = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(lab.folder.path()).status().unwrap();
    assert!(status.success(), "tar could not unpack {}", archive.display());
}

/// Gives folders that know each other new owners: the nodes of these names.
fn give_identities(lab: &Lab, folders: &[(&str, &str)]) {
    let disk = |folder: &str| RealDisk::new(lab.path(folder));
    let pairs: Vec<(NodeId, NodeId)> = folders
        .iter()
        .map(|(folder, name)| {
            let certs = lab.node(name, &[]).certs.unwrap();
            let new = vecino_net::node_id(Identity::load(&certs, Role::Node).unwrap().key_id());
            let state = read_verified(&disk(folder), "node").unwrap().unwrap();
            let Owner { node_id: old } = rmp_serde::from_slice(&state).unwrap();
            (old, new)
        })
        .collect();
    for (folder, _) in folders {
        for file in ["node", "catalog"] {
            let mut bytes = read_verified(&disk(folder), file).unwrap().unwrap();
            for (old, new) in &pairs {
                let places: Vec<usize> = bytes
                    .windows(16)
                    .enumerate()
                    .filter(|(_, window)| window == old.as_bytes())
                    .map(|(place, _)| place)
                    .collect();
                for place in places {
                    bytes[place..place + 16].copy_from_slice(new.as_bytes());
                }
            }
            write_atomically(&disk(folder), file, &bytes).unwrap();
        }
    }
}

/// The points of a JSON lines file by their ids.
fn points(path: &Path) -> BTreeMap<String, serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let point = |line: &str| {
        let point: serde_json::Value = serde_json::from_str(line).unwrap();
        (point["id"].to_string(), point)
    };
    text.lines().map(point).collect()
}

fn exported(lab: &Lab, node: &NodeProcess, collection: &str) -> BTreeMap<String, serde_json::Value> {
    let file: PathBuf = lab.path("now.jsonl");
    let ran = lab.ask(node, &["export", collection, "--out", file.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let found = points(&file);
    std::fs::remove_file(&file).unwrap();
    found
}

/// The doctor finds nothing wrong, before any node has touched the folder.
fn is_sound(lab: &Lab, folder: &str) {
    let ran = run(lab.folder.path(), &["doctor", "--data", folder, "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_one_node_opens_with_every_point_and_its_graph() {
    let lab = Lab::new();
    unpack(&lab, "one-node.tar.gz");
    is_sound(&lab, "one");
    give_identities(&lab, &[("one", "n1")]);
    let mut command = lab.node("n1", &[]);
    command.data = lab.path("one");
    let node = command.start().await.unwrap();
    let expected = points(&lab.path("films.export.jsonl"));
    assert_eq!(expected.len(), 597, "600 films, three of them deleted");
    assert_eq!(exported(&lab, &node, "films"), expected);
    let ids = std::fs::read_to_string(lab.path("wide.ids.jsonl")).unwrap();
    let found = exported(&lab, &node, "wide");
    assert_eq!(found.len(), ids.lines().count());
    assert!(ids.lines().all(|line| found.contains_key(line.trim_start_matches("{\"id\":"))));
    let described = lab.ask(&node, &["collection", "describe", "wide", "--json"]);
    assert!(described.out.contains("\"unlinked\":0"), "the graph was loaded and not built again: {described:?}");
    let mut found_again = 0;
    for id in (0..4_300).step_by(43) {
        let vector = &found[&id.to_string()]["vector"];
        let vector: Vec<String> = vector.as_array().unwrap().iter().map(ToString::to_string).collect();
        let arguments = ["search", "wide", "--k", "1", "--ef", "100", "--json", "--vector", &vector.join(",")];
        // Points of the same direction exist; the first hit is one of them.
        let score = lab.ask(&node, &arguments).json()["hits"][0]["score"].as_f64().unwrap();
        found_again += u32::from(score > 0.999);
    }
    assert!(found_again >= 95, "walks through the loaded graph find {found_again} of 100 points by their own vectors");
    let listed = lab.ask(&node, &["collection", "list", "--json"]);
    assert!(!listed.out.contains("gone"), "a dropped collection stays dropped: {listed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folders_of_three_nodes_open_with_two_collections_of_different_placements() {
    let lab = Lab::new();
    unpack(&lab, "three-nodes.tar.gz");
    let folders = [("d1", "n1"), ("d2", "n2"), ("d3", "n3")];
    folders.iter().for_each(|(folder, _)| is_sound(&lab, folder));
    give_identities(&lab, &folders);
    let addresses: [_; 3] = free_addresses();
    let mut nodes = Vec::new();
    for ((folder, name), address) in folders.iter().zip(addresses) {
        let mut command = lab.node(name, &addresses);
        command.data = lab.path(folder);
        command.listen = address;
        nodes.push(command.start().await.unwrap());
    }
    for node in &nodes {
        lab.await_nodes(&lab.client(node).await, 3, NodeState::Up).await;
        for collection in ["early", "late"] {
            let expected = points(&lab.path(&format!("{collection}.export.jsonl")));
            assert_eq!(expected.len(), 397, "399 points, two of them deleted");
            assert_eq!(exported(&lab, node, collection), expected);
        }
    }
    let placed = |name: &str| lab.ask(&nodes[0], &["collection", "describe", name, "--json"]).json();
    let replicas = |name: &str| placed(name)["replication_factor"].as_u64();
    assert_eq!((replicas("early"), replicas("late")), (Some(2), Some(3)));
}
