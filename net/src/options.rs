//! What an endpoint can be told, with its defaults, and what setting one up can fail with.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use vecino_model::limits::FRAME_BYTES_MAX;

use crate::admission::{AdmissionLimits, ByClass, Class, ClassLimits, ConnectionLimits};

/// How an endpoint listens, dials and bounds its work.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// Address of the UDP socket. The default, `[::]:0`, is for endpoints that only dial: any free port, falling back
    /// to `0.0.0.0:0` where there is no IPv6.
    pub listen: SocketAddr,
    /// Where the keys of stateless resets and connection ids are kept (0600). With them a peer's old connection to a
    /// restarted node fails at once; without them it hangs until the idle timeout.
    pub state_dir: Option<PathBuf>,
    /// What the hello says runs here, for logs.
    pub software: String,
    /// A connection that is silent for this long is lost.
    pub idle_timeout: Duration,
    /// How often a silent connection is kept alive; well below the idle timeout.
    pub keep_alive: Duration,
    /// How long one attempt to connect may take, hello included.
    pub dial_timeout: Duration,
    /// Longest pause between attempts to reach an address that failed. Short, so that a returned node is found soon.
    pub back_off_max: Duration,
    /// Size that is asked for the socket's receive and send buffers. The kernel may grant less, which is logged.
    pub socket_buffer_bytes: usize,
    /// Whether the kernel may segment large sends (GSO). Off helps where a driver or a tunnel loses such packets.
    pub gso: bool,
    /// Most connections that are accepted at a time; more are refused.
    pub max_connections: usize,
    /// How many of `max_connections` are left to nodes, a quarter of them at the most. Clients get the rest.
    pub connections_for_peers: usize,
    /// Most connections at a time of one certificate of a client; more are refused.
    pub max_connections_per_client: usize,
    /// Most requests at a time of one certificate that have begun to come and are not there as a whole; more are
    /// answered `Overloaded`.
    pub max_arriving_requests_per_certificate: usize,
    /// How long a request may take until it is there as a whole. A deadline that is shorter holds, too.
    pub request_wait: Duration,
    /// Most requests of clients at a time that one connection may have served; more are answered `Overloaded`.
    pub max_concurrent_requests_per_connection: usize,
    /// Most requests of clients at a time that are served over all connections; more are answered `Overloaded`. One
    /// certificate gets half of them.
    pub max_concurrent_requests: usize,
    /// Most scans in chunks and snapshots that clients ask for at a time; more are answered `Overloaded`. One
    /// certificate gets half of them.
    pub max_concurrent_exports: usize,
    /// Most requests at a time that one node asks for requests of its clients; what is more waits there. Every put and
    /// every search of a client asks each replica once at a time, or twice: it is twice `max_concurrent_requests`.
    pub max_concurrent_replica_requests_per_connection: usize,
    /// Most requests at a time that all nodes ask for requests of their clients; more are answered `Overloaded`.
    pub max_concurrent_replica_requests: usize,
    /// Most requests at a time that move and repair data; more are answered `Overloaded`.
    pub max_concurrent_repairs: usize,
    /// Most requests at a time by which nodes agree on members and collections; more are answered `Overloaded`.
    pub max_concurrent_agreements: usize,
    /// Most bytes of the bodies of clients' requests in memory; a request that would exceed it is answered
    /// `Overloaded`. One certificate gets half of them.
    pub request_bytes_max: usize,
    /// Most bytes of the bodies of nodes' requests in memory; a request that would exceed it is answered `Overloaded`.
    /// One node gets half of them, which should be more than `request_bytes_max`: it sends on what its clients send.
    /// Moves and repairs have a quarter as much again.
    pub peer_request_bytes_max: usize,
    /// Most bytes of request bodies in memory of one connection of a client; a request that would exceed it is answered
    /// `Overloaded`.
    pub request_bytes_per_connection_max: usize,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            state_dir: None,
            software: concat!("vecino ", env!("CARGO_PKG_VERSION")).to_owned(),
            idle_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(1),
            dial_timeout: Duration::from_secs(2),
            back_off_max: Duration::from_secs(1),
            socket_buffer_bytes: 4 << 20,
            gso: true,
            max_connections: 4096,
            connections_for_peers: 1024,
            max_connections_per_client: 1024,
            max_arriving_requests_per_certificate: 4096,
            request_wait: Duration::from_secs(30),
            max_concurrent_requests_per_connection: 256,
            max_concurrent_requests: 2048,
            max_concurrent_exports: 256,
            max_concurrent_replica_requests_per_connection: 4096,
            max_concurrent_replica_requests: 16_384,
            max_concurrent_repairs: 256,
            max_concurrent_agreements: 1024,
            request_bytes_max: 256 << 20,
            peer_request_bytes_max: 768 << 20,
            request_bytes_per_connection_max: 128 << 20,
        }
    }
}

