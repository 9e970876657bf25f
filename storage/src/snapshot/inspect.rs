//! Looking at snapshots without changing them: every manifest and every page.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use super::error::SnapshotError;
use super::manifest::{Manifest, PageName};
use super::reader::Snapshot;
use super::shared::{PAGE_SUFFIX, PAGES_DIR, SNAPSHOTS_KEPT, Shared, sequence_of};
use crate::disk::{Disk, join};
use crate::file::TEMPORARY_SUFFIX;
use crate::inspect::{Finding, FindingKind, names};

/// The snapshots in a directory and what is wrong with them.
pub struct SnapshotsInspection {
    /// Those whose manifest verifies, newest first.
    pub snapshots: Vec<InspectedSnapshot>,
    /// Pages that they name, each counted once, whole or not.
    pub pages: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// A snapshot whose manifest verifies.
pub struct InspectedSnapshot {
    /// To read it with.
    pub snapshot: Snapshot,
    /// Whether each of its pages is there and holds what its name says.
    pub is_whole: bool,
    /// Pages that it consists of.
    pub pages: u64,
    /// Bytes of all its arenas.
    pub bytes: u64,
}

/// Looks at the snapshots in `dir`: verifies every manifest and every page that one names, and counts the others.
/// Changes nothing.
pub fn inspect_snapshots(disk: Arc<dyn Disk>, dir: &str) -> SnapshotsInspection {
    let shared = Arc::new(Shared { disk, dir: dir.to_owned(), state: Mutex::default() });
    let mut findings = Vec::new();
    let mut manifests: Vec<(String, Arc<Manifest>)> = Vec::new();
    let mut all_known = true;
    // Names sort like their numbers: newest first.
    for name in names(&*shared.disk, dir, &mut findings).into_iter().rev().filter(|name| name != PAGES_DIR) {
        let path = join(dir, &name);
        if name.ends_with(TEMPORARY_SUFFIX) {
            findings.push(Finding::temporary(&path));
        } else if sequence_of(&name).is_some() {
            match shared.read_manifest(&path) {
                Ok(manifest) => manifests.push((path, Arc::new(manifest))),
                Err(error) => {
                    all_known = false;
                    findings.push(of_error(error, &path));
                }
            }
        }
    }
    for (path, manifest) in manifests.iter().skip(SNAPSHOTS_KEPT) {
        let reason = format!("two newer snapshots are there, so this one, of lsn {}, is not needed", manifest.lsn);
        findings.push(Finding::new(path, 0, FindingKind::SurplusManifest, reason));
    }
    let mut pages = Pages { shared: &shared, named: BTreeMap::new(), damage: HashMap::new() };
    for (path, manifest) in &manifests {
        pages.inspect(path, manifest);
    }
    let is_whole = |manifest: &Manifest| !manifest.pages().any(|page| pages.damage.contains_key(page));
    let snapshots = manifests.iter().map(|(path, manifest)| InspectedSnapshot {
        snapshot: Snapshot::new(shared.clone(), path.clone(), manifest.clone()),
        is_whole: is_whole(manifest),
        pages: manifest.pages().count() as u64,
        bytes: manifest.arenas.iter().map(|arena| arena.bytes).sum(),
    });
    let snapshots = snapshots.collect();
    let named = pages.named.len() as u64;
    findings.extend(pages.bad());
    findings.extend(pages.superfluous(all_known));
    SnapshotsInspection { snapshots, pages: named, findings }
}

fn of_error(error: SnapshotError, path: &str) -> Finding {
    match error {
        SnapshotError::Corrupt { file, offset, reason } => Finding::new(&file, offset, FindingKind::Manifest, reason),
        SnapshotError::NewerFormat { .. } => Finding::new(path, 8, FindingKind::Newer, error),
        other => Finding::new(path, 0, FindingKind::Unreadable, other),
    }
}

/// The pages that manifests name.
struct Pages<'a> {
    shared: &'a Shared,
    /// By path: which manifests name it.
    named: BTreeMap<String, Vec<String>>,
    damage: HashMap<PageName, SnapshotError>,
}

impl Pages<'_> {
    fn inspect(&mut self, manifest_path: &str, manifest: &Manifest) {
        let mut page = Vec::new();
        for arena in &manifest.arenas {
            for (index, name) in arena.pages.iter().enumerate() {
                let path = self.shared.page_path(name);
                let is_new = !self.named.contains_key(&path);
                let manifests = self.named.entry(path).or_default();
                if manifests.last().is_none_or(|last| last != manifest_path) {
                    manifests.push(manifest_path.to_owned());
                }
                if is_new && let Err(error) = self.shared.read_page(arena, index, &mut page) {
                    self.damage.insert(*name, error);
                }
            }
        }
    }

    fn bad(&self) -> Vec<Finding> {
        let finding = |(name, error): (&PageName, &SnapshotError)| {
            let path = self.shared.page_path(name);
            let manifests = self.named.get(&path).cloned().unwrap_or_default();
            let (offset, reason) = match error {
                SnapshotError::Corrupt { offset, reason, .. } => (*offset, reason.clone()),
                other => (0, other.to_string()),
            };
            Finding::new(&path, offset, FindingKind::Page { manifests }, reason)
        };
        let mut findings: Vec<Finding> = self.damage.iter().map(finding).collect();
        findings.sort_by(|a, b| a.file.cmp(&b.file));
        findings
    }

    /// What may go. The pages of a manifest that cannot be read are unknown, so none can then be told from garbage.
    fn superfluous(&self, all_known: bool) -> Vec<Finding> {
        let (mut findings, dir) = (Vec::new(), self.shared.pages_dir());
        for name in names(&*self.shared.disk, &dir, &mut findings) {
            let path = join(&dir, &name);
            if name.ends_with(TEMPORARY_SUFFIX) {
                findings.push(Finding::temporary(&path));
            } else if all_known && name.ends_with(PAGE_SUFFIX) && !self.named.contains_key(&path) {
                let bytes = self.shared.disk.open_read(&path).and_then(|file| file.len()).unwrap_or(0);
                let reason = "no snapshot names it";
                findings.push(Finding::new(&path, 0, FindingKind::UnreferencedPage { bytes }, reason));
            }
        }
        findings
    }
}
