//! The loader: collects points into batches, keeps several on their way, and writes again what was not written.

use std::collections::HashSet;
use std::fmt;
use std::mem;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use vecino_model::Outcome;
use vecino_model::{PointId, RawPoint};
use vecino_net::message::Put;

use super::options::BulkOptions;
use super::patience::Patience;
use super::report::{BulkError, BulkEvent, BulkSummary};
use super::size::estimated_bytes;
use crate::error::ClientError;
use crate::report::Unwritten;

/// Loads points into a collection; made by [`BulkOptions::start`].
///
/// [`push`](Self::push) collects points into batches and sends them, and waits where as many batches are on their way as
/// [`BulkOptions::in_flight`] allows: the caller that reads the points is slowed down to what the mesh takes, and memory is
/// bounded. What the mesh did not take is written again, as long as that does no harm and
/// [patience](BulkOptions::patience) lasts. Points of one id are written in the order in which they were pushed.
///
/// [`finish`](Self::finish) must be called at the end: **a loader that is dropped before gives up what was pushed and not
/// written yet**, and says so in the log. Where a future of its methods is dropped, nothing is lost but the point that was
/// being pushed.
#[must_use = "points are written for certain only once finish() says so"]
pub struct BulkLoader<'a> {
    options: BulkOptions<'a>,
    /// The batch that is being collected.
    batch: Vec<RawPoint>,
    batch_bytes: usize,
    in_flight: JoinSet<Answered>,
    /// Points that came back unwritten and are sent again when patience says so.
    unsettled: Vec<RawPoint>,
    /// Points that are being sent again.
    again: Vec<RawPoint>,
    /// Ids of all points that were pushed and are not settled.
    pending: HashSet<PointId>,
    /// Set from the first batch that came back with unwritten points until all are written.
    patience: Option<Patience>,
    /// Why the last unsettled point was not written.
    reason: String,
    summary: BulkSummary,
    started: Instant,
    ended: bool,
}

/// A batch that came back.
struct Answered {
    sent: Instant,
    points: Vec<RawPoint>,
    result: Result<Vec<Outcome>, ClientError>,
}

impl<'a> BulkOptions<'a> {
    /// Makes the loader.
    pub fn start(self) -> BulkLoader<'a> {
        BulkLoader {
            options: self,
            batch: Vec::new(),
            batch_bytes: 0,
            in_flight: JoinSet::new(),
            unsettled: Vec::new(),
            again: Vec::new(),
            pending: HashSet::new(),
            patience: None,
            reason: String::new(),
            summary: BulkSummary::default(),
            started: Instant::now(),
            ended: false,
        }
    }
}

