//! Admission: which requests are taken, how many at once, how much memory they take, and what becomes of one that runs too
//! long or panics.
//!
//! Every front door of a node goes through the same [`Admission`]: the QUIC endpoint does, and so does any other that
//! is to come. A door opens a [`Share`] for each connection, asks it for a permit with [`Admission::admit`], reads the
//! body under the [`BodyBudget`], and has the work done by [`Admitted::run`].

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{timeout, timeout_at};
use tracing::error;

use crate::error::{ErrorCode, Retry, RpcError};
use crate::rpc::RequestContext;

/// Shortest advice to a caller that was turned away by a full node; up to as much again is added by chance.
pub(crate) const OVERLOAD_RETRY_MS: u32 = 50;
/// Unit in which a [`BodyBudget`] is counted.
const BUDGET_UNIT_BYTES: usize = 4 * 1024;
/// What a request takes of memory beside its body as it came: decoded, and as what is sent on for it.
const COPIES_OF_A_BODY: u64 = 3;

/// What a node takes at a time.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// Most requests over all doors.
    pub requests: usize,
    /// Most requests of one connection.
    pub requests_per_connection: usize,
    /// Most bytes of request bodies in memory.
    pub body_bytes: usize,
}

/// Counts bytes as memory in use until what it gives is dropped.
pub type CountMemory = dyn Fn(u64) -> Box<dyn Send + Sync> + Send + Sync;

/// Decides which requests a node takes. Doors share one.
pub struct Admission {
    limits: AdmissionLimits,
    permits: Arc<Semaphore>,
    bodies: BodyBudget,
    count_memory: Box<CountMemory>,
    in_flight: watch::Sender<usize>,
    stopping: watch::Sender<bool>,
}

/// One connection's share of what a node takes.
pub struct Share {
    permits: Arc<Semaphore>,
}

/// A request that may be worked on. It counts until it is dropped.
pub struct Admitted {
    admission: Arc<Admission>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Admission {
    /// Admission by these limits. `count_memory` counts what requests take against the memory of the node.
    pub fn new(limits: AdmissionLimits, count_memory: Box<CountMemory>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            permits: Arc::new(Semaphore::new(limits.requests.min(Semaphore::MAX_PERMITS))),
            bodies: BodyBudget::new(limits.body_bytes),
            count_memory,
            in_flight: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
        })
    }

    /// Admission by these limits for a service that counts no memory.
    pub fn uncounted(limits: AdmissionLimits) -> Arc<Self> {
        Self::new(limits, Box::new(|_| Box::new(())))
    }

    /// The share of a connection that was just made.
    pub fn share(&self) -> Share {
        Share { permits: Arc::new(Semaphore::new(self.limits.requests_per_connection.min(Semaphore::MAX_PERMITS))) }
    }

    /// Takes a request of a connection.
    ///
    /// # Errors
    /// [`ErrorCode::NotReady`] where the node is stopping, [`ErrorCode::Overloaded`] where the connection or the node
    /// has as many requests under way as it takes. It never waits.
    pub fn admit(self: &Arc<Self>, share: &Share) -> Result<Admitted, RpcError> {
        self.check_running()?;
        let AdmissionLimits { requests, requests_per_connection, .. } = self.limits;
        let own = Arc::clone(&share.permits).try_acquire_owned();
        let own = own.map_err(|_| overloaded("this connection", requests_per_connection))?;
        let all = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| overloaded("this node", requests))?;
        Ok(Admitted { admission: Arc::clone(self), _permits: [own, all] })
    }

    /// Refuses where the node is stopping.
    ///
    /// # Errors
    /// [`ErrorCode::NotReady`].
    pub fn check_running(&self) -> Result<(), RpcError> {
        if self.is_stopping() {
            return Err(RpcError::new(ErrorCode::NotReady, "the node is stopping: ask another one"));
        }
        Ok(())
    }

    /// The bound on request bodies in memory.
    pub fn bodies(&self) -> &BodyBudget {
        &self.bodies
    }

    /// Counts a request as under way, answering included, until the value is dropped: a node that stops waits for it.
    pub fn in_flight(self: &Arc<Self>) -> InFlight {
        self.in_flight.send_modify(|count| *count += 1);
        InFlight(Arc::clone(self))
    }

    /// Turns requests away from now on.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether requests are turned away since the node stops.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until no request is under way, for `grace` at the most. Gives the number of those that still are.
    pub async fn drained(&self, grace: Duration) -> usize {
        let mut in_flight = self.in_flight.subscribe();
        let drained = timeout(grace, in_flight.wait_for(|count| *count == 0)).await;
        if drained.is_ok() { 0 } else { *self.in_flight.borrow() }
    }
}

