//! Which slot a new version of a point takes: one that is vacant again, or one above all others.

use vecino_index::{Index, Slot};

use crate::tables::Tables;

/// Slots that hold nothing in any field's index, and that nobody reads.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    vacant: Vec<Slot>,
}

impl Slots {
    /// Those of a collection that was opened and that nobody else knows of yet.
    pub fn of(tables: &Tables, indexes: &[(String, Index)]) -> Self {
        let slots = (0..tables.slots() as Slot).rev();
        Self { vacant: slots.filter(|slot| tables.in_slot(*slot).is_none() && is_vacant(*slot, indexes)).collect() }
    }

    /// A slot for the next version; `next` is the one above all others. It is given once.
    pub fn take(&mut self, indexes: &[(String, Index)], next: Slot) -> Slot {
        self.look(indexes);
        self.vacant.pop().unwrap_or(next)
    }

    /// How many vacant slots will be given at least before one above all others is.
    pub fn vacant(&mut self, indexes: &[(String, Index)]) -> usize {
        self.look(indexes);
        self.vacant.len()
    }

    /// Looks for slots that have become vacant, where none is known.
    fn look(&mut self, indexes: &[(String, Index)]) {
        if self.vacant.is_empty() {
            for (_, index) in indexes {
                // A slot is taken out of one field's graph sooner than out of another's, and the last one counts.
                self.vacant.extend(index.take_vacant().into_iter().filter(|slot| is_vacant(*slot, indexes)));
            }
            self.vacant.sort_unstable_by(|a, b| b.cmp(a));
        }
    }
}

fn is_vacant(slot: Slot, indexes: &[(String, Index)]) -> bool {
    indexes.iter().all(|(_, index)| index.is_vacant(slot))
}

#[cfg(test)]
mod tests {
    use vecino_index::{Metric, Params};

    use super::*;

    #[test]
    fn a_slot_is_given_again_when_it_is_vacant_in_every_field_and_once() {
        let indexes = ["a", "b"].map(|name| (name.to_owned(), Index::new(Params::new(1, Metric::Dot)).unwrap()));
        let [a, b] = indexes.each_ref().map(|(_, index)| index);
        for slot in 0..200 {
            a.store(slot, &[1.0]).unwrap();
            if slot % 2 == 0 {
                b.store(slot, &[1.0]).unwrap();
            }
        }
        let mut slots = Slots::of(&Tables::default(), &indexes);
        let mut take_all = || -> Vec<Slot> {
            std::iter::repeat_with(|| slots.take(&indexes, 200)).take_while(|slot| *slot != 200).collect()
        };
        assert!(take_all().is_empty());
        (0..150).for_each(|slot| indexes.iter().for_each(|(_, index)| index.bury(slot)));
        while a.consolidate(64) {}
        assert_eq!(take_all(), (0..150).filter(|slot| slot % 2 == 1).collect::<Vec<_>>(), "these were never in b");
        while b.consolidate(64) {}
        assert_eq!(take_all(), (0..150).filter(|slot| slot % 2 == 0).collect::<Vec<_>>());
        assert!(take_all().is_empty());
    }
}
