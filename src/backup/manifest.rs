//! A manifest: what one backup is made of. Drawn in `docs/backup.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::{BorrowedFormatItem, parse_borrowed};
use vecino_client::{CollectionSchema, FieldSchema, Fsync, Level};
use vecino_model::{CollectionId, MeshId};
use vecino_storage::preamble::{self, PREAMBLE_BYTES, Preamble};

use super::page::PageName;

/// The format that is written, and the newest that is read.
pub const BACKUP_FORMAT_VERSION: u32 = 1;
/// Largest manifest: one of about four million pages.
pub const MANIFEST_BYTES_MAX: u64 = 256 << 20;

const MAGIC: &[u8; 8] = b"VECINOBK";
const HASH_BYTES: usize = 32;

/// The name of a backup: when it was begun, in UTC, so that names sort by age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupName(String);

impl BackupName {
    /// The name of a backup that is begun at this time.
    pub fn at(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(since.as_millis() as u64);
        Self(time.format(&format()).expect("every part of the name is one of a date and time"))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `20261121T080511.123Z`.
fn format() -> Vec<BorrowedFormatItem<'static>> {
    parse_borrowed::<2>("[year][month][day]T[hour][minute][second].[subsecond digits:3]Z")
        .expect("the format is a constant that a test uses")
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BackupName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        time::PrimitiveDateTime::parse(text, &format())
            .map(|_| Self(text.to_owned()))
            .map_err(|_| format!("{text:?} is no name of a backup: they look like 20261121T080511.123Z"))
    }
}

/// What one backup is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The mesh that it is a backup of.
    pub mesh: MeshId,
    /// How many replicas of each range were asked: `one` may miss the newest writes.
    pub level: Level,
    /// Its collections, by name.
    pub collections: Vec<CollectionManifest>,
}

/// One collection in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionManifest {
    /// Its name.
    pub name: String,
    /// Its id in the mesh that it was read from.
    pub id: CollectionId,
    /// What it is.
    pub schema: CollectionSchema,
    /// Its pages, in ring order.
    pub pages: Vec<PageRef>,
}

/// One page of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRef {
    /// Its name.
    pub name: PageName,
    /// How many bytes it has.
    pub bytes: u64,
    /// How many points are in it.
    pub points: u32,
}

impl CollectionManifest {
    /// How many points it has.
    pub fn points(&self) -> u64 {
        self.pages.iter().map(|page| u64::from(page.points)).sum()
    }

    /// How many bytes its pages have.
    pub fn bytes(&self) -> u64 {
        self.pages.iter().map(|page| page.bytes).sum()
    }
}

impl Manifest {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let body = rmp_serde::to_vec_named(&Body::from(self)).expect("strings, numbers and bytes always encode");
        let mut bytes = Vec::with_capacity(PREAMBLE_BYTES + body.len() + HASH_BYTES);
        preamble::encode(MAGIC, BACKUP_FORMAT_VERSION, &mut bytes);
        bytes.extend_from_slice(&body);
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When the bytes are not those of a manifest that this program knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestFault> {
        match preamble::judge(bytes, MAGIC, BACKUP_FORMAT_VERSION) {
            Preamble::Known => {}
            Preamble::Newer(found) => return Err(ManifestFault::Newer(found)),
            Preamble::Bad(reason) => return Err(ManifestFault::Preamble(reason)),
        }
        let (rest, hash) = bytes.split_last_chunk::<HASH_BYTES>().ok_or(ManifestFault::CutOff)?;
        if blake3::hash(rest) != *hash {
            return Err(ManifestFault::Hash);
        }
        let body = rest.get(PREAMBLE_BYTES..).unwrap_or_default();
        rmp_serde::from_slice::<Body>(body)?.into_manifest()
    }

