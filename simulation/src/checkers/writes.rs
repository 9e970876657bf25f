//! The writes of each point, and which of them certainly lie behind others.

use std::collections::BTreeMap;

use super::history::{Kind, Operation};

/// A put or a delete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) operation: Operation,
    /// When it surely had taken effect: it was acknowledged, or a get that saw it was answered. Never, if neither
    /// happened.
    pub(super) settled_at: Option<u64>,
}

impl Write {
    /// Whether this write certainly took effect before the other, which began when this one had.
    pub(super) fn precedes(&self, other: &Self) -> bool {
        self.settled_at.is_some_and(|settled| settled < other.operation.began)
    }

    /// Whether it surely had taken effect before this time.
    pub(super) fn is_settled_before(&self, time: u64) -> bool {
        self.settled_at.is_some_and(|settled| settled < time)
    }
}

/// All writes of a history that may have had an effect.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes {
    points: BTreeMap<u64, Vec<Write>>,
}

impl Writes {
    pub(super) fn new(operations: &[Operation]) -> Self {
        let mut seen_at: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for get in operations {
            if let (Some(Some(value)), Some(ended)) = (get.read(), get.done_at()) {
                let first = seen_at.entry((get.point, value)).or_insert(ended);
                *first = ended.min(*first);
            }
        }
        let mut writes = Self::default();
        for operation in operations.iter().filter(|operation| operation.may_write()) {
            let seen = match operation.kind {
                Kind::Put(value) => seen_at.get(&(operation.point, value)).copied(),
                Kind::Delete | Kind::Get(_) => None,
            };
            let settled_at = operation.done_at().into_iter().chain(seen).min();
            writes.points.entry(operation.point).or_default().push(Write { operation: *operation, settled_at });
        }
        writes
    }

    /// The points that have writes.
    pub(super) fn points(&self) -> impl Iterator<Item = (u64, &[Write])> {
        self.points.iter().map(|(point, writes)| (*point, &writes[..]))
    }

    /// The writes of a point, in the order of the history.
    pub(super) fn of(&self, point: u64) -> &[Write] {
        self.points.get(&point).map_or(&[], |writes| writes)
    }

    /// The put of this value to this point.
    pub(super) fn put_of(&self, point: u64, value: u64) -> Option<&Write> {
        self.of(point).iter().find(|write| write.operation.kind == Kind::Put(value))
    }

    /// A write that certainly took effect after this one and before this time, if there is one.
    pub(super) fn overwriting(&self, write: &Write, before: u64) -> Option<&Write> {
        let mut others = self.of(write.operation.point).iter();
        others.find(|other| other.is_settled_before(before) && write.precedes(other))
    }
}
