//! Keeping a short ascending run in order: the candidates of a walk, which change with every node that is measured.

use super::Kernel;

/// Numbers that are read and written at once.
const STEP: usize = 8;

/// Numbers in ascending order.
pub(crate) struct Run {
    /// First a step that ends with a zero, then the numbers, then copies of [`u64::MAX`]: at least one, and as many as fill the
    /// last step.
    list: Vec<u64>,
    len: usize,
    insert: Insert,
}

impl Run {
    /// Nothing, to be kept in order by a kernel that is available.
    pub fn new(kernel: Kernel) -> Self {
        let mut list = vec![u64::MAX; 3 * STEP];
        list[..STEP].fill(0);
        Self { list, len: 0, insert: insert_of(kernel) }
    }

    /// Forgets all numbers.
    pub fn clear(&mut self) {
        self.list[STEP..STEP + self.len].fill(u64::MAX);
        self.len = 0;
    }

    /// The numbers.
    #[inline(always)]
    pub fn as_slice(&self) -> &[u64] {
        &self.list[STEP..STEP + self.len]
    }

    /// The numbers, to be changed in a way that keeps them in order.
    #[inline(always)]
    pub fn as_mut_slice(&mut self) -> &mut [u64] {
        &mut self.list[STEP..STEP + self.len]
    }

    /// Adds a number, and gives its place.
    #[inline]
    pub fn insert(&mut self, number: u64) -> usize {
        if self.list.len() < STEP + self.len + 1 + STEP {
            self.list.resize(2 * self.list.len(), u64::MAX);
        }
        self.len += 1;
        // SAFETY: the list is longer than a step. The pointer is one to the whole list, in which a step that ends with a
        // zero is before the numbers, and a step of the largest behind them; the kernel was checked when it was chosen.
        unsafe { (self.insert)(self.list.as_mut_ptr().add(STEP), self.len - 1, number) }
    }

    /// Forgets the last number, if there is one.
    #[inline]
    pub fn pop(&mut self) {
        if let Some(last) = self.as_mut_slice().last_mut() {
            *last = u64::MAX;
            self.len -= 1;
        }
    }
}

/// Puts a key into an ascending run of `len` and gives its place there; what is not below it moves up by one.
///
/// # Safety
/// The processor has the instruction set. `run` points into one allocation, which holds a zero right before it and numbers
/// from there to the next multiple of [`STEP`] behind `len`; all of them may be read, and those from `run` on written.
/// Those from `len` on are [`u64::MAX`].
type Insert = unsafe fn(run: *mut u64, len: usize, key: u64) -> usize;

/// The insertion of a kernel. Only a kernel that is available may be asked.
fn insert_of(kernel: Kernel) -> Insert {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 if is_x86_feature_detected!("avx512f") => x86::insert_avx512,
        _ => insert_scalar,
    }
}

/// Portable, and what the other is tested against.
///
/// # Safety
/// See [`Insert`].
unsafe fn insert_scalar(run: *mut u64, len: usize, key: u64) -> usize {
    // SAFETY: the place behind the run is there to be written too.
    let run = unsafe { std::slice::from_raw_parts_mut(run, len + 1) };
    let at = run[..len].partition_point(|other| *other < key);
    run.copy_within(at..len, at + 1);
    run[at] = key;
    at
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::STEP;

    /// # Safety
    /// See [`super::Insert`].
    #[target_feature(enable = "avx512f")]
    pub unsafe fn insert_avx512(run: *mut u64, len: usize, key: u64) -> usize {
        let keys = _mm512_set1_epi64(key as i64);
        let mut at = len / STEP * STEP;
        loop {
            // SAFETY: from one before the run to the multiple of the step behind its end.
            let (here, before) =
                unsafe { (_mm512_loadu_si512(run.add(at).cast()), _mm512_loadu_si512(run.add(at).sub(1).cast())) };
            let below = _mm512_cmplt_epu64_mask(here, keys);
            // What is below the key stays, what is not comes from one place before, and between them comes the key.
            let moved = _mm512_max_epu64(before, _mm512_min_epu64(here, keys));
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(run.add(at).cast(), moved) };
            if below != 0 || at == 0 {
                return at + below.count_ones() as usize;
            }
            at -= STEP;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_kernel_keeps_a_run_in_order(keys in prop::collection::vec(1u64..200, 0..150)) {
            for kernel in Kernel::available() {
                let mut run = Run::new(kernel);
                let mut expected: Vec<u64> = Vec::new();
                for key in &keys {
                    if key % 7 == 0 {
                        run.pop();
                        expected.pop();
                    }
                    let at = run.insert(*key);
                    prop_assert_eq!(at, expected.partition_point(|other| other < key), "{:?}", kernel);
                    expected.insert(at, *key);
                    prop_assert_eq!(run.as_slice(), &expected[..], "{:?}", kernel);
                    let (before, behind) = (&run.list[..STEP], &run.list[STEP + run.len..]);
                    prop_assert!(before.iter().all(|key| *key == 0) && behind.iter().all(|key| *key == u64::MAX));
                }
                run.clear();
                prop_assert!(run.as_slice().is_empty() && run.list[STEP..].iter().all(|key| *key == u64::MAX));
            }
        }
    }
}
