//! The QUIC client library of vecino.

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
pub use vecino_certs::{Identity, NodeId};
pub use vecino_net::error::{ErrorCode, Retry};
pub use vecino_net::message::{
    CollectionInfo, CollectionStats, Hit, NodeState, NodeStatus, Outcome, RangeInfo, RingReply, ScanCursor,
    SearchReply, SnapshotReport, StatusReply,
};
pub use vecino_net::model::{
    CollectionSchema, FieldSchema, Fields, Fsync, Level, Metric, Payload, Point, PointId, StoredPoint, Value, Vector,
    Version,
};
