//! The index: slots, their vectors, and the searches over them.

use std::io;
use std::sync::{PoisonError, RwLock};

use crate::arenas::{ArenaSink, ArenaSource};
use crate::error::{IndexError, LoadError, VectorError};
use crate::params::{Hit, Metric, Params, SLOT_MAX, SearchOptions, Slot};

/// Vectors by slot, searched flat.
pub struct Index {
    params: Params,
    entries: RwLock<Vec<Option<Entry>>>,
}

struct Entry {
    vector: Vec<f32>,
    norm: f64,
    claimed: bool,
    linked: bool,
    live: bool,
}

impl Index {
    /// An empty index.
    pub fn new(params: Params) -> Result<Self, IndexError> {
        params.check()?;
        Ok(Self { params, entries: RwLock::default() })
    }

    /// Checks a vector that is to be stored or searched for.
    pub fn validate(&self, vector: &[f32]) -> Result<(), VectorError> {
        self.params.check_vector(vector).map(|_| ())
    }

    /// Stores a vector; from now on searches find it. Slots ascend; some may be skipped.
    pub fn store(&self, slot: Slot, vector: &[f32]) -> Result<(), IndexError> {
        let norm = self.params.check_vector(vector)?;
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if (slot as usize) < entries.len() || slot > SLOT_MAX {
            return Err(IndexError::SlotOrder { slot, next: entries.len() as Slot });
        }
        entries.resize_with(slot as usize, || None);
        entries.push(Some(Entry { vector: vector.to_vec(), norm, claimed: false, linked: false, live: true }));
        Ok(())
    }

