//! One of the nodes that decide together.

use super::ballot::Ballot;

/// What an acceptor has promised and accepted, for one register.
///
/// It has to be on its disk before the answer goes out that made it so: an acceptor that answers and forgets lets two
/// values be chosen. Each method says by its answer what it has become; an answer that changes nothing needs no flush, which
/// [`PartialEq`] shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acceptor<V> {
    /// It takes part in no attempt below this one.
    pub promised: Option<Ballot>,
    /// The last value that it accepted, and in which attempt.
    pub accepted: Option<(Ballot, V)>,
}

/// What an acceptor answers that takes part in no attempt below the one that asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Promise<V> {
    /// The value that it accepted in an earlier attempt.
    pub accepted: Option<(Ballot, V)>,
}

/// What an acceptor answers that takes part in a later attempt already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("a later attempt is under way: round {} of node {}", .above.round, .above.node.short())]
pub struct Refused {
    /// That attempt.
    pub above: Ballot,
}

impl<V> Default for Acceptor<V> {
    fn default() -> Self {
        Self { promised: None, accepted: None }
    }
}

impl<V: Clone> Acceptor<V> {
    /// Phase 1: promises to take part in nothing below this ballot. Asked again, it answers the same.
    ///
    /// # Errors
    /// Where it has promised a higher one.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<Promise<V>, Refused> {
        self.check(ballot)?;
        self.promised = Some(ballot);
        Ok(Promise { accepted: self.accepted.clone() })
    }

    /// Phase 2: accepts a value. Asked again, it answers the same.
    ///
    /// # Errors
    /// Where it has promised a higher ballot.
    pub fn accept(&mut self, ballot: Ballot, value: V) -> Result<(), Refused> {
        self.check(ballot)?;
        self.promised = Some(ballot);
        self.accepted = Some((ballot, value));
        Ok(())
    }

    fn check(&self, ballot: Ballot) -> Result<(), Refused> {
        match self.promised {
            Some(above) if above > ballot => Err(Refused { above }),
            _ => Ok(()),
        }
    }
}
