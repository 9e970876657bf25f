//! The index of one vector field, of whatever kind it is.
//!
//! A second kind of field (sparse vectors) is a second variant here; nothing outside this folder matches on the kinds.

use std::io;

use vecino_index::{
    Allowance, ArenaSink, ArenaSource, Hit, Index, IndexError, LoadError, Reading, SearchOptions, Slot,
};
use vecino_model::{CollectionId, FieldSchema, Vector};

use crate::fields::parameters::parameters;

/// The index of one vector field. It knows slots, and only those whose points have the field.
pub(crate) enum FieldIndex {
    /// Dense vectors of one dimension.
    Dense(Index),
}

/// The arena of an index that holds its vectors as they were given.
const VECTORS: &str = "vectors";

impl FieldIndex {
    /// An empty index for the field with this number.
    pub fn new(id: CollectionId, number: usize, field: &FieldSchema) -> Result<Self, IndexError> {
        Ok(Self::Dense(Index::new(parameters(id, number, field))?))
    }

    /// The index that a snapshot holds for the field with this number.
    pub fn load(
        id: CollectionId,
        number: usize,
        field: &FieldSchema,
        source: &dyn ArenaSource,
    ) -> Result<Self, LoadError> {
        Ok(Self::Dense(Index::load(parameters(id, number, field), source)?))
    }

    /// What the index in a snapshot takes at least once it is loaded. Codes come later, if there is room.
    /// `arena_bytes` gives the length of one of its arenas, 0 where it is absent.
    pub fn loaded_bytes<E>(&self, arena_bytes: impl FnOnce(&str) -> Result<u64, E>) -> Result<u64, E> {
        match self {
            Self::Dense(index) => {
                let slots = arena_bytes(VECTORS)? / vector_bytes(index).max(1) as u64;
                Ok(slots * index.bytes_per_slot_uncoded() as u64)
            }
        }
    }

    /// Writes the index out while it is in use.
    pub fn dump(&self, sink: &mut dyn ArenaSink) -> io::Result<()> {
        match self {
            Self::Dense(index) => index.dump(sink),
        }
    }

    /// The best hits, by the graph or by a scan of all vectors.
    pub fn search(&self, vector: &Vector, options: &SearchOptions<'_>, is_exact: bool) -> Result<Vec<Hit>, IndexError> {
        match self {
            Self::Dense(index) if is_exact => index.search_exact(&vector.0, options),
            Self::Dense(index) => index.search(&vector.0, options),
        }
    }

    /// While what is returned lives, no slot that is in use now is given to another point.
    pub fn reading(&self) -> Reading<'_> {
        match self {
            Self::Dense(index) => index.reading(),
        }
    }

    /// Checks a vector that is to be stored.
    pub fn check(&self, vector: &Vector) -> Result<(), IndexError> {
        match self {
            Self::Dense(index) => Ok(index.validate(&vector.0)?),
        }
    }

    /// Stores the vector of a point in its slot.
    pub fn store(&self, slot: Slot, vector: &Vector) -> Result<(), IndexError> {
        match self {
            Self::Dense(index) => index.store(slot, &vector.0),
        }
    }

    /// As [`Self::store`], for a vector that was checked; with its Euclidean norm.
    pub fn store_checked(&self, slot: Slot, vector: &Vector, norm: f64) -> Result<(), IndexError> {
        match self {
            Self::Dense(index) => index.store_checked(slot, &vector.0, norm),
        }
    }

    /// Makes room for every slot up to and with this one.
    pub fn reserve(&self, last: Slot) -> Result<(), IndexError> {
        match self {
            Self::Dense(index) if index.slots() > last as usize => Ok(()),
            Self::Dense(index) => index.reserve(last),
        }
    }

    /// Takes the vector of a point out of the results; nothing where the point lacks the field.
    pub fn mark_deleted(&self, slot: Slot) {
        match self {
            Self::Dense(index) => index.mark_deleted(slot),
        }
    }

    /// Whether a slot holds no vector that a reader may still see.
    pub fn is_vacant(&self, slot: Slot) -> bool {
        match self {
            Self::Dense(index) => index.is_vacant(slot),
        }
    }

    /// Slots that have become vacant since this was last asked.
    pub fn take_vacant(&self) -> Vec<Slot> {
        match self {
            Self::Dense(index) => index.take_vacant(),
        }
    }

    /// The vector of a point, absent where the point lacks the field.
    pub fn vector(&self, slot: Slot) -> Option<Vector> {
        match self {
            Self::Dense(index) => index.vector(slot).map(Vector),
        }
    }

    /// Most bytes that the vector of one point takes.
    pub fn vector_bytes_max(&self) -> usize {
        match self {
            Self::Dense(index) => vector_bytes(index),
        }
    }

    /// One more than the highest slot that was ever stored.
    pub fn slots(&self) -> usize {
        match self {
            Self::Dense(index) => index.slots(),
        }
    }

    /// Bytes of memory that one more slot takes.
    pub fn bytes_per_slot(&self) -> usize {
        match self {
            Self::Dense(index) => index.bytes_per_slot(),
        }
    }

    /// Bytes of memory that the index takes.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Dense(index) => index.memory_bytes(),
        }
    }

    /// Points that wait to be linked; searches look at each of them.
    pub fn unlinked(&self) -> usize {
        match self {
            Self::Dense(index) => index.unlinked(),
        }
    }

    /// Bytes of vectors that wait to be linked.
    pub fn unlinked_bytes(&self) -> usize {
        match self {
            Self::Dense(index) => index.unlinked() * vector_bytes(index),
        }
    }

    /// How many loaded slots have their codes, and of how many, while some have not.
    pub fn warming(&self) -> Option<(usize, usize)> {
        match self {
            Self::Dense(index) => index.warming(),
        }
    }

    /// Has the index ask before it makes its codes anew.
    pub fn ask_before_growing(&self, allowance: Box<Allowance>) {
        match self {
            Self::Dense(index) => index.ask_before_growing(allowance),
        }
    }

    /// What indexers have to link and consolidate, where the kind has a graph.
    pub fn graph(&self) -> Option<&Index> {
        match self {
            Self::Dense(index) => Some(index),
        }
    }
}

fn vector_bytes(index: &Index) -> usize {
    index.params().dim * size_of::<f32>()
}
