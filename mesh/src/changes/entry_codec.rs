//! Entries, and what an acceptor has promised and accepted, as bytes: as they travel and as they lie on disk.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::{EncodedChange, Entry};
use super::stored::{Id, id, node};
use crate::register::{Acceptor, Ballot, ROUNDS_MAX};

/// Bytes that are no entry, or no acceptor.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// They cannot be read.
    #[error("what was chosen, or promised, cannot be read: {0}")]
    Damaged(#[from] rmp_serde::decode::Error),
    /// They name an attempt that never was.
    #[error("what was promised cannot be read: round {0} is over the limit of {ROUNDS_MAX}")]
    Round(u64),
}

/// Kind, format, body.
#[derive(Serialize, Deserialize)]
struct StoredChange(u16, u16, #[serde(with = "serde_bytes")] Vec<u8>);

/// Round and node.
#[derive(Serialize, Deserialize)]
struct StoredBallot(u64, Id);

/// The number of the entry, the promise, and what was accepted.
#[derive(Serialize, Deserialize)]
struct StoredAcceptor(u64, Option<StoredBallot>, Option<(StoredBallot, Vec<StoredChange>)>);

impl Entry {
    /// The entry as bytes.
    pub fn encode(&self) -> Vec<u8> {
        bytes(&store(self))
    }

    /// The entry that bytes stand for. Its changes are not looked into.
    ///
    /// # Errors
    /// Where they are none.
    pub fn decode(encoded: &[u8]) -> Result<Self, EntryError> {
        Ok(load(rmp_serde::from_slice(encoded)?))
    }
}

/// What an acceptor has promised and accepted of the entry of a number, as bytes.
pub fn encode_acceptor(number: u64, acceptor: &Acceptor<Arc<Entry>>) -> Vec<u8> {
    let Acceptor { promised, accepted } = acceptor;
    let accepted = accepted.as_ref().map(|(ballot, entry)| (store_ballot(ballot), store(entry)));
    bytes(&StoredAcceptor(number, promised.as_ref().map(store_ballot), accepted))
}

/// The number of an entry, and what an acceptor has promised and accepted of it.
///
/// # Errors
/// Where the bytes say neither.
pub fn decode_acceptor(encoded: &[u8]) -> Result<(u64, Acceptor<Arc<Entry>>), EntryError> {
    let StoredAcceptor(number, promised, accepted) = rmp_serde::from_slice(encoded)?;
    let accepted = match accepted {
        Some((ballot, changes)) => Some((load_ballot(ballot)?, Arc::new(load(changes)))),
        None => None,
    };
    Ok((number, Acceptor { promised: promised.map(load_ballot).transpose()?, accepted }))
}

fn store(entry: &Entry) -> Vec<StoredChange> {
    let store = |EncodedChange { kind, format, body }: &EncodedChange| StoredChange(*kind, *format, body.clone());
    entry.changes.iter().map(store).collect()
}

fn load(changes: Vec<StoredChange>) -> Entry {
    let load = |StoredChange(kind, format, body)| EncodedChange { kind, format, body };
    Entry { changes: changes.into_iter().map(load).collect() }
}

fn store_ballot(ballot: &Ballot) -> StoredBallot {
    StoredBallot(ballot.round, id(&ballot.node))
}

fn load_ballot(StoredBallot(round, of): StoredBallot) -> Result<Ballot, EntryError> {
    if round > ROUNDS_MAX { Err(EntryError::Round(round)) } else { Ok(Ballot { round, node: node(of) }) }
}

fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("numbers and bytes always encode")
}
