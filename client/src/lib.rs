//! The client library of vecino: put, get, delete and search over QUIC, through any node of a mesh.
//!
//! A [`Client`] is made from the addresses of one or more nodes and a client certificate of the mesh
//! (`vecino certs issue CA_DIR --name NAME --client --out DIR`; a node that made its own authority has issued one
//! already, and says where). [`Client::collection`] names a [`Collection`]; its methods make requests that have settings
//! with defaults and are awaited directly. Every node serves every request. When one fails the client goes on to the next
//! address, and repeats what is safe to repeat; what it could not settle it reports as [`ClientError`], which says whether
//! trying again is safe.
//!
//! ```
//! use vecino_client::{Client, ClientError, Metric, Payload, payload, point};
//!
//! # async fn example(certs: &std::path::Path, address: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder().connect(address).certs(certs).build().await?;
//! let colours = client.collection("colours");
//!
//! colours.create(3, Metric::Euclidean).await?;
//! let points = vec![
//!     point("tomato", [0.62, 0.58, 0.47], payload! { "hex": "#ff6347" }),
//!     point("orchid", [0.63, 0.55, -0.34], Payload::new()),
//! ];
//! colours.put(points).await?; // an error unless both were written
//!
//! let found = colours.search([0.6, 0.6, 0.5]).k(1).await?;
//! assert_eq!(found.hits[0].id, "tomato".into());
//! # Ok(())
//! # }
//! # // A node with just enough behind it for the example: it keeps points in a map and compares all of them.
//! # use std::{collections::BTreeMap, sync::Mutex};
//! # use vecino_client::{CollectionId, CollectionInfo, Hit, Outcome, Placement, PointId, SearchReply, Version};
//! # use vecino_net::{error::RpcError, message::{CreateCollection, Put, Query, Rpc, Search}, testing::{FakeMesh, reply}};
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #     let points: Mutex<BTreeMap<PointId, Vec<f32>>> = Mutex::default();
//! #     let mesh = FakeMesh::new();
//! #     let node = mesh.quick_node(move |asked| {
//! #         let mut points = points.lock().unwrap();
//! #         match asked.kind {
//! #             CreateCollection::KIND => {
//! #                 let CreateCollection { name, schema } = asked.read();
//! #                 let (id, placement) = (CollectionId([1; 16]), Placement::new());
//! #                 reply::<CreateCollection>(CollectionInfo::new(name, id, schema, placement))
//! #             }
//! #             Put::KIND => {
//! #                 let put: Put = asked.read();
//! #                 let count = put.points.len();
//! #                 points.extend(put.points.into_iter().map(|point| (point.id, point.vectors[""].0.clone())));
//! #                 reply::<Put>(vec![Outcome::Written(Version::ZERO); count])
//! #             }
//! #             Search::KIND => {
//! #                 let search: Search = asked.read();
//! #                 let Query::Vector(query) = search.query else { return Err(RpcError::invalid("no vector")) };
//! #                 let distance = |vector: &Vec<f32>| -> f32 {
//! #                     vector.iter().zip(&query.0).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
//! #                 };
//! #                 let mut hits: Vec<_> = points.iter().map(|(id, vector)| Hit {
//! #                     id: id.clone(), score: distance(vector), version: Version::ZERO, payload: None,
//! #                     vectors: BTreeMap::new(),
//! #                 }).collect();
//! #                 hits.sort_by(|a, b| a.score.total_cmp(&b.score));
//! #                 hits.truncate(search.k as usize);
//! #                 reply::<Search>(SearchReply::new(hits, 1.0, Metric::Euclidean))
//! #             }
//! #             kind => Err(RpcError::invalid(format!("kind {kind}"))),
//! #         }
//! #     });
//! #     example(&mesh.client_certs(), &node.address.to_string()).await
//! # }
//! ```
//!
//! `put` and `delete` are errors unless *everything* was written; [`each`](WriteRequest::each) gives the outcome of each
//! point instead. Many points at once go through a [`BulkLoader`], which keeps a bounded number of batches on their way,
//! writes again what is safe to write again, and sums up at the end; a whole collection is read as a stream with
//! [`Collection::scan`]. Structs become payloads by [`payload_of`] and come back by
//! [`payload_as`](StoredPoint::payload_as). Programs that run against `vecino node` are in `client/examples/`.
//!
//! What is deliberately absent: the client does not know the ring, so a request may take one hop more than it had to,
//! and it keeps no points.

mod builder;
mod bulk;
mod client;
mod collection;
mod error;
mod json;
mod listening;
mod payload;
mod report;
mod request;
mod schema;
mod session;
mod write;

pub use builder::{ADDRESSES_MAX, ClientBuilder, DEFAULT_ADDRESS, DEFAULT_PORT, DEFAULT_TIMEOUT};
pub use bulk::{
    BULK_BATCH_BYTES_MAX, BULK_IN_FLIGHT_MAX, BULK_PATIENCE, BULK_UNWRITTEN_SHOWN, BulkError, BulkEvent, BulkLoader,
    BulkOptions, BulkSummary,
};
pub use client::Client;
pub use collection::Collection;
pub use error::ClientError;
pub use json::{JsonPayloadError, payload_from_json, payload_to_json};
pub use report::{Unwritten, WriteReport};
pub use request::{
    CreateRequest, DEFAULT_K, DeleteRequest, EachRequest, GetOneRequest, GetRequest, Pages, Points, PutRequest, Reply,
    SCAN_PAGE_POINTS, ScanRequest, SearchRequest, WriteRequest,
};
pub use schema::{DEFAULT_EF_CONSTRUCTION, DEFAULT_M, field, named_point, named_schema, point, schema};
pub use vecino_certs::{CertsError, Identity, Role};
pub use vecino_model::{
    ClockStatus, CollectionId, CollectionSchema, CollectionStats, DEFAULT_FIELD, DecodePayloadError, FieldSchema,
    Fields, Fsync, Hit, Level, MemoryUse, MeshId, Metric, NegativeId, NodeId, NodeState, Outcome, ParseNodeIdError,
    Payload, PayloadError, Placement, Point, PointId, Profile, RangeInfo, RawPayload, RawPoint, RawStoredPoint,
    ScanCursor, Serving, StoredPoint, UnknownLevel, UnknownMetric, UnknownProfile, Value, Vector, Version, limits,
    payload_as, payload_of,
};
pub use vecino_net::endpoint::EndpointError;
pub use vecino_net::error::{ErrorCode, Retry};
pub use vecino_net::message::{
    CollectionInfo, Dropped, NodeStatus, RingReply, SearchReply, SnapshotReport, StatusReply,
};

/// The Rust of README.md, which must compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
