//! Who accepts entries.

use std::collections::{BTreeMap, BTreeSet};

use vecino_model::{DiskId, NodeId};

use super::state::{Standing, State};

/// Most acceptors: more would make each choice slower and hardly safer.
pub const ACCEPTORS_MAX: usize = 7;

/// The acceptors that a mesh should have: the largest odd number of members up to [`ACCEPTORS_MAX`], those first that are
/// up, spread over zones, and of equal ones those that accept already, so that nothing changes without need.
pub fn best_acceptors(state: &State, is_up: impl Fn(NodeId) -> bool) -> BTreeMap<NodeId, DiskId> {
    let (_, layout) = state.newest_layout();
    let members = state.members().iter().filter(|(_, member)| member.standing == Standing::Staying);
    let mut left: Vec<(NodeId, DiskId)> = members.map(|(node, member)| (*node, member.disk)).collect();
    let odd = |count: usize| if count.is_multiple_of(2) { count.saturating_sub(1) } else { count };
    let wanted = odd(left.len().min(ACCEPTORS_MAX));
    let zone = |node: &NodeId| layout.nodes.get(node).map(|place| place.zone.as_str()).unwrap_or_default();
    let mut in_zone: BTreeMap<&str, usize> = BTreeMap::new();
    let mut chosen = BTreeMap::new();
    while chosen.len() < wanted {
        let rank = |(node, disk): &(NodeId, DiskId)| {
            let sits = state.acceptors().get(node) == Some(disk);
            (!is_up(*node), in_zone.get(zone(node)).copied().unwrap_or(0), !sits, *node)
        };
        let Some(best) = (0..left.len()).min_by_key(|index| rank(&left[*index])) else { break };
        let (node, disk) = left.swap_remove(best);
        *in_zone.entry(zone(&node)).or_default() += 1;
        chosen.insert(node, disk);
    }
    chosen
}

/// The acceptors that cannot take part: their disk is another one by now, or they are no members any more.
pub fn lost_acceptors(state: &State) -> BTreeSet<NodeId> {
    let sits = |node: &NodeId, disk: &DiskId| state.members().get(node).is_some_and(|member| member.disk == *disk);
    state.acceptors().iter().filter(|(node, disk)| !sits(node, disk)).map(|(node, _)| *node).collect()
}
