//! Making an index of what was dumped, without linking anything anew.
//!
//! Nothing that is read is trusted: every value is checked against its range and against the other arenas before it
//! is used, and memory grows with the bytes that really come, never with a number that announces them.

use std::io::{BufReader, Read};
use std::sync::atomic::Ordering;

use crate::arenas::ArenaSource;
use crate::dump::{
    BURIED, FORMAT, HEADER, HEADER_BYTES, LINKED, LINKS0, MAGIC, MODEL, NODE_BYTES, NODES, STORED, UPPER, VECTORS,
    metric_code, profile_code,
};
use crate::error::LoadError;
use crate::fast::Model;
use crate::graph::{Entry, Graph, LEVEL_MAX};
use crate::index::Index;
use crate::params::{Params, Profile, SLOT_MAX, Slot};

/// One arena being read.
struct Reader<'s> {
    arena: &'static str,
    source: BufReader<Box<dyn Read + 's>>,
    got: u64,
    expected: u64,
}

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
    /// [`Index::next_unlinked`]; they are found by searches meanwhile.
    pub fn load(params: Params, source: &mut dyn ArenaSource) -> Result<Self, LoadError> {
        let index = Self::new(params)?;
        let header = index.load_header(source)?;
        let mut nodes = load_nodes(source, &header)?;
        index.load_vectors(source, &nodes)?;
        index.load_links(source, &header, &nodes)?;
        index.keep_reachable(&mut nodes);
        for (slot, node) in (0..).zip(&nodes) {
            if node.flags & STORED != 0 {
                index.states.restore(slot, node.flags & LINKED != 0, node.flags & BURIED != 0);
            }
        }
        index.states.restored(header.slots);
        if let Some(entry) = index.graph.entry() {
            index.with_linker(|linker, scratch| linker.lead_to_first(entry, &mut scratch.projections));
        }
        index.load_model(source, &header)?;
        if let Some(scalar) = &index.scalar
            && scalar.wants_training(header.slots)
        {
            scalar.train(&index.rows, &index.states, &index.storing);
        }
        Ok(index)
    }

    fn load_header(&self, source: &mut dyn ArenaSource) -> Result<Header, LoadError> {
        let mut reader = Reader::open(source, HEADER, HEADER_BYTES as u64)?;
        let magic: [u8; 6] = reader.array()?;
        if magic != MAGIC {
            let value = magic.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte));
            return Err(invalid(HEADER, "magic", value, "this is no dump of an index".into()));
        }
        let format = u16::from_le_bytes(reader.array()?);
        if format != FORMAT && format != FORMAT_WITHOUT_PROFILE {
            return Err(invalid(HEADER, "format", format.into(), format!("this version reads format {FORMAT}")));
        }
        let expected =
            [("dim", self.params.dim as u32), ("metric", metric_code(self.params.metric)), ("m", self.params.m as u32)];
        for (field, expected) in expected {
            let value = u32::from_le_bytes(reader.array()?);
            if value != expected {
                return Err(invalid(HEADER, field, value.into(), format!("this index has {expected}")));
            }
        }
        let slots = u32::from_le_bytes(reader.array()?);
        if slots > SLOT_MAX {
            return Err(invalid(HEADER, "slots", slots.into(), format!("at most {SLOT_MAX} are possible")));
        }
        let blocks = u32::from_le_bytes(reader.array()?);
        let profile = u32::from_le_bytes(reader.array()?);
        let is_known = match format {
            FORMAT_WITHOUT_PROFILE => profile == 0,
            _ => Profile::ALL.into_iter().any(|known| profile_code(known) == profile),
        };
        if !is_known {
            return Err(invalid(HEADER, "profile", profile.into(), "1 to 3 are known".into()));
        }
        let learned = u32::from_le_bytes(reader.array()?);
        let is_learned = learned <= slots && (learned == 0 || profile == profile_code(Profile::Fast));
        if !is_learned {
            return Err(invalid(HEADER, "learned", learned.into(), format!("at most {slots}, and 0 but under fast")));
        }
        while reader.got < HEADER_BYTES as u64 {
            let [zero] = reader.array()?;
            if zero != 0 {
                return Err(invalid(HEADER, "padding", zero.into(), "it must be 0".into()));
            }
        }
        reader.finish()?;
        Ok(Header { slots, blocks, learned })
    }

    /// Reads the model that codes are made by, where both the dump and the profile have one, and makes them. A dump
    /// of another profile serves as well: codes follow from vectors and links, and a model can be learned anew.
    fn load_model(&self, source: &mut dyn ArenaSource, header: &Header) -> Result<(), LoadError> {
        let Some(fast) = self.fast.as_ref().filter(|_| header.learned > 0) else { return Ok(()) };
        let values = Model::values_of(fast.shape());
        let mut reader = Reader::open(source, MODEL, (values * size_of::<f32>()) as u64)?;
        let mut model = Vec::new();
        for _ in 0..values {
            model.push(f32::from_le_bytes(reader.array()?));
        }
        reader.finish()?;
        let model = Model::restore(&model, fast.shape(), self.kernel).ok_or_else(|| {
            invalid(MODEL, "values", values as u64, "a slope, a step, an origin and rows of length one".into())
        })?;
        let made = fast.install(model, header.learned as usize, &self.rows, &self.graph, &self.states);
        made.map_err(|error| LoadError::Index(error.into()))
    }

    fn load_vectors(&self, source: &mut dyn ArenaSource, nodes: &[Node]) -> Result<(), LoadError> {
        let dim = self.params.dim;
        let mut reader = Reader::open(source, VECTORS, (nodes.len() * dim * size_of::<f32>()) as u64)?;
        let mut bytes = vec![0; dim * size_of::<f32>()];
        let mut vector = vec![0.0; dim];
        for (slot, node) in (0..).zip(nodes) {
            reader.read(&mut bytes)?;
            if node.flags & STORED != 0 {
                for (value, bytes) in vector.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
                let check = self.params.check_vector(&vector);
                let norm = check.map_err(|source| LoadError::Vector { slot, source })?;
                self.store_raw(slot, &vector, norm, node.level.into())?;
            }
        }
        reader.finish()
    }

    fn load_links(&self, source: &mut dyn ArenaSource, header: &Header, nodes: &[Node]) -> Result<(), LoadError> {
        let degree = self.graph.degree_max(0);
        let mut reader = Reader::open(source, LINKS0, nodes.len() as u64 * (degree * size_of::<u32>()) as u64)?;
        for slot in 0..header.slots {
            self.load_list(&mut reader, nodes, slot, 0)?;
        }
        reader.finish()?;
        let degree = self.graph.degree_max(1);
        let mut reader = Reader::open(source, UPPER, u64::from(header.blocks) * (degree * size_of::<u32>()) as u64)?;
        for (slot, node) in (0..).zip(nodes) {
            for layer in 1..=usize::from(node.level) {
                self.load_list(&mut reader, nodes, slot, layer)?;
            }
        }
        reader.finish()
    }

    fn load_list(&self, reader: &mut Reader<'_>, nodes: &[Node], slot: Slot, layer: usize) -> Result<(), LoadError> {
        let (arena, degree) = (reader.arena, self.graph.degree_max(layer));
        let is_linked = nodes[slot as usize].flags & LINKED != 0;
        let mut list = Vec::with_capacity(degree);
        for at in 0..degree {
            let link = u32::from_le_bytes(reader.array()?);
            let Some(other) = link.checked_sub(1) else { continue };
            let fits = nodes
                .get(other as usize)
                .is_some_and(|other| other.flags & LINKED != 0 && usize::from(other.level) >= layer);
            if !fits || !is_linked || list.len() < at || other == slot || list.contains(&other) {
                let limit =
                    format!("slot {slot} may link to other linked slots of layer {layer}, once each, without gaps");
                return Err(invalid(arena, "link", link.into(), limit));
            }
            list.push(other);
        }
        if !list.is_empty() {
            self.graph.set_neighbours(slot, layer, &list);
        }
        Ok(())
    }

    /// Finds what can be reached from the first node by links from elders to younger ones, and takes all else, and
    /// the links to it, out of the graph.
    fn keep_reachable(&self, nodes: &mut [Node]) {
        let mut sequence: Vec<Slot> =
            (0..).zip(&*nodes).filter(|(_, n)| n.flags & LINKED != 0).map(|(s, _)| s).collect();
        sequence.sort_unstable_by_key(|slot| nodes[*slot as usize].order);
        let mut reached = vec![false; nodes.len()];
        if let Some(first) = sequence.first() {
            reached[*first as usize] = true;
        }
        for slot in &sequence {
            if reached[*slot as usize] {
                for other in self.graph.neighbours(*slot, 0) {
                    reached[other as usize] |= nodes[other as usize].order > nodes[*slot as usize].order;
                }
            } else {
                nodes[*slot as usize].flags &= !LINKED;
            }
        }
        let mut order = 0;
        for slot in sequence {
            let level = usize::from(nodes[slot as usize].level);
            let is_kept = reached[slot as usize];
            for layer in 0..=level {
                let list: Vec<Slot> =
                    self.graph.neighbours(slot, layer).filter(|o| is_kept && reached[*o as usize]).collect();
                self.graph.set_neighbours(slot, layer, &list);
                for other in
                    list.iter().filter(|other| layer == 0 && nodes[**other as usize].order > nodes[slot as usize].order)
                {
                    self.graph.elders(*other).fetch_add(1, Ordering::Relaxed);
                }
            }
            if is_kept {
                order += 1;
                self.graph.set_order(slot, order);
                if order == Graph::FIRST_ORDER {
                    self.graph.set_first(slot);
                }
                let entry = Entry { slot, level };
                if self.graph.enter_first(entry).is_err() {
                    self.graph.enter_higher(entry);
                }
            }
        }
        self.graph.set_orders(order);
    }
}

