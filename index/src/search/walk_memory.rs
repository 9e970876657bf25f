//! Working memory of one walk.

use crate::kernel::Kernel;
use crate::search::pool::Pool;
use crate::slot::Slot;

/// What one walk needs.
pub(crate) struct WalkMemory {
    pub pool: Pool,
    pub visited: Visited,
    /// Neighbours to be measured.
    pub batch: Vec<Slot>,
    /// The distances of those neighbours.
    pub distances: Vec<f32>,
}

impl WalkMemory {
    /// Memory that no walk has used yet.
    pub fn new(kernel: Kernel) -> Self {
        Self { pool: Pool::new(kernel), visited: Visited::default(), batch: Vec::new(), distances: Vec::new() }
    }
}

/// Which slots a walk has seen. A slot is marked with the number of the walk, so that forgetting costs nothing but
/// every 255th time.
#[derive(Default)]
pub(crate) struct Visited {
    marks: Vec<u8>,
    walk: u8,
}

impl Visited {
    /// Forgets every slot. `slots` is how many there are; there may become more.
    pub fn begin(&mut self, slots: usize) {
        if self.marks.len() < slots {
            self.marks.resize(slots.next_power_of_two(), 0);
        }
        self.walk = self.walk.wrapping_add(1);
        if self.walk == 0 {
            self.marks.fill(0);
            self.walk = 1;
        }
    }

    /// Marks a slot. Whether it was new.
    #[inline(always)]
    pub fn insert(&mut self, slot: Slot) -> bool {
        let slot = slot as usize;
        if slot >= self.marks.len() {
            self.grow(slot);
        }
        std::mem::replace(&mut self.marks[slot], self.walk) != self.walk
    }

    #[cold]
    fn grow(&mut self, slot: usize) {
        self.marks.resize((slot + 1).next_power_of_two(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visited_forgets_between_walks_over_every_turn_of_its_counter() {
        let mut visited = Visited::default();
        for walk in 0..600u32 {
            visited.begin(10);
            assert!(visited.insert(walk % 10) && visited.insert(1000 + walk), "walk {walk}");
            assert!(!visited.insert(walk % 10) && !visited.insert(1000 + walk), "walk {walk}");
        }
    }
}
