//! Creating collections: the schema that is asked for, and what there is already.

use std::sync::{Arc, Mutex};

use vecino_client::{
    ClientError, CollectionId, CollectionInfo, CollectionSchema, ErrorCode, Fsync, Metric, Profile, field,
    named_schema, schema,
};
use vecino_net::error::RpcError;
use vecino_net::message::{CreateCollection, DescribeCollection, Rpc};

use crate::fake::{Clients, FakeMesh, FakeNode, reply};

fn info(name: String, schema: CollectionSchema) -> CollectionInfo {
    CollectionInfo::new(name, CollectionId([1; 16]), schema, Default::default())
}

/// A node whose only collection is "films" with this schema, if any; creations are remembered.
fn node(
    mesh: &FakeMesh,
    there: Option<CollectionSchema>,
    failure: ErrorCode,
) -> (FakeNode, Arc<Mutex<Vec<CreateCollection>>>) {
    let created = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&created);
    let node = mesh.quick_node(move |asked| match (asked.kind, &there) {
        (CreateCollection::KIND, Some(_)) => Err(RpcError::new(failure, "collection \"films\" exists")),
        (CreateCollection::KIND, None) => {
            let create: CreateCollection = asked.read();
            seen.lock().unwrap().push(create.clone());
            reply::<CreateCollection>(info(create.name, create.schema))
        }
        (DescribeCollection::KIND, Some(schema)) => reply::<DescribeCollection>(info("films".into(), schema.clone())),
        _ => Err(RpcError::new(ErrorCode::NotFound, "no such collection")),
    });
    (node, created)
}

#[tokio::test]
async fn everything_that_a_schema_has_can_be_said() {
    let mesh = FakeMesh::new();
    let (node, created) = node(&mesh, None, ErrorCode::Internal);
    let films = mesh.client(&[node.address]).await.collection("films");
    films.create(3, Metric::Cosine).await.unwrap();
    let full = films.create(3, Metric::Dot).replicas(2).profile(Profile::Compact).m(32).ef_construction(400);
    let full = full.fsync(Fsync::Never).field("title", 8, Metric::Cosine);
    let mut image = field(4, Metric::Euclidean);
    image.m = 8;
    full.field_of("image", image.clone()).if_absent().await.unwrap();
    films.create_from(named_schema([("image", image.clone())])).await.unwrap();
    let created = created.lock().unwrap();
    assert_eq!((created[0].name.as_str(), &created[0].schema), ("films", &schema(3, Metric::Cosine)));
    let CollectionSchema { fields, replication_factor, fsync } = &created[1].schema;
    assert_eq!((*replication_factor, *fsync, fields.len()), (2, Fsync::Never, 3));
    let plain = &fields[""];
    assert_eq!((plain.dim, plain.metric, plain.m, plain.ef_construction), (3, Metric::Dot, 32, 400));
    assert_eq!(plain.profile, Profile::Compact);
    assert_eq!((&fields["title"], &fields["image"]), (&field(8, Metric::Cosine), &image));
    assert_eq!(created[2].schema.fields.keys().collect::<Vec<_>>(), ["image"]);
}

#[tokio::test]
async fn a_collection_is_created_only_if_it_is_absent() {
    let mesh = FakeMesh::new();
    // Where it is there already, and where a creation may have taken effect.
    for failure in [ErrorCode::AlreadyExists, ErrorCode::Timeout] {
        let (node, _) = node(&mesh, Some(schema(3, Metric::Cosine)), failure);
        let films = mesh.client(&[node.address]).await.collection("films");
        assert_eq!(films.create(3, Metric::Cosine).await.unwrap_err().code(), Some(failure));
        assert_eq!(films.create(3, Metric::Cosine).if_absent().await.unwrap().name, "films");
        assert!(films.exists().await.unwrap());
        let error = films.create(4, Metric::Cosine).if_absent().await.unwrap_err();
        assert!(matches!(&error, ClientError::OtherCollection { name, .. } if name == "films"), "{error}");
        assert!(error.to_string().contains("dimension 3") && error.to_string().contains("dimension 4"), "{error}");
    }
    let (node, _) = node(&mesh, None, ErrorCode::Internal);
    assert!(!mesh.client(&[node.address]).await.collection("films").exists().await.unwrap());
}
