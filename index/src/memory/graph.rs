//! The graph's memory: which slots each slot links to on each layer, and where a walk enters.
//!
//! Links are read without a lock while writers change them: a reader may see a list half old and half new, which
//! is a list of neighbours all the same. A link is stored as the slot plus one, so that fresh memory is empty lists;
//! a list ends at the first zero.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::kernel::prefetch;
use crate::memory::arena::{Arena, NoMemory};
use crate::random::mix;
use crate::slot::Slot;

/// Highest layer.
pub(crate) const LEVEL_MAX: usize = 16;
/// Links in a cache line.
const LINE_LINKS: usize = 16;
/// Values that are kept of each node.
const NODE_WIDTH: usize = 4;
/// Which of them is the place in the sequence of linking.
const ORDER: usize = 0;
/// Which of them counts the anchors.
const ANCHORS: usize = 1;
/// Which of them is the highest layer.
const LEVEL: usize = 2;
/// Which of them is the first block of links above layer 0.
const BLOCK: usize = 3;

/// Links by slot and layer.
pub(crate) struct Graph {
    m: usize,
    seed: u64,
    /// Layer 0, at most `2 m` links a slot.
    base: Arena<AtomicU32>,
    /// The layers above, at most `m` links each: a block a layer, those of one slot beside each other.
    upper: Arena<AtomicU32>,
    /// Per slot: [`ORDER`], [`ANCHORS`], [`LEVEL`], [`BLOCK`].
    nodes: Arena<AtomicU32>,
    /// Slot plus one in the low half, its level in the high half; zero while the graph is empty.
    entry: AtomicU64,
    /// Slot plus one of the first node, from which anchors lead to all others; zero while the graph is empty.
    first: AtomicU32,
    orders: AtomicU32,
    blocks: AtomicU32,
}

/// Where a walk begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub slot: Slot,
    pub level: usize,
}

impl Graph {
    /// No nodes.
    pub fn new(m: usize, seed: u64) -> Self {
        Self {
            m,
            seed,
            base: Arena::new("links0", (2 * m).next_multiple_of(LINE_LINKS)),
            upper: Arena::new("upper", m.next_multiple_of(LINE_LINKS)),
            nodes: Arena::new("nodes", NODE_WIDTH),
            entry: AtomicU64::new(0),
            first: AtomicU32::new(0),
            orders: AtomicU32::new(0),
            blocks: AtomicU32::new(0),
        }
    }

    /// Most links that a node holds on a layer.
    #[inline]
    pub fn degree_max(&self, layer: usize) -> usize {
        if layer == 0 { 2 * self.m } else { self.m }
    }

    /// The layer up to which a slot is linked: `l` or more with probability `m` to the power of minus `l`, as the
    /// paper has it. A pure function of seed and slot, in whole numbers, so that every machine agrees.
    pub fn level_of(&self, slot: Slot) -> usize {
        let mut uniform = mix(self.seed ^ mix(u64::from(slot)));
        let mut level = 0;
        while level < LEVEL_MAX && uniform < u64::MAX / self.m as u64 {
            uniform *= self.m as u64;
            level += 1;
        }
        level
    }

    /// Makes room for the links of a slot on its layers. One thread at a time.
    pub fn reserve(&self, slot: Slot, level: usize) -> Result<(), NoMemory> {
        self.base.reserve(slot)?;
        self.nodes.reserve(slot)?;
        if self.level(slot) == level {
            // A slot that is used again has its block already, and one of level 0 needs none.
            return Ok(());
        }
        let block = self.blocks.load(Ordering::Relaxed);
        if level > 0 {
            self.upper.reserve(block + level as u32 - 1)?;
        }
        self.blocks.store(block + level as u32, Ordering::Relaxed);
        let node = self.nodes.get(slot);
        node[BLOCK].store(block, Ordering::Relaxed);
        node[LEVEL].store(level as u32, Ordering::Relaxed);
        Ok(())
    }

    /// Makes room for slots that come one after another, without giving it to them.
    pub fn reserve_range(&self, first: Slot, last: Slot) -> Result<(), NoMemory> {
        self.base.reserve(last)?;
        self.nodes.reserve(last)?;
        let levels: usize = (first..=last).map(|slot| self.level_of(slot)).sum();
        match self.blocks.load(Ordering::Relaxed) + levels as u32 {
            0 => Ok(()),
            blocks => self.upper.reserve(blocks - 1),
        }
    }

    /// Bytes of memory that a slot takes on average: of the layers above the lowest, one in `m - 1` has one.
    pub fn bytes_per_slot(&self) -> usize {
        self.base.bytes(1) + self.nodes.bytes(1) + self.upper.bytes(1).div_ceil(self.m - 1)
    }

    /// Writes links as a dump has them, from the beginning of `links` on. Nobody reads them yet.
    pub fn restore(links: &[AtomicU32], bytes: &[u8]) {
        for (link, bytes) in links.iter().zip(bytes.as_chunks().0) {
            link.store(u32::from_le_bytes(*bytes), Ordering::Relaxed);
        }
    }

