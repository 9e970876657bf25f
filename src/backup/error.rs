//! What a backup or a restore can fail with. Where one fails, no backup and no collection appeared that was not said to.

use std::error::Error;
use std::io;

use vecino_client::{ClientError, PointId};

use super::MARKER_ID;
use super::manifest::{BackupName, ManifestFault};
use super::page::{PageError, PageName};

/// Why a backup or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The URL is none, or of a kind that is not known.
    #[error("{url:?} is no place for backups: {source}; use a folder, file:///FOLDER or s3://BUCKET/PREFIX")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        source: UrlFault,
    },
    /// The folder or object store does not answer.
    #[error("{url} cannot be reached: {source}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        source: PlaceFault,
    },
    /// The environment holds no keys for the object store, and the machine has no role that would stand in for them.
    #[error(
        "there are no keys for {url}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_REGION or \
         AWS_ENDPOINT_URL where the store needs them)"
    )]
    NoKeys {
        /// Where.
        url: String,
    },
    /// There is no room.
    #[error("{url} is full: {}; make room and run the same command again, it goes on from here", told(&**.source))]
    Full {
        /// Where.
        url: String,
        /// What the store said.
        source: Box<object_store::Error>,
    },
    /// Reading or writing an object failed.
    #[error("{url}: {object} cannot be {action}: {}", told(&**.source))]
    Object {
        /// Where.
        url: String,
        /// Which object.
        object: String,
        /// `read`, `written` or `listed`.
        action: &'static str,
        /// What the store said.
        source: Box<object_store::Error>,
    },
    /// There is no backup at all.
    #[error("{url} holds no backup; `vecino backup create {url}` makes one")]
    NoBackup {
        /// Where.
        url: String,
    },
    /// There is no backup of this name.
    #[error("{url} holds no backup {name}; `vecino backup list {url}` shows what there is")]
    UnknownBackup {
        /// Where.
        url: String,
        /// The name that was asked for.
        name: BackupName,
    },
    /// The backup was written by a newer program.
    #[error("backup {name} has format {found}, and this program knows formats up to {known}: use a newer vecino")]
    NewerFormat {
        /// The backup.
        name: BackupName,
        /// Its format.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// The manifest is not what was written.
    #[error("the manifest of backup {name} is damaged: {source}; choose another backup with --backup")]
    DamagedManifest {
        /// The backup.
        name: BackupName,
        /// What does not fit.
        source: ManifestFault,
    },
    /// Pages are missing or damaged.
    #[error("backup {name} is damaged, and nothing was restored: {}", pages_in_words(.pages))]
    DamagedPages {
        /// The backup.
        name: BackupName,
        /// All such pages, in the order of the manifest.
        pages: Vec<BadPage>,
    },
    /// The place is that of another mesh.
    #[error("{url} holds backups of mesh {theirs}, and this is mesh {ours}: use another folder or prefix")]
    OtherMesh {
        /// Where.
        url: String,
        /// Whose backups are there.
        theirs: String,
        /// Whose backup was to be made.
        ours: String,
    },
    /// The collection is not in the mesh or not in the backup.
    #[error("collection {collection:?} is not in {place}, which has {has:?}")]
    UnknownCollection {
        /// The collection.
        collection: String,
        /// The mesh or the backup.
        place: String,
        /// What is there.
        has: Vec<String>,
    },
    /// One new name for several collections.
    #[error("--as gives one collection another name, and backup {name} has {count}: say which with --collection")]
    OneNameForMany {
        /// The backup.
        name: BackupName,
        /// How many collections it has.
        count: usize,
    },
    /// There are collections of these names.
    #[error(
        "{}, and a restore never writes into a collection that exists; nothing was restored: leave them as they are with \
         --skip-existing, restore beside them with --prefix PREFIX or --as NAME, or drop them first with `vecino collection \
         drop`",
        exist_in_words(.collections)
    )]
    Exist {
        /// All of them.
        collections: Vec<String>,
    },
    /// A new name is none for a collection.
    #[error("nothing was restored: {reason} (from --as or --prefix, or from the backup: {name:?})")]
    NewName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The collection is an unfinished restore.
    #[error(
        "collection {collection:?} is being restored (it has the point {MARKER_ID:?}): let the restore end or run it \
         again, then make the backup"
    )]
    BeingRestored {
        /// The collection.
        collection: String,
    },
    /// The collection was dropped, and perhaps created again, while it was read.
    #[error("collection {collection:?} was dropped while it was read; no backup was made: run the command again")]
    Replaced {
        /// The collection.
        collection: String,
    },
    /// The mesh refuses a point.
    #[error("point {id:?} of collection {collection:?} was refused: {reason}")]
    Refused {
        /// The collection.
        collection: String,
        /// The point.
        id: PointId,
        /// Why.
        reason: String,
    },
    /// The mesh did not take points for too long.
    #[error(
        "gave up after waiting {seconds} s (--patience) for {count} points of collection {collection:?}: {reason}; run \
         the same command again, it goes on from here"
    )]
    Unavailable {
        /// The collection.
        collection: String,
        /// How many points are not acknowledged.
        count: usize,
        /// How long it waited.
        seconds: u64,
        /// What the mesh said last.
        reason: String,
    },
    /// A collection cannot be read at the level asked for.
    #[error("collection {collection:?} cannot be read at level {level}{}", hint(.level))]
    Scan {
        /// The collection.
        collection: String,
        /// The level.
        level: vecino_client::Level,
        /// Why.
        source: ClientError,
    },
    /// The mesh refused a request or did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// What is wrong with the URL of a place for backups.
