//! The ring: which nodes keep which points.
//!
//! A token is a `u64`; the range of a token reaches from just after the token before it up to and with the token
//! itself. A point lies at the first eight bytes of `blake3(collection id, point id)`, and its replicas are the first
//! `replication_factor` distinct nodes from there on clockwise (Karger et al., "Consistent Hashing and Random Trees",
//! 1997; DeCandia et al., "Dynamo", 2007). Pure: the ring knows nothing of liveness, addresses or clocks. How a
//! joining node chooses its tokens is in [`crate::tokens`].

use std::collections::{BTreeMap, BTreeSet};

use vecino_model::{NodeId, Placement, RangeInfo};

/// Length of the whole ring.
const RING: f64 = 18_446_744_073_709_551_616.0;

/// An immutable ring of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Sorted by token; where two nodes hold the same token, the lower node id stands.
    tokens: Vec<(u64, NodeId)>,
    /// Distinct nodes on the ring.
    nodes: BTreeSet<NodeId>,
}

impl Ring {
    /// A ring of these nodes. A node without tokens owns nothing.
    pub fn new(placement: &Placement) -> Self {
        let mut tokens: Vec<(u64, NodeId)> =
            placement.iter().flat_map(|(node, tokens)| tokens.iter().map(|token| (*token, *node))).collect();
        tokens.sort_unstable();
        tokens.dedup_by_key(|(token, _)| *token);
        let nodes = tokens.iter().map(|(_, node)| *node).collect();
        Self { tokens, nodes }
    }

    /// The nodes that own something.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeId> + '_ {
        self.nodes.iter().copied()
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether no node owns a range.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Index of the range that a position lies in.
    ///
    /// # Panics
    /// On an empty ring.
    pub fn range_of(&self, position: u64) -> usize {
        assert!(!self.tokens.is_empty(), "an empty ring has no ranges");
        self.tokens.partition_point(|(token, _)| *token < position) % self.tokens.len()
    }

    /// The replicas of a range, first one first: `replication_factor` distinct nodes, or all where there are fewer.
    pub fn replicas_of_range(&self, range: usize, replication_factor: usize) -> Vec<NodeId> {
        let wanted = replication_factor.min(self.nodes.len());
        let mut replicas = Vec::with_capacity(wanted);
        for step in 0..self.tokens.len() {
            if replicas.len() == wanted {
                break;
            }
            let (_, node) = self.tokens[(range + step) % self.tokens.len()];
            if !replicas.contains(&node) {
                replicas.push(node);
            }
        }
        replicas
    }

    /// The replicas of the point at a position.
    pub fn replicas(&self, position: u64, replication_factor: usize) -> Vec<NodeId> {
        if self.is_empty() { Vec::new() } else { self.replicas_of_range(self.range_of(position), replication_factor) }
    }

    /// Every range with its replicas, in token order.
    pub fn ranges(&self, replication_factor: usize) -> Vec<RangeInfo> {
        (0..self.tokens.len())
            .map(|range| {
                let before = self.tokens[(range + self.tokens.len() - 1) % self.tokens.len()].0;
                RangeInfo {
                    start: before.wrapping_add(1),
                    end: self.tokens[range].0,
                    replicas: self.replicas_of_range(range, replication_factor),
                }
            })
            .collect()
    }

    /// Share of the ring that each node owns as first replica; the shares add up to one.
    pub fn ownership(&self) -> BTreeMap<NodeId, f64> {
        self.replicated_ownership(1)
    }

    /// Share of the ring that each node keeps at a replication factor; the shares add up to it.
    pub fn replicated_ownership(&self, replication_factor: usize) -> BTreeMap<NodeId, f64> {
        let mut owned: BTreeMap<NodeId, f64> = self.nodes.iter().map(|node| (*node, 0.0)).collect();
        for range in 0..self.tokens.len() {
            let share = self.range_length(range) / RING;
            for node in self.replicas_of_range(range, replication_factor) {
                *owned.entry(node).or_default() += share;
            }
        }
        owned
    }

