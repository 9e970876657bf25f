//! The index as a whole, with a view of its graph that callers do not have.

mod churn;
mod compact;
mod concurrent;
mod fast;
mod garbage;
mod graph;
mod hard;
mod kinds;
mod model;
mod recall;
mod reload;
mod room;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::Range;

use crate::{
    ArenaPieces, ArenaSink, ArenaSource, Hit, Index, Metric, PIECE_MULTIPLE, Params, Profile, SearchOptions, Slot,
    SlotBits, SlotFilter,
};

/// Vectors around a few centres, as real embeddings lie.
fn clustered(count: usize, dim: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let centres: Vec<Vec<f32>> = (0..40).map(|_| (0..dim).map(|_| random.f32() * 2.0 - 1.0).collect()).collect();
    let mut vector = || {
        let centre = random.choice(&centres).unwrap().clone();
        centre.into_iter().map(|value| value + 0.4 * (random.f32() + random.f32() + random.f32() - 1.5)).collect()
    };
    (0..count).map(|_| vector()).collect()
}

/// Vectors spread evenly over a cube.
fn uniform(count: usize, dim: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| (0..dim).map(|_| random.f32() * 2.0 - 1.0).collect()).collect()
}

fn store_all(index: &Index, slots: Range<Slot>, vectors: &[Vec<f32>]) {
    for (slot, vector) in slots.zip(vectors) {
        index.store(slot, vector).unwrap();
    }
}

fn link_all(index: &Index) {
    while let Some(slot) = index.next_unlinked() {
        index.link(slot);
    }
}

/// Makes the codes of an index that was loaded.
fn warm_all(index: &Index) {
    while index.warm(100) {}
    assert_eq!(index.warming(), None);
}

fn built(params: Params, vectors: &[Vec<f32>]) -> Index {
    let index = Index::new(Params { flat_live_max: Some(0), ..params }).unwrap();
    store_all(&index, 0..vectors.len() as Slot, vectors);
    link_all(&index);
    assert_eq!(index.unlinked(), 0);
    index
}

/// A search that walks however small the index is.
fn walked(index: &Index, query: &[f32], options: &SearchOptions<'_>) -> Vec<Hit> {
    index.answer(query, options, |_, _, _| false).unwrap()
}

/// The slots that layer 0 leads to from one slot.
fn reached(index: &Index, from: Slot) -> HashSet<Slot> {
    let mut reached = HashSet::from([from]);
    let mut waiting = vec![from];
    while let Some(slot) = waiting.pop() {
        waiting.extend(index.parts.graph.neighbours(slot, 0).filter(|other| reached.insert(*other)));
    }
    reached
}

/// Checks what must hold of every graph at rest: links are to linked slots, once each, on layers that they have;
/// the anchors are counted right; and every linked slot can be reached from the first, and from the entry.
fn check_graph(index: &Index) {
    if let Some(first) = check_links(index) {
        let entry = index.parts.graph.entry().unwrap();
        check_reached(index, first);
        check_reached(index, entry.slot);
    }
}

/// Every linked slot can be reached from this one.
fn check_reached(index: &Index, from: Slot) {
    let reached = reached(index, from);
    let linked = (0..index.slots() as Slot).filter(|slot| index.parts.states.is_linked(*slot));
    let lost: Vec<Slot> = linked.filter(|slot| !reached.contains(slot)).collect();
    assert!(lost.is_empty(), "{} slots cannot be reached from {from}: {lost:?}", lost.len());
}