    /// Inserts a stored slot into the graph.
    pub fn link(&self, slot: Slot) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(entry)) = entries.get_mut(slot as usize) {
            entry.linked = true;
        }
    }

    /// Hands each stored, live, unlinked slot to one caller.
    pub fn next_unlinked(&self) -> Option<Slot> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let (slot, entry) = entries
            .iter_mut()
            .enumerate()
            .filter_map(|(slot, entry)| Some((slot, entry.as_mut()?)))
            .find(|(_, entry)| entry.live && !entry.linked && !entry.claimed)?;
        entry.claimed = true;
        Some(slot as Slot)
    }

    /// Number of stored, live slots that are not in the graph yet.
    pub fn unlinked(&self) -> usize {
        self.count(|entry| entry.live && !entry.linked)
    }

    /// Takes a slot out of all results from now on.
    pub fn bury(&self, slot: Slot) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(entry)) = entries.get_mut(slot as usize) {
            entry.live = false;
        }
    }

    /// Whether a slot is stored and not buried.
    pub fn is_live(&self, slot: Slot) -> bool {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        matches!(entries.get(slot as usize), Some(Some(entry)) if entry.live)
    }

    /// Number of live slots.
    pub fn len_live(&self) -> usize {
        self.count(|entry| entry.live)
    }

    /// One more than the highest slot stored.
    pub fn slots(&self) -> usize {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The vector of a slot, live or buried, bit by bit as it was stored.
    pub fn vector(&self, slot: Slot) -> Option<Vec<f32>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(slot as usize)?.as_ref().map(|entry| entry.vector.clone())
    }

    /// The best hits, best first, ties by slot.
    pub fn search(&self, query: &[f32], options: &SearchOptions<'_>) -> Result<Vec<Hit>, IndexError> {
        self.search_exact(query, options)
    }

    /// The best hits by looking at every slot: the oracle.
    pub fn search_exact(&self, query: &[f32], options: &SearchOptions<'_>) -> Result<Vec<Hit>, IndexError> {
        options.check()?;
        let norm = self.params.check_vector(query)?;
        let metric = self.params.metric;
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut hits: Vec<Hit> = (0..)
            .zip(entries.iter())
            .filter_map(|(slot, entry)| Some((slot, entry.as_ref().filter(|entry| entry.live)?)))
            .filter(|(slot, _)| options.filter.is_none_or(|filter| filter(*slot)))
            .map(|(slot, entry)| Hit { slot, score: score(metric, query, norm, &entry.vector, entry.norm) })
            .filter(|hit| match options.threshold {
                None => true,
                Some(least) if metric.higher_is_better() => hit.score >= least,
                Some(most) => hit.score <= most,
            })
            .collect();
        let sign = if metric.higher_is_better() { -1.0 } else { 1.0 };
        hits.sort_by(|a, b| (sign * a.score).total_cmp(&(sign * b.score)).then(a.slot.cmp(&b.slot)));
        hits.truncate(options.k);
        Ok(hits)
    }

    /// Bytes of memory that the index holds.
    pub fn memory_bytes(&self) -> usize {
        self.slots() * (self.params.dim * size_of::<f32>() + size_of::<Option<Entry>>())
    }

    /// Writes the index out while inserts and searches go on.
    pub fn dump(&self, sink: &mut dyn ArenaSink) -> io::Result<()> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        sink.begin("slots")?;
        for entry in entries.iter() {
            sink.write(&[entry.as_ref().map_or(0, |entry| 1 + u8::from(entry.live))])?;
        }
        sink.begin("vectors")?;
        for entry in entries.iter() {
            let zeros = vec![0.0; self.params.dim];
            for value in entry.as_ref().map_or(&zeros, |entry| &entry.vector) {
                sink.write(&value.to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// Makes an index of what [`Index::dump`] wrote, without linking anything anew.
    pub fn load(params: Params, source: &mut dyn ArenaSource) -> Result<Self, LoadError> {
        let index = Self::new(params)?;
        let mut states = Vec::new();
        read_arena(source, "slots", &mut states)?;
        let mut bytes = Vec::new();
        read_arena(source, "vectors", &mut bytes)?;
        let stride = 4 * index.params.dim;
        if bytes.len() != stride * states.len() {
            let expected = (stride * states.len()) as u64;
            return Err(LoadError::Truncated { arena: "vectors", got: bytes.len() as u64, expected });
        }
        for (slot, (state, bytes)) in (0..).zip(states.iter().zip(bytes.chunks(stride))).filter(|(_, (s, _))| **s > 0) {
            let vector: Vec<f32> =
                bytes.as_chunks().0.iter().map(|bytes: &[u8; 4]| f32::from_le_bytes(*bytes)).collect();
            index.params.check_vector(&vector).map_err(|source| LoadError::Vector { slot, source })?;
            index.store(slot, &vector)?;
            index.link(slot);
            if *state == 1 {
                index.bury(slot);
            }
        }
        Ok(index)
    }

    fn count(&self, which: impl Fn(&Entry) -> bool) -> usize {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.iter().flatten().filter(|entry| which(entry)).count()
    }
}

fn read_arena(source: &mut dyn ArenaSource, arena: &'static str, into: &mut Vec<u8>) -> Result<(), LoadError> {
    let io = |source| LoadError::Io { arena, source };
    source.open(arena).map_err(io)?.ok_or(LoadError::Missing { arena })?.read_to_end(into).map_err(io)?;
    Ok(())
}

fn score(metric: Metric, a: &[f32], a_norm: f64, b: &[f32], b_norm: f64) -> f32 {
    let sum = |term: fn(f64, f64) -> f64| -> f64 { a.iter().zip(b).map(|(&a, &b)| term(a.into(), b.into())).sum() };
    let score = match metric {
        Metric::Cosine => (sum(|a, b| a * b) / (a_norm * b_norm)).clamp(-1.0, 1.0),
        Metric::Dot => sum(|a, b| a * b),
        Metric::Euclidean => sum(|a, b| (a - b) * (a - b)).sqrt(),
        Metric::Manhattan => sum(|a, b| (a - b).abs()),
    };
    score as f32
}
