//! Asking nodes that together hold every range as often as a level says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::{Level, NodeId};

use super::task::{Task, answer_of};
use crate::collections::Route;
use crate::cover_cache::{Preference, TURNS};
use crate::fanout::{Fanout, Step};
use crate::machine::CallId;
use crate::message::Ask;
use crate::peers::{LATE_MAX, Pace};
use crate::ring::{Cover, ShortRange};
use crate::time::Time;

/// The answers of the nodes of a cover, each with its node.
pub(super) type Answers<T> = BTreeMap<NodeId, T>;

/// Asks a cover; gives the answers, and what they cover.
pub(super) async fn ask_cover<R: Ask + Clone>(
    task: &Task,
    route: &Arc<Route>,
    level: Level,
    allow_partial: bool,
    request: R,
    deadline: Time,
) -> Result<(Answers<R::Answer>, Cover), RpcError> {
    let times = level.required(route.replication_factor());
    let now = task.now().time;
    let (up, silent): (BTreeSet<NodeId>, BTreeSet<NodeId>) = {
        let peers = task.core().peers();
        let up = route.ring.nodes().filter(|node| peers.is_up(*node, now));
        (up.collect(), route.ring.nodes().filter(|node| peers.is_silent(*node)).collect())
    };
    let preference = Preference { first: task.core().own, turn: task.core().chance().u8(..TURNS) };
    let rank = |node: NodeId| if silent.contains(&node) { u64::MAX } else { preference.rank(node) };
    let begin_with = if silent.is_empty() { Some(route.cover(times, &up, preference)) } else { None };
    let mut fanout = Fanout::new(&route.ring, route.replication_factor(), times, up);
    if let Some(cover) = begin_with {
        fanout.begin_with(Cover::clone(&cover));
    }
    let mut waiting: BTreeMap<CallId, NodeId> = BTreeMap::new();
    let mut answers = BTreeMap::new();
    let mut reasons = Vec::new();
    let mut hedge_at = now;
    loop {
        match fanout.step(rank) {
            Step::Done(cover) => {
                if cover.short.is_empty() || allow_partial && !cover.nodes.is_empty() {
                    return Ok((answers, cover));
                }
                return Err(uncovered(route, &cover, level, &reasons));
            }
            // Nobody could answer in time any more.
            Step::Ask(nodes) if task.now().time >= deadline => nodes.into_iter().for_each(|node| fanout.failed(node)),
            Step::Ask(nodes) => {
                let late_after = {
                    let peers = task.core().peers();
                    nodes.iter().map(|node| peers.late_after(*node, Pace::Search)).max()
                };
                hedge_at = task.now().time + late_after.unwrap_or(LATE_MAX);
                for node in nodes {
                    waiting.insert(task.ask(node, request.clone(), deadline), node);
                }
            }
            Step::Wait => match task.next(hedge_at.min(deadline)).await {
                Some((call, arrival)) => {
                    let Some(node) = waiting.remove(&call) else { continue };
                    match answer_of::<R>(arrival.result) {
                        Ok(answer) => {
                            answers.insert(node, answer);
                            fanout.answered(node);
                        }
                        // It would be refused everywhere.
                        Err(error) if error.code == ErrorCode::Invalid => return Err(error),
                        Err(error) => {
                            reasons.push(format!("node {}: {error}", node.short()));
                            fanout.failed(node);
                        }
                    }
                }
                None if task.now().time >= deadline => {
                    for node in std::mem::take(&mut waiting).into_values() {
                        reasons.push(format!("node {} did not answer before the deadline", node.short()));
                        fanout.failed(node);
                    }
                }
                None => {
                    for node in waiting.values() {
                        task.core().peers().was_late(*node);
                    }
                    if task.core().peers().take_hedge() {
                        fanout.hedge();
                    }
                    hedge_at = task.now().time + LATE_MAX;
                }
            },
        }
    }
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
