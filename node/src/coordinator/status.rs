//! Status of the mesh and of its ring, as this node sees them.

use std::collections::BTreeMap;

use vecino_mesh::ring::Ring;
use vecino_model::{CollectionStats, LiveCollection, Member, NodeId, NodeState, Placement};
use vecino_net::error::RpcError;
use vecino_net::message::{NodeStatsReply, NodeStatus, RingInfo, RingReply, StatusReply};
use vecino_net::rpc::RequestContext;

use super::Coordinator;

impl Coordinator {
    /// Every known node.
    pub async fn status(&self, _context: &RequestContext) -> Result<StatusReply, RpcError> {
        let mut stats = self.stats_of_nodes().await;
        let view = self.view();
        let owns = self.ring_of_members().ownership();
        let mut nodes: Vec<NodeStatus> = view
            .members
            .values()
            .map(|member| {
                let Member { id, address, state, points, name, software, .. } = member;
                let told = stats.remove(id);
                let panics = told.as_ref().map(|told| told.panics);
                let (collections, memory) =
                    told.map(|NodeStatsReply { collections, memory, panics: _ }| (collections, memory)).unzip();
                let counted = |held: &BTreeMap<String, CollectionStats>| held.values().map(|held| held.points).sum();
                let mut status = NodeStatus::new(*id, address.to_string(), *state);
                status.points = Some(collections.as_ref().map_or(*points, counted));
                status.owns = owns.get(id).copied().unwrap_or(0.0);
                (status.name, status.software) = (name.clone(), software.clone());
                (status.memory, status.panics) = (memory.flatten(), panics);
                status.collections = collections.unwrap_or_default();
                status
            })
            .collect();
        // Gossip forgets a node that was away for long; a collection that it keeps does not.
        let forgotten = |node: &NodeId| !view.members.contains_key(node);
        for id in self.placed_nodes().keys().filter(|node| forgotten(node)) {
            nodes.push(NodeStatus::new(*id, String::new(), NodeState::Down));
        }
        nodes.sort_by(|a, b| (&a.address, a.id).cmp(&(&b.address, b.id)));
        Ok(StatusReply::new(self.shared.mesh_id, self.shared.node_id, nodes))
    }

    /// Every range with its replicas.
    pub async fn ring(&self, context: &RequestContext, request: RingInfo) -> Result<RingReply, RpcError> {
        let (ring, replication_factor) = match request.collection {
            Some(name) => {
                let route = self.route(context, &name).await?;
                (route.ring.clone(), route.replication_factor())
            }
            None => (self.ring_of_members(), 1),
        };
        Ok(RingReply::new(ring.ranges(replication_factor), ring.ownership(), replication_factor as u32))
    }

    fn ring_of_members(&self) -> Ring {
        Ring::new(&self.view().members.values().map(|member| (member.id, member.tokens.clone())).collect())
    }

    /// Nodes that some collection is placed on.
    fn placed_nodes(&self) -> Placement {
        let live = self.shared.store.live().into_iter().filter_map(|entry| entry.live);
        live.flat_map(|LiveCollection { schema: _, placement }| placement).collect()
    }
}