    /// The links of one block of the layers above.
    pub fn block(&self, block: u32) -> &[AtomicU32] {
        let links = self.upper.get(block);
        &links[..links.len().min(self.m)]
    }

    /// Number of blocks of upper links.
    pub fn blocks(&self) -> u32 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// The layer up to which a stored slot is linked.
    pub fn level(&self, slot: Slot) -> usize {
        self.node(slot, LEVEL).load(Ordering::Relaxed) as usize
    }

    /// The links of a slot on a layer, each a slot plus one, up to the first zero. None on layers above its level.
    #[inline(always)]
    pub fn links(&self, slot: Slot, layer: usize) -> &[AtomicU32] {
        if layer == 0 {
            let links = self.base.get(slot);
            &links[..links.len().min(2 * self.m)]
        } else if layer > self.level(slot) {
            &[]
        } else {
            &self.upper.get(self.node(slot, BLOCK).load(Ordering::Relaxed) + layer as u32 - 1)[..self.m]
        }
    }

    /// The slots that a slot links to on a layer.
    #[inline(always)]
    pub fn neighbours(&self, slot: Slot, layer: usize) -> impl Iterator<Item = Slot> + '_ {
        self.links(slot, layer)
            .iter()
            .map(|link| link.load(Ordering::Acquire))
            .take_while(|link| *link != 0)
            .map(|l| l - 1)
    }

    /// Replaces the links of a slot on a layer. The caller holds its lock.
    pub fn set_neighbours(&self, slot: Slot, layer: usize, neighbours: &[Slot]) {
        let links = self.links(slot, layer);
        debug_assert!(neighbours.len() <= links.len());
        for (at, link) in links.iter().enumerate() {
            let value = neighbours.get(at).map_or(0, |neighbour| neighbour + 1);
            if link.load(Ordering::Relaxed) != value {
                link.store(value, Ordering::Release);
            }
        }
    }

    /// Asks for the layer-0 links of a slot ahead of their use.
    #[inline(always)]
    pub fn prefetch(&self, slot: Slot) {
        let links = self.base.get(slot).as_ptr();
        prefetch(links);
        prefetch(links.wrapping_add(LINE_LINKS));
    }

    /// Asks for what tells where the links of a node of the upper layers are.
    #[inline(always)]
    pub fn prefetch_upper(&self, slot: Slot) {
        prefetch(self.nodes.get(slot).as_ptr());
    }

    /// Where a walk begins, or `None` while there is no node.
    #[inline]
    pub fn entry(&self) -> Option<Entry> {
        unpack(self.entry.load(Ordering::Acquire))
    }

    /// Makes this node the entry if there is none, and gives its predecessor otherwise.
    pub fn enter_first(&self, entry: Entry) -> Result<(), Entry> {
        match self.entry.compare_exchange(0, pack(entry), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(before) => unpack(before).map_or(Ok(()), Err),
        }
    }

    /// Makes this node the entry if it reaches higher than the one there is. Whether it did.
    pub fn enter_higher(&self, entry: Entry) -> bool {
        let raise = |before| unpack(before).is_none_or(|before| before.level < entry.level).then(|| pack(entry));
        self.entry.fetch_update(Ordering::AcqRel, Ordering::Acquire, raise).is_ok()
    }

    /// The node of the lowest order.
    pub fn first(&self) -> Option<Slot> {
        self.first.load(Ordering::Acquire).checked_sub(1)
    }

    /// Makes a node the one of the lowest order.
    pub fn set_first(&self, slot: Slot) {
        self.first.store(slot + 1, Ordering::Release);
    }

    /// Whether this link leads from the entry to the first node, and so, by way of anchors, from the entry to every node.
    pub fn is_guide(&self, from: Slot, to: Slot) -> bool {
        self.first() == Some(to) && self.entry().is_some_and(|entry| entry.slot == from)
    }

    /// Makes another node the entry in place of one that leaves.
    pub fn enter_instead(&self, leaving: Entry, entry: Entry) {
        let _ = self.entry.compare_exchange(pack(leaving), pack(entry), Ordering::AcqRel, Ordering::Acquire);
    }

    /// Forgets what a slot was as a node. Nobody reads its links, and no node links to it.
    pub fn clear(&self, slot: Slot) {
        for layer in 0..=self.level(slot) {
            self.set_neighbours(slot, layer, &[]);
        }
        self.set_order(slot, 0);
        self.anchors(slot).store(0, Ordering::Release);
    }

    /// The place of a node in the sequence of linking, from 1; 0 for slots that are no nodes.
    #[inline]
    pub fn order(&self, slot: Slot) -> u32 {
        self.node(slot, ORDER).load(Ordering::Acquire)
    }

    /// Gives a node its place in the sequence. The first node takes [`Self::FIRST_ORDER`] instead.
    pub fn take_order(&self, slot: Slot) -> u32 {
        let order = self.orders.fetch_add(1, Ordering::Relaxed) + Self::FIRST_ORDER + 1;
        self.set_order(slot, order);
        order
    }

    /// The place that was taken last.
    pub fn last_order(&self) -> u32 {
        self.orders.load(Ordering::Relaxed) + Self::FIRST_ORDER
    }

    /// Gives a node a certain place in the sequence.
    pub fn set_order(&self, slot: Slot, order: u32) {
        self.node(slot, ORDER).store(order, Ordering::Release);
    }

    /// Sets the highest place that any node has; the next node takes the one behind it.
    pub fn set_orders(&self, nodes: u32) {
        self.orders.store(nodes.max(Self::FIRST_ORDER) - Self::FIRST_ORDER, Ordering::Relaxed);
    }

    /// The order of the first node.
    pub const FIRST_ORDER: u32 = 1;

    /// How many nodes that were linked before this one link to it on layer 0. While every node but the first has
    /// one, every node can be reached from the first.
    pub fn anchors(&self, slot: Slot) -> &AtomicU32 {
        self.node(slot, ANCHORS)
    }

    /// Bytes of memory that `slots` slots take.
    pub fn bytes(&self, slots: usize) -> usize {
        self.base.bytes(slots) + self.nodes.bytes(slots) + self.upper.bytes(self.blocks() as usize)
    }

    #[inline(always)]
    fn node(&self, slot: Slot, field: usize) -> &AtomicU32 {
        &self.nodes.get(slot)[field]
    }
}

