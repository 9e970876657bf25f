//! The write-ahead log: records in, an lsn out, durable once flushed.
//!
//! One writer owns a [`Log`]. It appends frames to the newest segment, flushes when told to commit, and starts another
//! segment when one is full. The log itself is in `writer`, reading it back in
//! `replay`; what a frame looks like is in `format`, walking over frames in `reader`, what the end of a segment means in
//! `recovery`. Bytes are drawn in `docs/disk.md`.

mod active;
mod error;
mod format;
mod inspect;
mod limits;
mod options;
mod reader;
mod recovery;
mod replay;
mod segment;
mod writer;

pub use error::{BoxError, LogError};
pub use format::LOG_FORMAT_VERSION;
pub use inspect::{LogInspection, inspect_log};
pub use limits::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};
pub use options::{LogOptions, Recovery, SyncPolicy};
pub use replay::{Apply, Take};
pub use writer::Log;
