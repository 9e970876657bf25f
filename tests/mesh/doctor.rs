//! `vecino doctor` over what real nodes have left on a real disk.

use std::path::{Path, PathBuf};

use vecino_client::Level;

use crate::lab::{Lab, Ran, check_films, create_films, put_films, run};

const FILMS: u64 = 200;

fn doctor(lab: &Lab, data: &Path, arguments: &[&str]) -> Ran {
    run(lab.folder.path(), &[&["doctor", "--data", data.to_str().unwrap()], arguments].concat())
}

/// Its answer, whatever it came to.
fn answer(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"))
}

/// The one file below a folder that ends so.
fn find(folder: &Path, suffix: &str) -> PathBuf {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false if entry.path().to_string_lossy().ends_with(suffix) => found.push(entry.path()),
                false => {}
            }
        }
    }
    found.sort();
    found.remove(0)
}

fn flip(file: &Path, offset: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[offset] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_a_log_is_named_and_left_alone_and_a_running_node_is_not_touched() {
    let lab = Lab::new();
    let node = lab.node("n1", &[]).start().await.unwrap();
    let data = lab.path("n1-data");
    let client = lab.client(&node).await;
    create_films(&client, 1).await;
    put_films(&client, 0..FILMS, 1, Level::Quorum).await;
    doctor(&lab, &data, &[]).fails(1, &["is in use by process", "stop it"]);
    let command = node.kill().await.unwrap();

    let ran = doctor(&lab, &data, &["--json"]);
    let sound = answer(&ran);
    assert_eq!(
        (ran.code, &sound["healthy"], sound["findings"].as_array().unwrap().len()),
        (0, &true.into(), 0),
        "{ran:?}"
    );
    let collection = &sound["collections"][0];
    assert_eq!((&collection["name"], &collection["records"]), (&"films".into(), &FILMS.into()), "{sound}");
    assert_eq!((&collection["is_complete"], &collection["next_lsn"]), (&true.into(), &(FILMS + 1).into()));
    assert!(doctor(&lab, &data, &[]).out.ends_with("healthy\n"));

    let log = find(&data, ".log");
    flip(&log, 56 + 60);
    let rotten = std::fs::read(&log).unwrap();
    std::fs::write(data.join("node.tmp"), b"half").unwrap();
    let ran = doctor(&lab, &data, &["--repair", "--json"]);
    let told = answer(&ran);
    assert_eq!((ran.code, &told["healthy"]), (1, &false.into()));
    let [finding] = &told["findings"].as_array().unwrap()[..] else { panic!("{told}") };
    assert!(log.ends_with(finding["file"].as_str().unwrap()), "{finding}");
    assert_eq!((&finding["offset"], &finding["loss"]), (&56.into(), &"only_replicas".into()));
    assert_eq!(told["repaired"], serde_json::json!([{ "remove": "node.tmp" }]));
    assert!(!data.join("node.tmp").exists());
    assert!(std::fs::read(&log).unwrap() == rotten, "nothing was cut");
    let text = doctor(&lab, &data, &["--repair"]);
    assert_eq!(text.code, 1);
    for words in
        [", offset 56\n", "only replicas have them", "left alone", "damage remains: 1 that only replicas can heal"]
    {
        assert!(text.out.contains(words), "{words:?} is not in {}", text.out);
    }

    flip(&log, 56 + 60);
    let node = command.start().await.unwrap();
    check_films(&lab.client(&node).await, &(0..FILMS).collect::<Vec<_>>(), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_used_is_removed_where_the_log_has_everything() {
    let lab = Lab::new();
    let node = lab.node("n1", &[]).start().await.unwrap();
    let data = lab.path("n1-data");
    let client = lab.client(&node).await;
    create_films(&client, 1).await;
    put_films(&client, 0..FILMS, 1, Level::Quorum).await;
    // A node that is stopped takes a last snapshot.
    let (status, command) = node.stop().await.unwrap();
    assert!(status.success());
    let sound = answer(&doctor(&lab, &data, &["--json"]));
    assert_eq!(sound["collections"][0]["snapshots"][0]["points"], FILMS, "{sound}");

    let (page, manifest) = (find(&data, ".page"), find(&data, ".manifest"));
    flip(&page, 3);
    let ran = doctor(&lab, &data, &[]);
    assert_eq!(ran.code, 1);
    let told = ["does not hash to its name", "recoverable: the log has every record", "--repair puts it right"];
    assert!(told.iter().all(|words| ran.out.contains(words)), "{}", ran.out);
    assert!(page.exists() && manifest.exists());
    let ran = doctor(&lab, &data, &["--repair"]);
    assert!(ran.code == 0 && ran.out.ends_with("healthy\n"), "{ran:?}");
    assert!(!page.exists() && !manifest.exists());
    let node = command.start().await.unwrap();
    check_films(&lab.client(&node).await, &(0..FILMS).collect::<Vec<_>>(), 1).await;
}

#[test]
fn a_folder_that_is_no_nodes_is_refused_and_left_as_it_is() {
    let lab = Lab::new();
    doctor(&lab, &lab.path("absent"), &[]).fails(2, &["absent is no folder", "--data"]);
    assert!(!lab.path("absent").exists());
    let refused = doctor(&lab, &lab.client_certs(), &["--json"]);
    refused.fails(2, &[r#""code":"usage""#, "is no data directory, since it has none of node, catalog, collections"]);
    assert!(!lab.client_certs().join("vecino.lock").exists());
    doctor(&lab, &lab.path("absent"), &["--mend"]).fails(2, &["--mend"]);
}
