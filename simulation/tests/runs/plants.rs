//! Each rule is needed: where one is broken on purpose, a run shows it, and the checker that is meant to.

use vecino_mesh::plants::{Plant, Plants};
use vecino_simulation::{Options, run};

/// Seeds within which a broken rule must show.
const SEEDS_MAX: u64 = 3_000;

/// Runs seeds until one shows the broken rule; it must be one of these checkers that finds it.
fn is_found(plant: Plant, checkers: &[&str]) {
    let options = Options { plants: Plants::only(plant), ..Options::default() };
    let found = (0..SEEDS_MAX).find_map(|seed| Some((seed, run(seed, options).violation?)));
    let Some((seed, violation)) = found else { panic!("{SEEDS_MAX} seeds do not show {plant}") };
    println!("{plant}: seed {seed}, {}", violation.checker);
    assert!(checkers.contains(&violation.checker), "{plant} at seed {seed}: {violation}");
}

#[test]
fn reads_that_do_not_write_back_are_found() {
    is_found(Plant::ReadsDoNotWriteBack, &["linearizable", "search"]);
}

#[test]
fn writes_that_do_not_ask_are_found() {
    is_found(Plant::WritesDoNotAsk, &["linearizable", "search"]);
}

#[test]
fn retries_that_are_stamped_anew_are_found() {
    is_found(Plant::RetriesAreStampedAnew, &["linearizable", "search"]);
}

#[test]
fn acknowledging_before_the_flush_is_found() {
    is_found(Plant::AcknowledgedBeforeTheFlush, &["linearizable", "search"]);
}

#[test]
fn a_search_without_a_horizon_is_found() {
    is_found(Plant::NoSearchHorizon, &["search"]);
}

#[test]
fn overwritten_hits_that_are_dropped_are_found() {
    is_found(Plant::OverwrittenHitsAreDropped, &["search"]);
}

#[test]
fn equal_stamps_after_a_restart_are_found() {
    is_found(Plant::EqualStampsAfterARestart, &["versions"]);
}

#[test]
fn clocks_that_decide_are_found() {
    is_found(Plant::ClocksDecide, &["available", "every replica"]);
}

#[test]
fn missed_writes_that_are_forgotten_are_found() {
    is_found(Plant::MissedWritesAreForgotten, &["every replica"]);
}

#[test]
fn hints_that_count_are_found() {
    is_found(Plant::HintsCount, &["linearizable", "search"]);
}

#[test]
fn writes_that_count_one_replica_are_found() {
    is_found(Plant::WritesCountOne, &["linearizable", "search"]);
}