/// Most connections of one node: two, and those of its earlier lives that are not known to be lost yet.
const CONNECTIONS_PER_PEER: usize = 64;

/// Connections that may be about to say hello even where few are accepted: nodes that start together dial together.
const GREETING_MIN: usize = 8;

impl EndpointOptions {
    /// What a node takes at a time by these options.
    pub fn admission(&self) -> AdmissionLimits {
        AdmissionLimits {
            classes: ByClass::new(|class| self.class(class)),
            arriving_per_certificate: self.max_arriving_requests_per_certificate,
            connections: ConnectionLimits {
                connections: self.max_connections,
                for_peers: self.connections_for_peers.min(self.max_connections / 4),
                per_client: self.max_connections_per_client,
                per_peer: CONNECTIONS_PER_PEER,
                greeting: self.max_connections.div_ceil(8).max(GREETING_MIN),
            },
        }
    }

    fn class(&self, class: Class) -> ClassLimits {
        let (requests, requests_per_connection, body_bytes) = match class {
            Class::Client => {
                (self.max_concurrent_requests, self.max_concurrent_requests_per_connection, self.request_bytes_max)
            }
            // What is asked for here is small; a body of the largest size must fit nevertheless.
            Class::Export => (self.max_concurrent_exports, self.max_concurrent_exports.div_ceil(4), FRAME_BYTES_MAX),
            Class::Replica => (
                self.max_concurrent_replica_requests,
                self.max_concurrent_replica_requests_per_connection,
                self.peer_request_bytes_max,
            ),
            Class::Repair => {
                (self.max_concurrent_repairs, self.max_concurrent_repairs.div_ceil(4), self.peer_request_bytes_max / 4)
            }
            Class::Agreement => {
                (self.max_concurrent_agreements, self.max_concurrent_agreements.div_ceil(4), FRAME_BYTES_MAX)
            }
        };
        let body_bytes_per_certificate = body_bytes.div_ceil(2).max(FRAME_BYTES_MAX);
        ClassLimits {
            requests,
            requests_per_certificate: requests.div_ceil(2),
            requests_per_connection,
            body_bytes,
            body_bytes_per_certificate,
            body_bytes_per_connection: match class {
                Class::Client | Class::Export => self.request_bytes_per_connection_max,
                Class::Replica | Class::Repair | Class::Agreement => body_bytes_per_certificate,
            },
        }
    }
}

/// Why an endpoint could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The socket could not be made.
    #[error("UDP socket on {address} could not be opened: {source}; is another process using the port?")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The keys in the state directory could not be read or written.
    #[error("transport keys in {path} could not be kept: {source}")]
    Keys {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificate or key cannot be used for TLS.
    #[error("TLS could not be set up: {0}")]
    Certificates(#[from] vecino_certs::CertsError),
    /// TLS cannot be used for QUIC.
    #[error("QUIC could not be set up: {0}")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// An option is out of range.
    #[error("option {option} is {value}: {reason}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What it was set to.
        value: String,
        /// What it must be.
        reason: &'static str,
    },
    /// Only a node can serve.
    #[error("certificate {name:?} is a client's: a node needs a node's certificate")]
    NotANode {
        /// Its name.
        name: String,
    },
}
