//! Reading everything that a node keeps, without changing it.

use std::io;
use std::sync::Arc;

use vecino_model::{CatalogEntry, CollectionId, CollectionSchema, LiveCollection};
use vecino_storage::inspect::{LogInspection, SnapshotsInspection, inspect_log, inspect_snapshots};
use vecino_storage::{Disk, FileError, read_verified};

use super::meaning::{Facts, SnapshotFacts};
use super::report::{CollectionReport, Diagnosis, Loss, Repair, Report, SnapshotReport};
use vecino_engine::persist::{Inspector, log_dir, snapshots_dir};
use vecino_node::catalog_file::{self, CATALOG_FILE};
use vecino_node::collection_files::COLLECTIONS;
use vecino_node::state::{self, NodeState};

/// Looks at everything that a node keeps in a data directory. Changes nothing. Blocks for as long as reading it takes,
/// and needs as much memory as the largest collection does when it is open.
pub fn examine(disk: &Arc<dyn Disk>) -> io::Result<Report> {
    let mut findings = Vec::new();
    let names = disk.list("")?;
    let is_there = |name: &str| names.iter().any(|known| known == name);
    for name in [state::FILE, CATALOG_FILE].map(|name| format!("{name}.tmp")).iter().filter(|name| is_there(name)) {
        findings.push(temporary(name));
    }
    let node: Option<NodeState> =
        small_file(disk, state::FILE, |bytes| rmp_serde::from_slice(bytes), &mut findings, NODE_MEANING);
    let catalog: Option<Vec<CatalogEntry>> =
        small_file(disk, CATALOG_FILE, catalog_file::decode, &mut findings, CATALOG_MEANING);
    let is_newer = findings.iter().any(|diagnosis| diagnosis.loss == Loss::Unknown);
    let ids = if is_there(COLLECTIONS) { disk.list(COLLECTIONS)? } else { Vec::new() };
    for (name, there, meaning) in
        [(state::FILE, is_there(state::FILE), NODE_MEANING), (CATALOG_FILE, is_there(CATALOG_FILE), CATALOG_MEANING)]
    {
        if !there && !ids.is_empty() {
            findings.push(damaged(name, 0, "the file is missing, and collections are there", meaning));
        }
    }
    let placed = |entry: &&CatalogEntry| match (&entry.live, &node) {
        (Some(live), Some(node)) => live.placement.contains_key(&node.node_id),
        _ => false,
    };
    for entry in catalog.iter().flatten().filter(placed).filter(|entry| !ids.contains(&entry.id.to_string())) {
        let problem = format!("the files of collection {:?} are not there", entry.name);
        let meaning = "it was made just before the node stopped, or somebody removed them: the node makes it anew, empty, \
                       and what it held only replicas have";
        let file = format!("{COLLECTIONS}/{}", entry.id);
        findings.push(Diagnosis { loss: Loss::Unknown, ..damaged(&file, 0, problem, meaning) });
    }
    let mut collections = Vec::new();
    for (name, id) in ids.iter().filter_map(|name| Some((name, collection_id(name)?))) {
        let directory = format!("{COLLECTIONS}/{name}");
        let entry = catalog.iter().flatten().find(|entry| entry.id == id);
        let nothing = |problem, meaning| Diagnosis { loss: Loss::Nothing, ..damaged(&directory, 0, problem, meaning) };
        match (entry, &catalog) {
            (Some(CatalogEntry { live: None, .. }), _) => {
                findings
                    .push(nothing("the collection was dropped", "nothing is lost: the next start removes its files"));
                continue;
            }
            (None, Some(_)) => {
                let meaning =
                    "no node opens it: a create that failed has left it, or the catalog is not the one of these files";
                findings.push(nothing("the catalog names no such collection", meaning));
            }
            _ => {}
        }
        let schema = entry.and_then(|entry| entry.live.as_ref()).map(|LiveCollection { schema, .. }| schema);
        let (mut report, found) = examine_collection(disk, &directory, id, schema);
        report.name = entry.map(|entry| entry.name.clone());
        collections.push(report);
        findings.extend(found);
    }
    if is_newer {
        // A newer program has been here: what it means by the rest is not for this one to say.
        findings.iter_mut().for_each(|diagnosis| diagnosis.repairs.clear());
    }
    Ok(Report { node: node.map(|node| node.node_id.to_string()), collections, findings })
}