fn pack(entry: Entry) -> u64 {
    (u64::from(entry.slot) + 1) | ((entry.level as u64) << 32)
}

fn unpack(packed: u64) -> Option<Entry> {
    (packed != 0).then(|| Entry { slot: packed as u32 - 1, level: (packed >> 32) as usize })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_thin_out_by_m() {
        let graph = Graph::new(16, 42);
        let levels: Vec<usize> = (0..1_000_000).map(|slot| graph.level_of(slot)).collect();
        for (level, expected) in [(1, 62_500.0), (2, 3_906.0), (3, 244.0)] {
            let got = levels.iter().filter(|reached| **reached >= level).count() as f64;
            assert!((got - expected).abs() < 5.0 * f64::sqrt(expected), "{got} of {expected} reach layer {level}");
        }
    }

    #[test]
    fn levels_depend_on_the_seed_and_are_the_same_on_every_machine() {
        let high = |seed| (0..200).filter(|slot| Graph::new(16, seed).level_of(*slot) > 0).collect::<Vec<_>>();
        assert_eq!(high(1), [0, 8, 11, 22, 53, 61, 63, 136, 160, 176, 179, 181, 189]);
        assert_ne!(high(2), high(1));
    }

    #[test]
    fn the_highest_node_is_the_entry_and_the_first_of_its_height_stays() {
        let graph = Graph::new(4, 0);
        assert_eq!(graph.entry(), None);
        let first = Entry { slot: 0, level: 0 };
        assert_eq!(graph.enter_first(first), Ok(()));
        assert_eq!(graph.enter_first(Entry { slot: 1, level: 3 }), Err(first));
        graph.enter_higher(Entry { slot: 2, level: 2 });
        graph.enter_higher(Entry { slot: 3, level: 2 });
        assert_eq!(graph.entry(), Some(Entry { slot: 2, level: 2 }));
    }

    #[test]
    fn room_that_was_made_ahead_is_enough_for_every_slot_and_layer() {
        for (first, last) in [(0, 0), (0, 127), (128, 5_000), (3, 70_000)] {
            let graph = Graph::new(4, 7);
            for slot in 0..first {
                graph.reserve(slot, graph.level_of(slot)).unwrap();
            }
            graph.reserve_range(first, last).unwrap();
            let blocks: u32 = (0..=last).map(|slot| graph.level_of(slot) as u32).sum();
            assert_eq!((graph.base.get(last).is_empty(), graph.nodes.get(last).is_empty()), (false, false));
            assert!(blocks == 0 || !graph.upper.get(blocks - 1).is_empty(), "{blocks} blocks up to slot {last}");
            // What was reserved is not yet given to anybody.
            (first..=last).for_each(|slot| graph.reserve(slot, graph.level_of(slot)).unwrap());
            assert_eq!(graph.blocks(), blocks);
        }
    }

    #[test]
    fn slots_take_on_average_what_is_said_of_one() {
        let graph = Graph::new(16, 3);
        (0..50_000).for_each(|slot| graph.reserve(slot, graph.level_of(slot)).unwrap());
        let (said, taken) = (graph.bytes_per_slot() as f64, graph.bytes(50_000) as f64 / 50_000.0);
        assert!((said / taken - 1.0).abs() < 0.02, "{said} instead of {taken} bytes");
    }
}
