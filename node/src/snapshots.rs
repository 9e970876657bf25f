//! When a node takes snapshots of its collections, and doing so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tracing::{error, info};
use vecino_model::{CollectionId, NodeId};
use vecino_net::error::RpcError;
use vecino_net::message::{NodeSnapshot, SnapshotReport};
use vecino_storage::SnapshotSummary;

use crate::blocking::blocking;
use crate::store::Store;
use vecino_engine::{Collection, TakeError};

/// How often the node looks whether a snapshot is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes to replay after which a snapshot is due, if that is [`SHARE_BEHIND`] of what the indexes hold.
const BYTES_BEHIND: u64 = 64 * 1024 * 1024;
/// A snapshot writes every page of links that changed, and new points change links everywhere: so one is worth its bytes only
/// once the collection has changed by one part in this many.
const SHARE_BEHIND: u64 = 4;
/// Bytes to replay after which one is due whatever else holds.
const BYTES_BEHIND_MAX: u64 = 1024 * 1024 * 1024;
/// Time after which one is due if anything was written.
const INTERVAL: Duration = Duration::from_secs(60);
/// The same while points are loaded faster than they are linked: what is written of links then is soon stale.
const INTERVAL_LOADING: Duration = Duration::from_secs(600);
/// More unlinked points than this are a load.
const UNLINKED_FEW: usize = 256;
/// A collection that has been quiet for this long is worth a snapshot earlier, if it has this much to replay.
const QUIET: Duration = Duration::from_secs(5);
const QUIET_BYTES: u64 = 1024 * 1024;
/// Pause before looking again whether a snapshot under way has ended.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Snapshots take no more than about one part in this many of the time.
const SHARE_OF_TIME: u32 = 10;

/// What is known of a collection when the node looks.
#[derive(Clone, Copy, Debug)]
struct Look {
    records_behind: u64,
    bytes_behind: u64,
    /// What the indexes hold, in memory.
    index_bytes: u64,
    unlinked: usize,
    since_write: Duration,
    since_snapshot: Duration,
    last_took: Duration,
}

/// Whether a snapshot is due. One that is taken while much waits to be linked would soon be followed by another.
fn is_due(look: Look) -> bool {
    let Look { records_behind, bytes_behind, index_bytes, unlinked, since_write, since_snapshot, last_took } = look;
    if records_behind == 0 || since_snapshot < last_took * SHARE_OF_TIME {
        return false;
    }
    if unlinked > UNLINKED_FEW {
        return bytes_behind >= BYTES_BEHIND_MAX || since_snapshot >= INTERVAL_LOADING;
    }
    bytes_behind >= BYTES_BEHIND.max(index_bytes / SHARE_BEHIND).min(BYTES_BEHIND_MAX)
        || since_snapshot >= INTERVAL
        || bytes_behind >= QUIET_BYTES && since_write >= QUIET && unlinked == 0
}

struct Seen {
    bytes_behind: u64,
    written: Instant,
    snapshot: Instant,
    took: Duration,
}

/// Takes snapshots when they are due, one at a time, until it is dropped.
pub async fn run(store: Arc<Store>) {
    let mut seen: HashMap<CollectionId, Seen> = HashMap::new();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // What room there is on a full disk is for deletes; asking also makes the ballast again when there is more.
        let looked = Arc::clone(&store);
        if !matches!(blocking(move || looked.resources().ballast.puts_closed()).await, Ok(None)) {
            continue;
        }
        let collections = store.open_collections();
        seen.retain(|id, _| collections.iter().any(|collection| collection.id() == *id));
        for collection in collections {
            let now = Instant::now();
            let bytes_behind = collection.replay_bytes();
            let known = seen.entry(collection.id()).or_insert(Seen {
                bytes_behind,
                written: now,
                snapshot: now,
                took: Duration::ZERO,
            });
            if known.bytes_behind != bytes_behind {
                (known.bytes_behind, known.written) = (bytes_behind, now);
            }
            let look = Look {
                records_behind: collection.replay_records(),
                bytes_behind,
                index_bytes: collection.stats().index_bytes,
                unlinked: collection.unlinked(),
                since_write: now - known.written,
                since_snapshot: now - known.snapshot,
                last_took: known.took,
            };
            if is_due(look) {
                // Success and failure are logged inside; a failed one is tried again when it is due again.
                let _ = blocking(move || snapshot_one(&collection)).await;
                known.took = now.elapsed();
                known.snapshot = Instant::now();
            }
        }
    }
}

