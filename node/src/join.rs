//! Finding the mesh, and giving tokens to nodes that join.
//!
//! Identical nodes with one seed list may start in any order: each asks the seeds for a mesh, and only the first seed
//! of the list starts one, when none of the others has any.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};
use vecino_mesh::tokens;
use vecino_model::{CatalogEntry, MeshId, NodeId, Placement};
use vecino_net::endpoint::Endpoint;
use vecino_net::error::{ErrorCode, Retry};
use vecino_net::message::{Join, JoinReply};

/// How long one seed may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause between rounds over the seeds.
const ASK_EVERY: Duration = Duration::from_millis(300);
/// How long the first seed looks for a mesh before it starts one.
const START_AFTER: Duration = Duration::from_secs(2);
/// How often a node that finds no mesh says so.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// How long tokens stay promised to a node that asked for them and has not gossiped them yet.
const PROMISE: Duration = Duration::from_secs(60);

/// What a node has once it belongs to a mesh.
pub struct Joined {
    /// The mesh.
    pub mesh_id: MeshId,
    /// Its tokens.
    pub tokens: Vec<u64>,
    /// Addresses of the members.
    pub peers: BTreeMap<NodeId, String>,
    /// The collections of the mesh.
    pub catalog: Vec<CatalogEntry>,
}

/// Looks for a mesh at the seeds until it finds one, or starts one where that is this node's part.
pub async fn find(
    endpoint: &Endpoint,
    node_id: NodeId,
    advertise: SocketAddr,
    seeds: &[String],
    own: &[u64],
) -> Joined {
    if seeds.is_empty() {
        return start_mesh(node_id, own);
    }
    let began = Instant::now();
    let mut said = None::<Instant>;
    let mut refusals = BTreeSet::new();
    loop {
        let mut reasons = Vec::new();
        let mut is_first = false;
        for (number, seed) in seeds.iter().enumerate() {
            let addresses: Vec<SocketAddr> = match tokio::net::lookup_host(seed).await {
                Ok(addresses) => addresses.collect(),
                Err(error) => {
                    reasons.push(format!("{seed}: {error}"));
                    continue;
                }
            };
            is_first |= number == 0 && addresses.contains(&advertise);
            for address in addresses.into_iter().filter(|address| *address != advertise) {
                match endpoint.call(address, None, &Join { tokens: own.to_vec() }, ASK_TIMEOUT).await {
                    Ok(JoinReply { mesh_id, tokens, members, catalog }) => {
                        info!(mesh = %mesh_id, seed, members = members.len(), "joined the mesh");
                        return Joined { mesh_id, tokens, peers: members, catalog };
                    }
                    // One side refuses the other, mostly for its certificate: asking on does not mend that, and the
                    // operator is told once and not every few seconds.
                    Err(error) if error.code == ErrorCode::Connection && error.retry == Retry::No => {
                        if refusals.insert(address) {
                            // The dialler has logged the reason.
                            warn!(seed, "this node cannot join through this seed until that refusal is mended");
                        }
                    }
                    Err(error) => reasons.push(format!("{seed}: {error}")),
                }
            }
        }
        if is_first && began.elapsed() >= START_AFTER {
            return start_mesh(node_id, own);
        }
        if !reasons.is_empty() && said.is_none_or(|said| said.elapsed() >= SAY_EVERY) && began.elapsed() >= START_AFTER
        {
            warn!(reasons = reasons.join("; "), "no seed has a mesh to join yet; asking on");
            said = Some(Instant::now());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn start_mesh(node_id: NodeId, own: &[u64]) -> Joined {
    let mesh_id = MeshId(fastrand::u128(..).to_le_bytes());
    info!(mesh = %mesh_id, "started a new mesh");
    let tokens =
        if own.is_empty() { tokens::choose(&Placement::new(), node_id, tokens::TOKENS_PER_NODE) } else { own.to_vec() };
    Joined { mesh_id, tokens, peers: BTreeMap::new(), catalog: Vec::new() }
}

/// Gives tokens to nodes that join through this one.
#[derive(Default)]
pub struct TokenAllocator {
    promised: Mutex<BTreeMap<NodeId, (Vec<u64>, Instant)>>,
}

impl TokenAllocator {
    /// Tokens for a node that joins: those it has, those it was promised, or new ones that suit the ring best.
    pub fn tokens_for(&self, node: NodeId, own: Vec<u64>, members: &Placement, now: Instant) -> Vec<u64> {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        promised.retain(|_, (_, since)| now.duration_since(*since) < PROMISE);
        if !own.is_empty() {
            return own;
        }
        if let Some(tokens) = members.get(&node) {
            return tokens.clone();
        }
        if let Some((tokens, _)) = promised.get(&node) {
            return tokens.clone();
        }
        let mut placement = members.clone();
        placement.extend(promised.iter().map(|(node, (tokens, _))| (*node, tokens.clone())));
        let tokens = tokens::choose(&placement, node, tokens::TOKENS_PER_NODE);
        promised.insert(node, (tokens.clone(), now));
        tokens
    }
}

#[cfg(test)]
mod tests {
    use vecino_mesh::ring::Ring;

    use super::*;

    fn node(number: u64) -> NodeId {
        let hash = blake3::hash(&number.to_le_bytes());
        NodeId::from_bytes(std::array::from_fn(|byte| hash.as_bytes()[byte]))
    }

    #[test]
    fn nodes_that_join_at_once_through_one_share_the_ring_evenly() {
        let allocator = TokenAllocator::default();
        let now = Instant::now();
        let mut placement = Placement::from([(node(0), tokens::choose(&Placement::new(), node(0), 16))]);
        // None of them is gossiped yet when the next one asks.
        let joined: Vec<_> = (1..5)
            .map(|number| (node(number), allocator.tokens_for(node(number), Vec::new(), &placement, now)))
            .collect();
        assert_eq!(
            allocator.tokens_for(node(2), Vec::new(), &placement, now),
            joined[1].1,
            "asking again gives the same"
        );
        placement.extend(joined);
        for owned in Ring::new(&placement).ownership().values() {
            assert!((owned * 5.0 - 1.0).abs() < 0.1, "{owned}");
        }
        assert_eq!(allocator.tokens_for(node(9), vec![7], &placement, now), [7], "a node keeps what it has");
    }

    #[test]
    fn a_promise_that_is_not_taken_up_ends() {
        let allocator = TokenAllocator::default();
        let now = Instant::now();
        let placement = Placement::from([(node(0), tokens::choose(&Placement::new(), node(0), 16))]);
        allocator.tokens_for(node(1), Vec::new(), &placement, now);
        let alone = allocator.tokens_for(node(2), Vec::new(), &placement, now + PROMISE);
        assert_eq!(alone, tokens::choose(&placement, node(2), 16));
    }
}
