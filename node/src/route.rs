//! Where the points of a collection go.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use vecino_mesh::cover_cache::{CoverCache, Preference};
use vecino_mesh::ring::{Cover, Ring};
use vecino_model::{CollectionId, CollectionSchema, NodeId};

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
    /// Covers of the ring that were asked for before.
    covers: Mutex<CoverCache>,
}

impl Route {
    /// The route to a collection with this ring.
    pub fn new(name: String, id: CollectionId, schema: CollectionSchema, ring: Ring) -> Self {
        Self { name, id, schema, ring, covers: Mutex::default() }
    }

    /// Nodes that together hold every range `times` times, of those that are `usable`.
    pub fn cover(&self, times: usize, usable: &BTreeSet<NodeId>, preference: Preference) -> Arc<Cover> {
        let mut covers = self.covers.lock().unwrap_or_else(PoisonError::into_inner);
        covers.cover(&self.ring, self.replication_factor(), times, usable, preference)
    }

    /// Distinct nodes that keep each point.
    pub fn replication_factor(&self) -> usize {
        self.schema.replication_factor as usize
    }
}
