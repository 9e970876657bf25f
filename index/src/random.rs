//! Random numbers that are the same on every machine: SplitMix64 (Steele, Lea, Flood 2014).

/// What the state of a sequence grows by: the golden ratio in 64 bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A sequence of numbers that follows from its seed.
pub(crate) struct Random(pub u64);

impl Random {
    /// The next number; all 64-bit ones are as likely.
    pub fn next(&mut self) -> u64 {
        let mixed = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        mixed
    }

    /// A number below a limit above 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// About normal: the sum of four even ones.
    pub fn normal(&mut self) -> f32 {
        let bits = self.next();
        (0..4).map(|at| f32::from((bits >> (16 * at)) as u16) / 32_768.0 - 1.0).sum()
    }
}

/// What the sequence with this seed begins with: every bit of the input moves every bit of the output.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(STEP);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_paper() {
        // What the reference implementation gives for the seed 1234567.
        let mut random = Random(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.next(), random.next(), random.next()], expected);
    }
}
