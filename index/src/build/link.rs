//! Inserting nodes into the graph: the paper's INSERT (algorithm 1) with its heuristic choice of neighbours
//! (algorithm 4), by any number of threads at once.
//!
//! A node's own links are complete on all its layers before any other node links to it, and the layers are then
//! joined from the lowest up, so that a walk that meets a new node always finds a way on. Nodes that are linked at the
//! same time may not see each other: each is told of the others, and of two the later one links to the earlier as it would
//! have, had it come after it.
//!
//! Pruning may cut the last link to a node. Here it never does: a node counts its *anchors*, the layer-0 links that lead to it from
//! nodes that were linked before it, and the last of them is not given up. Following anchors back from any
//! node ends at the first one, so every node can be reached from there; and the entry keeps a link to the first.
//!
//! New nodes link to live ones. Nodes that are to leave the graph ([`consolidate`](crate::build::consolidate)) have no anchors, and
//! links from them are none.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use crate::codes::chosen::Codes;
use crate::codes::codec::Codec;
use crate::codes::fast::{Generation, Projections};
use crate::codes::plain::Plain;
use crate::memory::graph::{Entry, Graph};
use crate::memory::rows::Rows;
use crate::memory::states::States;
use crate::search::growth::Growth;
use crate::search::pool::key;
use crate::search::scratch::Scratch;
use crate::search::walk::{Scorer, Walk};
use crate::search::walk_memory::WalkMemory;
use crate::slot::Slot;

/// Where there are deleted nodes, a walk for neighbours measures at most this many nodes for each of its candidates: in a graph
/// of mostly deleted ones it would not end before all of them.
const WALK_PER_EF: usize = 64;
/// A candidate gives way only to one that is nearer to it by this factor than the base is, as in Vamana (Subramanya et al.
/// 2019).
const ALPHA: f32 = 1.03;
/// Where there are codes, a new node leaves this share of its list to those that come later.
const SPARED_SHARE: usize = 4;
/// Where there are codes, a full list that is pruned leaves this share of it free: the next few links need no pruning.
const ROOM_SHARE: usize = 8;
/// Nearest candidates that codes are judged by.
const COARSE_SAMPLE: usize = 32;
/// Chosen neighbours that a candidate is measured against at once: the first few settle most cases.
const PAIRS: usize = 4;

/// Inserts nodes.
pub(crate) struct Linker<'a> {
    pub rows: &'a Rows,
    pub graph: &'a Graph,
    pub states: &'a States,
    /// What walks go by.
    pub codes: &'a Codes,
    /// The codes beside links, in use or in the making, if there are any.
    pub edges: Option<&'a Generation>,
    pub m: usize,
    pub ef_construction: usize,
    /// Whether there is nothing live to link to.
    pub lonely: Cell<bool>,
    /// How far walks go.
    pub growth: &'a Growth,
}

/// A neighbour and how far it is.
pub(crate) type Near = (f32, Slot);

