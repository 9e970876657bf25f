//! What a mesh agrees on: a log of small changes, and the state that they fold to.
//!
//! Members, layouts and collections are the fold of a log of entries. Entry `e + 1` is chosen by one register whose acceptors
//! entry `e` names, so there is one log, whoever proposes; every node folds it to the same state, which the hash of it shows.
//! An entry is a list of changes as bytes; a change that came too late for the state that it finds has no effect, and its
//! proposer reads that. Applying is total, and goes by nothing but the state and the entry.
//!
//! Here is the state, what changes do to it, and what one node has of the log. How entries travel and are stored is
//! elsewhere.

mod acceptors;
mod apply;
mod change;
mod codec;
mod effect;
mod entry;
mod entry_codec;
mod hash;
mod layout;
mod log;
#[cfg(test)]
mod log_tests;
mod state;
mod state_codec;
mod stored;
#[cfg(test)]
mod tests;

pub use acceptors::{ACCEPTORS_MAX, best_acceptors, lost_acceptors};
pub use apply::{Effects, NoBeginning};
pub use change::{Change, Newcomer, RestoreId};
pub use effect::NoEffect;
pub use entry::{CHANGE_BYTES_MAX, ENTRY_BYTES_MAX, EncodedChange, Entry, TooLarge, Unreadable};
pub use entry_codec::{EntryError, decode_acceptor, encode_acceptor};
pub use hash::StateHash;
pub use layout::{Layout, LayoutNode, Placing};
pub use log::{AdoptError, Asked, ChangeLog, ENTRIES_KEPT, InstallError};
pub use state::{CollectionState, Copy, Dropped, MemberState, Moving, Standing, State};
pub use state_codec::StateError;
