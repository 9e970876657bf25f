//! All vector fields of a collection. A point has one slot, and a vector there in each field that it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vecino_index::{Index, IndexError, Reading, Slot};
use vecino_model::{CollectionId, CollectionSchema, FieldSchema, Fields, Vector};

use crate::fields::field::FieldIndex;
use crate::memory::Budget;

/// The index of each vector field, in the schema's order.
pub(crate) struct FieldIndexes {
    fields: Vec<Field>,
}

struct Field {
    name: String,
    index: FieldIndex,
    /// One more than the highest slot that the index was asked to have room for.
    reserved: AtomicUsize,
}

/// One more than the highest slot that each field will reach with what is to be stored; empty where nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent(Vec<usize>);

/// A vector that an index did not take.
#[derive(Debug, thiserror::Error)]
#[error("vector field {field:?}: {source}")]
pub(crate) struct Refused {
    /// The field.
    pub field: String,
    /// Why.
    pub source: IndexError,
}

impl FieldIndexes {
    /// Empty indexes.
    pub fn new(id: CollectionId, schema: &CollectionSchema) -> Result<Self, IndexError> {
        Self::made(schema, |number, field| FieldIndex::new(id, number, field))
    }

    /// Makes the index of each field of a schema, which is told by its number and its schema.
    pub fn made<E>(
        schema: &CollectionSchema,
        make: impl Fn(usize, &FieldSchema) -> Result<FieldIndex, E>,
    ) -> Result<Self, E> {
        let field = |(number, (name, field)): (usize, (&String, &FieldSchema))| {
            Ok(Field { name: name.clone(), index: make(number, field)?, reserved: AtomicUsize::new(0) })
        };
        Ok(Self { fields: schema.fields.iter().enumerate().map(field).collect::<Result<_, E>>()? })
    }

