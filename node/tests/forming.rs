//! Real nodes in one process find each other, and each answers for all: the drivers of what `vecino-mesh` decides about it.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use vecino_certs::{Authority, IssueOptions, Role};
use vecino_engine::memory::MemoryLimit;
use vecino_model::{CollectionSchema, FieldSchema, Fsync, Metric, NodeState, Profile};
use vecino_net::endpoint::{Endpoint, EndpointOptions};
use vecino_net::message::{CreateCollection, DescribeCollection, ListCollections, RingInfo, Status, TakeSnapshot};
use vecino_node::Node;
use vecino_node::config::{LogFormat, Settings};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identical_nodes_make_one_mesh_and_each_answers_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(folder.path().join("ca"), "mesh").unwrap();
    let sockets: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    drop(sockets);
    let start = |number: usize| {
        let certs = folder.path().join(format!("certs{number}"));
        authority.issue(&IssueOptions::new(format!("n{number}"), Role::Node)).unwrap().write(&certs).unwrap();
        let data = folder.path().join(format!("data{number}"));
        let seeds = addresses.iter().map(ToString::to_string).collect();
        let listen = addresses[number];
        async move {
            let (memory_limit, log_format) = (MemoryLimit::Percent(50), LogFormat::Text);
            let (advertise, certs) = (None, Some(certs));
            let open_collections = 16;
            let settings =
                Settings { data, listen, advertise, seeds, certs, memory_limit, open_collections, log_format };
            Node::start(&settings).await.unwrap()
        }
    };
    // The first seed, which starts the mesh, comes last.
    let started = async { tokio::join!(start(2), start(1), start(0)) };
    let (third, second, first) = tokio::time::timeout(PATIENCE, started).await.unwrap();
    let nodes = [first, second, third];
    let meshes: BTreeSet<[u8; 16]> = nodes.iter().map(|node| node.mesh_id().0).collect();
    assert_eq!(meshes.len(), 1);

    let identity = authority.issue(&IssueOptions::new("me", Role::Client)).unwrap().identity().unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let client = Endpoint::client(&identity, EndpointOptions { listen, ..EndpointOptions::default() }).unwrap();
    let began = Instant::now();
    for address in &addresses {
        loop {
            let status = client.call(*address, None, &Status {}, PATIENCE).await.unwrap();
            let up = status.nodes.iter().filter(|node| node.state == NodeState::Up);
            // A node that answered says what memory it takes.
            if up.filter(|node| node.memory.is_some()).count() == 3 {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{status:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let field = FieldSchema { dim: 2, metric: Metric::Euclidean, m: 8, ef_construction: 40, profile: Profile::Fast };
    let fields = BTreeMap::from([(String::new(), field)]);
    let schema = CollectionSchema { fields, replication_factor: 3, fsync: Fsync::Always };
    let request = CreateCollection { name: "films".to_owned(), schema };
    let created = client.call(addresses[1], None, &request, PATIENCE).await.unwrap();
    assert_eq!((created.placement.len(), created.nodes.len()), (3, 3), "it is described as all nodes hold it");
    for address in &addresses {
        let listed = client.call(*address, None, &ListCollections {}, PATIENCE).await.unwrap();
        assert_eq!((listed.len(), listed[0].id), (1, created.id));
        let request = DescribeCollection { name: "films".to_owned() };
        assert_eq!(client.call(*address, None, &request, PATIENCE).await.unwrap().nodes.len(), 3);
        let collection = Some("films".to_owned());
        let ring = client.call(*address, None, &RingInfo { collection: collection.clone() }, PATIENCE).await.unwrap();
        assert_eq!((ring.replication_factor, ring.owns.len()), (3, 3));
        let reports = client.call(*address, None, &TakeSnapshot { collection }, PATIENCE).await.unwrap();
        assert!(reports.len() == 3 && reports.iter().all(|report| report.error.is_none()), "{reports:?}");
    }
    for node in nodes {
        node.stop().await;
    }
}
