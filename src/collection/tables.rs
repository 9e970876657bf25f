//! What a node knows of a collection's points, apart from their vectors: id map, slots, versions, payloads.
//!
//! Pure and in memory. [`Tables::apply`] is the one function that changes a point, for puts, deletes, repair and replay
//! alike, and it only ever moves a point's version forward.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use vecino_index::Slot;
use vecino_net::message::ScanCursor;
use vecino_net::model::{PointId, Version};

/// Where a point lies: ring order, so that ranges are contiguous and scans need no sorting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Position on the ring.
    pub position: u64,
    /// Its id.
    pub id: PointId,
}

/// A live version of a point.
#[derive(Debug, PartialEq)]
pub struct Live {
    /// Where it lies.
    pub key: Key,
    /// Its version.
    pub version: Version,
    /// Its slot in every vector field's index.
    pub slot: Slot,
    /// Its payload as MessagePack.
    pub payload: Box<[u8]>,
}

/// What is known of one id.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The newest version.
    pub version: Version,
    /// What it is; absent for a tombstone.
    pub live: Option<Arc<Live>>,
}

/// What an applied record changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The slot of the version that was overwritten or deleted.
    pub buried: Option<Slot>,
}

/// Id map and slot table of one collection on one node.
#[derive(Debug, Default)]
pub struct Tables {
    entries: BTreeMap<Key, Entry>,
    slots: Vec<Option<Arc<Live>>>,
    live: usize,
    newest: Option<Version>,
}

impl Tables {
    /// The newest version of all.
    pub fn newest(&self) -> Option<Version> {
        self.newest
    }

    /// The newest version of a point, tombstones included.
    pub fn version(&self, key: &Key) -> Option<Version> {
        self.entries.get(key).map(|entry| entry.version)
    }

    /// What is known of a point.
    pub fn entry(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The live version in a slot.
    pub fn in_slot(&self, slot: Slot) -> Option<&Arc<Live>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Makes a version the newest one if it is. `slot` is where its vectors are; `None` makes a tombstone.
    ///
    /// Gives `None`, and changes nothing, where the point has this version or a newer one.
    pub fn apply(&mut self, key: Key, version: Version, value: Option<(Slot, Box<[u8]>)>) -> Option<Applied> {
        if self.version(&key).is_some_and(|known| known >= version) {
            return None;
        }
        self.newest = self.newest.max(Some(version));
        let live = value.map(|(slot, payload)| Arc::new(Live { key: key.clone(), version, slot, payload }));
        if let Some(live) = &live {
            let slot = live.slot as usize;
            if self.slots.len() <= slot {
                self.slots.resize(slot + 1, None);
            }
            self.slots[slot] = Some(Arc::clone(live));
            self.live += 1;
        }
        let before = self.entries.insert(key, Entry { version, live });
        let buried = before.and_then(|entry| entry.live).map(|live| live.slot);
        if let Some(slot) = buried {
            self.slots[slot as usize] = None;
            self.live -= 1;
        }
        Some(Applied { buried })
    }

    /// Tables of many versions at once, in any order: the same as if each had been [applied](Self::apply).
    pub fn of(mut entries: Vec<(Key, Entry)>) -> Self {
        entries.sort_by(|(a, older), (b, newer)| a.cmp(b).then(newer.version.cmp(&older.version)));
        entries.dedup_by(|(later, _), (first, _)| later == first);
        let newest = entries.iter().map(|(_, entry)| entry.version).max();
        let lives = || entries.iter().filter_map(|(_, entry)| entry.live.as_ref());
        let mut slots = vec![None; lives().map(|live| live.slot as usize + 1).max().unwrap_or(0)];
        let live = lives().map(|live| slots[live.slot as usize] = Some(Arc::clone(live))).count();
        Self { entries: entries.into_iter().collect(), slots, live, newest }
    }

    /// Number of live points.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Number of tombstones.
    pub fn tombstones(&self) -> usize {
        self.entries.len() - self.live
    }

    /// Number of slots ever used: the next one that is free.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Leaves every slot below `slots` unused that is not used yet.
    pub fn skip_slots_below(&mut self, slots: usize) {
        if self.slots.len() < slots {
            self.slots.resize(slots, None);
        }
    }

    /// Up to `limit` entries after a key, in ring order.
    pub fn after(&self, after: Option<&Key>, limit: usize) -> impl Iterator<Item = (&Key, &Entry)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range::<Key, _>((start, Bound::Unbounded)).take(limit)
    }
}

impl From<&ScanCursor> for Key {
    fn from(cursor: &ScanCursor) -> Self {
        let ScanCursor { position, id } = cursor;
        Self { position: *position, id: id.clone() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vecino_certs::NodeId;

    use super::*;

    fn key(number: u64) -> Key {
        Key { position: number.wrapping_mul(0x9e37_79b9_7f4a_7c15), id: number.into() }
    }

    fn version(time: u64) -> Version {
        Version { time, node: NodeId::from_bytes([0; 16]) }
    }

    proptest! {
        /// Against a plain map of the greatest version of each id, in whatever order the versions come.
        #[test]
        fn the_newest_version_stands_in_any_order(
            writes in prop::collection::vec((0..8u64, 1..50u64, any::<bool>()), 1..100)
        ) {
            let (mut tables, mut oracle, mut all) = (Tables::default(), BTreeMap::new(), Vec::new());
            for (slot, (id, time, live)) in writes.into_iter().enumerate() {
                // What a version is never changes: a write of an even time is a put, of an odd one a delete.
                let live = live || time % 2 == 0;
                let time = time * 2 + u64::from(live);
                let value = live.then(|| (slot as Slot, Box::from(time.to_le_bytes())));
                let live = value.clone().map(|(slot, payload)| {
                    Arc::new(Live { key: key(id), version: version(time), slot, payload })
                });
                all.push((key(id), Entry { version: version(time), live }));
                let applied = tables.apply(key(id), version(time), value);
                let newest = oracle.entry(id).or_insert(0);
                prop_assert_eq!(applied.is_some(), time > *newest);
                *newest = time.max(*newest);
            }
            for (id, time) in &oracle {
                let entry = tables.entry(&key(*id)).unwrap();
                prop_assert_eq!(entry.version, version(*time));
                prop_assert_eq!(entry.live.is_some(), time % 2 == 1);
                if let Some(live) = &entry.live {
                    prop_assert_eq!(&live.payload[..], &time.to_le_bytes()[..]);
                    prop_assert_eq!(tables.in_slot(live.slot), Some(live));
                }
            }
            let mut at_once = Tables::of(all);
            at_once.skip_slots_below(tables.slots());
            prop_assert_eq!((&at_once.entries, &at_once.slots), (&tables.entries, &tables.slots));
            prop_assert_eq!((at_once.live, at_once.newest), (tables.live, tables.newest));
            let live = oracle.values().filter(|time| **time % 2 == 1).count();
            prop_assert_eq!((tables.live(), tables.tombstones()), (live, oracle.len() - live));
            prop_assert_eq!((0..tables.slots()).filter(|slot| tables.in_slot(*slot as Slot).is_some()).count(), live);
            // Pages of any size give every entry once, in order.
            let (mut seen, mut at) = (Vec::new(), None);
            while let Some(last) = {
                seen.extend(tables.after(at.as_ref(), 3).map(|(key, _)| key.clone()));
                seen.last().cloned().filter(|last| Some(last) != at.as_ref())
            } {
                at = Some(last);
            }
            prop_assert_eq!(seen, tables.entries.keys().cloned().collect::<Vec<_>>());
        }
    }
}
