//! A model, and all codes that were made by it.
#![allow(unsafe_code, reason = "kernels: blocks of an arena are handed over as pointers")]

use std::sync::atomic::{AtomicU32, Ordering};

use crate::codes::fast::model::code;
use crate::codes::fast::{Edge, Layout, Model, Shape};
use crate::kernel::fastscan::{self, LANES, Scan, Table};
use crate::kernel::nibble::{LINE_BYTES, LINE_DIMS, NibbleQuery, Nibbles, nibbles_of};
use crate::kernel::{Kernel, prefetch};
use crate::memory::arena::{Arena, NoMemory};
use crate::memory::graph::Graph;
use crate::memory::rows::{QueryVector, Rows};
use crate::params::Metric;
use crate::slot::Slot;

/// How far estimates are lowered, in distances of the query: about half of their noise. Measured: with none a walk needs a
/// tenth more `ef` for the same recall, with twice as much it measures a fifth more nodes.
const MARGIN: f32 = 0.3;
/// Deviations of the error of codes beyond which nodes are not looked for among the nearest.
const REACH: f32 = 3.0;
/// Codes that are off by this share of the distances are too coarse. Those of usual data are off by a twentieth.
const COARSE: f32 = 0.25;
/// Nodes measured by one call of a kernel.
const BATCH: usize = 32;
/// Words of a cache line.
const LINE_WORDS: usize = 16;

/// A model, and all codes that were made by it.
pub(crate) struct Generation {
    /// Counts generations.
    pub number: u64,
    /// How many slots there were when it was made.
    pub slots: usize,
    model: Model,
    metric: Metric,
    layout: Layout,
    scan: Scan,
    nibbles: Nibbles,
    edges: Arena<AtomicU32>,
    nodes: Arena<AtomicU32>,
}

/// A query as the codes of edges and of nodes are asked by it.
#[derive(Default)]
pub(crate) struct FastQuery {
    projected: Vec<f32>,
    table: Table,
    nibbles: NibbleQuery,
}

/// Projected vectors of the slots that one insertion deals with.
#[derive(Default)]
pub(crate) struct Projections {
    generation: u64,
    slots: Vec<Slot>,
    values: Vec<f32>,
}

impl Generation {
    /// A generation without codes, for nodes of up to `lanes` links.
    pub fn new(number: u64, slots: usize, model: Model, metric: Metric, lanes: usize, kernel: Kernel) -> Self {
        let layout = Layout { lanes, dims: model.shape().dims };
        let [edge_words, node_words] = Self::words_per_slot(model.shape(), lanes);
        Self {
            number,
            slots,
            model,
            metric,
            layout,
            scan: fastscan::scan_of(kernel),
            nibbles: nibbles_of(kernel),
            edges: Arena::new("edge codes", edge_words),
            nodes: Arena::new("node codes", node_words),
        }
    }

    /// Words that a slot takes of the arena of edge codes, and of that of node codes.
    pub fn words_per_slot(shape: Shape, lanes: usize) -> [usize; 2] {
        let nodes = shape.span.div_ceil(LINE_DIMS) * LINE_BYTES / size_of::<u32>();
        [Layout { lanes, dims: shape.dims }.words(), nodes]
    }

    /// The distance by code of a vector to itself; `None` where distances have no such beginning.
    pub fn origin(&self) -> Option<f32> {
        (self.metric != Metric::Dot).then_some(0.0)
    }

    /// What the codes were made by.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Makes room for the codes of a slot.
    pub fn reserve(&self, slot: Slot) -> Result<(), NoMemory> {
        self.edges.reserve(slot)?;
        self.nodes.reserve(slot)
    }

    /// Writes the code of a node, before anything links to it.
    pub fn write_node(&self, rows: &Rows, slot: Slot, seen: &mut Projections) {
        let place = seen.place(self, rows, slot);
        let span = self.model.shape().span;
        let inverse = 1.0 / self.model.step();
        let lines = self.nodes.get(slot).chunks_exact(LINE_BYTES / size_of::<u32>());
        for (words, values) in lines.zip(seen.values[place * span..][..span].chunks(LINE_DIMS)) {
            let mut bytes = [0u8; LINE_BYTES];
            for (at, value) in values.iter().enumerate() {
                bytes[at % LINE_BYTES] |= code(*value, inverse) << (at / LINE_BYTES * 4);
            }
            for (word, bytes) in words.iter().zip(bytes.as_chunks().0) {
                word.store(u32::from_le_bytes(*bytes), Ordering::Relaxed);
            }
        }
    }

