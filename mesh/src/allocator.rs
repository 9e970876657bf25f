//! Giving tokens to nodes that join.

use std::collections::BTreeMap;
use std::time::Duration;

use vecino_model::{NodeId, Placement};

use crate::time::Time;
use crate::tokens;

/// How long tokens stay promised to a node that asked for them and has not gossiped them yet.
const PROMISE: Duration = Duration::from_secs(60);

/// Remembers what it gave, so that nodes that join at once through one node share the ring evenly.
#[derive(Debug, Default)]
pub struct TokenAllocator {
    promised: BTreeMap<NodeId, (Vec<u64>, Time)>,
}

impl TokenAllocator {
    /// Tokens for a node that joins: those it has, those it was promised, or new ones that suit the ring best.
    pub fn tokens_for(&mut self, node: NodeId, own: Vec<u64>, members: &Placement, now: Time) -> Vec<u64> {
        self.promised.retain(|_, (_, since)| now.since(*since) < PROMISE);
        if !own.is_empty() {
            return own;
        }
        if let Some(tokens) = members.get(&node) {
            return tokens.clone();
        }
        if let Some((tokens, _)) = self.promised.get(&node) {
            return tokens.clone();
        }
        let mut placement = members.clone();
        placement.extend(self.promised.iter().map(|(node, (tokens, _))| (*node, tokens.clone())));
        let tokens = tokens::choose(&placement, node, tokens::TOKENS_PER_NODE);
        self.promised.insert(node, (tokens.clone(), now));
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Ring;

    fn node(number: u64) -> NodeId {
        let hash = blake3::hash(&number.to_le_bytes());
        NodeId::from_bytes(std::array::from_fn(|byte| hash.as_bytes()[byte]))
    }

    #[test]
    fn nodes_that_join_at_once_through_one_share_the_ring_evenly() {
        let mut allocator = TokenAllocator::default();
        let now = Time::default();
        let mut placement = Placement::from([(node(0), tokens::choose(&Placement::new(), node(0), 16))]);
        // None of them is gossiped yet when the next one asks.
        let joined: Vec<_> = (1..5)
            .map(|number| (node(number), allocator.tokens_for(node(number), Vec::new(), &placement, now)))
            .collect();
        let again = allocator.tokens_for(node(2), Vec::new(), &placement, now);
        assert_eq!(again, joined[1].1, "asking again gives the same");
        placement.extend(joined);
        for owned in Ring::new(&placement).ownership().values() {
            assert!((owned * 5.0 - 1.0).abs() < 0.1, "{owned}");
        }
        assert_eq!(allocator.tokens_for(node(9), vec![7], &placement, now), [7], "a node keeps what it has");
    }

    #[test]
    fn a_promise_that_is_not_taken_up_ends() {
        let mut allocator = TokenAllocator::default();
        let now = Time::default();
        let placement = Placement::from([(node(0), tokens::choose(&Placement::new(), node(0), 16))]);
        allocator.tokens_for(node(1), Vec::new(), &placement, now);
        let alone = allocator.tokens_for(node(2), Vec::new(), &placement, now + PROMISE);
        assert_eq!(alone, tokens::choose(&placement, node(2), 16));
    }
}
