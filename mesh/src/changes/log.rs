//! What one node has of the log of changes: the state, the last entries, and its part in choosing the next.
//!
//! The next entry is chosen by a register of its own, whose acceptors the state names, each by node and disk. Pure: what
//! has to be on the disk before an answer goes out is said at each method.

use std::collections::VecDeque;
use std::sync::Arc;

use vecino_model::{DiskId, NodeId};

use super::apply::Effects;
use super::entry::{Entry, Unreadable};
use super::state::State;
use crate::register::{Acceptor, Ballot, Command, Promise, Proposer, Refused};

/// Entries that are kept for nodes that are behind; who is farther behind takes the state.
pub const ENTRIES_KEPT: usize = 1_000;

/// What a node answers that is asked to promise or to accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<T> {
    /// What its acceptor says.
    Answer(Result<T, Refused>),
    /// That entry is chosen: whoever asks is behind.
    Chosen(Option<Arc<Entry>>),
    /// It does not have the entry before that one: it is behind itself, and takes no part until it has it.
    Behind {
        /// The last entry that it has.
        number: u64,
    },
    /// It does not accept entries, or not with this disk.
    NoAcceptor,
}

/// Why an entry cannot follow those that are there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// Entries are missing between.
    #[error("entry {number} cannot follow entry {last}")]
    Gap {
        /// Of the entry that came.
        number: u64,
        /// Of the last one that is here.
        last: u64,
    },
    /// The entry of this number is another one here.
    #[error("entry {number} is another one on this node: it has a log of changes that others do not share")]
    Another {
        /// Its number.
        number: u64,
    },
    /// This program cannot read it.
    #[error("entry {number}: {source}")]
    Unreadable {
        /// Its number.
        number: u64,
        /// Why.
        #[source]
        source: Unreadable,
    },
}

/// A state that cannot take the place of the one that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// It is of another mesh.
    #[error("it is the state of another mesh")]
    OtherMesh,
    /// It is not newer.
    #[error("it is not newer than what is here")]
    Old,
    /// It has the same number, and is another one.
    #[error("it has the same number, and is another one: this node has a log of changes that others do not share")]
    Another,
}

/// What one node has of the log of changes.
#[derive(Clone, Debug)]
pub struct ChangeLog {
    own: NodeId,
    disk: DiskId,
    state: State,
    /// The last entries, the newest last.
    entries: VecDeque<Arc<Entry>>,
    acceptor: Acceptor<Arc<Entry>>,
}

impl ChangeLog {
    /// The log of a node with this disk that has this state. `acceptor` is what it promised and accepted of the next entry.
    pub fn new(own: NodeId, disk: DiskId, state: State, acceptor: Acceptor<Arc<Entry>>) -> Self {
        Self { own, disk, state, entries: VecDeque::new(), acceptor }
    }

    /// The state after the last entry that is here.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What this node has promised and accepted of the next entry. It is on the disk, with the number of that entry, before
    /// an answer of [`Self::prepare`] or [`Self::accept`] goes out that changed it.
    pub fn acceptor(&self) -> &Acceptor<Arc<Entry>> {
        &self.acceptor
    }

    /// An attempt of this node to have the next entry chosen, above the ballot that it has seen; with the number of the
    /// entry.
    pub fn attempt(
        &self,
        seen: Option<Ballot>,
        wanted: Arc<Entry>,
    ) -> (u64, Proposer<Arc<Entry>>, Command<Arc<Entry>>) {
        let acceptors = self.state.acceptors().keys().copied().collect();
        let (attempt, first) = Proposer::new(acceptors, Ballot::above(seen, self.own), wanted);
        (self.state.number() + 1, attempt, first)
    }

    /// Asked to promise for the entry of this number.
    pub fn prepare(&mut self, number: u64, ballot: Ballot) -> Asked<Promise<Arc<Entry>>> {
        match self.place(number) {
            Ok(()) => Asked::Answer(self.acceptor.prepare(ballot)),
            Err(other) => other,
        }
    }

    /// Asked to accept the entry of this number.
    pub fn accept(&mut self, number: u64, ballot: Ballot, entry: Arc<Entry>) -> Asked<()> {
        match self.place(number) {
            Ok(()) => Asked::Answer(self.acceptor.accept(ballot, entry)),
            Err(other) => other,
        }
    }

    /// Whether this node has a say in the entry of this number.
    fn place<T>(&self, number: u64) -> Result<(), Asked<T>> {
        let last = self.state.number();
        if number <= last {
            return Err(Asked::Chosen(self.entry(number)));
        }
        if number > last + 1 {
            return Err(Asked::Behind { number: last });
        }
        if self.state.acceptors().get(&self.own) == Some(&self.disk) { Ok(()) } else { Err(Asked::NoAcceptor) }
    }

    /// An entry that is kept.
    pub fn entry(&self, number: u64) -> Option<Arc<Entry>> {
        let behind = self.state.number().checked_sub(number)?;
        let index = self.entries.len().checked_sub(usize::try_from(behind).ok()? + 1)?;
        self.entries.get(index).cloned()
    }

    /// The entries from this number on that are here; nothing where some of them are gone, and the state has to be taken.
    pub fn entries_from(&self, number: u64) -> Option<Vec<Arc<Entry>>> {
        let count = (self.state.number() + 1).saturating_sub(number);
        let first = self.entries.len().checked_sub(usize::try_from(count).ok()?)?;
        Some(self.entries.range(first..).cloned().collect())
    }

    /// Puts the next entry into effect, which is chosen; says what became of its changes, or nothing where it is here
    /// already. It is on the disk before, and only after that what was promised for it may go.
    ///
    /// # Errors
    /// Where it does not follow, is not the one that is here, or cannot be read. The last two end this node's part in the
    /// mesh until a person has looked: it must not go on behind them.
    pub fn install(&mut self, number: u64, entry: Arc<Entry>) -> Result<Option<Effects>, InstallError> {
        let last = self.state.number();
        if number <= last {
            let is_same = self.entry(number).is_none_or(|known| known == entry);
            return if is_same { Ok(None) } else { Err(InstallError::Another { number }) };
        }
        if number > last + 1 {
            return Err(InstallError::Gap { number, last });
        }
        let effects = self.state.apply(&entry).map_err(|source| InstallError::Unreadable { number, source })?;
        self.acceptor = Acceptor::default();
        self.entries.push_back(entry);
        if self.entries.len() > ENTRIES_KEPT {
            self.entries.pop_front();
        }
        Ok(Some(effects))
    }

    /// Takes the state of another node over, since entries between are gone. It is on the disk before.
    ///
    /// # Errors
    /// Where it is not a newer state of the same mesh.
    pub fn adopt(&mut self, state: State) -> Result<(), AdoptError> {
        if state.mesh() != self.state.mesh() {
            return Err(AdoptError::OtherMesh);
        }
        if state.number() == self.state.number() && state.hash() != self.state.hash() {
            return Err(AdoptError::Another);
        }
        if state.number() <= self.state.number() {
            return Err(AdoptError::Old);
        }
        self.state = state;
        self.entries.clear();
        self.acceptor = Acceptor::default();
        Ok(())
    }

    /// The node has another disk from now on: it has no say until a change names that.
    pub fn set_disk(&mut self, disk: DiskId) {
        self.disk = disk;
        self.acceptor = Acceptor::default();
    }
}
