//! Loading many points: batches, several on their way at a time, and no more.

use std::mem;

use tokio::task::JoinSet;
use vecino_model::limits::BATCH_POINTS_MAX;
use vecino_model::{Outcome, Point, PointId, Value};
use vecino_net::message::Put;

use crate::{Client, ClientError, WriteOptions};

/// Most batches on their way at a time.
pub const BULK_IN_FLIGHT_MAX: usize = 64;
/// Largest batch, in bytes; a frame may have twice that, which leaves room for how it is encoded.
pub const BULK_BATCH_BYTES_MAX: usize = 32 << 20;

/// How a [`BulkLoader`] works. Values out of their range are brought into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkOptions {
    /// Most points in a batch, 1 to [`BATCH_POINTS_MAX`].
    pub batch_points: usize,
    /// Most bytes in a batch, roughly, 1 to [`BULK_BATCH_BYTES_MAX`]. One point larger than that is a batch of its own.
    pub batch_bytes: usize,
    /// Most batches on their way at a time, 1 to [`BULK_IN_FLIGHT_MAX`].
    pub in_flight: usize,
    /// How each batch is written.
    pub write: WriteOptions,
}

impl Default for BulkOptions {
    fn default() -> Self {
        Self { batch_points: 1000, batch_bytes: 4 << 20, in_flight: 4, write: WriteOptions::default() }
    }
}

/// What became of one batch. Every point of it is in exactly one of the lists.
#[derive(Debug, Default)]
pub struct BatchReport {
    /// Durable on as many replicas as the level asks for.
    pub acknowledged: Vec<PointId>,
    /// Not written, and why; they would be refused again.
    pub refused: Vec<Unacknowledged>,
    /// Not written, since nodes or replicas could not be reached in time; they may be loaded again.
    pub unavailable: Vec<Unacknowledged>,
    /// Perhaps written, and why that is not known. Loading them again does no harm.
    pub unknown: Vec<Unacknowledged>,
    /// Why the batch as a whole failed, if it did; its points are in the list that fits.
    pub error: Option<ClientError>,
}

/// A point that was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unacknowledged {
    /// Its id.
    pub id: PointId,
    /// Why.
    pub reason: String,
}

/// Loads points into a collection; made by [`Client::bulk_loader`].
///
/// [`push`](Self::push) collects points into batches and sends them, and waits where as many batches are on their way as
/// [`BulkOptions::in_flight`] allows: whoever reads the points is slowed down to what the mesh takes, and memory is
/// bounded. Two points of one id in different batches may be written in either order. Dropping the loader gives up the
/// batches on their way.
#[derive(Debug)]
pub struct BulkLoader {
    client: Client,
    collection: String,
    options: BulkOptions,
    batch: Vec<Point>,
    batch_bytes: usize,
    in_flight: JoinSet<BatchReport>,
}

impl BulkLoader {
    pub(crate) fn new(client: Client, collection: String, options: BulkOptions) -> Self {
        let BulkOptions { batch_points, batch_bytes, in_flight, write } = options;
        let options = BulkOptions {
            batch_points: batch_points.clamp(1, BATCH_POINTS_MAX),
            batch_bytes: batch_bytes.clamp(1, BULK_BATCH_BYTES_MAX),
            in_flight: in_flight.clamp(1, BULK_IN_FLIGHT_MAX),
            write,
        };
        let in_flight = JoinSet::new();
        Self { client, collection, options, batch: Vec::new(), batch_bytes: 0, in_flight }
    }

    /// Adds a point, and sends the batch before it once that is full. Gives the report of a batch that has ended, if
    /// there is one. Nothing is lost when the future is dropped, except the point itself.
    pub async fn push(&mut self, point: Point) -> Option<BatchReport> {
        let bytes = estimated_bytes(&point);
        let full = self.batch.len() >= self.options.batch_points
            || self.batch_bytes.saturating_add(bytes) > self.options.batch_bytes;
        let report = if full && !self.batch.is_empty() { self.send_batch().await } else { self.ended() };
        self.batch.push(point);
        self.batch_bytes = self.batch_bytes.saturating_add(bytes);
        report
    }

    /// Sends what was pushed, and waits until a batch has ended. Absent once all have.
    pub async fn next(&mut self) -> Option<BatchReport> {
        if !self.batch.is_empty()
            && let Some(report) = self.send_batch().await
        {
            return Some(report);
        }
        self.in_flight.join_next().await.map(unwrap_panic)
    }

    /// Batches on their way, with those that have ended and were not reported on yet.
    pub fn batches_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Waits for room, then sends.
    async fn send_batch(&mut self) -> Option<BatchReport> {
        let report = if self.in_flight.len() >= self.options.in_flight {
            self.in_flight.join_next().await.map(unwrap_panic)
        } else {
            self.ended()
        };
        let points = mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let put = Put { collection: self.collection.clone(), points, level: self.options.write.level };
        let (client, options) = (self.client.clone(), self.options.write);
        self.in_flight.spawn(async move {
            let result = client.write(&put, options).await;
            report_on(put.points, result)
        });
        report
    }

    fn ended(&mut self) -> Option<BatchReport> {
        self.in_flight.try_join_next().map(unwrap_panic)
    }
}

/// A batch's task is never cancelled while the loader lives, so it can only have panicked.
fn unwrap_panic(result: Result<BatchReport, tokio::task::JoinError>) -> BatchReport {
    result.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => unreachable!("a batch was cancelled while its loader lives: {error}"),
    })
}

fn report_on(points: Vec<Point>, result: Result<Vec<Outcome>, ClientError>) -> BatchReport {
    let mut report = BatchReport::default();
    let ids = points.into_iter().map(|point| point.id);
    match result {
        Ok(outcomes) => {
            for (id, outcome) in ids.zip(outcomes) {
                match outcome {
                    Outcome::Written(_) => report.acknowledged.push(id),
                    Outcome::Refused(reason) => report.refused.push(Unacknowledged { id, reason }),
                    Outcome::Unavailable(reason) => report.unavailable.push(Unacknowledged { id, reason }),
                    Outcome::Unknown(reason) => report.unknown.push(Unacknowledged { id, reason }),
                }
            }
        }
        Err(error) => {
            let reason = error.to_string();
            let points = ids.map(|id| Unacknowledged { id, reason: reason.clone() }).collect();
            let list = match error {
                _ if error.is_unknown() => &mut report.unknown,
                _ if error.is_safe_to_retry() => &mut report.unavailable,
                _ => &mut report.refused,
            };
            *list = points;
            report.error = Some(error);
        }
    }
    report
}

/// About how many bytes the point has in a frame; exact for vectors, which are most of it.
fn estimated_bytes(point: &Point) -> usize {
    const OVERHEAD: usize = 48;
    let id = match &point.id {
        PointId::Number(_) => 9,
        PointId::Text(text) => text.len() + 5,
    };
    let vectors: usize = point.vectors.iter().map(|(name, vector)| name.len() + 10 + 4 * vector.0.len()).sum();
    let payload: usize = point.payload.iter().map(|(key, value)| key.len() + 5 + value_bytes(value)).sum();
    OVERHEAD + id + vectors + payload
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 1,
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => 9,
        Value::Text(text) => text.len() + 5,
        Value::List(values) => 5 + values.iter().map(value_bytes).sum::<usize>(),
        Value::Map(values) => 5 + values.iter().map(|(key, value)| key.len() + 5 + value_bytes(value)).sum::<usize>(),
    }
}