impl Admitted {
    /// Does the work of a request under its trace. The deadline ends it, a panic costs this request and nothing else, and
    /// its body of `body_bytes` counts as memory meanwhile. `name` says in errors what was asked.
    ///
    /// # Errors
    /// What the work gives, [`ErrorCode::Timeout`] when the deadline has passed, [`ErrorCode::Internal`] after a panic.
    pub async fn run<T>(
        &self,
        context: &RequestContext,
        name: &str,
        body_bytes: usize,
        work: impl Future<Output = Result<T, RpcError>>,
    ) -> Result<T, RpcError> {
        let _memory = (self.admission.count_memory)(COPIES_OF_A_BODY * body_bytes as u64);
        let trace = context.trace;
        let fenced = async {
            let mut work = std::pin::pin!(work);
            poll_fn(move |task| {
                catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(task))).unwrap_or_else(|_| {
                    error!(%trace, kind = name, "the service panicked");
                    let message = format_args!("the node failed at {name}; its log has more under trace {trace}");
                    Poll::Ready(Err(RpcError::new(ErrorCode::Internal, message)))
                })
            })
            .await
        };
        timeout_at(context.deadline, trace.scope(fenced)).await.unwrap_or_else(|_| {
            let message = format_args!("{name} was not done before its deadline");
            Err(RpcError::new(ErrorCode::Timeout, message))
        })
    }
}

/// A request under way.
pub struct InFlight(Arc<Admission>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|count| *count -= 1);
    }
}

/// A bound on the bytes of request bodies in memory, over all doors.
pub struct BodyBudget {
    units: Arc<Semaphore>,
    bytes_max: usize,
}

/// What one body holds of a [`BodyBudget`]; it goes back when dropped.
#[derive(Debug, Default)]
pub struct BodyBytes(Option<OwnedSemaphorePermit>);

/// Too many bytes of request bodies are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bodies of other requests take all {0} bytes that are set aside for them")]
pub struct NoRoom(usize);

impl BodyBudget {
    fn new(bytes_max: usize) -> Self {
        let units = (bytes_max / BUDGET_UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), bytes_max }
    }

    /// Grows `held` to cover `bytes`. It never waits, so that no two bodies can wait for each other.
    ///
    /// # Errors
    /// When there is no room for so much more.
    pub fn cover(&self, held: &mut BodyBytes, bytes: usize) -> Result<(), NoRoom> {
        let units = held.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(BUDGET_UNIT_BYTES).saturating_sub(units);
        if missing == 0 {
            return Ok(());
        }
        let no_room = NoRoom(self.bytes_max);
        let missing = u32::try_from(missing).map_err(|_| no_room)?;
        let more = Arc::clone(&self.units).try_acquire_many_owned(missing).map_err(|_| no_room)?;
        match &mut held.0 {
            Some(permit) => permit.merge(more),
            None => held.0 = Some(more),
        }
        Ok(())
    }
}

impl From<NoRoom> for RpcError {
    fn from(error: NoRoom) -> Self {
        Self { code: ErrorCode::Overloaded, message: error.to_string(), retry: Retry::AfterMs(OVERLOAD_RETRY_MS) }
    }
}

