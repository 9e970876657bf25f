//! What each operation can fail with: the field, the value, the limit, and what to do.

use crate::kernel::Kernel;
use crate::slot::{SLOT_MAX, Slot};

/// Why an index was not made, a vector not stored or a search not begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// A parameter is outside its range.
    #[error("{field} is {value}; it must be {min} to {max}")]
    Param {
        /// Which parameter.
        field: &'static str,
        /// What it was.
        value: usize,
        /// The least it may be.
        min: usize,
        /// The most it may be.
        max: usize,
    },
    /// The threshold is no number.
    #[error("threshold is NaN; give a number, or none for no threshold")]
    Threshold,
    /// The kernel that was asked for does not run here.
    #[error("kernel {kernel:?} does not run on this processor; leave it out, or take one of {:?}", Kernel::available())]
    KernelUnavailable {
        /// The kernel that was asked for.
        kernel: Kernel,
    },
    /// The vector is not one that this index can hold or search for.
    #[error(transparent)]
    Vector(#[from] VectorError),
    /// A vector is stored under this slot, or may still be read there.
    #[error("slot {slot} is taken; those from {next} to {SLOT_MAX} are not, nor those that were handed out as vacant")]
    SlotTaken {
        /// The slot that was asked for.
        slot: Slot,
        /// One more than the highest slot stored so far.
        next: Slot,
    },
    /// The system gave no memory for an arena.
    #[error("no address space for {bytes} bytes of {arena}; free memory, or raise the limit on it")]
    Memory {
        /// Which arena was to grow.
        arena: &'static str,
        /// By how much.
        bytes: usize,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why a vector was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// It has the wrong length.
    #[error("vector has {got} dimensions; this field has {expected}")]
    Dimension {
        /// Its length.
        got: usize,
        /// The length of this index's vectors.
        expected: usize,
    },
    /// One of its values is NaN or infinite.
    #[error("vector[{position}] is {value}; every value must be finite")]
    NotFinite {
        /// Where, counted from 0.
        position: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// Its length overflows what distances are computed in.
    #[error("vector has Euclidean norm {norm:e}; at most {max:e} is allowed, scale it down")]
    NormTooLarge {
        /// Its norm.
        norm: f64,
        /// The largest allowed.
        max: f64,
    },
    /// It has no direction, and the metric is cosine.
    #[error(
        "vector has Euclidean norm {norm:e}; under cosine at least {min:e} is needed, a zero vector has no direction"
    )]
    NormTooSmall {
        /// Its norm.
        norm: f64,
        /// The smallest allowed.
        min: f64,
    },
}

/// Why a dumped index was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The index that it should be loaded into cannot be made.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// An arena could not be read.
    #[error("arena {arena} could not be read")]
    Io {
        /// Which arena.
        arena: &'static str,
        /// What the source said.
        source: std::io::Error,
    },
    /// An arena is absent.
    #[error("arena {arena} is missing; the dump is not complete")]
    Missing {
        /// Which arena.
        arena: &'static str,
    },
    /// An arena ends too early.
    #[error("arena {arena} ends after {got} bytes; its header promises {expected}")]
    Truncated {
        /// Which arena.
        arena: &'static str,
        /// Its length.
        got: u64,
        /// The length that it should have.
        expected: u64,
    },
    /// An arena goes on after its end.
    #[error("arena {arena} goes on after the {expected} bytes that its header promises")]
    Trailing {
        /// Which arena.
        arena: &'static str,
        /// The length that it should have.
        expected: u64,
    },
    /// A value contradicts the format, the parameters or another arena.
    #[error("arena {arena}: {field} is {value}; {limit}")]
    Invalid {
        /// Which arena.
        arena: &'static str,
        /// Which value of it.
        field: &'static str,
        /// What it was.
        value: u64,
        /// What it should have been.
        limit: String,
    },
    /// A stored vector is not one that could have been stored.
    #[error("arena vectors: slot {slot}: {source}")]
    Vector {
        /// Whose vector.
        slot: Slot,
        /// What is wrong with it.
        source: VectorError,
    },
}
