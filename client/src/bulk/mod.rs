//! Loading many points: batches, several on their way at a time and no more, written again while that is safe and patience
//! lasts.

mod loader;
mod options;
mod patience;
mod report;
mod size;

pub use loader::BulkLoader;
pub use options::{BULK_BATCH_BYTES_MAX, BULK_IN_FLIGHT_MAX, BULK_PATIENCE, BulkOptions};
pub use report::{BULK_UNWRITTEN_SHOWN, BulkError, BulkEvent, BulkSummary};
