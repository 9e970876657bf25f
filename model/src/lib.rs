//! What the parts of vecino talk about: points, versions, vectors, payloads, schemas, levels, limits, and the one rule for
//! each thing that a client may send.
//!
//! Plain data and pure checks: no I/O, no clock, no network. The types are encoded by serde as they travel between nodes;
//! what is stored on disk has types of its own, in the crates that store it.

mod collection;
mod conversions;
mod disk_id;
pub mod error;
mod level;
pub mod limits;
mod mesh;
pub mod message;
mod node_id;
mod payload;
mod point;
mod position;
mod record;
mod schema;
mod search;
mod typed;
pub mod validate;
mod vector;
mod version;

pub use collection::{
    CatalogEntry, ClockStatus, CollectionId, CollectionStats, LiveCollection, MemoryUse, Placement, Serving,
};
pub use conversions::NegativeId;
pub use disk_id::DiskId;
pub use level::{Level, UnknownLevel};
pub use mesh::{LOOP_GENERATION_BITS, Member, MeshId, NodeState, Observation, RangeInfo, View};
pub use node_id::{NodeId, ParseNodeIdError};
pub use payload::{DecodePayloadError, Payload, PayloadFault, RawPayload, Value};
pub use point::{Point, PointId, RawPoint, RawStoredPoint, StoredPoint};
pub use position::position;
pub use record::{Outcome, Parts, Record, RecordValue};
pub use schema::{CollectionSchema, DEFAULT_FIELD, FieldSchema, Fsync, Metric, Profile, UnknownMetric, UnknownProfile};
pub use search::{Hit, RawHit, ScanCursor};
pub use typed::{PayloadError, payload_as, payload_of};
pub use vector::{Fields, Vector, le_bytes};
pub use version::Version;
