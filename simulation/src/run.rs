//! One run: a seed, what came of it, and what of its plan is needed for that.

use vecino_mesh::time::Time;

use crate::checkers::{linearizable, search};
use crate::plan::{Options, Plan, START};
use crate::record::{SearchOf, Violation};
use crate::value;
use crate::world::World;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What was found wrong, if anything was.
    pub violation: Option<Violation>,
    /// Number of operations of clients.
    pub operations: usize,
    /// Number of operations that were acknowledged or answered.
    pub done: usize,
    /// Versions that were given at level `one`, as they came.
    pub stamps: Vec<vecino_model::Version>,
    /// How long each of them took, in the order in which they ended.
    pub took: Vec<std::time::Duration>,
    /// How long it was from the beginning of the first to the end of the last.
    pub lasted: std::time::Duration,
    /// Number of faults.
    pub faults: usize,
    /// Number of events.
    pub events: u64,
    /// What happened, a line each, where that was asked for.
    pub trace: Vec<String>,
    /// A number that differs where runs do.
    pub fingerprint: u64,
}

/// Runs a seed.
pub fn run(seed: u64, options: Options) -> Report {
    run_plan(Plan::of(seed, options), options)
}

pub(crate) fn run_plan(plan: Plan, options: Options) -> Report {
    let mut world = World::new(plan, options);
    world.run();
    judge(&mut world);
    let operations = world.record.history.operations();
    let done = operations.iter().filter(|operation| operation.done_at().is_some()).count();
    let unwritten = world.record.searches.len() + world.record.stamps.len();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&world.events.to_le_bytes());
    for operation in operations {
        hasher.update(format!("{operation:?}").as_bytes());
    }
    let mut fingerprint = [0; 8];
    fingerprint.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    Report {
        seed: world.plan().seed,
        violation: world.record.violation.take(),
        operations: world.deeds(),
        done: done + unwritten,
        stamps: std::mem::take(&mut world.record.stamps),
        took: std::mem::take(&mut world.record.took),
        lasted: world.record.ended_at.since(Time::default() + START),
        faults: world.plan().faults.len(),
        events: world.events,
        trace: std::mem::take(&mut world.record.lines),
        fingerprint: u64::from_le_bytes(fingerprint),
    }
}

/// Looks at what was written down.
fn judge(world: &mut World) {
    if world.record.violation.is_some() {
        return;
    }
    let operations = world.record.history.operations().to_vec();
    if let Err(violation) = linearizable::check(&operations) {
        return world.record.fail("linearizable", violation.to_string());
    }
    let searches = search::Searches::new(&operations);
    let mut wrong = None;
    for SearchOf { search, place } in &world.record.searches {
        if let Err(violation) = searches.check(search, |value| value::distance(value, *place)) {
            wrong = Some(format!("a search of {search:?} near {place}: {violation}"));
            break;
        }
    }
    if let Some(told) = wrong {
        world.record.fail("search", told);
    }
}

/// Leaves out faults and clients for as long as the run still fails in the same way, and gives what is left: how many
/// faults and clients that are, and the report.
pub fn shrink(seed: u64, options: Options) -> Option<(usize, usize, Report)> {
    let mut plan = Plan::of(seed, options);
    let quiet = Options { trace: false, ..options };
    let mut report = run_plan(plan.clone(), quiet);
    let checker = report.violation.as_ref()?.checker;
    let fails = |plan: &Plan| {
        let report = run_plan(plan.clone(), quiet);
        report.violation.as_ref().is_some_and(|violation| violation.checker == checker).then_some(report)
    };
    let mut is_smaller = true;
    while is_smaller {
        is_smaller = false;
        let mut at = 0;
        while at < plan.faults.len() {
            let mut smaller = plan.clone();
            smaller.faults.remove(at);
            match fails(&smaller) {
                Some(failed) => (plan, report, is_smaller) = (smaller, failed, true),
                None => at += 1,
            }
        }
        for client in 0..plan.clients.len() {
            let mut smaller = plan.clone();
            if std::mem::take(&mut smaller.clients[client].deeds).is_empty() {
                continue;
            }
            if let Some(failed) = fails(&smaller) {
                (plan, report, is_smaller) = (smaller, failed, true);
            }
        }
    }
    if options.trace {
        report = run_plan(plan.clone(), options);
    }
    let clients = plan.clients.iter().filter(|client| !client.deeds.is_empty()).count();
    Some((plan.faults.len(), clients, report))
}
