//! What a node knows of the others: who is up, how quick they are, who is silent, and what is on its way to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use vecino_model::{Member, NodeId, NodeState, View};

use crate::time::Time;

/// How long a node gossips before it takes a silent member for one that is down.
const SETTLING: Duration = Duration::from_secs(3);
/// A node that has not answered within this multiple of its usual time is late, and another is asked beside it.
const LATE_FACTOR: u32 = 3;
/// No node is late before this.
pub const LATE_MIN: Duration = Duration::from_millis(20);
/// Every node is late after this.
pub const LATE_MAX: Duration = Duration::from_millis(200);
/// Requests that other nodes must answer for each that is sent to a second one beside a late one: where all are late, since
/// there is too much to do, twice as much to do would not help.
const ANSWERS_PER_HEDGE: u32 = 10;
/// Most requests to second nodes at once, after a long time without any.
const HEDGES_MAX: u32 = 256;
/// Most bytes of records on their way to one replica. A replica that takes them more slowly than they come misses some,
/// which are kept as hints, instead of filling this node's memory.
const WRITING_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Kinds of requests that take times of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Versions and records of points.
    Read,
    /// Records to apply.
    Write,
    /// A search of an index.
    Search,
    /// Everything else.
    Other,
}

/// The other nodes as one of them sees them.
#[derive(Debug)]
pub struct Peers {
    own: NodeId,
    view: Arc<View>,
    /// Where nodes were when they were last heard of, in this life or before it. Gossip forgets members that were away for
    /// long; they still belong to the mesh, and their addresses are worth a try.
    remembered: BTreeMap<NodeId, SocketAddr>,
    settled_at: Time,
    /// Nodes that were up at some time in this life.
    seen_up: BTreeSet<NodeId>,
    usual: BTreeMap<(NodeId, Pace), Duration>,
    silent: BTreeSet<NodeId>,
    /// Answers that pay for requests to second nodes.
    credit: u32,
    writing: BTreeMap<NodeId, usize>,
}

impl Peers {
    /// Of a node that starts now.
    pub fn new(own: NodeId, remembered: BTreeMap<NodeId, SocketAddr>, now: Time) -> Self {
        Self {
            own,
            view: Arc::default(),
            remembered,
            settled_at: now + SETTLING,
            seen_up: BTreeSet::new(),
            usual: BTreeMap::new(),
            silent: BTreeSet::new(),
            credit: HEDGES_MAX * ANSWERS_PER_HEDGE,
            writing: BTreeMap::new(),
        }
    }

    /// Takes over who is in the mesh.
    pub fn set_view(&mut self, view: Arc<View>) {
        let others = view.members.values().filter(|member| member.id != self.own);
        self.remembered.extend(others.map(|member| (member.id, member.address)));
        let up = view.members.values().filter(|member| member.state == NodeState::Up);
        self.seen_up.extend(up.map(|member| member.id));
        self.view = view;
    }

    /// Where the other nodes were when they were last heard of: what a node has to remember over a restart.
    pub fn remembered(&self) -> &BTreeMap<NodeId, SocketAddr> {
        &self.remembered
    }

