//! Where the points of a collection go.

use vecino_mesh::ring::Ring;
use vecino_model::{CollectionId, CollectionSchema};

/// Where the points of a collection go.
#[derive(Debug)]
pub struct Route {
    /// Collection name.
    pub name: String,
    /// Its id.
    pub id: CollectionId,
    /// Its schema.
    pub schema: CollectionSchema,
    /// The ring of its placement.
    pub ring: Ring,
}

impl Route {
    /// Distinct nodes that keep each point.
    pub fn replication_factor(&self) -> usize {
        self.schema.replication_factor as usize
    }
}
