//! Creating, dropping, listing and describing collections; snapshots of the whole mesh.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;
use vecino_model::{CatalogEntry, CollectionStats, LiveCollection, NodeId};
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::message::{
    CollectionInfo, CreateCollection, DescribeCollection, DropCollection, Dropped, NodeSnapshot, NodeStats,
    NodeStatsReply, SnapshotReport, TakeSnapshot,
};
use vecino_net::rpc::RequestContext;

use super::{Coordinator, replica_deadline};
use crate::snapshots;

/// How long nodes are asked for what they hold.
const STATS_TIMEOUT: Duration = Duration::from_secs(2);

impl Coordinator {
    /// Creates a collection on every node that is up.
    pub async fn create_collection(
        &self,
        context: &RequestContext,
        request: CreateCollection,
    ) -> Result<CollectionInfo, RpcError> {
        let created = self.driver().ask(context, request).await?;
        info!(collection = created.name, id = %created.id, replicas = created.schema.replication_factor, "created collection");
        self.describe_collection(context, DescribeCollection { name: created.name }).await
    }

    /// Drops a collection on every node that is up; the others follow when they are back. Says how many bytes of files
    /// that removed on all that answered.
    pub async fn drop_collection(
        &self,
        context: &RequestContext,
        request: DropCollection,
    ) -> Result<Dropped, RpcError> {
        let name = request.name.clone();
        let dropped = self.driver().ask(context, request).await?;
        info!(collection = name, freed_bytes = dropped.freed_bytes, "dropped collection");
        Ok(dropped)
    }

    /// Every collection, by name.
    pub async fn list_collections(&self, _context: &RequestContext) -> Result<Vec<CollectionInfo>, RpcError> {
        let stats = self.stats_of_nodes().await;
        Ok(self.shared.store.live().into_iter().filter_map(|entry| info_of(entry, &stats)).collect())
    }

    /// One collection.
    pub async fn describe_collection(
        &self,
        context: &RequestContext,
        request: DescribeCollection,
    ) -> Result<CollectionInfo, RpcError> {
        let route = self.route(context, &request.name).await?;
        let stats = self.stats_of_nodes().await;
        let entry = self.shared.store.live().into_iter().find(|entry| entry.id == route.id);
        entry.and_then(|entry| info_of(entry, &stats)).ok_or_else(|| {
            RpcError::new(ErrorCode::NotFound, format_args!("collection {:?} was dropped just now", request.name))
        })
    }

    /// What each node that answers in time holds of each collection.
    pub(super) async fn stats_of_nodes(&self) -> BTreeMap<NodeId, NodeStatsReply> {
        let answers = self.ask_all(&self.other_members_up(), &NodeStats {}, STATS_TIMEOUT).await;
        let others = answers.into_iter().filter_map(|(node, answer)| Some((node, answer.ok()?)));
        others.chain([(self.shared.node_id, self.stats_here())]).collect()
    }

    /// What this node holds of each collection, and what it takes in all.
    pub fn stats_here(&self) -> NodeStatsReply {
        let store = &self.shared.store;
        NodeStatsReply {
            collections: store.stats().into_iter().collect(),
            memory: Some(store.memory()),
            panics: vecino_supervise::panics(),
        }
    }

    /// Takes a snapshot on every node that is up.
    pub async fn take_snapshot(
        &self,
        context: &RequestContext,
        request: TakeSnapshot,
    ) -> Result<Vec<SnapshotReport>, RpcError> {
        let deadline = context.deadline;
        if let Some(name) = &request.collection {
            self.route(context, name).await?;
        }
        let timeout = replica_deadline(deadline).saturating_duration_since(Instant::now());
        let wanted = NodeSnapshot { collection: request.collection };
        let members = self.other_members_up();
        let (own, answers) = tokio::join!(
            snapshots::take(Arc::clone(&self.shared.store), self.shared.node_id, wanted.clone()),
            self.ask_all(&members, &wanted, timeout)
        );
        let mut reports = own?;
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
