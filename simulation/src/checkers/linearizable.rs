//! Each point is a linearizable register.
//!
//! A history is linearizable if every operation can be given one moment between its beginning and its end so that, in
//! the order of these moments, every get sees what was written last (Herlihy and Wing, 1990). The search is that of
//! Wing and Gong, "Testing and Verifying Concurrent Objects" (1993), which remembers where it was, as Lowe does in
//! "Testing for Linearizability" (2017): by which operations have their moment, and what the register then holds.
//!
//! No value is put twice, which leaves few choices (the proofs are by moving one operation in an order that is right):
//! - A get that sees what the register holds is next as soon as it may be.
//! - What some get has yet to see is not overwritten, as it never comes back. "No value" does come back, by a delete.
//! - A write that nobody sees is next as soon as the register holds what nobody has yet to see.
//! - A write of unknown outcome is left out, or stands directly before the first get that sees it. Of deletes of
//!   unknown outcome the first one serves as well as any.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Operation, in_time_order};

/// How many states of one point are remembered before the judge gives up.
pub const STATES_MAX: usize = 1 << 20;

/// Why a history was not found to be linearizable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// There is no order of these operations in which every get sees what was written last. Without any get of them, or
    /// any value with what saw it, there is one.
    #[error("point {point} is not linearizable:{}", in_time_order(operations))]
    NotLinearizable {
        /// Of which point.
        point: u64,
        /// A part of its history that already is not, in the order in which it began.
        operations: Vec<Operation>,
    },
    /// A get saw what nobody ever put.
    #[error("point {point} had a value that nobody put:{}", in_time_order(&[*get]))]
    FromNowhere {
        /// Of which point.
        point: u64,
        /// What saw it.
        get: Operation,
    },
    /// The history cannot be judged, as puts are told from each other by their values.
    #[error("two puts of point {point} have one value:{}", in_time_order(puts))]
    OneValueTwice {
        /// Of which point.
        point: u64,
        /// Both puts.
        puts: Vec<Operation>,
    },
    /// The history was not judged.
    #[error("point {point} was not judged: more than {STATES_MAX} states of its {operations} operations; record less")]
    TooHard {
        /// Of which point.
        point: u64,
        /// How many operations it has.
        operations: usize,
    },
}

/// Judges a history point by point. Points have no value in the beginning; gets that are not done are ignored.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    let mut points: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        points.entry(operation.point).or_default().push(*operation);
    }
    points.into_iter().try_for_each(|(point, operations)| check_point(point, operations).map(drop))
}

/// Judges one point, and tells how many states it took.
fn check_point(point: u64, mut operations: Vec<Operation>) -> Result<usize, Violation> {
    operations.retain(|operation| operation.may_write() || operation.read().is_some());
    operations.sort_by_key(|operation| operation.began);
    let mut puts: BTreeMap<u64, Operation> = BTreeMap::new();
    for operation in &operations {
        if let Some(Some(value)) = operation.written()
            && let Some(other) = puts.insert(value, *operation)
        {
            return Err(Violation::OneValueTwice { point, puts: vec![other, *operation] });
        }
    }
    let is_from_nowhere = |get: &&Operation| matches!(get.read(), Some(Some(value)) if !puts.contains_key(&value));
    if let Some(get) = operations.iter().find(is_from_nowhere) {
        return Err(Violation::FromNowhere { point, get: *get });
    }
    match Register::new(&operations).search() {
        Verdict::Linearizable { states } => Ok(states),
        Verdict::TooHard => Err(Violation::TooHard { point, operations: operations.len() }),
        Verdict::Not => Err(Violation::NotLinearizable { point, operations: shrink(operations) }),
    }
}

/// Leaves out what a history is wrong without. What is left out leaves right histories right.
fn shrink(mut operations: Vec<Operation>) -> Vec<Operation> {
    let candidates = operations.clone();
    let (gets, writes): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|operation| operation.read().is_some());
    for left_out in gets.iter().chain(&writes) {
        let goes = |operation: &Operation| match left_out.written() {
            None => operation == left_out,
            Some(Some(value)) => operation == left_out || operation.read() == Some(Some(value)),
            // Any get from then on that saw no value may have seen this delete.
            Some(None) => {
                let is_later = operation.done_at() >= Some(left_out.began);
                operation == left_out || operation.read() == Some(None) && is_later
            }
        };
        let rest: Vec<_> = operations.iter().filter(|operation| !goes(operation)).copied().collect();
        if matches!(Register::new(&rest).search(), Verdict::Not) {
            operations = rest;
        }
    }
    operations
}

enum Verdict {
    Linearizable { states: usize },
    Not,
    TooHard,
}

/// What a register holds.
type Value = Option<u64>;

#[derive(Clone, Copy)]
enum Step {
    Write(Value),
    Read(Value),
}

/// The history of one point, made ready for the search.
struct Register {
    /// What must have its moment, in the order in which it began: from when, until when, and what it does.
    steps: Vec<(u64, u64, Step)>,
    /// Which steps read a value.
    readers: BTreeMap<Value, Vec<usize>>,
    /// Puts of unknown outcome: when each value was begun to be put.
    late_puts: BTreeMap<u64, u64>,
    /// When deletes of unknown outcome began, in that order.
    late_deletes: Vec<u64>,
}

