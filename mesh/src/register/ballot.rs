//! The numbers of attempts.

use vecino_model::NodeId;

/// Most rounds: one a microsecond gets there in more than a hundred thousand years. What claims to be beyond is damaged.
pub const ROUNDS_MAX: u64 = 1 << 62;

/// The number of one attempt of one node to have a register decide. No two attempts have the same: rounds of one node differ,
/// and of two nodes the id decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Rises with each attempt.
    pub round: u64,
    /// Whose attempt it is.
    pub node: NodeId,
}

impl Ballot {
    /// The next ballot of a node that has seen this one, or none.
    pub fn above(seen: Option<Self>, node: NodeId) -> Self {
        Self { round: seen.map_or(0, |seen| seen.round) + 1, node }
    }
}
