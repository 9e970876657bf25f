//! Creating, dropping, listing and describing collections; snapshots of the whole mesh.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;
use vecino_model::{
    CatalogEntry, CollectionId, CollectionStats, Level, LiveCollection, NodeId, Placement, Version, limits, validate,
};
use vecino_net::error::{ErrorCode, Retry, RpcError};
use vecino_net::message::{
    CatalogApply, CollectionInfo, CreateCollection, DescribeCollection, DropCollection, Dropped, NodeSnapshot,
    NodeStats, NodeStatsReply, SnapshotReport, TakeSnapshot,
};
use vecino_net::rpc::RequestContext;

use super::{Coordinator, replica_deadline};
use crate::blocking::blocking;
use crate::snapshots;
use crate::store::StoreError;
use vecino_engine::DiskFault;

/// Replicas of each point unless the creator says otherwise; fewer in a smaller mesh.
const REPLICATION_FACTOR_DEFAULT: usize = 3;

/// How long nodes are asked for what they hold.
const STATS_TIMEOUT: Duration = Duration::from_secs(2);

impl Coordinator {
    /// Creates a collection on every node that is up.
    pub async fn create_collection(
        &self,
        context: &RequestContext,
        request: CreateCollection,
    ) -> Result<CollectionInfo, RpcError> {
        let deadline = context.deadline;
        let CreateCollection { name, mut schema } = request;
        validate::collection_name(&name).map_err(RpcError::invalid)?;
        validate::schema(&schema).map_err(RpcError::invalid)?;
        self.refresh_catalog().await;
        if self.shared.store.live().len() >= limits::COLLECTIONS_MAX {
            return Err(RpcError::invalid(format_args!(
                "the mesh has {} collections, the limit",
                limits::COLLECTIONS_MAX
            )));
        }
        if self.shared.store.route(&name).is_some() {
            return Err(name_in_use(&name));
        }
        let placement: Placement = self.up().into_iter().map(|member| (member.id, member.tokens)).collect();
        if schema.replication_factor == 0 {
            schema.replication_factor = REPLICATION_FACTOR_DEFAULT.min(placement.len()) as u32;
        }
        if schema.replication_factor as usize > placement.len() {
            return Err(RpcError::invalid(format_args!(
                "{} replicas are asked for, and the mesh has {} nodes up: start more nodes or ask for fewer replicas",
                schema.replication_factor,
                placement.len()
            )));
        }
        let needed = self.majority_up("created")?;
        let entry = CatalogEntry {
            name: name.clone(),
            version: self.stamp()?,
            id: CollectionId(fastrand::u128(..).to_le_bytes()),
            live: Some(LiveCollection { schema: schema.clone(), placement }),
        };
        if let Err(error) = self.create_everywhere(&entry, needed, deadline).await {
            // Whoever took it drops it again; those that cannot be reached learn of it by gossip.
            let dropped = CatalogEntry { version: self.stamp()?, live: None, ..entry };
            self.merge_here(&dropped).await?;
            self.spread(&dropped, deadline).await;
            return Err(error);
        }
        info!(collection = name, id = %entry.id, replicas = schema.replication_factor, "created collection");
        self.describe_collection(context, DescribeCollection { name }).await
    }

    /// Reserves the name here first, so that this node refuses others, and then on a majority.
    async fn create_everywhere(&self, entry: &CatalogEntry, needed: usize, deadline: Instant) -> Result<(), RpcError> {
        self.merge_here(entry).await?;
        let (taken, _, failures) = self.spread(entry, deadline).await;
        if let Some(error) = failures.values().find(|error| error.code == ErrorCode::AlreadyExists) {
            return Err(error.clone());
        }
        if 1 + taken < needed {
            let known = self.known_nodes();
            let message = format_args!("{} of {known} nodes agreed, {needed} are needed{}", 1 + taken, told(&failures));
            return Err(RpcError::new(ErrorCode::Unavailable, message));
        }
        Ok(())
    }