/// Looks at the files of one collection. Without its schema, snapshots and records are not decoded.
pub fn examine_collection(
    disk: &Arc<dyn Disk>,
    directory: &str,
    id: CollectionId,
    schema: Option<&CollectionSchema>,
) -> (CollectionReport, Vec<Diagnosis>) {
    let inspector = schema.and_then(|schema| Inspector::new(id, schema).ok());
    let log = inspect_log(&**disk, &log_dir(directory), id.0, &mut |_, bytes| match &inspector {
        Some(inspector) => inspector.check_record(bytes).map_err(Into::into),
        None => Ok(()),
    });
    let SnapshotsInspection { snapshots, pages, findings } =
        inspect_snapshots(Arc::clone(disk), &snapshots_dir(directory));
    let (mut facts, mut reports) = (Vec::new(), Vec::new());
    for found in &snapshots {
        let (path, lsn) = (found.snapshot.path().to_owned(), found.snapshot.lsn());
        let read = inspector.as_ref().filter(|_| found.is_whole).map(|inspector| inspector.points(&found.snapshot));
        let (points, refusal) = match read {
            Some(Ok(points)) => (Some(points), None),
            Some(Err(reason)) => (None, Some(reason)),
            None => (None, None),
        };
        let fact = SnapshotFacts { path: path.clone(), lsn, is_whole: found.is_whole, refusal };
        let (pages, bytes, is_usable) = (found.pages, found.bytes, fact.is_usable());
        reports.push(SnapshotReport { file: path, lsn, pages, bytes, points, is_usable });
        facts.push(fact);
    }
    let is_decoded = inspector.is_some();
    let facts = Facts { directory, log: &log, snapshots: &facts, findings: &findings, is_decoded };
    let (is_complete, diagnoses) = (facts.source().is_some(), facts.diagnoses());
    let LogInspection { segments, frames, records, bytes: _, first_lsn, next_lsn, findings: _ } = log;
    let (id, snapshots) = (id.to_string(), reports);
    let report = CollectionReport {
        name: None,
        id,
        segments,
        frames,
        records,
        first_lsn,
        next_lsn,
        snapshots,
        pages,
        is_complete,
    };
    (report, diagnoses)
}

fn small_file<T>(
    disk: &Arc<dyn Disk>,
    path: &str,
    decode: impl FnOnce(&[u8]) -> Result<T, rmp_serde::decode::Error>,
    findings: &mut Vec<Diagnosis>,
    meaning: &str,
) -> Option<T> {
    let found = match read_verified(&**disk, path) {
        Ok(None) => return None,
        Ok(Some(bytes)) => match decode(&bytes) {
            Ok(contents) => return Some(contents),
            Err(error) => damaged(path, 0, format!("the contents are whole, but make no sense: {error}"), meaning),
        },
        Err(FileError::Corrupt { path, offset, reason }) => damaged(&path, offset, reason, meaning),
        Err(error) => {
            Diagnosis { loss: Loss::Unknown, ..damaged(path, 0, error, "this program cannot say what it is") }
        }
    };
    findings.push(found);
    None
}

fn damaged(file: &str, offset: u64, problem: impl ToString, meaning: &str) -> Diagnosis {
    let (problem, meaning) = (problem.to_string(), meaning.to_owned());
    Diagnosis { file: file.to_owned(), offset, problem, loss: Loss::OnlyReplicas, meaning, repairs: Vec::new() }
}

fn temporary(file: &str) -> Diagnosis {
    let problem = "a crash left it before it was complete".to_owned();
    let (meaning, repairs) = ("nothing is lost: it never counted".to_owned(), vec![Repair::Remove(file.to_owned())]);
    Diagnosis { file: file.to_owned(), offset: 0, problem, loss: Loss::Nothing, meaning, repairs }
}

/// The collection that a directory is named after.
fn collection_id(name: &str) -> Option<CollectionId> {
    let mut id = [0; 16];
    if name.len() != 32 || !name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&name[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(CollectionId(id))
}

const NODE_MEANING: &str = "the points are not in it, but the node's mesh and tokens are: restore it from a copy";
const CATALOG_MEANING: &str =
    "the points are not in it, but which collections there are is: restore it from a copy; the other nodes have it too";
