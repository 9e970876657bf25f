//! Backups with the real commands: from a mesh of three onto a mesh of one, and in a real S3-compatible server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use vecino_client::{Level, NodeState};

use crate::lab::{FILMS, Lab, Ran, check_films, command, create_films, film, put, put_films, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_of_three_is_restored_onto_a_mesh_of_one() {
    let lab = Lab::new();
    let mut mesh = lab.mesh(3).await;
    let client = lab.client(&mesh[1]).await;
    create_films(&client, 3).await;
    put_films(&client, 0..3_000, 1, Level::All).await;
    let folder = lab.path("backups");
    let url = format!("file://{}", folder.display());

    let first = lab.ask(&mesh[2], &["backup", "create", &url, "--json"]).json();
    assert_eq!(
        (&first["points"], &first["level"], &first["mesh"]),
        (&json!(3_000), &json!("quorum"), &json!(mesh[0].mesh_id()))
    );
    assert_eq!(first["pages_sent"], first["pages"]);
    let again = lab.ask(&mesh[0], &["backup", "create", &url, "--json"]).json();
    assert_eq!((&again["pages_sent"], &again["pages"]), (&json!(0), &first["pages"]), "any node, the same pages");

    // One replica of each range is enough for who says so.
    put(&client, vec![film(3_000, 1)], Level::All).await;
    drop(client);
    for node in mesh.drain(1..) {
        node.kill().await.unwrap();
    }
    lab.await_nodes(&lab.client(&mesh[0]).await, 1, NodeState::Up).await;
    lab.ask(&mesh[0], &["backup", "create", &url]).fails(1, &["cannot be read at level quorum", "--level one"]);
    let last = lab.ask(&mesh[0], &["backup", "create", &url, "--level", "one", "--json"]).json();
    assert_eq!((&last["points"], &last["level"]), (&json!(3_001), &json!("one")));
    assert!(last["pages_sent"].as_u64().unwrap() <= 2, "{last}");
    let listed = run(lab.folder.path(), &["backup", "list", &url, "--json"]).json();
    let names: Vec<_> = listed["backups"].as_array().unwrap().iter().map(|backup| &backup["backup"]).collect();
    assert_eq!(names, [&first["backup"], &again["backup"], &last["backup"]]);
    drop(mesh);

    let other = Lab::new();
    let node = other.mesh(1).await.remove(0);
    let restored = other.ask(&node, &["restore", &url, "--json"]).json();
    assert_eq!(
        restored["collections"],
        json!([{ "name": FILMS, "original": FILMS, "points": 3_001, "replicas": 1, "original_replicas": 3 }])
    );
    let ids: Vec<u64> = (0..=3_000).collect();
    check_films(&other.client(&node).await, &ids, 1).await;
    let described = other.ask(&node, &["collection", "describe", FILMS, "--json"]).json();
    assert_eq!(described["points"], 3_001, "the marker of the restore is gone");

    other.ask(&node, &["restore", &url]).fails(1, &["\"films\" exists", "--as NAME"]);
    let older =
        ["restore", &url, "--backup", first["backup"].as_str().unwrap(), "--collection", FILMS, "--as", "older"];
    assert_eq!(other.ask(&node, &older).code, 0);
    assert_eq!(other.ask(&node, &["collection", "describe", "older", "--json"]).json()["points"], 3_000);
    other.ask(&node, &["backup", "create", &url]).fails(1, &["holds backups of mesh", "use another folder"]);
    other.ask(&node, &["restore", "nowhere"]).fails(1, &["nowhere cannot be reached"]);

    // Every backup shares pages with the newest one or is it; without any page at all, that one is surely damaged.
    let pages: Vec<_> = std::fs::read_dir(folder.join("pages")).unwrap().map(|page| page.unwrap().path()).collect();
    pages.iter().for_each(|page| std::fs::remove_file(page).unwrap());
    other.ask(&node, &["restore", &url, "--as", "third"]).fails(1, &["is missing", "nothing was restored"]);
    other.ask(&node, &["collection", "describe", "third"]).fails(1, &["third"]);
}

/// An S3-compatible server in a process, on a port of loopback.
struct S3 {
    child: Child,
    address: SocketAddr,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl S3 {
    /// Installs and starts the server of Python's `moto`; absent where that cannot be had.
    fn start(folder: &Path) -> Option<Self> {
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto");
        let server = venv.join("bin/moto_server");
        let succeeds = |command: &mut Command| {
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let installed = server.exists()
            || succeeds(Command::new("python3").args(["-m", "venv"]).arg(&venv))
                && succeeds(Command::new(venv.join("bin/pip")).args(["install", "moto[server]>=5,<6"]));
        if !installed {
            return None;
        }
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let port = address.port().to_string();
        let mut command = Command::new(server);
        command.args(["-H", "127.0.0.1", "-p", &port]).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
        let s3 = Self { child: command.spawn().unwrap(), address };
        let started = Instant::now();
        let mut stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(60), "moto does not listen: {error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let put = format!("PUT /bucket HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(put.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Some(s3)
    }

    fn ask(&self, lab: &Lab, arguments: &[&str]) -> Ran {
        let mut command = command(lab.folder.path(), arguments);
        command.env("AWS_ENDPOINT_URL", format!("http://{}", self.address)).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ACCESS_KEY_ID", "me").env("AWS_SECRET_ACCESS_KEY", "secret").env("AWS_REGION", "us-east-1");
        command.output().unwrap().into()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_store_keeps_backups_too() {
    let lab = Lab::new();
    let Some(s3) = S3::start(lab.folder.path()) else {
        eprintln!("S3 is not checked: python3 with pip and the package moto cannot be had here");
        return;
    };
    let node = lab.mesh(1).await.remove(0);
    let client = lab.client(&node).await;
    create_films(&client, 1).await;
    put_films(&client, 0..500, 1, Level::Quorum).await;
    let (address, certs) = (node.address().to_string(), lab.client_certs());
    let mesh = ["--connect", &address, "--certs", certs.to_str().unwrap(), "--json"];
    let ask = |arguments: &[&str]| s3.ask(&lab, &[arguments, &mesh].concat());
    let url = "s3://bucket/some/prefix";
    let first = ask(&["backup", "create", url]).json();
    assert_eq!((&first["points"], &first["pages_sent"]), (&json!(500), &first["pages"]));
    assert_eq!(ask(&["backup", "create", url]).json()["pages_sent"], 0);
    let listed = s3.ask(&lab, &["backup", "list", url, "--json"]).json();
    assert_eq!(listed["backups"].as_array().unwrap().len(), 2);
    client.collection(FILMS).drop_collection().await.unwrap();
    assert_eq!(ask(&["restore", url]).json()["points"], 500);
    check_films(&client, &(0..500).collect::<Vec<_>>(), 1).await;
    ask(&["backup", "create", "s3://absent/prefix"]).fails(1, &["s3://absent/prefix cannot be reached", "unreachable"]);
}
