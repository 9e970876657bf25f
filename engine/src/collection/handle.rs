//! One collection on one node: its log, its tables, its indexes, its snapshots.
//!
//! ```text
//! apply -> writer thread: newer? -> log, flush -> index.store, tables.apply -> answer
//!                                                      \-> indexers link the slot into the graph
//! ```
//!
//! [`Collection`] is a handle that any task may hold. One writer thread ([`thread`]) owns the log and is the only one
//! that changes the tables; [`indexers`] link slots; a snapshot runs beside both (`persist/taking.rs`). What is written
//! and read is decided elsewhere, without a thread: in [`Writer`] and [`reads`](crate::reads).

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use vecino_model::{CollectionId, CollectionSchema, Outcome, Record};
use vecino_storage::{Disk, SnapshotSummary};
use vecino_supervise::caught;

use crate::collection::backlog::{self, Backlog, TooMuch};
use crate::collection::errors::ApplyError;
use crate::collection::tended::Tended;
use crate::collection::thread::{self, Command};
use crate::core::Core;
use crate::indexers::{self, Indexers};
use crate::persist::errors::{OpenError, TakeError};
use crate::persist::opening::{self, Opened};
use crate::persist::taking;
use crate::progress::Progress;
use crate::resources::Share;
use crate::writer::Writer;

/// Commands that may wait for the writer: the batches, and what snapshots ask for.
const QUEUE_COMMANDS_MAX: usize = backlog::BATCHES_MAX + 16;

/// Pause between attempts to open a log anew.
const HEAL_PAUSE: Duration = Duration::from_secs(1);

/// A collection that is open. Cheap to clone.
#[derive(Clone)]
pub struct Collection {
    pub(crate) core: Arc<Core>,
    writer: Arc<WriterHandle>,
}

/// The writer's queue; its last holder stops the thread.
struct WriterHandle {
    queue: Mutex<Option<mpsc::Sender<Command>>>,
    backlog: Arc<Backlog>,
    thread: Mutex<Option<JoinHandle<()>>>,
    tended: Arc<Tended>,
}

impl Collection {
    /// Opens a collection, or makes it: loads the newest snapshot that is whole and replays the log behind it.
    ///
    /// Blocks; `runtime` is where the writer waits for work. `share` is in the collection's name.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &str,
        share: Share,
        id: CollectionId,
        schema: CollectionSchema,
        indexers: Arc<Indexers>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, OpenError> {
        Self::open_with_progress(disk, directory, share, id, schema, indexers, runtime, &Progress::default())
    }

    /// [`Self::open`], telling how far it is.
    #[allow(clippy::too_many_arguments, reason = "those of open, and one more")]
    pub fn open_with_progress(
        disk: Arc<dyn Disk>,
        directory: &str,
        share: Share,
        id: CollectionId,
        schema: CollectionSchema,
        indexers: Arc<Indexers>,
        runtime: tokio::runtime::Handle,
        progress: &Progress,
    ) -> Result<Self, OpenError> {
        let opened = opening::recover(disk, directory, id, &schema, opening::SEGMENT_BYTES, share, progress)?;
        Self::start(opened, id, schema, indexers, runtime)
    }

    /// [`Self::open`], with log segments of a size that is not the usual one.
    ///
    /// # Errors
    /// As [`Self::open`].
    #[allow(clippy::too_many_arguments, reason = "those of open, and one more")]
    pub fn open_with_segments(
        disk: Arc<dyn Disk>,
        directory: &str,
        share: Share,
        id: CollectionId,
        schema: CollectionSchema,
        indexers: Arc<Indexers>,
        runtime: tokio::runtime::Handle,
        segment_bytes: u64,
    ) -> Result<Self, OpenError> {
        let opened = opening::recover(disk, directory, id, &schema, segment_bytes, share, &Progress::default())?;
        Self::start(opened, id, schema, indexers, runtime)
    }

