//! What awaiting a request polls.

use std::future::Future;
use std::pin::Pin;

use crate::error::ClientError;

/// A request under way.
pub type Reply<T> = Pin<Box<dyn Future<Output = Result<T, ClientError>> + Send>>;