impl BulkLoader<'_> {
    /// Adds a point, and sends the batch before it once that is full.
    ///
    /// # Errors
    /// When the loader gave up, or a batch was refused as a whole; every later call fails with [`BulkError::Ended`]. A
    /// refused *point* is no error: it is counted, and [reported](BulkEvent::NotWritten).
    pub async fn push(&mut self, point: impl Into<RawPoint>) -> Result<(), BulkError> {
        let point = point.into();
        self.check_ended()?;
        while let Some(joined) = self.in_flight.try_join_next() {
            self.settle(joined)?;
        }
        // Two points of one id on their way at once could be written in either order; the later one is to stand.
        if !self.unsettled.is_empty() || self.pending.contains(&point.id) {
            self.flush().await?;
        }
        let bytes = estimated_bytes(&point);
        let full = self.batch.len() >= self.options.batch_points
            || self.batch_bytes.saturating_add(bytes) > self.options.batch_bytes;
        if full && !self.batch.is_empty() {
            self.wait_for_room().await?;
            let batch = self.take_batch();
            self.send(batch);
        }
        self.pending.insert(point.id.clone());
        self.batch.push(point);
        self.batch_bytes = self.batch_bytes.saturating_add(bytes);
        Ok(())
    }

    /// Sends everything that was pushed and waits until it is settled: written, or refused and so counted and reported.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub async fn flush(&mut self) -> Result<(), BulkError> {
        self.check_ended()?;
        loop {
            self.send_all().await?;
            while let Some(joined) = self.in_flight.join_next().await {
                self.settle(joined)?;
            }
            if self.unsettled.is_empty() {
                if self.patience.take().is_some() {
                    (self.options.on_event)(BulkEvent::Resumed);
                }
                return Ok(());
            }
            let now = Instant::now();
            let patience = self.patience.get_or_insert_with(|| Patience::new(self.options.patience, now));
            let Some(pause) = patience.next_pause(now) else {
                let (points, waited) = (self.unsettled.len(), patience.waited(now));
                self.ended = true;
                return Err(BulkError::GaveUp { points, waited, reason: self.reason.clone() });
            };
            (self.options.on_event)(BulkEvent::Waiting { points: self.unsettled.len(), reason: &self.reason });
            debug!(points = self.unsettled.len(), ?pause, reason = self.reason, "the mesh does not take points");
            sleep(pause).await;
            self.again = mem::take(&mut self.unsettled);
        }
    }

    /// Writes everything that was pushed, and says what was done.
    ///
    /// # Errors
    /// As [`push`](Self::push). Where points were refused the summary says so:
    /// [`all_written`](BulkSummary::all_written) makes that an error too.
    pub async fn finish(mut self) -> Result<BulkSummary, BulkError> {
        self.flush().await?;
        self.ended = true;
        Ok(self.summary())
    }

    /// Sends nothing more, waits for the batches that are on their way, and says what was done: for a caller that was
    /// interrupted, or whose loader failed.
    pub async fn stop(&mut self) -> BulkSummary {
        self.ended = true;
        while let Some(joined) = self.in_flight.join_next().await {
            if let Err(error) = self.settle(joined) {
                debug!(%error, "a batch failed while the loader was stopping");
            }
        }
        self.summary()
    }

    /// What was done so far. What is on its way counts as failed, what was only collected as not sent.
    pub fn summary(&self) -> BulkSummary {
        let unsent = self.batch.len() as u64;
        BulkSummary {
            failed: self.summary.failed + self.pending.len() as u64 - unsent,
            unsent,
            elapsed: self.started.elapsed(),
            ..self.summary.clone()
        }
    }

    fn check_ended(&self) -> Result<(), BulkError> {
        if self.ended { Err(BulkError::Ended) } else { Ok(()) }
    }

    /// Sends what is to be sent again, and what is collected.
    async fn send_all(&mut self) -> Result<(), BulkError> {
        while !self.again.is_empty() {
            self.wait_for_room().await?;
            let mut bytes = 0;
            let fits = |point: &&RawPoint| {
                bytes += estimated_bytes(point);
                bytes <= self.options.batch_bytes
            };
            let count = self.again.iter().take(self.options.batch_points).take_while(fits).count();
            let rest = self.again.split_off(count.max(1));
            let batch = mem::replace(&mut self.again, rest);
            self.send(batch);
        }
        if !self.batch.is_empty() {
            self.wait_for_room().await?;
            let batch = self.take_batch();
            self.send(batch);
        }
        Ok(())
    }

    fn take_batch(&mut self) -> Vec<RawPoint> {
        self.batch_bytes = 0;
        mem::take(&mut self.batch)
    }

    async fn wait_for_room(&mut self) -> Result<(), BulkError> {
        while self.in_flight.len() >= self.options.in_flight {
            let Some(joined) = self.in_flight.join_next().await else { return Ok(()) };
            self.settle(joined)?;
        }
        Ok(())
    }

    fn send(&mut self, points: Vec<RawPoint>) {
        let sent = Instant::now();
        let BulkOptions { session, collection, level, repeat_unknown, patience, .. } = &self.options;
        let timeout = match &self.patience {
            _ if patience.is_zero() => session.timeout(),
            Some(worn) => worn.attempt(sent, session.timeout()),
            None => Patience::new(*patience, sent).attempt(sent, session.timeout()),
        };
        let (session, repeat_unknown) = (session.with_timeout(timeout), *repeat_unknown);
        let put = Put { collection: collection.clone(), points, level: *level, stamps: Vec::new() };
        self.in_flight.spawn(async move {
            let result = session.write(&put, repeat_unknown).await;
            Answered { sent, points: put.points, result }
        });
    }

    /// Counts and reports what became of a batch; an error where the next batch would fail as this one did.
    fn settle(&mut self, joined: Result<Answered, JoinError>) -> Result<(), BulkError> {
        let Answered { sent, points, result } = unwrap_panic(joined);
        let unsettled_before = self.unsettled.len();
        match result {
            Ok(outcomes) => {
                let mut written = Vec::with_capacity(points.len());
                for (point, outcome) in points.into_iter().zip(outcomes) {
                    match outcome {
                        Outcome::Written(_) => written.push(point.id),
                        Outcome::Unavailable(reason) => self.keep(point, reason),
                        Outcome::Unknown(reason) if self.options.repeat_unknown => self.keep(point, reason),
                        Outcome::Unknown(_) => {
                            self.summary.failed += 1;
                            self.give_up(Unwritten { id: point.id, outcome });
                        }
                        Outcome::Refused(_) => {
                            self.summary.refused += 1;
                            self.give_up(Unwritten { id: point.id, outcome });
                        }
                    }
                }
                for id in &written {
                    self.pending.remove(id);
                }
                self.summary.written += written.len() as u64;
                if !written.is_empty() {
                    (self.options.on_event)(BulkEvent::Written { ids: &written });
                }
            }
            Err(error) if error.is_safe_to_retry() || (error.is_unknown() && self.options.repeat_unknown) => {
                self.reason = error.to_string();
                self.unsettled.extend(points);
            }
            Err(error) => {
                self.ended = true;
                self.unsettled.extend(points);
                return Err(error.into());
            }
        }
        if self.unsettled.len() > unsettled_before {
            self.patience.get_or_insert_with(|| Patience::new(self.options.patience, sent));
        }
        Ok(())
    }

    fn keep(&mut self, point: RawPoint, reason: String) {
        self.reason = reason;
        self.unsettled.push(point);
    }

    fn give_up(&mut self, unwritten: Unwritten) {
        self.pending.remove(&unwritten.id);
        self.summary.remember(&unwritten);
        (self.options.on_event)(BulkEvent::NotWritten { point: &unwritten });
    }
}

impl Drop for BulkLoader<'_> {
    fn drop(&mut self) {
        if !self.ended && !self.pending.is_empty() {
            warn!(
                collection = self.options.collection,
                points = self.pending.len(),
                "a bulk loader was dropped before finish(): these points may or may not be written"
            );
        }
    }
}

impl fmt::Debug for BulkLoader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkLoader")
            .field("options", &self.options)
            .field("pending", &self.pending.len())
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}

/// A batch's task is never cancelled while the loader lives, so it can only have panicked.
fn unwrap_panic(joined: Result<Answered, JoinError>) -> Answered {
    joined.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => unreachable!("a batch was cancelled while its loader lives: {error}"),
    })
}
