//! Making an index of what was dumped, without linking anything anew.
//!
//! Nothing that is read is trusted: every value is checked against its range and against the other arenas before it
//! is used, and memory grows with the bytes that really come, never with a number that announces them.

use std::sync::atomic::Ordering;

use crate::build::consolidate::ORDERS_MAX;
use crate::error::LoadError;
use crate::index::Index;
use crate::memory::graph::{Entry, Graph, LEVEL_MAX};
use crate::params::{M_MAX, Params, Profile};
use crate::persist::arenas::ArenaSource;
use crate::persist::dump::{
    DELETED, FORMAT, HEADER, HEADER_BYTES, LINKED, LINKS0, MAGIC, MODEL, NODE_BYTES, NODES, STORED, UPPER, VECTORS,
    metric_code, profile_code,
};
use crate::persist::pieces::{Pieces, for_slots, processors};
use crate::slot::{SLOT_MAX, Slot};

/// The format of dumps from before there were profiles: the same, with zeros in the place of profile and model.
const FORMAT_WITHOUT_PROFILE: u16 = 1;
/// All threads together count anchors in this share of the memory of the vectors.
const COUNTS_SHARE: usize = 8;
/// Links of a list, at most.
const LINKS_MAX: usize = 2 * M_MAX;

/// What the header says that the parameters do not.
struct Header {
    slots: u32,
    blocks: u32,
    /// The slots that the model was learned from; 0 where there is none.
    learned: u32,
}

/// What is known of a slot.
#[derive(Clone, Copy)]
struct Node {
    order: u32,
    level: u8,
    flags: u8,
}

impl Index {
    /// Makes an index of what [`Index::dump`] wrote. `params` must have the dimension, metric and `m` of the dump.
    ///
    /// Slots that were not linked when the dump began, or lost their last link while it went on, are handed out by
    /// [`Index::next_unlinked`]; they are found by searches meanwhile. Codes are not made yet: searches go by the
    /// vectors until [`Index::warm`] has made them.
    pub fn load(params: Params, source: &dyn ArenaSource) -> Result<Self, LoadError> {
        let index = Self::new(params)?;
        let header = index.load_header(source)?;
        let mut nodes = load_nodes(source, &header)?;
        index.make_room(&nodes)?;
        index.load_vectors(source, &nodes)?;
        index.load_links(source, &header, &nodes)?;
        index.drop_unreachable(&mut nodes)?;
        index.place(&mut nodes);
        for (slot, node) in (0..).zip(&nodes) {
            if node.flags & STORED != 0 {
                index.parts.states.restore(slot, node.flags & LINKED != 0, node.flags & DELETED != 0);
            }
        }
        index.parts.states.restored(header.slots);
        if let Some(entry) = index.parts.graph.entry() {
            index.parts.with_linker(|linker, scratch| linker.lead_to_first(entry, &mut scratch.projections));
        }
        index.load_model(source, &header)?;
        index.parts.measure_growth();
        Ok(index)
    }

