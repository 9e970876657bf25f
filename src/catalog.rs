//! The catalog: which collections exist, as every node remembers it.
//!
//! Pure: entries in, decisions out. Nodes send each other entries when a collection is created or dropped and compare
//! digests by gossip; of two entries with one name the later version stands. A create is refused where the name is in
//! use, and counts only once a majority of the nodes took it, so of two creates of one name at most one succeeds.

use std::collections::BTreeMap;

use vecino_net::message::CatalogEntry;
use vecino_net::model::CollectionId;

/// All entries by collection name, those of dropped collections among them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    entries: BTreeMap<String, CatalogEntry>,
}

/// What an entry changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Nothing: it was known, or something newer is.
    None,
    /// The collection came to be; where it took the name of another, that one is gone.
    Created {
        /// The collection whose name it took.
        replaced: Option<CollectionId>,
    },
    /// The collection is gone.
    Dropped(CollectionId),
}

/// A create for a name that is in use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("collection {0:?} exists already: drop it first or choose another name")]
pub struct NameInUse(pub String);

impl Catalog {
    /// A catalog from stored entries.
    pub fn from_entries(entries: impl IntoIterator<Item = CatalogEntry>) -> Self {
        let mut catalog = Self::default();
        for entry in entries {
            catalog.merge(entry);
        }
        catalog
    }

    /// Every entry, by name.
    pub fn entries(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.entries.values()
    }

    /// The entry of a collection that exists.
    pub fn live(&self, name: &str) -> Option<&CatalogEntry> {
        self.entries.get(name).filter(|entry| entry.live.is_some())
    }

    /// The entries of collections that exist, by name.
    pub fn all_live(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.entries.values().filter(|entry| entry.live.is_some())
    }

    /// The entry of an existing collection, by id.
    pub fn live_by_id(&self, id: CollectionId) -> Option<&CatalogEntry> {
        self.all_live().find(|entry| entry.id == id)
    }

    /// Refuses an entry that creates a collection under a name that another one has.
    pub fn check(&self, entry: &CatalogEntry) -> Result<(), NameInUse> {
        match self.live(&entry.name) {
            Some(known) if known.id != entry.id && entry.live.is_some() => Err(NameInUse(entry.name.clone())),
            _ => Ok(()),
        }
    }

    /// Takes an entry over if it is newer than what is known of its name.
    pub fn merge(&mut self, entry: CatalogEntry) -> Change {
        let known = self.entries.get(&entry.name);
        if known.is_some_and(|known| known.version >= entry.version) {
            return Change::None;
        }
        let replaced = known.filter(|known| known.live.is_some()).map(|known| known.id);
        let change = match (&entry.live, replaced) {
            (Some(_), Some(id)) if id == entry.id => Change::None,
            (Some(_), replaced) => Change::Created { replaced },
            (None, Some(id)) => Change::Dropped(id),
            (None, None) => Change::None,
        };
        self.entries.insert(entry.name.clone(), entry);
        change
    }

    /// Hash of all entries, equal where catalogs are.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for CatalogEntry { name, version, id, live } in self.entries.values() {
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
            hasher.update(&version.time.to_le_bytes()).update(version.node.as_bytes());
            hasher.update(&id.0).update(&[u8::from(live.is_some())]);
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use vecino_certs::NodeId;
    use vecino_net::message::LiveCollection;
    use vecino_net::model::{CollectionSchema, Fsync, Version};

    use super::*;

    fn entry(name: &str, time: u64, id: u8, live: bool) -> CatalogEntry {
        let schema = CollectionSchema { fields: BTreeMap::new(), replication_factor: 1, fsync: Fsync::Always };
        CatalogEntry {
            name: name.to_owned(),
            version: Version { time, node: NodeId::from_bytes([id; 16]) },
            id: CollectionId([id; 16]),
            live: live.then(|| LiveCollection { schema, placement: BTreeMap::new() }),
        }
    }

    #[test]
    fn a_name_in_use_is_refused_until_it_is_dropped() {
        let mut catalog = Catalog::default();
        assert_eq!(catalog.merge(entry("a", 1, 1, true)), Change::Created { replaced: None });
        assert_eq!(catalog.check(&entry("a", 2, 2, true)), Err(NameInUse("a".into())));
        assert_eq!(catalog.check(&entry("a", 1, 1, true)), Ok(()), "the same entry again is no conflict");
        assert_eq!(catalog.merge(entry("a", 2, 1, false)), Change::Dropped(CollectionId([1; 16])));
        assert_eq!(catalog.live("a"), None);
        assert_eq!(catalog.check(&entry("a", 3, 2, true)), Ok(()));
        assert_eq!(catalog.merge(entry("a", 1, 1, true)), Change::None, "what was dropped does not come back");
    }

    proptest! {
        #[test]
        fn catalogs_that_saw_the_same_entries_are_equal(
            entries in prop::collection::vec((0..3u8, 1..20u64, 0..4u8, any::<bool>()), 1..20),
            seed in any::<u64>()
        ) {
            let entries: Vec<_> =
                entries.into_iter().map(|(name, time, id, live)| entry(&name.to_string(), time, id, live)).collect();
            // Two entries of one name and version never differ: a version is stamped once.
            let mut unique = BTreeMap::new();
            for entry in entries { unique.entry((entry.name.clone(), entry.version)).or_insert(entry); }
            let mut shuffled: Vec<_> = unique.values().cloned().collect();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            let (one, other) = (Catalog::from_entries(unique.into_values()), Catalog::from_entries(shuffled));
            prop_assert_eq!(one.digest(), other.digest());
            prop_assert_eq!(one, other);
        }
    }
}