    /// Who is in the mesh.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Where a node is reached.
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        let gossiped = self.view.members.get(&node).map(|member| member.address);
        gossiped.or_else(|| self.remembered.get(&node).copied())
    }

    /// Whether a node is worth asking. A node that has just started cannot tell yet which members are down, and asks all but
    /// those that it has seen go down.
    pub fn is_up(&self, node: NodeId, now: Time) -> bool {
        let is_settling = now < self.settled_at;
        node == self.own
            || match self.view.members.get(&node) {
                Some(member) => member.state == NodeState::Up || is_settling && !self.seen_up.contains(&node),
                None => is_settling && self.remembered.contains_key(&node),
            }
    }

    /// Members that are up, this node among them.
    pub fn up(&self) -> impl Iterator<Item = &Member> {
        self.view.members.values().filter(|member| member.state == NodeState::Up)
    }

    /// Members that are up, but for this node.
    pub fn others_up(&self) -> Vec<NodeId> {
        self.up().map(|member| member.id).filter(|node| *node != self.own).collect()
    }

    /// Every node that is known to belong to the mesh, this one among them.
    pub fn known(&self) -> BTreeSet<NodeId> {
        self.view.members.keys().chain(self.remembered.keys()).chain([&self.own]).copied().collect()
    }

    /// After what time another node is asked beside this one.
    pub fn late_after(&self, node: NodeId, pace: Pace) -> Duration {
        let usual = self.usual.get(&(node, pace)).copied();
        usual.map_or(LATE_MAX, |usual| (usual * LATE_FACTOR).clamp(LATE_MIN, LATE_MAX))
    }

    /// A node answered this long after it was asked.
    pub fn answered(&mut self, node: NodeId, pace: Pace, took: Duration) {
        self.silent.remove(&node);
        self.credit = (self.credit + 1).min(HEDGES_MAX * ANSWERS_PER_HEDGE);
        let usual = self.usual.entry((node, pace)).or_insert(took);
        // An eighth of what is new, as TCP smooths its round trips (RFC 6298).
        *usual = (*usual * 7 + took) / 8;
    }

    /// A node was not waited for any more when it had taken this long.
    pub fn took_longer(&mut self, node: NodeId, pace: Pace, than: Duration) {
        let usual = self.usual.entry((node, pace)).or_insert(than);
        *usual = (*usual * 7 + than.max(*usual)) / 8;
    }

    /// A node was late: it is asked last until it answers.
    pub fn was_late(&mut self, node: NodeId) {
        if node != self.own {
            self.silent.insert(node);
        }
    }

    /// Whether one more request may go to a second node beside a late one.
    pub fn take_hedge(&mut self) -> bool {
        let paid = self.credit.checked_sub(ANSWERS_PER_HEDGE);
        self.credit = paid.unwrap_or(self.credit);
        paid.is_some()
    }

    /// Whether a node was late and has not answered since.
    pub fn is_silent(&self, node: NodeId) -> bool {
        self.silent.contains(&node)
    }

    /// Nodes that were late and have not answered since.
    pub fn silent(&self) -> Vec<NodeId> {
        self.silent.iter().copied().collect()
    }

    /// Counts bytes that are sent to a replica.
    ///
    /// # Errors
    /// With the number of bytes under way, where that is too many already.
    pub fn begin_writing(&mut self, node: NodeId, bytes: usize) -> Result<(), usize> {
        let under_way = self.writing.entry(node).or_default();
        if *under_way > 0 && *under_way + bytes > WRITING_BYTES_MAX {
            return Err(*under_way);
        }
        *under_way += bytes;
        Ok(())
    }

    /// Bytes that were sent to a replica are there, or given up.
    pub fn end_writing(&mut self, node: NodeId, bytes: usize) {
        if let Some(under_way) = self.writing.get_mut(&node) {
            *under_way = under_way.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    #[test]
    fn a_late_node_is_silent_until_it_answers_and_quick_ones_are_late_sooner() {
        let mut peers = Peers::new(node(1), BTreeMap::new(), Time::default());
        assert_eq!(peers.late_after(node(2), Pace::Read), LATE_MAX);
        peers.was_late(node(2));
        peers.was_late(node(1));
        assert_eq!(peers.silent(), [node(2)], "a node is never silent to itself");
        peers.answered(node(2), Pace::Read, Duration::from_millis(15));
        assert!(!peers.is_silent(node(2)));
        assert_eq!(peers.late_after(node(2), Pace::Read), Duration::from_millis(45));
        assert_eq!(peers.late_after(node(2), Pace::Search), LATE_MAX, "each kind of work has a pace of its own");
        peers.was_late(node(2));
        peers.took_longer(node(2), Pace::Read, Duration::from_millis(23));
        assert_eq!(peers.late_after(node(2), Pace::Read), Duration::from_millis(48), "it took longer than usual");
        peers.took_longer(node(2), Pace::Read, Duration::from_millis(1));
        assert_eq!(peers.late_after(node(2), Pace::Read), Duration::from_millis(48), "that says nothing");
        assert!(peers.is_silent(node(2)), "it has not answered");
    }

    /// Named after what went wrong: what a young node asked of one that it had just seen die waited for five seconds.
    #[test]
    fn a_young_node_asks_nobody_that_it_has_seen_go_down() {
        let view = |state| {
            let member = Member {
                id: node(2),
                address: SocketAddr::from(([10, 0, 0, 2], 1)),
                state,
                tokens: Vec::new(),
                generation: 1,
                name: String::new(),
                software: String::new(),
                points: 0,
                bytes: 0,
                catalog_digest: String::new(),
            };
            Arc::new(View { members: BTreeMap::from([(node(2), member)]) })
        };
        let now = Time::default();
        let mut peers = Peers::new(node(1), BTreeMap::new(), now);
        peers.set_view(view(NodeState::Down));
        assert!(peers.is_up(node(2), now), "it may be up and not heard yet");
        assert!(!peers.is_up(node(2), now + SETTLING));
        peers.set_view(view(NodeState::Up));
        assert!(peers.is_up(node(2), now));
        peers.set_view(view(NodeState::Down));
        assert!(!peers.is_up(node(2), now));
    }

    /// Named after what went wrong: the majority that agrees to a create shrank when gossip forgot a node that was away.
    #[test]
    fn a_node_that_gossip_forgets_still_belongs_to_the_mesh() {
        let address = SocketAddr::from(([10, 0, 0, 2], 1));
        let member = |number: u8| Member {
            id: node(number),
            address,
            state: NodeState::Down,
            tokens: Vec::new(),
            generation: 1,
            name: String::new(),
            software: String::new(),
            points: 0,
            bytes: 0,
            catalog_digest: String::new(),
        };
        let mut peers = Peers::new(node(1), BTreeMap::new(), Time::default());
        let members = BTreeMap::from([(node(1), member(1)), (node(2), member(2))]);
        peers.set_view(Arc::new(View { members }));
        peers.set_view(Arc::default());
        assert_eq!(peers.known(), [node(1), node(2)].into());
        assert_eq!(peers.address(node(2)), Some(address));
        assert_eq!(*peers.remembered(), BTreeMap::from([(node(2), address)]), "a node does not remember itself");
    }

    #[test]
    fn where_all_are_late_few_are_asked_twice() {
        let mut peers = Peers::new(node(1), BTreeMap::new(), Time::default());
        assert_eq!((0..1_000).filter(|_| peers.take_hedge()).count(), HEDGES_MAX as usize);
        (0..ANSWERS_PER_HEDGE).for_each(|_| peers.answered(node(2), Pace::Search, LATE_MAX));
        assert!(peers.take_hedge() && !peers.take_hedge());
    }

    #[test]
    fn a_slow_replica_is_sent_no_more_than_it_takes() {
        let mut peers = Peers::new(node(1), BTreeMap::new(), Time::default());
        assert_eq!(peers.begin_writing(node(2), 2 * WRITING_BYTES_MAX), Ok(()), "one request is always sent");
        assert_eq!(peers.begin_writing(node(2), 1), Err(2 * WRITING_BYTES_MAX));
        assert_eq!(peers.begin_writing(node(3), 1), Ok(()));
        peers.end_writing(node(2), 2 * WRITING_BYTES_MAX);
        assert_eq!(peers.begin_writing(node(2), 1), Ok(()));
    }
}
