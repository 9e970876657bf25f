//! Bounds on the bytes of request bodies in memory: of the node, of a certificate, of a connection.

use std::sync::Arc;

use super::gauge::{Gauge, Taken};
use super::memory::{Counted, Memory, NoMemory};

/// Steps in which a body that arrives counts as memory of the node. Smaller bodies count once they are worked on.
const STEP_BYTES: usize = 256 * 1024;

/// What one body holds of each bound; it goes back when dropped.
pub struct BodyBytes {
    taken: Vec<Taken>,
    memory: Arc<Memory>,
    /// What counts as memory while the body arrives, and how many bytes of it.
    counted: Counted,
    counted_bytes: usize,
}

/// There is no room for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Too many bytes of request bodies are in memory.
    #[error("the bodies of other requests take the {0} bytes that are set aside for them: try again a little later")]
    Bodies(u64),
    /// The node has no memory.
    #[error(transparent)]
    Memory(#[from] NoMemory),
}

impl BodyBytes {
    /// A body of which nothing has come yet.
    pub(crate) fn new(bounds: [&Arc<Gauge>; 3], memory: &Arc<Memory>) -> Self {
        Self {
            taken: bounds.iter().filter_map(|gauge| gauge.take(0)).collect(),
            memory: Arc::clone(memory),
            counted: memory.nothing(),
            counted_bytes: 0,
        }
    }

    /// Grows what is held to cover `bytes`. It never waits, so that no two bodies can wait for each other.
    ///
    /// # Errors
    /// When there is no room for so much more.
    pub fn cover(&mut self, bytes: usize) -> Result<(), NoRoom> {
        for taken in &mut self.taken {
            let missing = (bytes as u64).saturating_sub(taken.amount());
            if missing > 0 && !taken.grow(missing) {
                return Err(NoRoom::Bodies(taken.gauge().max()));
            }
        }
        let steps = (bytes - bytes % STEP_BYTES).saturating_sub(self.counted_bytes);
        if steps > 0 {
            self.memory.count(&mut self.counted, bytes, steps as u64)?;
            self.counted_bytes += steps;
        }
        Ok(())
    }

    /// The body is there. From now on the work counts as memory that it is for.
    pub(crate) fn arrived(&mut self) {
        self.counted = self.memory.nothing();
        self.counted_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn unbounded() -> Arc<Gauge> {
        Gauge::new(u64::MAX)
    }

    #[test]
    fn bodies_beyond_a_bound_are_refused_and_what_is_dropped_makes_room() {
        let memory = Memory::new(Box::new(|_| Ok(Box::new(()))));
        let (node, certificate) = (Gauge::new(10_000), Gauge::new(8_000));
        let (near, far) = (Gauge::new(6_000), Gauge::new(6_000));
        let mut one = BodyBytes::new([&near, &certificate, &node], &memory);
        let mut other = BodyBytes::new([&far, &certificate, &node], &memory);
        one.cover(4_000).unwrap();
        one.cover(6_000).unwrap();
        assert_eq!(one.cover(6_001), Err(NoRoom::Bodies(6_000)));
        assert_eq!(other.cover(2_001), Err(NoRoom::Bodies(8_000)));
        other.cover(2_000).unwrap();
        drop(one);
        assert_eq!((near.used(), node.used()), (0, 2_000));
        other.cover(6_000).unwrap();
    }

    #[test]
    fn a_body_counts_as_memory_while_it_arrives_and_makes_way_where_there_is_none() {
        struct Held(Arc<AtomicU64>, u64);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.fetch_sub(self.1, Ordering::SeqCst);
            }
        }
        let used = Arc::new(AtomicU64::new(0));
        let (counter, limit) = (Arc::clone(&used), 4 * STEP_BYTES as u64);
        let count = move |bytes| {
            let used = counter.load(Ordering::SeqCst);
            if used + bytes > limit {
                return Err(NoMemory { used, limit });
            }
            counter.fetch_add(bytes, Ordering::SeqCst);
            Ok(Box::new(Held(Arc::clone(&counter), bytes)) as Box<dyn Send + Sync>)
        };
        let (memory, free) = (Memory::new(Box::new(count)), unbounded());
        let mut one = BodyBytes::new([&free, &free, &free], &memory);
        one.cover(STEP_BYTES - 1).unwrap();
        assert_eq!(used.load(Ordering::SeqCst), 0, "what is small is not counted yet");
        for bytes in [STEP_BYTES + 1, 3 * STEP_BYTES, 3 * STEP_BYTES + 5] {
            one.cover(bytes).unwrap();
        }
        assert_eq!(used.load(Ordering::SeqCst), 3 * STEP_BYTES as u64);
        let mut other = BodyBytes::new([&free, &free, &free], &memory);
        let refused = other.cover(2 * STEP_BYTES).unwrap_err();
        assert_eq!(refused, NoRoom::Memory(NoMemory { used: limit / 4 * 3, limit }));
        drop(other);
        one.cover(9 * STEP_BYTES).expect("nobody else will give memory back");
        one.arrived();
        assert_eq!(used.load(Ordering::SeqCst), 0);
    }
}
