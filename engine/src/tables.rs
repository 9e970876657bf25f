//! What a node knows of a collection's points, apart from their vectors: id map, slots, versions, payloads.
//!
//! Pure and in memory. [`Tables::apply`] is the one function that changes a point, for puts, deletes, repair and replay
//! alike, and it only ever moves a point's version forward.

use std::sync::Arc;

use vecino_index::Slot;
use vecino_model::{PointId, Version};

use crate::entries::{Entries, Lookup};
use crate::key::{Entry, Key, Live};

/// What an applied record changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The slot of the version that was overwritten or deleted.
    pub buried: Option<Slot>,
}

/// Id map and slot table of one collection on one node.
#[derive(Debug, Default)]
pub struct Tables {
    entries: Entries,
    slots: Vec<Option<Arc<Live>>>,
    live: usize,
    newest: Option<Version>,
    /// Bytes that ids and payloads take beside entries and slots.
    heap: usize,
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
        let found = self.entries.look_up(&key);
        if matches!(&found, Lookup::Known(known) if known.version >= version) {
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
            self.heap += heap_of_live(live);
        }
        let entry = Entry { version, live };
        let before = match found {
            Lookup::Known(known) => std::mem::replace(known, entry).live,
            Lookup::Vacant(vacancy) => {
                self.heap += heap_of_id(&key.id);
                vacancy.insert(key, entry);
                None
            }
        };
        self.heap -= before.as_deref().map_or(0, heap_of_live);
        let buried = before.map(|live| live.slot);
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
        let ids: usize = entries.iter().map(|(key, _)| heap_of_id(&key.id)).sum();
        let heap = ids + lives().map(|live| heap_of_live(live)).sum::<usize>();
        Self { entries: entries.into_iter().collect(), slots, live, newest, heap }
    }

    /// Number of live points.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Number of tombstones.
    pub fn tombstones(&self) -> usize {
        self.entries.len() - self.live
    }

    /// Bytes of memory that all this takes, as an allocator hands it out.
    pub fn memory_bytes(&self) -> usize {
        self.entries.len() * ENTRY_BYTES + self.slots.capacity() * size_of::<Option<Arc<Live>>>() + self.heap
    }

    /// Bytes of memory that an entry takes, with its slot.
    pub fn bytes_of(key: &Key, entry: &Entry) -> usize {
        let live = |live: &Arc<Live>| heap_of_live(live) + size_of::<Option<Arc<Live>>>();
        ENTRY_BYTES + heap_of_id(&key.id) + entry.live.as_ref().map_or(0, live)
    }

    /// Bytes of memory that a new live point takes.
    pub fn point_bytes(id: &PointId, payload: usize) -> usize {
        let slot = 2 * size_of::<Option<Arc<Live>>>();
        ENTRY_BYTES + slot + 2 * heap_of_id(id) + LIVE_BYTES + allocated(payload)
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
    pub fn after<'a>(&'a self, after: Option<&'a Key>, limit: usize) -> impl Iterator<Item = (Key, &'a Entry)> {
        self.entries.after(after).take(limit)
    }
}

/// What an entry takes in the map, whose nodes are two thirds full when keys come in no order, and the nodes above.
const ENTRY_BYTES: usize = (size_of::<u64>() + size_of::<(PointId, Entry)>()) * 5 / 3;
/// What a live version takes, with its counts.
const LIVE_BYTES: usize = allocated(size_of::<Live>() + 2 * size_of::<usize>());

/// What an allocator takes for a block of this size: its own word before it, and all in steps of two words.
const fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=24 => 32,
        _ => (bytes + 8).next_multiple_of(16),
    }
}

fn heap_of_id(id: &PointId) -> usize {
    match id {
        PointId::Number(_) => 0,
        PointId::Text(text) => allocated(text.len()),
    }
}

fn heap_of_live(live: &Live) -> usize {
    LIVE_BYTES + heap_of_id(&live.key.id) + allocated(live.payload.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use vecino_model::NodeId;

    use super::*;

    fn key(number: u64) -> Key {
        Key { position: number.wrapping_mul(0x9e37_79b9_7f4a_7c15), id: number.into() }
    }

    fn version(time: u64) -> Version {
        Version { time, node: NodeId::from_bytes([0; 16]), seq: 0 }
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
            // What is accounted is what is there, whatever was there before.
            let slots = tables.slots.capacity() * 8;
            let expected = oracle.len() * ENTRY_BYTES + live * (LIVE_BYTES + allocated(8)) + slots;
            prop_assert_eq!(tables.memory_bytes(), expected);
            prop_assert_eq!((tables.live(), tables.tombstones()), (live, oracle.len() - live));
            prop_assert_eq!((0..tables.slots()).filter(|slot| tables.in_slot(*slot as Slot).is_some()).count(), live);
            // Pages of any size give every entry once, in order.
            let (mut seen, mut at) = (Vec::new(), None);
            while let Some(last) = {
                seen.extend(tables.after(at.as_ref(), 3).map(|(key, _)| key));
                seen.last().cloned().filter(|last| Some(last) != at.as_ref())
            } {
                at = Some(last);
            }
            let mut keys: Vec<_> = oracle.keys().map(|id| key(*id)).collect();
            keys.sort();
            prop_assert_eq!(seen, keys);
        }
    }
}
