//! The one thread that writes a collection: it drains its queue into one group, has the [`Writer`] log, flush and apply
//! it, and answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error};
use vecino_model::{Fsync, Outcome, Record};
use vecino_storage::LogError;

use crate::collection::backlog::Place;
use crate::collection::tended::Tended;
use crate::group::Group;
use crate::writer::Writer;

/// Bytes of records after which a group is not made larger.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What the writer can be told.
pub(crate) enum Command {
    /// Apply records.
    Apply {
        /// The records.
        records: Vec<Record>,
        /// Where the outcomes go.
        answer: oneshot::Sender<Vec<Outcome>>,
        /// Its place among what waits; it outlives a sender that gives up.
        place: Place,
    },
    /// Make everything logged so far durable and say what lsn comes next.
    Flush {
        /// Where the lsn goes.
        answer: oneshot::Sender<Result<u64, LogError>>,
    },
    /// Remove log segments that snapshots have made superfluous.
    CutLog {
        /// First lsn that must stay.
        before: u64,
    },
}

/// What the queue held at one time.
#[derive(Default)]
struct Round {
    group: Group,
    /// Where the outcomes of each batch of the group go.
    answers: Vec<(oneshot::Sender<Vec<Outcome>>, Place)>,
    /// Where to say that the log was flushed after the batches.
    flushes: Vec<oneshot::Sender<Result<u64, LogError>>>,
    /// Where the log is to be cut after all that.
    cut: Option<u64>,
}

/// Runs until every sender of its queue is gone.
pub(crate) fn run(
    mut writer: Writer,
    tended: &Arc<Tended>,
    commands: &mut mpsc::Receiver<Command>,
    runtime: &tokio::runtime::Handle,
) {
    // With `every MS` a quiet spell must still end in a flush.
    let idle = match writer.core().schema.fsync {
        Fsync::EveryMs(ms) => Some(Duration::from_millis(u64::from(ms))),
        Fsync::Always | Fsync::Never => None,
    };
    loop {
        let first = match idle {
            None => commands.blocking_recv(),
            Some(idle) => match runtime.block_on(async { tokio::time::timeout(idle, commands.recv()).await }) {
                Ok(command) => command,
                Err(_) => {
                    writer.flush_if_due();
                    continue;
                }
            },
        };
        let Some(first) = first else { break };
        let mut round = Round::default();
        round.take(first, &mut writer);
        while round.group.bytes < GROUP_BYTES_MAX {
            let Ok(next) = commands.try_recv() else { break };
            round.take(next, &mut writer);
        }
        round.end(&mut writer, tended);
    }
    if let Err(reason) = writer.flush() {
        error!(collection = writer.core().name, %reason, "the log could not be flushed before closing");
    }
    debug!(collection = writer.core().name, "the writer has stopped");
}

impl Round {
    fn take(&mut self, command: Command, writer: &mut Writer) {
        match command {
            Command::CutLog { before } => self.cut = Some(before),
            Command::Flush { answer } => self.flushes.push(answer),
            Command::Apply { records, answer, place } => {
                writer.admit(records, &mut self.group);
                self.answers.push((answer, place));
            }
        }
    }

    fn end(self, writer: &mut Writer, tended: &Arc<Tended>) {
        let Self { mut group, answers, flushes, cut } = self;
        if writer.write(&mut group) {
            tended.wake();
        }
        let now = Instant::now();
        for ((answer, place), outcomes) in answers.into_iter().zip(group.into_outcomes()) {
            place.done(now);
            // The sender may have given up; what was written stays written.
            let _ = answer.send(outcomes);
        }
        writer.catch_up(&**tended);
        for answer in flushes {
            // A snapshot that was given up does not wait for this any more.
            let _ = answer.send(writer.flush());
        }
        if let Some(before) = cut {
            writer.cut_log(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vecino_model::{
        CollectionId, CollectionSchema, FieldSchema, Fields, Metric, NodeId, RecordValue, Vector, Version,
    };
    use vecino_storage::{FaultyDisk, MemDisk};

    use super::*;
    use crate::collection::backlog::Backlog;
    use crate::indexers::Indexers;
    use crate::memory::Budget;
    use crate::persist::opening::{self, SEGMENT_BYTES};
    use crate::progress::Progress;
    use crate::resources::Resources;

    /// Does the work of a thread whose queue holds this number of batches of one point each. Gives how many changes of
    /// the disk that took, and what was answered.
    fn run_queue(batches: u64) -> (u64, Vec<Outcome>) {
        let field = FieldSchema { dim: 1, metric: Metric::Dot, m: 8, ef_construction: 40, profile: Default::default() };
        let fields = BTreeMap::from([(String::new(), field)]);
        let schema = CollectionSchema { fields, replication_factor: 1, fsync: Fsync::Always };
        let (disk, id) = (FaultyDisk::new(Arc::new(MemDisk::new())), CollectionId([1; 16]));
        let (shared, share) = (Arc::new(disk.clone()), Resources::unlimited().share("films"));
        let opened =
            opening::recover(shared, "films", id, &schema, SEGMENT_BYTES, share, &Progress::default()).unwrap();
        let writer = Writer::new(opened, id, schema, Duration::ZERO);
        let tended = Tended::new(Arc::clone(writer.core()), Arc::new(Indexers::start(1).unwrap()));
        let (queue, mut commands) = mpsc::channel(batches as usize);
        let (backlog, memory) = (Arc::new(Backlog::default()), Budget::unlimited());
        let mut answered = Vec::new();
        for id in 0..batches {
            let vectors = Fields::from([(String::new(), Vector(vec![1.0]))]);
            let value = Some(RecordValue { vectors, payload: Default::default() });
            let version = Version { time: id + 1, node: NodeId::from_bytes([3; 16]), seq: 0 };
            let (answer, outcomes) = oneshot::channel();
            let records = vec![Record { id: id.into(), version, value }];
            let place = backlog.enter(1, true, &memory, Instant::now()).unwrap();
            queue.try_send(Command::Apply { records, answer, place }).ok().unwrap();
            answered.push(outcomes);
        }
        drop(queue);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let before = disk.operations();
        run(writer, &tended, &mut commands, runtime.handle());
        let outcomes = answered.into_iter().flat_map(|mut outcomes| outcomes.try_recv().unwrap());
        (disk.operations() - before, outcomes.collect())
    }

    #[test]
    fn batches_that_wait_together_are_logged_and_flushed_once() {
        let ((one, _), (many, outcomes)) = (run_queue(1), run_queue(20));
        assert!(one > 0 && one == many, "{one} changes of the disk for one batch, {many} for twenty");
        assert_eq!(outcomes.len(), 20);
        assert!(
            outcomes
                .iter()
                .zip(1..)
                .all(|(outcome, time)| { matches!(outcome, Outcome::Written(version) if version.time == time) })
        );
    }
}
