//! What other nodes have missed, on the disk of this one: carries out what `mesh` decides about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tracing::warn;
use vecino_engine::hints::{HintBatch, HintError, HintLimits, HintLogs};
use vecino_engine::memory::{Account, Budget};
use vecino_mesh::message::{self, KeepHints, NextHints, TakenHints, WaitingHints};
use vecino_model::{NodeId, Record};
use vecino_net::error::{ErrorCode, RpcError};
use vecino_storage::Disk;

use crate::blocking::blocking;
use crate::wall_clock::WallClock;

/// How often what was kept is made durable.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// The logs of hints, and what they need.
pub struct Hints {
    /// Whoever waits for it waits without a thread.
    logs: Arc<Mutex<HintLogs>>,
    waiting: BTreeMap<NodeId, u64>,
    account: Arc<Account>,
    wall: Arc<dyn WallClock>,
}

impl Hints {
    /// Opens what is on the disk. Blocks.
    pub fn open(disk: Arc<dyn Disk>, memory: &Arc<Budget>, wall: Arc<dyn WallClock>) -> Self {
        let logs = HintLogs::open(disk, HintLimits::default());
        let waiting = logs.waiting();
        let account = Arc::new(memory.account("hints"));
        Self { logs: Arc::new(Mutex::new(logs)), waiting, account, wall }
    }

    /// Number of records that waited for each node when this was opened.
    pub fn waited(&self) -> &BTreeMap<NodeId, u64> {
        &self.waiting
    }

    /// Keeps what a node has missed.
    ///
    /// # Errors
    /// Where the node is stopping.
    pub async fn keep(&self, request: KeepHints) -> Result<WaitingHints, RpcError> {
        let KeepHints { node, collection, records } = request;
        // Counted, and not asked for: what was refused for want of memory is to reach the disk.
        let counted = self.account.budget().count(records.iter().map(Record::bytes).sum::<usize>() as u64);
        let now_ms = self.wall.now_ms();
        self.call(move |logs| {
            let waiting = logs.keep(node, collection, records, now_ms);
            drop(counted);
            Ok(WaitingHints { number: logs.calls(), waiting, batch: None })
        })
        .await
    }

    /// The oldest of what a node has missed.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn next(&self, request: NextHints) -> Result<WaitingHints, RpcError> {
        let NextHints { node } = request;
        let now_ms = self.wall.now_ms();
        self.call(move |logs| {
            let next = logs.next(node, now_ms)?;
            let batch = next.map(|HintBatch { collection, records, last_lsn }| message::HintBatch {
                collection,
                records,
                last_lsn,
            });
            let waiting = logs.waiting_for(node);
            Ok(WaitingHints { number: logs.calls(), waiting, batch })
        })
        .await
    }

    /// A node has what it was handed.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub async fn taken(&self, request: TakenHints) -> Result<WaitingHints, RpcError> {
        let TakenHints { node, last_lsn } = request;
        self.call(move |logs| {
            let waiting = logs.taken(node, last_lsn)?;
            Ok(WaitingHints { number: logs.calls(), waiting, batch: None })
        })
        .await
    }

    /// Makes durable what was kept, for ever.
    pub async fn flush_for_ever(&self) {
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            self.flush().await;
        }
    }

    /// Makes durable what was kept.
    pub async fn flush(&self) {
        let flushed = self.call(|logs| {
            logs.flush();
            Ok(())
        });
        if let Err(error) = flushed.await {
            warn!(%error, "hints were not flushed");
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut HintLogs) -> Result<T, HintError> + Send + 'static,
    ) -> Result<T, RpcError> {
        let mut logs = Arc::clone(&self.logs).lock_owned().await;
        let account = Arc::clone(&self.account);
        let called = blocking(move || {
            let called = call(&mut logs);
            // What is held in memory, since the disk takes none, makes way where there is no room for it.
            if account.try_hold(logs.held_bytes() as u64).is_err() {
                logs.hold_at_most(account.held() as usize);
                account.hold(logs.held_bytes() as u64);
            }
            called
        })
        .await?;
        called.map_err(|error| RpcError::new(ErrorCode::Unavailable, error))
    }
}
