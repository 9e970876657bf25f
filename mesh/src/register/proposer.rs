//! One attempt to have a register decide.

use std::collections::BTreeSet;

use vecino_model::NodeId;

use super::acceptor::{Promise, Refused};
use super::ballot::Ballot;

/// What is to be done for an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command<V> {
    /// Ask these acceptors for their promise.
    Prepare {
        /// Whom.
        to: BTreeSet<NodeId>,
    },
    /// Ask these acceptors to accept a value.
    Accept {
        /// Whom.
        to: BTreeSet<NodeId>,
        /// What.
        value: V,
    },
    /// It has ended.
    End(End<V>),
}

/// How an attempt has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum End<V> {
    /// This value is chosen, for good: the one that was wanted, or one that another node wanted.
    Chosen(V),
    /// A later attempt is in the way: to be tried again above it, after a pause by chance.
    Overtaken {
        /// The highest ballot that was seen.
        above: Ballot,
    },
    /// So many acceptors do not answer that a majority cannot be had. What is chosen in the end is not known.
    NoMajority,
}

/// Why an acceptor's answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// It takes part in a later attempt.
    Refused(Refused),
    /// It did not answer, or is not the acceptor that was named.
    Silent,
}

/// One attempt, under one ballot, which no other attempt ever has.
///
/// What comes twice, or late, or from somebody who is no acceptor changes nothing, and neither does anything after the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer<V> {
    acceptors: BTreeSet<NodeId>,
    majority: usize,
    ballot: Ballot,
    wanted: V,
    /// The value of the highest ballot among the promises, which has to be proposed in place of the wanted one.
    found: Option<(Ballot, V)>,
    phase: Phase,
    agreed: BTreeSet<NodeId>,
    failed: BTreeSet<NodeId>,
    above: Option<Ballot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Preparing,
    Accepting,
    Ended,
}

impl<V: Clone> Proposer<V> {
    /// An attempt to have these acceptors choose a value, and what is to be done first.
    pub fn new(acceptors: BTreeSet<NodeId>, ballot: Ballot, wanted: V) -> (Self, Command<V>) {
        let majority = acceptors.len() / 2 + 1;
        let to = acceptors.clone();
        let (agreed, failed) = (BTreeSet::new(), BTreeSet::new());
        let phase = Phase::Preparing;
        let attempt = Self { acceptors, majority, ballot, wanted, found: None, phase, agreed, failed, above: None };
        (attempt, Command::Prepare { to })
    }

    /// The ballot of the attempt.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// An acceptor has answered [`Command::Prepare`], or has not.
    pub fn on_promise(&mut self, node: NodeId, answer: Result<Promise<V>, Failure>) -> Option<Command<V>> {
        if self.phase != Phase::Preparing || !self.is_first(node) {
            return None;
        }
        match answer {
            Ok(Promise { accepted }) => {
                self.agreed.insert(node);
                let ballot = |accepted: &Option<(Ballot, V)>| accepted.as_ref().map(|(ballot, _)| *ballot);
                if ballot(&accepted) > ballot(&self.found) {
                    self.found = accepted;
                }
                if self.agreed.len() < self.majority {
                    return None;
                }
                self.phase = Phase::Accepting;
                // Those that promised nothing may accept all the same.
                (self.agreed, self.failed) = (BTreeSet::new(), BTreeSet::new());
                Some(Command::Accept { to: self.acceptors.clone(), value: self.value() })
            }
            Err(failure) => self.fail(node, failure),
        }
    }

    /// An acceptor has answered [`Command::Accept`], or has not.
    pub fn on_accepted(&mut self, node: NodeId, answer: Result<(), Failure>) -> Option<Command<V>> {
        if self.phase != Phase::Accepting || !self.is_first(node) {
            return None;
        }
        match answer {
            Ok(()) => {
                self.agreed.insert(node);
                (self.agreed.len() == self.majority).then(|| self.end(End::Chosen(self.value())))
            }
            Err(failure) => self.fail(node, failure),
        }
    }

    fn is_first(&self, node: NodeId) -> bool {
        self.acceptors.contains(&node) && !self.agreed.contains(&node) && !self.failed.contains(&node)
    }

    fn value(&self) -> V {
        self.found.as_ref().map_or(&self.wanted, |(_, value)| value).clone()
    }

    fn fail(&mut self, node: NodeId, failure: Failure) -> Option<Command<V>> {
        self.failed.insert(node);
        if let Failure::Refused(Refused { above }) = failure {
            self.above = self.above.max(Some(above));
        }
        if self.acceptors.len() - self.failed.len() >= self.majority {
            return None;
        }
        let end = self.above.map_or(End::NoMajority, |above| End::Overtaken { above });
        Some(self.end(end))
    }

    fn end(&mut self, end: End<V>) -> Command<V> {
        self.phase = Phase::Ended;
        Command::End(end)
    }
}