    /// Drops a collection on every node that is up; the others follow when they are back. Says how many bytes of files
    /// that removed on all that answered.
    pub async fn drop_collection(
        &self,
        context: &RequestContext,
        request: DropCollection,
    ) -> Result<Dropped, RpcError> {
        let deadline = context.deadline;
        let route = self.route(&request.name).await?;
        let needed = self.majority_up("dropped")?;
        let entry = CatalogEntry { name: route.name.clone(), version: self.stamp()?, id: route.id, live: None };
        // The others first: a node that is cut off must not drop what the others keep.
        let (taken, freed, failures) = self.spread(&entry, deadline).await;
        if taken == 0 && needed > 1 {
            let message = format_args!("no other node agreed to drop collection {:?}{}", route.name, told(&failures));
            return Err(RpcError::new(ErrorCode::Unavailable, message).with_retry(Retry::Unknown));
        }
        let freed_bytes = freed + self.merge_here(&entry).await?;
        info!(collection = route.name, id = %route.id, freed_bytes, "dropped collection");
        Ok(Dropped::new(freed_bytes))
    }

    fn stamp(&self) -> Result<Version, RpcError> {
        self.shared.store.clock().stamp(Version::ZERO).map_err(RpcError::invalid)
    }

    /// How many nodes are a majority; fails where fewer are up.
    fn majority_up(&self, what: &str) -> Result<usize, RpcError> {
        let (known, up) = (self.known_nodes(), self.up().len());
        let needed = Level::Quorum.required(known);
        if up < needed {
            let message = format_args!(
                "collections are {what} by a majority of the nodes, and {up} of {known} are up ({needed} are needed): \
                 start the others"
            );
            return Err(RpcError::new(ErrorCode::Unavailable, message));
        }
        Ok(needed)
    }

    async fn merge_here(&self, entry: &CatalogEntry) -> Result<u64, RpcError> {
        let (store, own) = (Arc::clone(&self.shared.store), entry.clone());
        blocking(move || store.apply(own)).await?.map_err(to_rpc_error)
    }

    /// Has every other node that is up take an entry over; how many did, the bytes of files that they removed for it, and
    /// why the others did not.
    async fn spread(&self, entry: &CatalogEntry, deadline: Instant) -> (usize, u64, BTreeMap<NodeId, RpcError>) {
        let timeout = replica_deadline(deadline).saturating_duration_since(Instant::now());
        let request = CatalogApply { entry: entry.clone() };
        let answers = self.ask_all(&self.other_members_up(), &request, timeout).await;
        let taken = || answers.values().flatten();
        let (count, freed) = (taken().count(), taken().map(|dropped| dropped.freed_bytes).sum());
        (count, freed, answers.into_iter().filter_map(|(node, answer)| Some((node, answer.err()?))).collect())
    }

    /// Every collection, by name.
    pub async fn list_collections(&self, _context: &RequestContext) -> Result<Vec<CollectionInfo>, RpcError> {
        let stats = self.stats_of_nodes().await;
        Ok(self.shared.store.live().into_iter().filter_map(|entry| info_of(entry, &stats)).collect())
    }

    /// One collection.
    pub async fn describe_collection(
        &self,
        _context: &RequestContext,
        request: DescribeCollection,
    ) -> Result<CollectionInfo, RpcError> {
        let route = self.route(&request.name).await?;
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
            self.route(name).await?;
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

/// Why nodes did not agree, for the end of a message.
fn told(failures: &BTreeMap<NodeId, RpcError>) -> String {
    let told: Vec<_> = failures.iter().map(|(node, error)| format!("node {}: {error}", node.short())).collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join("; ")) }
}

/// A change of the catalog that failed, as its caller is told.
pub fn to_rpc_error(error: StoreError) -> RpcError {
    match error {
        StoreError::NameInUse(error) => RpcError::new(ErrorCode::AlreadyExists, error),
        StoreError::Open { .. } => RpcError::new(ErrorCode::Internal, error).with_retry(Retry::Safe),
        StoreError::File(_) | StoreError::Decode(_) => match DiskFault::of(&error) {
            Some(trouble) => {
                RpcError::new(ErrorCode::Unavailable, format_args!("{trouble} ({error})")).with_retry(Retry::Unknown)
            }
            None => RpcError::new(ErrorCode::Internal, error),
        },
    }
}

fn name_in_use(name: &str) -> RpcError {
    RpcError::new(ErrorCode::AlreadyExists, vecino_mesh::catalog::NameInUse(name.to_owned()))
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
