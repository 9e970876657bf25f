//! What the clients of a run did and saw, and a recorder of it.

use std::fmt;

/// What an operation asks of its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Writes a value, which no other put of the run writes. A put that is sent again is one operation.
    Put(u64),
    /// Takes the value away.
    Delete,
    /// Reads: the value that it saw, or that there was none.
    Get(Option<u64>),
}

/// What became of an operation, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It took effect before it ended.
    Done,
    /// It may take effect at any time after it began, or never.
    Unknown,
    /// It surely had no effect and never will have one.
    Nothing,
}

/// One operation of one client on one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation {
    /// Who asked for it.
    pub client: usize,
    /// On which point.
    pub point: u64,
    /// What was asked, and what a get saw.
    pub kind: Kind,
    /// When it was asked for.
    pub began: u64,
    /// When the client knew of the outcome, or gave up; none if it never did.
    pub ended: Option<u64>,
    /// What became of it.
    pub outcome: Outcome,
}

impl Operation {
    /// By when it had taken effect, as far as its own client knows: never, unless it is done.
    pub fn done_at(&self) -> Option<u64> {
        self.ended.filter(|_| self.outcome == Outcome::Done)
    }

    /// Whether it changes its point, or may do so.
    pub fn may_write(&self) -> bool {
        self.outcome != Outcome::Nothing && self.written().is_some()
    }

    /// What it writes: a value, or that there is none. None if it only reads.
    pub fn written(&self) -> Option<Option<u64>> {
        match self.kind {
            Kind::Put(value) => Some(Some(value)),
            Kind::Delete => Some(None),
            Kind::Get(_) => None,
        }
    }

    /// What it read, if it is a get and done.
    pub fn read(&self) -> Option<Option<u64>> {
        match self.kind {
            Kind::Get(seen) if self.done_at().is_some() => Some(seen),
            Kind::Get(_) | Kind::Put(_) | Kind::Delete => None,
        }
    }
}

/// `put 7 by client 2, from 10 to 25`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Put(value) => write!(f, "put {value}")?,
            Kind::Delete => write!(f, "delete")?,
            Kind::Get(_) if self.read().is_none() => write!(f, "get that saw nothing known")?,
            Kind::Get(Some(value)) => write!(f, "get that saw {value}")?,
            Kind::Get(None) => write!(f, "get that saw no value")?,
        }
        write!(f, " by client {}, from {}", self.client, self.began)?;
        match (self.outcome, self.ended) {
            (Outcome::Done, Some(ended)) => write!(f, " to {ended}"),
            (Outcome::Done, None) => write!(f, " on, not ended"),
            (Outcome::Unknown, Some(ended)) => write!(f, " on, unknown since {ended}"),
            (Outcome::Unknown, None) => write!(f, " on, unknown"),
            (Outcome::Nothing, _) => write!(f, " on, without effect"),
        }
    }
}

/// Operations one to a line, in the order in which they began.
pub(crate) fn in_time_order(operations: &[Operation]) -> String {
    let mut sorted = operations.to_vec();
    sorted.sort_by_key(|operation| (operation.began, operation.ended.unwrap_or(u64::MAX)));
    sorted.iter().map(|operation| format!("\n  {operation}")).collect()
}

/// Records a run. Operations that are still open at its end are of unknown outcome.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
}

/// Which operation of a history, in the order in which they began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationNumber(usize);

impl History {
    /// A client asks for an operation. What a get will have seen is said by [`Self::read`].
    pub fn begin(&mut self, client: usize, point: u64, kind: Kind, now: u64) -> OperationNumber {
        self.operations.push(Operation { client, point, kind, began: now, ended: None, outcome: Outcome::Unknown });
        OperationNumber(self.operations.len() - 1)
    }

    /// A put or a delete is acknowledged.
    pub fn done(&mut self, number: OperationNumber, now: u64) {
        self.end(number, Outcome::Done, now);
    }

    /// A get is answered.
    pub fn read(&mut self, number: OperationNumber, seen: Option<u64>, now: u64) {
        self.operations[number.0].kind = Kind::Get(seen);
        self.end(number, Outcome::Done, now);
    }

    /// The client does not know what became of it.
    pub fn unknown(&mut self, number: OperationNumber, now: u64) {
        self.end(number, Outcome::Unknown, now);
    }

    /// It was refused, or is surely nowhere.
    pub fn nothing(&mut self, number: OperationNumber, now: u64) {
        self.end(number, Outcome::Nothing, now);
    }

    fn end(&mut self, number: OperationNumber, outcome: Outcome, now: u64) {
        let operation = &mut self.operations[number.0];
        operation.ended = Some(now);
        operation.outcome = outcome;
    }

    /// All that was recorded, in the order in which it began.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Histories in few words, for tests.

    use super::{Kind, Operation, Outcome};

    fn operation(kind: Kind, began: u64, ended: Option<u64>, outcome: Outcome) -> Operation {
        Operation { client: 0, point: 1, kind, began, ended, outcome }
    }

    pub(crate) fn put(value: u64, began: u64, ended: u64) -> Operation {
        operation(Kind::Put(value), began, Some(ended), Outcome::Done)
    }

    pub(crate) fn delete(began: u64, ended: u64) -> Operation {
        operation(Kind::Delete, began, Some(ended), Outcome::Done)
    }

    pub(crate) fn get(seen: impl Into<Option<u64>>, began: u64, ended: u64) -> Operation {
        operation(Kind::Get(seen.into()), began, Some(ended), Outcome::Done)
    }

    pub(crate) fn unknown_put(value: u64, began: u64) -> Operation {
        operation(Kind::Put(value), began, None, Outcome::Unknown)
    }

    pub(crate) fn unknown_delete(began: u64) -> Operation {
        operation(Kind::Delete, began, Some(began + 1), Outcome::Unknown)
    }

    pub(crate) fn refused_put(value: u64, began: u64) -> Operation {
        operation(Kind::Put(value), began, Some(began + 1), Outcome::Nothing)
    }

    impl Operation {
        /// The same on another point.
        pub(crate) fn of(self, point: u64) -> Self {
            Self { point, ..self }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_ended_is_unknown() {
        let mut history = History::default();
        let (put, get) = (history.begin(1, 9, Kind::Put(5), 10), history.begin(2, 9, Kind::Get(None), 11));
        history.read(get, Some(5), 12);
        let [first, second] = history.operations() else { panic!("{history:?}") };
        assert_eq!((first.outcome, first.done_at(), second.read()), (Outcome::Unknown, None, Some(Some(5))));
        assert_eq!(first.to_string(), "put 5 by client 1, from 10 on, unknown");
        history.done(put, 13);
        assert_eq!(history.operations()[0].done_at(), Some(13));
        history.nothing(put, 13);
        assert!(!history.operations()[0].may_write());
    }
}
