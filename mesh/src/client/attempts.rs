//! Whom to ask next after a failure, and whether at all: the decisions, without clock, socket or task.
//!
//! A failure sends the request to the next node at once where that is safe; a node that failed rests for as long as it
//! asked to, or for a pause that grows with the attempts, before it is asked again.

use std::time::Duration;

use vecino_model::error::{ErrorCode, Retry, RpcError};

use crate::time::Time;

/// Most attempts at one request.
pub const ATTEMPTS_MAX: u32 = 20;
/// Most times that one request finds the same node unreachable, or the replicas unreachable from it. Time would bound
/// this too, but a mesh that is gone should be reported soon.
pub const SETBACKS_MAX: u32 = 3;
/// Pause before a node is asked again after its first failure; it doubles with each further attempt.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Where other nodes are left to ask, one attempt may use half of the time that is left, but no less than this.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// What a request does, and so when it may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it may always be sent again.
    Read,
    /// The same, however often it is done.
    RepeatableWrite,
    /// It may be sent again only if it surely did not happen.
    SingleWrite,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask [`Attempts::node`] after this pause.
    Try(Duration),
    /// Report the failure.
    GiveUp,
}

/// The attempts at one request.
pub struct Attempts {
    effect: Effect,
    until: Time,
    nodes: Vec<Standing>,
    current: usize,
    count: u32,
    /// Whether an earlier attempt may have taken effect.
    unknown: bool,
}

#[derive(Clone)]
struct Standing {
    rests_until: Time,
    setbacks: u32,
    barred: bool,
}

impl Attempts {
    /// For a request to one of `nodes` nodes, at least one, that begins with `first`.
    pub fn new(effect: Effect, nodes: usize, first: usize, now: Time, until: Time) -> Self {
        let standing = Standing { rests_until: now, setbacks: 0, barred: false };
        Self { effect, until, nodes: vec![standing; nodes], current: first % nodes, count: 0, unknown: false }
    }

    /// The node to ask.
    pub fn node(&self) -> usize {
        self.current
    }

    /// How many attempts have failed.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Begins with the node that rests for the shortest, as others have found. Gives the pause before it may be asked.
    pub fn begin(&mut self, resting: &[Time], now: Time) -> Duration {
        self.rest(resting);
        let in_turn = (0..self.nodes.len()).map(|step| (self.current + step) % self.nodes.len());
        let first = in_turn.min_by_key(|node| self.nodes[*node].rests_until.max(now));
        self.current = first.unwrap_or(self.current);
        self.nodes[self.current].rests_until.since(now)
    }

    /// Takes over until when each node rests.
    pub fn rest(&mut self, resting: &[Time]) {
        for (node, until) in self.nodes.iter_mut().zip(resting) {
            node.rests_until = node.rests_until.max(*until);
        }
    }

    /// How long the attempt may take.
    pub fn patience(&self, now: Time) -> Duration {
        let left = self.until.since(now);
        let others = self.nodes.iter().filter(|node| !node.barred).count() > 1;
        if others && self.effect != Effect::SingleWrite { (left / 2).max(PATIENCE_MIN).min(left) } else { left }
    }

    /// Takes note that a node that was asked beside another failed, or that it was not waited for.
    pub fn failed_beside(&mut self, retry: Retry) {
        self.unknown |= retry == Retry::Unknown;
    }

    /// Whether an attempt may have taken effect that was not answered.
    pub fn is_in_doubt(&self) -> bool {
        self.unknown
    }

    /// Another node than the next one in turn, for the same request at the same time.
    pub fn beside(&self, taken: impl Fn(usize) -> bool) -> Option<usize> {
        let following = (1..self.nodes.len()).map(|step| (self.current + step) % self.nodes.len());
        following.into_iter().find(|node| !self.nodes[*node].barred && !taken(*node))
    }

