//! Listing and describing collections, with what all nodes hold of them.

use std::collections::BTreeMap;
use std::time::Duration;

use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::message::{CollectionInfo, DescribeCollection, NodeStats, NodeStatsReply};
use vecino_model::{CatalogEntry, CollectionStats, LiveCollection, NodeId};

use super::task::Task;

/// How long nodes are asked for what they hold.
const STATS_TIMEOUT: Duration = Duration::from_secs(2);

/// Every collection, by name.
pub(super) async fn list(task: &Task) -> Vec<CollectionInfo> {
    let stats = stats_of_nodes(task).await;
    task.core().collections.live().into_iter().filter_map(|entry| info_of(entry, &stats)).collect()
}

/// One collection.
pub(super) async fn describe(task: &Task, request: DescribeCollection) -> Result<CollectionInfo, RpcError> {
    let route = task.route(&request.name).await?;
    let stats = stats_of_nodes(task).await;
    let entry = task.core().collections.live().into_iter().find(|entry| entry.id == route.id);
    entry.and_then(|entry| info_of(entry, &stats)).ok_or_else(|| {
        RpcError::new(ErrorCode::NotFound, format_args!("collection {:?} was dropped just now", request.name))
    })
}

/// What each node that answers in time holds of each collection.
pub(super) async fn stats_of_nodes(task: &Task) -> BTreeMap<NodeId, NodeStatsReply> {
    let until = (task.now().time + STATS_TIMEOUT).min(task.replica_deadline());
    let mut nodes = task.core().peers().others_up();
    nodes.push(task.core().own);
    let answers = task.gather(&nodes, &NodeStats {}, until).await;
    answers.into_iter().filter_map(|(node, answer)| Some((node, answer.ok()?))).collect()
}

fn info_of(entry: CatalogEntry, stats: &BTreeMap<NodeId, NodeStatsReply>) -> Option<CollectionInfo> {
    let CatalogEntry { name, version: _, id, live } = entry;
    let LiveCollection { schema, placement } = live?;
    let nodes: BTreeMap<NodeId, CollectionStats> =
        stats.iter().filter_map(|(node, held)| Some((*node, held.collections.get(&name)?.clone()))).collect();
    let replicas: u64 = nodes.values().map(|stats| stats.points).sum();
    // Each point is counted once for every replica that answered.
    let share = nodes.len() as f64 / placement.len().max(1) as f64;
    let per_point = f64::from(schema.replication_factor.max(1)) * share;
    let points = if nodes.is_empty() { 0 } else { (replicas as f64 / per_point).round() as u64 };
    let mut info = CollectionInfo::new(name, id, schema, placement);
    (info.points, info.nodes) = (points, nodes);
    Some(info)
}

#[cfg(test)]
mod tests {
    use vecino_model::{CollectionId, CollectionSchema, Fsync, Version};

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn holds(points: u64) -> NodeStatsReply {
        let stats = CollectionStats { points, ..CollectionStats::default() };
        let collections = BTreeMap::from([("films".to_owned(), stats)]);
        NodeStatsReply { collections, memory: None, panics: 0, clock: None }
    }

    #[test]
    fn points_are_estimated_from_the_nodes_that_answered() {
        let schema = CollectionSchema { fields: BTreeMap::new(), replication_factor: 2, fsync: Fsync::Always };
        let placement = (1..=4).map(|number| (node(number), vec![u64::from(number)])).collect();
        let live = Some(LiveCollection { schema, placement });
        let entry = CatalogEntry { name: "films".to_owned(), version: Version::ZERO, id: CollectionId([1; 16]), live };
        let told = |stats: &[(u8, u64)]| {
            let stats = stats.iter().map(|(number, points)| (node(*number), holds(*points))).collect();
            info_of(entry.clone(), &stats).unwrap().points
        };
        assert_eq!(told(&[(1, 50), (2, 50), (3, 50), (4, 50)]), 100);
        assert_eq!(told(&[(1, 50), (3, 50)]), 100, "half of the nodes have half of the replicas");
        assert_eq!(told(&[]), 0);
        let dropped = CatalogEntry { live: None, ..entry.clone() };
        assert!(info_of(dropped, &BTreeMap::new()).is_none());
    }
}