    /// Writes the code of an edge into a lane of a node whose lock the caller holds.
    pub fn write_edge(&self, rows: &Rows, seen: &mut Projections, lane: usize, from: Slot, to: Slot) {
        let span = self.model.shape().span;
        let places = [from, to].map(|slot| seen.place(self, rows, slot));
        let [near, far] = places.map(|place| &seen.values[place * span..][..span]);
        let edge = Edge::new(near, far, self.layout.dims, self.model.slope());
        let edge = if self.metric == Metric::Dot { edge.of_product() } else { edge };
        self.layout.write(self.edges.get(from), lane, &edge);
    }

    /// Copies the code of an edge to another lane of a node whose lock the caller holds.
    pub fn move_edge(&self, node: Slot, from: usize, to: usize) {
        let block = self.edges.get(node);
        self.layout.write(block, to, &self.layout.read(block, from));
    }

    /// Makes the codes of a node and of all its edges, where nobody else writes.
    pub fn encode(&self, rows: &Rows, graph: &Graph, slot: Slot, seen: &mut Projections) {
        seen.clear();
        self.encode_seen(rows, graph, slot, seen);
    }

    /// Projects a node and its neighbours ahead of [`Self::encode_seen`].
    pub fn project(&self, rows: &Rows, graph: &Graph, slot: Slot, seen: &mut Projections) {
        seen.clear();
        seen.place(self, rows, slot);
        for to in graph.neighbours(slot, 0) {
            seen.place(self, rows, to);
        }
    }

    /// Makes the codes of a node and of all its edges. Nobody else writes, or the caller holds the node's lock.
    pub fn encode_seen(&self, rows: &Rows, graph: &Graph, slot: Slot, seen: &mut Projections) {
        self.write_node(rows, slot, seen);
        for (lane, to) in graph.neighbours(slot, 0).enumerate() {
            self.write_edge(rows, seen, lane, slot, to);
        }
    }

    /// The codes of a node and of its edges.
    #[cfg(test)]
    pub fn codes_of(&self, graph: &Graph, slot: Slot) -> (Vec<u32>, Vec<Edge>) {
        let node = self.nodes.get(slot).iter().map(|word| word.load(Ordering::Relaxed)).collect();
        let lanes = 0..graph.neighbours(slot, 0).count();
        (node, lanes.map(|lane| self.layout.read(self.edges.get(slot), lane)).collect())
    }

    /// Prepares a query.
    pub fn ask(&self, query: QueryVector<'_>, prepared: &mut FastQuery) {
        let FastQuery { projected, table, nibbles } = prepared;
        let shape = self.model.shape();
        projected.resize(shape.span, 0.0);
        self.model.project(query.values(), self.scale(query), self.metric != Metric::Dot, projected);
        table.set(&projected[..shape.dims]);
        let (unit, sum) = nibbles.set(projected);
        let step = self.model.step();
        // A code u stands for (u - 7.5) steps.
        let to_products = unit * step * 7.5 * sum as f32;
        if self.metric == Metric::Dot {
            (nibbles.product, nibbles.square, nibbles.base) = (-unit * step, 0.0, to_products);
        } else {
            let norm: f32 = projected.iter().map(|value| value * value).sum();
            nibbles.product = -2.0 * unit * step;
            nibbles.square = step * step;
            nibbles.base = norm + 2.0 * to_products + step * step * 56.25 * shape.span as f32;
        }
    }

