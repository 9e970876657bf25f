//! Entries: what is chosen, as bytes.

/// Most bytes of one change.
pub const CHANGE_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of the changes of one entry: what waits beyond that waits for the next.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// A change as it travels and lies on disk. A kind or a format that this program does not know is kept as it is: whoever
/// does not know it stops before the entry, and hands it on all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedChange {
    /// What kind of change it is.
    pub kind: u16,
    /// Rises where what is encoded of a kind changes its meaning.
    pub format: u16,
    /// The rest.
    pub body: Vec<u8>,
}

/// A change that is too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a change takes {bytes} bytes, the limit is {CHANGE_BYTES_MAX}: make it in parts")]
pub struct TooLarge {
    pub(super) bytes: usize,
}

/// A change that this program cannot apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A newer program made it.
    #[error(
        "change kind {kind} of format {format} is not known to this version: start a newer version of vecino on this node"
    )]
    Unknown {
        /// What kind of change it is.
        kind: u16,
        /// Its format.
        format: u16,
    },
    /// It is not what its kind says.
    #[error("change kind {kind} of format {format} cannot be read: {reason}")]
    Damaged {
        /// What kind of change it is.
        kind: u16,
        /// Its format.
        format: u16,
        /// Why.
        reason: String,
    },
}

/// What one register chooses: the changes that waited when it was proposed, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The changes.
    pub changes: Vec<EncodedChange>,
}
