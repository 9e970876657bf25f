//! What a client's requests can fail with.

use std::io;
use std::net::SocketAddr;

use vecino_certs::CertsError;
use vecino_net::endpoint::EndpointError;
use vecino_net::error::{ErrorCode, Retry};

/// Why a client could not be made, or a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// An address has no port, or its name does not resolve.
    #[error("address {address:?} cannot be resolved: {source}; give it as HOST:PORT or HOST")]
    Address {
        /// As it was given.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A name resolves to nothing, or there are too many addresses.
    #[error("{count} addresses were given; a client needs 1 to {max}")]
    AddressCount {
        /// How many there were.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// Neither a folder of certificates nor an identity was given.
    #[error(
        "a client needs a certificate of the mesh: issue one with `vecino certs issue CA_DIR --name NAME --client \
             --out DIR` and name the folder with --certs DIR or VECINO_CERTS"
    )]
    NoIdentity,
    /// The certificates cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertsError),
    /// The socket cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A request failed, after as many attempts as were safe.
    #[error("{node}: {message}{}{}", attempts_in_words(*.attempts), retry_in_words(*.retry))]
    Request {
        /// Name of the request.
        operation: &'static str,
        /// The node that was asked last.
        node: SocketAddr,
        /// How often nodes were asked.
        attempts: u32,
        /// What kind of failure the last one was.
        code: ErrorCode,
        /// What was wrong, where, and what to do, as that node or the connection to it said.
        message: String,
        /// Whether the whole request may be made again.
        retry: Retry,
    },
}

impl ClientError {
    /// What kind of failure, where a node was asked.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Request { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The node that was asked last, where one was.
    pub fn node(&self) -> Option<SocketAddr> {
        match self {
            Self::Request { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// Whether the whole request may be made again because nothing happened.
    pub fn is_safe_to_retry(&self) -> bool {
        matches!(self, Self::Request { retry: Retry::Safe | Retry::AfterMs(_), .. })
    }

    /// Whether a write may have taken effect although it failed.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Request { retry: Retry::Unknown, .. })
    }
}

fn attempts_in_words(attempts: u32) -> String {
    if attempts > 1 { format!(" (after {attempts} attempts)") } else { String::new() }
}

fn retry_in_words(retry: Retry) -> &'static str {
    match retry {
        Retry::No => "",
        Retry::Safe | Retry::AfterMs(_) => "; nothing happened, trying again is safe",
        Retry::Unknown => "; whether it took effect is unknown",
    }
}
