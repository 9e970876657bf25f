//! The codes that an index has: of the ways there are, the one that its profile and metric choose.

use crate::codes::codec::{Codec, Held, Stored};
use crate::codes::fast::{Fast, FastMemory};
use crate::codes::plain::Plain;
use crate::codes::scalar::{ScalarCodes, ScalarQuery};
use crate::kernel::Kernel;
use crate::memory::arena::NoMemory;
use crate::memory::rows::Rows;
use crate::params::{Metric, Params, Profile};
use crate::slot::Slot;

/// One way to code vectors. A walk asks which it is once, and is compiled for each.
pub(crate) enum Codes {
    /// None.
    Plain(Plain),
    /// One bit a dimension beside the links.
    Fast(Fast),
    /// Four or eight bits a coordinate.
    Scalar(ScalarCodes),
}

/// What a search or an insertion keeps of each way.
#[derive(Default)]
pub(crate) struct CodeMemory {
    pub fast: FastMemory,
    pub scalar: ScalarQuery,
}

/// Does the same with whichever codec it is.
macro_rules! each {
    ($codes:expr, $codec:ident => $then:expr) => {
        match $codes {
            Codes::Plain($codec) => $then,
            Codes::Fast($codec) => $then,
            Codes::Scalar($codec) => $then,
        }
    };
}

impl Codes {
    /// Without codes yet. Distances under Manhattan are served by none.
    pub fn new(params: &Params, kernel: Kernel) -> Self {
        match params.profile {
            _ if params.metric == Metric::Manhattan => Self::Plain(Plain),
            Profile::Fast => Self::Fast(Fast::new(params, kernel)),
            Profile::Compact => Self::Scalar(ScalarCodes::new(params, kernel)),
            Profile::Plain => Self::Plain(Plain),
        }
    }

    /// The fast codes, if it is those.
    #[cfg(test)]
    pub fn fast(&self) -> Option<&Fast> {
        if let Self::Fast(fast) = self { Some(fast) } else { None }
    }

    /// See [`Codec::reserve`].
    pub fn reserve(&self, last: Slot) -> Result<(), NoMemory> {
        each!(self, codec => codec.reserve(last))
    }

    /// See [`Codec::store`].
    pub fn store(&self, slot: Slot, rows: &Rows) -> Result<(), NoMemory> {
        each!(self, codec => codec.store(slot, rows))
    }

    /// See [`Codec::is_due`].
    pub fn is_due(&self, slots: u32) -> bool {
        each!(self, codec => codec.is_due(slots))
    }

    /// See [`Codec::is_due_at_once`].
    pub fn is_due_at_once(&self, slots: u32) -> bool {
        each!(self, codec => codec.is_due_at_once(slots))
    }

    /// See [`Codec::renew`].
    pub fn renew(&self, stored: Stored<'_>) {
        each!(self, codec => codec.renew(stored));
    }

    /// See [`Codec::warm`].
    pub fn warm(&self, stored: Stored<'_>, slots: usize) -> bool {
        each!(self, codec => codec.warm(stored, slots))
    }

    /// See [`Codec::warming`].
    pub fn warming(&self) -> Option<(usize, usize)> {
        each!(self, codec => codec.warming())
    }

    /// See [`Codec::hold`].
    pub fn hold(&self) -> Held<'_> {
        each!(self, codec => codec.hold())
    }

    /// See [`Codec::model_values`].
    pub fn model_values(&self) -> usize {
        each!(self, codec => codec.model_values())
    }

    /// See [`Codec::restore`].
    pub fn restore(&self, model: &[f32], learned: usize, slots: u32, kernel: Kernel) -> Result<bool, NoMemory> {
        each!(self, codec => codec.restore(model, learned, slots, kernel))
    }

    /// See [`Codec::bytes_per_slot`].
    pub fn bytes_per_slot(&self) -> usize {
        each!(self, codec => codec.bytes_per_slot())
    }

    /// See [`Codec::bytes`].
    pub fn bytes(&self, slots: usize) -> usize {
        each!(self, codec => codec.bytes(slots))
    }
}
