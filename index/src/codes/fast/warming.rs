//! Codes in the making, of an index that was loaded: the model is known, and the graph is in use already.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::codes::fast::{Generation, Projections};
use crate::memory::graph::Graph;
use crate::memory::rows::Rows;
use crate::memory::states::States;
use crate::slot::Slot;

/// A generation whose codes are made slot by slot, by any number of threads, while nodes are linked: each node's codes
/// are written under its lock, and a thread that links writes the codes of the links that it makes.
pub(crate) struct Warming {
    pub generation: Arc<Generation>,
    /// Slots that were there when it began; later ones get their codes as they are linked.
    slots: u32,
    /// Every slot below is being dealt with.
    next: AtomicU32,
    /// Slots whose codes are made.
    done: AtomicU32,
}

impl Warming {
    /// None of them is made yet.
    pub fn new(generation: Generation, slots: u32) -> Self {
        Self { generation: Arc::new(generation), slots, next: AtomicU32::new(0), done: AtomicU32::new(0) }
    }

    /// What the codes are written to.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// How many slots have their codes, and of how many.
    pub fn progress(&self) -> (usize, usize) {
        (self.done.load(Ordering::Relaxed) as usize, self.slots as usize)
    }

    /// Whether there are slots that nobody deals with yet.
    pub fn has_more(&self) -> bool {
        self.next.load(Ordering::Acquire) < self.slots
    }

    /// Makes the codes of up to `count` slots. True for the one caller with which all are made.
    pub fn encode(&self, rows: &Rows, graph: &Graph, states: &States, count: usize) -> bool {
        let claim = |next: Slot| (next < self.slots).then(|| next.saturating_add(count as u32).min(self.slots));
        let Ok(first) = self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, claim) else { return false };
        let end = claim(first).unwrap_or(first);
        let mut seen = Projections::default();
        for slot in (first..end).filter(|slot| states.is_linked(*slot)) {
            // Most of the work is projecting the neighbours: that is done before the lock is held.
            self.generation.project(rows, graph, slot, &mut seen);
            let _locked = states.lock(slot);
            self.generation.encode_seen(rows, graph, slot, &mut seen);
        }
        // An empty claim does not come here, so that the last one is told once.
        self.done.fetch_add(end - first, Ordering::AcqRel) + (end - first) == self.slots
    }
}
