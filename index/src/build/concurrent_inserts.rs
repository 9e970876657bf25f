//! Which nodes are linked at the same time, and so may not have seen each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::slot::Slot;

/// Nodes that are being linked. Of two that are linked at the same time each is told of the other.
#[derive(Default)]
pub(crate) struct ConcurrentInserts {
    present: Mutex<Vec<Insert>>,
}

/// One node that is being linked, and the nodes that were linked at some time since it began.
struct Insert {
    slot: Slot,
    seen: Vec<Slot>,
}

/// A node that is among those that are being linked, until this is dropped.
pub(crate) struct Entered<'a> {
    inserts: &'a ConcurrentInserts,
    slot: Slot,
}

impl ConcurrentInserts {
    /// A node is about to look for its neighbours.
    pub fn enter(&self, slot: Slot) -> Entered<'_> {
        let mut present = self.present();
        let seen = present.iter().map(|insert| insert.slot).collect();
        present.iter_mut().for_each(|insert| insert.seen.push(slot));
        present.push(Insert { slot, seen });
        Entered { inserts: self, slot }
    }

    fn remove(&self, slot: Slot) -> Option<Insert> {
        let mut present = self.present();
        let at = present.iter().position(|insert| insert.slot == slot)?;
        Some(present.swap_remove(at))
    }

    fn present(&self) -> MutexGuard<'_, Vec<Insert>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entered<'_> {
    /// The node is linked: the nodes that were being linked since it entered. The last of two to leave finds the other
    /// linked.
    pub fn leave(self) -> Vec<Slot> {
        self.inserts.remove(self.slot).map(|insert| insert.seen).unwrap_or_default()
    }
}

impl Drop for Entered<'_> {
    /// A thread that panicked while it linked leaves nothing behind.
    fn drop(&mut self) {
        self.inserts.remove(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_of_those_that_were_linked_at_the_same_time() {
        let inserts = ConcurrentInserts::default();
        let one = inserts.enter(1);
        let two = inserts.enter(2);
        assert_eq!(one.leave(), [2]);
        let three = inserts.enter(3);
        let four = inserts.enter(4);
        assert_eq!(three.leave(), [2, 4]);
        assert_eq!(two.leave(), [1, 3, 4]);
        assert_eq!(four.leave(), [2, 3]);
        assert!(inserts.enter(5).leave().is_empty());
    }

    #[test]
    fn an_insert_that_panicked_is_not_kept() {
        let inserts = ConcurrentInserts::default();
        drop(inserts.enter(1));
        assert!(inserts.enter(2).leave().is_empty() && inserts.present().is_empty());
    }
}
