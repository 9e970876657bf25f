//! The register of one point, model-checked: every order of events, not some from a seed. The register that is decided
//! once is in `decree`.
//!
//! Three replicas, two writers of which one may send its put again, and a reader, run by the real machines of
//! `mesh/src/quorum/`. As the client library does, a writer first asks for a stamp, then has its put written with it, and
//! keeps the stamp where it sends the put again. Every history that clients can see is linearizable; and where one rule of the protocol is
//! broken, the checker finds a history that is not, and shows the shortest way to it.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

mod decree;
mod machine;
mod state;
mod world;

use std::time::Instant;

use stateright::{Checker, Model};
use vecino_simulation::checkers::linearizable;
use world::{Register, Rules};

/// What the tests below look at more or less of.
const KEPT: Register =
    Register { rules: Rules::Kept, puts: 2, gets: 2, repeats: false, hedges: false, answers_travel: false };

/// Looks at everything that can happen.
fn explore(name: &str, register: Register) {
    let began = Instant::now();
    let checker = register.checker().spawn_bfs().join();
    let (states, depth, took) = (checker.unique_state_count(), checker.max_depth(), began.elapsed());
    println!("{name}: {states} states, {depth} steps deep, {:.1} s", took.as_secs_f64());
    checker.assert_properties();
}

/// Looks for a history that is not linearizable, as some rule is broken.
fn find(register: Register) {
    let (rules, began) = (register.rules, Instant::now());
    let checker = register.checker().spawn_bfs().join();
    println!("{rules:?}: found in {} states, {:.1} s", checker.unique_state_count(), began.elapsed().as_secs_f64());
    let path = checker.discovery("linearizable").unwrap_or_else(|| panic!("{rules:?} is not missed"));
    let history = path.last_state().history();
    for action in path.into_actions() {
        println!("  {action}");
    }
    println!("{}", linearizable::check(&history).unwrap_err());
}

#[test]
fn two_writers_and_a_reader_are_linearizable() {
    explore("three gets", Register { gets: 3, ..KEPT });
}

#[test]
fn a_repeated_put_that_keeps_its_stamp_is_linearizable() {
    explore("a put is repeated", Register { repeats: true, ..KEPT });
}

#[test]
fn a_reader_that_hedges_is_linearizable() {
    explore("gets hedge", Register { hedges: true, ..KEPT });
}

#[test]
fn late_and_lost_answers_are_linearizable() {
    explore("answers travel", Register { answers_travel: true, ..KEPT });
    explore("answers travel, a put is repeated", Register { puts: 1, repeats: true, answers_travel: true, ..KEPT });
}

#[test]
fn reads_must_write_back() {
    find(Register { rules: Rules::ReadsDoNotWriteBack, ..KEPT });
    find(Register { rules: Rules::ReadsDoNotWriteBack, answers_travel: true, ..KEPT });
}

#[test]
fn writes_must_ask_for_versions() {
    find(Register { rules: Rules::WritesDoNotAsk, ..KEPT });
    find(Register { rules: Rules::WritesDoNotAsk, answers_travel: true, ..KEPT });
}

#[test]
fn a_repeated_put_must_keep_its_stamp() {
    find(Register { rules: Rules::RepeatsAreStampedAnew, repeats: true, gets: 1, ..KEPT });
}

#[test]
fn one_replica_must_not_acknowledge_alone() {
    find(Register { rules: Rules::OneReplicaAcknowledges, ..KEPT });
    find(Register { rules: Rules::OneReplicaAcknowledges, answers_travel: true, ..KEPT });
}
