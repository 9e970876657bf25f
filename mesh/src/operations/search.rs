//! Search: fan out to a cover of the ring, merge, and at `quorum` confirm what was found.
//!
//! Every put that a majority acknowledged before the search began is on at least one node of a cover that asks a majority
//! of every range. Such a point is missing from that node's list only where the list was cut off before it, so a hit is
//! final only where it is as good as the last hit of every list that was cut off: what is no better than the *horizon* may
//! have been passed over, and more is asked for. What is found overwritten is scored by its newest version and put where
//! it belongs; what is found deleted is dropped.

use std::sync::Arc;

use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::message::{Query, RawSearchReply, ReplicaSearch, Search};
use vecino_model::{
    FieldSchema, Fields, Level, NodeId, Parts, PointId, RawHit, Record, RecordValue, Vector, limits, validate,
};

use super::cover::ask_cover;
use super::get::{records, unreadable, versions};
use super::task::Task;
use crate::collections::Route;
use crate::merge::{self, Candidate};
use crate::plants::Plant;
use crate::score;

/// `ef` of a search that names none.
pub const EF_DEFAULT: u32 = 100;

/// Candidates that each node is asked for beyond `k`, so that a few that were overwritten can be replaced without asking
/// again.
const SPARE_HITS: u32 = 4;

/// How often a search is repeated with more candidates when too many turned out to be overwritten or deleted.
const REFILLS_MAX: usize = 12;

/// Finds the best points for a query.
pub(super) async fn search(task: &Task, request: Search) -> Result<RawSearchReply, RpcError> {
    check(&request)?;
    let route = task.route(&request.collection).await?;
    let Some(field) = route.schema.fields.get(&request.field) else {
        return Err(RpcError::invalid(format_args!(
            "vector field {:?} is not in collection {:?}, which has {:?}",
            request.field,
            route.name,
            route.schema.fields.keys().collect::<Vec<_>>()
        )));
    };
    let (vector, itself) = query_vector(task, &route, field, &request).await?;
    let searched = Searched { task, route: &route, field, vector, itself, request };
    searched.run().await
}

/// A search under way.
struct Searched<'s> {
    task: &'s Task,
    route: &'s Arc<Route>,
    field: &'s FieldSchema,
    vector: Vector,
    /// The point that the query is about; it is no hit.
    itself: Option<PointId>,
    request: Search,
}