    /// Length of a range; that of the only one is the whole ring.
    fn range_length(&self, range: usize) -> f64 {
        if self.tokens.len() == 1 {
            return RING;
        }
        let before = self.tokens[(range + self.tokens.len() - 1) % self.tokens.len()].0;
        self.tokens[range].0.wrapping_sub(before) as f64
    }

    /// Its tokens in order, each with its owner.
    pub(crate) fn tokens(&self) -> &[(u64, NodeId)] {
        &self.tokens
    }

    /// Which nodes to ask so that every range is covered by `times` of the nodes that are `usable`.
    ///
    /// Greedy set cover: the node that covers most of what is still open is taken first, equals by the order that
    /// `preference` gives (lower first), so that different coordinators spread load. A range with fewer usable replicas
    /// than `times` is asked of those it has, reported, and does not count as covered.
    pub fn cover(
        &self,
        replication_factor: usize,
        times: usize,
        usable: impl Fn(NodeId) -> bool,
        preference: impl Fn(NodeId) -> u64,
    ) -> Cover {
        let mut open: Vec<(usize, Vec<NodeId>)> = Vec::with_capacity(self.tokens.len());
        let mut cover = Cover { nodes: Vec::new(), short: Vec::new(), covered: 0.0 };
        for (range, info) in self.ranges(replication_factor).into_iter().enumerate() {
            let replicas: Vec<NodeId> = info.replicas.iter().copied().filter(|node| usable(*node)).collect();
            let wanted = times.min(info.replicas.len());
            let asked = wanted.min(replicas.len());
            if replicas.len() < wanted {
                cover.short.push(ShortRange { usable: replicas.len(), wanted, range: info });
            } else {
                cover.covered += self.range_length(range) / RING;
            }
            if asked > 0 {
                open.push((asked, replicas));
            }
        }
        // The shares of all ranges need not add up to exactly 1.
        if cover.short.is_empty() && !self.is_empty() {
            cover.covered = 1.0;
        }
        while !open.is_empty() {
            let mut gain: BTreeMap<NodeId, usize> = BTreeMap::new();
            for node in open.iter().flat_map(|(_, replicas)| replicas) {
                *gain.entry(*node).or_default() += 1;
            }
            let best = gain
                .into_iter()
                .max_by_key(|(node, ranges)| (*ranges, std::cmp::Reverse(preference(*node))))
                .map(|(node, _)| node)
                .expect("every open range has a usable replica that was not taken yet");
            cover.nodes.push(best);
            open.retain_mut(|(wanted, replicas)| {
                let before = replicas.len();
                replicas.retain(|node| *node != best);
                *wanted -= before - replicas.len();
                *wanted > 0
            });
        }
        cover
    }
}

/// A set of nodes to ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Cover {
    /// The nodes, most useful first.
    pub nodes: Vec<NodeId>,
    /// Ranges with fewer usable replicas than were asked for.
    pub short: Vec<ShortRange>,
    /// Share of the ring with at least one usable replica, 0 to 1.
    pub covered: f64,
}

