//! Admission: which connections and requests are taken, how many at once, how much memory they take, and what becomes
//! of one that runs too long or panics.
//!
//! Every front door of a node goes through the same [`Admission`]: the QUIC endpoint does, and so does any other that
//! is to come. A door opens a [`Share`] for each connection ([`Admission::connect`]). For each request it takes a place
//! among those that arrive ([`Admission::arriving`]) and reads the body under its bounds ([`Admission::body`]). Once
//! the request is there as a whole, and no sooner, it asks for a permit ([`Admission::admit`]), and has the work done
//! by [`Admitted::run`].
//!
//! Every [`Class`] of requests has permits and bytes of its own, so that none keeps another out. Nothing waits for a
//! permit: what is one too many is told when to come again. So what waits here are bodies that arrive, and these are
//! bounded in number and bytes here, and in time by the door.

mod body;
mod class;
mod connections;
mod gauge;
mod limits;
mod memory;
mod pace;

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::error;

use crate::error::{ErrorCode, Retry, RpcError};
use crate::message::{ConnectionClass, Kind};
use crate::rpc::RequestContext;

pub use body::{BodyBytes, NoRoom};
pub use class::{BRIEF_DEADLINE_MAX, ByClass, Class, deadline_max};
use connections::{Connections, Place};
pub use connections::{Party, TooMany};
pub use gauge::{Gauge, Taken};
pub use limits::{AdmissionLimits, ClassLimits, ConnectionLimits};
pub use memory::{CountMemory, NoMemory};
use memory::{Counted, Memory};
use pace::Paces;

/// Shortest advice to a caller that was turned away by a full node; up to as much again is added by chance.
const OVERLOAD_RETRY: Duration = Duration::from_millis(50);
/// Longest such advice, where requests of that kind usually take longer.
const OVERLOAD_RETRY_MAX: Duration = Duration::from_secs(2);
/// What a request takes of memory beside its body as it came: decoded, and as what is sent on for it.
const COPIES_OF_A_BODY: u64 = 3;
/// Streams of a node beside those that it asks for requests of clients: agreement, snapshots, statistics.
const OTHER_STREAMS: usize = 256;

/// Decides which connections and requests a node takes. Doors share one.
pub struct Admission {
    limits: AdmissionLimits,
    requests: ByClass<Arc<Gauge>>,
    body_bytes: ByClass<Arc<Gauge>>,
    connections: Arc<Connections>,
    paces: Paces,
    memory: Arc<Memory>,
    in_flight: watch::Sender<usize>,
    stopping: watch::Sender<bool>,
}

/// One connection's share of what a node takes. The connection counts until this is dropped.
pub struct Share {
    place: Place,
    requests: ByClass<Arc<Gauge>>,
    body_bytes: ByClass<Arc<Gauge>>,
}

/// A request that may be worked on. It counts until it is dropped.
pub struct Admitted {
    admission: Arc<Admission>,
    kind: &'static Kind,
    _permits: [Taken; 3],
}

impl Admission {
    /// Admission by these limits. `count_memory` counts what requests take against the memory of the node.
    pub fn new(limits: AdmissionLimits, count_memory: Box<CountMemory>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            requests: ByClass::new(|class| Gauge::new(limits.classes[class].requests as u64)),
            body_bytes: ByClass::new(|class| Gauge::new(limits.classes[class].body_bytes as u64)),
            connections: Connections::new(limits),
            paces: Paces::default(),
            memory: Memory::new(count_memory),
            in_flight: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
        })
    }

    /// Admission by these limits for a service that counts no memory.
    pub fn uncounted(limits: AdmissionLimits) -> Arc<Self> {
        Self::new(limits, Box::new(|_| Ok(Box::new(()))))
    }

    /// Takes a place for a connection of which it is not known yet whose it is; nothing where all of them are taken.
    pub fn greet(&self) -> Option<Taken> {
        self.connections.greet()
    }

    /// Whether a caller must show that it receives at its address before it gets a place: many places are taken.
    pub fn is_crowded(&self) -> bool {
        self.connections.is_crowded()
    }

    /// Takes a connection.
    ///
    /// # Errors
    /// When there are as many connections of this certificate as one may have, or as many of all clients as they may have.
    pub fn connect(&self, party: Party) -> Result<Share, TooMany> {
        let place = self.connections.enter(party)?;
        let classes = &self.limits.classes;
        Ok(Share {
            place,
            requests: ByClass::new(|class| Gauge::new(classes[class].requests_per_connection as u64)),
            body_bytes: ByClass::new(|class| Gauge::new(classes[class].body_bytes_per_connection as u64)),
        })
    }

    /// Most requests that a connection of this class may have open, those included that still arrive. Of clients they
    /// are twice as many as permits, so that a caller beyond the limit is answered instead of left waiting. A node
    /// waits for its own turn instead: what it asks for a client must not be lost.
    pub fn streams_max(&self, share: &Share, class: ConnectionClass) -> u32 {
        let permits = |class: Class| self.limits.classes[class].requests_per_connection;
        let streams = match (share.place.party(), class) {
            (Party::Client(_), _) => permits(Class::Client).saturating_mul(2),
            (Party::Peer(_), ConnectionClass::Ordinary) => permits(Class::Replica).saturating_add(OTHER_STREAMS),
            (Party::Peer(_), ConnectionClass::Bulk) => permits(Class::Repair).saturating_mul(2),
        };
        u32::try_from(streams).unwrap_or(u32::MAX).max(2)
    }

    /// Takes a place for a request of which nothing has come yet. It is held until the request is there as a whole.
    ///
    /// # Errors
    /// [`ErrorCode::Overloaded`] where as many requests of the certificate are on their way as may be.
    pub fn arriving(&self, share: &Share) -> Result<Taken, RpcError> {
        let gauge = &share.place.holder.arriving;
        gauge.take(1).ok_or_else(|| {
            let limit = gauge.max();
            let message =
                format!("{limit} requests of this certificate are on their way, the most it may have: try again");
            overloaded(message, None)
        })
    }

    /// The bounds that a body of this class is read under.
    pub fn body(&self, share: &Share, class: Class) -> BodyBytes {
        let bounds = [&share.body_bytes[class], &share.place.holder.body_bytes[class], &self.body_bytes[class]];
        BodyBytes::new(bounds, &self.memory)
    }

    /// Takes a request that is there as a whole.
    ///
    /// # Errors
    /// [`ErrorCode::NotReady`] where the node is stopping. [`ErrorCode::Timeout`] where the deadline has passed.
    /// [`ErrorCode::Overloaded`] where it is shorter than such requests usually take, and where the connection, the
    /// certificate or the node has as many requests of this class under way as it takes. It never waits.
    pub fn admit(
        self: &Arc<Self>,
        share: &Share,
        class: Class,
        kind: &'static Kind,
        deadline: Instant,
    ) -> Result<Admitted, RpcError> {
        self.check_running()?;
        let now = Instant::now();
        let usual = self.paces.usual(kind.number, now);
        check_deadline(kind.name, deadline.saturating_duration_since(now), usual)?;
        let take = |what: &str, gauge: &Arc<Gauge>| {
            let full = || format!("{what} has {} {} under way, the most it takes", gauge.max(), class.name());
            gauge.take(1).ok_or_else(|| overloaded(format!("{}: try again a little later", full()), usual))
        };
        let own = take("this connection", &share.requests[class])?;
        let certificate = take("this certificate", &share.place.holder.requests[class])?;
        let all = take("this node", &self.requests[class])?;
        Ok(Admitted { admission: Arc::clone(self), kind, _permits: [own, certificate, all] })
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

    /// Counts what the work on a request takes of memory.
    fn count_memory(&self, body_bytes: usize, kind: &Kind) -> Result<Counted, RpcError> {
        let mut counted = self.memory.nothing();
        let count = self.memory.count(&mut counted, body_bytes, COPIES_OF_A_BODY * body_bytes as u64);
        count.map(|()| counted).map_err(|error| {
            let message = format!("no memory for the {body_bytes} bytes of a {}: {error}", kind.name);
            overloaded(message, self.paces.usual(kind.number, Instant::now()))
        })
    }
}