impl Searched<'_> {
    async fn run(&self) -> Result<RawSearchReply, RpcError> {
        let (k, metric) = (self.request.k, self.field.metric);
        let mut wanted = k + u32::from(self.itself.is_some());
        let plants = self.task.core().plants;
        for _ in 0..=REFILLS_MAX {
            let limit = (wanted + SPARE_HITS).min(limits::K_MAX);
            let request = self.of_replicas(limit);
            let (level, partial) = (self.request.level, self.request.allow_partial);
            let deadline = self.task.replica_deadline();
            let (answers, cover) = ask_cover(self.task, self.route, level, partial, request, deadline).await?;
            // More than this cannot be asked for.
            let is_last = limit == limits::K_MAX;
            let cut_off = answers.values().filter_map(|answer| answer.horizon).filter(|_| !is_last);
            let horizon = cut_off.reduce(|a, b| if score::is_as_good(metric, a, b) { a } else { b });
            let reached = horizon.filter(|_| !plants.has(Plant::NoSearchHorizon));
            let needed = level.required(self.route.replication_factor());
            let mut candidates = merge::candidates(answers, |id| self.route.replicas_of(id), needed, metric);
            candidates.retain(|candidate| Some(&candidate.hit.id) != self.itself.as_ref());
            let found = candidates.len();
            let hits = self.confirm(candidates, reached, &cover.nodes).await?;
            if hits.len() == k as usize || horizon.is_none() {
                return Ok(RawSearchReply::new(hits, cover.covered, metric));
            }
            wanted = wanted.saturating_mul(2).max(found as u32).min(limits::K_MAX);
        }
        Err(RpcError::new(
            ErrorCode::Unavailable,
            format_args!("points of collection {:?} are overwritten faster than they can be searched", self.route.name),
        ))
    }

    fn of_replicas(&self, limit: u32) -> ReplicaSearch {
        let request = &self.request;
        ReplicaSearch {
            collection: self.route.id,
            field: request.field.clone(),
            vector: self.vector.clone(),
            k: limit,
            ef: request.ef.unwrap_or(EF_DEFAULT).max(request.k),
            threshold: request.threshold,
            with_payload: request.with_payload,
            with_vectors: request.with_vectors,
            exact: request.exact,
        }
    }

    /// The best `k` candidates as good as the horizon, each with the newest version of its point, best asked at nodes that
    /// were `quick` to answer.
    async fn confirm(
        &self,
        mut candidates: Vec<Candidate>,
        horizon: Option<f32>,
        quick: &[NodeId],
    ) -> Result<Vec<RawHit>, RpcError> {
        let (k, level, metric) = (self.request.k as usize, self.request.level, self.field.metric);
        loop {
            let is_final =
                |candidate: &Candidate| horizon.is_none_or(|at| score::is_as_good(metric, candidate.hit.score, at));
            let best = candidates.iter().take_while(|candidate| is_final(candidate)).take(k).count();
            let open = |candidate: &Candidate| level != Level::One && !candidate.is_confirmed;
            let asked: Vec<usize> = (0..best).filter(|place| open(&candidates[*place])).collect();
            if asked.is_empty() {
                candidates.truncate(best);
                return Ok(candidates.into_iter().map(|candidate| candidate.hit).collect());
            }
            let ids: Vec<PointId> = asked.iter().map(|place| candidates[*place].hit.id.clone()).collect();
            let newest = versions(self.task, self.route, &ids, |node| quick.contains(&node), level).await;
            let mut overwritten = Vec::new();
            for ((place, newest), id) in asked.into_iter().zip(newest).zip(&ids) {
                match newest {
                    Ok(newest) if !merge::is_current(&candidates[place].hit, newest) => overwritten.push(place),
                    Ok(_) => candidates[place].is_confirmed = true,
                    // No replica knows. A caller that takes a partial answer gets the hit as it is.
                    Err(_) if self.request.allow_partial => candidates[place].is_confirmed = true,
                    Err(reason) => return Err(unreadable(id, &reason)),
                }
            }
            if !overwritten.is_empty() {
                self.score_again(&mut candidates, overwritten).await?;
            }
        }
    }

    /// Puts candidates that were overwritten where their newest versions belong.
    async fn score_again(&self, candidates: &mut Vec<Candidate>, places: Vec<usize>) -> Result<(), RpcError> {
        let ids: Vec<PointId> = places.iter().map(|place| candidates[*place].hit.id.clone()).collect();
        let parts = Parts { vectors: true, payload: self.request.with_payload };
        let newest = if self.task.core().plants.has(Plant::OverwrittenHitsAreDropped) {
            vec![None; ids.len()]
        } else {
            records(self.task, self.route, &ids, parts, self.request.level).await?
        };
        let mut is_gone = vec![false; candidates.len()];
        for (place, record) in places.into_iter().zip(newest) {
            match record.and_then(|record| self.hit(record)) {
                Some(hit) => candidates[place] = Candidate { hit, is_confirmed: true },
                None => is_gone[place] = true,
            }
        }
        let mut gone = is_gone.into_iter();
        candidates.retain(|_| !gone.next().unwrap_or(false));
        merge::sort(candidates, self.field.metric);
        Ok(())
    }

    /// The hit that a record is; nothing where it is deleted, lacks the field or is beyond the threshold.
    fn hit(&self, record: Record) -> Option<RawHit> {
        let Record { id, version, value } = record;
        let RecordValue { vectors, payload } = value?;
        let metric = self.field.metric;
        let score = score::score(metric, &self.vector, vectors.get(&self.request.field)?);
        if self.request.threshold.is_some_and(|threshold| !score::is_as_good(metric, score, threshold)) {
            return None;
        }
        let vectors = if self.request.with_vectors { vectors } else { Fields::new() };
        Some(RawHit { id, score, version, payload: self.request.with_payload.then_some(payload), vectors })
    }
}

/// The vector to search for, and the point that it belongs to.
async fn query_vector(
    task: &Task,
    route: &Arc<Route>,
    field: &FieldSchema,
    request: &Search,
) -> Result<(Vector, Option<PointId>), RpcError> {
    let id = match &request.query {
        Query::Vector(vector) => {
            validate::vector(&request.field, field, vector).map_err(RpcError::invalid)?;
            return Ok((vector.clone(), None));
        }
        Query::Id(id) => id,
    };
    validate::point_id(id).map_err(RpcError::invalid)?;
    let parts = Parts { vectors: true, payload: false };
    let record = records(task, route, std::slice::from_ref(id), parts, request.level).await?.pop().flatten();
    let vector = record
        .and_then(|record| record.value)
        .and_then(|RecordValue { mut vectors, payload: _ }| vectors.remove(&request.field));
    match vector {
        Some(vector) => Ok((vector, Some(id.clone()))),
        None => Err(RpcError::new(
            ErrorCode::NotFound,
            format_args!("point {id:?} is not in collection {:?}, so nothing can be like it", route.name),
        )),
    }
}

fn check(request: &Search) -> Result<(), RpcError> {
    if request.k == 0 || request.k > limits::K_MAX {
        return Err(RpcError::invalid(format_args!("k is {}: use 1 to {}", request.k, limits::K_MAX)));
    }
    if let Some(ef) = request.ef.filter(|ef| *ef == 0 || *ef > limits::EF_MAX) {
        return Err(RpcError::invalid(format_args!("ef is {ef}: use 1 to {}", limits::EF_MAX)));
    }
    if let Some(threshold) = request.threshold.filter(|threshold| !threshold.is_finite()) {
        return Err(RpcError::invalid(format_args!("threshold is {threshold}: use a finite number")));
    }
    Ok(())
}