    /// The names of the fields.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.fields.iter().map(|field| &field.name)
    }

    /// The index of each field, in the schema's order.
    pub fn all(&self) -> impl Iterator<Item = &FieldIndex> {
        self.fields.iter().map(|field| &field.index)
    }

    /// The index of a field.
    pub fn get(&self, name: &str) -> Option<&FieldIndex> {
        self.fields.iter().find(|field| field.name == name).map(|field| &field.index)
    }

    /// While what is returned lives, no slot that is in use now is given to another point.
    pub fn reading(&self) -> Vec<Reading<'_>> {
        self.all().map(FieldIndex::reading).collect()
    }

    /// The vectors of the point in a slot, of those fields that it has.
    pub fn vectors(&self, slot: Slot) -> Fields {
        let vector = |field: &Field| Some((field.name.clone(), field.index.vector(slot)?));
        self.fields.iter().filter_map(vector).collect()
    }

    /// Most bytes that the vectors of one point take.
    pub fn vector_bytes_max(&self) -> usize {
        self.all().map(FieldIndex::vector_bytes_max).sum()
    }

    /// Checks the vectors of a point, those of fields that are not in the schema apart.
    pub fn check(&self, vectors: &Fields) -> Result<(), Refused> {
        self.each(vectors, |field, vector| field.index.check(vector))
    }

    /// Stores the vectors of a point in its slot, all that fit; gives the first that does not.
    pub fn store(&self, slot: Slot, vectors: &Fields) -> Result<(), Refused> {
        self.each(vectors, |field, vector| field.index.store(slot, vector))
    }

    /// As [`Self::store`], for vectors that were checked; with the norm of each, in their order.
    pub fn store_checked(&self, slot: Slot, vectors: &Fields, norms: &[f64]) -> Result<(), Refused> {
        let mut first = Ok(());
        for ((name, vector), norm) in vectors.iter().zip(norms) {
            let Some(index) = self.get(name) else { continue };
            let done = index.store_checked(slot, vector, *norm);
            first = first.and(done.map_err(|source| Refused { field: name.clone(), source }));
        }
        first
    }

    /// Does something with each vector that there is a field for; gives the first error.
    fn each(&self, vectors: &Fields, work: impl Fn(&Field, &Vector) -> Result<(), IndexError>) -> Result<(), Refused> {
        let given = self.fields.iter().filter_map(|field| Some((field, vectors.get(&field.name)?)));
        let mut first = Ok(());
        for (field, vector) in given {
            let done = work(field, vector).map_err(|source| Refused { field: field.name.clone(), source });
            first = first.and(done);
        }
        first
    }

    /// Takes the point in a slot out of the results of all fields that it has.
    pub fn mark_deleted(&self, slot: Slot) {
        self.all().for_each(|index| index.mark_deleted(slot));
    }

    /// Bytes of memory that storing the vectors in a slot below `end` takes, beside those in use and those for `extent`.
    ///
    /// An index takes memory for every slot up to its highest one, those of points without the field too.
    pub fn bytes_beyond(&self, extent: &Extent, vectors: &Fields, end: usize) -> usize {
        let bytes = |(number, field): (usize, &Field)| {
            let reached = extent.of(number).max(field.index.slots());
            end.saturating_sub(reached) * field.index.bytes_per_slot()
        };
        self.fields.iter().enumerate().filter(|(_, field)| vectors.contains_key(&field.name)).map(bytes).sum()
    }

    /// The vectors are to be stored in a slot below `end`.
    pub fn extend(&self, extent: &mut Extent, vectors: &Fields, end: usize) {
        let Extent(ends) = extent;
        ends.resize(self.fields.len(), 0);
        for (reached, field) in ends.iter_mut().zip(&self.fields) {
            if vectors.contains_key(&field.name) {
                *reached = end.max(*reached);
            }
        }
    }

    /// Makes room in each field as far as `extent` reaches, so that what is stored there asks for no more memory.
    pub fn reserve(&self, extent: &Extent) -> Result<(), IndexError> {
        for (number, field) in self.fields.iter().enumerate() {
            let end = extent.of(number);
            if field.reserved.load(Ordering::Relaxed) < end {
                field.index.reserve(end as Slot - 1)?;
                field.reserved.store(end, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Whether a slot holds nothing in any field that a reader may still see.
    pub fn is_vacant(&self, slot: Slot) -> bool {
        self.all().all(|index| index.is_vacant(slot))
    }

    /// Slots that have become vacant in every field since this was last asked, ascending, each once.
    pub fn take_vacant(&self) -> Vec<Slot> {
        // A slot leaves the graph of one field sooner than that of another: the last one counts.
        let vacant = self.all().flat_map(FieldIndex::take_vacant);
        let mut vacant: Vec<Slot> = vacant.filter(|slot| self.is_vacant(*slot)).collect();
        // Fields that it left since this was last asked all tell of it.
        vacant.sort_unstable();
        vacant.dedup();
        vacant
    }

    /// One more than the highest slot that any field has.
    pub fn slots(&self) -> usize {
        self.all().map(FieldIndex::slots).max().unwrap_or(0)
    }

    /// Bytes of memory that the indexes take.
    pub fn memory_bytes(&self) -> usize {
        self.all().map(FieldIndex::memory_bytes).sum()
    }

    /// Points that wait to be linked, in the field where most do.
    pub fn unlinked(&self) -> usize {
        self.all().map(FieldIndex::unlinked).max().unwrap_or(0)
    }

    /// Bytes of vectors that wait to be linked, in the field where most do.
    pub fn unlinked_bytes(&self) -> usize {
        self.all().map(FieldIndex::unlinked_bytes).max().unwrap_or(0)
    }

    /// How many slots of loaded indexes have their codes, and of how many, while some have not.
    pub fn warming(&self) -> Option<(usize, usize)> {
        let warming = self.all().filter_map(FieldIndex::warming);
        warming.reduce(|(done, total), next| (done + next.0, total + next.1))
    }

    /// Has the indexes ask the budget before they make their codes anew.
    pub fn ask_before_growing(&self, budget: &Arc<Budget>) {
        for index in self.all() {
            let budget = Arc::clone(budget);
            index.ask_before_growing(Box::new(move |bytes| Some(Box::new(budget.try_count(bytes as u64)?))));
        }
    }

    /// What indexers have to link and consolidate.
    pub fn graphs(&self) -> impl Iterator<Item = &Index> {
        self.all().filter_map(FieldIndex::graph)
    }
}

impl Extent {
    fn of(&self, number: usize) -> usize {
        self.0.get(number).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vecino_model::{Fsync, Metric};

    use super::*;

    fn two_fields() -> FieldIndexes {
        let field = FieldSchema { dim: 1, metric: Metric::Dot, m: 8, ef_construction: 40, profile: Default::default() };
        let fields = BTreeMap::from(["a", "b"].map(|name| (name.to_owned(), field.clone())));
        let schema = CollectionSchema { fields, replication_factor: 1, fsync: Fsync::Always };
        FieldIndexes::new(CollectionId([1; 16]), &schema).unwrap()
    }

    fn vectors(names: &[&str]) -> Fields {
        names.iter().map(|name| ((*name).to_owned(), Vector(vec![1.0]))).collect()
    }

    #[test]
    fn memory_is_asked_for_up_to_the_highest_slot_of_each_field_that_a_point_has() {
        let fields = two_fields();
        let per_slot = fields.get("a").unwrap().bytes_per_slot();
        let mut extent = Extent::default();
        assert_eq!(fields.bytes_beyond(&extent, &vectors(&["a"]), 1), per_slot);
        fields.extend(&mut extent, &vectors(&["a"]), 1);
        assert_eq!(fields.bytes_beyond(&extent, &vectors(&["a"]), 1), 0, "it is counted already");
        assert_eq!(fields.bytes_beyond(&extent, &vectors(&["a", "b"]), 2), 3 * per_slot, "one of a, two of b");
        fields.store(9, &vectors(&["b"])).unwrap();
        assert_eq!(fields.bytes_beyond(&extent, &vectors(&["b"]), 10), 0, "it is in use already");
    }

    #[test]
    fn a_vector_that_does_not_fit_is_told_by_its_field_and_the_others_are_stored() {
        let fields = two_fields();
        let mut given = vectors(&["a", "b"]);
        given.insert("a".to_owned(), Vector(vec![1.0, 2.0]));
        let told = fields.store(0, &given).unwrap_err().to_string();
        assert!(told.starts_with("vector field \"a\": "), "{told}");
        assert_eq!(fields.vectors(0), vectors(&["b"]));
        fields.check(&given).unwrap_err();
    }
}
