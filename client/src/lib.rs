//! The client library of vecino: put, get, delete and search over QUIC, through any node of a mesh.
//!
//! A [`Client`] is made from the addresses of one or more nodes and a client certificate of the mesh
//! (`vecino certs issue CA_DIR --name NAME --client --out DIR`; a node that made its own authority has issued one
//! already, and says where). Every node serves every request. When one fails the client goes on to the next address, and
//! repeats what is safe to repeat; what it could not settle it reports as [`ClientError`] or, point by point, as
//! [`Outcome`], and says whether trying again is safe.
//!
//! ```
//! use vecino_client::{Client, Metric, Payload, SearchRequest, WriteOptions, point, schema};
//!
//! # async fn example(certs: &std::path::Path, address: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder().connect(address).certs(certs).build().await?;
//!
//! client.create_collection("colours", schema(3, Metric::Euclidean)).await?;
//! let points = vec![
//!     point("tomato", vec![0.62, 0.58, 0.47], Payload::new()),
//!     point("orchid", vec![0.63, 0.55, -0.34], Payload::new()),
//! ];
//! for outcome in client.put("colours", points, WriteOptions::default()).await? {
//!     println!("{outcome:?}");
//! }
//!
//! let found = client.search("colours", SearchRequest::vector(vec![0.6, 0.6, 0.5]).k(1)).await?;
//! assert_eq!(found.hits[0].id, "tomato".into());
//! # Ok(())
//! # }
//! # // A node with just enough behind it for the example: it keeps points in a map and compares all of them.
//! # use std::{collections::BTreeMap, sync::{Arc, Mutex}};
//! # use vecino_certs::{Authority, IssueOptions, NodeId, Role};
//! # use vecino_net::{endpoint::{Endpoint, EndpointOptions}, error::RpcError, message::*, model::{CollectionId, PointId, Version}};
//! # use vecino_net::rpc::{CallContext, Service, decode, encode};
//! # struct TinyNode { id: NodeId, points: Mutex<BTreeMap<PointId, Vec<f32>>> }
//! # #[async_trait::async_trait]
//! # impl Service for TinyNode {
//! #     fn identity(&self) -> PeerIdentity {
//! #         PeerIdentity { node_id: self.id, mesh_id: Some(MeshId([1; 16])), advertise: String::new() }
//! #     }
//! #     async fn serve(&self, _: CallContext, kind: u16, body: bytes::Bytes) -> Result<Vec<u8>, RpcError> {
//! #         let mut points = self.points.lock().unwrap();
//! #         match kind {
//! #             CreateCollection::KIND => {
//! #                 let CreateCollection { name, schema } = decode("CreateCollection", &body)?;
//! #                 let (id, placement, nodes) = (CollectionId([1; 16]), Placement::new(), BTreeMap::new());
//! #                 encode(&CollectionInfo { name, id, schema, placement, points: 0, nodes })
//! #             }
//! #             Put::KIND => {
//! #                 let put: Put = decode("Put", &body)?;
//! #                 let count = put.points.len();
//! #                 points.extend(put.points.into_iter().map(|point| (point.id, point.vectors[""].0.clone())));
//! #                 encode(&vec![Outcome::Written(Version::ZERO); count])
//! #             }
//! #             Search::KIND => {
//! #                 let search: Search = decode("Search", &body)?;
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
//! #                 encode(&SearchReply { hits, coverage: 1.0, metric: Metric::Euclidean })
//! #             }
//! #             kind => Err(RpcError::invalid(format!("kind {kind}"))),
//! #         }
//! #     }
//! # }
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #     let dir = tempfile::tempdir()?;
//! #     let authority = Authority::init(dir.path().join("ca"), "example")?;
//! #     let certs = dir.path().join("client");
//! #     authority.issue(&IssueOptions::new("example", Role::Client))?.write(&certs)?;
//! #     let identity = authority.issue(&IssueOptions::new("n1", Role::Node))?.identity()?;
//! #     let service = Arc::new(TinyNode { id: vecino_net::node_id(identity.key_id()), points: Mutex::default() });
//! #     let options = EndpointOptions { listen: ([127, 0, 0, 1], 0).into(), ..EndpointOptions::default() };
//! #     let node = Endpoint::server(&identity, options, service)?;
//! #     example(&certs, &node.local_addr().to_string()).await
//! # }
//! ```
//!
//! Many points at once go through a [`BulkLoader`], which keeps a bounded number of batches on their way and reports on
//! every point; a whole collection is read with [`Client::scan`].
//!
//! What is deliberately absent: the client does not know the ring, so a request may take one hop more than it had to,
//! and it keeps no points.

mod attempts;
mod builder;
mod bulk;
mod client;
mod error;
mod json;
mod options;
mod scan;
mod write;

pub use builder::{ADDRESSES_MAX, ClientBuilder, DEFAULT_ADDRESS, DEFAULT_PORT, DEFAULT_TIMEOUT};
pub use bulk::{BULK_BATCH_BYTES_MAX, BULK_IN_FLIGHT_MAX, BatchReport, BulkLoader, BulkOptions, Unacknowledged};
pub use client::Client;
pub use error::ClientError;
pub use json::{JsonPayloadError, payload_from_json, payload_to_json};
pub use options::{
    DEFAULT_EF_CONSTRUCTION, DEFAULT_K, DEFAULT_M, GetOptions, ScanOptions, SearchRequest, WriteOptions, point, schema,
};
pub use scan::Pages;
pub use vecino_certs::Identity;
pub use vecino_model::NodeId;
pub use vecino_model::{
    CollectionSchema, FieldSchema, Fields, Fsync, Level, Metric, Payload, Point, PointId, Profile, StoredPoint, Value,
    Vector, Version,
};
pub use vecino_model::{CollectionStats, Hit, MemoryUse, NodeState, Outcome, RangeInfo, ScanCursor, Serving};
pub use vecino_net::error::{ErrorCode, Retry};
pub use vecino_net::message::{
    CollectionInfo, Dropped, NodeStatus, RingReply, SearchReply, SnapshotReport, StatusReply,
};
