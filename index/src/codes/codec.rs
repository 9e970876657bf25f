//! What every way to code vectors does, be it not at all.

use std::sync::{Arc, Mutex, RwLockReadGuard};

use crate::codes::fast::Generation;
use crate::kernel::Kernel;
use crate::memory::arena::NoMemory;
use crate::memory::graph::Graph;
use crate::memory::rows::{QueryVector, Rows};
use crate::memory::states::States;
use crate::search::walk::Scorer;
use crate::slot::Slot;

/// What codes are made of. The thread that makes them is counted among the readers.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub rows: &'a Rows,
    pub graph: &'a Graph,
    pub states: &'a States,
    /// Held while a slot is stored.
    pub storing: &'a Mutex<()>,
}

/// Keeps the codes beside links from being replaced while links are made.
#[derive(Default)]
pub(crate) struct Held<'a> {
    /// The codes beside links, in use or in the making, if this way has any.
    pub edges: Option<Arc<Generation>>,
    /// Holds them in their place.
    pub _guard: Option<RwLockReadGuard<'a, ()>>,
}

/// A way to code vectors. What is provided here is that of a way without codes.
pub(crate) trait Codec {
    /// What a search or an insertion keeps from one time to the next.
    type Memory;
    /// Distances from one query.
    type Scorer<'a>: Scorer
    where
        Self: 'a;

    /// Distances from a query; `None` while there are no codes, or where they do not know the distance that is asked for.
    fn scorer<'a>(
        &'a self,
        rows: &'a Rows,
        query: QueryVector<'a>,
        memory: &'a mut Self::Memory,
    ) -> Option<Self::Scorer<'a>>;

    /// A scorer has done: codes that were replaced meanwhile are not kept.
    fn let_go(&self, _memory: &mut Self::Memory) {}

    /// Makes room for the codes of every slot up to this one.
    fn reserve(&self, _last: Slot) -> Result<(), NoMemory> {
        Ok(())
    }

    /// Makes room for the code of a slot whose row is written and that nobody knows of yet, and codes it where codes are
    /// made as slots are stored.
    fn store(&self, _slot: Slot, _rows: &Rows) -> Result<(), NoMemory> {
        Ok(())
    }

    /// Whether it is time to [renew](Self::renew) codes, with this many slots. Cheap enough to be asked for each slot that is
    /// linked.
    fn is_due(&self, _slots: u32) -> bool {
        false
    }

    /// Whether that is so for an index that was loaded, before anything is linked.
    fn is_due_at_once(&self, _slots: u32) -> bool {
        false
    }

    /// Learns anew and makes all codes by that, unless another thread is about to. Without memory for new codes the old ones
    /// serve on, and it is due again.
    fn renew(&self, _stored: Stored<'_>) {}

    /// Makes the codes of up to this many slots of an index that was loaded with a model. Whether there may be more to do.
    fn warm(&self, _stored: Stored<'_>, _slots: usize) -> bool {
        false
    }

    /// How many of the slots that were loaded have their codes, and of how many, while not all have.
    fn warming(&self) -> Option<(usize, usize)> {
        None
    }

    /// Holds the codes beside links while links are made.
    fn hold(&self) -> Held<'_> {
        Held::default()
    }

    /// How many values the model has that a dump keeps; 0 where it keeps none.
    fn model_values(&self) -> usize {
        0
    }

    /// Begins to make the codes of this many slots by a model that was kept, which was learned from `learned` slots. False
    /// where no model has such values. Nobody else uses the index yet.
    fn restore(&self, _model: &[f32], _learned: usize, _slots: u32, _kernel: Kernel) -> Result<bool, NoMemory> {
        Ok(true)
    }

    /// Bytes of memory that the codes of one slot take, once there are any.
    fn bytes_per_slot(&self) -> usize {
        0
    }

    /// Bytes of memory that the codes of this many slots take.
    fn bytes(&self, _slots: usize) -> usize {
        0
    }
}
