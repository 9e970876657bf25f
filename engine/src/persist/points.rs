//! Reading the points of a snapshot, on all processors.
//!
//! Entries are told apart by their lengths, so where one begins is known only once those before it are there. Pages are
//! read and verified a window at a time, the window is cut into runs of whole entries, and the runs are decoded side by
//! side. What a window ends in the middle of is carried over to the next.

use std::ops::Range;
use std::sync::Arc;

use vecino_model::{CollectionId, position};
use vecino_storage::{ArenaPages, PAGE_BYTES, Snapshot, SnapshotError};

use crate::key::{Entry, Key, Live};
use crate::memory::OverLimit;
use crate::persist::errors::LoadError;
use crate::persist::layout::{LENGTH_BYTES, NODES, POINTS, TOMBSTONES};
use crate::progress::Progress;
use crate::record::{self, ENTRY_BYTES_MAX, SnapshotEntry};
use crate::tables::Tables;

/// Slots beyond those of the indexes that points may have.
const SLOTS_BEYOND: u64 = 1 << 20;
/// Pages that one thread reads of a window.
const WINDOW_PAGES: usize = 4;
/// Fewer entries than these are not worth a thread.
const SHARE_MIN: usize = 4096;

/// The bytes of the first entry of an arena.
pub(crate) fn first(snapshot: &Snapshot, arena: &'static str) -> Result<Vec<u8>, LoadError> {
    let pages = snapshot.pages(arena).ok_or(LoadError::MissingArena(arena))?;
    let mut bytes = Vec::new();
    if pages.count() > 0 {
        pages.read(0, &mut bytes)?;
    }
    let (entries, _) = split(arena, &bytes)?;
    let entry = entries.first().ok_or(LoadError::MissingArena(arena))?;
    Ok(bytes[entry.clone()].to_vec())
}

/// The tables of a snapshot. `fits` is asked, by the bytes that they take so far, whether there is memory for them.
pub(crate) fn load(
    snapshot: &Snapshot,
    id: CollectionId,
    progress: &Progress,
    fits: &dyn Fn(usize) -> Result<(), OverLimit>,
) -> Result<Tables, LoadError> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    let mut fits = |more: usize| {
        bytes += more;
        fits(bytes)
    };
    for arena in [POINTS, TOMBSTONES] {
        let pages = snapshot.pages(arena).ok_or(LoadError::MissingArena(arena))?;
        read(arena, &pages, id, progress, &mut fits, &mut entries)?;
    }
    check_slots(snapshot, &entries)?;
    // A point that was written while the snapshot ran may stand there twice; the newer one stays.
    Ok(Tables::of(entries))
}

/// A table takes memory for every slot, so no slot is believed that would have it be large for nothing: those of the
/// indexes are known by their lengths.
fn check_slots(snapshot: &Snapshot, entries: &[(Key, Entry)]) -> Result<(), LoadError> {
    let nodes = snapshot.arenas().filter(|arena| arena.ends_with(NODES)).filter_map(|arena| snapshot.pages(arena));
    let slots = nodes.map(|nodes| nodes.bytes() / vecino_index::NODE_BYTES as u64).max().unwrap_or(0);
    let last = entries.iter().filter_map(|(_, entry)| Some(entry.live.as_ref()?.slot)).max();
    match last.filter(|slot| u64::from(*slot) > slots + SLOTS_BEYOND) {
        None => Ok(()),
        Some(slot) => {
            let reason = format!("slot {slot} is far beyond the {slots} slots of the indexes");
            Err(LoadError::Decode { arena: POINTS, reason })
        }
    }
}

fn read(
    arena: &'static str,
    pages: &ArenaPages<'_>,
    id: CollectionId,
    progress: &Progress,
    fits: &mut dyn FnMut(usize) -> Result<(), OverLimit>,
    into: &mut Vec<(Key, Entry)>,
) -> Result<(), LoadError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut window = Vec::new();
    for first in (0..pages.count()).step_by(threads * WINDOW_PAGES) {
        let last = (first + threads * WINDOW_PAGES).min(pages.count());
        let read: Vec<Result<Vec<u8>, SnapshotError>> = side_by_side((first..last).step_by(WINDOW_PAGES), |first| {
            let (mut bytes, mut page) = (
                Vec::with_capacity(WINDOW_PAGES.min(last - first) * PAGE_BYTES.min(pages.bytes() as usize)),
                Vec::new(),
            );
            for number in first..(first + WINDOW_PAGES).min(last) {
                pages.read(number, &mut page)?;
                progress.add(page.len() as u64);
                bytes.extend_from_slice(&page);
            }
            Ok(bytes)
        });
        for bytes in read {
            window.extend_from_slice(&bytes?);
        }
        let (entries, whole) = split(arena, &window)?;
        let share = entries.len().div_ceil(threads).max(SHARE_MIN);
        let decoded = side_by_side(entries.chunks(share), |entries| {
            let decoded = entries.iter().map(|entry| decode_point(arena, &window[entry.clone()], id));
            let mut decoded: Vec<(Key, Entry)> = decoded.collect::<Result<_, _>>()?;
            // Sorted runs are put together sooner than a heap is sorted.
            decoded.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            Ok::<_, LoadError>(decoded)
        });
        for decoded in decoded {
            let mut decoded = decoded?;
            fits(decoded.iter().map(|(key, entry)| Tables::bytes_of(key, entry)).sum())?;
            into.append(&mut decoded);
        }
        window.drain(..whole);
    }
    if !window.is_empty() {
        let reason = format!("it ends {} bytes into an entry", window.len());
        return Err(LoadError::Decode { arena, reason });
    }
    Ok(())
}

