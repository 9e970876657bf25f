//! How a joining node chooses its tokens, so that every node owns about the same share of the ring.
//!
//! Random tokens would need hundreds for each node to come within 10 % of even; sixteen suffice when each new one is
//! put where it helps most (Lambov, "New token allocation algorithm in Cassandra 3.0", 2016, has the idea). A joiner
//! takes its share from the nodes that own most, and of theirs from the longest ranges.

use std::collections::BTreeMap;

use vecino_model::{NodeId, Placement};

use crate::ring::Ring;

/// Tokens of one node.
pub const TOKENS_PER_NODE: usize = 16;

/// Low bits of a token that come from the node's id, so that nodes that choose at once never choose the same token.
const ID_BITS: u32 = 20;

/// Plans that are drawn and compared at each joining: at least this many, and more on a small ring, where each costs
/// less and chance weighs more.
const PLANS_MIN: u64 = 200;
const PLANS_MAX: u64 = 2_000;
const PLANS_TIMES_TOKENS: u64 = 100_000;

/// The replication factor that plans are compared at, besides first replicas.
const REPLICAS: usize = 3;

/// Chooses `count` tokens for a node that joins a ring. Deterministic in its arguments. Nodes already on the ring keep
/// their tokens, so what moves is just what the joiner takes.
///
/// Every plan takes an even share of first replicas. Which ranges it is cut from decides how even the shares come out
/// once each range has three replicas, so a number of plans is drawn and the most even one taken.
pub fn choose(placement: &Placement, node: NodeId, count: usize) -> Vec<u64> {
    let ring = Ring::new(placement);
    if ring.is_empty() {
        let step = (u64::MAX / count.max(1) as u64).saturating_add(1);
        return (0..count as u64).map(|i| marked(i.wrapping_mul(step), node)).collect();
    }
    let mut with_joiner = placement.clone();
    let mut seed = [0; 8];
    seed.copy_from_slice(&node.as_bytes()[8..]);
    let plans = (PLANS_TIMES_TOKENS / ring.len() as u64).clamp(PLANS_MIN, PLANS_MAX);
    (0..plans)
        .map(|number| plan(&ring, node, count, u64::from_le_bytes(seed).wrapping_add(number)))
        .map(|tokens| {
            with_joiner.insert(node, tokens.clone());
            let ring = Ring::new(&with_joiner);
            (unevenness(&ring, 1) + unevenness(&ring, REPLICAS), tokens)
        })
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, tokens)| tokens)
        .unwrap_or_default()
}

/// Sum of the squares of how far each node is from even, as a share of even. The sum, not the worst, since a node a
/// little off today is the worst one after the next joining.
fn unevenness(ring: &Ring, replication_factor: usize) -> f64 {
    let even = replication_factor.min(ring.nodes().len()) as f64 / ring.nodes().len() as f64;
    ring.replicated_ownership(replication_factor).values().map(|owned| (owned / even - 1.0).powi(2)).sum()
}

