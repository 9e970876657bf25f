//! Search: fan out to a cover of the ring, merge, and at `quorum` confirm what was found.
//!
//! Every put that a majority acknowledged before the search began is on at least one node of a cover that asks a
//! majority of every range, so it is a candidate. What the confirmation finds overwritten or deleted is dropped, and
//! the next best takes its place.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use vecino_mesh::cover_cache::{Preference, TURNS};
use vecino_mesh::ring::{Cover, ShortRange};
use vecino_model::{FieldSchema, Level, NodeId, Parts, PointId, RawHit, RecordValue, Vector, limits, validate};
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::message::{Query, RawSearchReply, ReplicaSearch, Search};
use vecino_net::rpc::RequestContext;

use super::points::unreadable;
use super::{Coordinator, HEDGE_AFTER, replica_deadline, spawn};
use crate::replica::ReplicaRequest;
use crate::route::Route;
use vecino_mesh::fanout::{Fanout, Step};
use vecino_mesh::merge;

/// `ef` of a search that names none.
pub const EF_DEFAULT: u32 = 100;

/// Candidates that each node is asked for beyond `k`, so that a few overwritten ones can be replaced without asking again.
const SPARE_HITS: u32 = 4;

/// How often a search is repeated with more candidates when too many turned out to be overwritten or deleted.
const REFILLS_MAX: usize = 4;

impl Coordinator {
    /// Finds the best points for a query.
    pub async fn search(&self, context: &RequestContext, request: Search) -> Result<RawSearchReply, RpcError> {
        let deadline = context.deadline;
        check(&request)?;
        let route = self.route(&request.collection).await?;
        let Some(field) = route.schema.fields.get(&request.field) else {
            return Err(RpcError::invalid(format_args!(
                "vector field {:?} is not in collection {:?}, which has {:?}",
                request.field,
                route.name,
                route.schema.fields.keys().collect::<Vec<_>>()
            )));
        };
        let deadline = replica_deadline(deadline);
        let (vector, itself) = self.query_vector(&route, field, &request, deadline).await?;
        let mut wanted = request.k + u32::from(itself.is_some());
        for _ in 0..=REFILLS_MAX {
            let limit = (wanted + SPARE_HITS).min(limits::K_MAX);
            let (answers, cover) = self.fan_out(&route, &request, &vector, limit, deadline).await?;
            // A node that gave fewer than it was asked for has no more to give.
            let exhausted = limit == limits::K_MAX || answers.iter().all(|hits| hits.len() < limit as usize);
            let mut candidates = merge::hits(answers, field.metric);
            candidates.retain(|hit| Some(&hit.id) != itself.as_ref());
            let found = candidates.len();
            let hits = self.confirm(&route, candidates, &request, &cover.nodes, deadline).await?;
            if hits.len() == request.k as usize || exhausted {
                return Ok(RawSearchReply::new(hits, cover.covered, field.metric));
            }
            wanted = wanted.saturating_mul(2).max(found as u32).min(limits::K_MAX);
        }
        Err(RpcError::new(
            ErrorCode::Unavailable,
            format_args!("points of collection {:?} are overwritten faster than they can be searched", route.name),
        ))
    }

