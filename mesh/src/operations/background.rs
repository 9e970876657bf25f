//! What a node does by itself, for as long as it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::message::{Probe, ReplicaApply};
use vecino_model::{CollectionId, NodeId, NodeState, Outcome};

use super::task::{Task, answer_of};
use crate::machine::CallId;
use crate::message::{HintBatch, NextHints, TakenHints, WaitingHints};
use crate::time::Time;

/// How often a node looks at what the others gossip of their catalogs.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// How often a silent node is asked whether it answers.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How long it may take to answer that.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a node looks for hints that can be delivered.
const DELIVER_EVERY: Duration = Duration::from_millis(100);
/// How long a node may take for a delivery.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before a node that did not take a delivery is tried again; it doubles up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Keeps up with the catalogs that others gossip.
pub(crate) async fn follow_catalogs(task: Task) {
    loop {
        task.pause(FOLLOW_EVERY).await;
        let digest = task.core().collections.digest();
        let own = task.core().own;
        let differing: Vec<NodeId> = {
            let peers = task.core().peers();
            let others = peers.up().filter(|member| member.id != own && member.state == NodeState::Up);
            let differs = others.filter(|member| !member.catalog_digest.is_empty() && member.catalog_digest != digest);
            differs.map(|member| member.id).collect()
        };
        for node in differing {
            task.fetch_catalog_of(node).await;
        }
    }
}

/// Asks nodes that were late whether they answer again, so that they are asked for other things again.
pub(crate) async fn probe_silent(task: Task) {
    loop {
        task.pause(PROBE_EVERY).await;
        let silent = task.core().peers().silent();
        if !silent.is_empty() {
            // An answer is noted as that of every request is.
            task.gather(&silent, &Probe {}, task.now().time + PROBE_TIMEOUT).await;
        }
    }
}

/// When a node that did not take a delivery is tried again.
struct Rest {
    until: Time,
    pause: Duration,
}

/// What is under way for a node that has missed something: one of these at a time.
enum Step {
    /// The disk is asked for the oldest of it.
    Reading,
    /// The node is sent it.
    Delivering { collection: CollectionId, last_lsn: u64 },
    /// The disk is told that the node has it.
    Removing,
}

/// Delivers what other nodes have missed, to each one batch after the other. None of them holds up the others.
pub(crate) async fn deliver_hints(task: Task) {
    let mut rests: BTreeMap<NodeId, Rest> = BTreeMap::new();
    let mut under_way: BTreeMap<CallId, (NodeId, Step)> = BTreeMap::new();
    let own = task.core().own;
    loop {
        let now = task.now().time;
        let waiting: Vec<NodeId> = task.core().hints().waiting().keys().copied().collect();
        rests.retain(|node, _| waiting.contains(node));
        for node in waiting {
            let is_busy = under_way.values().any(|(busy, _)| *busy == node);
            let rests_still = rests.get(&node).is_some_and(|rest| rest.until > now);
            if !is_busy && !rests_still && task.core().peers().is_up(node, now) {
                under_way.insert(task.ask(own, NextHints { node }, Time::NEVER), (node, Step::Reading));
            }
        }
        let Some((call, arrival)) = task.next(now + DELIVER_EVERY).await else { continue };
        let Some((node, step)) = under_way.remove(&call) else { continue };
        let now = task.now().time;
        let next = match step {
            Step::Reading => match answer_of::<NextHints>(arrival.result) {
                Ok(WaitingHints { number, waiting, batch: None }) => {
                    task.core().hints().set_waiting(node, number, waiting);
                    None
                }
                Ok(WaitingHints { batch: Some(HintBatch { collection, records, last_lsn }), .. }) => {
                    let call = task.ask(node, ReplicaApply { collection, records }, now + DELIVERY_TIMEOUT);
                    Some((call, Step::Delivering { collection, last_lsn }))
                }
                Err(_) => {
                    rest(&mut rests, node, now);
                    None
                }
            },
            Step::Delivering { collection, last_lsn } => {
                if is_taken(&task, collection, answer_of::<ReplicaApply>(arrival.result)) {
                    rests.remove(&node);
                    Some((task.ask(own, TakenHints { node, last_lsn }, Time::NEVER), Step::Removing))
                } else {
                    rest(&mut rests, node, now);
                    None
                }
            }
            Step::Removing => {
                match answer_of::<TakenHints>(arrival.result) {
                    Ok(WaitingHints { number, waiting, batch: _ }) => {
                        task.core().hints().set_waiting(node, number, waiting);
                    }
                    Err(_) => rest(&mut rests, node, now),
                }
                None
            }
        };
        under_way.extend(next.map(|(call, step)| (call, (node, step))));
    }
}

/// Whether a node needs no more of what it was sent: it has it, or refuses it, as it will again, or there is no collection
/// to put it in.
fn is_taken(task: &Task, collection: CollectionId, answer: Result<Vec<Outcome>, RpcError>) -> bool {
    match answer {
        Ok(outcomes) => outcomes.iter().all(|outcome| matches!(outcome, Outcome::Written(_) | Outcome::Refused(_))),
        Err(error) => error.code == ErrorCode::NotFound && !task.core().collections.exists(collection),
    }
}

fn rest(rests: &mut BTreeMap<NodeId, Rest>, node: NodeId, now: Time) {
    let pause = rests.get(&node).map_or(RETRY_FIRST, |rest| (rest.pause * 2).min(RETRY_MAX));
    rests.insert(node, Rest { until: now + pause, pause });
}