    fn load_header(&self, source: &dyn ArenaSource) -> Result<Header, LoadError> {
        let bytes = Pieces::open(source, HEADER, HEADER_BYTES as u64)?.whole()?;
        let mut header = Values(&bytes);
        let magic: [u8; 6] = header.next();
        if magic != MAGIC {
            let value = magic.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte));
            return Err(invalid(HEADER, "magic", value, "this is no dump of an index".into()));
        }
        let format = u16::from_le_bytes(header.next());
        if format != FORMAT && format != FORMAT_WITHOUT_PROFILE {
            return Err(invalid(HEADER, "format", format.into(), format!("this version reads format {FORMAT}")));
        }
        let expected = [
            ("dim", self.parts.params.dim as u32),
            ("metric", metric_code(self.parts.params.metric)),
            ("m", self.parts.params.m as u32),
        ];
        for (field, expected) in expected {
            let value = u32::from_le_bytes(header.next());
            if value != expected {
                return Err(invalid(HEADER, field, value.into(), format!("this index has {expected}")));
            }
        }
        let slots = u32::from_le_bytes(header.next());
        if slots > SLOT_MAX {
            return Err(invalid(HEADER, "slots", slots.into(), format!("at most {SLOT_MAX} are possible")));
        }
        let blocks = u32::from_le_bytes(header.next());
        let profile = u32::from_le_bytes(header.next());
        let is_known = match format {
            FORMAT_WITHOUT_PROFILE => profile == 0,
            _ => Profile::ALL.into_iter().any(|known| profile_code(known) == profile),
        };
        if !is_known {
            return Err(invalid(HEADER, "profile", profile.into(), "1 to 3 are known".into()));
        }
        let learned = u32::from_le_bytes(header.next());
        let is_learned = learned <= slots && (learned == 0 || profile == profile_code(Profile::Fast));
        if !is_learned {
            return Err(invalid(HEADER, "learned", learned.into(), format!("at most {slots}, and 0 but under fast")));
        }
        if let Some(value) = header.0.iter().find(|byte| **byte != 0) {
            return Err(invalid(HEADER, "padding", (*value).into(), "it must be 0".into()));
        }
        Ok(Header { slots, blocks, learned })
    }

    /// Reads the model that codes are made by, where both the dump and the profile have one. A dump of another profile
    /// serves as well: codes follow from vectors and links, and a model can be learned anew.
    fn load_model(&self, source: &dyn ArenaSource, header: &Header) -> Result<(), LoadError> {
        let values = self.parts.codes.model_values();
        if header.learned == 0 || values == 0 {
            return Ok(());
        }
        let bytes = Pieces::open(source, MODEL, (values * size_of::<f32>()) as u64)?.whole()?;
        let model: Vec<f32> = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        let restored = self.parts.codes.restore(&model, header.learned as usize, header.slots, self.parts.kernel);
        if restored.map_err(|error| LoadError::Index(error.into()))? {
            return Ok(());
        }
        Err(invalid(MODEL, "values", values as u64, "a slope, a step, an origin and rows of length one".into()))
    }

    /// Takes memory for every slot, all of it before many threads write there.
    fn make_room(&self, nodes: &[Node]) -> Result<(), LoadError> {
        let Some(last) = nodes.len().checked_sub(1) else { return Ok(()) };
        let last = last as Slot;
        let room = self.parts.states.reserve(last).and_then(|()| self.parts.rows.reserve(last));
        room.map_err(|error| LoadError::Index(error.into()))?;
        for (slot, node) in (0..).zip(nodes).filter(|(_, node)| node.flags & STORED != 0) {
            let room = self.parts.graph.reserve(slot, node.level.into());
            room.map_err(|error| LoadError::Index(error.into()))?;
        }
        Ok(())
    }

    /// Copies the vectors, then checks them: a vector may lie in two pieces.
    fn load_vectors(&self, source: &dyn ArenaSource, nodes: &[Node]) -> Result<(), LoadError> {
        let dim = self.parts.params.dim;
        let row_bytes = dim * size_of::<f32>();
        let pieces = Pieces::open(source, VECTORS, (nodes.len() * row_bytes) as u64)?;
        pieces.for_each(|first, bytes| {
            for (slot, at, part) in parts(first, bytes, row_bytes) {
                if nodes[slot as usize].flags & STORED != 0 {
                    self.parts.rows.restore(slot, at, part);
                }
            }
            Ok(())
        })?;
        for_slots(
            nodes.len() as u32,
            || (),
            |slots, ()| {
                for slot in slots.filter(|slot| nodes[*slot as usize].flags & STORED != 0) {
                    let check = self.parts.params.check_vector(self.parts.rows.vector(slot));
                    let norm = check.map_err(|source| LoadError::Vector { slot, source })?;
                    self.parts.rows.restore_norm(slot, norm);
                }
                Ok(())
            },
        )
    }

    /// Copies the links, then checks them.
    fn load_links(&self, source: &dyn ArenaSource, header: &Header, nodes: &[Node]) -> Result<(), LoadError> {
        let list_bytes = self.parts.graph.degree_max(0) * size_of::<u32>();
        let pieces = Pieces::open(source, LINKS0, (nodes.len() * list_bytes) as u64)?;
        pieces.for_each(|first, bytes| {
            for (slot, at, part) in parts(first, bytes, list_bytes) {
                match self.parts.graph.links(slot, 0) {
                    // A slot that was skipped may have no memory of its own. It has no links either.
                    [] if part.iter().all(|byte| *byte == 0) => {}
                    [] => return Err(invalid(LINKS0, "link", 0, format!("slot {slot} is not stored"))),
                    links => Graph::restore(&links[at..], part),
                }
            }
            Ok(())
        })?;
        let list_bytes = self.parts.graph.degree_max(1) * size_of::<u32>();
        let pieces = Pieces::open(source, UPPER, u64::from(header.blocks) * list_bytes as u64)?;
        pieces.for_each(|first, bytes| {
            for (block, at, part) in parts(first, bytes, list_bytes) {
                Graph::restore(&self.parts.graph.block(block)[at..], part);
            }
            Ok(())
        })?;
        // Counting in place costs a locked access to a line far away for every other link, so each thread counts for
        // itself, where that takes little memory beside the vectors.
        let counts = processors() * size_of::<u32>() * COUNTS_SHARE;
        let apart = if counts <= self.parts.params.dim * size_of::<f32>() { nodes.len() } else { 0 };
        for_slots(
            header.slots,
            || Anchors { graph: &self.parts.graph, counts: vec![0; apart] },
            |slots, anchors| {
                for slot in slots {
                    for layer in 0..=usize::from(nodes[slot as usize].level) {
                        self.check_links(nodes, slot, layer, anchors)?;
                    }
                }
                Ok(())
            },
        )
    }

    /// Checks one list of links, and counts it as an anchor of those that it leads to, where it is one.
    fn check_links(
        &self,
        nodes: &[Node],
        slot: Slot,
        layer: usize,
        anchors: &mut Anchors<'_>,
    ) -> Result<(), LoadError> {
        let node = nodes[slot as usize];
        let is_linked = node.flags & LINKED != 0;
        let mut list = [0; LINKS_MAX];
        let mut count = 0;
        for (at, link) in self.parts.graph.links(slot, layer).iter().enumerate() {
            let link = link.load(Ordering::Relaxed);
            let Some(other) = link.checked_sub(1) else { continue };
            let fits = nodes
                .get(other as usize)
                .is_some_and(|other| other.flags & LINKED != 0 && usize::from(other.level) >= layer);
            let is_again = list[..count].iter().fold(false, |is_again, before| is_again | (*before == link));
            if !fits || !is_linked || count < at || other == slot || is_again {
                let arena = if layer == 0 { LINKS0 } else { UPPER };
                let limit =
                    format!("slot {slot} may link to other linked slots of layer {layer}, once each, without gaps");
                return Err(invalid(arena, "link", link.into(), limit));
            }
            list[count] = link;
            count += 1;
            if layer == 0 && node.order < nodes[other as usize].order {
                anchors.count(other);
            }
        }
        Ok(())
    }

    /// Takes out of the graph what cannot be reached from the first node by anchors, and the
    /// links to it: nodes without an anchor, those whose anchors all start from such, and so on. An anchor starts from an earlier node, so nothing
    /// is reached in a circle.
    fn drop_unreachable(&self, nodes: &mut [Node]) -> Result<(), LoadError> {
        let first = linked(nodes).map(|(_, node)| node.order).min();
        let anchors = |slot| self.parts.graph.anchors(slot);
        let is_lost = |slot, node: &Node| Some(node.order) != first && anchors(slot).load(Ordering::Relaxed) == 0;
        let mut lost: Vec<Slot> =
            linked(nodes).filter(|(slot, node)| is_lost(*slot, node)).map(|(slot, _)| slot).collect();
        let mut at = 0;
        while let Some(slot) = lost.get(at).copied() {
            let node = &mut nodes[slot as usize];
            node.flags &= !LINKED;
            let order = node.order;
            for other in self.parts.graph.neighbours(slot, 0).filter(|other| nodes[*other as usize].order > order) {
                if anchors(other).fetch_sub(1, Ordering::Relaxed) == 1 {
                    lost.push(other);
                }
            }
            at += 1;
        }
        if lost.is_empty() {
            return Ok(());
        }
        for slot in &lost {
            (0..=usize::from(nodes[*slot as usize].level))
                .for_each(|layer| self.parts.graph.set_neighbours(*slot, layer, &[]));
        }
        for_slots(
            nodes.len() as u32,
            || (),
            |slots, ()| {
                for slot in slots.filter(|slot| nodes[*slot as usize].flags & LINKED != 0) {
                    for layer in 0..=usize::from(nodes[slot as usize].level) {
                        let is_kept = |other: &Slot| nodes[*other as usize].flags & LINKED != 0;
                        if !self.parts.graph.neighbours(slot, layer).all(|other| is_kept(&other)) {
                            let kept: Vec<Slot> = self.parts.graph.neighbours(slot, layer).filter(is_kept).collect();
                            self.parts.graph.set_neighbours(slot, layer, &kept);
                        }
                    }
                }
                Ok(())
            },
        )
    }

    /// Puts every node where it stood in the sequence, and makes the highest the entry. Where the numbers have come so far
    /// that there is little room behind them, they begin anew.
    fn place(&self, nodes: &mut [Node]) {
        if linked(nodes).any(|(_, node)| node.order > ORDERS_MAX) {
            let mut sequence: Vec<Slot> = linked(nodes).map(|(slot, _)| slot).collect();
            sequence.sort_unstable_by_key(|slot| nodes[*slot as usize].order);
            for (slot, order) in sequence.into_iter().zip(Graph::FIRST_ORDER..) {
                nodes[slot as usize].order = order;
            }
        }
        linked(nodes).for_each(|(slot, node)| self.parts.graph.set_order(slot, node.order));
        self.parts.graph.set_orders(linked(nodes).map(|(_, node)| node.order).max().unwrap_or(0));
        if let Some((slot, _)) = linked(nodes).min_by_key(|(_, node)| node.order) {
            self.parts.graph.set_first(slot);
        }
        let highest = linked(nodes).max_by_key(|(_, node)| (node.level, std::cmp::Reverse(node.order)));
        if let Some((slot, node)) = highest {
            // The graph is empty: nothing is there before.
            let _ = self.parts.graph.enter_first(Entry { slot, level: node.level.into() });
        }
    }
}

