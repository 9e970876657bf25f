//! What nodes gossip of themselves, as the texts that chitchat carries. Listed in `docs/wire.md`.

use chitchat::ChitchatId;
use vecino_model::{LOOP_GENERATION_BITS, Member, NodeId, NodeState, Observation};

pub(crate) const TOKENS: &str = "tokens";
pub(crate) const SOFTWARE: &str = "software";
pub(crate) const NAME: &str = "name";
const POINTS: &str = "points";
const BYTES: &str = "bytes";
const CATALOG: &str = "catalog";

/// What this node says of itself and may change.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    pub(crate) points: u64,
    pub(crate) bytes: u64,
    pub(crate) catalog_digest: String,
}

impl Facts {
    /// Keys and values for chitchat.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, String)> {
        let Self { points, bytes, catalog_digest } = self;
        [(POINTS, points.to_string()), (BYTES, bytes.to_string()), (CATALOG, catalog_digest.clone())].into_iter()
    }
}

/// One of chitchat's entries; nothing for an id that is no node's.
pub(crate) fn observation(id: &ChitchatId, state: &chitchat::NodeState) -> Option<(NodeId, Observation)> {
    let node_id: NodeId = id.node_id.parse().ok()?;
    let number = |key| state.get(key).and_then(|value| value.parse().ok()).unwrap_or_default();
    let text = |key| state.get(key).unwrap_or_default().to_owned();
    let member = state.get(TOKENS).and_then(read_tokens).map(|tokens| Member {
        id: node_id,
        address: id.gossip_advertise_addr,
        state: NodeState::Down,
        tokens,
        generation: id.generation_id >> LOOP_GENERATION_BITS,
        name: text(NAME),
        software: text(SOFTWARE),
        points: number(POINTS),
        bytes: number(BYTES),
        catalog_digest: text(CATALOG),
    });
    Some((node_id, Observation { generation: id.generation_id, heartbeat: state.heartbeat().into(), member }))
}

/// Tokens as gossip carries them: hexadecimal, separated by commas.
pub(crate) fn write_tokens(tokens: &[u64]) -> String {
    tokens.iter().map(|token| format!("{token:x}")).collect::<Vec<_>>().join(",")
}

fn read_tokens(text: &str) -> Option<Vec<u64>> {
    text.split(',').map(|token| u64::from_str_radix(token, 16).ok()).collect()
}
