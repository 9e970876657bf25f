//! One request to one node after another, and to a second one beside it where the first is late, until one answers, no
//! other attempt is safe, or time is up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vecino_model::error::{ErrorCode, Retry, RpcError};

use super::attempts::{Attempts, Effect, Next};
use super::nodes::Nodes;
use crate::machine::{CallId, Steps};
use crate::peers::LATE_MAX;
use crate::time::Time;

/// A call that a client makes: `Q` says what is asked.
#[derive(Debug)]
pub struct Call<Q> {
    /// Which of the calls of this request it is.
    pub call: CallId,
    /// Which node: its place among the addresses that the client knows.
    pub place: usize,
    /// What.
    pub what: Q,
    /// When the answer is worthless.
    pub until: Time,
}

/// What came of a call.
pub type Arrival<P> = Result<P, RpcError>;

/// What a request's code works with.
pub type Task<Q, P> = Steps<Call<Q>, Arrival<P>, Asking>;

/// What is remembered of a call until it is answered.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// The node.
    pub place: usize,
    /// When it was asked.
    pub since: Time,
}

/// When a request goes to a second node while the first still has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// Only when the first has not answered in half of the time that is left.
    Never,
    /// When the first is late.
    Late,
    /// When nothing at all comes from the first on its connection. This is for large requests: a node that is alive does them
    /// in its turn, and to do them twice helps least where all nodes have too much to do.
    Quiet,
}

/// How a request is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What it does, and so whether it may be sent twice.
    pub effect: Effect,
    /// A number for its kind: each takes times of its own.
    pub kind: u16,
    /// When its caller stops waiting.
    pub until: Time,
    /// When it goes to a second node beside the first.
    pub hedge: Hedge,
    /// A number from 0 to 1 that spreads the pauses of many clients.
    pub chance: f64,
}

/// A request that was answered.
#[derive(Debug)]
pub struct Answered<P> {
    /// What came.
    pub reply: P,
    /// The node that it came from.
    pub place: usize,
    /// Whether another attempt may take effect that was not answered.
    pub is_in_doubt: bool,
}

/// A request that failed.
#[derive(Debug)]
pub struct Failed {
    /// Why the last attempt failed.
    pub error: RpcError,
    /// Whether the whole request may be made again.
    pub retry: Retry,
    /// The node that was asked last.
    pub place: usize,
    /// How many attempts there were.
    pub attempts: u32,
}

