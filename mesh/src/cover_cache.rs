//! Covers of one ring that were computed before, by the nodes that could be asked. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vecino_model::NodeId;

use crate::ring::{Cover, Ring};

/// Number of orders in which nodes that are equally useful are taken. With several orders, coordinators share the load; with
/// a fixed number of them, every cover is soon known.
pub const TURNS: u8 = 8;

/// Most sets of usable nodes that covers are kept for. Nodes come and go rarely, so there are one or two of importance.
const SETS_MAX: usize = 16;

/// In which order nodes that are equally useful are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Preference {
    /// The node that is taken first.
    pub first: NodeId,
    /// One of the [`TURNS`] orders of the others.
    pub turn: u8,
}

impl Preference {
    /// The rank of a node; lower is taken first.
    pub fn rank(self, node: NodeId) -> u64 {
        if node == self.first {
            return 0;
        }
        let mut low = [0; 8];
        low.copy_from_slice(&node.as_bytes()[..8]);
        // Another permutation of all numbers for each turn (Steele, Lea, Flood 2014: the constant of SplitMix64).
        let salt = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(self.turn));
        (u64::from_le_bytes(low) ^ salt).max(1)
    }
}

/// Covers by how often each range is to be covered, and by which nodes come first.
type CoversByWish = BTreeMap<(usize, Preference), Arc<Cover>>;

/// Covers of one ring at one replication factor. The ring does not change; what may be asked is part of what they are kept
/// under, so a cover is never out of date.
#[derive(Debug, Default)]
pub struct CoverCache {
    by_usable: BTreeMap<BTreeSet<NodeId>, CoversByWish>,
}

impl CoverCache {
    /// The cover that [`Ring::cover`] gives. `ring` and `replication_factor` are the same in every call.
    pub fn cover(
        &mut self,
        ring: &Ring,
        replication_factor: usize,
        times: usize,
        usable: &BTreeSet<NodeId>,
        preference: Preference,
    ) -> Arc<Cover> {
        let known = self.by_usable.get(usable).and_then(|covers| covers.get(&(times, preference)));
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let cover = ring.cover(replication_factor, times, |node| usable.contains(&node), |node| preference.rank(node));
        let cover = Arc::new(cover);
        if self.by_usable.len() >= SETS_MAX && !self.by_usable.contains_key(usable) {
            self.by_usable.clear();
        }
        self.by_usable.entry(usable.clone()).or_default().insert((times, preference), Arc::clone(&cover));
        cover
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vecino_model::Placement;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    proptest! {
        #[test]
        fn a_cover_from_the_cache_is_the_one_that_the_ring_gives(
            tokens in prop::collection::btree_map(0..12u8, prop::collection::vec(any::<u64>(), 1..9), 1..12),
            factor in 1..5usize,
            asked in prop::collection::vec((prop::bits::u16::ANY, 1..4usize, 0..TURNS), 1..60),
        ) {
            let placement: Placement = tokens.into_iter().map(|(number, tokens)| (node(number), tokens)).collect();
            let ring = Ring::new(&placement);
            let mut cache = CoverCache::default();
            // Twice, so that each is asked for again after others came and went.
            for (bits, times, turn) in asked.iter().chain(&asked) {
                let usable: BTreeSet<NodeId> =
                    ring.nodes().filter(|node| bits >> node.as_bytes()[0] & 1 == 1).collect();
                let preference = Preference { first: node(bits.count_ones() as u8 % 12), turn: *turn };
                let expected =
                    ring.cover(factor, *times, |node| usable.contains(&node), |node| preference.rank(node));
                prop_assert_eq!(&*cache.cover(&ring, factor, *times, &usable, preference), &expected);
                prop_assert!(cache.by_usable.len() <= SETS_MAX);
            }
        }
    }

    #[test]
    fn each_turn_takes_nodes_in_an_order_of_its_own_behind_the_first_node() {
        let mut random = fastrand::Rng::with_seed(7);
        let nodes: Vec<NodeId> = (0..4).map(|_| NodeId::from_bytes(random.u128(..).to_be_bytes())).collect();
        let order = |turn| {
            let mut nodes = nodes.clone();
            nodes.sort_by_key(|node| Preference { first: nodes_first(), turn }.rank(*node));
            nodes
        };
        fn nodes_first() -> NodeId {
            NodeId::from_bytes([0; 16])
        }
        let orders: BTreeSet<_> = (0..TURNS).map(order).collect();
        assert!(orders.len() > 1, "all turns take the same order: {nodes:?}");
        let preference = Preference { first: nodes[2], turn: 3 };
        assert_eq!(nodes.iter().min_by_key(|node| preference.rank(**node)), Some(&nodes[2]));
    }
}
