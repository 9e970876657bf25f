//! What an RPC can fail with, on either side of the wire.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a request failed, as it travels: what went wrong, in words for people, and whether asking again is safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcError {
    /// What kind of failure.
    pub code: ErrorCode,
    /// What was wrong, where, the limit, and what to do; lower case, no full stop.
    pub message: String,
    /// Whether the same request may be sent again.
    pub retry: Retry,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request is wrong and was refused before anything happened.
    Invalid,
    /// A collection, or what a search should resemble, does not exist.
    NotFound,
    /// A collection of that name exists.
    AlreadyExists,
    /// Too few replicas are reachable for the level, or the node's clock is off and would decide; nothing was
    /// acknowledged.
    Unavailable,
    /// Too much work is under way; nothing was done.
    Overloaded,
    /// The deadline passed. A write may or may not take effect.
    Timeout,
    /// Who asks may not ask this.
    Forbidden,
    /// The frame was no frame, or of an unknown protocol version or kind.
    Protocol,
    /// The node is stopping, or has not joined a mesh yet.
    NotReady,
    /// The node failed; its log says more.
    Internal,
    /// The connection was lost or could not be made. A write may or may not take effect.
    Connection,
}

impl ErrorCode {
    /// Its name, as it travels and as scripts see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::Forbidden => "forbidden",
            Self::Protocol => "protocol",
            Self::NotReady => "not_ready",
            Self::Internal => "internal",
            Self::Connection => "connection",
        }
    }
}

/// Whether the same request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It would fail the same way.
    No,
    /// Nothing happened: safe at once, to this node or another.
    Safe,
    /// Nothing happened: safe after this number of milliseconds.
    AfterMs(u32),
    /// It may have happened: safe only where doing it twice is (reads; puts and deletes of the same points).
    Unknown,
}

impl RpcError {
    /// A failure with the retry advice that is usual for its code.
    pub fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        let retry = match code {
            ErrorCode::Invalid
            | ErrorCode::NotFound
            | ErrorCode::AlreadyExists
            | ErrorCode::Forbidden
            | ErrorCode::Protocol => Retry::No,
            ErrorCode::Unavailable | ErrorCode::NotReady => Retry::Safe,
            ErrorCode::Overloaded => Retry::AfterMs(50),
            // A node that fails inside may have done a part of what it was asked.
            ErrorCode::Timeout | ErrorCode::Connection | ErrorCode::Internal => Retry::Unknown,
        };
        Self { code, message: message.to_string(), retry }
    }

    /// The same with other advice on whether to send the request again.
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// The request is wrong.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    /// How long to wait before asking again, where asking again is safe.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.retry {
            Retry::Safe => Some(Duration::ZERO),
            Retry::AfterMs(ms) => Some(Duration::from_millis(u64::from(ms))),
            Retry::No | Retry::Unknown => None,
        }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RpcError {}