/// Asks nodes until one answers.
///
/// # Errors
/// When no other attempt is safe, or time is up.
pub async fn ask<Q: Clone, P>(
    task: &Task<Q, P>,
    nodes: &Arc<Nodes>,
    plan: Plan,
    what: Q,
) -> Result<Answered<P>, Failed> {
    let Plan { effect, kind, until, hedge, chance } = plan;
    let mut attempts = Attempts::new(effect, nodes.count().max(1), nodes.first(), task.now().time, until);
    let mut under_way: BTreeMap<CallId, Asking> = BTreeMap::new();
    // What a node said that answered says more than that another one did not.
    let mut said: Option<(RpcError, usize)> = None;
    let may_hedge = hedge != Hedge::Never && effect != Effect::SingleWrite && nodes.count() > 1;
    let is_large = hedge == Hedge::Quiet;
    if is_large {
        // What they said to others of this client holds for this request, too.
        let now = task.now().time;
        let pause = attempts.begin(&nodes.resting(), now).mul_f64(1.0 + chance / 2.0);
        task.pause(now + pause.min(until.since(now) / 2)).await;
    }
    loop {
        let place = attempts.node();
        let since = task.now().time;
        let attempt_until = if is_large { until } else { since + attempts.patience(since) };
        let send = |place: usize, since: Time| {
            let asking = Asking { place, since };
            (task.call(asking, |call| Call { call, place, what: what.clone(), until: attempt_until }), asking)
        };
        under_way.extend([send(place, since)]);
        let mut hedge_at = match hedge {
            _ if !may_hedge => Time::NEVER,
            Hedge::Quiet => nodes.quiet_at(place, since),
            Hedge::Late | Hedge::Never => since + nodes.late_after(place, kind),
        };
        let mut is_overloaded = false;
        let (error, place) = loop {
            match task.next(hedge_at.min(attempt_until)).await {
                Some((call, arrival)) => {
                    let Some(Asking { place, since }) = under_way.remove(&call) else { continue };
                    match arrival {
                        Ok(reply) => {
                            nodes.answered(place, kind, task.now().time.since(since));
                            let is_in_doubt = attempts.is_in_doubt() || !under_way.is_empty();
                            return Ok(Answered { reply, place, is_in_doubt });
                        }
                        Err(error) if under_way.is_empty() => break (error, place),
                        Err(error) => {
                            is_overloaded |= error.code == ErrorCode::Overloaded;
                            attempts.failed_beside(error.retry);
                            if is_said(&error) {
                                said = Some((error, place));
                            }
                        }
                    }
                }
                None if task.now().time >= attempt_until => {
                    // They may still do it.
                    if !is_large {
                        under_way.values().for_each(|asking| nodes.was_late(asking.place));
                    }
                    under_way.clear();
                    let message = "no reply within the time for this attempt";
                    break (RpcError::new(ErrorCode::Timeout, message), place);
                }
                // Something has come from one of them meanwhile.
                None if is_large && quiet_at(nodes, &under_way) > task.now().time => {
                    hedge_at = quiet_at(nodes, &under_way);
                }
                None => {
                    nodes.was_late(place);
                    hedge_at = if is_large { task.now().time + LATE_MAX } else { Time::NEVER };
                    let second = attempts.beside(|other| {
                        nodes.is_silent(other) || under_way.values().any(|asking| asking.place == other)
                    });
                    if let Some(second) = second.filter(|_| !is_overloaded && nodes.take_hedge()) {
                        let now = task.now().time;
                        under_way.extend([send(second, now)]);
                        hedge_at = now + LATE_MAX;
                    }
                }
            }
        };
        let is_of_node = is_said(&error);
        if is_of_node {
            said = Some((error.clone(), place));
        }
        if let (true, ErrorCode::Overloaded, Retry::AfterMs(ms)) = (is_large, error.code, error.retry) {
            nodes.rests(place, task.now().time + Duration::from_millis(u64::from(ms)));
        }
        if is_large {
            attempts.rest(&nodes.resting());
        }
        match attempts.failed(&error, task.now().time, chance, |place| nodes.is_silent(place)) {
            Next::Try(pause) => task.pause(task.now().time + pause).await,
            Next::GiveUp => {
                let retry = attempts.verdict(error.retry);
                let (error, place) = said.filter(|_| !is_of_node).unwrap_or((error, place));
                return Err(Failed { error, retry, place, attempts: attempts.count() });
            }
        }
    }
}

/// Whether a node said this, and not the client of a node that says nothing.
fn is_said(error: &RpcError) -> bool {
    !matches!(error.code, ErrorCode::Timeout | ErrorCode::Connection)
}

/// When all nodes that have a request have been quiet for too long, if nothing more comes from them.
fn quiet_at(nodes: &Nodes, under_way: &BTreeMap<CallId, Asking>) -> Time {
    let quiet = under_way.values().map(|asking| nodes.quiet_at(asking.place, asking.since));
    quiet.max().unwrap_or(Time::NEVER)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::machine::Machine;
    use crate::time::Now;

    #[test]
    fn what_a_node_says_is_told_and_not_that_another_one_says_nothing() {
        let at = |ms: u64| Now { time: Time::default() + Duration::from_millis(ms), wall_ms: 0 };
        let nodes = Arc::new(Nodes::new(2));
        let (effect, until) = (Effect::Read, at(1_000).time);
        let plan = Plan { effect, kind: 1, until, hedge: Hedge::Late, chance: 0.0 };
        let steps: Task<(), ()> = Task::new(at(0));
        let told = Arc::new(Mutex::new(None));
        let mut machine = Machine::new(steps.clone(), {
            let (told, nodes) = (Arc::clone(&told), Arc::clone(&nodes));
            async move { *told.lock().unwrap() = Some(ask(&steps, &nodes, plan, ()).await.map(|answered| answered.place)) }
        });
        let asked = machine.step(at(0), None);
        assert_eq!((asked.commands.len(), asked.commands[0].place), (1, 0));
        let beside = machine.step(at(200), None).commands;
        assert_eq!((beside.len(), beside[0].place), (1, 1), "the first one is late");
        machine.answered(beside[0].call);
        let unavailable = RpcError::new(ErrorCode::Unavailable, "too few replicas");
        machine.step(at(210), Some((beside[0].call, Err(unavailable))));
        assert!(machine.step(at(1_000), None).is_done);
        let failed = told.lock().unwrap().take().unwrap().unwrap_err();
        assert_eq!((failed.error.code, failed.place), (ErrorCode::Unavailable, 1), "{}", failed.error);
    }
}