    /// Sets the writer and the indexers to work on what was opened.
    pub(crate) fn start(
        opened: Opened,
        id: CollectionId,
        schema: CollectionSchema,
        indexers: Arc<Indexers>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, OpenError> {
        let writer = Writer::new(opened, id, schema, HEAL_PAUSE);
        let core = Arc::clone(writer.core());
        let tended = Tended::new(Arc::clone(&core), indexers);
        let (queue, mut commands) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let thread = std::thread::Builder::new()
            .name(format!("writer-{}", core.name))
            .spawn({
                let (core, tended) = (Arc::clone(&core), Arc::clone(&tended));
                move || {
                    let ran = caught("a writer", || thread::run(writer, &tended, &mut commands, &runtime));
                    if let Err(panic) = ran {
                        // Before what waits in the queue is given up.
                        core.faults.writer_panicked(&panic);
                    }
                }
            })
            .map_err(OpenError::Thread)?;
        tended.wake_all();
        let (queue, thread, backlog) = (Mutex::new(Some(queue)), Mutex::new(Some(thread)), Arc::default());
        let writer = WriterHandle { queue, backlog, thread, tended };
        Ok(Self { core, writer: Arc::new(writer) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Its id.
    pub fn id(&self) -> CollectionId {
        self.core.id
    }

    /// Its schema.
    pub fn schema(&self) -> &CollectionSchema {
        &self.core.schema
    }

    /// Applies records, each if it is newer than what is there, and returns once they are durable and searchable.
    ///
    /// Gives one outcome a record: [`Outcome::Written`] with the version that now stands, which is a newer one where the
    /// point had one; [`Outcome::Refused`] where the vectors do not fit the schema; [`Outcome::Unavailable`] where there is
    /// no memory, no room on the disk, or no way to write to it, and nothing was written; [`Outcome::Unknown`] where the
    /// disk failed in a way that leaves open what it has.
    ///
    /// # Errors
    /// [`ApplyError::Busy`] at once where more waits for the writer than it can soon write.
    pub async fn apply(&self, records: Vec<Record>) -> Result<Vec<Outcome>, ApplyError> {
        let closed = || match self.core.faults.writer() {
            Some(reason) => ApplyError::Broken { collection: self.core.name.clone(), reason },
            None => ApplyError::Closed(self.core.name.clone()),
        };
        let memory = self.core.share.account.budget();
        let is_put = records.iter().any(|record| record.value.is_some());
        if is_put && !memory.delay().is_zero() {
            tokio::time::sleep(memory.delay()).await;
        }
        let bytes: usize = records.iter().map(Record::bytes).sum();
        let entered = self.writer.backlog.enter(bytes, is_put, memory, Instant::now());
        let place = entered.map_err(|TooMuch { waiting_bytes, retry_after }| ApplyError::Busy {
            collection: self.core.name.clone(),
            waiting_bytes,
            retry_after,
        })?;
        let queue = self.writer.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (answer, answered) = oneshot::channel();
        let batch = Command::Apply { records, answer, place };
        queue.ok_or_else(closed)?.send(batch).await.map_err(|_| closed())?;
        answered.await.map_err(|_| ApplyError::Lost(self.core.name.clone()))
    }

    /// Takes a snapshot and has the log cut behind the older of the two that are kept. Writers go on.
    ///
    /// Blocks, so it is not for a task of the asynchronous runtime. Refused while another one is being taken.
    pub fn snapshot(&self) -> Result<SnapshotSummary, TakeError> {
        let queue = self.writer.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let closed = || TakeError::Closed(self.core.name.clone());
        let queue = queue.ok_or_else(closed)?;
        let flush = || {
            let (answer, answered) = oneshot::channel();
            queue.blocking_send(Command::Flush { answer }).map_err(|_| closed())?;
            Ok(answered.blocking_recv().map_err(|_| closed())??)
        };
        // On a thread of its own, which gives way to those that answer.
        let (summary, oldest) = std::thread::scope(|scope| {
            let name = format!("snapshot-{}", self.core.name);
            let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, || {
                indexers::give_way();
                caught("a snapshot", || taking::take(&self.core, flush))
            })?;
            let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended.map_err(|panic| {
                self.core.faults.snapshot_ended(Some(&panic));
                TakeError::Panicked { collection: self.core.name.clone(), reason: panic.message().to_owned() }
            })?
        })?;
        self.core.faults.snapshot_ended(None);
        // They took nothing out of the graphs meanwhile.
        self.writer.tended.wake();
        if let Some(lsn) = oldest {
            // A full queue or a stopped writer means that the next snapshot cuts the log.
            let _ = queue.try_send(Command::CutLog { before: lsn });
        }
        Ok(summary)
    }

    /// Whether its writer has panicked, so that it has to be opened anew.
    pub fn is_broken(&self) -> bool {
        self.core.faults.writer().is_some()
    }

    /// Whether the caller alone holds the collection, and nothing waits to be linked or coded.
    pub fn is_idle(&self) -> bool {
        self.is_held_alone() && self.unlinked() == 0 && self.warming().is_none()
    }

    /// Whether the caller alone holds the collection.
    pub fn is_held_alone(&self) -> bool {
        Arc::strong_count(&self.writer) == 1
    }

    /// Lets the writer finish what it has, and stops it. Blocks. Writes are refused from then on, reads go on.
    pub fn close(&self) {
        self.writer.stop();
    }
}

impl WriterHandle {
    fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It catches its panics.
            let _ = thread.join();
        }
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        self.stop();
    }
}
