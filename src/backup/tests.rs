//! What is put into the target comes out of it, over a store in memory; what a full or changed target does.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use proptest::prelude::*;
use vecino_client::{Level, Metric, Payload, PointId, RawPoint, Value, point, schema};
use vecino_model::{CollectionId, MeshId, position};

use super::manifest::{CollectionManifest, Manifest, PageRef};
use super::upload::{Sent, Upload};
use super::*;

const COLLECTION: CollectionId = CollectionId([5; 16]);

/// A store in memory that has room for a set number of further objects.
#[derive(Debug)]
struct Small {
    store: InMemory,
    room: AtomicUsize,
}

impl fmt::Display for Small {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Small")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Small {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        if self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(1)).is_err() {
            let source = Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull));
            return Err(Error::Generic { store: "Small", source });
        }
        self.store.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.store.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

fn in_memory(room: usize) -> (Target, Arc<Small>) {
    let store = Arc::new(Small { store: InMemory::new(), room: AtomicUsize::new(room) });
    (Target::over(Arc::clone(&store) as Arc<dyn ObjectStore>, Path::from("some/prefix"), "memory"), store)
}

/// Uploads points, in the order in which a scan gives them.
async fn upload(target: &Target, points: &[RawPoint], page_bytes: usize) -> Result<(Vec<PageRef>, Sent), BackupError> {
    let mut points = points.to_vec();
    points.sort_by_key(|point| (position(COLLECTION, &point.id), point.id.clone()));
    let mut sent = Sent { known: target.pages().await?, ..Sent::default() };
    let mut upload = Upload::new(target, &mut sent, COLLECTION, page_bytes);
    for point in points {
        upload.push(point).await?;
    }
    let pages = upload.finish().await?;
    Ok((pages, sent))
}

fn manifest(pages: Vec<PageRef>) -> Manifest {
    let schema = schema(2, Metric::Dot);
    let collection = CollectionManifest { name: "films".to_owned(), id: COLLECTION, schema, pages };
    Manifest { mesh: MeshId([1; 16]), level: Level::Quorum, collections: vec![collection] }
}

/// Bytes, since a NaN equals nothing and two zeros equal each other.
fn bytes_of(points: impl IntoIterator<Item = RawPoint>) -> BTreeSet<Vec<u8>> {
    let bytes = |point| {
        let mut bytes = Vec::new();
        page::append(&mut bytes, point);
        bytes
    };
    points.into_iter().map(bytes).collect()
}

fn some_points(ids: std::ops::Range<u64>) -> Vec<RawPoint> {
    ids.map(|id| point(id, vec![id as f32, 0.5], Payload::new()).into()).collect()
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (1u64 << 63..).prop_map(Value::UInt),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::Float),
        any::<String>().prop_map(Value::Text),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(Value::Map),
        ]
    })
}

fn any_point() -> impl Strategy<Value = RawPoint> {
    let id = prop_oneof![any::<u64>().prop_map(PointId::Number), ".{1,20}".prop_map(PointId::Text)];
    let vector = prop::collection::vec(any::<f32>(), 2);
    (id, vector, prop::collection::btree_map(any::<String>(), any_value(), 0..4))
        .prop_map(|(id, vector, payload)| point(id, vector, payload).into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_backed_up_is_what_is_read_back(
        points in prop::collection::btree_map(any::<u16>(), any_point(), 0..200),
        page_bytes in 1usize..20_000,
    ) {
        // One point of each id.
        let points: std::collections::BTreeMap<PointId, RawPoint> =
            points.into_values().map(|point| (point.id.clone(), point)).collect();
        let points: Vec<RawPoint> = points.into_values().collect();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let (target, _) = in_memory(usize::MAX);
            let (pages, _) = upload(&target, &points, page_bytes).await.unwrap();
            let (name, written) = (BackupName::at(std::time::SystemTime::now()), manifest(pages));
            assert!(target.backups().await.unwrap().is_empty(), "without a manifest there is no backup");
            target.write_manifest(&name, &written).await.unwrap();
            assert_eq!(target.backups().await.unwrap(), std::slice::from_ref(&name));
            let read = target.manifest(&name).await.unwrap();
            assert_eq!(read, written);
            let mut back = Vec::new();
            for page in &read.collections[0].pages {
                back.extend(target.read_points(*page).await.unwrap());
            }
            assert_eq!(back.len(), points.len());
            assert_eq!(bytes_of(back), bytes_of(points));
        });
    }
}