#[derive(Debug, thiserror::Error)]
pub enum UrlFault {
    /// There is none.
    #[error("it is empty")]
    Empty,
    /// A file URL with a host, or without a path.
    #[error("a file URL has three slashes, file:///FOLDER")]
    FileUrl,
    /// An object store needs a bucket.
    #[error("it names no bucket")]
    NoBucket,
    /// The path in the bucket is none.
    #[error("{}", told(.0))]
    Path(#[from] object_store::path::Error),
    /// No such kind of place.
    #[error("{0}:// is not known")]
    Scheme(String),
}

/// Why a place for backups does not answer.
#[derive(Debug, thiserror::Error)]
pub enum PlaceFault {
    /// The folder cannot be used.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is a file in its place.
    #[error("it is no folder")]
    NotAFolder,
    /// The store said no.
    #[error("{}", told(&**.0))]
    Store(#[source] Box<object_store::Error>),
}

/// A page that is missing or damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPage {
    /// The collection that needs it.
    pub collection: String,
    /// The page.
    pub page: PageName,
    /// What is wrong with it.
    pub reason: PageDamage,
}

/// What is wrong with a page, for a sentence that begins with its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageDamage {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It has another size.
    #[error("has {found} bytes, {written} were written")]
    Size {
        /// Bytes that are there.
        found: u64,
        /// Bytes that the manifest names.
        written: u64,
    },
    /// Its hash is another one.
    #[error("has bytes that do not match its name")]
    Hash,
    /// Its bytes are no points.
    #[error(transparent)]
    Points(#[from] PageError),
    /// It holds another number of points.
    #[error("has {found} points, {written} were written")]
    Count {
        /// Points that are there.
        found: usize,
        /// Points that the manifest names.
        written: u32,
    },
}

impl BackupError {
    /// One word for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url { .. } | Self::OneNameForMany { .. } | Self::NewName { .. } => "usage",
            Self::Unreachable { .. } | Self::NoKeys { .. } => "unreachable",
            Self::Full { .. } => "full",
            Self::Object { .. } => "io",
            Self::NoBackup { .. } | Self::UnknownBackup { .. } | Self::UnknownCollection { .. } => "not_found",
            Self::NewerFormat { .. } => "newer_format",
            Self::DamagedManifest { .. } | Self::DamagedPages { .. } => "damaged",
            Self::OtherMesh { .. } => "other_mesh",
            Self::Exist { .. } => "already_exists",
            Self::BeingRestored { .. } | Self::Replaced { .. } => "conflict",
            Self::Refused { .. } => "invalid",
            Self::Unavailable { .. } | Self::Scan { .. } | Self::Client(_) => "unavailable",
        }
    }
}

/// What an object store says, with its causes, on one line.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether an error says, anywhere in its causes, that there is no room.
pub(super) fn says_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether an object store failed for want of keys: it then asks the machine for a role, at an address that only the
/// machines of a cloud answer at.
pub(super) fn lacks_keys(error: &object_store::Error) -> bool {
    told(error).contains(ROLE_ADDRESS)
}

fn hint(level: &vecino_client::Level) -> &'static str {
    if *level == vecino_client::Level::One { "" } else { " (--level one needs one live replica of each range only)" }
}

fn exist_in_words(collections: &[String]) -> String {
    let names: Vec<_> = collections.iter().map(|name| format!("{name:?}")).collect();
    match collections {
        [_] => format!("collection {} exists", names[0]),
        _ => format!("collections {} exist", names.join(", ")),
    }
}

fn pages_in_words(pages: &[BadPage]) -> String {
    let shown: Vec<_> = pages
        .iter()
        .take(PAGES_SHOWN)
        .map(|BadPage { collection, page, reason }| format!("page {page} of collection {collection:?} {reason}"))
        .collect();
    let more = pages.len().saturating_sub(PAGES_SHOWN);
    let more = if more > 0 { format!("; {more} more") } else { String::new() };
    format!("{}{more}", shown.join("; "))
}

/// Where machines in a cloud are told their role.
const ROLE_ADDRESS: &str = "169.254.169.254";
/// Most bad pages that a message names.
const PAGES_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_asked_the_machine_for_a_role_lacked_keys() {
        let generic = |text: &str| object_store::Error::Generic { store: "S3", source: text.to_owned().into() };
        assert!(lacks_keys(&generic("Error performing PUT http://169.254.169.254/latest/api/token")));
        assert!(!lacks_keys(&generic("Error performing GET https://s3.example.org/bucket")));
        let text = BackupError::NoKeys { url: "s3://bucket/x".into() }.to_string();
        assert!(text.contains("no keys for s3://bucket/x") && text.contains("AWS_SECRET_ACCESS_KEY"), "{text}");
    }
}
