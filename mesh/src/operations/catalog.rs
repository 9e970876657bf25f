//! Creating and dropping collections, and letting nodes join.

use std::collections::BTreeMap;

use vecino_model::error::{ErrorCode, Retry, RpcError};
use vecino_model::message::{
    CatalogApply, CollectionInfo, CreateCollection, DescribeCollection, DropCollection, Dropped, Join, JoinReply,
};
use vecino_model::{CatalogEntry, CollectionId, Level, LiveCollection, NodeId, Placement, Version, limits, validate};

use super::collections::describe;
use super::task::Task;
use crate::catalog::NameInUse;
use crate::event::{Caller, Change};
use crate::hlc;
use crate::plants::Plant;

/// Replicas of each point unless the creator says otherwise; fewer in a smaller mesh.
const REPLICATION_FACTOR_DEFAULT: usize = 3;

/// Creates a collection on every node that is up, and describes it.
pub(super) async fn create(task: &Task, request: CreateCollection) -> Result<CollectionInfo, RpcError> {
    let CreateCollection { name, mut schema } = request;
    validate::collection_name(&name).map_err(RpcError::invalid)?;
    validate::schema(&schema).map_err(RpcError::invalid)?;
    task.refresh_catalog().await;
    let core = task.core();
    if core.collections.look(|catalog| catalog.all_named().len()) >= limits::COLLECTIONS_MAX {
        return Err(RpcError::invalid(format_args!("the mesh has {} collections, the limit", limits::COLLECTIONS_MAX)));
    }
    if core.collections.route(&name).is_some() {
        return Err(RpcError::new(ErrorCode::AlreadyExists, NameInUse(name)));
    }
    let placement: Placement = core.peers().up().map(|member| (member.id, member.tokens.clone())).collect();
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
    let needed = majority_up(task, "created")?;
    let id = CollectionId(core.chance().u128(..).to_le_bytes());
    let live = Some(LiveCollection { schema, placement });
    let entry = CatalogEntry { name: name.clone(), version: stamp(task)?, id, live };
    if let Err(error) = create_everywhere(task, &entry, needed).await {
        // Whoever took it drops it again; those that cannot be reached learn of it by gossip.
        let dropped = CatalogEntry { version: stamp(task)?, live: None, ..entry };
        task.persist(Change::Apply(dropped.clone())).await?;
        spread(task, &dropped).await;
        return Err(error);
    }
    describe(task, DescribeCollection { name }).await
}

/// Reserves the name here first, so that this node refuses others, and then on a majority.
async fn create_everywhere(task: &Task, entry: &CatalogEntry, needed: usize) -> Result<(), RpcError> {
    task.persist(Change::Apply(entry.clone())).await?;
    let Spread { taken, failures, .. } = spread(task, entry).await;
    if let Some(error) = failures.values().find(|error| error.code == ErrorCode::AlreadyExists) {
        return Err(error.clone());
    }
    if 1 + taken < needed {
        let known = task.core().peers().known().len();
        let message = format_args!("{} of {known} nodes agreed, {needed} are needed{}", 1 + taken, told(&failures));
        return Err(RpcError::new(ErrorCode::Unavailable, message));
    }
    Ok(())
}

/// Drops a collection on every node that is up; the others follow when they are back. Says how many bytes of files that
/// removed on all that answered.
pub(super) async fn drop_collection(task: &Task, request: DropCollection) -> Result<Dropped, RpcError> {
    let route = task.route(&request.name).await?;
    let needed = majority_up(task, "dropped")?;
    let entry = CatalogEntry { name: route.name.clone(), version: stamp(task)?, id: route.id, live: None };
    // The others first: a node that is cut off must not drop what the others keep.
    let Spread { taken, freed_bytes, failures } = if task.core().plants.has(Plant::DropsAreAcknowledgedEarly) {
        Spread { taken: 1, freed_bytes: 0, failures: BTreeMap::new() }
    } else {
        spread(task, &entry).await
    };
    if taken == 0 && needed > 1 {
        let message = format_args!("no other node agreed to drop collection {:?}{}", route.name, told(&failures));
        return Err(RpcError::new(ErrorCode::Unavailable, message).with_retry(Retry::Unknown));
    }
    Ok(Dropped::new(freed_bytes + task.persist(Change::Apply(entry)).await?))
}

/// Takes an entry that another node spreads.
pub(super) async fn apply(task: &Task, CatalogApply { entry }: CatalogApply) -> Result<Dropped, RpcError> {
    hlc::check_drift(entry.version.time, task.now().wall_ms).map_err(RpcError::invalid)?;
    task.persist(Change::Apply(entry)).await.map(Dropped::new)
}

/// Gives a node that joins its tokens, and what it has to know.
pub(super) fn join(task: &Task, caller: Caller, request: Join) -> Result<JoinReply, RpcError> {
    let Caller::Peer(node) = caller else {
        return Err(RpcError::new(ErrorCode::Forbidden, "only a node can join a mesh"));
    };
    let core = task.core();
    let view = std::sync::Arc::clone(core.peers().view());
    let placement = view.members.values().map(|member| (member.id, member.tokens.clone())).collect();
    let members = view.members.values().map(|member| (member.id, member.address.to_string())).collect();
    let tokens = core.allocator().tokens_for(node, request.tokens, &placement, task.now().time);
    Ok(JoinReply { mesh_id: core.mesh, tokens, members, catalog: core.collections.entries() })
}

fn stamp(task: &Task) -> Result<Version, RpcError> {
    super::stamp::stamp_above(task, Version::ZERO).map_err(RpcError::invalid)
}

/// How many nodes are a majority; fails where fewer are up.
fn majority_up(task: &Task, what: &str) -> Result<usize, RpcError> {
    let peers = task.core().peers();
    let (known, up) = (peers.known().len(), peers.up().count());
    let needed = Level::Quorum.required(known);
    if up < needed {
        let message = format_args!(
            "collections are {what} by a majority of the nodes, and {up} of {known} are up ({needed} are needed): start the \
             others"
        );
        return Err(RpcError::new(ErrorCode::Unavailable, message));
    }
    Ok(needed)
}

/// What came of spreading an entry.
struct Spread {
    /// How many others took it.
    taken: usize,
    /// The bytes of files that they removed for it.
    freed_bytes: u64,
    /// Why the others did not.
    failures: BTreeMap<NodeId, RpcError>,
}

/// Has every other node that is up take an entry over.
async fn spread(task: &Task, entry: &CatalogEntry) -> Spread {
    let others = task.core().peers().others_up();
    let request = CatalogApply { entry: entry.clone() };
    let mut spread = Spread { taken: 0, freed_bytes: 0, failures: BTreeMap::new() };
    for (node, answer) in task.gather(&others, &request, task.replica_deadline()).await {
        match answer {
            Ok(Dropped { freed_bytes, .. }) => {
                spread.taken += 1;
                spread.freed_bytes += freed_bytes;
            }
            Err(error) => _ = spread.failures.insert(node, error),
        }
    }
    spread
}

/// Why nodes did not agree, for the end of a message.
fn told(failures: &BTreeMap<NodeId, RpcError>) -> String {
    let told: Vec<_> = failures.iter().map(|(node, error)| format!("node {}: {error}", node.short())).collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join("; ")) }
}