/// The nodes of the graph.
fn linked(nodes: &[Node]) -> impl Iterator<Item = (Slot, &Node)> {
    (0..).zip(nodes).filter(|(_, node)| node.flags & LINKED != 0)
}

fn load_nodes(source: &dyn ArenaSource, header: &Header) -> Result<Vec<Node>, LoadError> {
    let pieces = Pieces::open(source, NODES, u64::from(header.slots) * NODE_BYTES as u64)?;
    let bytes = pieces.whole()?;
    let mut nodes: Vec<Node> = Vec::with_capacity(bytes.len() / NODE_BYTES);
    let mut blocks = 0u64;
    for (slot, node) in bytes.as_chunks::<NODE_BYTES>().0.iter().enumerate() {
        let mut node = Values(node);
        let order = u32::from_le_bytes(node.next());
        let [level, flags, zeros @ ..] = node.next::<4>();
        let fail =
            |field, value: u32, limit: &str| Err(invalid(NODES, field, value.into(), format!("slot {slot}: {limit}")));
        if usize::from(level) > LEVEL_MAX {
            return fail("level", level.into(), &format!("at most {LEVEL_MAX} is possible"));
        }
        let is_possible = match flags {
            0 => level == 0,
            _ => flags & STORED != 0 && flags & !(STORED | LINKED | DELETED) == 0,
        };
        if !is_possible || zeros != [0, 0] {
            return fail("flags", flags.into(), "no slot can have these, at that level");
        }
        if (flags & LINKED != 0) != (order != 0) {
            return fail("order", order, "linked slots have one above 0, others have 0");
        }
        blocks += u64::from(level);
        nodes.push(Node { order, level, flags });
    }
    drop(bytes);
    if nodes.last().is_some_and(|node| node.flags & STORED == 0) {
        return Err(invalid(HEADER, "slots", header.slots.into(), "the last slot must be a stored one".into()));
    }
    if header.blocks > SLOT_MAX {
        return Err(invalid(HEADER, "blocks", header.blocks.into(), format!("at most {SLOT_MAX} are possible")));
    }
    if blocks != u64::from(header.blocks) {
        return Err(invalid(HEADER, "blocks", header.blocks.into(), format!("the levels of the nodes need {blocks}")));
    }
    let mut orders: Vec<u32> = nodes.iter().map(|node| node.order).filter(|order| *order != 0).collect();
    orders.sort_unstable();
    if let Some(pair) = orders.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(invalid(NODES, "order", pair[0].into(), "each order may occur once".into()));
    }
    Ok(nodes)
}

