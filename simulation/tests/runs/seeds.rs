//! Whatever goes wrong, what is promised holds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use vecino_simulation::{Options, Report, run};

/// Most events of a run. One with more is busy with itself: once, each answer about the collection made two questions.
const EVENTS_MAX: u64 = 500_000;

/// Runs seeds on two threads; gives the first report with a violation, and how much was done in all.
fn run_all(seeds: Vec<u64>, options: Options) -> (Option<Report>, usize, usize) {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(None::<Report>);
    let (done, faults) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let report = run(*seed, options);
                    done.fetch_add(report.done as u64, Ordering::Relaxed);
                    faults.fetch_add(report.faults as u64, Ordering::Relaxed);
                    assert!(report.operations >= 200, "seed {seed}: {} operations", report.operations);
                    assert!(report.events < EVENTS_MAX, "seed {seed}: {} events", report.events);
                    if report.violation.is_some() {
                        failed.lock().unwrap().get_or_insert(report);
                        return;
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    (failed, done.into_inner() as usize, faults.into_inner() as usize)
}

fn holds(seeds: Vec<u64>) {
    let count = seeds.len();
    let (failed, done, faults) = run_all(seeds, Options::default());
    if let Some(Report { seed, violation: Some(violation), .. }) = failed {
        panic!(
            "seed {seed}: {violation}\nsee what is needed for it: cargo run --release --example simulate -- --seeds 1 \
             --from {seed} --trace"
        );
    }
    assert!(done > 150 * count && faults >= 10 * count, "{count} runs did {done} operations under {faults} faults");
}

#[test]
fn what_is_promised_holds_in_eighteen_hundred_runs_over_maps() {
    holds((0..2_000).filter(|seed| seed % 10 != 7).collect());
}

#[test]
fn what_is_promised_holds_in_two_hundred_runs_over_the_engine() {
    holds((0..2_000).filter(|seed| seed % 10 == 7).collect());
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in [0, 3, 7, 12] {
        let options = Options { trace: true, ..Options::default() };
        let (once, again) = (run(seed, options), run(seed, options));
        assert!(once.trace.len() > 1_000, "{}", once.trace.len());
        assert!(once.trace == again.trace && once.fingerprint == again.fingerprint, "seed {seed} differs");
    }
    assert_ne!(run(0, Options::default()).fingerprint, run(1, Options::default()).fingerprint);
}

/// What is not promised yet: disks that are emptied, rolled back or damaged, folders that are lost, and collections that are
/// dropped and made again lose acknowledged writes. When that is mended, these faults join the others.
#[test]
fn harmed_disks_and_a_drop_still_lose_writes() {
    let options = Options { all_faults: true, ..Options::default() };
    let (failed, _, _) = run_all((0..100).collect(), options);
    let violation = failed.unwrap().violation.unwrap();
    let checkers = ["linearizable", "search", "available", "versions"];
    assert!(checkers.contains(&violation.checker), "{violation}");
}
