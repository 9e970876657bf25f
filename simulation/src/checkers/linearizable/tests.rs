//! Histories that are known to be right or wrong, the judge against all permutations, and its speed.

use std::time::Instant;

use super::super::history::testing::{delete, get, put, refused_put, unknown_delete, unknown_put};
use super::super::history::{Kind, Outcome};
use super::*;

fn assert_linearizable(operations: &[Operation]) {
    if let Err(violation) = check(operations) {
        panic!("{violation}");
    }
}

/// The operations that the judge shows.
fn violation(operations: &[Operation]) -> Vec<Operation> {
    match check(operations) {
        Err(Violation::NotLinearizable { point: 1, operations }) => operations,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_read_was_written_last() {
    assert_linearizable(&[]);
    assert_linearizable(&[get(None, 1, 2), put(1, 3, 4), get(1, 5, 6), delete(7, 8), get(None, 9, 10)]);
    assert_linearizable(&[put(1, 1, 4), put(2, 1, 4), get(1, 5, 6)]);
    assert_linearizable(&[put(1, 1, 4), put(2, 1, 4), get(2, 5, 6)]);
    assert_linearizable(&[put(1, 1, 10), get(1, 2, 3), get(1, 4, 5)]);
    assert_linearizable(&[put(1, 1, 2), get(1, 2, 3), put(2, 3, 3), get(2, 3, 4)]);
}

#[test]
fn a_stale_read_is_found() {
    let (old, new, stale) = (put(1, 1, 2), put(2, 3, 4), get(1, 5, 6));
    assert_eq!(violation(&[old, get(1, 2, 3), new, get(2, 4, 5), stale, get(2, 7, 8)]), [old, new, stale]);
    violation(&[put(1, 1, 2), get(None, 3, 4)]);
    violation(&[put(1, 1, 2), delete(3, 4), get(1, 5, 6)]);
}

#[test]
fn two_reads_that_see_values_go_back_are_found() {
    let all = [put(1, 1, 2), put(2, 3, 20), get(2, 4, 5), get(1, 6, 7)];
    let told = check(&all).unwrap_err().to_string();
    assert!(told.starts_with("point 1 is not linearizable:\n  put 1 by client 0, from 1 to 2\n  put 2 by"), "{told}");
    assert_eq!(violation(&all), all, "a read that does not write back lets the next one see the old value");
    assert_linearizable(&[put(1, 1, 2), put(2, 3, 20), get(1, 4, 5), get(2, 6, 7)]);
}

#[test]
fn a_lost_update_is_found() {
    let (first, second, lost) = (put(1, 1, 2), put(2, 3, 4), get(1, 9, 10));
    assert_eq!(violation(&[first, second, lost]), [first, second, lost], "as by a clock that is behind");
    violation(&[put(1, 1, 2), get(1, 3, 4), get(None, 5, 6)]);
}

#[test]
fn a_retried_put_that_takes_effect_twice_is_found() {
    let twice = [put(1, 1, 20), get(1, 2, 3), put(2, 4, 5), get(2, 6, 7), get(1, 8, 9)];
    violation(&twice);
    let unknown = [unknown_put(1, 1), get(1, 2, 3), put(2, 4, 5), get(2, 6, 7), get(1, 8, 9)];
    violation(&unknown);
}

#[test]
fn a_write_of_unknown_outcome_may_surface_late_and_once() {
    let (late, other) = (unknown_put(1, 1), put(2, 2, 3));
    assert_linearizable(&[late, other, get(2, 4, 5), get(1, 8, 9), get(1, 10, 11)]);
    assert_linearizable(&[late, other, get(2, 4, 5)]);
    violation(&[late, other, get(1, 4, 5), get(2, 6, 7), put(3, 8, 9), get(1, 10, 11)]);
    violation(&[other, get(1, 4, 5), unknown_put(1, 6)]);
    assert_linearizable(&[other, unknown_delete(4), get(2, 6, 7), get(None, 8, 9)]);
    violation(&[other, unknown_delete(4), get(None, 6, 7), get(2, 8, 9)]);
    violation(&[other, unknown_delete(4), get(None, 6, 7), put(3, 8, 9), get(None, 10, 11)]);
    assert_linearizable(&[
        other,
        unknown_delete(4),
        unknown_delete(4),
        get(None, 6, 7),
        put(3, 8, 9),
        get(None, 10, 11),
    ]);
    let ignored = Operation { outcome: Outcome::Unknown, ..get(7, 4, 5) };
    assert_linearizable(&[other, ignored]);
}

#[test]
fn what_was_refused_is_never_seen() {
    assert_linearizable(&[refused_put(1, 1), get(None, 3, 4)]);
    let get = get(1, 3, 4);
    assert_eq!(check(&[refused_put(1, 1), get]), Err(Violation::FromNowhere { point: 1, get }));
    let puts = vec![put(1, 1, 2), put(1, 3, 4)];
    assert_eq!(check(&puts.clone()), Err(Violation::OneValueTwice { point: 1, puts }));
}

#[test]
fn points_are_judged_apart() {
    assert_linearizable(&[put(1, 1, 2), get(None, 3, 4).of(2), put(1, 5, 6).of(2)]);
    let Err(Violation::NotLinearizable { point: 2, .. }) =
        check(&[put(1, 1, 2), put(2, 1, 2).of(2), get(None, 3, 4).of(2)])
    else {
        panic!("point 2 lost its value")
    };
}

/// Whether some order of these operations, with some of those of unknown outcome left out, is right. By trying all.
fn some_order_is_right(operations: &[Operation], order: &mut Vec<usize>, value: Value) -> bool {
    let left = || (0..operations.len()).filter(|index| !order.contains(index));
    if left().all(|index| operations[index].done_at().is_none()) {
        return true;
    }
    let next: Vec<usize> = left().collect();
    next.iter().any(|index| {
        let operation = operations[*index];
        let is_early = |other: &usize| operations[*other].done_at().is_some_and(|ended| ended < operation.began);
        if next.iter().any(is_early) {
            return false;
        }
        let after = match (operation.kind, operation.outcome) {
            (Kind::Put(value), _) => Some(value),
            (Kind::Delete, _) => None,
            (Kind::Get(seen), Outcome::Done) if seen != value => return false,
            (Kind::Get(_), _) => value,
        };
        order.push(*index);
        let is_right = some_order_is_right(operations, order, after);
        order.pop();
        is_right
    })
}

/// A history of registers. Changed, some of what gets saw and some times are drawn anew, so that many are wrong.
fn random_history(random: &mut fastrand::Rng, operations: usize, points: u64, is_changed: bool) -> Vec<Operation> {
    let mut registers: BTreeMap<u64, Value> = BTreeMap::new();
    let mut history = Vec::new();
    let mut values: Vec<Value> = vec![None];
    for number in 0..operations as u64 {
        let point = random.u64(0..points);
        let held = registers.entry(point).or_default();
        let kind = match random.u32(0..10) {
            0..3 => Kind::Put(number),
            3..5 => Kind::Delete,
            _ => Kind::Get(*held),
        };
        let outcome = if random.u32(0..5) == 0 { Outcome::Unknown } else { Outcome::Done };
        let is_in_effect = outcome == Outcome::Done || random.bool();
        match kind {
            Kind::Put(value) if is_in_effect => *held = Some(value),
            Kind::Delete if is_in_effect => *held = None,
            Kind::Put(_) | Kind::Delete | Kind::Get(_) => {}
        }
        if let Kind::Put(value) = kind {
            values.push(Some(value));
        }
        let moment = 10 * (number + 1);
        let (began, ended) = (moment - random.u64(0..10).min(moment), moment + random.u64(0..25));
        history.push(Operation { client: 0, point, kind, began, ended: Some(ended), outcome });
    }
    if is_changed {
        for operation in &mut history {
            if matches!(operation.kind, Kind::Get(_)) && random.bool() {
                operation.kind = Kind::Get(values[random.usize(0..values.len())]);
            }
            if random.u32(0..4) == 0 {
                operation.ended = Some(operation.began + random.u64(0..10));
            }
        }
    }
    random.shuffle(&mut history);
    history
}

#[test]
fn the_judge_says_what_trying_all_orders_says() {
    let (mut right, mut wrong) = (0, 0);
    for seed in 0..20_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let operations = random.usize(4..=7);
        let history = random_history(&mut random, operations, 1, true);
        let expected = some_order_is_right(&history, &mut Vec::new(), None);
        let judged = check(&history);
        assert_eq!(judged.is_ok(), expected, "seed {seed}: {judged:?} of {history:#?}");
        if let Err(Violation::NotLinearizable { operations, .. }) = judged {
            assert!(!some_order_is_right(&operations, &mut Vec::new(), None), "seed {seed}: {operations:#?} are right");
        }
        *if expected { &mut right } else { &mut wrong } += 1;
    }
    assert!(right > 4_000 && wrong > 4_000, "{right} right and {wrong} wrong");
}

#[test]
fn histories_of_two_hundred_operations_take_few_states() {
    let (histories, began) = (1_000, Instant::now());
    for seed in 0..histories {
        let history = random_history(&mut fastrand::Rng::with_seed(seed), 200, 10, false);
        let mut points: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
        history.into_iter().for_each(|operation| points.entry(operation.point).or_default().push(operation));
        for (point, operations) in points {
            let states = check_point(point, operations).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
            assert!(states < 1_000, "seed {seed}: {states} states of point {point}");
        }
    }
    println!("{:.0} histories a second", histories as f64 / began.elapsed().as_secs_f64());
}

#[test]
fn many_writers_at_once_take_few_states() {
    // All puts at once, then deletes beside gets of each value in an order that only the search finds.
    let mut history: Vec<_> = (0..40).map(|value| put(value, 1, 1_000)).collect();
    history.extend((0..40).rev().map(|value| get(value, 1_000 - value, 1_000 - value)));
    history.extend((0..40).map(|_| unknown_delete(1)));
    let states = check_point(1, history.clone()).unwrap();
    assert!(states < 10_000, "{states} states");
    history.push(get(0, 960, 960));
    assert!(check_point(1, history).is_err(), "0 was overwritten");
}