impl Linker<'_> {
    /// Inserts a slot that is stored, and that nobody else inserts.
    pub fn link(&self, slot: Slot, scratch: &mut Scratch) {
        let level = self.graph.level(slot);
        let new = Entry { slot, level };
        scratch.projections.clear();
        if let Some(generation) = self.edges {
            generation.write_node(self.rows, slot, &mut scratch.projections);
        }
        if self.graph.entry().is_none() {
            self.graph.set_order(slot, Graph::FIRST_ORDER);
            if self.graph.enter_first(new).is_ok() {
                self.graph.set_first(slot);
                return;
            }
        }
        let mut nearest = Vec::new();
        self.graph.take_order(slot);
        let Some(entry) = self.graph.entry() else { return };
        self.lonely.set(false);
        let mut chosen = self.neighbours(new, entry, scratch, &mut nearest);
        if nearest.is_empty() {
            self.lonely.set(true);
            chosen = self.neighbours(new, entry, scratch, &mut nearest);
        }
        if self.states.is_churned() {
            self.lead_far(&mut chosen);
        }
        let seen = &mut scratch.projections;
        for (layer, chosen) in chosen.iter().enumerate() {
            let _locked = self.states.lock(slot);
            for near in chosen {
                self.add(slot, *near, layer, seen);
            }
        }
        for (layer, chosen) in chosen.iter().enumerate() {
            for (distance, other) in chosen {
                let _locked = self.states.lock(*other);
                self.add(*other, (*distance, slot), layer, seen);
            }
        }
        if self.graph.anchors(slot).load(Ordering::Acquire) == 0 {
            self.adopt(slot, &nearest, seen);
        }
        if self.graph.enter_higher(new) {
            self.lead_to_first(new, seen);
        }
    }

    /// Links a node that has come to be linked with those that were linked at the same time: neither may have seen the
    /// other, and a third that leads to both would leave one of them to the other.
    pub fn meet(&self, slot: Slot, met: &[Slot], scratch: &mut Scratch) {
        let is_there = |other: &&Slot| self.states.is_linked(**other) && self.may_link(**other);
        let met: Vec<Slot> = met.iter().filter(is_there).copied().collect();
        for layer in 0..=self.graph.level(slot) {
            let new = met.iter().filter(|other| self.graph.level(**other) >= layer).copied();
            let mut candidates: Vec<Slot> = self.graph.neighbours(slot, layer).collect();
            let before = candidates.len();
            candidates.extend(new);
            if candidates.len() == before {
                return;
            }
            let mut near = self.measured(slot, &candidates);
            near.sort_unstable_by_key(|(distance, slot)| key(*distance, *slot));
            near.dedup();
            for chosen in self.choose(&near, self.graph.degree_max(layer)) {
                if met.contains(&chosen.1) {
                    for (from, to) in [(slot, chosen.1), (chosen.1, slot)] {
                        let _locked = self.states.lock(from);
                        self.add(from, (chosen.0, to), layer, &mut scratch.projections);
                    }
                }
            }
        }
    }

    /// Links the entry to the first node.
    pub fn lead_to_first(&self, entry: Entry, seen: &mut Projections) {
        let first = loop {
            match self.graph.first() {
                Some(first) => break first,
                // Another thread has just made it the entry, and is about to.
                None => std::hint::spin_loop(),
            }
        };
        if entry.slot != first {
            self.force(entry.slot, first, seen);
        }
    }

    /// Gives a node of the upper layers links to its neighbours there on layer 0 too. In a graph that is built at once, the
    /// first nodes link to what is far away, for there is nothing nearer, and walks depend on it. Where others have come in
    /// their place, all would know only what is near.
    fn lead_far(&self, chosen: &mut [Vec<Near>]) {
        let [base, upper @ ..] = chosen else { return };
        let far: Vec<Near> = upper.iter().rev().flatten().copied().collect();
        let mut far: Vec<Near> = far.into_iter().filter(|near| !base.contains(near)).collect();
        far.dedup();
        far.truncate(self.m);
        base.truncate(self.graph.degree_max(0) - far.len());
        base.extend(far);
    }

    /// The neighbours to link a new node to, layer by layer from 0, and all candidates for layer 0.
    fn neighbours(&self, new: Entry, entry: Entry, scratch: &mut Scratch, nearest: &mut Vec<Near>) -> Vec<Vec<Near>> {
        let Scratch { memory, codes, .. } = scratch;
        let chosen = match self.codes {
            Codes::Plain(_) => None,
            Codes::Fast(codec) => self.neighbours_by(codec, &mut codes.fast, new, entry, memory, nearest),
            Codes::Scalar(codec) => self.neighbours_by(codec, &mut codes.scalar, new, entry, memory, nearest),
        };
        let exact = || self.neighbours_by(&Plain, &mut (), new, entry, memory, nearest);
        chosen.or_else(exact).unwrap_or_default()
    }

    /// The same by one way to code vectors. `None` if there are no codes, or if they cannot tell apart what is nearest.
    fn neighbours_by<C: Codec>(
        &self,
        codec: &C,
        kept: &mut C::Memory,
        new: Entry,
        entry: Entry,
        memory: &mut WalkMemory,
        nearest: &mut Vec<Near>,
    ) -> Option<Vec<Vec<Near>>> {
        nearest.clear();
        let chosen = codec.scorer(self.rows, self.rows.query(new.slot), kept).and_then(|scorer| {
            let mut chosen = self.layers(new, entry, scorer, memory, nearest);
            let WalkMemory { pool, distances, .. } = &*memory;
            let sampled = distances.len().min(COARSE_SAMPLE);
            chosen.reverse();
            (!scorer.is_coarse(pool.iter().map(|(distance, _)| distance), &distances[..sampled])).then_some(chosen)
        });
        codec.let_go(kept);
        chosen
    }

    /// Whether a node may be linked to. Where most are deleted, what is live may be out of reach, and anything that stays in
    /// the graph for now is better than nothing.
    fn may_link(&self, slot: Slot) -> bool {
        match self.lonely.get() {
            false => !self.states.any_deleted() || self.states.is_live(slot),
            true => !self.states.is_leaving(slot),
        }
    }

    /// How many nodes a walk may measure.
    fn budget(&self) -> usize {
        if self.states.any_deleted() { WALK_PER_EF * self.ef_construction } else { usize::MAX }
    }

    /// Walks from the entry down to layer 0, and chooses neighbours on each layer that the new node is on, the highest first.
    fn layers<D: Scorer>(
        &self,
        new: Entry,
        entry: Entry,
        scorer: D,
        memory: &mut WalkMemory,
        nearest: &mut Vec<Near>,
    ) -> Vec<Vec<Near>> {
        let mut chosen = Vec::new();
        let top = new.level.min(entry.level);
        let start = Walk { graph: self.graph, scorer }.descend(entry, top, &mut memory.batch, &mut memory.distances);
        memory.pool.begin_walk(self.growth.beam_to_link(self.ef_construction, scorer.origin()));
        memory.pool.insert(start.0, start.1, || self.may_link(start.1));
        for layer in (0..=top).rev() {
            memory.visited.begin(self.states.slots() as usize);
            memory.visited.insert(new.slot);
            memory.pool.rewind();
            for seed in memory.pool.slots() {
                memory.visited.insert(seed);
            }
            scorer.layer(self.graph, layer, memory, self.budget(), |slot| self.may_link(slot));
            self.measure::<D>(new.slot, memory, nearest);
            // Codes measure a whole block of links at once, so nodes that have them begin with most of what they hold.
            let degree = self.graph.degree_max(0);
            let most = if layer == 0 && self.edges.is_some() { degree - degree / SPARED_SHARE } else { self.m };
            chosen.push(self.choose(nearest, most));
        }
        chosen
    }

    /// What the pool holds, nearest first by the vectors themselves.
    fn measure<D: Scorer>(&self, new: Slot, memory: &mut WalkMemory, nearest: &mut Vec<Near>) {
        nearest.clear();
        if D::IS_EXACT {
            nearest.extend(memory.pool.iter());
            return;
        }
        let WalkMemory { pool, batch, distances, .. } = memory;
        batch.clear();
        batch.extend(pool.iter().map(|(_, slot)| slot));
        distances.resize(batch.len(), 0.0);
        self.rows.distances(self.rows.query(new), batch, distances);
        nearest.extend(distances.iter().copied().zip(batch.iter().copied()));
        nearest.sort_unstable_by_key(|(distance, slot)| key(*distance, *slot));
    }

    /// Algorithm 4: of the candidates, nearest first, those that are nearer to the base than to any one chosen
    /// before, or nearly so. Candidates as near to each other as to the base are duplicates, or as good as; one of them is
    /// enough.
    fn choose(&self, candidates: &[Near], most: usize) -> Vec<Near> {
        self.choose_beside(Vec::with_capacity(most), candidates, most, ALPHA)
    }

    /// The same beside what is chosen already. A candidate gives way only to one that is nearer to it by the factor
    /// `far` than the base is: with more than 1, links to what is far away, and that alone leads there, are chosen too.
    pub fn choose_beside(&self, mut chosen: Vec<Near>, candidates: &[Near], most: usize, far: f32) -> Vec<Near> {
        let mut slots: Vec<Slot> = chosen.iter().map(|(_, slot)| *slot).collect();
        let mut distances = [0.0; PAIRS];
        for candidate in candidates {
            if chosen.len() >= most {
                break;
            }
            if far > 1.0 && slots.contains(&candidate.1) {
                continue;
            }
            let query = self.rows.query(candidate.1);
            let reach = self.rows.nearer_by(candidate.0, far);
            let is_shadowed = slots.chunks(PAIRS).zip(chosen.chunks(PAIRS)).any(|(slots, chosen)| {
                let distances = &mut distances[..slots.len()];
                self.rows.distances(query, slots, distances);
                distances
                    .iter()
                    .zip(chosen)
                    .any(|(between, chosen)| *between < reach || (*between == candidate.0 && candidate.0 == chosen.0))
            });
            if !is_shadowed {
                chosen.push(*candidate);
                slots.push(candidate.1);
            }
        }
        chosen
    }

    /// Adds a link from a node whose lock the caller holds, pruning if its list is full.
    fn add(&self, from: Slot, new: Near, layer: usize, seen: &mut Projections) {
        let mut list: Vec<Slot> = self.graph.neighbours(from, layer).collect();
        if new.1 == from || list.contains(&new.1) {
            return;
        }
        if list.len() < self.graph.degree_max(layer) {
            list.push(new.1);
            self.count_in(from, new.1, layer);
            self.set(from, layer, &list, new.1, seen);
            return;
        }
        if let Some(at) = list.iter().position(|other| self.states.is_leaving(*other)) {
            list[at] = new.1;
            self.count_in(from, new.1, layer);
            self.set(from, layer, &list, new.1, seen);
            return;
        }
        let mut distances = vec![0.0; list.len()];
        self.rows.distances(self.rows.query(from), &list, &mut distances);
        let mut near: Vec<Near> = distances.into_iter().zip(list.iter().copied()).chain([new]).collect();
        near.sort_unstable_by_key(|(distance, slot)| key(*distance, *slot));
        let chosen = self.choose(&near, self.degree_pruned(layer));
        let mut kept: Vec<Slot> = chosen.iter().map(|(_, slot)| *slot).collect();
        let is_chosen = kept.contains(&new.1);
        let mut forced = Vec::new();
        for other in list.iter().filter(|other| !kept.contains(other)) {
            if !self.count_out(from, *other, layer) {
                forced.push(*other);
            }
        }
        let mut at = kept.len();
        while kept.len() + forced.len() > self.graph.degree_max(layer) && at > 0 {
            at -= 1;
            if kept[at] == new.1 || self.count_out(from, kept[at], layer) {
                kept.remove(at);
            }
        }
        if is_chosen && kept.contains(&new.1) {
            self.count_in(from, new.1, layer);
        }
        kept.extend(forced);
        self.set(from, layer, &kept, new.1, seen);
    }

    /// Links that a list keeps which was too long.
    pub fn degree_pruned(&self, layer: usize) -> usize {
        let most = self.graph.degree_max(layer);
        if layer == 0 && self.edges.is_some() { most - most / ROOM_SHARE } else { most }
    }

    /// Makes an anchor for a node that no neighbour links to, from the nearest node that can give up another link for it.
    pub fn adopt(&self, slot: Slot, nearest: &[Near], seen: &mut Projections) {
        let order = self.graph.order(slot);
        let may_anchor = |other: Slot| (1..order).contains(&self.graph.order(other)) && !self.states.is_going(other);
        for (_, earlier) in nearest.iter().filter(|(_, other)| may_anchor(*other)) {
            if self.force(*earlier, slot, seen) {
                return;
            }
        }
        // All of them are full of nodes that only they lead to. Those nodes may anchor it too, and so on: somewhere
        // below there is room, for a node that nobody depends on can give up any link.
        for (_, earlier) in nearest.iter().filter(|(_, other)| may_anchor(*other)) {
            let mut at = *earlier;
            loop {
                let turn = slot as usize ^ at as usize;
                let below: Vec<Slot> = self
                    .graph
                    .neighbours(at, 0)
                    .filter(|other| may_anchor(*other) && self.graph.order(*other) > self.graph.order(at))
                    .collect();
                let Some(next) = below.get(turn % below.len().max(1)) else { break };
                at = *next;
                if self.force(at, slot, seen) {
                    return;
                }
            }
        }
        let _ =
            (0..self.states.slots()).filter(|other| may_anchor(*other)).any(|earlier| self.force(earlier, slot, seen));
    }

    /// Adds a layer-0 link whatever it displaces, except for the last link to another node. Whether it did.
    pub fn force(&self, from: Slot, to: Slot, seen: &mut Projections) -> bool {
        let _locked = self.states.lock(from);
        let mut list: Vec<Slot> = self.graph.neighbours(from, 0).collect();
        if from == to || list.contains(&to) {
            return list.contains(&to);
        }
        if list.len() == self.graph.degree_max(0) {
            let Some(at) = (0..list.len()).rev().find(|at| self.count_out(from, list[*at], 0)) else { return false };
            list.remove(at);
        }
        list.push(to);
        self.count_in(from, to, 0);
        self.set(from, 0, &list, to, seen);
        true
    }

    /// Replaces the links of a node whose lock the caller holds. Only `new` may be in the list that was not.
    pub fn set(&self, from: Slot, layer: usize, list: &[Slot], new: Slot, seen: &mut Projections) {
        let Some(generation) = self.edges.filter(|_| layer == 0) else {
            return self.graph.set_neighbours(from, layer, list);
        };
        // Links stay in their lanes, beside their codes, except that the last ones fill the holes.
        let links = self.graph.links(from, 0);
        let mut lanes: Vec<Option<Slot>> =
            self.graph.neighbours(from, 0).map(|slot| Some(slot).filter(|slot| list.contains(slot))).collect();
        let mut count = lanes.iter().flatten().count();
        if list.contains(&new) && !lanes.contains(&Some(new)) {
            let lane = lanes.iter().position(Option::is_none).unwrap_or(lanes.len());
            generation.write_edge(self.rows, seen, lane, from, new);
            links[lane].store(new + 1, Ordering::Release);
            if lane == lanes.len() {
                lanes.push(None);
            }
            lanes[lane] = Some(new);
            count += 1;
        }
        debug_assert_eq!(count, list.len());
        for lane in count..lanes.len() {
            let Some(slot) = lanes[lane] else { continue };
            let Some(hole) = lanes.iter().position(Option::is_none) else { break };
            generation.move_edge(from, lane, hole);
            links[hole].store(slot + 1, Ordering::Release);
            lanes[hole] = Some(slot);
            lanes[lane] = None;
        }
        for link in &links[count..] {
            if link.load(Ordering::Relaxed) != 0 {
                link.store(0, Ordering::Release);
            }
        }
    }

    /// A layer-0 link was added.
    pub fn count_in(&self, from: Slot, to: Slot, layer: usize) {
        if layer == 0 && self.graph.order(from) < self.graph.order(to) && !self.states.is_leaving(to) {
            self.graph.anchors(to).fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether a link may be removed, which it then must be.
    fn count_out(&self, from: Slot, to: Slot, layer: usize) -> bool {
        if layer > 0 || self.states.is_leaving(to) {
            return true;
        }
        if self.graph.is_guide(from, to) {
            return false;
        }
        if self.graph.order(from) > self.graph.order(to) {
            return true;
        }
        let give_up = |anchors: u32| (anchors > 1).then(|| anchors - 1);
        self.graph.anchors(to).fetch_update(Ordering::AcqRel, Ordering::Acquire, give_up).is_ok()
    }
}
