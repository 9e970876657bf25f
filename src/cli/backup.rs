//! `vecino backup create | list` and `vecino restore`: reaches mesh and target, and says what was done.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::{BackupCommand, BackupCreateArgs, BackupListArgs, RestoreArgs};
use super::connection::{connect, connect_running};
use super::failure::Failure;
use super::output::{Style, Table, json, print, printable};
use super::progress::Progress;
use crate::backup::manifest::CollectionManifest;
use crate::backup::restore::RestoredCollection;
use crate::backup::{
    self, BackupError, BackupName, CreateRequest, Created, Manifest, RestoreRequest, Restored, Target,
};

/// Carries out `vecino backup`.
pub async fn run(command: BackupCommand, style: Style) -> Result<(), Failure> {
    match command {
        BackupCommand::Create(args) => create(args, style).await,
        BackupCommand::List(args) => list(args, style).await,
    }
}

async fn create(args: BackupCreateArgs, style: Style) -> Result<(), Failure> {
    let BackupCreateArgs { url, collections, level, connection } = args;
    let target = Target::open(&url, true)?;
    let client = connect_running(&connection).await?;
    let progress = Mutex::new(Progress::new("read", None, style));
    let started = Instant::now();
    let request = CreateRequest { collections, level, ..CreateRequest::default() };
    let created = backup::create(&client, &target, request, &|points| moved(&progress, points)).await;
    finish(progress);
    client.close().await;
    print(&render_created(&created?, &url, started.elapsed(), style))
}

async fn list(args: BackupListArgs, style: Style) -> Result<(), Failure> {
    let target = Target::open(&args.url, false)?;
    let mut backups = Vec::new();
    for name in target.backups().await? {
        let manifest = target.manifest(&name).await;
        backups.push((name, manifest));
    }
    print(&render_list(&backups, &args.url, style))
}

/// Carries out `vecino restore`.
pub async fn restore(args: RestoreArgs, style: Style) -> Result<(), Failure> {
    let RestoreArgs { url, backup, collection, rename, prefix, skip_existing, patience, connection } = args;
    let target = Target::open(&url, false)?;
    let client = connect(&connection).await?;
    let progress = Mutex::new(Progress::new("restored", None, style));
    let started = Instant::now();
    let patience = Duration::from_secs(patience);
    let request = RestoreRequest { backup, collection, rename, prefix, skip_existing, patience };
    let restored = backup::restore(&client, &target, request, &|points| moved(&progress, points)).await;
    finish(progress);
    client.close().await;
    print(&render_restored(&restored?, started.elapsed(), style))
}

/// One backup for scripts.
#[derive(Serialize)]
struct BackupJson<'a> {
    backup: &'a str,
    mesh: String,
    level: vecino_client::Level,
    points: u64,
    bytes: u64,
    pages: usize,
    collections: Vec<CollectionJson<'a>>,
}

#[derive(Serialize)]
struct CollectionJson<'a> {
    name: &'a str,
    points: u64,
    bytes: u64,
    pages: usize,
}

impl<'a> BackupJson<'a> {
    fn new(name: &'a BackupName, manifest: &'a Manifest) -> Self {
        let Manifest { mesh, level, collections } = manifest;
        let collection = |collection: &'a CollectionManifest| CollectionJson {
            name: &collection.name,
            points: collection.points(),
            bytes: collection.bytes(),
            pages: collection.pages.len(),
        };
        let collections: Vec<_> = collections.iter().map(collection).collect();
        Self {
            backup: name.as_str(),
            mesh: mesh.to_string(),
            level: *level,
            points: collections.iter().map(|collection| collection.points).sum(),
            bytes: collections.iter().map(|collection| collection.bytes).sum(),
            pages: collections.iter().map(|collection| collection.pages).sum(),
            collections,
        }
    }
}

fn render_created(created: &Created, url: &str, took: Duration, style: Style) -> String {
    #[derive(Serialize)]
    struct CreatedJson<'a> {
        #[serde(flatten)]
        backup: BackupJson<'a>,
        pages_sent: u64,
        bytes_sent: u64,
        seconds: f64,
    }
    let Created { name, manifest, pages_sent, bytes_sent } = created;
    let backup = BackupJson::new(name, manifest);
    if style == Style::Json {
        return json(&CreatedJson { backup, pages_sent: *pages_sent, bytes_sent: *bytes_sent, seconds: seconds(took) });
    }
    format!(
        "backed up {} points of {} to {} as {name} in {:.1} s: {} pages, {pages_sent} of them new ({})",
        backup.points,
        counted(backup.collections.len(), "collection"),
        printable(url),
        took.as_secs_f64(),
        backup.pages,
        mebibytes(*bytes_sent),
    )
}