/// How far an order has come.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    /// All steps before this one have had their moment.
    low: usize,
    /// One bit for each step that has.
    taken: Vec<u64>,
    /// What the register holds; none if it is something that nobody has yet to see.
    value: Option<Value>,
    /// How many deletes of unknown outcome have had theirs.
    late_deletes: usize,
}

impl State {
    fn has(&self, step: usize) -> bool {
        self.taken[step / 64] & 1 << (step % 64) != 0
    }

    fn take(&mut self, step: usize) {
        self.taken[step / 64] |= 1 << (step % 64);
    }
}

impl Register {
    /// From the operations of one point, in the order in which they began.
    fn new(operations: &[Operation]) -> Self {
        let mut register =
            Self { steps: Vec::new(), readers: BTreeMap::new(), late_puts: BTreeMap::new(), late_deletes: Vec::new() };
        for operation in operations {
            let began = operation.began;
            match (operation.written(), operation.done_at()) {
                (Some(value), Some(ended)) => register.steps.push((began, ended, Step::Write(value))),
                (Some(Some(value)), None) => drop(register.late_puts.insert(value, began)),
                (Some(None), None) => register.late_deletes.push(began),
                (None, _) => {
                    if let (Some(seen), Some(ended)) = (operation.read(), operation.done_at()) {
                        register.readers.entry(seen).or_default().push(register.steps.len());
                        register.steps.push((began, ended, Step::Read(seen)));
                    }
                }
            }
        }
        register
    }

    fn search(&self) -> Verdict {
        let taken = vec![0; self.steps.len().div_ceil(64)];
        let mut open = vec![State { low: 0, taken, value: Some(None), late_deletes: 0 }];
        let mut seen = BTreeSet::new();
        while let Some(mut state) = open.pop() {
            self.advance(&mut state);
            if state.low == self.steps.len() {
                return Verdict::Linearizable { states: seen.len() + 1 };
            }
            if seen.len() == STATES_MAX {
                return Verdict::TooHard;
            }
            if seen.insert(state.clone()) {
                self.branch(&state, &mut open);
            }
        }
        Verdict::Not
    }

    /// Takes the steps that can be next without any choice.
    fn advance(&self, state: &mut State) {
        loop {
            if state.value.is_some_and(|value| !self.is_awaited(state, value)) {
                state.value = None;
            }
            let horizon = self.horizon(state);
            let next = self.candidates(state, horizon).find(|(_, step)| match *step {
                Step::Read(seen) => state.value == Some(seen),
                Step::Write(value) => state.value.is_none() && !self.is_awaited(state, value),
            });
            let Some((index, _)) = next else { return };
            state.take(index);
            while state.low < self.steps.len() && state.has(state.low) {
                state.low += 1;
            }
        }
    }

    /// All that can be next where there is a choice.
    fn branch(&self, state: &State, open: &mut Vec<State>) {
        if let Some(Some(_)) = state.value {
            return;
        }
        let horizon = self.horizon(state);
        let mut surfaced = BTreeSet::new();
        for (index, step) in self.candidates(state, horizon) {
            let mut next = state.clone();
            match step {
                Step::Write(value) => next.value = Some(value),
                Step::Read(seen) => {
                    let is_late = match seen {
                        Some(value) => {
                            let is_first = self.readers[&seen].iter().all(|reader| !state.has(*reader));
                            is_first && self.late_puts.get(&value).is_some_and(|began| *began <= horizon)
                        }
                        None => {
                            next.late_deletes += 1;
                            self.late_deletes.get(state.late_deletes).is_some_and(|began| *began <= horizon)
                        }
                    };
                    if !is_late || !surfaced.insert(seen) {
                        continue;
                    }
                    next.value = Some(seen);
                }
            }
            next.take(index);
            while next.low < self.steps.len() && next.has(next.low) {
                next.low += 1;
            }
            open.push(next);
        }
    }

    /// Whether some get has yet to see this value.
    fn is_awaited(&self, state: &State, value: Value) -> bool {
        self.readers.get(&value).is_some_and(|readers| readers.iter().any(|reader| !state.has(*reader)))
    }

    /// The first end of a step that has not had its moment: what begins later is not next.
    fn horizon(&self, state: &State) -> u64 {
        let mut horizon = u64::MAX;
        for (offset, (began, ended, _)) in self.steps[state.low..].iter().enumerate() {
            if *began > horizon {
                break;
            }
            if !state.has(state.low + offset) {
                horizon = horizon.min(*ended);
            }
        }
        horizon
    }

    /// The steps that may be next, as no other ended before they began.
    fn candidates<'a>(&'a self, state: &'a State, horizon: u64) -> impl Iterator<Item = (usize, Step)> + 'a {
        let from_low = self.steps.iter().enumerate().skip(state.low);
        let begun = from_low.take_while(move |(_, (began, _, _))| *began <= horizon);
        begun.filter(|(index, _)| !state.has(*index)).map(|(index, (_, _, step))| (index, *step))
    }
}

#[cfg(test)]
mod tests;