/// One way to cut an even share out of a ring that is not empty.
fn plan(ring: &Ring, node: NodeId, count: usize, seed: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    // Ranges as (begin, length, owner), in ring order.
    let mut ranges: Vec<(u64, u128, NodeId)> = ring
        .tokens()
        .iter()
        .enumerate()
        .map(|(i, (token, owner))| {
            let before = ring.tokens()[(i + ring.len() - 1) % ring.len()].0;
            let length = if ring.len() == 1 { 1u128 << 64 } else { u128::from(token.wrapping_sub(before)) };
            (before, length, *owner)
        })
        .collect();
    let mut owned = BTreeMap::<NodeId, u128>::new();
    for (_, length, owner) in &ranges {
        *owned.entry(*owner).or_default() += length;
    }
    let share = (1u128 << 64) / (ring.nodes().len() as u128 + 1);
    let mut chosen = Vec::with_capacity(count);
    let mut taken = 0u128;
    for left in (1..=count as u128).rev() {
        let Some(donor) = owned.iter().max_by_key(|(_, owned)| **owned).map(|(donor, _)| *donor) else { break };
        // What is still missing, spread over the tokens still to be chosen; a range gives at most nine tenths of itself.
        let wanted = share.saturating_sub(taken) / left;
        let of_donor: Vec<usize> = (0..ranges.len()).filter(|i| ranges[*i].2 == donor).collect();
        let long: Vec<usize> = of_donor.iter().copied().filter(|i| ranges[*i].1 * 9 / 10 > wanted).collect();
        let cut = random.choice(&long).or_else(|| of_donor.iter().max_by_key(|i| ranges[**i].1));
        let Some(cut) = cut.copied() else { break };
        let (begin, length, _) = ranges[cut];
        let take = wanted.clamp(1 << ID_BITS, (length * 9 / 10).max(1 << ID_BITS));
        let token = marked(begin.wrapping_add(take as u64), node);
        ranges[cut] = (token, length.saturating_sub(take), donor);
        owned.entry(donor).and_modify(|owned| *owned = owned.saturating_sub(take));
        taken += take;
        chosen.push(token);
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// Puts bits of the node's id into the low bits of a token.
fn marked(token: u64, node: NodeId) -> u64 {
    let mut id = [0; 8];
    id.copy_from_slice(&node.as_bytes()[..8]);
    token >> ID_BITS << ID_BITS | u64::from_le_bytes(id) >> (64 - ID_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(mesh: u64, number: u64) -> NodeId {
        let hash = blake3::hash(&[mesh.to_le_bytes(), number.to_le_bytes()].concat());
        NodeId::from_bytes(std::array::from_fn(|byte| hash.as_bytes()[byte]))
    }

    /// How far the node that is farthest from even is from it, as a share of even.
    fn imbalance(ring: &Ring, replication_factor: usize) -> f64 {
        let even = replication_factor as f64 / ring.nodes().len() as f64;
        let owned = ring.replicated_ownership(replication_factor);
        owned.values().map(|owned| (owned / even - 1.0).abs()).fold(0.0, f64::max)
    }

    /// Calls `check` with the placements before and after each of fifty joinings, for a few sets of node ids.
    fn grow(check: impl Fn(u64, NodeId, &Placement, &Placement)) {
        for mesh in 0..3 {
            let mut placement = Placement::new();
            for joined in 1..=50 {
                let before = placement.clone();
                let joiner = node(mesh, joined);
                placement.insert(joiner, choose(&before, joiner, TOKENS_PER_NODE));
                check(joined, joiner, &before, &placement);
            }
        }
    }

    #[test]
    fn ownership_stays_within_ten_percent_of_even_from_3_to_50_nodes() {
        grow(|joined, joiner, _, after| {
            let ring = Ring::new(after);
            assert_eq!(after[&joiner].len(), TOKENS_PER_NODE);
            assert_eq!(ring.len() as u64, joined * TOKENS_PER_NODE as u64, "no token was chosen twice");
            if joined >= 3 {
                for factor in [1, REPLICAS] {
                    let imbalance = imbalance(&ring, factor);
                    println!("{joined} nodes, {factor} replicas: {:.1} % off", imbalance * 100.0);
                    assert!(imbalance <= 0.10, "{joined} nodes, {factor} replicas: {:.1} % off", imbalance * 100.0);
                }
            }
        });
    }

    #[test]
    fn one_node_joining_moves_only_its_share_and_only_to_itself() {
        grow(|joined, joiner, before, after| {
            if before.is_empty() {
                return;
            }
            let (before, after) = (Ring::new(before), Ring::new(after));
            let moved = after.ownership()[&joiner];
            assert!(moved <= 1.05 / joined as f64, "{joined} nodes: {moved} moved");
            // A range that did not go to the joiner stayed where it was, all over the ring.
            for step in 0..4096u64 {
                let position = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let (old, new) = (before.replicas(position, 1), after.replicas(position, 1));
                assert!(new == old || new == [joiner]);
            }
        });
    }

    #[test]
    fn nodes_that_choose_at_once_do_not_collide() {
        let placement = Placement::from([(node(0, 1), choose(&Placement::new(), node(0, 1), TOKENS_PER_NODE))]);
        let (two, three) = (node(0, 2), node(0, 3));
        let tokens = [choose(&placement, two, TOKENS_PER_NODE), choose(&placement, three, TOKENS_PER_NODE)].concat();
        let distinct: std::collections::BTreeSet<_> = tokens.iter().collect();
        assert_eq!(distinct.len(), 2 * TOKENS_PER_NODE);
    }
}
