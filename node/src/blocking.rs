//! Work that keeps a processor or a disk busy, run where it does not hold up the network.

use vecino_net::error::{ErrorCode, RpcError};

/// Runs work on a thread for such work.
///
/// # Errors
/// When the work panicked, or the node is stopping.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RpcError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| RpcError::new(ErrorCode::Internal, format_args!("a task on this node failed: {error}")))
}
