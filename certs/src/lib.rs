//! Mesh authority, node and client identity, and the rustls configurations built from them.

mod node_id;

pub use node_id::{NodeId, ParseNodeIdError};
