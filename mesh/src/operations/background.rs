//! What a node does by itself, for as long as it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use vecino_model::error::ErrorCode;
use vecino_model::message::{Probe, ReplicaApply};
use vecino_model::{CollectionId, NodeId, NodeState, Record};

use super::task::{Task, answer_of};
use crate::machine::CallId;
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

/// A delivery that is under way.
struct Delivery {
    node: NodeId,
    collection: CollectionId,
    records: Vec<Record>,
}

/// Delivers what replicas have missed, to each one batch after the other. None of them holds up the others.
pub(crate) async fn deliver_hints(task: Task) {
    let mut rests: BTreeMap<NodeId, Rest> = BTreeMap::new();
    let mut under_way: BTreeMap<CallId, Delivery> = BTreeMap::new();
    loop {
        let now = task.now().time;
        let waiting = task.core().hints().counts();
        rests.retain(|node, _| waiting.contains_key(node));
        for node in waiting.into_keys() {
            let is_busy = under_way.values().any(|delivery| delivery.node == node);
            let rests_still = rests.get(&node).is_some_and(|rest| rest.until > now);
            if is_busy || rests_still || !task.core().peers().is_up(node, now) {
                continue;
            }
            let delivery = task.core().hints().delivery(node, now);
            let Some((collection, records)) = delivery else { continue };
            let request = ReplicaApply { collection, records: records.clone() };
            let call = task.ask(node, request, now + DELIVERY_TIMEOUT);
            under_way.insert(call, Delivery { node, collection, records });
        }
        let Some((call, arrival)) = task.next(now + DELIVER_EVERY).await else { continue };
        let Some(Delivery { node, collection, records }) = under_way.remove(&call) else { continue };
        let is_taken = match answer_of::<ReplicaApply>(arrival.result) {
            // What is refused will be refused again.
            Ok(outcomes) => outcomes.iter().all(|outcome| {
                use vecino_model::Outcome::{Refused, Written};
                matches!(outcome, Written(_) | Refused(_))
            }),
            Err(error) => error.code == ErrorCode::NotFound && !task.core().collections.exists(collection),
        };
        if is_taken {
            task.core().hints().delivered(node, &records);
            rests.remove(&node);
        } else {
            rest(&mut rests, node, task.now().time);
        }
    }
}

fn rest(rests: &mut BTreeMap<NodeId, Rest>, node: NodeId, now: Time) {
    let pause = rests.get(&node).map_or(RETRY_FIRST, |rest| (rest.pause * 2).min(RETRY_MAX));
    rests.insert(node, Rest { until: now + pause, pause });
}
