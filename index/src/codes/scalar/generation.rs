//! One quantizer, and every slot's code by it.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::codes::scalar::quantizer::{Buffers, Quantizer, Source};
use crate::kernel::Kernel;
use crate::kernel::codes::{MeasureCodes, measure};
use crate::memory::arena::{Arena, NoMemory};
use crate::slot::Slot;

/// Bytes of a cache line.
pub(crate) const LINE_BYTES: usize = 64;

/// One quantizer, and the codes by it.
pub(crate) struct Generation {
    pub quantizer: Quantizer,
    pub measure: MeasureCodes,
    pub codes: Arena<AtomicU32>,
}

impl Generation {
    /// A generation without codes.
    pub fn new(quantizer: Quantizer, kernel: Kernel) -> Self {
        let measure = measure(kernel, quantizer.width());
        let codes = Arena::new("codes", stride(quantizer.bytes()) / size_of::<u32>());
        Self { quantizer, measure, codes }
    }

    /// Writes the code of a slot that nobody reads yet; gives its squared error.
    pub fn store(
        &self,
        slot: Slot,
        source: Source<'_>,
        buffers: &mut Buffers,
        code: &mut Vec<u8>,
    ) -> Result<f32, NoMemory> {
        self.codes.reserve(slot)?;
        let words = self.codes.get(slot);
        code.clear();
        code.resize(size_of_val(words), 0);
        let error = self.quantizer.encode(source, buffers, &mut code[..self.quantizer.bytes()]);
        for (word, bytes) in words.iter().zip(code.as_chunks().0) {
            word.store(u32::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        Ok(error)
    }
}

/// Bytes from one code to the next: no code of less than a line straddles two, and longer ones begin on one.
pub(crate) fn stride(bytes: usize) -> usize {
    if bytes > LINE_BYTES { bytes.next_multiple_of(LINE_BYTES) } else { bytes.next_power_of_two().max(4) }
}