#[tokio::test]
async fn a_second_backup_sends_what_changed_and_no_more() {
    let (target, _) = in_memory(usize::MAX);
    let mut points = some_points(0..5_000);
    let (pages, sent) = upload(&target, &points, 4_096).await.unwrap();
    assert!(pages.len() > 30, "{} pages", pages.len());
    assert_eq!(sent.pages as usize, pages.len());
    let (_, sent) = upload(&target, &points, 4_096).await.unwrap();
    assert_eq!((sent.pages, sent.bytes), (0, 0), "nothing changed");
    points[4_000] = point(4_000, vec![-1.0, -1.0], Payload::new()).into();
    points.push(point("new", vec![0.0, 1.0], Payload::new()).into());
    let (_, sent) = upload(&target, &points, 4_096).await.unwrap();
    assert!((1..=4).contains(&sent.pages), "{} pages were sent", sent.pages);
}

#[tokio::test]
async fn a_full_target_says_so_and_the_next_attempt_goes_on() {
    let (target, store) = in_memory(20);
    let points = some_points(0..5_000);
    let error = upload(&target, &points, 4_096).await.unwrap_err();
    assert!(matches!(error, BackupError::Full { .. }), "{error:?}");
    assert!(error.to_string().starts_with("memory is full: "), "{error}");
    assert!(target.backups().await.unwrap().is_empty());
    store.room.store(usize::MAX, Ordering::SeqCst);
    let (pages, sent) = upload(&target, &points, 4_096).await.unwrap();
    assert_eq!(sent.pages as usize, pages.len() - 20, "what was sent stays sent");
}

#[tokio::test]
async fn a_page_that_lost_bytes_is_sent_again() {
    let (target, store) = in_memory(usize::MAX);
    let points = some_points(0..10);
    let (pages, _) = upload(&target, &points, 1 << 20).await.unwrap();
    let path = Path::from(format!("some/prefix/pages/{}.page", pages[0].name));
    store.put(&path, PutPayload::from_static(b"short")).await.unwrap();
    assert!(target.read_page(pages[0]).await.is_err());
    let (_, sent) = upload(&target, &points, 1 << 20).await.unwrap();
    assert_eq!(sent.pages, 1);
    assert!(target.read_page(pages[0]).await.is_ok());
}

#[tokio::test]
async fn a_manifest_is_never_overwritten() {
    let (target, _) = in_memory(usize::MAX);
    let (first, other) = (manifest(Vec::new()), Manifest { level: Level::One, ..manifest(Vec::new()) });
    let name: BackupName = "20261121T080511.123Z".parse().unwrap();
    target.write_manifest(&name, &first).await.unwrap();
    target.write_manifest(&name, &first).await.unwrap();
    target.write_manifest(&name, &other).await.unwrap_err();
    assert_eq!(target.manifest(&name).await.unwrap(), first);
}

#[tokio::test]
async fn a_url_that_cannot_be_reached_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let open = |url: &str, create| Target::open(url, create).map(|_| ()).map_err(|error| error.to_string());
    for (url, create, words) in [
        ("", true, "it is empty"),
        ("ftp://host/x", true, "ftp:// is not known; use a folder, file:///FOLDER or s3://BUCKET/PREFIX"),
        ("file://folder", true, "three slashes"),
        ("s3://", true, "no bucket"),
        (&*dir.path().join("absent").display().to_string(), false, "absent cannot be reached: No such file"),
        (&*file.display().to_string(), false, "file cannot be reached: it is no folder"),
        (&*file.join("below").display().to_string(), true, "below cannot be reached: "),
    ] {
        let error = open(url, create).unwrap_err();
        assert!(error.contains(words), "{url}: {error}");
    }
    let folder = dir.path().join("made/on the way");
    for url in [folder.display().to_string(), format!("file://{}", folder.display())] {
        assert_eq!(open(&url, true), Ok(()), "{url}");
        assert!(folder.is_dir());
    }
}
