//! The place of backups: a folder or an object store, and the objects in it. Drawn in `docs/backup.md`.
//!
//! An object appears in full or not at all, which every object store promises; a folder is written by temporary file,
//! flush and rename.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
};

use vecino_client::RawPoint;

use super::error::{BackupError, PageDamage, PlaceFault, UrlFault, lacks_keys, says_full};
use super::manifest::{BACKUP_FORMAT_VERSION, BackupName, MANIFEST_BYTES_MAX, Manifest, ManifestFault, PageRef};
use super::page::{PageName, decode};

const BACKUPS: &str = "backups";
const PAGES: &str = "pages";
const MANIFEST_ENDING: &str = ".manifest";
const PAGE_ENDING: &str = ".page";

/// How long a request to an object store is repeated, and how long one may take.
const RETRY_FOR: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RETRIES_MAX: usize = 5;

/// A folder or a prefix of an object store that holds backups of one mesh.
#[derive(Clone, Debug)]
pub struct Target {
    store: Arc<dyn ObjectStore>,
    root: Path,
    url: String,
}

/// Why a page cannot be used.
#[derive(Debug)]
pub(super) enum PageFault {
    /// It is missing or damaged.
    Bad(PageDamage),
    /// The store did not answer.
    Store(BackupError),
}

impl Target {
    /// The place that a URL names; a folder is made where it is absent and `create` says so.
    ///
    /// An object store's keys, region and endpoint are taken from the `AWS_*` variables.
    ///
    /// # Errors
    /// [`BackupError::Url`], or [`BackupError::Unreachable`] for a folder that is not there.
    pub fn open(url: &str, create: bool) -> Result<Self, BackupError> {
        let wrong = |source: UrlFault| BackupError::Url { url: url.to_owned(), source };
        match url.split_once("://") {
            None if url.is_empty() => Err(wrong(UrlFault::Empty)),
            None => Self::folder(url, PathBuf::from(url), create),
            Some(("file", path)) if path.starts_with('/') => Self::folder(url, PathBuf::from(path), create),
            Some(("file", _)) => Err(wrong(UrlFault::FileUrl)),
            Some(("s3", place)) => {
                let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
                let root = Path::parse(prefix.trim_matches('/')).map_err(|error| wrong(error.into()))?;
                if bucket.is_empty() {
                    return Err(wrong(UrlFault::NoBucket));
                }
                Ok(Self::over(Arc::new(s3(url, bucket)?), root, url))
            }
            Some((scheme, _)) => Err(wrong(UrlFault::Scheme(scheme.to_owned()))),
        }
    }

    /// Any other store.
    pub fn over(store: Arc<dyn ObjectStore>, root: Path, url: &str) -> Self {
        Self { store, root, url: url.to_owned() }
    }

