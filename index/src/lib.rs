//! Nearest-neighbour search over slots: an HNSW graph as in Malkov and Yashunin (2016), and the flat scan that it is
//! judged by.
//!
//! An [`Index`] knows slots and vectors, nothing of points, payloads, files or tasks. All its methods take `&self`:
//! one thread stores, any number link, delete and search at the same time.

mod build;
mod codes;
mod error;
mod filter;
mod index;
mod kernel;
mod memory;
mod params;
mod parts;
mod persist;
mod random;
mod search;
mod slot;
#[cfg(test)]
mod tests;

pub use error::{IndexError, LoadError, VectorError};
pub use filter::{SlotBits, SlotFilter};
pub use index::{Allowance, Index};
pub use kernel::Kernel;
#[doc(hidden)]
pub use kernel::cases as kernel_cases;
pub use memory::readers::Reading;
pub use params::{
    COSINE_NORM_MIN, DIM_MAX, EF_CONSTRUCTION_MAX, EF_MAX, Hit, K_MAX, M_MAX, M_MIN, Metric, NORM_MAX, Params, Profile,
    SearchOptions,
};
pub use persist::arenas::{ArenaPieces, ArenaSink, ArenaSource, PIECE_MULTIPLE};
pub use persist::dump::NODE_BYTES;
pub use slot::{SLOT_MAX, Slot};
