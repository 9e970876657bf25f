//! How points are loaded in bulk.

use std::fmt;
use std::time::Duration;

use vecino_model::Level;
use vecino_model::limits::BATCH_POINTS_MAX;

use super::report::BulkEvent;
use crate::session::Session;

/// Most batches on their way at a time.
pub const BULK_IN_FLIGHT_MAX: usize = 64;
/// Largest batch, in bytes; a frame may have twice that, which leaves room for how it is encoded.
pub const BULK_BATCH_BYTES_MAX: usize = 32 << 20;
/// How long points may wait for a mesh that does not take them, unless told otherwise.
pub const BULK_PATIENCE: Duration = Duration::from_secs(60);

/// Settings of a [`BulkLoader`](crate::BulkLoader); made by [`Collection::bulk`](crate::Collection::bulk). [`start`](Self::start) makes the
/// loader. Values out of their range are brought into it.
#[must_use = "nothing is loaded until start() is called"]
pub struct BulkOptions<'a> {
    pub(super) session: Session,
    pub(super) collection: String,
    pub(super) batch_points: usize,
    pub(super) batch_bytes: usize,
    pub(super) in_flight: usize,
    pub(super) level: Level,
    pub(super) repeat_unknown: bool,
    pub(super) patience: Duration,
    pub(super) on_event: Box<dyn FnMut(BulkEvent<'_>) + Send + 'a>,
}

impl<'a> BulkOptions<'a> {
    pub(crate) fn new(session: Session, collection: String) -> Self {
        Self {
            session,
            collection,
            batch_points: 1000,
            batch_bytes: 4 << 20,
            in_flight: 4,
            level: Level::default(),
            repeat_unknown: true,
            patience: BULK_PATIENCE,
            on_event: Box::new(|_| {}),
        }
    }

    /// Most points in a batch, 1 to [`BATCH_POINTS_MAX`]; 1,000 unless set.
    pub fn batch_points(self, batch_points: usize) -> Self {
        Self { batch_points: batch_points.clamp(1, BATCH_POINTS_MAX), ..self }
    }

    /// Most bytes in a batch, roughly, 1 to [`BULK_BATCH_BYTES_MAX`]; 4 MiB unless set. One point larger than that is a
    /// batch of its own.
    pub fn batch_bytes(self, batch_bytes: usize) -> Self {
        Self { batch_bytes: batch_bytes.clamp(1, BULK_BATCH_BYTES_MAX), ..self }
    }

    /// Most batches on their way at a time, 1 to [`BULK_IN_FLIGHT_MAX`]; 4 unless set.
    pub fn in_flight(self, in_flight: usize) -> Self {
        Self { in_flight: in_flight.clamp(1, BULK_IN_FLIGHT_MAX), ..self }
    }

    /// How many durable replicas to wait for; a majority unless set.
    pub fn level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// Whether points whose outcome is unknown are written again; they are unless switched off, and are then counted as
    /// failed. See [`WriteRequest::repeat_unknown`](crate::WriteRequest::repeat_unknown).
    pub fn repeat_unknown(self, repeat_unknown: bool) -> Self {
        Self { repeat_unknown, ..self }
    }

    /// How long, in wall-clock time, the loader goes on trying to write points that the mesh does not take before it gives
    /// up; [`BULK_PATIENCE`] unless set. With zero, what one request could not write is given up at once.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Calls this for every batch that ends and whenever the loader begins or ends to wait for the mesh. It runs inside the
    /// loader's own methods, in their task.
    pub fn on_event<'b>(self, on_event: impl FnMut(BulkEvent<'_>) + Send + 'b) -> BulkOptions<'b> {
        let Self { session, collection, batch_points, batch_bytes, in_flight, level, repeat_unknown, patience, .. } =
            self;
        let on_event = Box::new(on_event);
        BulkOptions {
            session,
            collection,
            batch_points,
            batch_bytes,
            in_flight,
            level,
            repeat_unknown,
            patience,
            on_event,
        }
    }
}

impl fmt::Debug for BulkOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkOptions").field("collection", &self.collection).finish_non_exhaustive()
    }
}