impl Admitted {
    /// Does the work of a request under its trace. The deadline ends it, a panic costs this request and nothing else,
    /// and its body of `body_bytes` counts as memory meanwhile.
    ///
    /// # Errors
    /// What the work gives, [`ErrorCode::Overloaded`] where there is no memory for it, [`ErrorCode::Timeout`] when the
    /// deadline has passed, [`ErrorCode::Internal`] after a panic.
    pub async fn run<T>(
        &self,
        context: &RequestContext,
        body_bytes: usize,
        work: impl Future<Output = Result<T, RpcError>>,
    ) -> Result<T, RpcError> {
        let Self { admission, kind, .. } = self;
        let _memory = admission.count_memory(body_bytes, kind)?;
        let (trace, name, began) = (context.trace, kind.name, Instant::now());
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
        let result = timeout_at(context.deadline, trace.scope(fenced)).await.unwrap_or_else(|_| {
            let message = format_args!("{name} was not done before its deadline");
            Err(RpcError::new(ErrorCode::Timeout, message))
        });
        // What takes as long as there is data says nothing of the next one, and neither does a refusal.
        let tells = result.as_ref().map_or_else(|error| error.code == ErrorCode::Timeout, |_| true);
        if tells && deadline_max(kind) <= BRIEF_DEADLINE_MAX {
            let now = Instant::now();
            admission.paces.done(kind.number, now - began, now);
        }
        result
    }
}

/// A request under way.
pub struct InFlight(Arc<Admission>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|count| *count -= 1);
    }
}

impl From<NoRoom> for RpcError {
    fn from(error: NoRoom) -> Self {
        overloaded(error.to_string(), None)
    }
}

impl From<TooMany> for RpcError {
    fn from(error: TooMany) -> Self {
        overloaded(error.to_string(), Some(OVERLOAD_RETRY_MAX))
    }
}

/// Refuses a request whose deadline cannot be met: `left` is the time to it, `usual` what such a request takes.
fn check_deadline(name: &str, left: Duration, usual: Option<Duration>) -> Result<(), RpcError> {
    if left.is_zero() {
        let message = format_args!("the deadline of {name} had passed when it was there as a whole; nothing was done");
        return Err(RpcError::new(ErrorCode::Timeout, message).with_retry(Retry::Safe));
    }
    match usual {
        Some(usual) if usual > left => {
            let message = format!(
                "{name} takes {usual:.1?} here at present, and its deadline leaves {left:.1?}; nothing was done: try \
                 again a little later, or with a longer deadline"
            );
            Err(overloaded(message, Some(usual)))
        }
        _ => Ok(()),
    }
}

/// Too much is under way. A caller comes again after about as long as such a request usually takes.
fn overloaded(message: String, usual: Option<Duration>) -> RpcError {
    let pause = usual.unwrap_or_default().clamp(OVERLOAD_RETRY, OVERLOAD_RETRY_MAX);
    let pause = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
    RpcError { code: ErrorCode::Overloaded, message, retry: Retry::AfterMs(pause + fastrand::u32(..=pause)) }
}

#[cfg(test)]
mod tests;
