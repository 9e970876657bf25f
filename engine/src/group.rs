//! Batches that are logged and flushed together, and what becomes of each of their records.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use vecino_model::{Outcome, Record, Version};

use crate::fields::Extent;
use crate::key::Key;
use crate::memory::Reservation;

/// Which record of a group: the number of its batch, and its number in the batch.
pub(crate) type InBatch = (usize, usize);

/// Batches that are logged and flushed together.
#[derive(Default)]
pub(crate) struct Group {
    /// Records that are newer than what is there, to be logged.
    pub accepted: Vec<Accepted>,
    /// The records of each batch as they are logged, one behind another.
    encoded: Vec<Vec<u8>>,
    /// The norms of the vectors that were checked.
    pub norms: Vec<f64>,
    /// Bytes of those that were accepted.
    pub bytes: usize,
    /// How many of them are puts.
    pub puts: usize,
    /// Memory that they will take.
    pub room: Option<Reservation>,
    /// How far the index of each field will reach.
    pub extent: Extent,
    /// What becomes of the records of each batch.
    outcomes: Vec<Vec<Outcome>>,
    /// Newest version of each point in `accepted`.
    pending: HashMap<Key, Version>,
    /// Records that need no logging because an accepted one is newer, and that one's version: its fate is theirs.
    overtaken: Vec<(InBatch, Key, Version)>,
}

/// A record that is to be logged.
pub(crate) struct Accepted {
    pub in_batch: InBatch,
    pub key: Key,
    pub record: Record,
    /// Where the norms of its vectors lie among those of the group, in the order of its vectors.
    pub norms: Range<usize>,
    /// Where it lies among what is encoded of its batch.
    pub encoded: Range<usize>,
}

impl Group {
    /// Begins a batch whose records take about this number of bytes in the log; gives its number.
    pub fn begin_batch(&mut self, bytes: usize) -> usize {
        self.encoded.push(Vec::with_capacity(bytes));
        self.outcomes.len()
    }

    /// Where the records of the batch that was begun last are encoded.
    pub fn encoded(&mut self) -> &mut Vec<u8> {
        self.encoded.last_mut().expect("a batch was begun")
    }

    /// Adds a batch with what is to be answered if everything that was accepted is logged.
    pub fn add_batch(&mut self, outcomes: Vec<Outcome>) {
        self.outcomes.push(outcomes);
    }

    /// The newest version of a point that is to be logged.
    pub fn pending(&self, key: &Key) -> Option<Version> {
        self.pending.get(key).copied()
    }

    /// A record that is newer than what is there and in the group.
    pub fn accept(&mut self, accepted: Accepted) -> Outcome {
        let version = accepted.record.version;
        self.bytes += accepted.encoded.len();
        self.puts += usize::from(accepted.record.value.is_some());
        self.pending.insert(accepted.key.clone(), version);
        self.accepted.push(accepted);
        Outcome::Written(version)
    }

    /// A record than which another of the group is newer.
    pub fn overtake(&mut self, in_batch: InBatch, key: Key, newer: Version) -> Outcome {
        self.overtaken.push((in_batch, key, newer));
        Outcome::Written(newer)
    }

    /// What was accepted, as it is logged.
    pub fn logged(&self) -> Vec<&[u8]> {
        self.accepted.iter().map(|accepted| &self.encoded[accepted.in_batch.0][accepted.encoded.clone()]).collect()
    }

    /// Takes records out again that cannot be logged, with what their senders are told.
    pub fn give_up(&mut self, which: impl Fn(&Record) -> bool, outcome: &Outcome) {
        let (gone, kept) = std::mem::take(&mut self.accepted).into_iter().partition(|accepted| which(&accepted.record));
        self.accepted = kept;
        let gone: Vec<Accepted> = gone;
        let mut lost = HashSet::with_capacity(gone.len());
        for Accepted { in_batch, key, record, norms: _, encoded } in gone {
            self.bytes -= encoded.len();
            self.puts -= usize::from(record.value.is_some());
            self.set(in_batch, outcome);
            lost.insert((key, record.version));
        }
        for (in_batch, key, newer) in std::mem::take(&mut self.overtaken) {
            let newer = (key, newer);
            if lost.contains(&newer) {
                self.set(in_batch, outcome);
            } else {
                self.overtaken.push((in_batch, newer.0, newer.1));
            }
        }
    }

    /// Takes all puts out again.
    pub fn give_up_puts(&mut self, outcome: &Outcome) {
        self.give_up(|record| record.value.is_some(), outcome);
    }

    /// What became of the records of each batch, in the order in which the batches were begun.
    pub fn into_outcomes(self) -> Vec<Vec<Outcome>> {
        self.outcomes
    }

    fn set(&mut self, (batch, number): InBatch, outcome: &Outcome) {
        self.outcomes[batch][number] = outcome.clone();
    }
}

#[cfg(test)]
mod tests {
    use vecino_model::{Fields, NodeId, RawPayload, RecordValue};

    use super::*;

    fn version(time: u64) -> Version {
        Version { time, node: NodeId::from_bytes([1; 16]), seq: 0 }
    }

    fn accepted(in_batch: InBatch, id: u64, time: u64, is_put: bool) -> Accepted {
        let value = is_put.then(|| RecordValue { vectors: Fields::new(), payload: RawPayload::default() });
        let record = Record { id: id.into(), version: version(time), value };
        Accepted { in_batch, key: Key { position: id, id: id.into() }, record, norms: 0..0, encoded: 0..10 }
    }

    #[test]
    fn what_was_overtaken_shares_the_fate_of_what_overtook_it() {
        let mut group = Group::default();
        let key = |id: u64| Key { position: id, id: id.into() };
        let outcomes = vec![
            group.accept(accepted((0, 0), 1, 5, true)),
            group.overtake((0, 1), key(1), version(5)),
            group.accept(accepted((0, 2), 2, 5, false)),
            group.overtake((0, 3), key(2), version(5)),
        ];
        group.add_batch(outcomes);
        assert_eq!(group.begin_batch(0), 1);
        // A newer delete of the point whose put is given up stands by itself.
        let outcomes = vec![group.accept(accepted((1, 0), 1, 6, false)), group.overtake((1, 1), key(1), version(6))];
        group.add_batch(outcomes);
        assert_eq!((group.pending(&key(1)), group.bytes, group.puts), (Some(version(6)), 30, 1));
        let full = Outcome::Unavailable("full".into());
        group.give_up_puts(&full);
        assert_eq!((group.accepted.len(), group.bytes, group.puts), (2, 20, 0));
        let written = |time| Outcome::Written(version(time));
        let (first, second) = (vec![full.clone(), full, written(5), written(5)], vec![written(6), written(6)]);
        assert_eq!(group.into_outcomes(), [first, second]);
    }
}
