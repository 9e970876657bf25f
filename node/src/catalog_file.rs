//! The catalog as it stands on disk: types of its own, so that what travels may change without what is stored. Its bytes are
//! drawn in `docs/disk.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vecino_model::{
    CatalogEntry, CollectionId, CollectionSchema, FieldSchema, Fsync, LiveCollection, Metric, NodeId, Profile, Version,
};

/// Where the catalog stands in the data directory.
pub const CATALOG_FILE: &str = "catalog";

#[derive(Serialize, Deserialize)]
struct StoredEntry {
    name: String,
    version: StoredVersion,
    id: StoredId,
    live: Option<StoredLive>,
}

#[derive(Serialize, Deserialize)]
struct StoredVersion {
    time: u64,
    node: StoredId,
    /// Left out where it is 0, as in what was written before there was one.
    #[serde(default, skip_serializing_if = "is_zero")]
    seq: u64,
}

fn is_zero(seq: &u64) -> bool {
    *seq == 0
}

/// 16 raw bytes: the id of a node or of a collection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct StoredId(#[serde(with = "serde_bytes")] [u8; 16]);

#[derive(Serialize, Deserialize)]
struct StoredLive {
    schema: StoredSchema,
    placement: BTreeMap<StoredId, Vec<u64>>,
}

#[derive(Serialize, Deserialize)]
struct StoredSchema {
    fields: BTreeMap<String, StoredField>,
    replication_factor: u32,
    fsync: StoredFsync,
}

