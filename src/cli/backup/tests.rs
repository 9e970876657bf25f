//! Backups of a node in this process, over real QUIC, that keeps points in a map; onto a store in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use vecino_client::{
    Client, CollectionInfo, ErrorCode, Level, Metric, NodeState, NodeStatus, Outcome, Payload, PointId, RawPoint,
    RawStoredPoint, ScanCursor, StatusReply, Version, point, schema,
};
use vecino_model::{CollectionId, MeshId, NodeId, position};
use vecino_net::error::{Retry, RpcError};
use vecino_net::message::{
    CreateCollection, Delete, DescribeCollection, DropCollection, Dropped, Get, ListCollections, Put, Rpc, ScanReply,
    ScanStream, Status,
};

use super::*;
use crate::backup::MARKER_ID;
use crate::backup::ManifestFault;
use vecino_net::testing::{Asked, FakeMesh, FakeNode, reply};

/// A mesh that is one fake node.
struct World {
    state: Arc<Mutex<State>>,
    client: Client,
    _node: FakeNode,
    _mesh: FakeMesh,
}

struct State {
    mesh: MeshId,
    nodes_up: usize,
    collections: BTreeMap<String, Collection>,
    /// Answered scans and puts until they fail.
    scans_left: usize,
    puts_left: usize,
    /// Points of collections that were put.
    points_put: usize,
}

struct Collection {
    info: CollectionInfo,
    points: BTreeMap<PointId, RawPoint>,
}

