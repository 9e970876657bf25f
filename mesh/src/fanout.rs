//! Which nodes a search still has to ask, as a pure state machine.
//!
//! A search needs a set of nodes that covers every range often enough ([`Ring::cover`]). Where a node fails or is late,
//! others take its place if they can; a late one may still answer in time.

use std::collections::BTreeSet;

use crate::ring::{Cover, Ring};
use vecino_model::NodeId;

/// The state of one fan-out.
#[derive(Clone, Debug)]
pub struct Fanout<'r> {
    ring: &'r Ring,
    replication_factor: usize,
    times: usize,
    up: BTreeSet<NodeId>,
    asked: BTreeSet<NodeId>,
    answered: BTreeSet<NodeId>,
    failed: BTreeSet<NodeId>,
    late: BTreeSet<NodeId>,
    /// The cover that is being asked for; absent after something happened that may ask for another one.
    cover: Option<Cover>,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Ask these nodes.
    Ask(Vec<NodeId>),
    /// Wait for an answer.
    Wait,
    /// Everything that can be covered is.
    Done(Cover),
}

impl<'r> Fanout<'r> {
    /// Covers every range of `ring` by `times` of its replicas, using the nodes that are `up`.
    pub fn new(ring: &'r Ring, replication_factor: usize, times: usize, up: BTreeSet<NodeId>) -> Self {
        Self {
            ring,
            replication_factor,
            times,
            up,
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
            failed: BTreeSet::new(),
            late: BTreeSet::new(),
            cover: None,
        }
    }

    /// Begins with a cover that is known already: one that [`Ring::cover`] gives for the same ring and the nodes that are up.
    pub fn begin_with(&mut self, cover: Cover) {
        self.cover = Some(cover);
    }

    /// A node answered.
    pub fn answered(&mut self, node: NodeId) {
        // It makes its stand-in superfluous.
        if self.late.remove(&node) {
            self.cover = None;
        }
        self.answered.insert(node);
    }

    /// A node failed.
    pub fn failed(&mut self, node: NodeId) {
        self.cover = None;
        self.late.remove(&node);
        self.failed.insert(node);
    }

    /// Time to look for others instead of the nodes that have not answered yet.
    pub fn hedge(&mut self) {
        self.cover = None;
        let silent = |node: &&NodeId| !self.answered.contains(node) && !self.failed.contains(node);
        self.late = self.asked.iter().filter(silent).copied().collect();
    }

    /// What to do now; `preference` orders nodes that are equally useful, lower first.
    pub fn step(&mut self, preference: impl Fn(NodeId) -> u64) -> Step {
        let cover = self.cover.take().unwrap_or_else(|| self.best_cover(preference));
        let ask: Vec<_> = cover.nodes.iter().copied().filter(|node| !self.asked.contains(node)).collect();
        if !ask.is_empty() {
            self.asked.extend(&ask);
            self.cover = Some(cover);
            return Step::Ask(ask);
        }
        if cover.nodes.iter().all(|node| self.answered.contains(node)) {
            return Step::Done(cover);
        }
        self.cover = Some(cover);
        Step::Wait
    }

    fn best_cover(&self, preference: impl Fn(NodeId) -> u64) -> Cover {
        // Nodes that answered cost nothing more, so they come first.
        let preference = |node: NodeId| if self.answered.contains(&node) { 0 } else { preference(node).max(1) };
        let usable = |node: NodeId| self.up.contains(&node) && !self.failed.contains(&node);
        let without_late = self.cover(|node| usable(node) && !self.late.contains(&node), preference);
        // A late node that no other can stand in for is waited for.
        if self.late.is_empty() || without_late.short.is_empty() {
            without_late
        } else {
            self.cover(usable, preference)
        }
    }

    fn cover(&self, usable: impl Fn(NodeId) -> bool, preference: impl Fn(NodeId) -> u64) -> Cover {
        self.ring.cover(self.replication_factor, self.times, usable, preference)
    }
}

#[cfg(test)]
mod tests {
    use vecino_model::Placement;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn three() -> Ring {
        Ring::new(&(1..=3).map(|number| (node(number), vec![u64::from(number) << 60])).collect::<Placement>())
    }

    fn all() -> BTreeSet<NodeId> {
        (1..=3).map(node).collect()
    }

    fn by_number(node: NodeId) -> u64 {
        u64::from(node.as_bytes()[0])
    }

    #[test]
    fn a_failed_node_is_replaced_by_another() {
        let ring = three();
        let mut fanout = Fanout::new(&ring, 3, 2, all());
        assert_eq!(fanout.step(by_number), Step::Ask(vec![node(1), node(2)]));
        assert_eq!(fanout.step(by_number), Step::Wait);
        fanout.failed(node(2));
        assert_eq!(fanout.step(by_number), Step::Ask(vec![node(3)]));
        fanout.answered(node(3));
        assert_eq!(fanout.step(by_number), Step::Wait);
        fanout.answered(node(1));
        let Step::Done(cover) = fanout.step(by_number) else { panic!("both answered") };
        assert!(cover.short.is_empty());
    }

    #[test]
    fn a_late_node_is_hedged_where_another_can_stand_in_and_waited_for_where_none_can() {
        let ring = three();
        let mut fanout = Fanout::new(&ring, 3, 2, all());
        fanout.step(by_number);
        fanout.answered(node(1));
        fanout.hedge();
        assert_eq!(fanout.step(by_number), Step::Ask(vec![node(3)]));
        fanout.failed(node(3));
        assert_eq!(fanout.step(by_number), Step::Wait, "node 2 is late, and there is no other");
        fanout.answered(node(2));
        assert!(matches!(fanout.step(by_number), Step::Done(cover) if cover.short.is_empty()));
    }

    #[test]
    fn a_cover_that_is_known_is_asked_for_until_a_node_fails() {
        let ring = three();
        let mut fanout = Fanout::new(&ring, 3, 2, all());
        fanout.begin_with(ring.cover(3, 2, |_| true, |node| 9 - by_number(node)));
        assert_eq!(fanout.step(by_number), Step::Ask(vec![node(3), node(2)]), "in the order of the known cover");
        fanout.answered(node(3));
        assert_eq!(fanout.step(by_number), Step::Wait);
        fanout.failed(node(2));
        assert_eq!(fanout.step(by_number), Step::Ask(vec![node(1)]));
        fanout.answered(node(1));
        assert!(matches!(fanout.step(by_number), Step::Done(cover) if cover.short.is_empty()));
    }

    #[test]
    fn what_nobody_covers_is_told() {
        let ring = three();
        let mut fanout = Fanout::new(&ring, 1, 1, BTreeSet::from([node(1)]));
        assert_eq!(fanout.step(by_number), Step::Ask(vec![node(1)]));
        fanout.answered(node(1));
        let Step::Done(cover) = fanout.step(by_number) else { panic!("there is nobody else to ask") };
        assert_eq!(cover.short.len(), 2);
        assert!(cover.short.iter().all(|short| short.usable == 0) && cover.covered < 1.0);
    }
}
