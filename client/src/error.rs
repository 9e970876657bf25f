//! What a client's requests can fail with.

use std::io;
use std::net::SocketAddr;

use vecino_certs::CertsError;
use vecino_model::Version;
use vecino_net::endpoint::EndpointError;
use vecino_net::error::{ErrorCode, Retry};

use crate::report::WriteReport;

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
    /// A put or delete was answered, but some of its points were not written.
    #[error("{}{}", .0, write_retry_in_words(.0))]
    NotWritten(Box<WriteReport>),
    /// A collection of that name exists, and is not the one that was to be created if absent.
    #[error(
        "collection {name:?} exists and is another than what was asked for: {difference}; use another name, or drop it \
         first"
    )]
    OtherCollection {
        /// Its name.
        name: String,
        /// What differs: what exists, and what was asked for.
        difference: String,
    },
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
            Self::NotWritten(report) if report.has_refused() => Some(ErrorCode::Invalid),
            Self::NotWritten(_) => Some(ErrorCode::Unavailable),
            Self::OtherCollection { .. } => Some(ErrorCode::AlreadyExists),
            _ => None,
        }
    }

    /// What became of each point, where some were not written.
    pub fn write_report(&self) -> Option<&WriteReport> {
        match self {
            Self::NotWritten(report) => Some(report),
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

    /// Whether the whole request may be made again: nothing happened, or every point was written but those that
    /// surely were not.
    pub fn is_safe_to_retry(&self) -> bool {
        match self {
            Self::Request { retry, .. } => matches!(retry, Retry::Safe | Retry::AfterMs(_)),
            Self::NotWritten(report) => !report.has_refused() && !report.has_unknown(),
            _ => false,
        }
    }

    /// Whether a write may have taken effect although it failed.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Request { retry, .. } => *retry == Retry::Unknown,
            Self::NotWritten(report) => report.has_unknown(),
            _ => false,
        }
    }
}

impl WriteReport {
    /// The version of each point, where every one was written.
    ///
    /// # Errors
    /// [`ClientError::NotWritten`] with this report where some were not.
    pub fn all_written(self) -> Result<Vec<Version>, ClientError> {
        self.versions().ok_or_else(|| ClientError::NotWritten(Box::new(self)))
    }
}

fn write_retry_in_words(report: &WriteReport) -> &'static str {
    match (report.has_refused(), report.has_unknown()) {
        (false, false) => "; trying again is safe",
        _ => "",
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
