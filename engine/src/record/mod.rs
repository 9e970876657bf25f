//! What a record looks like in the log and in a snapshot.
//!
//! MessagePack without the names of fields, which would be a tenth of all that is written; a field that is added comes
//! last, and with a default. With names it is read as well. Drawn in `docs/disk.md`. The types that are stored
//! (`stored`) are of this crate alone: what travels may change, and what lies on disk stays.

mod codec;
mod entry;
mod stored;

pub use codec::{
    DecodeError, ENTRY_BYTES_MAX, decode, decode_entry, encode, encode_behind, encode_entry, encoded_bytes,
};
pub use entry::SnapshotEntry;
