//! Taking what is deleted out of the graph, so that its slots can be used again: the rule of FreshDiskANN (Singh et al.
//! 2021), in rounds of small steps beside searches and linking.
//!
//! A round *begins* once an eighth of the nodes is deleted: those are marked as leaving, the anchors that start from them
//! are made up for, and entry and first node become ones that stay. Then every node that links to leaving ones is
//! *relinked*: in their place come, by the usual choice, live nodes that they lead to. Links to live nodes are all kept,
//! and a list is filled up to the length that it had, so that many small rounds do not thin the graph out. When no node
//! links to a leaving one, the round *ends*: these are retired, and vacated when nobody reads them any more.
//!
//! Beginning and ending exclude linking, shortly; relinking goes on beside it, node by node under the node's lock. So a
//! linker knows all along which nodes leave, and links to none of them.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::build::link::{Linker, Near};
use crate::codes::fast::Projections;
use crate::memory::graph::{Entry, Graph};
use crate::parts::Parts;
use crate::search::pool::key;
use crate::search::scratch::Scratch;
use crate::search::walk_memory::WalkMemory;
use crate::slot::Slot;

/// Beside other work a round begins when this share of all slots is deleted.
const DELETED_SHARE: usize = 8;
/// Where there is nothing else to do a round begins when this share of all slots is deleted.
const DELETED_SHARE_IDLE: usize = 256;
/// A round begins when at least this many slots are deleted.
const DELETED_MIN: usize = 32;
/// Places in the sequence of linking that are given before nodes are numbered anew.
pub(crate) const ORDERS_MAX: u32 = 1 << 30;
/// A list that is shorter than it was is filled up with candidates that no other link is nearer to by this factor, as in
/// Vamana (Subramanya et al. 2019).
const FAR: f32 = 1.2;
/// This many of the nearest nodes that stay are asked for others. With all of them, and all candidates, recall after churn is
/// the same and it takes twice as long; with none recall is 0.01 lower.
const ASKED_MAX: usize = 8;
/// New links are chosen from this many candidates at most: see [`ASKED_MAX`].
const CANDIDATES_MAX: usize = 64;
/// Leaving nodes that are followed from one node.
const BEYOND_MAX: usize = 256;

/// Where the round is, and the slots on their way out.
pub(crate) struct Rounds {
    /// Held for reading while a node is linked or relinked, and for writing where a round begins or ends.
    linking: RwLock<()>,
    round: Mutex<Round>,
    vacancies: Mutex<Vacancies>,
    /// How many dumps are being written: no round begins, goes on or ends meanwhile.
    pauses: AtomicUsize,
}

#[derive(Default)]
struct Round {
    leaving: Vec<Slot>,
    /// The next node to be relinked, and the end of those that may link to leaving ones.
    next: Slot,
    end: Slot,
    /// Steps under way.
    steps: usize,
}

/// Slots that no node links to any more, by how long that has been so.
#[derive(Default)]
struct Vacancies {
    /// Since this phase of readers.
    retired: Vec<Slot>,
    /// Since the phase before.
    waiting: Vec<Slot>,
    /// Nobody reads them: vacant, and not handed out yet.
    vacant: Vec<Slot>,
}

/// The share of the slots that must be deleted before a round begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Beside other work: a round is worth its while.
    Busy,
    /// Where nothing else is to be done: even a few are taken out.
    Idle,
}

/// Holds rounds where they are.
pub(crate) struct Pause<'a>(&'a AtomicUsize);

enum Step {
    Begin,
    Relink(Range<Slot>),
    End,
}

impl Share {
    /// Whether a round is to begin.
    pub fn is_reached(self, parts: &Parts) -> bool {
        let deleted = parts.states.deleted();
        let share = match self {
            Self::Busy => DELETED_SHARE,
            Self::Idle => DELETED_SHARE_IDLE,
        };
        deleted >= DELETED_MIN && deleted * share >= deleted + parts.states.live()
    }
}

