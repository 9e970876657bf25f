//! The hash by which nodes see that they agree.
//!
//! Every part of a state (a member, a layout, a collection) has a hash of its key and its bytes, and that of the state is the
//! exclusive or of all of them and of its own fields: so a change costs the hash of what it changes, however much there is
//! (a multiset hash as in Bellare and Micciancio 1997; nobody who could choose parts to collide is let in).

use std::fmt;

/// Hash of a state.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct StateHash(pub [u8; 16]);

/// What kind of part is hashed, so that parts of two kinds never have one hash.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Head = 0,
    Member = 1,
    Layout = 2,
    Collection = 3,
    Dropped = 4,
}

impl StateHash {
    /// Adds a part that was not there, or takes out one that was.
    pub(super) fn toggle(&mut self, part: Part, key: &[u8], bytes: &[u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[part as u8]).update(&(key.len() as u64).to_le_bytes()).update(key).update(bytes);
        let hash = hasher.finalize();
        self.0.iter_mut().zip(hash.as_bytes()).for_each(|(byte, other)| *byte ^= other);
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateHash({self})")
    }
}