    /// Judges a failed attempt. `chance`, 0 to 1, spreads the pauses of many clients; nodes that are silent are asked last.
    pub fn failed(&mut self, error: &RpcError, now: Time, chance: f64, is_silent: impl Fn(usize) -> bool) -> Next {
        self.count += 1;
        self.unknown |= error.retry == Retry::Unknown;
        let refused_here = error.retry == Retry::No && error.code == ErrorCode::Connection;
        let asked_for = match error.retry {
            // The two sides do not understand each other, and will not the next time.
            _ if error.code == ErrorCode::Protocol => return Next::GiveUp,
            Retry::AfterMs(ms) => Duration::from_millis(u64::from(ms)),
            Retry::Safe => Duration::ZERO,
            Retry::Unknown if self.effect != Effect::SingleWrite => Duration::ZERO,
            // The connection was refused, so nothing happened, and another node may take it.
            Retry::No if refused_here => Duration::ZERO,
            Retry::No | Retry::Unknown => return Next::GiveUp,
        };
        let grown = PAUSE_FIRST.saturating_mul(1 << (self.count - 1).min(16)).min(PAUSE_MAX);
        let node = &mut self.nodes[self.current];
        node.rests_until = now + asked_for.max(grown).mul_f64(1.0 + chance / 2.0);
        if matches!(error.code, ErrorCode::Connection | ErrorCode::Unavailable | ErrorCode::Internal) {
            node.setbacks += 1;
        }
        node.barred = refused_here || node.setbacks >= SETBACKS_MAX;
        if self.count >= ATTEMPTS_MAX {
            return Next::GiveUp;
        }
        let following = (1..=self.nodes.len()).map(|step| (self.current + step) % self.nodes.len());
        let next = following
            .filter(|node| !self.nodes[*node].barred)
            .min_by_key(|node| (is_silent(*node), self.nodes[*node].rests_until.max(now)));
        match next {
            Some(next) if self.nodes[next].rests_until.max(now) < self.until => {
                self.current = next;
                Next::Try(self.nodes[next].rests_until.since(now))
            }
            _ => Next::GiveUp,
        }
    }

