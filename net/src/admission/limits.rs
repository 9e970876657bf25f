//! What a node takes at a time.

use super::class::ByClass;

/// What a node takes at a time. A front door of clients only needs the classes that it has requests of.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// For each class of requests.
    pub classes: ByClass<ClassLimits>,
    /// Most requests of one certificate that have begun to come and are not there as a whole.
    pub arriving_per_certificate: usize,
    /// For connections.
    pub connections: ConnectionLimits,
}

/// What a node takes at a time of one class of requests.
#[derive(Clone, Copy, Debug)]
pub struct ClassLimits {
    /// Most requests over all doors.
    pub requests: usize,
    /// Most requests of one certificate.
    pub requests_per_certificate: usize,
    /// Most requests of one connection.
    pub requests_per_connection: usize,
    /// Most bytes of request bodies in memory, over all doors.
    pub body_bytes: usize,
    /// Most bytes of request bodies of one certificate.
    pub body_bytes_per_certificate: usize,
    /// Most bytes of request bodies of one connection.
    pub body_bytes_per_connection: usize,
}

/// How many connections a node accepts at a time.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Most connections.
    pub connections: usize,
    /// How many of these are left to nodes: clients get the rest.
    pub for_peers: usize,
    /// Most connections of one certificate of a client.
    pub per_client: usize,
    /// Most connections of one certificate of a node.
    pub per_peer: usize,
    /// Most connections that have not said hello yet.
    pub greeting: usize,
}

impl ConnectionLimits {
    /// Most connections of clients.
    pub(crate) fn clients(&self) -> usize {
        self.connections.saturating_sub(self.for_peers)
    }
}
