//! Who does not belong is kept out, and told why.

use std::net::UdpSocket;

use vecino::process::ProcessError;
use vecino_client::{Client, Level};

use crate::lab::{Lab, check_films, create_films, logged, put_films};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_another_authority_is_refused_and_both_sides_say_why() {
    let (lab, other) = (Lab::new(), Lab::new());
    let node = lab.node("n1", &[]).start().await.unwrap();
    let ran = crate::lab::run(
        other.folder.path(),
        &["status", "--connect", &node.address().to_string(), "--certs", other.client_certs().to_str().unwrap()],
    );
    // What does not fit, the file, both fingerprints, what to do; and nothing in the words of a library.
    ran.fails(
        1,
        &["the certificate of node", "is not signed by the authority in", "ca.crt (fingerprint ", "vecino certs show"],
    );
    for word in ["BadSignature", "handshake", "OtherError"] {
        assert!(!ran.err.contains(word), "{ran:?}");
    }
    assert_eq!(ran.err.matches(&node.address().to_string()).count(), 1, "the address is named once: {ran:?}");
    let refused = logged(&node, "connection refused").await;
    assert!(refused.contains("certificate"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_authority_never_joins() {
    let (lab, other) = (Lab::new(), Lab::new());
    let node = lab.node("n1", &[]).start().await.unwrap();
    let stranger = other.node("n2", &[node.address()]);
    // It asks on, since the seed may be given the right certificate.
    let data = stranger.data.clone();
    let starting = tokio::spawn(stranger.start());
    let log = data.with_extension("log");
    let told = loop {
        let told = std::fs::read_to_string(&log).unwrap_or_default();
        if told.contains("cannot join through this seed") {
            break told;
        }
        assert!(!starting.is_finished());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    starting.abort();
    assert!(told.contains("is not signed by the authority in"), "{told}");
    assert!(!told.contains("no seed has a mesh"), "a refusal is no missing mesh: {told}");
    let client = lab.client(&node).await;
    assert_eq!(client.status().await.unwrap().nodes.len(), 1);
    logged(&node, "connection refused").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_certificate_makes_its_own_or_says_how_to_get_one() {
    let lab = Lab::new();
    let mut command = lab.node("n1", &[]);
    command.certs = None;
    let node = command.start().await.unwrap();
    let certs = node.client_certs().expect("it made one").to_owned();
    let client = Client::builder().connect(node.address().to_string()).certs(certs).build().await.unwrap();
    assert_eq!(client.status().await.unwrap().nodes.len(), 1);
    assert!(node.log().contains("made an authority"));

    let mut joining = lab.node("n2", &[node.address()]);
    joining.certs = None;
    let Err(ProcessError::NotReady { log, .. }) = joining.start().await else { panic!("it has no certificate") };
    assert!(log.contains("vecino certs issue"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_has_one_node_and_one_process() {
    let lab = Lab::new();
    let node = lab.node("n1", &[]).start().await.unwrap();
    let refused = |command: vecino::process::NodeCommand| async {
        match command.start().await {
            Err(ProcessError::NotReady { log, .. }) => log,
            other => panic!("{other:?}"),
        }
    };
    let log = refused(lab.node("n1", &[])).await;
    assert!(log.contains("is in use by process"), "{log}");
    node.stop().await.unwrap();
    let mut other = lab.node("n2", &[]);
    other.data = lab.path("n1-data");
    let log = refused(other).await;
    assert!(log.contains("belongs to node"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_port_changes_nothing() {
    let lab = Lab::new();
    let node = lab.node("n1", &[]).start().await.unwrap();
    let client = lab.client(&node).await;
    create_films(&client, 1).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..200 {
        let garbage: Vec<u8> = (0..random.usize(1..1_400)).map(|_| random.u8(..)).collect();
        socket.send_to(&garbage, node.address()).unwrap();
        if round % 50 == 0 {
            put_films(&client, [round].into_iter(), 1, Level::Quorum).await;
        }
    }
    check_films(&client, &[0, 50, 100, 150], 1).await;
}
