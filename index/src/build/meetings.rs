//! Which nodes are linked at the same time, and so may not have seen each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::slot::Slot;

/// Nodes that are being linked. Of two that are linked at the same time each is told of the other.
#[derive(Default)]
pub(crate) struct Meetings {
    present: Mutex<Vec<Guest>>,
}

struct Guest {
    slot: Slot,
    met: Vec<Slot>,
}

impl Meetings {
    /// A node is about to look for its neighbours.
    pub fn come(&self, slot: Slot) {
        let mut present = self.present();
        let met = present.iter().map(|guest| guest.slot).collect();
        present.iter_mut().for_each(|guest| guest.met.push(slot));
        present.push(Guest { slot, met });
    }

    /// A node has come to be linked: who was there since it came. The last of two to go finds the other linked.
    pub fn go(&self, slot: Slot) -> Vec<Slot> {
        let mut present = self.present();
        match present.iter().position(|guest| guest.slot == slot) {
            Some(at) => present.swap_remove(at).met,
            None => Vec::new(),
        }
    }

    fn present(&self) -> MutexGuard<'_, Vec<Guest>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_meets_who_was_there_at_the_same_time() {
        let meetings = Meetings::default();
        meetings.come(1);
        meetings.come(2);
        assert_eq!(meetings.go(1), [2]);
        meetings.come(3);
        meetings.come(4);
        assert_eq!(meetings.go(3), [2, 4]);
        assert_eq!(meetings.go(2), [1, 3, 4]);
        assert_eq!(meetings.go(4), [2, 3]);
        meetings.come(5);
        assert_eq!(meetings.go(5), []);
        assert_eq!(meetings.go(5), []);
    }
}
