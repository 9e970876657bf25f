//! Bounds on the bytes of request bodies in memory: of the node, of a certificate, of a connection.

use std::sync::Arc;

use super::gauge::{Gauge, Taken};

/// What one body holds of each bound; it goes back when dropped.
#[derive(Debug)]
pub struct BodyBytes(Vec<Taken>);

/// Too many bytes of request bodies are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bodies of other requests take the {0} bytes that are set aside for them: try again a little later")]
pub struct NoRoom(u64);

impl BodyBytes {
    /// A body of which nothing has come yet.
    pub(crate) fn new(bounds: [&Arc<Gauge>; 3]) -> Self {
        Self(bounds.iter().filter_map(|gauge| gauge.take(0)).collect())
    }

    /// Grows what is held to cover `bytes`. It never waits, so that no two bodies can wait for each other.
    ///
    /// # Errors
    /// When there is no room for so much more.
    pub fn cover(&mut self, bytes: usize) -> Result<(), NoRoom> {
        for taken in &mut self.0 {
            let missing = (bytes as u64).saturating_sub(taken.amount());
            if missing > 0 && !taken.grow(missing) {
                return Err(NoRoom(taken.gauge().max()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_beyond_a_bound_are_refused_and_what_is_dropped_makes_room() {
        let (node, certificate) = (Gauge::new(10_000), Gauge::new(8_000));
        let (near, far) = (Gauge::new(6_000), Gauge::new(6_000));
        let mut one = BodyBytes::new([&near, &certificate, &node]);
        let mut other = BodyBytes::new([&far, &certificate, &node]);
        one.cover(4_000).unwrap();
        one.cover(6_000).unwrap();
        assert_eq!(one.cover(6_001), Err(NoRoom(6_000)));
        assert_eq!(other.cover(2_001), Err(NoRoom(8_000)));
        other.cover(2_000).unwrap();
        drop(one);
        assert_eq!((near.used(), node.used()), (0, 2_000));
        other.cover(6_000).unwrap();
    }
}