fn overloaded(what: &str, limit: usize) -> RpcError {
    RpcError {
        code: ErrorCode::Overloaded,
        message: format!("{what} has {limit} requests under way, the most it takes: try again a little later"),
        retry: Retry::AfterMs(OVERLOAD_RETRY_MS + fastrand::u32(..=OVERLOAD_RETRY_MS)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::time::Instant;

    use super::*;
    use crate::rpc::{Caller, TraceId};

    const LIMITS: AdmissionLimits = AdmissionLimits { requests: 3, requests_per_connection: 2, body_bytes: 8 * 1024 };

    fn context(patience: Duration) -> RequestContext {
        RequestContext::new(Caller::Client("test".into()), Instant::now() + patience, TraceId::from_bytes([7; 16]))
    }

    #[test]
    fn a_connection_and_the_node_take_so_many_requests_and_more_are_told_when_to_come_again() {
        let admission = Admission::uncounted(LIMITS);
        let (one, other) = (admission.share(), admission.share());
        let taken = [admission.admit(&one).unwrap(), admission.admit(&one).unwrap()];
        let refused = admission.admit(&one).map(drop).unwrap_err();
        assert!(refused.message.contains("this connection has 2") && refused.retry_after().is_some(), "{refused}");
        let third = admission.admit(&other).unwrap();
        let refused = admission.admit(&other).map(drop).unwrap_err();
        assert!(refused.code == ErrorCode::Overloaded && refused.message.contains("this node has 3"), "{refused}");
        drop((taken, third));
        assert!(admission.admit(&one).is_ok());
        admission.stop();
        assert_eq!(admission.admit(&one).map(drop).unwrap_err().code, ErrorCode::NotReady);
    }

    #[tokio::test]
    async fn a_panic_costs_its_request_a_deadline_ends_it_and_its_body_counts_as_memory_meanwhile() {
        let counted = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&counted);
        let admission =
            Admission::new(LIMITS, Box::new(move |bytes| Box::new(seen.fetch_add(bytes, Ordering::Relaxed))));
        let admitted = admission.admit(&admission.share()).unwrap();
        let hour = context(Duration::from_secs(3600));
        let current = admitted.run(&hour, "Put", 100, async { Ok(TraceId::current()) }).await;
        assert_eq!(current.unwrap(), Some(hour.trace));
        assert_eq!(counted.load(Ordering::Relaxed), 300);
        let panicked = admitted.run(&hour, "Put", 0, async { panic!("on purpose") }).await;
        let panicked: RpcError = panicked.map(|(): ()| ()).unwrap_err();
        assert!(panicked.code == ErrorCode::Internal && panicked.message.contains("Put"), "{panicked}");
        let late = admitted.run(&context(Duration::ZERO), "Get", 0, std::future::pending::<Result<(), _>>()).await;
        assert_eq!(late.unwrap_err().code, ErrorCode::Timeout);
    }

    #[tokio::test]
    async fn a_node_that_stops_waits_for_what_is_under_way() {
        let admission = Admission::uncounted(LIMITS);
        let request = admission.in_flight();
        assert_eq!(admission.drained(Duration::from_millis(1)).await, 1);
        drop(request);
        assert_eq!(admission.drained(Duration::from_secs(30)).await, 0);
    }

    #[test]
    fn bodies_beyond_the_budget_are_refused_and_what_is_dropped_makes_room() {
        let budget = BodyBudget::new(8 * 1024);
        let (mut one, mut other) = (BodyBytes::default(), BodyBytes::default());
        budget.cover(&mut one, 4_000).unwrap();
        budget.cover(&mut one, 4_096).unwrap();
        budget.cover(&mut other, 1).unwrap();
        assert_eq!(budget.cover(&mut one, 4_097), Err(NoRoom(8 * 1024)));
        drop(other);
        assert_eq!(budget.cover(&mut one, 8_000), Ok(()));
    }
}
