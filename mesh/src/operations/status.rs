//! What is known of the mesh and of its ring, as this node sees them; snapshots on every node.

use std::collections::BTreeMap;

use vecino_model::error::RpcError;
use vecino_model::message::{
    NodeSnapshot, NodeStatsReply, NodeStatus, RingInfo, RingReply, SnapshotReport, StatusReply, TakeSnapshot,
};
use vecino_model::{CollectionStats, LiveCollection, Member, NodeState, Placement, View};

use super::collections::stats_of_nodes;
use super::task::Task;
use crate::ring::Ring;

/// Every known node.
pub(super) async fn status(task: &Task) -> StatusReply {
    let mut stats = stats_of_nodes(task).await;
    let core = task.core();
    let view = std::sync::Arc::clone(core.peers().view());
    let owns = ring_of(&view).ownership();
    let member = |member: &Member| {
        let told = stats.remove(&member.id);
        status_of(member, told, owns.get(&member.id).copied())
    };
    let mut nodes: Vec<NodeStatus> = view.members.values().map(member).collect();
    // Gossip forgets a node that was away for long; a collection that it keeps does not.
    let live = core.collections.live().into_iter().filter_map(|entry| entry.live);
    let placed: Placement = live.flat_map(|LiveCollection { schema: _, placement }| placement).collect();
    let forgotten = placed.keys().filter(|node| !view.members.contains_key(node));
    nodes.extend(forgotten.map(|node| NodeStatus::new(*node, String::new(), NodeState::Down)));
    nodes.sort_by(|a, b| (&a.address, a.id).cmp(&(&b.address, b.id)));
    StatusReply::new(core.mesh, core.own, nodes)
}

/// What is known of a member: by its own answer where there is one, else by gossip.
fn status_of(member: &Member, told: Option<NodeStatsReply>, owns: Option<f64>) -> NodeStatus {
    let Member { id, address, state, points, name, software, .. } = member;
    let panics = told.as_ref().map(|told| told.panics);
    let clock = told.as_ref().and_then(|told| told.clock);
    let (collections, memory) =
        told.map(|NodeStatsReply { collections, memory, panics: _, clock: _ }| (collections, memory)).unzip();
    let counted = |held: &BTreeMap<String, CollectionStats>| held.values().map(|held| held.points).sum();
    let mut status = NodeStatus::new(*id, address.to_string(), *state);
    status.points = Some(collections.as_ref().map_or(*points, counted));
    status.owns = owns.unwrap_or(0.0);
    (status.name, status.software) = (name.clone(), software.clone());
    (status.memory, status.panics, status.clock) = (memory.flatten(), panics, clock);
    status.collections = collections.unwrap_or_default();
    status
}

/// Every range with its replicas.
pub(super) async fn ring(task: &Task, request: RingInfo) -> Result<RingReply, RpcError> {
    let (ring, replication_factor) = match request.collection {
        Some(name) => {
            let route = task.route(&name).await?;
            (route.ring.clone(), route.replication_factor())
        }
        None => (ring_of(task.core().peers().view()), 1),
    };
    Ok(RingReply::new(ring.ranges(replication_factor), ring.ownership(), replication_factor as u32))
}

fn ring_of(view: &View) -> Ring {
    Ring::new(&view.members.values().map(|member| (member.id, member.tokens.clone())).collect())
}

/// Takes a snapshot on every node that is up. Where another node fails, that is its report.
pub(super) async fn take_snapshot(task: &Task, request: TakeSnapshot) -> Result<Vec<SnapshotReport>, RpcError> {
    let TakeSnapshot { collection } = request;
    if let Some(name) = &collection {
        task.route(name).await?;
    }
    let own = task.core().own;
    let mut nodes = task.core().peers().others_up();
    nodes.push(own);
    let wanted = NodeSnapshot { collection };
    let mut answers = task.gather(&nodes, &wanted, task.replica_deadline()).await;
    let mut reports = answers.remove(&own).unwrap_or_else(|| Ok(Vec::new()))?;
    for (node, answer) in answers {
        match answer {
            Ok(taken) => reports.extend(taken),
            Err(error) => {
                let mut report = SnapshotReport::new(node, wanted.collection.clone().unwrap_or_default());
                report.error = Some(error.message);
                reports.push(report);
            }
        }
    }
    reports.sort_by(|a, b| (&a.collection, a.node).cmp(&(&b.collection, b.node)));
    Ok(reports)
}