    /// Distances of nodes by their codes, in their order, into `out`, which is as long as `slots`.
    #[inline]
    pub fn distances(&self, query: &FastQuery, slots: &[Slot], out: &mut [f32]) {
        for (slots, out) in slots.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            let mut pointers = [std::ptr::null::<u8>(); BATCH];
            let mut is_missing = false;
            for (pointer, slot) in pointers.iter_mut().zip(slots) {
                let code = self.nodes.get(*slot);
                // A slot that was stored after the next generation took over has no code here. The query's own bytes are
                // read in its place.
                let has_code = size_of_val(code) >= query.nibbles.row_bytes();
                is_missing |= !has_code;
                *pointer = if has_code { code.as_ptr().cast() } else { query.nibbles.as_ptr() };
            }
            // SAFETY: each pointer is readable for as many bytes as the query's lines ask for, and the kernel was checked
            // when the index was made. The code of a node is written before the first link to the node, and again only
            // after every reader that could know of the slot has left; so nobody writes what is read here.
            unsafe { (self.nibbles)(&query.nibbles, &pointers[..slots.len()], out) };
            if is_missing {
                for (slot, out) in slots.iter().zip(out) {
                    if size_of_val(self.nodes.get(*slot)) < query.nibbles.row_bytes() {
                        *out = f32::MAX;
                    }
                }
            }
        }
    }

    /// The distance by code up to which a node may be nearer than the farthest of those whose distances are given by
    /// code and by vector.
    pub fn reach(&self, coded: impl Iterator<Item = f32> + Clone, exact: &[f32]) -> f32 {
        let count = exact.len() as f32;
        let errors = coded.zip(exact).map(|(coded, exact)| coded - self.lifted(*exact));
        let offset = errors.clone().sum::<f32>() / count;
        let variance = errors.map(|error| (error - offset) * (error - offset)).sum::<f32>() / count;
        let farthest = exact.iter().map(|exact| self.lifted(*exact)).fold(f32::NEG_INFINITY, f32::max);
        farthest + offset + REACH * variance.sqrt()
    }

    /// A distance by vector in the scale of distances by code.
    #[inline(always)]
    fn lifted(&self, exact: f32) -> f32 {
        if self.metric == Metric::Cosine { 2.0 + 2.0 * exact } else { exact }
    }

    /// Whether these distances by codes are too far from those of the vectors to go by: what was looked for lies so near
    /// together, seen from everything else, that four bits a dimension cannot tell it apart.
    pub fn is_coarse(&self, coded: impl Iterator<Item = f32> + Clone, exact: &[f32]) -> bool {
        let count = exact.len() as f32;
        let errors = coded.zip(exact).map(|(coded, exact)| coded - self.lifted(*exact));
        // Under dot all of them are off by the query's product with the mean.
        let offset = if self.metric == Metric::Dot { errors.clone().sum::<f32>() / count } else { 0.0 };
        let error = errors.map(|error| (error - offset).abs()).sum::<f32>() / count;
        let size = exact.iter().map(|exact| self.lifted(*exact).abs()).sum::<f32>() / count;
        error > COARSE * size
    }

    /// Estimates the distances of the neighbours in one part of a node's lanes, the node being `offset` away; a bit for
    /// each that is below `bound`.
    #[inline(always)]
    pub fn estimate(
        &self,
        query: &FastQuery,
        node: Slot,
        part: usize,
        offset: f32,
        bound: f32,
        estimates: &mut [f32; LANES],
    ) -> u32 {
        let words = self.layout.part_words();
        let Some(part) = self.edges.get(node).get(part * words..(part + 1) * words) else {
            // The node was stored after the next generation took over: nothing is known of its neighbours here.
            return 0;
        };
        let codes = &part[LANES..];
        assert!(query.table.code_bytes() <= size_of_val(codes));
        let mut job = query.table.job(codes.as_ptr().cast(), part.as_ptr().cast(), offset, bound);
        if self.metric != Metric::Dot {
            // The noise of the signs grows with the query's distance from the node. Factors are negative: this lowers
            // all estimates, the more the longer the edge, so that fewer near neighbours are missed.
            job.base += MARGIN * offset.max(0.0).sqrt();
        }
        // SAFETY: a part begins with two factors of 16 bits for each lane, then come as many bytes of codes as were just
        // compared; a part is whole cache lines of an arena, which begin on one. The kernel was checked when the index was
        // made. Linkers may change the part meanwhile, word by word, and the kernel's loads are plain: this is the one
        // deliberate data race of the house (ARCHITECTURE.md, "Unsafe code"). An estimate may then be wrong, and what is
        // found by it is measured by its own code.
        unsafe { (self.scan)(&job, estimates) }
    }

    /// Asks for the codes of a node's edges ahead of their use.
    #[inline(always)]
    pub fn prefetch_edges(&self, slot: Slot) {
        let block = self.edges.get(slot);
        for line in 0..block.len() / LINE_WORDS {
            prefetch(block.as_ptr().wrapping_add(line * LINE_WORDS));
        }
    }

    /// Asks for the code of a node ahead of its use.
    #[inline(always)]
    pub fn prefetch_node(&self, slot: Slot) {
        let code = self.nodes.get(slot);
        for line in 0..code.len() / LINE_WORDS {
            prefetch(code.as_ptr().wrapping_add(line * LINE_WORDS));
        }
    }

    /// Bytes of memory that the codes of `slots` slots take.
    pub fn bytes(&self, slots: usize) -> usize {
        self.edges.bytes(slots) + self.nodes.bytes(slots) + self.model.bytes()
    }

    /// What vectors are multiplied with before they are projected.
    fn scale(&self, query: QueryVector<'_>) -> f32 {
        if self.metric == Metric::Cosine { query.norm() } else { 1.0 }
    }
}

impl Projections {
    /// Forgets what it has seen.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.values.clear();
    }

    fn place(&mut self, generation: &Generation, rows: &Rows, slot: Slot) -> usize {
        if self.generation != generation.number {
            self.clear();
            self.generation = generation.number;
        }
        if let Some(place) = self.slots.iter().position(|seen| *seen == slot) {
            return place;
        }
        let span = generation.model.shape().span;
        let place = self.slots.len();
        self.slots.push(slot);
        self.values.resize((place + 1) * span, 0.0);
        let query = rows.query(slot);
        generation.model.project(query.values(), generation.scale(query), true, &mut self.values[place * span..]);
        place
    }
}