fn render_list(backups: &[(BackupName, Result<Manifest, BackupError>)], url: &str, style: Style) -> String {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Listed<'a> {
        Sound(BackupJson<'a>),
        Unreadable { backup: &'a str, error: String },
    }
    #[derive(Serialize)]
    struct List<'a> {
        backups: Vec<Listed<'a>>,
    }
    let listed = backups.iter().map(|(name, manifest)| match manifest {
        Ok(manifest) => Listed::Sound(BackupJson::new(name, manifest)),
        Err(error) => Listed::Unreadable { backup: name.as_str(), error: error.to_string() },
    });
    let listed: Vec<_> = listed.collect();
    if style == Style::Json {
        return json(&List { backups: listed });
    }
    if listed.is_empty() {
        let url = printable(url);
        return format!("no backups in {url}; make one with `vecino backup create {url}`");
    }
    let mut table = Table::new(&["backup", "mesh", "level", "#points", "#size", "#pages", "collections"])
        .expendable(&["#pages", "level", "mesh"])
        .flexible("collections");
    for backup in listed {
        table.row(match backup {
            Listed::Sound(BackupJson { backup, mesh, level, points, bytes, pages, collections }) => {
                let names: Vec<_> = collections.iter().map(|collection| printable(collection.name)).collect();
                vec![
                    backup.to_owned(),
                    mesh.chars().take(8).collect(),
                    level.name().to_owned(),
                    points.to_string(),
                    mebibytes(bytes),
                    pages.to_string(),
                    style.shorten(names.join(", ")),
                ]
            }
            Listed::Unreadable { backup, error } => {
                let mut row = vec![backup.to_owned()];
                row.extend(vec!["-".to_owned(); 5]);
                row.push(error);
                row
            }
        });
    }
    table.render(style)
}

fn render_restored(restored: &Restored, took: Duration, style: Style) -> String {
    #[derive(Serialize)]
    struct RestoredJson<'a> {
        backup: &'a str,
        points: u64,
        pages_loaded: u64,
        pages_skipped: u64,
        seconds: f64,
        collections: Vec<CollectionRestored<'a>>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        skipped: &'a [String],
    }
    #[derive(Serialize)]
    struct CollectionRestored<'a> {
        name: &'a str,
        original: &'a str,
        points: u64,
        replicas: u32,
        original_replicas: u32,
    }
    let Restored { backup, collections, skipped, pages_loaded, pages_skipped } = restored;
    let points = collections.iter().map(|collection| collection.points).sum();
    if style == Style::Json {
        let collections = collections.iter().map(|restored| CollectionRestored {
            name: &restored.name,
            original: &restored.original,
            points: restored.points,
            replicas: restored.replicas,
            original_replicas: restored.original_replicas,
        });
        return json(&RestoredJson {
            backup: backup.as_str(),
            points,
            pages_loaded: *pages_loaded,
            pages_skipped: *pages_skipped,
            seconds: seconds(took),
            collections: collections.collect(),
            skipped,
        });
    }
    let mut text = format!(
        "restored {points} points of {} from {backup} in {:.1} s: {pages_loaded} pages",
        counted(collections.len(), "collection"),
        took.as_secs_f64()
    );
    if *pages_skipped > 0 {
        text.push_str(&format!(", {pages_skipped} more were loaded before"));
    }
    for RestoredCollection { name, original, points, replicas, original_replicas } in collections {
        text.push_str(&format!("\n  {}: {points} points", printable(name)));
        if name != original {
            text.push_str(&format!(" of {}", printable(original)));
        }
        if replicas < original_replicas {
            text.push_str(&format!(
                ", on {} each; they had {original_replicas} replicas, and the mesh has too few nodes",
                counted(*replicas as usize, "node")
            ));
        }
    }
    for name in skipped {
        text.push_str(&format!("\n  {}: left as it is, since it exists", printable(name)));
    }
    text
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn seconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1000.0).round() / 1000.0
}

fn moved(progress: &Mutex<Progress>, points: u64) {
    progress.lock().unwrap_or_else(PoisonError::into_inner).moved(points);
}

fn finish(progress: Mutex<Progress>) {
    progress.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
}

#[cfg(test)]
mod tests;
