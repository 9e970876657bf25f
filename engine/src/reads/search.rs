//! Searching one collection on one node.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use vecino_index::SearchOptions;
use vecino_model::message::ReplicaHits;
use vecino_model::{Fields, RawHit, RawPayload, Vector};

use crate::core::Core;
use crate::key::Live;
use crate::reads::errors::{SEARCH_BYTES_MAX, SearchError};

/// How often a search looks again because points were overwritten while it looked.
const SEARCH_TRIES: usize = 4;

/// What one node's index is searched for.
#[derive(Clone, Debug)]
pub struct SearchRequest {
    /// Vector field.
    pub field: String,
    /// Query vector.
    pub vector: Vector,
    /// Hits wanted.
    pub k: u32,
    /// Candidates that the graph walk keeps.
    pub ef: u32,
    /// Only hits at least this good.
    pub threshold: Option<f32>,
    /// Whether payloads are wanted.
    pub with_payload: bool,
    /// Whether vectors are wanted.
    pub with_vectors: bool,
    /// Search exactly, without the graph.
    pub exact: bool,
}

impl Core {
    /// The best hits of this node's index, and what is known of the others. Blocks for as long as the search takes. Once it is
    /// to stop, the hits are any.
    pub(crate) fn search(
        &self,
        request: &SearchRequest,
        stop: Option<&AtomicBool>,
    ) -> Result<ReplicaHits, SearchError> {
        let SearchRequest { field, vector, k, ef, threshold, with_payload, with_vectors, exact } = request;
        let index = self.fields.get(field).ok_or_else(|| SearchError::UnknownField(field.clone()))?;
        let (k, ef) = (*k as usize, (*ef).max(*k) as usize);
        let options = SearchOptions { k, ef, threshold: *threshold, filter: None, stop };
        let mut live: Vec<(f32, Arc<Live>)> = Vec::new();
        let mut horizon = None;
        // From the search to the last look at a slot that it gave: none of them is used again meanwhile.
        let _reading = self.reading();
        for tries in 1..=SEARCH_TRIES {
            // The last time, writers wait: what the index finds is then what the tables know, or a version that is about
            // to replace one that it finds too.
            let held = (tries == SEARCH_TRIES).then(|| self.tables());
            let found = index.search(vector, &options, *exact)?;
            horizon = found.last().filter(|_| found.len() == k).map(|last| last.score);
            let tables = held.unwrap_or_else(|| self.tables());
            live = found.iter().filter_map(|hit| Some((hit.score, Arc::clone(tables.in_slot(hit.slot)?)))).collect();
            // A point that was overwritten since the index looked is in a slot that the index did not look at.
            if live.len() == found.len() || options.is_stopped() {
                break;
            }
        }
        let vector_bytes = if *with_vectors { self.fields.vector_bytes_max() } else { 0 };
        let hit_bytes = |live: &Live| vector_bytes + if *with_payload { live.payload.len() } else { 0 };
        let bytes = live.iter().map(|(_, live)| hit_bytes(live)).sum::<usize>();
        if bytes > SEARCH_BYTES_MAX {
            return Err(SearchError::TooLarge);
        }
        let _answer = self.share.account.budget().count(bytes as u64);
        let hit = |(score, live): (f32, Arc<Live>)| self.hit(score, &live, *with_payload, *with_vectors);
        Ok(ReplicaHits { hits: live.into_iter().map(hit).collect::<Result<_, _>>()?, horizon })
    }

    fn hit(&self, score: f32, live: &Live, with_payload: bool, with_vectors: bool) -> Result<RawHit, SearchError> {
        let Live { key, version, slot, payload } = live;
        let payload = with_payload.then(|| RawPayload::from_bytes(payload.clone()));
        // What an older version stored may not have been looked into.
        if let Some(Err(fault)) = payload.as_ref().map(RawPayload::check) {
            return Err(SearchError::Damaged { id: key.id.clone(), version: *version, reason: fault.to_string() });
        }
        let vectors = if with_vectors { self.fields.vectors(*slot) } else { Fields::new() };
        Ok(RawHit { id: key.id.clone(), score, version: *version, payload, vectors })
    }
}