/// Takes snapshots because somebody asked for them.
pub async fn take(store: Arc<Store>, node: NodeId, request: NodeSnapshot) -> Result<Vec<SnapshotReport>, RpcError> {
    let mut reports = Vec::new();
    // A closed collection has everything on disk, but a caller that names it wants a snapshot of it.
    if let Some(route) = request.collection.as_deref().and_then(|name| store.route(name)).filter(|r| store.keeps(r.id))
    {
        store.collection(route.id).await?;
    }
    for collection in store.open_collections() {
        if request.collection.as_deref().is_some_and(|wanted| wanted != collection.name()) {
            continue;
        }
        let name = collection.name().to_owned();
        let started = Instant::now();
        let taken = blocking(move || snapshot_one(&collection)).await?;
        let milliseconds = started.elapsed().as_millis() as u64;
        let mut report = SnapshotReport::new(node, name);
        report.milliseconds = milliseconds;
        match taken {
            Ok(SnapshotSummary { lsn, pages, pages_written, .. }) => {
                (report.lsn, report.pages, report.pages_written) = (lsn, pages, pages_written);
            }
            Err(error) => report.error = Some(error.to_string()),
        }
        reports.push(report);
    }
    Ok(reports)
}

/// Takes what a restart would otherwise have to replay into a last snapshot. Blocks.
pub fn take_last(store: &Store) {
    for collection in store.open_collections().iter().filter(|collection| collection.replay_records() > 0) {
        // One that was under way goes on to its end; the log has everything all the same.
        while matches!(snapshot_one(collection), Err(TakeError::Busy(_))) {
            std::thread::sleep(BUSY_PAUSE);
        }
    }
}

fn snapshot_one(collection: &Collection) -> Result<SnapshotSummary, TakeError> {
    let started = Instant::now();
    match collection.snapshot() {
        Ok(summary) => {
            info!(
                collection = collection.name(),
                lsn = summary.lsn,
                pages = summary.pages,
                pages_written = summary.pages_written,
                milliseconds = started.elapsed().as_millis() as u64,
                "took a snapshot"
            );
            Ok(summary)
        }
        Err(TakeError::Busy(name)) => Err(TakeError::Busy(name)),
        Err(reason) => {
            error!(collection = collection.name(), %reason, "a snapshot failed");
            Err(reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_by_bytes_by_time_and_when_it_is_quiet() {
        let second = Duration::from_secs(1);
        let busy = Look {
            records_behind: 10,
            bytes_behind: QUIET_BYTES,
            index_bytes: 0,
            unlinked: 0,
            since_write: second,
            since_snapshot: 2 * second,
            last_took: Duration::ZERO,
        };
        assert!(!is_due(busy));
        assert!(is_due(Look { bytes_behind: BYTES_BEHIND, ..busy }));
        assert!(is_due(Look { since_snapshot: INTERVAL, ..busy }));
        let large = Look { index_bytes: SHARE_BEHIND * 2 * BYTES_BEHIND, ..busy };
        assert!(!is_due(Look { bytes_behind: BYTES_BEHIND, ..large }), "less than a quarter is not worth its bytes");
        assert!(is_due(Look { bytes_behind: 2 * BYTES_BEHIND, ..large }));
        assert!(
            is_due(Look { bytes_behind: BYTES_BEHIND_MAX, index_bytes: u64::MAX, ..busy }),
            "a restart would be long"
        );
        let loading = Look { unlinked: UNLINKED_FEW + 1, bytes_behind: BYTES_BEHIND, since_snapshot: INTERVAL, ..busy };
        assert!(!is_due(loading), "the links will change");
        assert!(is_due(Look { since_snapshot: INTERVAL_LOADING, ..loading }));
        assert!(is_due(Look { bytes_behind: BYTES_BEHIND_MAX, ..loading }));
        assert!(is_due(Look { since_write: QUIET, ..busy }));
        assert!(!is_due(Look { since_write: QUIET, unlinked: 1, ..busy }), "the linking would make it stale");
        assert!(!is_due(Look { since_snapshot: INTERVAL, records_behind: 0, ..busy }), "nothing was written");
        assert!(!is_due(Look { bytes_behind: BYTES_BEHIND, last_took: second, ..busy }), "slow ones are rare");
    }
}
