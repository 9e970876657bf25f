//! The commands, as they are typed.

use std::io::Write;
use std::path::Path;

use serde_json::json;
use vecino::process::NodeProcess;

use crate::lab::{Lab, VECINO, command, run};

async fn one_node(lab: &Lab) -> NodeProcess {
    lab.node("n1", &[]).start().await.unwrap()
}

/// Writes a .npy of f32 rows.
fn write_npy(path: &Path, rows: &[Vec<f32>]) {
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows.len(), rows[0].len());
    header.push_str(&" ".repeat(63 - (10 + header.len()) % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(rows.iter().flatten().flat_map(|value| value.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_are_put_read_found_and_deleted() {
    let lab = Lab::new();
    let node = one_node(&lab).await;
    let ask = |arguments: &[&str]| lab.ask(&node, arguments);
    assert_eq!(ask(&["collection", "create", "films", "--dim", "3", "--metric", "cosine"]).code, 0);
    let put = ["put", "films", "--id", "100", "--vector", "0.1,0.2,0.3", "--payload", r#"{"title":"Río","year":1991}"#];
    assert_eq!(ask(&put).code, 0);
    assert_eq!(ask(&["put", "films", "--id", "b", "--vector", "0.3,0.2,0.1"]).code, 0);

    let got = ask(&["get", "films", "--id", "100", "--json"]).json();
    assert_eq!(got["id"], 100);
    assert_eq!(got["vector"], json!([0.1, 0.2, 0.3]));
    assert_eq!(got["payload"], json!({ "title": "Río", "year": 1991 }));
    assert!(got["version"].is_string());
    let absent = ask(&["get", "films", "--id", "101", "--json"]);
    assert_eq!((absent.code, absent.out.as_str()), (1, ""), "{absent:?}");

    let found = ask(&["search", "films", "--vector", "0.1,0.2,0.3", "--k", "10", "--json"]).json();
    assert_eq!(found["coverage"], 1.0);
    let hits = found["hits"].as_array().unwrap();
    assert_eq!((hits.len(), &hits[0]["id"], &hits[1]["id"]), (2, &json!(100), &json!("b")));
    assert_eq!(hits[0]["payload"]["title"], "Río");
    let score = hits[1]["score"].as_f64().unwrap();
    assert!((score - 10.0 / 14.0).abs() < 1e-6, "{score}");
    let like = ask(&["search", "films", "--id", "100", "--k", "1", "--json"]).json();
    assert_eq!(like["hits"][0]["id"], "b", "more like a point is not the point");
    let near = ask(&["search", "films", "--vector", "0.1,0.2,0.3", "--threshold", "0.9", "--json"]).json();
    assert_eq!(near["hits"].as_array().unwrap().len(), 1);

    let status = ask(&["status", "--json"]).json();
    assert_eq!(status["mesh"], node.mesh_id());
    let only = &status["nodes"][0];
    assert_eq!((&only["id"], &only["state"], &only["points"]), (&json!(node.node_id()), &json!("up"), &json!(2)));
    assert_eq!((&only["owns"], &only["name"]), (&json!(1.0), &json!("n1")), "the name in its certificate");
    assert_eq!(ask(&["ring", "--json"]).json()["ranges"].as_array().unwrap().len(), 16);
    assert_eq!(ask(&["snapshot", "--json"]).json()["snapshots"][0]["lsn"], 3);
    assert_eq!(ask(&["collection", "list", "--json"]).json()["collections"][0]["name"], "films");

    assert_eq!(ask(&["delete", "films", "--id", "100"]).code, 0);
    assert_eq!(ask(&["get", "films", "--id", "100"]).code, 1);
    assert_eq!(ask(&["collection", "drop", "films"]).code, 0);
    ask(&["get", "films", "--id", "b"]).fails(1, &["films", "does not exist"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_names_field_value_and_limit_and_stores_nothing() {
    let lab = Lab::new();
    let node = one_node(&lab).await;
    let ask = |arguments: &[&str]| lab.ask(&node, arguments);
    assert_eq!(ask(&["collection", "create", "films", "--dim", "3", "--metric", "cosine"]).code, 0);

    // What is wrong whatever the mesh says is usage.
    ask(&["put", "films", "--id", "1", "--vector", "0.1,NaN,1"]).fails(2, &["NaN"]);
    ask(&["put", "films", "--id", "1", "--vector", "0.1,inf,1"]).fails(2, &["inf"]);
    ask(&["put", "films", "--id", "1", "--vector", "1,2,3", "--payload", "[1]"]).fails(2, &["payload"]);
    ask(&["put", "films", "--id", &"x".repeat(513), "--vector", "1,2,3"]).fails(2, &["512"]);
    ask(&["collection", "create", "a", "--dim", "0", "--metric", "dot"]).fails(2, &["0", "16384"]);
    ask(&["collection", "create", "a", "--dim", "3", "--metric", "l2"]).fails(2, &["l2", "euclidean"]);
    ask(&["search", "films", "--vector", "1,2,3", "--k", "0"]).fails(2, &["k"]);
    ask(&["search", "films", "--vector", "1,2,3", "--k", "10001"]).fails(2, &["10000"]);
    ask(&["serach"]).fails(2, &["search"]);
    ask(&["serach", "--json"]).fails(2, &[r#"{"error":{"code":"usage""#]);

    // What only the schema knows fails.
    ask(&["put", "films", "--id", "1", "--vector", "1,2"]).fails(1, &["dimension 2", "3"]);
    ask(&["put", "films", "--id", "1", "--vector", "0,0,0"]).fails(1, &["no direction", "cosine"]);
    ask(&["search", "films", "--vector", "1,2"]).fails(1, &["dimension 2", "3"]);
    ask(&["search", "books", "--vector", "1,2"]).fails(1, &["books", "does not exist"]);
    ask(&["collection", "create", "films", "--dim", "3", "--metric", "dot"]).fails(1, &["films", "exists already"]);
    ask(&["collection", "create", "a", "--dim", "3", "--metric", "dot", "--replicas", "2"])
        .fails(1, &["2 replicas", "1 node"]);
    let big = format!(r#"{{"a":"{}"}}"#, "x".repeat(70_000));
    ask(&["put", "films", "--id", "1", "--vector", "1,2,3", "--payload", &big]).fails(1, &["payload", "65536"]);

    // Files are read through before anything is sent.
    let file = |name: &str, bytes: &[u8]| {
        let path = lab.path(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ragged = file("ragged.jsonl", b"{\"id\":1,\"vector\":[1,2,3]}\n{\"id\":2,\"vector\":[1,2]}\n");
    ask(&["import", "films", &ragged]).fails(1, &["ragged.jsonl", "2"]);
    write_npy(&lab.path("whole.npy"), &vec![vec![1.0, 2.0, 3.0]; 10]);
    let whole = std::fs::read(lab.path("whole.npy")).unwrap();
    let truncated = file("truncated.npy", &whole[..whole.len() - 1]);
    ask(&["import", "films", &truncated]).fails(1, &["truncated.npy", "247", "248", "truncated"]);
    let zero = file("zero.jsonl", b"{\"id\":1,\"vector\":[1,2,3]}\n{\"id\":2,\"vector\":[0,0,0]}\n");
    assert_eq!(ask(&["import", "films", &zero]).code, 1);
    let stored = ask(&["status", "--json"]).json()["nodes"][0]["points"].clone();
    assert!(stored == 0 || ask(&["get", "films", "--id", "2"]).code == 1, "a refused point was stored");

    // Nobody there.
    let [nobody] = crate::lab::free_addresses();
    let certs = lab.client_certs();
    let args = ["status", "--connect", &nobody.to_string(), "--certs", certs.to_str().unwrap()];
    let asked_at = std::time::Instant::now();
    run(lab.folder.path(), &args).fails(1, &[&format!("no node runs at {nobody}"), "vecino node"]);
    assert!(asked_at.elapsed() < std::time::Duration::from_secs(2), "it fails at once: {:?}", asked_at.elapsed());
    let address = node.address().to_string();
    run(lab.folder.path(), &["status", "--connect", &address]).fails(1, &["vecino-data/certs/client"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_goes_in_is_measured_and_comes_out_as_it_was() {
    let lab = Lab::new();
    let node = one_node(&lab).await;
    let ask = |arguments: &[&str]| lab.ask(&node, arguments);
    let mut random = fastrand::Rng::with_seed(3);
    let rows: Vec<Vec<f32>> = (0..2_000).map(|_| (0..8).map(|_| random.f32()).collect()).collect();
    write_npy(&lab.path("base.npy"), &rows);
    write_npy(&lab.path("query.npy"), &rows[..50]);
    assert_eq!(ask(&["collection", "create", "a", "--dim", "8", "--metric", "euclidean"]).code, 0);
    let imported = ask(&["import", "a", "base.npy", "--json"]).json();
    assert_eq!((&imported["acknowledged"], &imported["failed"]), (&json!(2_000), &json!(0)));
    assert!(imported["seconds"].is_number());

    // The ten nearest of each query by definition, as an .ivecs.
    let mut truth = Vec::new();
    for query in &rows[..50] {
        let distance = |row: &Vec<f32>| row.iter().zip(query).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        let mut order: Vec<i32> = (0..2_000).collect();
        order.sort_by(|a, b| distance(&rows[*a as usize]).total_cmp(&distance(&rows[*b as usize])));
        truth.extend(10i32.to_le_bytes());
        truth.extend(order[..10].iter().flat_map(|id| id.to_le_bytes()));
    }
    std::fs::write(lab.path("truth.ivecs"), truth).unwrap();
    let bench =
        ["bench", "a", "--queries", "query.npy", "--truth", "truth.ivecs", "--k", "10", "--seconds", "1", "--json"];
    let measured = ask(&bench).json();
    assert!(measured["recall"].as_f64().unwrap() > 0.97, "{measured}");
    assert_eq!(measured["errors"], 0);
    assert!(["qps", "p50_ms", "p99_ms"].iter().all(|name| measured[name].as_f64().unwrap() > 0.0), "{measured}");

    assert_eq!(ask(&["export", "a", "--out", "a.jsonl"]).code, 0);
    assert_eq!(ask(&["collection", "create", "b", "--dim", "8", "--metric", "euclidean"]).code, 0);
    assert_eq!(ask(&["import", "b", "a.jsonl", "--json"]).json()["acknowledged"], 2_000);
    assert_eq!(ask(&["export", "b", "--out", "b.jsonl"]).code, 0);
    let sorted = |name: &str| {
        let text = std::fs::read_to_string(lab.path(name)).unwrap();
        let mut rows: Vec<_> =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
        rows.sort_by_key(|row| row["id"].as_u64());
        rows
    };
    let exported = sorted("a.jsonl");
    assert_eq!(exported, sorted("b.jsonl"));
    for (row, line) in rows.iter().zip(&exported) {
        let values: Vec<f32> = serde_json::from_value(line["vector"].clone()).unwrap();
        assert_eq!(&values, row);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_import_goes_on_where_its_journal_ends() {
    let lab = Lab::new();
    let node = one_node(&lab).await;
    let rows: Vec<Vec<f32>> = (0..30_000).map(|row| vec![row as f32, 1.0, -(row as f32)]).collect();
    write_npy(&lab.path("base.npy"), &rows);
    assert_eq!(lab.ask(&node, &["collection", "create", "a", "--dim", "3", "--metric", "euclidean"]).code, 0);
    let (connect, certs) = (node.address().to_string(), lab.client_certs());
    let import = [
        "import",
        "a",
        "base.npy",
        "--journal",
        "journal",
        "--batch",
        "100",
        "--in-flight",
        "1",
        "--json",
        "--connect",
        &connect,
        "--certs",
        certs.to_str().unwrap(),
    ];
    let mut child = command(lab.folder.path(), &import).stdout(std::process::Stdio::null()).spawn().unwrap();
    let ids = || std::fs::read_to_string(lab.path("journal")).unwrap_or_default().lines().count();
    while ids() < 2_000 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be interrupted");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = ids();
    assert!(before < 30_000, "it ended before it could be interrupted");
    let rest = run(lab.folder.path(), &import).json();
    let acknowledged = rest["acknowledged"].as_u64().unwrap();
    assert!(acknowledged as usize <= 30_000 - before + 1, "{acknowledged} were sent again, {before} were done");
    let status = lab.ask(&node, &["status", "--json"]).json();
    assert_eq!(status["nodes"][0]["points"], 30_000);
    assert_eq!(run(lab.folder.path(), &import).json()["failed"], 0, "a third time there is nothing left to do");
}

#[test]
fn settings_come_from_file_environment_and_flags_and_logs_are_text_or_json() {
    let lab = Lab::new();
    std::fs::write(lab.path("node.yaml"), "listen: 127.0.0.1:0\ndata: from-file\nlog_format: json\n").unwrap();
    let mut child = command(lab.folder.path(), &["node", "--config", "node.yaml"])
        .env("VECINO_DATA", "from-environment")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert!(line.contains("is ready in mesh"), "{line}");
    assert!(lab.path("from-environment/node").exists() && !lab.path("from-file").exists());
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "Ctrl-C stops it in order: {output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    let entries: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(entries.iter().any(|entry| entry["message"] == "ready"), "{log}");

    let mut misspelt = std::fs::File::create(lab.path("bad.toml")).unwrap();
    misspelt.write_all(b"lisen = '127.0.0.1:0'\n").unwrap();
    run(lab.folder.path(), &["node", "--config", "bad.toml"]).fails(1, &["bad.toml", "lisen"]);
    run(lab.folder.path(), &["node", "--listen", "0.0.0.0:0"]).fails(1, &["--advertise"]);
    run(lab.folder.path(), &["node", "--listen", "nowhere"]).fails(2, &["--listen"]);
    run(lab.folder.path(), &["node", "--listen", ":0", "--advertise", "0.0.0.0:7405"])
        .fails(1, &["0.0.0.0:7405", "names no machine"]);
}

#[test]
fn a_port_in_use_leaves_no_folder_and_no_authority_behind() {
    let lab = Lab::new();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let node = ["node", "--listen", &address, "--data", "d"];
    run(lab.folder.path(), &node).fails(1, &[&address, "is in use", "--listen"]);
    assert!(!lab.path("d").exists());
}

#[test]
fn the_end_of_its_terminal_stops_a_node_in_order() {
    let lab = Lab::new();
    let mut child = command(lab.folder.path(), &["node", "--listen", "127.0.0.1:0", "--data", "d"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert!(line.contains("is ready in mesh"), "{line}");
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && log.contains("stopped"), "{:?} {log}", output.status);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_with_names_are_made_filled_and_searched() {
    let lab = Lab::new();
    let node = one_node(&lab).await;
    let ask = |arguments: &[&str]| lab.ask(&node, arguments);
    let create = ["collection", "create", "films", "--field", "title:2:cosine", "--field", "image:3:euclidean"];
    assert_eq!(ask(&create).code, 0);
    for (id, title, image) in [("1", "1,0", "0,0,1"), ("2", "0,1", "0,0,2")] {
        let put =
            ["put", "films", "--id", id, "--field", "title", "--vector", title, "--field", "image", "--vector", image];
        assert_eq!(ask(&put).code, 0);
    }
    let nearest = |field: &str, vector: &str| {
        let found = ask(&["search", "films", "--field", field, "--vector", vector, "--k", "1", "--json"]).json();
        found["hits"][0]["id"].clone()
    };
    assert_eq!((nearest("title", "1,0.1"), nearest("image", "0,0,3")), (json!(1), json!(2)));
    let shown = ask(&["search", "films", "--field", "title", "--id", "1", "--with-vector"]);
    assert!(shown.out.contains("VECTOR") && shown.out.contains("image 0,0,2; title 0,1"), "{shown:?}");
    ask(&["put", "films", "--id", "3", "--vector", "1,0"]).fails(1, &["schema", "title", "image"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_whose_reader_has_seen_enough_ends_quietly() {
    use std::io::BufRead;
    let lab = Lab::new();
    let node = one_node(&lab).await;
    let rows: Vec<Vec<f32>> = (0..5_000).map(|row| vec![row as f32; 64]).collect();
    write_npy(&lab.path("base.npy"), &rows);
    assert_eq!(lab.ask(&node, &["collection", "create", "a", "--dim", "64", "--metric", "euclidean"]).code, 0);
    assert_eq!(lab.ask(&node, &["import", "a", "base.npy"]).code, 0);
    lab.ask(&node, &["export", "a", "--out", "a.parquet"]).fails(2, &["a.parquet", ".jsonl"]);
    assert!(!lab.path("a.parquet").exists());
    let (address, certs) = (node.address().to_string(), lab.client_certs());
    let export = ["export", "a", "--connect", &address, "--certs", certs.to_str().unwrap()];
    let mut child = command(lab.folder.path(), &export)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"id\":"), "{line}");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn certificates_are_made_issued_and_shown() {
    let lab = Lab::new();
    let certs = |arguments: &[&str]| run(lab.folder.path(), &[&["certs"], arguments].concat());
    assert_eq!(certs(&["init", "authority"]).code, 0);
    certs(&["init", "authority"]).fails(1, &["never overwritten"]);
    assert_eq!(certs(&["issue", "authority", "--name", "n9", "--out", "n9", "--san", "n9.example"]).code, 0);
    let shown = certs(&["show", "n9/node.crt"]);
    assert!(shown.out.contains("n9.example"), "{shown:?}");
    let folder = certs(&["show", "n9"]);
    assert!(folder.out.contains("authority \"vecino\"") && folder.out.contains("node \"n9\""), "{folder:?}");
    assert!(Path::new(VECINO).exists());
}
