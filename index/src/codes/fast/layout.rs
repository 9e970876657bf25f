//! Where things lie in a node's block of edges: for each 32 of them factors, then codes.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::codes::fast::Edge;
use crate::kernel::fastscan::{GROUP_BYTES, GROUP_DIMS, GROUPS_MAX, LANES};

/// The shape of every block of an index, in words of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Most links of a node, one lane each.
    pub lanes: usize,
    /// Dimensions of a code.
    pub dims: usize,
}

impl Layout {
    /// Words of a block.
    pub fn words(&self) -> usize {
        self.lanes.div_ceil(LANES) * self.part_words()
    }

    /// Groups of a code.
    pub fn groups(&self) -> usize {
        self.dims / GROUP_DIMS
    }

    /// Words of the factors and codes of 32 lanes.
    pub fn part_words(&self) -> usize {
        LANES + self.groups() * GROUP_BYTES / 4
    }

    /// Writes an edge's code and factors. Only one thread writes to a block.
    pub fn write(&self, block: &[AtomicU32], lane: usize, edge: &Edge) {
        let part = &block[lane / LANES * self.part_words()..];
        let lane = lane % LANES;
        let set = |word: &AtomicU32, shift: usize, mask: u32, value: u32| {
            let before = word.load(Ordering::Relaxed);
            word.store(before & !(mask << shift) | value << shift, Ordering::Relaxed);
        };
        set(&part[lane / 2], lane % 2 * 16, 0xffff, u32::from(edge.summand));
        set(&part[(LANES + lane) / 2], lane % 2 * 16, 0xffff, u32::from(edge.factor));
        let byte = lane % GROUP_BYTES;
        let shift = byte % 4 * 8 + lane / GROUP_BYTES * 4;
        let words = part[LANES..].iter().skip(byte / 4).step_by(GROUP_BYTES / 4);
        for (word, four) in words.zip(&edge.fours[..self.groups()]) {
            set(word, shift, 15, u32::from(*four));
        }
    }

    /// Reads an edge back.
    pub fn read(&self, block: &[AtomicU32], lane: usize) -> Edge {
        let part = &block[lane / LANES * self.part_words()..];
        let lane = lane % LANES;
        let get = |word: &AtomicU32, shift: usize| word.load(Ordering::Relaxed) >> shift;
        let mut edge = Edge {
            summand: get(&part[lane / 2], lane % 2 * 16) as u16,
            factor: get(&part[(LANES + lane) / 2], lane % 2 * 16) as u16,
            fours: [0; GROUPS_MAX],
        };
        let byte = lane % GROUP_BYTES;
        let shift = byte % 4 * 8 + lane / GROUP_BYTES * 4;
        let words = part[LANES..].iter().skip(byte / 4).step_by(GROUP_BYTES / 4);
        for (word, four) in words.zip(&mut edge.fours[..self.groups()]) {
            *four = (get(word, shift) & 15) as u8;
        }
        edge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_a_lane_is_read_from_it_and_nothing_else_changes() {
        for (dims, lanes) in [(16, 6), (96, 32), (160, 32), (96, 40), (320, 256)] {
            let layout = Layout { lanes, dims };
            let block: Vec<AtomicU32> = (0..layout.words()).map(|_| AtomicU32::new(0)).collect();
            let mut random = fastrand::Rng::with_seed(5);
            let mut edges: Vec<Edge> = vec![Edge::default(); lanes];
            for _ in 0..4 * lanes {
                let lane = random.usize(0..lanes);
                let mut edge = Edge { summand: random.u16(..), factor: random.u16(..), ..Edge::default() };
                edge.fours[..layout.groups()].fill_with(|| random.u8(0..16));
                layout.write(&block, lane, &edge);
                edges[lane] = edge;
                for (lane, edge) in edges.iter().enumerate() {
                    assert_eq!(layout.read(&block, lane), *edge, "lane {lane} of {lanes}");
                }
            }
        }
    }
}
