//! Which slot a new version of a point takes: one that is vacant again, or one above all others.

use vecino_index::{Index, Slot};

use super::tables::Tables;

/// Slots that hold nothing in any field's index, and that nobody reads.
#[derive(Debug, Default)]
pub(super) struct Slots {
    vacant: Vec<Slot>,
}

impl Slots {
    /// Those of a collection that nobody has used since it was opened.
    pub fn of(tables: &Tables, indexes: &[(String, Index)]) -> Self {
        let slots = (0..tables.slots() as Slot).rev();
        Self { vacant: slots.filter(|slot| tables.in_slot(*slot).is_none() && is_vacant(*slot, indexes)).collect() }
    }

    /// A slot for the next version; `next` is the one above all others. It is given once.
    pub fn take(&mut self, indexes: &[(String, Index)], next: Slot) -> Slot {
        if self.vacant.is_empty() {
            for (_, index) in indexes {
                // A slot is taken out of one field's graph sooner than out of another's, and the last one counts.
                self.vacant.extend(index.take_vacant().into_iter().filter(|slot| is_vacant(*slot, indexes)));
            }
            self.vacant.sort_unstable_by(|a, b| b.cmp(a));
        }
        self.vacant.pop().unwrap_or(next)
    }
}

fn is_vacant(slot: Slot, indexes: &[(String, Index)]) -> bool {
    indexes.iter().all(|(_, index)| index.is_vacant(slot))
}
