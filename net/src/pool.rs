//! One dialled connection to each address for each class of work, made on demand, shared by calls and gossip.
//!
//! However many callers want an address, one dial at a time is under way to it; it runs in its own task, so that a caller
//! who gives up does not take it along. After a failure the address rests for a while, and callers are told at once
//! since when and why it cannot be reached.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};
use vecino_supervise::caught_async;

use crate::connection::{Connection, DialError, dial};
use crate::dialler::Dialler;
use crate::message::ConnectionClass;

/// Most addresses that are remembered, counted once for each class.
const ADDRESSES_MAX: usize = 4096;
/// Pause after the first failure; it doubles with each further one up to `back_off_max`.
const BACK_OFF_FIRST: Duration = Duration::from_millis(50);

/// Where a connection leads, and what it is for.
type Place = (SocketAddr, ConnectionClass);

/// Connections by address and class.
pub(crate) struct Pool {
    dialler: Arc<Dialler>,
    slots: Mutex<HashMap<Place, Slot>>,
}

enum Slot {
    Dialling { outcome: watch::Receiver<Option<Outcome>>, failures: Option<Failures> },
    Ready(Arc<Connection>),
    Resting { failures: Failures, error: Arc<DialError>, until: Instant },
}

type Outcome = Result<Arc<Connection>, PoolError>;

/// Failures in a row.
#[derive(Clone, Copy)]
struct Failures {
    since: Instant,
    count: u32,
}

/// Why there is no connection to an address.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PoolError {
    /// The attempt that the caller waited for failed.
    #[error("{address} cannot be reached: {error}")]
    Failed { address: SocketAddr, error: Arc<DialError>, retry_after: Duration },
    /// An earlier attempt failed and the next one is not due.
    #[error("{address} has not been reachable for {down_for:.1?}: {error}; next attempt in {retry_after:.1?}")]
    Resting { address: SocketAddr, down_for: Duration, error: Arc<DialError>, retry_after: Duration },
    /// No more addresses are remembered.
    #[error("{ADDRESSES_MAX} addresses are in use, {0} would be one more")]
    Full(SocketAddr),
}

impl PoolError {
    /// When another attempt makes sense.
    pub(crate) fn retry_after(&self) -> Duration {
        match self {
            Self::Failed { retry_after, .. } | Self::Resting { retry_after, .. } => *retry_after,
            Self::Full(_) => Duration::from_secs(1),
        }
    }

    /// Whether one side refused the other, which trying again will not mend.
    pub(crate) fn refused(&self) -> bool {
        let (Self::Failed { error, .. } | Self::Resting { error, .. }) = self else { return false };
        matches!(**error, DialError::Refused(_))
    }
}

impl Pool {
    /// A pool with no connection yet.
    pub(crate) fn new(dialler: Arc<Dialler>) -> Arc<Self> {
        Arc::new(Self { dialler, slots: Mutex::default() })
    }

    /// What the pool dials with.
    pub(crate) fn dialler(&self) -> &Dialler {
        &self.dialler
    }