    /// Tells this manifest from every other one.
    pub fn digest(&self) -> blake3::Hash {
        blake3::hash(&self.encode())
    }
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestFault {
    /// A newer program wrote it, in this format.
    #[error("it has format {0}, and this program knows formats up to {BACKUP_FORMAT_VERSION}")]
    Newer(u32),
    /// Its first bytes are wrong.
    #[error("{0}")]
    Preamble(&'static str),
    /// It ends before its hash.
    #[error("it is shorter than its hash")]
    CutOff,
    /// It is not what was written.
    #[error("its bytes do not match its hash")]
    Hash,
    /// It holds more bytes than any manifest.
    #[error("it has {found} bytes, and none has more than {MANIFEST_BYTES_MAX}")]
    Size {
        /// Its bytes.
        found: u64,
    },
    /// Its body cannot be read.
    #[error(transparent)]
    Body(#[from] rmp_serde::decode::Error),
    /// It names a level that is not known.
    #[error(transparent)]
    Level(#[from] vecino_model::UnknownLevel),
    /// It names a metric that is not known.
    #[error(transparent)]
    Metric(#[from] vecino_model::UnknownMetric),
    /// It names a profile that is not known.
    #[error(transparent)]
    Profile(#[from] vecino_model::UnknownProfile),
}

/// As it is stored: no wire type is.
#[derive(Serialize, Deserialize)]
struct Body {
    #[serde(with = "serde_bytes")]
    mesh: [u8; 16],
    level: String,
    collections: Vec<StoredCollection>,
}

#[derive(Serialize, Deserialize)]
struct StoredCollection {
    name: String,
    #[serde(with = "serde_bytes")]
    id: [u8; 16],
    fields: BTreeMap<String, StoredField>,
    replication_factor: u32,
    /// 0 for always, absent for never, otherwise the milliseconds between flushes.
    fsync_ms: Option<u32>,
    pages: Vec<PageRef>,
}

#[derive(Serialize, Deserialize)]
struct StoredField {
    dim: u32,
    metric: String,
    m: u32,
    ef_construction: u32,
    profile: String,
}

impl From<&Manifest> for Body {
    fn from(manifest: &Manifest) -> Self {
        let Manifest { mesh, level, collections } = manifest;
        let collections = collections.iter().map(StoredCollection::from).collect();
        Self { mesh: mesh.0, level: level.name().to_owned(), collections }
    }
}

impl Body {
    fn into_manifest(self) -> Result<Manifest, ManifestFault> {
        let Self { mesh, level, collections } = self;
        let level = level.parse()?;
        let collections = collections.into_iter().map(StoredCollection::into_manifest).collect::<Result<_, _>>()?;
        Ok(Manifest { mesh: MeshId(mesh), level, collections })
    }
}

impl From<&CollectionManifest> for StoredCollection {
    fn from(collection: &CollectionManifest) -> Self {
        let CollectionManifest { name, id, schema, pages } = collection;
        let CollectionSchema { fields, replication_factor, fsync } = schema;
        let field = |field: &FieldSchema| {
            let FieldSchema { dim, metric, m, ef_construction, profile } = *field;
            StoredField {
                dim,
                metric: metric.name().to_owned(),
                m,
                ef_construction,
                profile: profile.name().to_owned(),
            }
        };
        Self {
            name: name.clone(),
            id: id.0,
            fields: fields.iter().map(|(name, schema)| (name.clone(), field(schema))).collect(),
            replication_factor: *replication_factor,
            fsync_ms: match *fsync {
                Fsync::Always => Some(0),
                Fsync::EveryMs(ms) => Some(ms),
                Fsync::Never => None,
            },
            pages: pages.clone(),
        }
    }
}

impl StoredCollection {
    fn into_manifest(self) -> Result<CollectionManifest, ManifestFault> {
        let Self { name, id, fields, replication_factor, fsync_ms, pages } = self;
        let field = |(name, StoredField { dim, metric, m, ef_construction, profile })| {
            let (metric, profile) = (metric.parse()?, profile.parse()?);
            Ok((name, FieldSchema { dim, metric, m, ef_construction, profile }))
        };
        let fields = fields.into_iter().map(field).collect::<Result<_, ManifestFault>>()?;
        let fsync = match fsync_ms {
            Some(0) => Fsync::Always,
            Some(ms) => Fsync::EveryMs(ms),
            None => Fsync::Never,
        };
        let schema = CollectionSchema { fields, replication_factor, fsync };
        Ok(CollectionManifest { name, id: CollectionId(id), schema, pages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let mut schema = vecino_client::schema(3, vecino_client::Metric::Cosine);
        schema.replication_factor = 3;
        let pages = vec![PageRef { name: PageName::of(b"a"), bytes: 70_000, points: 12 }; 2];
        let collection = |fsync, name: &str| CollectionManifest {
            name: name.to_owned(),
            id: CollectionId([4; 16]),
            schema: CollectionSchema { fsync, ..schema.clone() },
            pages: pages.clone(),
        };
        let collections =
            vec![collection(Fsync::Always, "a"), collection(Fsync::EveryMs(250), "b"), collection(Fsync::Never, "c")];
        Manifest { mesh: MeshId([9; 16]), level: Level::Quorum, collections }
    }

    #[test]
    fn what_is_written_is_read() {
        let manifest = manifest();
        assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
        assert_eq!((manifest.collections[0].points(), manifest.collections[0].bytes()), (24, 140_000));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = manifest().encode();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let error = Manifest::decode(&flipped).unwrap_err();
            assert!(matches!(error, ManifestFault::Preamble(_) | ManifestFault::Hash), "byte {at}: {error}");
            let error = Manifest::decode(&bytes[..at]).unwrap_err();
            let found = matches!(error, ManifestFault::Preamble(_) | ManifestFault::CutOff | ManifestFault::Hash);
            assert!(found, "cut at {at}: {error}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_with_both_numbers() {
        let mut bytes = Vec::new();
        preamble::encode(MAGIC, 7, &mut bytes);
        let error = Manifest::decode(&bytes).unwrap_err();
        assert!(matches!(error, ManifestFault::Newer(7)), "{error}");
        assert_eq!(error.to_string(), "it has format 7, and this program knows formats up to 1");
    }

    #[test]
    fn names_are_times_that_sort_by_age() {
        let at = |ms| BackupName::at(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(at(1_795_248_311_123).as_str(), "20261121T080511.123Z");
        assert!(at(1_795_248_311_123) < at(1_795_248_311_124) && at(999) < at(1_000));
        assert_eq!(at(7).as_str().parse(), Ok(at(7)));
        for bad in ["", "latest", "../20261121T080511.123Z", "20261121T080511Z", "20261321T080511.123Z"] {
            assert!(bad.parse::<BackupName>().unwrap_err().contains("20261121T080511.123Z"), "{bad}");
        }
    }
}
