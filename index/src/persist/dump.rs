//! Writing an index out while it is in use.
//!
//! The arenas, their bytes and what stands for slots that hold nothing are drawn in `docs/disk.md`. Rounds of
//! consolidation wait until the dump is written, and nothing that it names becomes vacant meanwhile.
//!
//! Which slots are linked is captured first, and links to others are left out of what follows. Each list is copied
//! under its lock, but lists change between one copy and the next; so a node may have lost its last link in the dump,
//! and loading finds such nodes and hands them out to be linked again.

use std::io;

use crate::index::Index;
use crate::params::{Metric, Params, Profile};
use crate::persist::arenas::ArenaSink;
use crate::slot::Slot;

/// Name of the arena of the header.
pub(crate) const HEADER: &str = "header";
/// Name of the arena of orders, levels and flags.
pub(crate) const NODES: &str = "nodes";
/// Name of the arena of vectors.
pub(crate) const VECTORS: &str = "vectors";
/// Name of the arena of links of layer 0.
pub(crate) const LINKS0: &str = "links0";
/// Name of the arena of links of the layers above.
pub(crate) const UPPER: &str = "upper";
/// Name of the arena of the model that codes are made by.
pub(crate) const MODEL: &str = "model";
/// What a header begins with.
pub(crate) const MAGIC: [u8; 6] = *b"VECIDX";
/// The format that is written.
pub(crate) const FORMAT: u16 = 2;
/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 64;
/// Bytes of the arena `nodes` for each slot.
pub const NODE_BYTES: usize = 8;
/// Flag of a slot that holds a vector.
pub(crate) const STORED: u8 = 1;
/// Flag of a slot that is in the graph.
pub(crate) const LINKED: u8 = 2;
/// Flag of a slot that is deleted and still in place.
pub(crate) const DELETED: u8 = 4;
/// Bytes handed to the sink at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Name and bytes of one arena in the making.
struct Writer<'a> {
    sink: &'a mut dyn ArenaSink,
    buffer: Vec<u8>,
}

impl Index {
    /// Writes the index out, as arenas of little-endian values, while inserts, deletions and searches go on. What is
    /// stored after the call began may be missing; what was linked before it is complete.
    pub fn dump(&self, sink: &mut dyn ArenaSink) -> io::Result<()> {
        let _pause = self.rounds.pause();
        let _reading = self.reading();
        let mut flags: Vec<u8> = (0..self.parts.states.slots()).map(|slot| self.dump_flags(slot)).collect();
        flags.truncate(flags.iter().rposition(|flags| flags & STORED != 0).map_or(0, |last| last + 1));
        let slots = flags.len() as Slot;
        let generation = self.parts.codes.hold().edges.filter(|_| slots > 0);
        let learned = generation.as_ref().map_or(0, |generation| slots.min(generation.slots as Slot));
        let is_linked = |slot: Slot| flags.get(slot as usize).is_some_and(|flags| flags & LINKED != 0);
        let level = |slot: Slot| if flags[slot as usize] & STORED == 0 { 0 } else { self.parts.graph.level(slot) };
        let blocks: usize = (0..slots).map(level).sum();

        let mut writer = Writer { sink, buffer: Vec::with_capacity(BUFFER_BYTES) };
        writer.begin(HEADER)?;
        let mut header = [MAGIC.as_slice(), &FORMAT.to_le_bytes()].concat();
        let Params { dim, metric, m, profile, .. } = self.parts.params;
        for value in [dim as u32, metric_code(metric), m as u32, slots, blocks as u32, profile_code(profile), learned] {
            header.extend(value.to_le_bytes());
        }
        header.resize(HEADER_BYTES, 0);
        writer.write(&header)?;

        writer.begin(NODES)?;
        for slot in 0..slots {
            let order = if is_linked(slot) { self.parts.graph.order(slot) } else { 0 };
            writer.write(&order.to_le_bytes())?;
            writer.write(&[level(slot) as u8, flags[slot as usize], 0, 0])?;
        }

        writer.begin(VECTORS)?;
        let skipped = vec![0.0; self.parts.params.dim];
        for slot in 0..slots {
            let is_stored = flags[slot as usize] & STORED != 0;
            for value in if is_stored { self.parts.rows.vector(slot) } else { &skipped } {
                writer.write(&value.to_le_bytes())?;
            }
        }

        writer.begin(LINKS0)?;
        for slot in 0..slots {
            self.dump_links(&mut writer, slot, 0, is_linked)?;
        }
        writer.begin(UPPER)?;
        for slot in 0..slots {
            for layer in 1..=level(slot) {
                self.dump_links(&mut writer, slot, layer, is_linked)?;
            }
        }
        if let Some(generation) = generation {
            writer.begin(MODEL)?;
            generation.model().values().try_for_each(|value| writer.write(&value.to_le_bytes()))?;
        }
        writer.flush()
    }

    fn dump_flags(&self, slot: Slot) -> u8 {
        if !self.parts.states.is_stored(slot) || self.parts.states.is_retired(slot) {
            return 0;
        }
        let linked = if self.parts.states.is_linked(slot) { LINKED } else { 0 };
        let deleted = if self.parts.states.is_live(slot) { 0 } else { DELETED };
        STORED | linked | deleted
    }

    fn dump_links(
        &self,
        writer: &mut Writer<'_>,
        slot: Slot,
        layer: usize,
        is_linked: impl Fn(Slot) -> bool,
    ) -> io::Result<()> {
        let mut links = vec![0u32; self.parts.graph.degree_max(layer)];
        if is_linked(slot) {
            let _locked = self.parts.states.lock(slot);
            let neighbours = self.parts.graph.neighbours(slot, layer).filter(|other| is_linked(*other));
            for (link, neighbour) in links.iter_mut().zip(neighbours) {
                *link = neighbour + 1;
            }
        }
        links.iter().try_for_each(|link| writer.write(&link.to_le_bytes()))
    }
}

impl Writer<'_> {
    fn begin(&mut self, arena: &str) -> io::Result<()> {
        self.flush()?;
        self.sink.begin(arena)
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.sink.write(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// What stands for a metric in the header.
pub(crate) fn metric_code(metric: Metric) -> u32 {
    match metric {
        Metric::Cosine => 1,
        Metric::Euclidean => 2,
        Metric::Dot => 3,
        Metric::Manhattan => 4,
    }
}

/// What stands for a profile in the header.
pub(crate) fn profile_code(profile: Profile) -> u32 {
    match profile {
        Profile::Fast => 1,
        Profile::Compact => 2,
        Profile::Plain => 3,
    }
}
