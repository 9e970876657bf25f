//! Work of several steps, written down as asynchronous code and carried out by events.
//!
//! A [`Machine`] is a state machine that the compiler makes: its code waits for what other nodes answer and for time to
//! pass, and nothing else. [`Machine::step`] hands it what has arrived and the time, has it go on until it waits again, and
//! gives the commands that it wants carried out. There is no executor, thread or clock behind it, so the same events give
//! the same commands.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::time::{Now, Time};

/// Numbers the calls of one machine.
pub type CallId = u32;

/// What the code of a machine reads and writes: the time, what has arrived, the commands. `C` is a command, `A` what
/// arrives, `W` what is remembered of a call until it is answered.
pub struct Steps<C, A, W>(Arc<Mutex<Inner<C, A, W>>>);

struct Inner<C, A, W> {
    now: Now,
    commands: Vec<C>,
    arrived: VecDeque<(CallId, A)>,
    under_way: BTreeMap<CallId, W>,
    calls: CallId,
    /// When the code wants to go on though nothing has arrived.
    wake_at: Time,
}

impl<C, A, W> Clone for Steps<C, A, W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C, A, W> Steps<C, A, W> {
    /// Of a machine that begins now.
    pub fn new(now: Now) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            now,
            commands: Vec::new(),
            arrived: VecDeque::new(),
            under_way: BTreeMap::new(),
            calls: 0,
            wake_at: Time::NEVER,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<C, A, W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of this step.
    pub fn now(&self) -> Now {
        self.lock().now
    }

    /// Has a command carried out.
    pub fn command(&self, command: C) {
        self.lock().commands.push(command);
    }

    /// Begins a call: makes its command, and remembers `what` of it until it is answered.
    pub fn call(&self, what: W, command: impl FnOnce(CallId) -> C) -> CallId {
        let mut inner = self.lock();
        let call = inner.calls;
        inner.calls += 1;
        inner.under_way.insert(call, what);
        let command = command(call);
        inner.commands.push(command);
        call
    }

    /// A call that needs nobody to answer it: this is its answer.
    pub fn answered_call(&self, answer: A) -> CallId {
        let mut inner = self.lock();
        let call = inner.calls;
        inner.calls += 1;
        inner.arrived.push_back((call, answer));
        call
    }

    /// The next answer to a call, or nothing once it is `until`.
    pub async fn next(&self, until: Time) -> Option<(CallId, A)> {
        poll_fn(|_| {
            let mut inner = self.lock();
            if let Some(arrived) = inner.arrived.pop_front() {
                return Poll::Ready(Some(arrived));
            }
            inner.wait(until).map(|()| None)
        })
        .await
    }

    /// Waits until then. What arrives meanwhile stays.
    pub async fn pause(&self, until: Time) {
        poll_fn(|_| self.lock().wait(until)).await;
    }
}

impl<C, A, W> Inner<C, A, W> {
    fn wait(&mut self, until: Time) -> Poll<()> {
        if self.now.time >= until {
            return Poll::Ready(());
        }
        self.wake_at = until;
        Poll::Pending
    }
}

/// What came of a step.
pub struct Stepped<C> {
    /// To be carried out, in this order.
    pub commands: Vec<C>,
    /// When to step again though nothing has arrived.
    pub wake_at: Time,
    /// Whether this was the last step.
    pub is_done: bool,
}

/// Work of several steps.
pub struct Machine<C, A, W> {
    steps: Steps<C, A, W>,
    code: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<C, A, W> Machine<C, A, W> {
    /// A machine of this code, which waits for nothing but `steps`.
    pub fn new(steps: Steps<C, A, W>, code: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { steps, code: Box::pin(code) }
    }

    /// What was remembered of a call, which is answered now; nothing where it was answered before.
    pub fn answered(&mut self, call: CallId) -> Option<W> {
        self.steps.lock().under_way.remove(&call)
    }

    /// What is remembered of the calls that are not answered yet, by a machine that has ended.
    pub fn into_under_way(self) -> BTreeMap<CallId, W> {
        std::mem::take(&mut self.steps.lock().under_way)
    }

    /// The calls that are not answered yet.
    pub fn under_way<T>(&self, look: impl FnMut((&CallId, &W)) -> Option<T>) -> Vec<T> {
        self.steps.lock().under_way.iter().filter_map(look).collect()
    }

    /// Goes on until there is nothing to do but to wait.
    pub fn step(&mut self, now: Now, arrived: Option<(CallId, A)>) -> Stepped<C> {
        {
            let mut inner = self.steps.lock();
            inner.now = now;
            inner.wake_at = Time::NEVER;
            inner.arrived.extend(arrived);
        }
        let is_done = self.code.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let mut inner = self.steps.lock();
        Stepped { commands: std::mem::take(&mut inner.commands), wake_at: inner.wake_at, is_done }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> Now {
        Now { time: Time::default() + Duration::from_millis(ms), wall_ms: ms }
    }

    #[test]
    fn code_goes_on_with_what_arrives_or_when_its_time_has_come() {
        let steps: Steps<String, u32, ()> = Steps::new(at(0));
        let code = {
            let steps = steps.clone();
            async move {
                let call = steps.call((), |call| format!("call {call}"));
                let until = steps.now().time + Duration::from_millis(10);
                assert_eq!(steps.next(until).await, Some((call, 7)));
                assert_eq!(steps.next(until).await, None);
                steps.command(format!("late at {}", steps.now().wall_ms));
                steps.pause(until + Duration::from_millis(5)).await;
                assert_eq!(steps.next(Time::NEVER).await, Some((9, 8)), "it came during the pause, and stayed");
            }
        };
        let mut machine = Machine::new(steps, code);
        let first = machine.step(at(0), None);
        assert_eq!((first.commands, first.wake_at, first.is_done), (vec!["call 0".to_owned()], at(10).time, false));
        assert_eq!(machine.answered(0), Some(()));
        assert_eq!(machine.answered(0), None, "an answer that comes twice counts once");
        assert!(machine.step(at(3), Some((0, 7))).commands.is_empty());
        let late = machine.step(at(10), None);
        assert_eq!((late.commands, late.wake_at), (vec!["late at 10".to_owned()], at(15).time));
        assert!(!machine.step(at(12), Some((9, 8))).is_done);
        assert!(machine.step(at(15), None).is_done);
    }
}
