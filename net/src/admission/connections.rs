//! Which connections a node accepts: so many of clients, so many of one certificate, and always some of nodes.
//!
//! What a certificate may have under way over all of its connections is counted here too. It is forgotten when the last
//! connection of the certificate ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::class::ByClass;
use super::gauge::{Gauge, Taken};
use super::limits::{AdmissionLimits, ConnectionLimits};

/// Whose connection it is, by the hash of the key that TLS proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// A client's.
    Client([u8; 16]),
    /// A node's.
    Peer([u8; 16]),
}

/// A connection is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// Of one certificate.
    #[error("this certificate has {0} connections here, the most it may have: close some, or try again later")]
    OfCertificate(usize),
    /// Of clients.
    #[error("this node has {0} connections of clients, the most it takes: ask another node, or try again later")]
    OfClients(usize),
    /// At all.
    #[error("this node has {0} connections, the most it takes: ask another node, or try again later")]
    OfAll(usize),
}

/// What one certificate has under way over all of its connections.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) requests: ByClass<Arc<Gauge>>,
    pub(crate) body_bytes: ByClass<Arc<Gauge>>,
    pub(crate) arriving: Arc<Gauge>,
}

/// The connections that have said hello.
pub(crate) struct Connections {
    limits: AdmissionLimits,
    open: Mutex<Open>,
    greeting: Arc<Gauge>,
}

/// How many connections are open, and whose.
#[derive(Default)]
struct Open {
    clients: usize,
    all: usize,
    holders: HashMap<Party, (usize, Arc<Holder>)>,
}

/// The place of one connection. It is free again when this is dropped.
pub(crate) struct Place {
    connections: Arc<Connections>,
    party: Party,
    pub(crate) holder: Arc<Holder>,
}

impl Connections {
    /// No connections yet.
    pub(crate) fn new(limits: AdmissionLimits) -> Arc<Self> {
        let greeting = Gauge::new(limits.connections.greeting as u64);
        Arc::new(Self { limits, open: Mutex::default(), greeting })
    }

    /// Takes a place for a connection that has not said hello yet, where there is one.
    pub(crate) fn greet(&self) -> Option<Taken> {
        let full = self.lock().all >= self.limits.connections.connections;
        if full { None } else { self.greeting.take(1) }
    }

    /// Whether half of the places are taken, of either sort.
    pub(crate) fn is_crowded(&self) -> bool {
        let ConnectionLimits { connections, .. } = self.limits.connections;
        self.lock().all >= connections.div_ceil(2) || self.greeting.used() >= self.greeting.max().div_ceil(2)
    }

    /// Takes a place for a connection that has said hello.
    pub(crate) fn enter(self: &Arc<Self>, party: Party) -> Result<Place, TooMany> {
        let holder = self.lock().enter(party, &self.limits)?;
        Ok(Place { connections: Arc::clone(self), party, holder })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whose connection it is.
    pub(crate) fn party(&self) -> Party {
        self.party
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().leave(self.party);
    }
}

impl Open {
    fn enter(&mut self, party: Party, limits: &AdmissionLimits) -> Result<Arc<Holder>, TooMany> {
        let ConnectionLimits { connections, per_client, per_peer, .. } = limits.connections;
        let (is_client, of_one) = match party {
            Party::Client(_) => (true, per_client),
            Party::Peer(_) => (false, per_peer),
        };
        let clients = limits.connections.clients();
        if self.holders.get(&party).is_some_and(|(count, _)| *count >= of_one) {
            return Err(TooMany::OfCertificate(of_one));
        }
        if is_client && self.clients >= clients {
            return Err(TooMany::OfClients(clients));
        }
        if self.all >= connections {
            return Err(TooMany::OfAll(connections));
        }
        self.clients += usize::from(is_client);
        self.all += 1;
        let (count, holder) = self.holders.entry(party).or_insert_with(|| (0, Arc::new(Holder::new(limits))));
        *count += 1;
        Ok(Arc::clone(holder))
    }

    fn leave(&mut self, party: Party) {
        let Some((count, _)) = self.holders.get_mut(&party) else { return };
        *count -= 1;
        if *count == 0 {
            self.holders.remove(&party);
            // A map keeps the room of the most that it ever had.
            if self.holders.capacity() > 4 * self.holders.len().max(HOLDERS_KEPT) {
                self.holders.shrink_to(HOLDERS_KEPT);
            }
        }
        self.clients -= usize::from(matches!(party, Party::Client(_)));
        self.all -= 1;
    }
}

/// Room that is kept for certificates when most have gone.
const HOLDERS_KEPT: usize = 64;

impl Holder {
    fn new(limits: &AdmissionLimits) -> Self {
        Self {
            requests: ByClass::new(|class| Gauge::new(limits.classes[class].requests_per_certificate as u64)),
            body_bytes: ByClass::new(|class| Gauge::new(limits.classes[class].body_bytes_per_certificate as u64)),
            arriving: Gauge::new(limits.arriving_per_certificate as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::EndpointOptions;

    fn connections(limits: ConnectionLimits) -> Arc<Connections> {
        Connections::new(AdmissionLimits { connections: limits, ..EndpointOptions::default().admission() })
    }

    const LIMITS: ConnectionLimits =
        ConnectionLimits { connections: 8, for_peers: 3, per_client: 2, per_peer: 4, greeting: 1 };

    fn client(key: u8) -> Party {
        Party::Client([key; 16])
    }

    #[test]
    fn clients_keep_no_node_out_and_one_certificate_keeps_no_other_client_out() {
        let connections = connections(LIMITS);
        let mut open: Vec<Place> = (0..2).map(|_| connections.enter(client(1)).unwrap()).collect();
        assert_eq!(connections.enter(client(1)).map(drop), Err(TooMany::OfCertificate(2)));
        open.extend((2..5).map(|key| connections.enter(client(key)).unwrap()));
        assert_eq!(connections.enter(client(6)).map(drop), Err(TooMany::OfClients(5)));
        open.extend((0..3).map(|_| connections.enter(Party::Peer([1; 16])).unwrap()));
        assert_eq!(connections.enter(Party::Peer([2; 16])).map(drop), Err(TooMany::OfAll(8)));
        open.remove(0);
        assert!(connections.enter(client(1)).is_ok(), "a connection that ends makes room");
    }

    #[test]
    fn a_certificate_is_forgotten_with_its_last_connection_and_its_connections_share_one_account() {
        let connections = connections(ConnectionLimits { connections: 4096, per_client: 4, ..LIMITS });
        let (one, other) = (connections.enter(client(1)).unwrap(), connections.enter(client(1)).unwrap());
        assert!(Arc::ptr_eq(&one.holder, &other.holder));
        let many: Vec<Place> = (0..4000_u16)
            .map(|key| connections.enter(Party::Client([key.to_le_bytes(); 8].concat().try_into().unwrap())).unwrap())
            .collect();
        drop((one, other, many));
        let open = connections.lock();
        assert_eq!((open.all, open.clients, open.holders.len()), (0, 0, 0));
        assert!(open.holders.capacity() <= 8 * HOLDERS_KEPT, "room for {} is kept", open.holders.capacity());
    }

    #[test]
    fn so_many_connections_without_a_hello_are_taken() {
        let connections = connections(LIMITS);
        let greeting = connections.greet();
        assert!(greeting.is_some() && connections.greet().is_none());
        drop(greeting);
        assert!(connections.greet().is_some());
    }
}
