//! Inserting nodes into the graph: the paper's INSERT (algorithm 1) with its heuristic choice of neighbours
//! (algorithm 4), by any number of threads at once.
//!
//! A node's own links are complete on all its layers before any other node links to it, and the layers are then
//! joined from the lowest up, so that a walk that meets a new node always finds a way on.
//!
//! Pruning may cut the last link to a node. Here it never does: a node counts the layer-0 links that lead to it from
//! its *elders*, the nodes linked before it, and the last of them is not given up. Following elders back from any
//! node ends at the first one, so every node can be reached from there.

use std::sync::atomic::Ordering;

use crate::graph::{Entry, Graph};
use crate::params::Slot;
use crate::pool::key;
use crate::rows::Rows;
use crate::scratch::Scratch;
use crate::states::States;
use crate::walk::{Exact, Walk};

/// Inserts nodes.
pub(crate) struct Linker<'a> {
    pub rows: &'a Rows,
    pub graph: &'a Graph,
    pub states: &'a States,
    pub m: usize,
    pub ef_construction: usize,
}

/// A neighbour and how far it is.
type Near = (f32, Slot);

impl Linker<'_> {
    /// Inserts a slot that is stored, and that nobody else inserts.
    pub fn link(&self, slot: Slot, scratch: &mut Scratch) {
        let level = self.graph.level(slot);
        let new = Entry { slot, level };
        if self.graph.entry().is_none() {
            self.graph.set_order(slot, Graph::FIRST_ORDER);
            if self.graph.enter_first(new).is_ok() {
                return;
            }
        }
        let mut nearest = Vec::new();
        let mut chosen = Vec::new();
        for _ in 0..=STALE_RETRIES_MAX {
            // Nobody knows of this node yet, so that its place in the sequence may still change.
            let order = self.graph.take_order(slot);
            let Some(entry) = self.graph.entry() else { return };
            chosen = self.neighbours(new, entry, scratch, &mut nearest);
            let meanwhile = self.graph.last_order().wrapping_sub(order);
            if meanwhile <= STALE_NODES_MIN + STALE_NODES_PER_LINKER * self.states.linkers() {
                break;
            }
        }
        for (layer, chosen) in chosen.iter().enumerate() {
            let _locked = self.states.lock(slot);
            for near in chosen {
                self.add(slot, *near, layer);
            }
        }
        for (layer, chosen) in chosen.iter().enumerate() {
            for (distance, other) in chosen {
                let _locked = self.states.lock(*other);
                self.add(*other, (*distance, slot), layer);
            }
        }
        if self.graph.elders(slot).load(Ordering::Acquire) == 0 {
            self.adopt(slot, &nearest);
        }
        self.graph.enter_higher(new);
    }

    /// The neighbours to link a new node to, layer by layer from 0, and all candidates for layer 0.
    fn neighbours(&self, new: Entry, entry: Entry, scratch: &mut Scratch, nearest: &mut Vec<Near>) -> Vec<Vec<Near>> {
        let near = Exact { rows: self.rows, query: self.rows.query(new.slot) };
        let walk = Walk { graph: self.graph, near };
        let top = new.level.min(entry.level);
        let start = walk.descend(entry, top, &mut scratch.batch, &mut scratch.distances);
        scratch.pool.begin(self.ef_construction);
        scratch.pool.insert(start.0, start.1, || true);
        let mut chosen: Vec<Vec<Near>> = Vec::with_capacity(top + 1);
        for layer in (0..=top).rev() {
            scratch.visited.begin(self.states.slots() as usize);
            scratch.visited.insert(new.slot);
            scratch.pool.rewind();
            for (_, seed) in scratch.pool.iter() {
                scratch.visited.insert(seed);
            }
            walk.layer(layer, scratch, usize::MAX, |_| true);
            nearest.clear();
            nearest.extend(scratch.pool.iter());
            chosen.push(self.choose(nearest, self.m));
        }
        chosen.reverse();
        chosen
    }

    /// Algorithm 4: of the candidates, nearest first, those that are nearer to the base than to any one chosen
    /// before. Candidates as near to each other as to the base are duplicates, or as good as; one of them is enough.
    fn choose(&self, candidates: &[Near], most: usize) -> Vec<Near> {
        let mut chosen: Vec<Near> = Vec::with_capacity(most);
        let mut slots: Vec<Slot> = Vec::with_capacity(most);
        let mut distances = [0.0; PAIRS];
        for candidate in candidates {
            if chosen.len() == most {
                break;
            }
            let query = self.rows.query(candidate.1);
            let is_shadowed = slots.chunks(PAIRS).zip(chosen.chunks(PAIRS)).any(|(slots, chosen)| {
                let distances = &mut distances[..slots.len()];
                self.rows.distances(query, slots, distances);
                distances.iter().zip(chosen).any(|(between, chosen)| {
                    *between < candidate.0 || (*between == candidate.0 && candidate.0 == chosen.0)
                })
            });
            if !is_shadowed {
                chosen.push(*candidate);
                slots.push(candidate.1);
            }
        }
        chosen
    }

    /// Adds a link from a node whose lock the caller holds, pruning if its list is full.
    fn add(&self, from: Slot, new: Near, layer: usize) {
        let mut list: Vec<Slot> = self.graph.neighbours(from, layer).collect();
        if new.1 == from || list.contains(&new.1) {
            return;
        }
        if list.len() < self.graph.degree_max(layer) {
            list.push(new.1);
            self.count_in(from, new.1, layer);
            self.graph.set_neighbours(from, layer, &list);
            return;
        }
        let mut distances = vec![0.0; list.len()];
        self.rows.distances(self.rows.query(from), &list, &mut distances);
        let mut near: Vec<Near> = distances.into_iter().zip(list.iter().copied()).chain([new]).collect();
        near.sort_unstable_by_key(|(distance, slot)| key(*distance, *slot));
        let chosen = self.choose(&near, self.graph.degree_max(layer));
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
        self.graph.set_neighbours(from, layer, &kept);
    }

    /// Finds an elder for a node that no neighbour links to: the nearest that can give up another link for it.
    fn adopt(&self, slot: Slot, nearest: &[Near]) {
        let order = self.graph.order(slot);
        let is_elder = |other: Slot| (1..order).contains(&self.graph.order(other));
        for (_, elder) in nearest.iter().filter(|(_, other)| is_elder(*other)) {
            if self.force(*elder, slot) {
                return;
            }
        }
        // All of them are full of nodes that only they lead to. Those nodes are elders too, and so on: somewhere
        // below there is room, for a node that nobody depends on can give up any link.
        for (_, elder) in nearest.iter().filter(|(_, other)| is_elder(*other)) {
            let mut at = *elder;
            loop {
                let turn = slot as usize ^ at as usize;
                let below: Vec<Slot> = self
                    .graph
                    .neighbours(at, 0)
                    .filter(|other| is_elder(*other) && self.graph.order(*other) > self.graph.order(at))
                    .collect();
                let Some(next) = below.get(turn % below.len().max(1)) else { break };
                at = *next;
                if self.force(at, slot) {
                    return;
                }
            }
        }
        let _ = (0..self.states.slots()).filter(|other| is_elder(*other)).any(|elder| self.force(elder, slot));
    }

    /// Adds a layer-0 link whatever it displaces, except for the last link to another node. Whether it did.
    fn force(&self, from: Slot, to: Slot) -> bool {
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
        self.graph.set_neighbours(from, 0, &list);
        true
    }

    /// A layer-0 link was added.
    fn count_in(&self, from: Slot, to: Slot, layer: usize) {
        if layer == 0 && self.graph.order(from) < self.graph.order(to) {
            self.graph.elders(to).fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether a link may be removed, which it then must be.
    fn count_out(&self, from: Slot, to: Slot, layer: usize) -> bool {
        if layer > 0 || self.graph.order(from) > self.graph.order(to) {
            return true;
        }
        let give_up = |elders: u32| (elders > 1).then(|| elders - 1);
        self.graph.elders(to).fetch_update(Ordering::AcqRel, Ordering::Acquire, give_up).is_ok()
    }
}

/// A thread that was put off its core while it looked for neighbours looks again if more nodes than this, and so many
/// for each linking thread, were inserted meanwhile: it would link to what was near once, and the new ones do not
/// know of it.
const STALE_NODES_MIN: u32 = 8;
/// See [`STALE_NODES_MIN`].
const STALE_NODES_PER_LINKER: u32 = 4;
/// Times that a node looks again.
const STALE_RETRIES_MAX: usize = 3;
/// Chosen neighbours that a candidate is measured against at once: the first few settle most cases.
const PAIRS: usize = 4;