impl Rounds {
    /// No round.
    pub fn new() -> Self {
        Self {
            linking: RwLock::default(),
            round: Mutex::default(),
            vacancies: Mutex::default(),
            pauses: AtomicUsize::new(0),
        }
    }

    /// Held while a node is linked.
    pub fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.linking.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps rounds where they are, once the steps under way are done.
    pub fn pause(&self) -> Pause<'_> {
        self.pauses.fetch_add(1, Ordering::SeqCst);
        let pause = Pause(&self.pauses);
        drop(self.linking.write().unwrap_or_else(PoisonError::into_inner));
        pause
    }

    fn is_paused(&self) -> bool {
        self.pauses.load(Ordering::SeqCst) > 0
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vacancies(&self) -> MutexGuard<'_, Vacancies> {
        self.vacancies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Rounds {
    /// Does a bounded part of a round, if this share of the slots is deleted: looks at up to `nodes` nodes. Any number of
    /// threads may call it. Whether there is more to do now.
    pub fn consolidate(&self, parts: &Parts, nodes: usize, share: Share) -> bool {
        {
            let _held = self.hold();
            if self.is_paused() {
                return false;
            }
            match self.next_step(parts, nodes, share) {
                None => {
                    self.reclaim(parts);
                    return false;
                }
                Some(Step::Relink(slots)) => {
                    let _reading = parts.readers.enter();
                    parts.with_linker(|linker, scratch| {
                        slots.filter(|slot| is_staying(parts, *slot)).for_each(|slot| linker.relink(slot, scratch));
                    });
                    self.round().steps -= 1;
                    return true;
                }
                Some(Step::Begin | Step::End) => {}
            }
        }
        let _alone = self.linking.write().unwrap_or_else(PoisonError::into_inner);
        let _reading = parts.readers.enter();
        if self.is_paused() {
            return false;
        }
        match self.next_step(parts, 0, share) {
            Some(Step::Begin) => self.begin_round(parts),
            Some(Step::End) => self.end_round(parts),
            // Another thread has done it.
            Some(Step::Relink(_)) => self.round().steps -= 1,
            None => {}
        }
        true
    }

    /// Slots that may be stored again: they were deleted, have left the graph, and nobody reads them. Each is handed out
    /// once, to be [stored](crate::Index::store) at any time.
    pub fn take_vacant(&self, parts: &Parts) -> Vec<Slot> {
        self.reclaim(parts);
        std::mem::take(&mut self.vacancies().vacant)
    }

    /// Vacates what nobody reads any more.
    fn reclaim(&self, parts: &Parts) {
        let mut vacancies = self.vacancies();
        for _ in 0..2 {
            let is_any = !vacancies.retired.is_empty() || !vacancies.waiting.is_empty();
            if !is_any || !parts.readers.turn() {
                break;
            }
            let Vacancies { retired, waiting, vacant } = &mut *vacancies;
            for slot in waiting.drain(..) {
                parts.graph.clear(slot);
                parts.states.vacate(slot);
                vacant.push(slot);
            }
            std::mem::swap(waiting, retired);
        }
    }

    fn next_step(&self, parts: &Parts, nodes: usize, share: Share) -> Option<Step> {
        let mut round = self.round();
        if round.leaving.is_empty() {
            return share.is_reached(parts).then_some(Step::Begin);
        }
        if round.next < round.end {
            let slots = round.next..round.end.min(round.next.saturating_add(nodes as Slot));
            round.next = slots.end;
            round.steps += 1;
            return Some(Step::Relink(slots));
        }
        (round.steps == 0).then_some(Step::End)
    }

    /// Decides which nodes leave. No thread links meanwhile, so every node has all its links.
    fn begin_round(&self, parts: &Parts) {
        let slots = parts.states.slots();
        let deleted = (0..slots).filter(|slot| parts.states.is_deleted(*slot));
        let (mut leaving, unlinked): (Vec<Slot>, Vec<Slot>) = deleted.partition(|slot| parts.states.is_linked(*slot));
        self.retire(parts, &unlinked);
        let Some(before) = parts.graph.entry().filter(|_| !leaving.is_empty()) else { return };
        let is_any_live = (0..slots).any(|slot| parts.states.is_linked(slot) && leaving.binary_search(&slot).is_err());
        if !is_any_live {
            // Somebody must stay whom the next ones can link to.
            leaving.retain(|slot| *slot != before.slot);
        }
        leaving.iter().for_each(|slot| parts.states.leave(*slot));

        renumber(parts, ORDERS_MAX);
        let staying = || (0..slots).filter(|slot| is_staying(parts, *slot));
        if parts.states.is_leaving(before.slot) {
            let highest = staying().max_by_key(|slot| (parts.graph.level(*slot), Reverse(parts.graph.order(*slot))));
            if let Some(slot) = highest {
                parts.graph.enter_instead(before, Entry { slot, level: parts.graph.level(slot) });
            }
        }
        let first = staying().min_by_key(|slot| parts.graph.order(*slot));
        let mut orphans = Vec::new();
        for earlier in &leaving {
            for slot in parts.graph.neighbours(*earlier, 0).filter(|slot| !parts.states.is_leaving(*slot)) {
                if parts.graph.order(*earlier) < parts.graph.order(slot)
                    && parts.graph.anchors(slot).fetch_sub(1, Ordering::AcqRel) == 1
                    && Some(slot) != first
                {
                    orphans.push(slot);
                }
            }
        }
        parts.with_linker(|linker, scratch| {
            orphans.iter().for_each(|slot| linker.find_anchor(*slot, scratch));
            if let (Some(entry), Some(first)) = (parts.graph.entry(), first) {
                scratch.projections.clear();
                parts.graph.set_first(first);
                linker.lead_to_first(entry, &mut scratch.projections);
            }
        });
        let mut round = self.round();
        (round.leaving, round.next, round.end) = (leaving, 0, slots);
    }

    /// No node links to those that leave any more.
    fn end_round(&self, parts: &Parts) {
        let leaving = std::mem::take(&mut self.round().leaving);
        self.retire(parts, &leaving);
    }

    fn retire(&self, parts: &Parts, slots: &[Slot]) {
        slots.iter().for_each(|slot| parts.states.retire(*slot));
        self.vacancies().retired.extend(slots);
    }
}

/// Whether a node is in the graph and is not about to leave it.
fn is_staying(parts: &Parts, slot: Slot) -> bool {
    parts.states.is_linked(slot) && !parts.states.is_leaving(slot)
}

/// Gives nodes new places in the sequence, in the same order, once the numbers have come so far. Nobody links meanwhile.
fn renumber(parts: &Parts, most: u32) {
    if parts.graph.last_order() <= most {
        return;
    }
    let mut nodes: Vec<Slot> = (0..parts.states.slots()).filter(|slot| parts.states.is_linked(*slot)).collect();
    nodes.sort_unstable_by_key(|slot| parts.graph.order(*slot));
    for (slot, order) in nodes.iter().zip(Graph::FIRST_ORDER..) {
        parts.graph.set_order(*slot, order);
    }
    parts.graph.set_orders(nodes.len() as u32);
}

impl Linker<'_> {
    /// Puts live nodes in the place of those that leave among a node's links.
    fn relink(&self, slot: Slot, scratch: &mut Scratch) {
        scratch.projections.clear();
        let mut above: Vec<Slot> = Vec::new();
        for layer in (0..=self.graph.level(slot)).rev() {
            let is_leaving = |other: &Slot| self.states.is_leaving(*other);
            let (leaving, kept): (Vec<Slot>, Vec<Slot>) = self.graph.neighbours(slot, layer).partition(is_leaving);
            if !leaving.is_empty() {
                let near = self.measured(slot, &kept);
                let candidates = self.beyond(slot, layer, &leaving, &near, scratch);
                let before = kept.len() + leaving.len();
                if layer == 0 {
                    above.retain(|other| self.states.is_live(*other) && !kept.contains(other));
                    above.sort_unstable();
                    above.dedup();
                    above.truncate(leaving.len());
                }
                let mut chosen = near;
                if layer == 0 {
                    chosen.extend(self.measured(slot, &above));
                }
                let most = self.degree_pruned(layer).max(before);
                let nearest = &candidates[..candidates.len().min(CANDIDATES_MAX)];
                let chosen = self.choose_beside(chosen, nearest, most, 1.0);
                let chosen = self.choose_beside(chosen, &candidates, before.max(self.m), FAR);
                self.replace(slot, layer, &chosen[kept.len()..], &mut scratch.projections);
            }
            above.extend(self.graph.neighbours(slot, layer));
        }
    }

    /// Makes an anchor for a node that has lost its last.
    fn find_anchor(&self, slot: Slot, scratch: &mut Scratch) {
        scratch.projections.clear();
        let (leaving, kept): (Vec<Slot>, Vec<Slot>) =
            self.graph.neighbours(slot, 0).partition(|other| self.states.is_leaving(*other));
        let near = self.measured(slot, &kept);
        let mut nearest = self.beyond(slot, 0, &leaving, &near, scratch);
        nearest.extend(near);
        nearest.sort_unstable_by_key(|(distance, slot)| key(*distance, *slot));
        self.adopt(slot, &nearest, &mut scratch.projections);
    }

    /// Live nodes that leaving ones lead to, nearest first, without those that are kept. Where these lead to few, those
    /// that leave beyond them are followed too. On layer 0 the nearest that are kept are asked as well: what is near may have
    /// been linked since this node was, and know of it only by way of those.
    fn beyond(&self, slot: Slot, layer: usize, leaving: &[Slot], kept: &[Near], scratch: &mut Scratch) -> Vec<Near> {
        let WalkMemory { visited, batch, .. } = &mut scratch.memory;
        visited.begin(self.states.slots() as usize);
        visited.insert(slot);
        kept.iter().map(|(_, other)| other).chain(leaving).for_each(|other| {
            visited.insert(*other);
        });
        batch.clear();
        if layer == 0 {
            let mut nearest = kept.to_vec();
            nearest.sort_unstable_by_key(|(distance, slot)| key(*distance, *slot));
            for (_, near) in nearest.iter().take(ASKED_MAX) {
                let live = |other: &Slot| self.states.is_live(*other);
                batch.extend(self.graph.neighbours(*near, 0).filter(live).filter(|other| visited.insert(*other)));
            }
        }
        let mut waiting = leaving.to_vec();
        let mut at = 0;
        while at < waiting.len() && (at < leaving.len() || (batch.len() < self.m && at < BEYOND_MAX)) {
            for other in self.graph.neighbours(waiting[at], layer) {
                if visited.insert(other) {
                    if self.states.is_leaving(other) {
                        waiting.push(other);
                    } else if self.states.is_live(other) {
                        batch.push(other);
                    }
                }
            }
            at += 1;
        }
        let mut nearest = self.measured(slot, batch);
        nearest.sort_unstable_by_key(|(distance, slot)| key(*distance, *slot));
        nearest
    }

    pub fn measured(&self, from: Slot, slots: &[Slot]) -> Vec<Near> {
        let mut distances = vec![0.0; slots.len()];
        self.rows.distances(self.rows.query(from), slots, &mut distances);
        distances.into_iter().zip(slots.iter().copied()).collect()
    }

    /// Puts new links in the place of those to leaving nodes, and drops the rest of these.
    fn replace(&self, from: Slot, layer: usize, new: &[Near], seen: &mut Projections) {
        let _locked = self.states.lock(from);
        let mut list: Vec<Slot> = self.graph.neighbours(from, layer).collect();
        for (_, slot) in new.iter().filter(|(_, slot)| self.states.is_live(*slot)) {
            if list.contains(slot) {
                continue;
            }
            match list.iter().position(|other| self.states.is_leaving(*other)) {
                Some(at) => list[at] = *slot,
                None if list.len() < self.graph.degree_max(layer) => list.push(*slot),
                None => break,
            }
            self.count_in(from, *slot, layer);
            self.set(from, layer, &list, *slot, seen);
        }
        list.retain(|other| !self.states.is_leaving(*other));
        self.set(from, layer, &list, from, seen);
    }
}
