//! What requests take of the memory of the node, beside what is stored.

use std::sync::Arc;

use super::gauge::{Gauge, Taken};

/// Largest body that is taken although the node has no memory left: what frees memory must get through.
pub(crate) const SMALL_BODY_BYTES: usize = 64 * 1024;

/// Counts bytes as memory in use until what it gives is dropped, or refuses to.
pub type CountMemory = dyn Fn(u64) -> Result<Box<dyn Send + Sync>, NoMemory> + Send + Sync;

/// The node has no memory for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node uses {used} bytes of its limit of {limit}: try again a little later, send less at once, or raise \
     --memory-limit"
)]
pub struct NoMemory {
    /// Bytes that the node uses.
    pub used: u64,
    /// Bytes that it may use.
    pub limit: u64,
}

/// Counts what requests take of the memory of the node.
pub(crate) struct Memory {
    count: Box<CountMemory>,
    /// Requests under way whose bodies are not small.
    large: Arc<Gauge>,
}

/// What one request holds of the node's memory.
pub(crate) struct Counted {
    memory: Vec<Box<dyn Send + Sync>>,
    large: Option<Taken>,
}

impl Memory {
    pub(crate) fn new(count: Box<CountMemory>) -> Arc<Self> {
        Arc::new(Self { count, large: Gauge::new(u64::MAX) })
    }

    /// What a request holds that takes nothing yet.
    pub(crate) fn nothing(&self) -> Counted {
        Counted { memory: Vec::new(), large: None }
    }

    /// Counts so many bytes more for a request of which `body_bytes` are there. Where there is no memory, a request
    /// makes way for others that will be done; one that is alone, or small, is taken nevertheless. Whether what it
    /// brings can stay is for the service to say.
    pub(crate) fn count(&self, counted: &mut Counted, body_bytes: usize, bytes: u64) -> Result<(), NoMemory> {
        if body_bytes > SMALL_BODY_BYTES && counted.large.is_none() {
            counted.large = self.large.take(1);
        }
        match (self.count)(bytes) {
            Ok(memory) => counted.memory.push(memory),
            Err(_) if counted.large.is_none() || self.large.used() <= 1 => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
