//! Codes against the vectors that they are of.

use std::sync::Mutex;

use crate::codes::codec::{Codec, Stored};
use crate::codes::scalar::{ScalarCodes, ScalarQuery};
use crate::kernel::Kernel;
use crate::memory::graph::Graph;
use crate::memory::rows::Rows;
use crate::memory::states::States;
use crate::params::{Metric, Params};
use crate::search::walk::Scorer;
use crate::slot::Slot;

/// Rows, states and codes, as an index keeps them.
struct Bed {
    metric: Metric,
    rows: Rows,
    states: States,
    codes: ScalarCodes,
    /// Held while a slot is stored, as the index does.
    graph: Graph,
    storing: Mutex<()>,
}

impl Bed {
    fn new(dim: usize, metric: Metric, kernel: Kernel) -> Self {
        let rows = Rows::new(dim, metric, kernel);
        Self {
            metric,
            rows,
            states: States::new(),
            codes: ScalarCodes::new(&Params { seed: 1, ..Params::new(dim, metric) }, kernel),
            graph: Graph::new(16, 1),
            storing: Mutex::default(),
        }
    }

    fn store(&self, slot: Slot, vector: &[f32]) {
        let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        let _storing = self.storing.lock().unwrap();
        self.states.reserve(slot).unwrap();
        self.rows.store(slot, vector, norm).unwrap();
        self.codes.store(slot, &self.rows).unwrap();
        self.states.publish(slot);
    }

    fn train_if_wanted(&self) -> bool {
        let is_wanted = self.codes.is_due(self.states.slots());
        if is_wanted {
            let Self { rows, states, storing, graph, .. } = self;
            self.codes.renew(Stored { rows, graph, states, storing });
        }
        is_wanted
    }

    /// The share of the nearest ten of random queries that are among the nearest thirty by codes.
    fn recall(&self, random: &mut fastrand::Rng, vector: impl Fn(&mut fastrand::Rng) -> Vec<f32>) -> f64 {
        let slots: Vec<Slot> = (0..self.states.slots()).filter(|slot| self.states.is_live(*slot)).collect();
        let mut scratch = ScalarQuery::default();
        let mut found = 0;
        for _ in 0..QUERIES {
            let values = vector(random);
            let norm = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            let query = self.rows.query_of(&values, norm);
            let mut exact = vec![0.0; slots.len()];
            self.rows.distances(query, &slots, &mut exact);
            let near = self.codes.scorer(&self.rows, query, &mut scratch).expect("there are codes");
            let mut coded = vec![0.0; slots.len()];
            near.distances(&slots, &mut coded);
            let nearest = |distances: &[f32], count: usize| {
                let mut order: Vec<usize> = (0..slots.len()).collect();
                order.sort_by(|a, b| distances[*a].total_cmp(&distances[*b]));
                order.truncate(count);
                order
            };
            let candidates = nearest(&coded, 30);
            found += nearest(&exact, 10).iter().filter(|slot| candidates.contains(slot)).count();
        }
        found as f64 / (10 * QUERIES) as f64
    }
}

const QUERIES: usize = 20;
const METRICS: [Metric; 3] = [Metric::Euclidean, Metric::Cosine, Metric::Dot];

/// A vector near one of a few centres, in a few of many directions from there, so that some are nearer than others.
fn clustered(dim: usize, random: &mut fastrand::Rng) -> Vec<f32> {
    let mut centre = fastrand::Rng::with_seed(random.u64(..20));
    let mut vector: Vec<f32> = (0..dim).map(|_| centre.f32() * 2.0 - 1.0 + (random.f32() - 0.5) * 0.2).collect();
    for _ in 0..12.min(dim) {
        let away = random.f32() - 0.5;
        vector.iter_mut().for_each(|value| *value += away * (centre.f32() - 0.5));
    }
    vector
}

#[test]
fn the_nearest_by_codes_are_near_under_every_metric_at_every_width() {
    let mut random = fastrand::Rng::with_seed(21);
    for kernel in Kernel::available() {
        for dim in [3, 16, 64, 65, 100, 128, 130, 300, 600] {
            for metric in METRICS {
                let bed = Bed::new(dim, metric, kernel);
                for slot in 0..1200 {
                    bed.store(slot, &clustered(dim, &mut random));
                }
                assert!(bed.train_if_wanted() && !bed.train_if_wanted());
                let recall = bed.recall(&mut random, |random| clustered(dim, random));
                assert!(recall > 0.97, "{kernel:?} {metric:?} {dim}: {recall}");
            }
        }
    }
}

