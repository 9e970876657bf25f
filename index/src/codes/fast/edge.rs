//! The code of one edge.

use crate::kernel::fastscan::{GROUP_DIMS, GROUPS_MAX};

/// Larger values are cut to it.
const LARGEST: f32 = 3.3e38;

/// Signs and factors of what a neighbour is away from a node: see the [module](crate::codes::fast).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    /// Upper half of the f32 `a`.
    pub summand: u16,
    /// Upper half of the f32 `b`.
    pub factor: u16,
    /// Four signs each, one where the difference is positive.
    pub fours: [u8; GROUPS_MAX],
}

impl Default for Edge {
    fn default() -> Self {
        Self { summand: 0, factor: 0, fours: [0; GROUPS_MAX] }
    }
}

impl Edge {
    /// The code of the edge between two projected vectors, of which the first `dims` dimensions are coded.
    pub fn new(from: &[f32], to: &[f32], dims: usize, slope: f32) -> Self {
        let mut edge = Self::default();
        let (mut norm, mut size, mut signed) = (0.0f32, 0.0f32, 0.0f32);
        let rest: f32 = from[dims..].iter().zip(&to[dims..]).map(|(from, to)| (to - from) * (to - from)).sum();
        let (from, to) = (&from[..dims], &to[..dims]);
        let fours = from.as_chunks::<GROUP_DIMS>().0.iter().zip(to.as_chunks::<GROUP_DIMS>().0);
        for (four, (from, to)) in edge.fours.iter_mut().zip(fours) {
            for bit in 0..GROUP_DIMS {
                let difference = to[bit] - from[bit];
                let is_plus = difference > 0.0;
                *four |= u8::from(is_plus) << bit;
                norm += difference * difference;
                size += difference.abs();
                signed += if is_plus { from[bit] } else { -from[bit] };
            }
        }
        let factor = if size > 0.0 { -2.0 * slope * norm / size } else { 0.0 };
        edge.factor = upper_half(factor);
        // Of the factor as it was rounded: what it adds at the node itself is to be taken off in full.
        edge.summand = upper_half(norm + rest - float(edge.factor) * signed);
        edge
    }

    /// The same edge where products alone are looked for: half the factor, and nothing to add.
    pub fn of_product(self) -> Self {
        Self { summand: 0, factor: upper_half(0.5 * float(self.factor)), ..self }
    }
}

/// The upper half of an f32, rounded to the nearest; never an infinity or a NaN.
fn upper_half(value: f32) -> u16 {
    let bits = value.clamp(-LARGEST, LARGEST).to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

fn float(upper_half: u16) -> f32 {
    f32::from_bits(u32::from(upper_half) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_of_one_direction_is_estimated_exactly() {
        // All differences equal in size: the signs say everything.
        let from = [0.5f32; 16];
        let to: Vec<f32> = (0..16).map(|at| if at % 3 == 0 { 1.5 } else { -0.5 }).collect();
        let edge = Edge::new(&from, &to, 16, 1.0);
        let signed = |values: &[f32]| -> f32 {
            let sign = |at: usize| if edge.fours[at / 4] >> (at % 4) & 1 == 1 { 1.0 } else { -1.0 };
            values.iter().enumerate().map(|(at, value)| sign(at) * value).sum()
        };
        for (query, distance) in [(from.to_vec(), 16.0), (to.clone(), 0.0)] {
            let to_node: f32 = query.iter().zip(from).map(|(a, b)| (a - b) * (a - b)).sum();
            let estimate = to_node + float(edge.summand) + float(edge.factor) * signed(&query);
            assert_eq!(estimate, distance);
        }
    }

    #[test]
    fn equal_vectors_make_an_edge_of_no_length() {
        let edge = Edge::new(&[1.0; 32], &[1.0; 32], 16, 1.0);
        assert_eq!((edge.summand, edge.factor), (0, 0));
    }

    #[test]
    fn halves_are_rounded_to_the_nearest_and_stay_finite() {
        assert_eq!(float(upper_half(1.0)), 1.0);
        assert_eq!(float(upper_half(1.0 + 1.0 / 200.0)), 1.0 + 1.0 / 128.0);
        assert!(float(upper_half(f32::INFINITY)).is_finite() && float(upper_half(f32::NEG_INFINITY)).is_finite());
    }
}
