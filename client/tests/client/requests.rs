//! Every request reaches the node as it was made, and the answer comes back as it was given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use vecino_client::{
    CollectionInfo, ErrorCode, Level, Metric, NodeId, Outcome, PointId, RawPoint, RingReply, ScanCursor, SearchReply,
    SnapshotReport, StatusReply, StoredPoint, Version, payload_from_json, point, schema,
};
use vecino_model::{CollectionId, Fields, Hit, MeshId, Payload, Vector};
use vecino_net::message::{
    CreateCollection, Delete, DescribeCollection, DropCollection, Dropped, Get, ListCollections, Put, Query, RingInfo,
    Rpc, ScanReply, ScanStream, Search, Status, TakeSnapshot,
};

use crate::fake::{Asked, Clients, FakeMesh, FakeNode, reply};

/// Answers every kind in a way that shows what was asked.
fn answer(asked: &Asked) -> Result<Vec<u8>, vecino_net::error::RpcError> {
    let info = |name: String| {
        let schema = schema(3, Metric::Cosine);
        let mut info = CollectionInfo::new(name, CollectionId([1; 16]), schema, BTreeMap::new());
        info.points = 5;
        info
    };
    match asked.kind {
        CreateCollection::KIND => {
            let create: CreateCollection = asked.read();
            let mut created = info(create.name);
            created.schema = create.schema;
            reply::<CreateCollection>(created)
        }
        DropCollection::KIND => reply::<DropCollection>(Dropped::new(7)),
        ListCollections::KIND => reply::<ListCollections>(vec![info("a".into()), info("b".into())]),
        DescribeCollection::KIND => reply::<DescribeCollection>(info(asked.read::<DescribeCollection>().name)),
        Get::KIND => {
            let get: Get = asked.read();
            let found = get.ids.into_iter().map(|id| (id != PointId::from(404)).then(|| stored(id).into()));
            reply::<Get>(found.collect())
        }
        Delete::KIND => {
            let delete: Delete = asked.read();
            assert_eq!(delete.level, Level::All);
            reply::<Delete>(vec![Outcome::Written(Version::ZERO); delete.ids.len()])
        }
        Status::KIND => reply::<Status>(StatusReply::new(MeshId([7; 16]), NodeId::from_bytes([2; 16]), Vec::new())),
        RingInfo::KIND => {
            let factor = if asked.read::<RingInfo>().collection.as_deref() == Some("films") { 2 } else { 3 };
            reply::<RingInfo>(RingReply::new(Vec::new(), BTreeMap::new(), factor))
        }
        TakeSnapshot::KIND => {
            let collection = asked.read::<TakeSnapshot>().collection.unwrap_or_default();
            let mut report = SnapshotReport::new(NodeId::from_bytes([2; 16]), collection);
            (report.lsn, report.pages, report.pages_written, report.milliseconds) = (9, 4, 1, 3);
            reply::<TakeSnapshot>(vec![report])
        }
        kind => panic!("kind {kind} was not expected"),
    }
}

fn stored(id: PointId) -> StoredPoint {
    StoredPoint {
        id,
        vectors: Fields::from([(String::new(), Vector(vec![0.5, -1.0]))]),
        payload: Payload::new(),
        version: Version::ZERO,
    }
}

fn answering(mesh: &FakeMesh) -> FakeNode {
    mesh.node(|asked| std::future::ready(answer(&asked)))
}

#[tokio::test]
async fn every_simple_request_and_its_answer() {
    let mesh = FakeMesh::new();
    let node = answering(&mesh);
    let client = mesh.client(&[node.address]).await;
    let films = client.collection("films");
    let created = films.create(7, Metric::Dot).await.unwrap();
    assert_eq!((created.name.as_str(), &created.schema), ("films", &schema(7, Metric::Dot)));
    films.drop_collection().await.unwrap();
    let names: Vec<_> = client.collections().await.unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(films.describe().await.unwrap().name, "films");
    let ids = vec![PointId::from(1), PointId::from(404), PointId::from("x")];
    let found = films.get(ids.clone()).await.unwrap();
    assert_eq!(found, [Some(stored(1.into())), None, Some(stored("x".into()))]);
    assert_eq!(films.get_one(404).await.unwrap(), None);
    assert_eq!(films.get_one("x").await.unwrap(), Some(stored("x".into())));
    assert_eq!(films.delete(ids).level(Level::All).await.unwrap(), vec![Version::ZERO; 3]);
    assert_eq!(client.status().await.unwrap().mesh, MeshId([7; 16]));
    assert_eq!(client.ring().await.unwrap().replication_factor, 3);
    assert_eq!(films.ring().await.unwrap().replication_factor, 2);
    assert_eq!(films.snapshot().await.unwrap()[0].collection, "films");
    assert_eq!(client.snapshot().await.unwrap()[0].collection, "");
    assert_eq!(client.nodes(), [node.address]);
    client.close().await;
}