/// A range with fewer usable replicas than were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortRange {
    /// The range and all its replicas.
    pub range: RangeInfo,
    /// Replicas that can be asked.
    pub usable: usize,
    /// Replicas that were to be asked.
    pub wanted: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vecino_model::{CollectionId, position};

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn placements() -> impl Strategy<Value = Placement> {
        prop::collection::btree_map((1..40u8).prop_map(node), prop::collection::vec(any::<u64>(), 1..17), 1..20)
    }

    #[test]
    fn a_small_ring_by_hand() {
        let ring = Ring::new(&Placement::from([(node(1), vec![10, 30]), (node(2), vec![20]), (node(3), vec![40])]));
        assert_eq!(ring.replicas(10, 2), [node(1), node(2)], "a token belongs to its own range");
        assert_eq!(ring.replicas(11, 2), [node(2), node(1)]);
        assert_eq!(ring.replicas(41, 3), [node(1), node(2), node(3)], "past the last token comes the first");
        assert_eq!(ring.replicas(31, 9), [node(3), node(1), node(2)], "never more replicas than nodes");
        assert_eq!(ring.ranges(1)[0], RangeInfo { start: 41, end: 10, replicas: vec![node(1)] });
        assert_eq!(ring.ownership()[&node(2)], 10.0 / RING);
    }

    #[test]
    fn a_number_and_its_text_lie_apart() {
        let collection = CollectionId([7; 16]);
        assert_ne!(position(collection, &7u64.into()), position(collection, &"7".into()));
        assert_ne!(position(collection, &7u64.into()), position(CollectionId([8; 16]), &7u64.into()));
    }

    #[test]
    fn what_is_covered_in_full_is_covered_by_exactly_one() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..100 {
            let placement = (1..=3).map(|n| (node(n), (0..16).map(|_| random.u64(..)).collect())).collect();
            let ring = Ring::new(&placement);
            assert_eq!(ring.cover(3, 2, |_| true, |_| 0).covered, 1.0);
            assert_eq!(ring.cover(3, 2, |_| false, |_| 0).covered, 0.0);
        }
    }

    #[test]
    fn a_cover_of_three_nodes_that_keep_everything_is_one_node_or_two() {
        let ring = Ring::new(&(1..=3).map(|n| (node(n), vec![u64::from(n) << 60])).collect());
        assert_eq!(ring.cover(3, 1, |_| true, |n| u64::from(n != node(2))).nodes, [node(2)], "preferred among equals");
        assert_eq!(ring.cover(3, 2, |_| true, |_| 0).nodes.len(), 2);
        let without_two = ring.cover(3, 2, |n| n != node(2), |_| 0);
        assert_eq!((without_two.nodes.len(), without_two.short.len(), without_two.covered), (2, 0, 1.0));
        let alone = ring.cover(3, 2, |n| n == node(1), |_| 0);
        assert_eq!((alone.nodes.len(), alone.short.len()), (1, 3), "one of three is no majority of any range");
    }

    proptest! {
        #[test]
        fn every_position_has_its_distinct_replicas(
            placement in placements(), position in any::<u64>(), factor in 1..6usize
        ) {
            let ring = Ring::new(&placement);
            let replicas = ring.replicas(position, factor);
            let distinct: BTreeSet<_> = replicas.iter().collect();
            prop_assert_eq!(replicas.len(), factor.min(ring.nodes().len()));
            prop_assert_eq!(distinct.len(), replicas.len());
            let range = &ring.ranges(factor)[ring.range_of(position)];
            prop_assert!(position.wrapping_sub(range.start) <= range.end.wrapping_sub(range.start) || ring.len() == 1);
            prop_assert_eq!(&range.replicas, &replicas);
        }

        #[test]
        fn ownership_adds_up(placement in placements(), factor in 1..4usize) {
            let ring = Ring::new(&placement);
            let sum: f64 = ring.replicated_ownership(factor).values().sum();
            prop_assert!((sum - factor.min(ring.nodes().len()) as f64).abs() < 1e-6, "{}", sum);
        }

        #[test]
        fn a_cover_asks_enough_replicas_of_every_range(
            placement in placements(), factor in 1..5usize, times in 1..4usize, down in any::<u64>()
        ) {
            let ring = Ring::new(&placement);
            let usable = |node: NodeId| down >> (node.as_bytes()[0] % 64) & 1 == 0;
            let cover = ring.cover(factor, times, usable, |_| 0);
            for range in ring.ranges(factor) {
                let asked = range.replicas.iter().filter(|node| cover.nodes.contains(node)).count();
                let live = range.replicas.iter().filter(|node| usable(**node)).count();
                let wanted = times.min(range.replicas.len());
                prop_assert!(asked >= wanted.min(live));
                prop_assert_eq!(live < wanted, cover.short.iter().any(|short| short.range == range));
            }
            prop_assert!(cover.nodes.iter().all(|node| usable(*node)));
        }
    }
}
