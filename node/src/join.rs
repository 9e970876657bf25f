//! Finding the mesh.
//!
//! Identical nodes with one seed list may start in any order: each asks the seeds for a mesh, and only the first seed
//! of the list starts one, when none of the others has any.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
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