impl World {
    async fn new(mesh_number: u8, nodes_up: usize) -> Self {
        let state = Arc::new(Mutex::new(State {
            mesh: MeshId([mesh_number; 16]),
            nodes_up,
            collections: BTreeMap::new(),
            scans_left: usize::MAX,
            puts_left: usize::MAX,
            points_put: 0,
        }));
        let mesh = FakeMesh::new();
        let shared = Arc::clone(&state);
        let node = mesh.quick_node(move |asked| shared.lock().unwrap().answer(&asked));
        let builder = Client::builder().connect(node.address.to_string()).certs(mesh.client_certs());
        let client = builder.timeout(Duration::from_secs(5)).build().await.unwrap();
        Self { state, client, _node: node, _mesh: mesh }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn fill(&self, name: &str, replicas: u32, points: impl IntoIterator<Item = impl Into<RawPoint>>) {
        let mut schema = schema(3, Metric::Cosine);
        schema.replication_factor = replicas;
        let mut state = self.state();
        state.create(CreateCollection { name: name.to_owned(), schema }).unwrap();
        let collection = state.collections.get_mut(name).unwrap();
        collection.points.extend(points.into_iter().map(Into::into).map(|point: RawPoint| (point.id.clone(), point)));
    }

    fn points(&self, name: &str) -> BTreeMap<PointId, RawPoint> {
        self.state().collections[name].points.clone()
    }

    async fn back_up(&self, target: &Target) -> Result<Created, BackupError> {
        let request = CreateRequest { page_bytes: 2_000, ..CreateRequest::default() };
        backup::create(&self.client, target, request, &|_| {}).await
    }

    async fn restore(&self, target: &Target, rename: Option<&str>) -> Result<Restored, BackupError> {
        let request = RestoreRequest {
            backup: None,
            collection: rename.map(|_| "films".to_owned()),
            rename: rename.map(str::to_owned),
            prefix: String::new(),
            skip_existing: false,
            patience: Duration::ZERO,
        };
        backup::restore(&self.client, target, request, &|_| {}).await
    }
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Result<Vec<u8>, RpcError> {
        let unknown = || RpcError::new(ErrorCode::NotFound, "no such collection");
        match asked.kind {
            Status::KIND => reply::<Status>(self.status()),
            ListCollections::KIND => {
                reply::<ListCollections>(self.collections.values().map(|collection| collection.info.clone()).collect())
            }
            DescribeCollection::KIND => {
                let name = asked.read::<DescribeCollection>().name;
                reply::<DescribeCollection>(self.collections.get(&name).ok_or_else(unknown)?.info.clone())
            }
            CreateCollection::KIND => reply::<CreateCollection>(self.create(asked.read())?),
            DropCollection::KIND => {
                self.collections.remove(&asked.read::<DropCollection>().name).ok_or_else(unknown)?;
                reply::<DropCollection>(Dropped::default())
            }
            Get::KIND => {
                let Get { collection, ids, .. } = asked.read();
                let points = &self.collections.get(&collection).ok_or_else(unknown)?.points;
                reply::<Get>(ids.iter().map(|id| points.get(id).cloned().map(stored)).collect())
            }
            Put::KIND => {
                let Put { collection, points, .. } = asked.read();
                self.puts_left = self.puts_left.checked_sub(1).ok_or_else(refusal)?;
                let outcomes = points.iter().map(|_| Outcome::Written(Version::ZERO)).collect();
                self.points_put += points.iter().filter(|point| point.id != MARKER_ID.into()).count();
                let kept = &mut self.collections.get_mut(&collection).ok_or_else(unknown)?.points;
                kept.extend(points.into_iter().map(|point| (point.id.clone(), point)));
                reply::<Put>(outcomes)
            }
            Delete::KIND => {
                let Delete { collection, ids, .. } = asked.read();
                let kept = &mut self.collections.get_mut(&collection).ok_or_else(unknown)?.points;
                kept.retain(|id, _| !ids.contains(id));
                reply::<Delete>(vec![Outcome::Written(Version::ZERO); ids.len()])
            }
            ScanStream::KIND => {
                let ScanStream { scan } = asked.read();
                self.scans_left = self.scans_left.checked_sub(1).ok_or_else(refusal)?;
                reply::<ScanStream>(self.collections.get(&scan.collection).ok_or_else(unknown)?.scan(scan.after))
            }
            kind => panic!("a request of kind {kind} was not expected"),
        }
    }

    fn status(&self) -> StatusReply {
        let node = |number: usize, state| NodeStatus::new(NodeId::from_bytes([number as u8; 16]), String::new(), state);
        let down = node(100, NodeState::Down);
        let nodes = (0..self.nodes_up).map(|number| node(number, NodeState::Up)).chain([down]).collect();
        StatusReply::new(self.mesh, NodeId::from_bytes([0; 16]), nodes)
    }

    fn create(&mut self, request: CreateCollection) -> Result<CollectionInfo, RpcError> {
        let CreateCollection { name, schema } = request;
        let id = CollectionId([self.mesh.0[0] + 16 * self.collections.len() as u8; 16]);
        let info = CollectionInfo::new(name.clone(), id, schema, BTreeMap::new());
        self.collections.insert(name, Collection { info: info.clone(), points: BTreeMap::new() });
        Ok(info)
    }
}

impl Collection {
    /// Pages of 100 points in ring order.
    fn scan(&self, after: Option<ScanCursor>) -> ScanReply {
        let cursor = |id: &PointId| ScanCursor { position: position(self.info.id, id), id: id.clone() };
        let mut all: Vec<_> = self.points.values().map(|point| (cursor(&point.id), point)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.retain(|(at, _)| after.as_ref().is_none_or(|after| at > after));
        let next = (all.len() > 100).then(|| all[99].0.clone());
        ScanReply { points: all.into_iter().take(100).map(|(_, point)| stored(point.clone())).collect(), next }
    }
}

fn stored(point: RawPoint) -> RawStoredPoint {
    let RawPoint { id, vectors, payload } = point;
    RawStoredPoint { id, vectors, payload, version: Version::ZERO }
}

fn refusal() -> RpcError {
    RpcError::new(ErrorCode::Internal, "interrupted by the test").with_retry(Retry::No)
}

fn films(ids: std::ops::Range<u64>) -> Vec<RawPoint> {
    ids.map(|id| point(id, vec![id as f32, 1.0, -0.0], Payload::new()).into()).collect()
}

fn in_memory() -> (Target, Arc<InMemory>) {
    let store = Arc::new(InMemory::new());
    (Target::over(Arc::clone(&store) as Arc<dyn ObjectStore>, Path::default(), "memory"), store)
}

#[tokio::test]
async fn a_whole_mesh_comes_back_on_another_one_with_fewer_nodes() {
    let (old, new) = (World::new(1, 3).await, World::new(2, 1).await);
    old.fill("films", 3, films(0..1_000));
    old.fill("empty", 1, films(0..0));
    old.fill("music", 2, [point("a", vec![0.5, 0.5, 0.5], [("n".into(), vecino_client::Value::Int(1))].into())]);
    let (target, _) = in_memory();
    let created = old.back_up(&target).await.unwrap();
    let points = created.manifest.collections.iter().map(|collection| (&*collection.name, collection.points()));
    assert_eq!(points.collect::<Vec<_>>(), [("empty", 0), ("films", 1_000), ("music", 1)]);
    let restored = new.restore(&target, None).await.unwrap();
    for name in ["films", "empty", "music"] {
        assert_eq!(new.points(name), old.points(name), "{name}");
    }
    let schema = new.state().collections["films"].info.schema.clone();
    assert_eq!((schema.replication_factor, schema.fields[""].dim, schema.fields[""].metric), (1, 3, Metric::Cosine));
    let text = render_restored(&restored, Duration::from_millis(1_250), Style::Plain);
    assert!(text.contains("restored 1001 points of 3 collections from 20"), "{text}");
    assert!(text.contains("films: 1000 points, on 1 node each; they had 3 replicas"), "{text}");
    let again = old.restore(&target, Some("films-2")).await.unwrap();
    assert_eq!((old.points("films-2"), &*again.collections[0].original), (old.points("films"), "films"));
}

#[tokio::test]
async fn a_second_backup_sends_few_pages() {
    let world = World::new(1, 1).await;
    world.fill("films", 1, films(0..2_000));
    let (target, _) = in_memory();
    let first = world.back_up(&target).await.unwrap();
    assert!(first.pages_sent > 20, "{first:?}");
    world.state().collections.get_mut("films").unwrap().points.remove(&77.into());
    let second = world.back_up(&target).await.unwrap();
    assert!((1..=2).contains(&second.pages_sent), "{} pages", second.pages_sent);
    assert_eq!(target.backups().await.unwrap(), [first.name, second.name]);
}

#[tokio::test]
async fn an_interrupted_backup_is_none_and_the_next_one_sends_the_rest() {
    let world = World::new(1, 1).await;
    world.fill("films", 1, films(0..2_000));
    let (target, _) = in_memory();
    world.state().scans_left = 12;
    let error = world.back_up(&target).await.unwrap_err();
    assert!(Failure::from(error).render(false).contains("interrupted by the test"));
    assert!(target.backups().await.unwrap().is_empty());
    assert!(matches!(world.restore(&target, Some("x")).await, Err(BackupError::NoBackup { .. })));
    world.state().scans_left = usize::MAX;
    let there = target.pages().await.unwrap().len() as u64;
    let created = world.back_up(&target).await.unwrap();
    let pages = created.manifest.collections[0].pages.len() as u64;
    assert!(there > 5 && created.pages_sent <= pages - there + STILL_UNDER_WAY, "{there} {created:?}");
    assert!(created.pages_sent < pages);
}

/// Pages that the first attempt had under way when it was interrupted, and may have given up.
const STILL_UNDER_WAY: u64 = 8;

#[tokio::test]
async fn an_interrupted_restore_goes_on_and_says_meanwhile_what_it_is() {
    let (old, new) = (World::new(1, 1).await, World::new(2, 1).await);
    old.fill("films", 1, films(0..2_000));
    old.fill("actors", 1, films(0..3));
    let (target, _) = in_memory();
    let pages = old.back_up(&target).await.unwrap().manifest.collections[1].pages.len() as u64;
    // Two for each group of pages and one for the new collection: the first collection and a part of the second.
    new.state().puts_left = 3 + 1 + 4;
    let error = new.restore(&target, None).await.unwrap_err();
    assert!(error.to_string().contains("interrupted by the test"), "{error}");
    assert!(new.points("films").contains_key(&MARKER_ID.into()));
    let error = new.back_up(&in_memory().0).await.unwrap_err();
    assert!(matches!(&error, BackupError::BeingRestored { .. }), "{error}");

    new.state().puts_left = usize::MAX;
    let already = std::mem::take(&mut new.state().points_put);
    let restored = new.restore(&target, None).await.unwrap();
    assert_eq!(restored.pages_skipped + restored.pages_loaded, pages + 1);
    assert!(restored.pages_skipped > 10, "{restored:?}");
    let put = new.state().points_put;
    assert!(put < 2_000 && already + put >= 2_003, "{already} points before, {put} after");
    for name in ["films", "actors"] {
        assert_eq!(new.points(name), old.points(name), "{name}");
    }
    let error = new.restore(&target, None).await.unwrap_err();
    assert!(matches!(&error, BackupError::Exist { .. }), "a finished restore is a collection as any other: {error}");
}

#[tokio::test]
async fn damaged_and_missing_pages_are_named_and_nothing_is_created() {
    let (old, new) = (World::new(1, 1).await, World::new(2, 1).await);
    old.fill("films", 1, films(0..1_000));
    let (target, store) = in_memory();
    let created = old.back_up(&target).await.unwrap();
    let pages = &created.manifest.collections[0].pages;
    let path = |page: usize| Path::from(format!("pages/{}.page", pages[page].name));
    let mut bytes = store.get(&path(4)).await.unwrap().bytes().await.unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    store.put(&path(4), PutPayload::from(bytes)).await.unwrap();
    store.put(&path(5), PutPayload::from_static(b"cut")).await.unwrap();
    store.delete(&path(2)).await.unwrap();
    let error = new.restore(&target, None).await.unwrap_err().to_string();
    for (page, words) in [(2, "is missing"), (4, "has bytes that do not match its name"), (5, "has 3 bytes, ")] {
        let wanted = format!("page {} of collection \"films\" {words}", pages[page].name);
        assert!(error.contains(&wanted), "{wanted} is not in {error}");
    }
    assert!(new.state().collections.is_empty());
}

/// Named after what went wrong: a restore stopped at the first of the collections that exist, and there was no way around it
/// but to restore one by one.
#[tokio::test]
async fn a_restore_names_all_collections_that_exist_and_can_go_around_them() {
    let (old, new) = (World::new(1, 1).await, World::new(2, 1).await);
    old.fill("actors", 1, films(0..2));
    old.fill("films", 1, films(0..3));
    old.fill("music", 1, films(0..4));
    let (target, _) = in_memory();
    old.back_up(&target).await.unwrap();
    new.fill("actors", 1, films(7..8));
    new.fill("music", 1, films(7..8));
    let error = new.restore(&target, None).await.unwrap_err().to_string();
    for words in
        ["collections \"actors\", \"music\" exist", "nothing was restored", "--skip-existing", "--prefix PREFIX"]
    {
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(new.state().collections.len(), 2);

    let request = |prefix: &str, skip_existing| RestoreRequest {
        backup: None,
        collection: None,
        rename: None,
        prefix: prefix.to_owned(),
        skip_existing,
        patience: Duration::ZERO,
    };
    let restored = backup::restore(&new.client, &target, request("", true), &|_| {}).await.unwrap();
    assert_eq!(
        (restored.skipped.clone(), restored.collections.len()),
        (vec!["actors".to_owned(), "music".to_owned()], 1)
    );
    assert_eq!((new.points("films"), new.points("music").len()), (old.points("films"), 1));
    let text = render_restored(&restored, Duration::ZERO, Style::Plain);
    assert!(text.contains("music: left as it is, since it exists"), "{text}");
    let json = render_restored(&restored, Duration::ZERO, Style::Json);
    assert!(json.ends_with("\"skipped\":[\"actors\",\"music\"]}"), "{json}");

    backup::restore(&new.client, &target, request("old-", false), &|_| {}).await.unwrap();
    for name in ["actors", "films", "music"] {
        assert_eq!(new.points(&format!("old-{name}")), old.points(name));
    }
}

#[tokio::test]
async fn what_cannot_be_restored_or_backed_up_is_refused_and_nothing_changes() {
    let (old, new) = (World::new(1, 1).await, World::new(2, 1).await);
    old.fill("films", 1, films(0..10));
    old.fill("music", 1, films(0..5));
    let (target, store) = in_memory();
    let name = old.back_up(&target).await.unwrap().name;

    let error = new.back_up(&target).await.unwrap_err().to_string();
    assert!(error.contains(&"01".repeat(16)) && error.contains(&"02".repeat(16)), "{error}");
    let only = CreateRequest { collections: vec!["books".to_owned()], ..CreateRequest::default() };
    let error = backup::create(&old.client, &target, only, &|_| {}).await.unwrap_err().to_string();
    assert_eq!(error, r#"collection "books" is not in the mesh, which has ["films", "music"]"#);
    assert_eq!(target.backups().await.unwrap().len(), 1);

    new.fill("music", 1, films(7..8));
    let error = new.restore(&target, None).await.unwrap_err().to_string();
    assert!(error.contains("\"music\" exists") && error.contains("--as NAME"), "{error}");
    assert_eq!(new.points("music").len(), 1);
    assert_eq!(new.state().collections.len(), 1);

    let request = |backup: Option<BackupName>, collection: Option<&str>, rename: Option<&str>| RestoreRequest {
        backup,
        collection: collection.map(str::to_owned),
        rename: rename.map(str::to_owned),
        prefix: String::new(),
        skip_existing: false,
        patience: Duration::ZERO,
    };
    for (request, words) in [
        (request(None, None, Some("x")), "has 2: say which with --collection"),
        (request(None, Some("books"), None), "which has [\"films\", \"music\"]"),
        (request(None, Some("films"), Some("a/b")), "\"a/b\" contains '/'"),
        (request(Some("20001121T080511.123Z".parse().unwrap()), None, None), "holds no backup 20001121T080511.123Z"),
    ] {
        let error = backup::restore(&new.client, &target, request, &|_| {}).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    let path = Path::from(format!("backups/{name}.manifest"));
    let mut newer = Vec::new();
    vecino_storage::preamble::encode(b"VECINOBK", 2, &mut newer);
    store.put(&path, PutPayload::from(newer)).await.unwrap();
    for error in [new.restore(&target, None).await.unwrap_err(), old.back_up(&target).await.unwrap_err()] {
        let error = Failure::from(error).render(true);
        assert!(error.contains("has format 2, and this program knows formats up to 1"), "{error}");
        assert!(error.contains(r#""code":"newer_format""#), "{error}");
    }
    assert_eq!(new.state().collections.len(), 1);
}

#[tokio::test]
async fn answers_have_the_shape_that_scripts_rely_on() {
    let world = World::new(1, 1).await;
    world.fill("films", 1, films(0..3));
    let (target, _) = in_memory();
    let created = world.back_up(&target).await.unwrap();
    let (name, took) = (created.name.clone(), Duration::from_millis(1_500));
    let backup = format!(
        "\"backup\":\"{name}\",\"mesh\":\"{}\",\"level\":\"quorum\",\"points\":3,\"bytes\":{bytes},\"pages\":{pages},\
         \"collections\":[{{\"name\":\"films\",\"points\":3,\"bytes\":{bytes},\"pages\":{pages}}}]",
        "01".repeat(16),
        bytes = created.bytes_sent,
        pages = created.pages_sent,
    );
    let sent = format!("\"pages_sent\":{},\"bytes_sent\":{},\"seconds\":1.5", created.pages_sent, created.bytes_sent);
    assert_eq!(render_created(&created, "u", took, Style::Json), format!("{{{backup},{sent}}}"));
    assert!(
        render_created(&created, "u", took, Style::Plain).starts_with("backed up 3 points of 1 collection to u as 2")
    );

    let damaged = BackupError::DamagedManifest { name: name.clone(), source: ManifestFault::Hash };
    let listed = [(name.clone(), Ok(created.manifest.clone())), (name.clone(), Err(damaged))];
    let text = render_list(&listed, "u", Style::Json);
    let unreadable = format!(
        "{{\"backup\":\"{name}\",\"error\":\"the manifest of backup {name} is damaged: its bytes do not match its hash; choose another backup with \
         --backup\"}}"
    );
    assert_eq!(text, format!("{{\"backups\":[{{{backup}}},{unreadable}]}}"));
    let table = render_list(&listed, "u", Style::Plain);
    assert!(table.lines().nth(1).unwrap().ends_with("films") && table.contains("01010101  quorum"), "{table}");
    assert!(render_list(&[], "u", Style::Plain).contains("vecino backup create u"));

    let restored = world.restore(&target, Some("copy")).await.unwrap();
    assert_eq!(
        render_restored(&restored, took, Style::Json),
        format!(
            "{{\"backup\":\"{name}\",\"points\":3,\"pages_loaded\":{},\"pages_skipped\":0,\"seconds\":1.5,\
             \"collections\":[{{\"name\":\"copy\",\"original\":\"films\",\"points\":3,\"replicas\":1,\
             \"original_replicas\":1}}]}}",
            created.pages_sent
        )
    );
}

#[tokio::test]
async fn an_unreadable_range_names_the_level_that_needs_less() {
    let world = World::new(1, 1).await;
    world.fill("films", 1, films(0..3));
    world.state().scans_left = 0;
    let error = Failure::from(world.back_up(&in_memory().0).await.unwrap_err()).render(false);
    assert!(error.contains("cannot be read at level quorum (--level one needs one live replica"), "{error}");
    assert_eq!(Level::default(), Level::Quorum);
}
