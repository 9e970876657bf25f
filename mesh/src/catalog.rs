//! The catalog: which collections exist, as every node remembers it.
//!
//! Pure: entries in, decisions out. Nodes send each other entries when a collection is created or dropped, and compare
//! digests by gossip. An entry belongs to one collection id: a tombstone ends that collection and no other, for good, so
//! catalogs grow together in whatever order entries arrive, and a create that fails can undo only itself.
//!
//! A create is refused where the name is in use, and counts only once a majority of the nodes took it, so of two creates
//! of one name at most one succeeds. Should two collections of one name exist all the same (nodes that were apart, one
//! of them without a majority), the one that was created first has the name, and the other is kept and reported.

use std::collections::{BTreeMap, BTreeSet};

use vecino_model::{CatalogEntry, CollectionId, Version};

/// All entries, those of dropped collections among them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    entries: BTreeMap<CollectionId, CatalogEntry>,
    /// The collections of each name that exist, the one that has the name first.
    names: BTreeMap<String, BTreeSet<(Version, CollectionId)>>,
}

/// What an entry changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that anybody could see.
    None,
    /// Its collection came to be.
    Created,
    /// Its collection is gone.
    Dropped,
}

/// A create for a name that is in use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("collection {0:?} exists already: drop it first or choose another name")]
pub struct NameInUse(pub String);

impl Catalog {
    /// Every entry, by id.
    pub fn entries(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.entries.values()
    }

    /// The entry of a collection.
    pub fn entry(&self, id: CollectionId) -> Option<&CatalogEntry> {
        self.entries.get(&id)
    }

    /// The collection that has a name.
    pub fn named(&self, name: &str) -> Option<&CatalogEntry> {
        self.first_of(self.names.get(name)?)
    }

    /// The collections that have their names.
    pub fn all_named(&self) -> Vec<&CatalogEntry> {
        self.names.values().filter_map(|same| self.first_of(same)).collect()
    }

    fn first_of(&self, same: &BTreeSet<(Version, CollectionId)>) -> Option<&CatalogEntry> {
        self.entries.get(&same.first()?.1)
    }

    /// Refuses an entry that creates a collection under a name that another one has.
    pub fn check(&self, entry: &CatalogEntry) -> Result<(), NameInUse> {
        match self.named(&entry.name) {
            Some(known) if known.id != entry.id && entry.live.is_some() => Err(NameInUse(entry.name.clone())),
            _ => Ok(()),
        }
    }

    /// Takes an entry over where it says something new.
    pub fn merge(&mut self, entry: CatalogEntry) -> Change {
        let change = match self.entries.get(&entry.id) {
            None if entry.live.is_some() => Change::Created,
            None => Change::None,
            Some(known) => match (&known.live, &entry.live) {
                (Some(_), None) => Change::Dropped,
                // Two nodes may drop a collection; the later tombstone stands so that all agree.
                (None, None) if known.version < entry.version => Change::None,
                (Some(_) | None, Some(_)) | (None, None) => return Change::None,
            },
        };
        match change {
            Change::Created => {
                self.names.entry(entry.name.clone()).or_default().insert((entry.version, entry.id));
            }
            Change::Dropped => self.forget_name(entry.id),
            Change::None => {}
        }
        self.entries.insert(entry.id, entry);
        change
    }

    /// Takes a collection out of those of its name.
    fn forget_name(&mut self, id: CollectionId) {
        let Some(known) = self.entries.get(&id) else { return };
        if let Some(same) = self.names.get_mut(&known.name) {
            same.remove(&(known.version, id));
            if same.is_empty() {
                self.names.remove(&known.name);
            }
        }
    }

    /// Hash of all entries, equal where catalogs are.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for CatalogEntry { name, version, id, live } in self.entries.values() {
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
            let Version { time, node, seq } = version;
            hasher.update(&time.to_le_bytes()).update(node.as_bytes()).update(&seq.to_le_bytes());
            hasher.update(&id.0).update(&[u8::from(live.is_some())]);
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use vecino_model::{CollectionSchema, Fsync, LiveCollection, NodeId};

