//! Which slot a new version of a point takes: one that is vacant again, or one above all others.

use vecino_index::Slot;

use crate::fields::FieldIndexes;
use crate::tables::Tables;

/// Slots that hold nothing in any field's index, and that no thread reads.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Descending, so that the lowest is given first.
    vacant: Vec<Slot>,
}

impl Slots {
    /// Those of a collection that was opened and that no other thread knows of yet.
    pub fn of(tables: &Tables, fields: &FieldIndexes) -> Self {
        let slots = (0..tables.slots() as Slot).rev();
        Self { vacant: slots.filter(|slot| tables.in_slot(*slot).is_none() && fields.is_vacant(*slot)).collect() }
    }

    /// A slot for the next version. It is given once.
    pub fn take(&mut self, tables: &Tables, fields: &FieldIndexes) -> Slot {
        self.look(tables, fields);
        self.vacant.pop().unwrap_or(tables.slots() as Slot)
    }

    /// How many vacant slots will be given at least before one above all others is.
    pub fn vacant(&mut self, tables: &Tables, fields: &FieldIndexes) -> usize {
        self.look(tables, fields);
        self.vacant.len()
    }

    /// Looks for slots that have become vacant, where none is known.
    fn look(&mut self, tables: &Tables, fields: &FieldIndexes) {
        if self.vacant.is_empty() {
            let vacant = fields.take_vacant().into_iter().rev();
            // A point that no field took has its slot all the same.
            self.vacant = vacant.filter(|slot| tables.in_slot(*slot).is_none()).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vecino_index::Index;
    use vecino_model::{CollectionId, CollectionSchema, FieldSchema, Fields, Fsync, Metric, Vector};

    use super::*;

    fn fields_a_and_b() -> FieldIndexes {
        let field = FieldSchema { dim: 1, metric: Metric::Dot, m: 8, ef_construction: 40, profile: Default::default() };
        let fields = BTreeMap::from(["a", "b"].map(|name| (name.to_owned(), field.clone())));
        let schema = CollectionSchema { fields, replication_factor: 1, fsync: Fsync::Always };
        FieldIndexes::new(CollectionId([1; 16]), &schema).unwrap()
    }

    fn vectors(names: &[&str]) -> Fields {
        names.iter().map(|name| ((*name).to_owned(), Vector(vec![1.0]))).collect()
    }

    /// Tables whose slots below `slots` are all in use or were.
    fn tables(slots: usize) -> Tables {
        let mut tables = Tables::default();
        tables.skip_slots_below(slots);
        tables
    }

    fn take_all(slots: &mut Slots, tables: &Tables, fields: &FieldIndexes) -> Vec<Slot> {
        std::iter::repeat_with(|| slots.take(tables, fields)).take_while(|slot| *slot != 200).collect()
    }

    fn consolidate(index: &Index) {
        while index.consolidate(64) {}
    }

    #[test]
    fn a_slot_is_given_again_when_it_is_vacant_in_every_field_and_once() {
        let fields = fields_a_and_b();
        for slot in 0..200 {
            fields.store(slot, &vectors(if slot % 2 == 0 { &["a", "b"] } else { &["a"] })).unwrap();
        }
        let [a, b] = fields.graphs().collect::<Vec<_>>().try_into().ok().unwrap();
        let (tables, mut slots) = (tables(200), Slots::default());
        assert!(take_all(&mut slots, &tables, &fields).is_empty());
        (0..150).for_each(|slot| fields.mark_deleted(slot));
        consolidate(a);
        let never_in_b: Vec<Slot> = (0..150).filter(|slot| slot % 2 == 1).collect();
        assert_eq!(take_all(&mut slots, &tables, &fields), never_in_b);
        consolidate(b);
        let others: Vec<Slot> = (0..150).filter(|slot| slot % 2 == 0).collect();
        assert_eq!(take_all(&mut slots, &tables, &fields), others);
        assert!(take_all(&mut slots, &tables, &fields).is_empty());
    }

    #[test]
    fn a_slot_that_left_two_fields_before_anybody_looked_is_given_once() {
        let fields = fields_a_and_b();
        (0..200).for_each(|slot| fields.store(slot, &vectors(&["a", "b"])).unwrap());
        (0..150).for_each(|slot| fields.mark_deleted(slot));
        // The round ends, and then what left is vacated in both before the writer asks either.
        for _ in 0..3 {
            fields.graphs().for_each(consolidate);
        }
        let (tables, mut slots) = (tables(200), Slots::default());
        assert_eq!(take_all(&mut slots, &tables, &fields), (0..150).collect::<Vec<_>>());
    }
}
