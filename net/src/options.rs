//! What an endpoint can be told, with its defaults, and what setting one up can fail with.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::admission::AdmissionLimits;

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
    /// Most connections at a time; more are refused.
    pub max_connections: usize,
    /// Most requests at a time that one connection may have served; more are answered `Overloaded`.
    pub max_concurrent_requests_per_connection: usize,
    /// Most requests at a time that are served over all connections; more are answered `Overloaded`.
    pub max_concurrent_requests: usize,
    /// Most bytes of request bodies in memory; a request that would exceed it is answered `Overloaded`.
    pub request_bytes_max: usize,
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
            max_concurrent_requests_per_connection: 256,
            max_concurrent_requests: 2048,
            request_bytes_max: 512 << 20,
        }
    }
}

impl EndpointOptions {
    /// What a node takes at a time by these options.
    pub fn admission(&self) -> AdmissionLimits {
        AdmissionLimits {
            requests: self.max_concurrent_requests,
            requests_per_connection: self.max_concurrent_requests_per_connection,
            body_bytes: self.request_bytes_max,
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