fn load_nodes(source: &mut dyn ArenaSource, header: &Header) -> Result<Vec<Node>, LoadError> {
    let mut reader = Reader::open(source, NODES, u64::from(header.slots) * NODE_BYTES as u64)?;
    let mut nodes: Vec<Node> = Vec::new();
    let mut blocks = 0u64;
    for slot in 0..header.slots {
        let order = u32::from_le_bytes(reader.array()?);
        let [level, flags, zeros @ ..] = reader.array::<4>()?;
        let fail =
            |field, value: u32, limit: &str| Err(invalid(NODES, field, value.into(), format!("slot {slot}: {limit}")));
        if usize::from(level) > LEVEL_MAX {
            return fail("level", level.into(), &format!("at most {LEVEL_MAX} is possible"));
        }
        let is_possible = match flags {
            0 => level == 0,
            _ => flags & STORED != 0 && flags & !(STORED | LINKED | BURIED) == 0,
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
    reader.finish()?;
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

impl<'s> Reader<'s> {
    fn open(source: &'s mut dyn ArenaSource, arena: &'static str, expected: u64) -> Result<Self, LoadError> {
        let stream = source.open(arena).map_err(|source| LoadError::Io { arena, source })?;
        let stream = stream.ok_or(LoadError::Missing { arena })?;
        Ok(Self { arena, source: BufReader::with_capacity(BUFFER_BYTES, stream), got: 0, expected })
    }

    fn read(&mut self, mut bytes: &mut [u8]) -> Result<(), LoadError> {
        let arena = self.arena;
        while !bytes.is_empty() {
            match self.source.read(bytes) {
                Ok(0) => return Err(LoadError::Truncated { arena, got: self.got, expected: self.expected }),
                Ok(count) => {
                    self.got += count as u64;
                    bytes = &mut bytes[count..];
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(LoadError::Io { arena, source }),
            }
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LoadError> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// The arena must end here.
    fn finish(mut self) -> Result<(), LoadError> {
        let (arena, expected) = (self.arena, self.expected);
        match self.read(&mut [0]) {
            Err(LoadError::Truncated { .. }) => Ok(()),
            Ok(()) => Err(LoadError::Trailing { arena, expected }),
            Err(error) => Err(error),
        }
    }
}

fn invalid(arena: &'static str, field: &'static str, value: u64, limit: String) -> LoadError {
    LoadError::Invalid { arena, field, value, limit }
}

/// The format of dumps from before there were profiles: the same, with zeros in the place of profile and model.
const FORMAT_WITHOUT_PROFILE: u16 = 1;
/// Bytes asked of the source at once.
const BUFFER_BYTES: usize = 64 * 1024;
