//! Nearest-neighbour search over slots: an HNSW graph as in Malkov and Yashunin (2016), and the flat scan that it is
//! judged by.
//!
//! An [`Index`] knows slots and vectors, nothing of points, payloads, files or tasks. All its methods take `&self`:
//! one thread stores, any number link, bury and search at the same time.

mod arena;
mod arenas;
mod consolidate;
mod dump;
mod error;
mod fast;
mod flat;
mod graph;
mod growth;
mod hnsw;
mod index;
mod kernel;
mod kind;
mod link;
mod load;
mod measure;
mod meetings;
mod params;
mod parts;
mod pieces;
mod pool;
mod projection;
mod readers;
mod rows;
mod scalar;
mod scratch;
mod slot;
mod slot_set;
mod states;
mod sync;
#[cfg(test)]
mod tests;
mod walk;
mod walk_memory;

pub use arenas::{ArenaPieces, ArenaSink, ArenaSource, PIECE_MULTIPLE};
pub use dump::NODE_BYTES;
pub use error::{IndexError, LoadError, VectorError};
pub use index::{Allowance, Index};
pub use kernel::Kernel;
#[doc(hidden)]
pub use kernel::cases as kernel_cases;
pub use params::{
    COSINE_NORM_MIN, DIM_MAX, EF_CONSTRUCTION_MAX, EF_MAX, Hit, K_MAX, M_MAX, M_MIN, Metric, NORM_MAX, Params, Profile,
    SearchOptions,
};
pub use readers::Reading;
pub use slot::{SLOT_MAX, Slot};
