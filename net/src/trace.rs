//! Trace ids, which tie together what one request of a client causes on all nodes.

use std::fmt;
use std::future::Future;

/// Names one request of a client through every node that works on it: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

tokio::task_local! {
    static CURRENT: TraceId;
}

impl TraceId {
    /// A new one.
    pub fn random() -> Self {
        Self(fastrand::u128(..).to_le_bytes())
    }

    /// Wraps 16 raw bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The trace of the request that the current task works on, if any.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|trace| *trace).ok()
    }

    /// Runs `work` under this trace: calls made in it carry the id on. A spawned task does not inherit it.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_trace_is_seen_inside_its_scope_only() {
        let trace = TraceId::random();
        assert_eq!(trace.scope(async { TraceId::current() }).await, Some(trace));
        assert_eq!(TraceId::current(), None);
    }
}
