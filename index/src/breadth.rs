//! How far a walk goes.
//!
//! HNSW keeps the `ef` nearest nodes that it has seen and ends when all of them are expanded. That spends as much on
//! queries whose neighbours stand out as on those in the thick of it, so here a walk ends at a distance: what is
//! farther than its `k`-th result by a factor is not looked at (Al-Jazzazi et al. 2025, distance adaptive beam search). The
//! factor is what `ef` amounts to on average: how much farther the `ef`-th nearest is than the `k`-th, which is taken
//! from the index itself now and then. So `ef` candidates are looked at as before, but more where it is crowded and fewer where it
//! is not; never fewer than half of them, and never more than twice as many.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::hnsw::Hnsw;
use crate::index::Index;
use crate::kind::Ask;
use crate::params::{Metric, SearchOptions, Slot};

/// How far a walk goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Breadth {
    /// Results that it keeps at most.
    pub most: usize,
    /// Results that it has before it ends because of a distance.
    pub least: usize,
    /// Results that are wanted, no more than `least`.
    pub k: usize,
    /// How many times as far as the last of these it looks,
    pub stretch: f32,
    /// measured from this distance on.
    pub origin: f32,
}

impl Breadth {
    /// Until the nearest so many are found, as HNSW has it.
    pub fn fixed(ef: usize) -> Self {
        Self { most: ef, least: ef, k: ef, stretch: 1.0, origin: 0.0 }
    }
}

/// How distances grow with rank in an index: the `b`-th nearest is about `(b / a)` to the power of an exponent times as far
/// as the `a`-th. With as many dimensions as data really have, the exponent of squared distances is two divided by these.
pub(crate) struct Growth {
    /// Bits of the exponent, an f32; of a NaN while it is not known.
    exponent: AtomicU32,
    /// Nodes linked since it was found.
    linked: AtomicUsize,
}

impl Growth {
    /// Nothing is known.
    pub fn new() -> Self {
        Self { exponent: AtomicU32::new(f32::NAN.to_bits()), linked: AtomicUsize::new(0) }
    }

    /// How far a walk goes that looks for `k` with `ef`, where distances begin at `origin`, if they can be compared.
    pub fn breadth(&self, k: usize, ef: usize, origin: Option<f32>) -> Breadth {
        let exponent = f32::from_bits(self.exponent.load(Ordering::Relaxed));
        match origin {
            Some(origin) if ef > k && !exponent.is_nan() => {
                let stretch = (ef as f32 / k as f32).powf(exponent);
                Breadth { most: 2 * ef, least: k.max(ef / 2), k, stretch, origin }
            }
            _ => Breadth::fixed(ef),
        }
    }

    /// How far a walk goes that looks for neighbours of a new node among `ef` candidates. It keeps no more than these: the
    /// choice among them needs the near ones, and enough of the others.
    pub fn breadth_to_link(&self, ef: usize, origin: Option<f32>) -> Breadth {
        let breadth = self.breadth((ef / LINK_K_SHARE).max(1), ef, origin);
        if ef < LINK_EF_MIN || breadth.least == ef {
            return Breadth::fixed(ef);
        }
        Breadth { most: ef, least: ef / LINK_LEAST_SHARE, ..breadth }
    }

    /// A node was linked, and there are so many of them. Whether it is time to look again, which the caller does then.
    pub fn is_due(&self, nodes: usize) -> bool {
        let linked = self.linked.fetch_add(1, Ordering::Relaxed) + 1;
        linked >= (nodes / 2).max(SLOTS_MIN) && self.linked.swap(0, Ordering::Relaxed) >= linked
    }
}

impl Index {
    /// Finds out how distances grow, by looking for what is nearest to some of the slots.
    pub(crate) fn measure_growth(&self) {
        let slots = self.states.slots();
        if slots < SLOTS_MIN as u32 || self.params.metric == Metric::Dot {
            return;
        }
        let _reading = self.reading();
        let picked = (0..slots).step_by((slots as usize / SAMPLE).max(1)).filter(|slot| self.states.is_live(*slot));
        let answers: Vec<Option<Vec<f32>>> = picked.map(|slot| self.stretches(slot)).collect();
        let asked = answers.len();
        let sample: Vec<Vec<f32>> = answers.into_iter().flatten().collect();
        // Where many vectors are equal, a distance says little, and a walk needs its `ef` to get past heaps of them.
        let is_known = sample.len() >= SAMPLE_MIN && sample.len() * SAMPLE_SHARE >= asked * (SAMPLE_SHARE - 1);
        let exponent = if is_known { exponent_of(&sample) } else { f32::NAN };
        self.growth.exponent.store(exponent.to_bits(), Ordering::Relaxed);
    }

    /// How many times as far as the neighbour of rank [`K`] those of higher rank are; `None` if another vector is equal to that
    /// of the slot.
    fn stretches(&self, slot: Slot) -> Option<Vec<f32>> {
        // The slot itself is found too, if it is linked. What is not is not looked at: it may be nearly everything.
        let options = SearchOptions::new(2 * EF + 1, 2 * EF + 1);
        let ask = Ask { query: self.rows.query(slot), options: &options, ef: options.ef, live: self.states.live() };
        let found = self.scratches.with(|scratch| Hnsw(self).walk(ask, Vec::new(), scratch))?;
        let (origin, equal_max) = if self.params.metric == Metric::Cosine { (-1.0, COSINE_EQUAL) } else { (0.0, 0.0) };
        let distances = found.iter().map(|(distance, _)| distance - origin);
        let equal = distances.clone().filter(|distance| *distance <= equal_max).count();
        let from = distances.clone().nth(K).filter(|from| *from > equal_max && equal <= 1)?;
        Some(distances.skip(K + 1).map(|distance| distance / from).collect())
    }
}

/// The exponent with which [`EF`] candidates are looked at on average for [`K`] results.
fn exponent_of(sample: &[Vec<f32>]) -> f32 {
    let looked_at = |exponent: f32| {
        let stretch = (EF as f32 / K as f32).powf(exponent);
        let count = |ratios: &Vec<f32>| (K + ratios.partition_point(|ratio| *ratio <= stretch)).clamp(EF / 2, 2 * EF);
        sample.iter().map(count).sum::<usize>()
    };
    let mut range = (0.0, EXPONENT_MAX);
    for _ in 0..HALVINGS {
        let middle = (range.0 + range.1) / 2.0;
        if looked_at(middle) < EF * sample.len() { range.0 = middle } else { range.1 = middle }
    }
    (range.0 + range.1) / 2.0
}

/// With fewer candidates a new node looks at all of them.
const LINK_EF_MIN: usize = 48;
/// The neighbour of this share of the candidates tells how far a new node looks,
const LINK_K_SHARE: usize = 12;
/// and this share of them is looked at in any case.
const LINK_LEAST_SHARE: usize = 3;
/// Up to here cosines are equal to one but for rounding.
const COSINE_EQUAL: f32 = 1e-6;
/// Fewer slots are scanned.
const SLOTS_MIN: usize = 1_000;
/// Slots that growth is measured at,
const SAMPLE: usize = 64;
/// how many of them must say something, and what share of them may not.
const SAMPLE_MIN: usize = 16;
/// See [`SAMPLE_MIN`].
const SAMPLE_SHARE: usize = 4;
/// The search that growth is found for: so many results,
const K: usize = 10;
/// and so many candidates.
const EF: usize = 50;
/// Steps in which the exponent is looked for.
const HALVINGS: usize = 20;
/// That of squared distances on a line.
const EXPONENT_MAX: f32 = 2.0;