#[derive(Serialize, Deserialize)]
struct StoredField {
    dim: u32,
    metric: StoredMetric,
    m: u32,
    ef_construction: u32,
    /// NotOpen in the oldest catalogs.
    #[serde(default)]
    profile: StoredProfile,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredMetric {
    Cosine,
    Euclidean,
    Dot,
    Manhattan,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredProfile {
    #[default]
    Fast,
    Compact,
    Plain,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredFsync {
    Always,
    EveryMs(u32),
    Never,
}

/// The bytes of a catalog.
pub fn encode<'a>(entries: impl Iterator<Item = &'a CatalogEntry>) -> Vec<u8> {
    let stored: Vec<StoredEntry> = entries.map(StoredEntry::from).collect();
    rmp_serde::to_vec_named(&stored).expect("a catalog of strings, numbers and bytes always encodes")
}

/// The entries of a catalog.
///
/// # Errors
/// When the bytes are not those of a catalog.
pub fn decode(bytes: &[u8]) -> Result<Vec<CatalogEntry>, rmp_serde::decode::Error> {
    let stored: Vec<StoredEntry> = rmp_serde::from_slice(bytes)?;
    Ok(stored.into_iter().map(CatalogEntry::from).collect())
}

impl From<&CatalogEntry> for StoredEntry {
    fn from(entry: &CatalogEntry) -> Self {
        let CatalogEntry { name, version: Version { time, node, seq }, id: CollectionId(id), live } = entry;
        Self {
            name: name.clone(),
            version: StoredVersion { time: *time, node: StoredId(*node.as_bytes()), seq: *seq },
            id: StoredId(*id),
            live: live.as_ref().map(StoredLive::from),
        }
    }
}

impl From<StoredEntry> for CatalogEntry {
    fn from(stored: StoredEntry) -> Self {
        let StoredEntry { name, version, id: StoredId(id), live } = stored;
        let StoredVersion { time, node: StoredId(node), seq } = version;
        let version = Version { time, node: NodeId::from_bytes(node), seq };
        Self { name, version, id: CollectionId(id), live: live.map(LiveCollection::from) }
    }
}

impl From<&LiveCollection> for StoredLive {
    fn from(live: &LiveCollection) -> Self {
        let LiveCollection { schema: CollectionSchema { fields, replication_factor, fsync }, placement } = live;
        let fields = fields.iter().map(|(name, field)| (name.clone(), StoredField::from(field))).collect();
        let fsync = match fsync {
            Fsync::Always => StoredFsync::Always,
            Fsync::EveryMs(every) => StoredFsync::EveryMs(*every),
            Fsync::Never => StoredFsync::Never,
        };
        Self {
            schema: StoredSchema { fields, replication_factor: *replication_factor, fsync },
            placement: placement.iter().map(|(node, tokens)| (StoredId(*node.as_bytes()), tokens.clone())).collect(),
        }
    }
}

impl From<StoredLive> for LiveCollection {
    fn from(stored: StoredLive) -> Self {
        let StoredLive { schema: StoredSchema { fields, replication_factor, fsync }, placement } = stored;
        let fields = fields.into_iter().map(|(name, field)| (name, FieldSchema::from(field))).collect();
        let fsync = match fsync {
            StoredFsync::Always => Fsync::Always,
            StoredFsync::EveryMs(every) => Fsync::EveryMs(every),
            StoredFsync::Never => Fsync::Never,
        };
        let placement = placement.into_iter().map(|(StoredId(node), tokens)| (NodeId::from_bytes(node), tokens));
        Self { schema: CollectionSchema { fields, replication_factor, fsync }, placement: placement.collect() }
    }
}

impl From<&FieldSchema> for StoredField {
    fn from(field: &FieldSchema) -> Self {
        let FieldSchema { dim, metric, m, ef_construction, profile } = *field;
        let metric = match metric {
            Metric::Cosine => StoredMetric::Cosine,
            Metric::Euclidean => StoredMetric::Euclidean,
            Metric::Dot => StoredMetric::Dot,
            Metric::Manhattan => StoredMetric::Manhattan,
        };
        let profile = match profile {
            Profile::Fast => StoredProfile::Fast,
            Profile::Compact => StoredProfile::Compact,
            Profile::Plain => StoredProfile::Plain,
        };
        Self { dim, metric, m, ef_construction, profile }
    }
}

impl From<StoredField> for FieldSchema {
    fn from(stored: StoredField) -> Self {
        let StoredField { dim, metric, m, ef_construction, profile } = stored;
        let metric = match metric {
            StoredMetric::Cosine => Metric::Cosine,
            StoredMetric::Euclidean => Metric::Euclidean,
            StoredMetric::Dot => Metric::Dot,
            StoredMetric::Manhattan => Metric::Manhattan,
        };
        let profile = match profile {
            StoredProfile::Fast => Profile::Fast,
            StoredProfile::Compact => Profile::Compact,
            StoredProfile::Plain => Profile::Plain,
        };
        Self { dim, metric, m, ef_construction, profile }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two entries as the first version of the file had them: a collection with two fields on two nodes, and a tombstone.
    const FIRST_BYTES: &str = "9284a46e616d65a566696c6d73a776657273696f6e82a474696d65ce00010002a46e6f6465c410010101010101010101\
        01010101010101a26964c41002020202020202020202020202020202a46c69766582a6736368656d6183a66669656c647382a085a364696d03a6\
        6d6574726963a6636f73696e65a16d10af65665f636f6e737472756374696f6eccc8a770726f66696c65a466617374a17485a364696d08a66d65\
        74726963a96575636c696465616ea16d08af65665f636f6e737472756374696f6e28a770726f66696c65a7636f6d70616374b27265706c696361\
        74696f6e5f666163746f7202a56673796e6381a865766572795f6d7332a9706c6163656d656e7482c410010101010101010101010101010101\
        01920102c4100303030303030303030303030303030390 84a46e616d65a4676f6e65a776657273696f6e82a474696d6507a46e6f6465c41003\
        030303030303030303030303030303a26964c41004040404040404040404040404040404a46c697665c0";

    fn first_bytes() -> Vec<u8> {
        let digits: Vec<u8> = FIRST_BYTES.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn entries() -> Vec<CatalogEntry> {
        let (one, three) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([3; 16]));
        let field = |dim, metric, m, ef_construction, profile| FieldSchema { dim, metric, m, ef_construction, profile };
        let fields = BTreeMap::from([
            (String::new(), field(3, Metric::Cosine, 16, 200, Profile::Fast)),
            ("t".to_owned(), field(8, Metric::Euclidean, 8, 40, Profile::Compact)),
        ]);
        let schema = CollectionSchema { fields, replication_factor: 2, fsync: Fsync::EveryMs(50) };
        let placement = BTreeMap::from([(one, vec![1, 2]), (three, Vec::new())]);
        let version = |time, node| Version { time, node, seq: 0 };
        vec![
            CatalogEntry {
                name: "films".to_owned(),
                version: version(0x10002, one),
                id: CollectionId([2; 16]),
                live: Some(LiveCollection { schema, placement }),
            },
            CatalogEntry { name: "gone".to_owned(), version: version(7, three), id: CollectionId([4; 16]), live: None },
        ]
    }

    #[test]
    fn a_catalog_has_the_bytes_that_it_always_had() {
        assert_eq!(encode(entries().iter()), first_bytes());
        assert_eq!(decode(&first_bytes()).unwrap(), entries());
    }

    #[test]
    fn what_is_no_catalog_is_an_error() {
        let bytes = first_bytes();
        assert!((0..bytes.len()).all(|len| decode(&bytes[..len]).is_err()));
        assert!(decode(&[0x91, 0xc0]).is_err());
    }
}
