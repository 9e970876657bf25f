//! Fuzzing of everything that reads bytes which may be anything: real bytes are changed, with their checksums made right
//! again half of the time, and read. What comes of it is an error or an answer that can be worked with: never a panic,
//! never memory without measure, and with checksums as they were never another answer than the right one.
//!
//! Deterministic: iteration `n` of a seed always does the same, and a failure says which it was. Set
//! `VECINO_FUZZ_ITERATIONS` to run longer (the number for each target), `VECINO_FUZZ_SEED` for other changes, and
//! `VECINO_FUZZ_AT` to replay one iteration.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

mod changes;
mod disk;
mod index;
mod memory;
mod messages;
mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;

#[global_allocator]
static ALLOCATOR: memory::Watched = memory::Watched;

/// No made-up bytes have a reader ask for more at once; each reads inputs of well under a MiB.
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Runs one target so many times, or as often as the environment says.
fn fuzz(target: &str, iterations: u64, run: impl Fn(&mut Rng)) {
    let seed = number("VECINO_FUZZ_SEED").unwrap_or(1);
    let iterations = match number("VECINO_FUZZ_AT") {
        Some(at) => at..at + 1,
        None => 0..number("VECINO_FUZZ_ITERATIONS").unwrap_or(iterations),
    };
    memory::take_largest();
    for at in iterations {
        let mut random = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at);
        let ran = catch_unwind(AssertUnwindSafe(|| run(&mut random)));
        let largest = memory::take_largest();
        if ran.is_err() || largest > REQUEST_BYTES_MAX {
            panic!(
                "{target}: asked for {largest} bytes at most; replay with VECINO_FUZZ_SEED={seed} VECINO_FUZZ_AT={at}"
            );
        }
    }
}