#[test]
fn codes_that_began_with_few_points_follow_the_vectors_when_they_become_others() {
    let dim = 40;
    for metric in METRICS {
        let mut random = fastrand::Rng::with_seed(23);
        let bed = Bed::new(dim, metric, Kernel::best());
        let small = |random: &mut fastrand::Rng| -> Vec<f32> { (0..dim).map(|_| random.f32() * 1e-3 + 0.2).collect() };
        let mut slot = 0;
        let mut generations = 0;
        while slot < 1500 {
            bed.store(slot, &small(&mut random));
            generations += u32::from(bed.train_if_wanted());
            slot += 1;
        }
        assert_eq!(generations, 1);
        // A thousand times as far apart, somewhere else. What was stored before is deleted, as by updates.
        let large = |random: &mut fastrand::Rng| -> Vec<f32> {
            clustered(dim, random).iter().map(|value| value * 100.0 - 30.0).collect()
        };
        for before in 0..slot {
            bed.states.mark_deleted(before);
        }
        while slot < 3500 {
            bed.store(slot, &large(&mut random));
            generations += u32::from(bed.train_if_wanted());
            slot += 1;
        }
        assert_eq!(generations, 2, "{:?} was not trained anew", bed.metric);
        let recall = bed.recall(&mut random, large);
        assert!(recall > 0.97, "{metric:?}: {recall}");
    }
}

#[test]
fn a_collection_that_grows_trains_anew_at_four_times_the_size() {
    let mut random = fastrand::Rng::with_seed(29);
    let bed = Bed::new(8, Metric::Euclidean, Kernel::best());
    let mut trained = Vec::new();
    for slot in 0..20_000 {
        bed.store(slot, &clustered(8, &mut random));
        if bed.train_if_wanted() {
            trained.push(slot + 1);
        }
    }
    assert_eq!(trained, [1024, 4096, 16_384]);
}

#[test]
fn what_is_stored_while_codes_are_made_anew_is_coded_too() {
    let dim = 24;
    let mut random = fastrand::Rng::with_seed(31);
    let bed = Bed::new(dim, Metric::Euclidean, Kernel::best());
    for slot in 0..2000 {
        bed.store(slot, &clustered(dim, &mut random));
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for slot in 2000..9000 {
                bed.store(slot, &clustered(dim, &mut random));
            }
        });
        while bed.states.slots() < 9000 {
            bed.train_if_wanted();
        }
        bed.train_if_wanted();
    });
    let mut scratch = ScalarQuery::default();
    for slot in 0..9000 {
        let near = bed.codes.scorer(&bed.rows, bed.rows.query(slot), &mut scratch).expect("there are codes");
        let mut distances = [0.0; 2];
        near.distances(&[slot, (slot + 1) % 9000], &mut distances);
        assert!(distances[0] < distances[1], "slot {slot} is not coded as itself: {distances:?}");
    }
}

/// A slot that is retired may be stored anew while a generation is trained, and its code is then made as it is stored. A
/// training that coded it too would put the code of its old vector over that of the new one.
#[test]
fn training_leaves_slots_alone_that_may_be_stored_anew_meanwhile() {
    let mut random = fastrand::Rng::with_seed(71);
    let bed = Bed::new(16, Metric::Euclidean, Kernel::best());
    let same: Vec<f32> = (0..16).map(|_| random.f32()).collect();
    for slot in 0..1_100 {
        let vector: Vec<f32> = (0..16).map(|_| random.f32()).collect();
        bed.store(slot, if slot < 2 { &same } else { &vector });
    }
    bed.states.mark_deleted(0);
    bed.states.retire(0);
    assert!(bed.train_if_wanted());
    let norm = same.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let (mut scratch, mut distances) = (ScalarQuery::default(), [0.0; 2]);
    let near = bed.codes.scorer(&bed.rows, bed.rows.query_of(&same, norm), &mut scratch).unwrap();
    near.distances(&[0, 1], &mut distances);
    assert!(distances[0] > distances[1] + 0.1, "the retired slot has no code of its vector: {distances:?}");
}