#[tokio::test]
async fn a_search_carries_all_its_settings_and_has_defaults_for_the_rest() {
    let mesh = FakeMesh::new();
    let searches = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&searches);
    let hit = Hit { id: 1.into(), score: 0.5, version: Version::ZERO, payload: None, vectors: BTreeMap::new() };
    let answer = SearchReply::new(vec![hit], 1.0, Metric::Cosine);
    let given = answer.clone();
    let node = mesh.node(move |asked| {
        seen.lock().unwrap().push(asked.read::<Search>());
        std::future::ready(reply::<Search>(given.clone().into()))
    });
    let client = mesh.client(&[node.address]).await;
    let films = client.collection("films");
    let plain = films.search([1.0, 2.0]);
    let full = films
        .search_like("x")
        .k(3)
        .ef(77)
        .threshold(0.25)
        .field("image")
        .level(Level::One)
        .with_payload(false)
        .with_vectors(true)
        .allow_partial(true)
        .exact(true);
    for request in [plain, full] {
        assert_eq!(request.await.unwrap(), answer);
    }
    let searches = searches.lock().unwrap();
    let Search { collection, query, field, k, ef, threshold, level, with_payload, with_vectors, allow_partial, exact } =
        &searches[0];
    assert_eq!((collection.as_str(), query), ("films", &Query::Vector(vec![1.0, 2.0].into())));
    assert_eq!((field.as_str(), *k, *ef, *threshold, *level), ("", 10, None, None, Level::Quorum));
    assert_eq!([*with_payload, *with_vectors, *allow_partial, *exact], [true, false, false, false]);
    let Search { query, field, k, ef, threshold, level, with_payload, with_vectors, allow_partial, exact, .. } =
        &searches[1];
    assert_eq!(query, &Query::Id("x".into()));
    assert_eq!((field.as_str(), *k, *ef, *threshold, *level), ("image", 3, Some(77), Some(0.25), Level::One));
    assert_eq!([*with_payload, *with_vectors, *allow_partial, *exact], [false, true, true, true]);
}

#[tokio::test]
async fn a_put_carries_vectors_and_payloads_bit_for_bit() {
    let mesh = FakeMesh::new();
    let (sender, mut puts) = tokio::sync::mpsc::unbounded_channel();
    let node = mesh.node(move |asked| {
        let put: Put = asked.read();
        let outcomes = vec![Outcome::Refused("vector has 3 values, the limit is 2".into()); put.points.len()];
        sender.send(put).unwrap();
        std::future::ready(reply::<Put>(outcomes))
    });
    let client = mesh.client(&[node.address]).await;
    let payload = payload_from_json(serde_json::json!({"title": "El Sur", "year": 1983, "tags": [null, 0.5]})).unwrap();
    let sent = vec![point("a", vec![f32::MIN_POSITIVE, -0.0, 1e38], payload), point(2, vec![0.1; 3], Payload::new())];
    let report = client.collection("films").put(sent.clone()).each().await.unwrap();
    assert_eq!(report.outcomes(), vec![Outcome::Refused("vector has 3 values, the limit is 2".into()); 2]);
    let put = puts.recv().await.unwrap();
    assert_eq!(
        (put.collection.as_str(), put.level, put.points),
        ("films", Level::Quorum, sent.into_iter().map(RawPoint::from).collect())
    );
    assert!(puts.try_recv().is_err(), "refused points are not put again");
}

#[tokio::test]
async fn an_answer_that_cannot_be_one_is_an_error_not_a_wrong_result() {
    let mesh = FakeMesh::new();
    let node = mesh.node(|asked| {
        std::future::ready(match asked.kind {
            Get::KIND => reply::<Get>(vec![None]),
            Put::KIND => reply::<Put>(Vec::new()),
            _ => reply::<ScanStream>(ScanReply { points: Vec::new(), next: asked.read::<ScanStream>().scan.after }),
        })
    });
    let client = mesh.client(&[node.address]).await;
    let films = client.collection("c");
    let error = films.get([1, 2]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Protocol), "{error}");
    let put = films.put([point(1, [1.0], Payload::new())]).await.unwrap_err();
    assert!(put.is_unknown() && put.to_string().contains("0 entries for 1 points"), "{put}");
    let after = Some(ScanCursor { position: 1, id: 1.into() });
    let error = films.scan().after(after).pages().try_next().await.unwrap_err();
    assert!(error.to_string().contains("ends where it began"), "{error}");
}