/// Does each job on a thread of its own, or on this one where it is the only one; gives the results in the order of the jobs.
fn side_by_side<J: Send, R: Send>(jobs: impl ExactSizeIterator<Item = J>, work: impl Fn(J) -> R + Sync) -> Vec<R> {
    if jobs.len() <= 1 {
        return jobs.map(work).collect();
    }
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = jobs.map(|job| scope.spawn(move || work(job))).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Where the whole entries lie, without their lengths, and how many bytes they take together.
fn split(arena: &'static str, bytes: &[u8]) -> Result<(Vec<Range<usize>>, usize), LoadError> {
    let (mut entries, mut at) = (Vec::new(), 0);
    while let Some(length) = bytes[at..].first_chunk::<LENGTH_BYTES>() {
        let length = u32::from_le_bytes(*length) as usize;
        if length > ENTRY_BYTES_MAX {
            let reason = format!("an entry of {length} bytes is over the limit of {ENTRY_BYTES_MAX}");
            return Err(LoadError::Decode { arena, reason });
        }
        let entry = at + LENGTH_BYTES..at + LENGTH_BYTES + length;
        if entry.end > bytes.len() {
            break;
        }
        at = entry.end;
        entries.push(entry);
    }
    Ok((entries, at))
}

fn decode_point(arena: &'static str, bytes: &[u8], id: CollectionId) -> Result<(Key, Entry), LoadError> {
    let entry = record::decode_entry(bytes);
    let SnapshotEntry { id: point, version, slot, payload } =
        entry.map_err(|error| LoadError::Decode { arena, reason: error.to_string() })?;
    if slot.is_some_and(|slot| slot > vecino_index::SLOT_MAX) {
        return Err(LoadError::Decode { arena, reason: format!("slot {slot:?} is over the limit") });
    }
    let point = point.into_owned();
    let key = Key { position: position(id, &point), id: point };
    let live =
        |slot| Arc::new(Live { key: key.clone(), version, slot, payload: payload.into_owned().into_boxed_slice() });
    let live = slot.map(live);
    Ok((key, Entry { version, live }))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use vecino_model::{NodeId, Version};
    use vecino_storage::{MemDisk, SnapshotStore};

    use super::*;

    const ID: CollectionId = CollectionId([1; 16]);

    fn store_of(points: &[u8]) -> SnapshotStore {
        let store = SnapshotStore::open(Arc::new(MemDisk::new()), "snapshots").unwrap();
        let mut writer = store.begin(1).unwrap();
        writer.begin_arena(POINTS).unwrap();
        writer.write(points).unwrap();
        writer.begin_arena(TOMBSTONES).unwrap();
        writer.finish().unwrap();
        store
    }

    fn entry(slot: u32, payload: usize) -> Vec<u8> {
        let version = Version { time: u64::from(slot) + 1, node: NodeId::from_bytes([0; 16]), seq: 0 };
        let (id, payload) = (Cow::Owned(u64::from(slot).into()), Cow::Owned(vec![7; payload]));
        let bytes = record::encode_entry(&SnapshotEntry { id, version, slot: Some(slot), payload });
        [&(bytes.len() as u32).to_le_bytes(), bytes.as_slice()].concat()
    }

    fn loaded(points: &[u8]) -> Result<Tables, LoadError> {
        let store = store_of(points);
        let snapshot = store.latest().unwrap().unwrap();
        load(&snapshot, ID, &Progress::default(), &|_| Ok(()))
    }

    #[test]
    fn entries_that_lie_across_pages_and_windows_are_read() {
        let mut random = fastrand::Rng::with_seed(5);
        let sizes: Vec<usize> = (0..300).map(|_| random.usize(0..200_000)).collect();
        let points: Vec<u8> = (0..).zip(&sizes).flat_map(|(slot, size)| entry(slot, *size)).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        assert!(threads > 4 || points.len() > 2 * threads * WINDOW_PAGES * PAGE_BYTES, "several windows");
        let tables = loaded(&points).unwrap();
        assert_eq!((tables.live(), tables.slots()), (300, 300));
        for (slot, size) in (0..).zip(sizes) {
            let live = tables.in_slot(slot).unwrap();
            assert_eq!((&live.key.id, live.payload.len()), (&u64::from(slot).into(), size));
        }
    }

    #[test]
    fn an_arena_that_ends_inside_an_entry_or_promises_too_much_is_refused() {
        let points: Vec<u8> = (0..3).flat_map(|slot| entry(slot, 10)).collect();
        let said = |points: &[u8]| loaded(points).unwrap_err().to_string();
        assert!(said(&points[..points.len() - 1]).ends_with("bytes into an entry"));
        assert!(said(&[points.as_slice(), &[1]].concat()).ends_with("it ends 1 bytes into an entry"));
        assert!(said(&[0xff; 8]).contains("over the limit of 1048576"));
        assert!(said(&entry(vecino_index::SLOT_MAX + 1, 0)).contains("over the limit"));
        assert!(said(&entry(2_000_000, 0)).contains("far beyond the 0 slots"));
    }
}
