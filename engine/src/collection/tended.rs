//! A collection that the indexers of a node tend.

use std::sync::Arc;

use vecino_index::Index;
use vecino_supervise::Panicked;

use crate::core::Core;
use crate::indexers::Indexers;
use crate::linking::Linkable;
use crate::tails::Tail;

/// What the indexers are woken for.
pub(crate) struct Tended {
    core: Arc<Core>,
    indexers: Arc<Indexers>,
    tail: Tail,
}

impl Tended {
    /// The collection has the indexers work for it when they are woken.
    pub fn new(core: Arc<Core>, indexers: Arc<Indexers>) -> Arc<Self> {
        let tail = indexers.tails().tail();
        Arc::new(Self { core, indexers, tail })
    }

    /// Has the indexers look at what is to be linked.
    pub fn wake(self: &Arc<Self>) {
        self.progressed();
        let linkable: Arc<dyn Linkable> = Arc::clone(self) as _;
        self.indexers.wake(&linkable);
    }

    /// Codes of many slots may have to be made: every indexer takes part.
    pub fn wake_all(self: &Arc<Self>) {
        (0..self.indexers.threads()).for_each(|_| self.wake());
    }
}

impl Linkable for Tended {
    fn indexes(&self) -> Vec<&Index> {
        self.core.indexes()
    }

    fn progressed(&self) {
        // Searches need not make room for slots that no indexer links.
        self.tail.note(|| self.indexes().into_iter().map(Index::unlinked).max().unwrap_or(0));
    }

    fn panicked(&self, panic: &Panicked) {
        self.core.panicked(panic);
        self.progressed();
    }
}