    use super::*;

    fn entry(name: &str, time: u64, id: u8, live: bool) -> CatalogEntry {
        let schema = CollectionSchema { fields: BTreeMap::new(), replication_factor: 1, fsync: Fsync::Always };
        CatalogEntry {
            name: name.to_owned(),
            version: Version { time, node: NodeId::from_bytes([9; 16]), seq: 0 },
            id: CollectionId([id; 16]),
            live: live.then(|| LiveCollection { schema, placement: BTreeMap::new() }),
        }
    }

    fn id_of(catalog: &Catalog, name: &str) -> Option<u8> {
        catalog.named(name).map(|entry| entry.id.0[0])
    }

    #[test]
    fn a_name_in_use_is_refused_until_it_is_dropped() {
        let mut catalog = Catalog::default();
        assert_eq!(catalog.merge(entry("a", 1, 1, true)), Change::Created);
        assert_eq!(catalog.check(&entry("a", 2, 2, true)), Err(NameInUse("a".into())));
        assert_eq!(catalog.check(&entry("a", 1, 1, true)), Ok(()), "the same entry again is no conflict");
        assert_eq!(catalog.merge(entry("a", 2, 1, false)), Change::Dropped);
        assert_eq!(id_of(&catalog, "a"), None);
        assert_eq!(catalog.check(&entry("a", 3, 2, true)), Ok(()));
        assert_eq!(catalog.merge(entry("a", 1, 1, true)), Change::None, "what was dropped does not come back");
        assert_eq!(id_of(&catalog, "a"), None);
    }

    #[test]
    fn a_failed_create_undoes_itself_and_never_the_collection_that_has_the_name() {
        let mut catalog = Catalog::default();
        catalog.merge(entry("films", 1, 1, true));
        // A node that knew nothing of it tried to create another, failed, and tells everybody of the end of that.
        assert_eq!(catalog.merge(entry("films", 9, 2, false)), Change::None);
        assert_eq!(id_of(&catalog, "films"), Some(1));
        // Or it succeeded on its side of a partition: the first keeps the name, and nothing is lost.
        assert_eq!(catalog.merge(entry("films", 8, 3, true)), Change::Created);
        assert_eq!(id_of(&catalog, "films"), Some(1));
        assert_eq!(catalog.merge(entry("films", 10, 1, false)), Change::Dropped);
        assert_eq!(id_of(&catalog, "films"), Some(3));
        assert_eq!(catalog.all_named().len(), 1);
    }

    proptest! {
        #[test]
        fn catalogs_that_saw_the_same_entries_are_equal(
            entries in prop::collection::vec((0..5u8, 1..20u64, any::<bool>()), 1..20),
            seed in any::<u64>()
        ) {
            // A collection is created once, with one name and version, and may be dropped several times.
            let entries = entries.into_iter().map(|(id, time, live)| {
                entry(&(id % 2).to_string(), if live { u64::from(id) } else { 20 + time }, id, live)
            });
            let entries: Vec<_> = entries.collect();
            let mut shuffled = entries.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            let grown = |entries: Vec<CatalogEntry>| {
                let mut catalog = Catalog::default();
                entries.into_iter().for_each(|entry| { catalog.merge(entry); });
                catalog
            };
            let (one, other) = (grown(entries), grown(shuffled));
            // The index of names says what a look at every entry does.
            for name in ["0", "1"] {
                let live = one.entries().filter(|entry| entry.live.is_some() && entry.name == name);
                prop_assert_eq!(one.named(name), live.min_by_key(|entry| (entry.version, entry.id)));
            }
            prop_assert_eq!(one.digest(), other.digest());
            prop_assert_eq!(one, other);
        }
    }
}