    /// Whether the whole request may be made again, after it failed with `last`: it is as uncertain as its most
    /// uncertain attempt.
    pub fn verdict(&self, last: Retry) -> Retry {
        match (self.effect, last) {
            (Effect::Read, Retry::Unknown) => Retry::Safe,
            (Effect::Read, last) => last,
            _ if self.unknown => Retry::Unknown,
            (_, last) => last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn error(code: ErrorCode, retry: Retry) -> RpcError {
        RpcError::new(code, "test").with_retry(retry)
    }

    fn attempts(effect: Effect, nodes: usize) -> (Attempts, Time) {
        let now = Time::default();
        (Attempts::new(effect, nodes, 0, now, now + SECOND * 10), now)
    }

    #[test]
    fn a_failure_moves_on_to_the_next_node_at_once() {
        let (mut attempts, now) = attempts(Effect::SingleWrite, 3);
        for (code, node) in [(ErrorCode::Connection, 1), (ErrorCode::Unavailable, 2)] {
            assert_eq!(attempts.failed(&error(code, Retry::Safe), now, 0.0, |_| false), Next::Try(Duration::ZERO));
            assert_eq!(attempts.node(), node);
        }
        let Next::Try(pause) = attempts.failed(&error(ErrorCode::NotReady, Retry::Safe), now, 0.0, |_| false) else {
            panic!("all nodes failed once, which is no reason to give up")
        };
        assert_eq!((attempts.node(), pause), (0, PAUSE_FIRST), "the first rested longest");
    }

    #[test]
    fn a_node_rests_at_least_as_long_as_it_asked_for() {
        for chance in [0.0, 0.5, 1.0] {
            let (mut attempts, now) = attempts(Effect::SingleWrite, 1);
            let overloaded = error(ErrorCode::Overloaded, Retry::AfterMs(300));
            let Next::Try(pause) = attempts.failed(&overloaded, now, chance, |_| false) else {
                panic!("safe to retry")
            };
            assert!(pause >= Duration::from_millis(300) && pause <= Duration::from_millis(450), "{pause:?}");
        }
    }

    #[test]
    fn what_would_fail_again_is_not_tried_again() {
        for code in [ErrorCode::Invalid, ErrorCode::NotFound, ErrorCode::AlreadyExists, ErrorCode::Forbidden] {
            let (mut attempts, now) = attempts(Effect::Read, 3);
            assert_eq!(attempts.failed(&RpcError::new(code, "test"), now, 0.0, |_| false), Next::GiveUp);
        }
    }

    #[test]
    fn a_node_that_refuses_the_connection_is_left_alone_but_others_are_asked() {
        let (mut attempts, now) = attempts(Effect::SingleWrite, 2);
        let refused = error(ErrorCode::Connection, Retry::No);
        assert_eq!(attempts.failed(&refused, now, 0.0, |_| false), Next::Try(Duration::ZERO));
        let Next::Try(_) = attempts.failed(&error(ErrorCode::Overloaded, Retry::AfterMs(5)), now, 0.0, |_| false)
        else {
            panic!("the second node may be asked again")
        };
        assert_eq!(attempts.node(), 1);
        assert_eq!(attempts.failed(&refused, now, 0.0, |_| false), Next::GiveUp);
    }

    #[test]
    fn an_uncertain_write_is_repeated_only_where_that_does_no_harm() {
        let lost = error(ErrorCode::Connection, Retry::Unknown);
        for (effect, repeated, verdict) in [
            (Effect::Read, true, Retry::Safe),
            (Effect::RepeatableWrite, true, Retry::Unknown),
            (Effect::SingleWrite, false, Retry::Unknown),
        ] {
            let (mut attempts, now) = attempts(effect, 2);
            assert_eq!(
                attempts.failed(&lost, now, 0.0, |_| false) == Next::Try(Duration::ZERO),
                repeated,
                "{effect:?}"
            );
            assert_eq!(attempts.verdict(lost.retry), verdict, "{effect:?}");
        }
    }

    #[test]
    fn a_write_that_was_uncertain_once_stays_so() {
        let (mut attempts, now) = attempts(Effect::RepeatableWrite, 2);
        attempts.failed(&error(ErrorCode::Timeout, Retry::Unknown), now, 0.0, |_| false);
        attempts.failed(&error(ErrorCode::Unavailable, Retry::Safe), now, 0.0, |_| false);
        assert_eq!(attempts.verdict(Retry::Safe), Retry::Unknown);
    }

    #[test]
    fn attempts_end_by_count_by_setbacks_and_by_time() {
        let (mut busy, now) = attempts(Effect::Read, 3);
        let overloaded = error(ErrorCode::Overloaded, Retry::AfterMs(1));
        let tried = (0..).take_while(|_| busy.failed(&overloaded, now, 0.0, |_| false) != Next::GiveUp).count();
        assert_eq!(tried + 1, ATTEMPTS_MAX as usize);

        let (mut dead, now) = attempts(Effect::Read, 3);
        let gone = error(ErrorCode::Connection, Retry::AfterMs(1));
        let tried = (0..).take_while(|_| dead.failed(&gone, now, 0.0, |_| false) != Next::GiveUp).count();
        assert_eq!(tried + 1, 3 * SETBACKS_MAX as usize);

        let (mut late, now) = attempts(Effect::Read, 1);
        let patient = error(ErrorCode::Overloaded, Retry::AfterMs(10_000));
        assert_eq!(late.failed(&patient, now, 0.0, |_| false), Next::GiveUp, "the pause would outlast the deadline");
        let (mut over, now) = attempts(Effect::Read, 2);
        let lost = error(ErrorCode::Timeout, Retry::Safe);
        assert_eq!(over.failed(&lost, now + SECOND * 10, 0.0, |_| false), Next::GiveUp, "the deadline is now");
    }

    #[test]
    fn a_large_request_begins_with_the_node_that_rests_for_the_shortest_as_others_have_found() {
        let (mut attempts, now) = attempts(Effect::RepeatableWrite, 3);
        assert_eq!((attempts.begin(&[now; 3], now), attempts.node()), (Duration::ZERO, 0));
        let resting = [now + SECOND * 3, now + SECOND * 2, now + SECOND * 4];
        assert_eq!((attempts.begin(&resting, now), attempts.node()), (SECOND * 2, 1));
        let overloaded = error(ErrorCode::Overloaded, Retry::AfterMs(9_000));
        assert_eq!(attempts.failed(&overloaded, now, 0.0, |_| false), Next::Try(SECOND * 3));
        assert_eq!(attempts.node(), 0, "it rests for shorter than the others");
    }

    #[test]
    fn time_is_kept_for_another_node_where_there_is_one() {
        let (one, now) = attempts(Effect::Read, 1);
        assert_eq!(one.patience(now), 10 * SECOND);
        let (three, now) = attempts(Effect::Read, 3);
        assert_eq!(three.patience(now), 5 * SECOND);
        assert_eq!(three.patience(now + SECOND * 9), SECOND);
        assert_eq!(three.patience(now + SECOND * 11), Duration::ZERO);
        let (single, now) = attempts(Effect::SingleWrite, 3);
        assert_eq!(single.patience(now), 10 * SECOND, "an uncertain end could not be repeated");
    }
}
