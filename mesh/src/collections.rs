//! The collections that a node knows, and where their points go.
//!
//! Shared by whatever decides by them; the driver that keeps the catalog on disk installs each new one here once it is
//! durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use vecino_model::{CatalogEntry, CollectionId, CollectionSchema, LiveCollection, NodeId, PointId, position};

use crate::catalog::Catalog;
use crate::cover_cache::{CoverCache, Preference};
use crate::quorum::Replicas;
use crate::ring::{Cover, Ring};

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

    /// Some of the `usable` nodes, so that each range is held by `times` of them.
    pub fn cover(&self, times: usize, usable: &BTreeSet<NodeId>, preference: Preference) -> Arc<Cover> {
        let mut covers = self.covers.lock().unwrap_or_else(PoisonError::into_inner);
        covers.cover(&self.ring, self.replication_factor(), times, usable, preference)
    }

    /// Distinct nodes that keep each point.
    pub fn replication_factor(&self) -> usize {
        self.schema.replication_factor as usize
    }

    /// The replicas of a point, first one first.
    pub fn replicas_of(&self, id: &PointId) -> Vec<NodeId> {
        self.ring.replicas(position(self.id, id), self.replication_factor())
    }

    /// The replicas of each of these points.
    pub fn replicas(&self, ids: &[PointId]) -> Replicas {
        ids.iter().map(|id| self.replicas_of(id)).collect()
    }
}

/// The catalog that is in effect.
#[derive(Debug, Default)]
pub struct Collections {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    catalog: Catalog,
    routes: BTreeMap<String, Arc<Route>>,
    digest: String,
}

impl Collections {
    /// No collections.
    pub fn new() -> Self {
        let digest = Catalog::default().digest();
        Self { state: RwLock::new(State { digest, ..State::default() }) }
    }

    /// Puts a catalog into effect.
    pub fn install(&self, catalog: Catalog) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut routes = BTreeMap::new();
        for CatalogEntry { name, version: _, id, live } in catalog.all_named() {
            let Some(LiveCollection { schema, placement }) = live else { continue };
            let known = state.routes.get(name).filter(|known| known.id == *id);
            let route = known.map_or_else(
                || Arc::new(Route::new(name.clone(), *id, schema.clone(), Ring::new(placement))),
                Arc::clone,
            );
            routes.insert(name.clone(), route);
        }
        let digest = catalog.digest();
        *state = State { catalog, routes, digest };
    }

    /// Looks at the catalog.
    pub fn look<T>(&self, look: impl FnOnce(&Catalog) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner).catalog)
    }

    /// Hash of the catalog.
    pub fn digest(&self) -> String {
        self.state.read().unwrap_or_else(PoisonError::into_inner).digest.clone()
    }

    /// Where the points of a collection go.
    pub fn route(&self, name: &str) -> Option<Arc<Route>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).routes.get(name).cloned()
    }

    /// Every entry.
    pub fn entries(&self) -> Vec<CatalogEntry> {
        self.look(|catalog| catalog.entries().cloned().collect())
    }

    /// Entries of the collections that exist and have their name.
    pub fn live(&self) -> Vec<CatalogEntry> {
        self.look(|catalog| catalog.all_named().into_iter().cloned().collect())
    }

    /// Whether a collection exists, as far as is known here.
    pub fn exists(&self, id: CollectionId) -> bool {
        self.look(|catalog| catalog.entry(id).is_some_and(|entry| entry.live.is_some()))
    }

    /// Whether a collection exists, as far as is known here, and this node is to keep a part of it.
    pub fn is_kept_by(&self, node: NodeId, id: CollectionId) -> bool {
        let keeps = |live: &LiveCollection| live.placement.contains_key(&node);
        self.look(|catalog| catalog.entry(id).and_then(|entry| entry.live.as_ref()).is_some_and(keeps))
    }
}