/// Counts what leads to nodes from those that were linked before them, by one thread; in the end it is in the graph.
struct Anchors<'g> {
    graph: &'g Graph,
    /// Empty where it is counted in the graph at once.
    counts: Vec<u32>,
}

impl Anchors<'_> {
    fn count(&mut self, slot: Slot) {
        match self.counts.get_mut(slot as usize) {
            Some(count) => *count += 1,
            None => {
                self.graph.anchors(slot).fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Anchors<'_> {
    fn drop(&mut self) {
        for (slot, count) in (0..).zip(&self.counts).filter(|(_, count)| **count > 0) {
            self.graph.anchors(slot).fetch_add(*count, Ordering::Relaxed);
        }
    }
}

/// Values read one after another, from bytes that were counted before.
struct Values<'b>(&'b [u8]);

impl Values<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (value, rest) = self.0.split_first_chunk().expect("the caller counted the bytes");
        self.0 = rest;
        *value
    }
}

/// What lies of each item in a piece of an arena whose items are all as long: its number, the first of its values that
/// is there, and the bytes from there on.
fn parts(first: u64, bytes: &[u8], item_bytes: usize) -> impl Iterator<Item = (u32, usize, &[u8])> {
    let mut item = (first / item_bytes as u64) as u32;
    let mut skipped = (first % item_bytes as u64) as usize;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (part, later) = rest.split_at((item_bytes - skipped).min(rest.len()));
        let found = (item, skipped / size_of::<u32>(), part);
        (item, skipped, rest) = (item + 1, 0, later);
        Some(found)
    })
}

fn invalid(arena: &'static str, field: &'static str, value: u64, limit: String) -> LoadError {
    LoadError::Invalid { arena, field, value, limit }
}