    /// The vector to search for, and the point that it belongs to.
    async fn query_vector(
        &self,
        route: &Arc<Route>,
        field: &FieldSchema,
        request: &Search,
        deadline: Instant,
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
        let record = self.records(route, std::slice::from_ref(id), parts, request.level, deadline).await?.remove(0);
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

    /// Asks a cover of the ring; gives the hits of each node that answered.
    async fn fan_out(
        &self,
        route: &Arc<Route>,
        request: &Search,
        vector: &Vector,
        limit: u32,
        deadline: Instant,
    ) -> Result<(Vec<Vec<RawHit>>, Cover), RpcError> {
        let wanted = ReplicaSearch {
            collection: route.id,
            field: request.field.clone(),
            vector: vector.clone(),
            k: limit,
            ef: request.ef.unwrap_or(EF_DEFAULT).max(request.k),
            threshold: request.threshold,
            with_payload: request.with_payload,
            with_vectors: request.with_vectors,
            exact: request.exact,
        };
        let partial = request.allow_partial;
        let (answers, cover) = self.ask_cover(route, request.level, partial, wanted, deadline).await?;
        Ok((answers, cover))
    }

    /// Asks nodes that together hold every range as often as the level says; gives their answers.
    pub(super) async fn ask_cover<R: ReplicaRequest>(
        &self,
        route: &Arc<Route>,
        level: Level,
        allow_partial: bool,
        request: R,
        deadline: Instant,
    ) -> Result<(Vec<R::Reply>, Cover), RpcError> {
        let times = level.required(route.replication_factor());
        let up: BTreeSet<NodeId> = route.ring.nodes().filter(|node| self.is_up(*node)).collect();
        let preference = Preference { first: self.shared.node_id, turn: fastrand::u8(..TURNS) };
        let cover = route.cover(times, &up, preference);
        let mut fanout = Fanout::new(&route.ring, route.replication_factor(), times, up);
        fanout.begin_with(Cover::clone(&cover));
        let (events, mut inbox) = mpsc::unbounded_channel::<(NodeId, Result<R::Reply, RpcError>)>();
        let mut answers = HashMap::new();
        let mut reasons = Vec::new();
        let mut hedge_at = Instant::now() + HEDGE_AFTER;
        loop {
            match fanout.step(|node| preference.rank(node)) {
                Step::Done(cover) => {
                    let level_held = cover.short.is_empty();
                    if level_held || allow_partial && !cover.nodes.is_empty() {
                        return Ok((answers.into_values().collect(), cover));
                    }
                    return Err(uncovered(route, &cover, level, &reasons));
                }
                Step::Ask(nodes) => {
                    for node in nodes {
                        let (coordinator, request, events) = (self.clone(), request.clone(), events.clone());
                        spawn(async move {
                            let answer = coordinator.call(node, request, deadline).await;
                            // The search may have finished without this answer.
                            let _ = events.send((node, answer));
                        });
                    }
                }
                Step::Wait => match timeout_at(hedge_at.min(deadline), inbox.recv()).await {
                    Ok(Some((node, Ok(answer)))) => {
                        answers.insert(node, answer);
                        fanout.answered(node);
                    }
                    // It would be refused everywhere.
                    Ok(Some((_, Err(error)))) if error.code == ErrorCode::Invalid => return Err(error),
                    Ok(Some((node, Err(error)))) => {
                        reasons.push(format!("node {}: {error}", node.short()));
                        fanout.failed(node);
                    }
                    Ok(None) | Err(_) if Instant::now() >= deadline => {
                        return Err(RpcError::new(
                            ErrorCode::Timeout,
                            format_args!("the nodes did not answer before the deadline ({})", reasons.join("; ")),
                        ));
                    }
                    Ok(None) | Err(_) => {
                        fanout.hedge();
                        hedge_at = Instant::now() + HEDGE_AFTER;
                    }
                },
            }
        }
    }

    /// The best `k` candidates that are still what their points are, best asked at nodes that were `quick` to answer.
    async fn confirm(
        &self,
        route: &Arc<Route>,
        candidates: Vec<RawHit>,
        request: &Search,
        quick: &[NodeId],
        deadline: Instant,
    ) -> Result<Vec<RawHit>, RpcError> {
        let (k, level) = (request.k as usize, request.level);
        let mut hits = Vec::with_capacity(k.min(candidates.len()));
        let mut candidates = candidates.into_iter();
        while hits.len() < k {
            let next: Vec<RawHit> = candidates.by_ref().take(k - hits.len()).collect();
            if next.is_empty() {
                break;
            }
            if level == Level::One {
                hits.extend(next);
                continue;
            }
            let ids: Vec<PointId> = next.iter().map(|hit| hit.id.clone()).collect();
            let versions = self.versions(route, &ids, |node| quick.contains(&node), level, deadline).await;
            for ((hit, newest), id) in next.into_iter().zip(versions).zip(&ids) {
                let is_current = match newest {
                    Ok(newest) => merge::is_current(&hit, newest),
                    // No replica knows. A caller that takes a partial answer gets the hit as it is.
                    Err(_) if request.allow_partial => true,
                    Err(reason) => return Err(unreadable(id, &reason)),
                };
                if is_current {
                    hits.push(hit);
                }
            }
        }
        Ok(hits)
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

/// Says which ranges could not be asked, and what would help.
fn uncovered(route: &Route, cover: &Cover, level: Level, reasons: &[String]) -> RpcError {
    let worst = cover.short.iter().min_by_key(|short| short.usable);
    let ranges = cover.short.len();
    let told = worst.map_or_else(String::new, |ShortRange { range, usable, wanted }| {
        let nodes: Vec<_> = range.replicas.iter().map(NodeId::short).collect();
        format!(
            "range {:016x}..={:016x} has {usable} live replicas of {} (nodes {}), and level {level} needs {wanted}",
            range.start,
            range.end,
            range.replicas.len(),
            nodes.join(", ")
        )
    });
    let advice = match worst {
        Some(short) if short.usable > 0 => "ask with level one, or start the nodes that are down",
        _ => "start the nodes that are down, or allow a partial answer",
    };
    let because = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
    RpcError::new(
        ErrorCode::Unavailable,
        format_args!("collection {:?}: {told}; {ranges} ranges in all{because}; {advice}", route.name),
    )
}
