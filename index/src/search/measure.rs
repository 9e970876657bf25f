//! Finding out how distances grow in an index, by searching it.

use crate::params::{Metric, SearchOptions};
use crate::parts::Parts;
use crate::search::growth::SLOTS_MIN;
use crate::search::hnsw::Hnsw;
use crate::search::searcher::Query;
use crate::slot::Slot;

/// Up to here cosines are equal to one but for rounding.
const COSINE_EQUAL: f32 = 1e-6;
/// Growth is measured at this many slots.
const SAMPLE: usize = 64;
/// Fewer slots than this that say something are too few.
const SAMPLE_MIN: usize = 16;
/// Less than this share of the slots may say nothing.
const SAMPLE_SHARE: usize = 4;
/// Results of the search that growth is found for.
const K: usize = 10;
/// Candidates of the search that growth is found for.
const EF: usize = 50;
/// Steps in which the exponent is looked for.
const HALVINGS: usize = 20;
/// The largest exponent: that of squared distances on a line.
const EXPONENT_MAX: f32 = 2.0;

impl Parts {
    /// Finds out how distances grow, by looking for what is nearest to some of the slots.
    pub fn measure_growth(&self) {
        let slots = self.states.slots();
        if slots < SLOTS_MIN as u32 || self.params.metric == Metric::Dot {
            return;
        }
        let _reading = self.readers.enter();
        let picked = (0..slots).step_by((slots as usize / SAMPLE).max(1)).filter(|slot| self.states.is_live(*slot));
        let answers: Vec<Option<Vec<f32>>> = picked.map(|slot| self.expansions(slot)).collect();
        let asked = answers.len();
        let sample: Vec<Vec<f32>> = answers.into_iter().flatten().collect();
        // Where many vectors are equal, a distance says little, and a walk needs its `ef` to get past heaps of them.
        let is_known = sample.len() >= SAMPLE_MIN && sample.len() * SAMPLE_SHARE >= asked * (SAMPLE_SHARE - 1);
        self.growth.set(is_known.then(|| exponent_of(&sample)));
    }

    /// How many times as far as the neighbour of rank [`K`] those of higher rank are; `None` if another vector is equal to that
    /// of the slot.
    fn expansions(&self, slot: Slot) -> Option<Vec<f32>> {
        // The slot itself is found too, if it is linked. What is not is not looked at: it may be nearly everything.
        let options = SearchOptions::new(2 * EF + 1, 2 * EF + 1);
        let query =
            Query { vector: self.rows.query(slot), options: &options, ef: options.ef, live: self.states.live() };
        let found = self.scratches.with(|scratch| Hnsw(self).walk(query, Vec::new(), scratch))?;
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
        let expansion = (EF as f32 / K as f32).powf(exponent);
        let count = |ratios: &Vec<f32>| (K + ratios.partition_point(|ratio| *ratio <= expansion)).clamp(EF / 2, 2 * EF);
        sample.iter().map(count).sum::<usize>()
    };
    let mut range = (0.0, EXPONENT_MAX);
    for _ in 0..HALVINGS {
        let middle = (range.0 + range.1) / 2.0;
        if looked_at(middle) < EF * sample.len() { range.0 = middle } else { range.1 = middle }
    }
    (range.0 + range.1) / 2.0
}
