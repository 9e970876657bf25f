//! How far a walk goes.
//!
//! HNSW keeps the `ef` nearest nodes that it has seen and ends when all of them are expanded. That spends as much on
//! queries whose neighbours stand out as on those in the thick of it, so here a walk ends at a distance: what is
//! farther than its `k`-th result by a factor is not looked at (Al-Jazzazi et al. 2025, distance adaptive beam search). The
//! factor is what `ef` amounts to on average: how much farther the `ef`-th nearest is than the `k`-th, which is taken
//! from the index itself now and then. So `ef` candidates are looked at as before, but more where it is crowded and fewer where it
//! is not; never fewer than half of them, and never more than twice as many.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::search::pool::Beam;

/// With fewer candidates a new node looks at all of them.
const LINK_EF_MIN: usize = 48;
/// The neighbour of this share of the candidates tells how far a new node looks.
const LINK_K_SHARE: usize = 12;
/// This share of the candidates is looked at in any case.
const LINK_LEAST_SHARE: usize = 3;
/// Growth is measured at this many slots at least: fewer are scanned.
pub(crate) const SLOTS_MIN: usize = 1_000;

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

    /// Replaces the exponent; `None` where a distance says too little.
    pub fn set(&self, exponent: Option<f32>) {
        self.exponent.store(exponent.unwrap_or(f32::NAN).to_bits(), Ordering::Relaxed);
    }

    /// How far a walk goes that looks for `k` with `ef`, where distances begin at `origin`, if they can be compared.
    pub fn beam(&self, k: usize, ef: usize, origin: Option<f32>) -> Beam {
        let exponent = f32::from_bits(self.exponent.load(Ordering::Relaxed));
        match origin {
            Some(origin) if ef > k && !exponent.is_nan() => {
                let expansion = (ef as f32 / k as f32).powf(exponent);
                Beam { most: 2 * ef, least: k.max(ef / 2), k, expansion, origin }
            }
            _ => Beam::fixed(ef),
        }
    }

    /// How far a walk goes that looks for neighbours of a new node among `ef` candidates. It keeps no more than these: the
    /// choice among them needs the near ones, and enough of the others.
    pub fn beam_to_link(&self, ef: usize, origin: Option<f32>) -> Beam {
        let beam = self.beam((ef / LINK_K_SHARE).max(1), ef, origin);
        if ef < LINK_EF_MIN || beam.least == ef {
            return Beam::fixed(ef);
        }
        Beam { most: ef, least: ef / LINK_LEAST_SHARE, ..beam }
    }

    /// A node was linked, and the graph has `nodes` of them now. Whether it is time to measure again, which the caller then does.
    pub fn is_due(&self, nodes: usize) -> bool {
        let linked = self.linked.fetch_add(1, Ordering::Relaxed) + 1;
        linked >= (nodes / 2).max(SLOTS_MIN) && self.linked.swap(0, Ordering::Relaxed) >= linked
    }
}