/// All of that but what can be reached. Gives the first slot.
fn check_links(index: &Index) -> Option<Slot> {
    let linked: Vec<Slot> = (0..index.slots() as Slot).filter(|slot| index.parts.states.is_linked(*slot)).collect();
    let mut anchors: BTreeMap<Slot, u32> = BTreeMap::new();
    for slot in &linked {
        for layer in 0..=index.parts.graph.level(*slot) {
            let list: Vec<Slot> = index.parts.graph.neighbours(*slot, layer).collect();
            assert_eq!(list.iter().collect::<HashSet<_>>().len(), list.len(), "{slot} links twice to one slot");
            for other in list {
                assert_ne!(other, *slot, "{slot} links to itself");
                assert!(index.parts.states.is_linked(other), "{slot} links to {other}, which is not linked");
                assert!(index.parts.graph.level(other) >= layer, "{slot} links to {other} on layer {layer}");
                if layer == 0 && index.parts.graph.order(*slot) < index.parts.graph.order(other) {
                    *anchors.entry(other).or_default() += 1;
                }
            }
        }
    }
    for slot in &linked {
        let counted = index.parts.graph.anchors(*slot).load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(counted, anchors.get(slot).copied().unwrap_or(0), "anchors of {slot}");
    }
    let first = linked.iter().min_by_key(|slot| index.parts.graph.order(**slot)).copied()?;
    let entry = index.parts.graph.entry().unwrap();
    assert_eq!(Some(entry.level), linked.iter().map(|slot| index.parts.graph.level(*slot)).max());
    Some(first)
}

/// Every linked slot has the codes that it would have, had they been made in peace.
fn check_codes(index: &Index) {
    let generation = index.parts.codes.fast().unwrap().keep().unwrap();
    let linked = || (0..index.slots() as Slot).filter(|slot| index.parts.states.is_linked(*slot));
    let found: Vec<_> = linked().map(|slot| generation.codes_of(&index.parts.graph, slot)).collect();
    let mut seen = Default::default();
    for (slot, found) in linked().zip(found) {
        generation.encode(&index.parts.rows, &index.parts.graph, slot, &mut seen);
        assert!(found == generation.codes_of(&index.parts.graph, slot), "the codes of slot {slot}");
    }
}

/// Share of the exact answers that walks find.
fn recall(index: &Index, queries: &[Vec<f32>], k: usize, ef: usize) -> f64 {
    let mut found = 0;
    for query in queries {
        let options = SearchOptions::new(k, ef);
        let exact: HashSet<Slot> = slots(&index.search_exact(query, &options).unwrap()).into_iter().collect();
        found += slots(&walked(index, query, &options)).iter().filter(|slot| exact.contains(slot)).count();
    }
    found as f64 / (k * queries.len()) as f64
}

fn slots(hits: &[Hit]) -> Vec<Slot> {
    hits.iter().map(|hit| hit.slot).collect()
}

fn params(dim: usize, metric: Metric) -> Params {
    Params { ef_construction: 100, seed: 3, flat_live_max: Some(0), ..Params::new(dim, metric) }
}

/// The arenas of a dump, in memory.
#[derive(Clone, Debug, Default, PartialEq)]
struct Arenas {
    arenas: BTreeMap<String, Vec<u8>>,
    last: String,
}

impl Arenas {
    fn of(index: &Index) -> Self {
        let mut arenas = Self::default();
        index.dump(&mut arenas).unwrap();
        arenas
    }
}

impl ArenaSink for Arenas {
    fn begin(&mut self, arena: &str) -> io::Result<()> {
        assert!(self.arenas.insert(arena.into(), Vec::new()).is_none(), "{arena} begins twice");
        self.last = arena.into();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.arenas.get_mut(&self.last).unwrap().extend(bytes);
        Ok(())
    }
}

impl ArenaSource for Arenas {
    fn open<'s>(&'s self, arena: &str) -> io::Result<Option<Box<dyn ArenaPieces + 's>>> {
        Ok(self.arenas.get(arena).map(|bytes| Box::new(Piece(bytes)) as Box<dyn ArenaPieces>))
    }
}

/// An arena in the shortest pieces there can be, so that most vectors and lists lie in two.
struct Piece<'s>(&'s [u8]);

impl ArenaPieces for Piece<'_> {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn piece_bytes(&self) -> usize {
        PIECE_MULTIPLE
    }

    fn read(&self, piece: u64, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        into.extend(self.0.chunks(PIECE_MULTIPLE).nth(piece as usize).unwrap_or_default());
        Ok(())
    }
}