    fn folder(url: &str, path: PathBuf, create: bool) -> Result<Self, BackupError> {
        let unreachable = |source: PlaceFault| BackupError::Unreachable { url: url.to_owned(), source };
        if create {
            std::fs::create_dir_all(&path).map_err(|error| unreachable(error.into()))?;
        }
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(unreachable(PlaceFault::NotAFolder)),
            Err(error) => return Err(unreachable(error.into())),
        }
        let store =
            LocalFileSystem::new_with_prefix(&path).map_err(|error| unreachable(PlaceFault::Store(Box::new(error))))?;
        Ok(Self::over(Arc::new(store.with_fsync(true)), Path::default(), url))
    }

    /// As it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The backups that are there, oldest first.
    ///
    /// # Errors
    /// [`BackupError::Unreachable`].
    pub async fn backups(&self) -> Result<Vec<BackupName>, BackupError> {
        let objects = self.store.list(Some(&self.root.clone().join(BACKUPS)));
        let found = objects.try_filter_map(async |object| {
            let name = object.location.filename().and_then(|name| name.strip_suffix(MANIFEST_ENDING));
            Ok(name.and_then(|name| name.parse().ok()))
        });
        let found: Result<Vec<BackupName>, _> = found.try_collect().await;
        let mut found = found.map_err(|error| unanswered(&self.url, error))?;
        found.sort();
        Ok(found)
    }

    /// What a backup is made of.
    ///
    /// # Errors
    /// [`BackupError::UnknownBackup`], or those of [`Manifest::decode`].
    pub async fn manifest(&self, name: &BackupName) -> Result<Manifest, BackupError> {
        let path = self.manifest_path(name);
        let found = match self.store.get(&path).await {
            Err(Error::NotFound { .. }) => {
                return Err(BackupError::UnknownBackup { url: self.url.clone(), name: name.clone() });
            }
            found => found.map_err(|error| self.failed(&path, "read", error))?,
        };
        if found.meta.size > MANIFEST_BYTES_MAX {
            let source = ManifestFault::Size { found: found.meta.size };
            return Err(BackupError::DamagedManifest { name: name.clone(), source });
        }
        let bytes = found.bytes().await.map_err(|error| self.failed(&path, "read", error))?;
        Manifest::decode(&bytes).map_err(|fault| match fault {
            ManifestFault::Newer(found) => {
                BackupError::NewerFormat { name: name.clone(), found, known: BACKUP_FORMAT_VERSION }
            }
            source => BackupError::DamagedManifest { name: name.clone(), source },
        })
    }

    /// Makes everything that was written before it a backup.
    ///
    /// # Errors
    /// When it cannot be written, or one of this name is there.
    pub async fn write_manifest(&self, name: &BackupName, manifest: &Manifest) -> Result<(), BackupError> {
        let path = self.manifest_path(name);
        let create = PutOptions::from(PutMode::Create);
        let written = self.store.put_opts(&path, PutPayload::from(manifest.encode()), create).await;
        match written {
            Ok(_) => Ok(()),
            // A request that was repeated because its answer was lost finds what it wrote itself.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. })
                if self.manifest(name).await.is_ok_and(|there| there == *manifest) =>
            {
                Ok(())
            }
            Err(error) => Err(self.failed(&path, "written", error)),
        }
    }

    /// The pages that are there, with their sizes.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn pages(&self) -> Result<HashMap<PageName, u64>, BackupError> {
        let folder = self.root.clone().join(PAGES);
        let pages = self.store.list(Some(&folder)).try_filter_map(async |object| {
            let name = object.location.filename().and_then(|name| name.strip_suffix(PAGE_ENDING));
            Ok(name.and_then(PageName::parse).map(|name| (name, object.size)))
        });
        pages.try_collect().await.map_err(|error| self.failed(&folder, "listed", error))
    }

    /// Stores a page.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn write_page(&self, name: PageName, bytes: Vec<u8>) -> Result<(), BackupError> {
        let path = self.page_path(name);
        let written = self.store.put(&path, PutPayload::from(bytes)).await;
        written.map(|_| ()).map_err(|error| self.failed(&path, "written", error))
    }

    /// The bytes of a page, which match its name.
    pub(super) async fn read_page(&self, page: PageRef) -> Result<Bytes, PageFault> {
        let path = self.page_path(page.name);
        let failed = |error: Error| match error {
            Error::NotFound { .. } => PageFault::Bad(PageDamage::Missing),
            error => PageFault::Store(self.failed(&path, "read", error)),
        };
        let found = self.store.get(&path).await.map_err(failed)?;
        if found.meta.size != page.bytes {
            return Err(PageFault::Bad(PageDamage::Size { found: found.meta.size, written: page.bytes }));
        }
        let bytes = found.bytes().await.map_err(failed)?;
        if PageName::of(&bytes) != page.name {
            return Err(PageFault::Bad(PageDamage::Hash));
        }
        Ok(bytes)
    }

    /// The points of a page.
    pub(super) async fn read_points(&self, page: PageRef) -> Result<Vec<RawPoint>, PageFault> {
        let bytes = self.read_page(page).await?;
        let points = decode(&bytes).map_err(|error| PageFault::Bad(error.into()))?;
        if points.len() != page.points as usize {
            return Err(PageFault::Bad(PageDamage::Count { found: points.len(), written: page.points }));
        }
        Ok(points)
    }

    fn manifest_path(&self, name: &BackupName) -> Path {
        self.root.clone().join(BACKUPS).join(format!("{name}{MANIFEST_ENDING}"))
    }

    fn page_path(&self, name: PageName) -> Path {
        self.root.clone().join(PAGES).join(format!("{name}{PAGE_ENDING}"))
    }

    fn failed(&self, object: &Path, action: &'static str, error: Error) -> BackupError {
        let url = self.url.clone();
        if says_full(&error) {
            return BackupError::Full { url, source: Box::new(error) };
        }
        if lacks_keys(&error) {
            return BackupError::NoKeys { url };
        }
        BackupError::Object { url, object: object.to_string(), action, source: Box::new(error) }
    }
}

/// A store that did not answer at all.
fn unanswered(url: &str, error: Error) -> BackupError {
    let url = url.to_owned();
    if lacks_keys(&error) {
        BackupError::NoKeys { url }
    } else {
        BackupError::Unreachable { url, source: PlaceFault::Store(Box::new(error)) }
    }
}

fn s3(url: &str, bucket: &str) -> Result<impl ObjectStore, BackupError> {
    // The HTTP client takes the process's provider of cryptography. It is there already where anything was connected.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES_MAX, retry_timeout: RETRY_FOR };
    let options = ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT);
    let http = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|value| value == "true");
    let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
    let store = builder.with_client_options(options.with_allow_http(http)).build();
    store.map_err(|error| unanswered(url, error))
}