    /// The connection of this class to `address`, dialled if there is none.
    pub(crate) async fn connection(self: &Arc<Self>, address: SocketAddr, class: ConnectionClass) -> Outcome {
        let place = (address, class);
        let mesh = self.dialler.identity().and_then(|own| own.mesh_id);
        let mut outcome = {
            let mut slots = self.lock();
            let now = Instant::now();
            match slots.get(&place) {
                Some(Slot::Ready(connection)) if connection.is_usable(mesh) => return Ok(Arc::clone(connection)),
                Some(Slot::Dialling { outcome, .. }) => outcome.clone(),
                Some(Slot::Resting { failures, error, until }) if now < *until => {
                    return Err(PoolError::Resting {
                        address,
                        down_for: now - failures.since,
                        error: Arc::clone(error),
                        retry_after: *until - now,
                    });
                }
                Some(Slot::Resting { failures, .. }) => {
                    let failures = *failures;
                    start(&mut slots, self, place, Some(failures))
                }
                Some(Slot::Ready(_)) => start(&mut slots, self, place, None),
                None => {
                    make_room(&mut slots, now).map_err(|()| PoolError::Full(address))?;
                    start(&mut slots, self, place, None)
                }
            }
        };
        let outcome = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| {
            Err(PoolError::Failed { address, error: Arc::new(DialError::Closed), retry_after: Duration::ZERO })
        })
    }

    /// Number of packets that have come on the open connection of this class to `address`; nothing where there is none.
    pub(crate) fn received(&self, address: SocketAddr, class: ConnectionClass) -> Option<u64> {
        match self.lock().get(&(address, class)) {
            Some(Slot::Ready(connection)) => Some(connection.quic.stats().udp_rx.datagrams),
            _ => None,
        }
    }

    /// Forgets all connections.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Lets the next caller dial at once: there are signs that the node at `address` is back.
    pub(crate) fn wake(&self, address: SocketAddr) {
        let mut slots = self.lock();
        for class in [ConnectionClass::Ordinary, ConnectionClass::Bulk] {
            if let Some(Slot::Resting { until, .. }) = slots.get_mut(&(address, class)) {
                *until = Instant::now();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(slots: &mut HashMap<Place, Slot>, now: Instant) -> Result<(), ()> {
    if slots.len() >= ADDRESSES_MAX {
        slots.retain(|_, slot| match slot {
            Slot::Dialling { .. } => true,
            Slot::Ready(connection) => connection.quic.close_reason().is_none(),
            Slot::Resting { until, .. } => now < *until,
        });
    }
    if slots.len() < ADDRESSES_MAX { Ok(()) } else { Err(()) }
}

fn start(
    slots: &mut HashMap<Place, Slot>,
    pool: &Arc<Pool>,
    place: Place,
    failures: Option<Failures>,
) -> watch::Receiver<Option<Outcome>> {
    let (sender, receiver) = watch::channel(None);
    slots.insert(place, Slot::Dialling { outcome: receiver.clone(), failures });
    let pool = Arc::clone(pool);
    tokio::spawn(async move {
        // Whoever waits for the connection is told even if dialling panics.
        let dialled = caught_async("dialling a node", dial(&pool.dialler, place.0, place.1)).await;
        let result = dialled.unwrap_or_else(|panic| Err(DialError::Panicked { message: panic.to_string() }));
        sender.send_replace(Some(settle(&pool, place, result)));
    });
    receiver
}

/// Records how a dial went, and logs what a person should know.
fn settle(pool: &Pool, place: Place, result: Result<Connection, DialError>) -> Outcome {
    let (address, class) = place;
    let now = Instant::now();
    let mut slots = pool.lock();
    let earlier = match slots.get(&place) {
        Some(Slot::Dialling { failures, .. }) => *failures,
        _ => None,
    };
    match result {
        Ok(connection) => {
            debug!(%address, node = %connection.peer.node_id.short(), ?class, "connected");
            let connection = Arc::new(connection);
            slots.insert(place, Slot::Ready(Arc::clone(&connection)));
            Ok(connection)
        }
        Err(error) => {
            let error = Arc::new(error);
            let failures = Failures {
                since: earlier.map_or(now, |failures| failures.since),
                count: earlier.map_or(1, |failures| failures.count.saturating_add(1)),
            };
            let retry_after = back_off(failures.count, pool.dialler.back_off_max, fastrand::f64());
            slots.insert(place, Slot::Resting { failures, error: error.clone(), until: now + retry_after });
            drop(slots);
            match &*error {
                DialError::Refused(reason) if pool.dialler.log_limit.allows_hourly(&format!("{address} {reason}")) => {
                    let reason = reason.to_string();
                    warn!(%address, reason, "connection to node refused");
                }
                _ => debug!(%address, %error, attempts = failures.count, "node cannot be reached"),
            }
            Err(PoolError::Failed { address, error, retry_after })
        }
    }
}

/// How long to rest after `failures` in a row: doubling, with the upper half of each pause drawn by `chance`
/// (0 to 1), so that many nodes do not dial in step.
fn back_off(failures: u32, longest: Duration, chance: f64) -> Duration {
    let doubled = BACK_OFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    doubled.mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread() {
        let longest = Duration::from_secs(1);
        let pauses: Vec<_> = (1..=8).map(|failures| back_off(failures, longest, 1.0).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(back_off(u32::MAX, longest, 0.0), Duration::from_millis(500));
    }
}
