//! What several kinds of request are refused for.

use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::limits;

/// Refuses a batch of no points, or of too many.
pub(super) fn check_batch(points: usize) -> Result<(), RpcError> {
    if points == 0 || points > limits::BATCH_POINTS_MAX {
        return Err(RpcError::invalid(format_args!(
            "a request for {points} points: use 1 to {}",
            limits::BATCH_POINTS_MAX
        )));
    }
    Ok(())
}

/// An error of a time that has passed.
pub(super) fn late(reasons: &[String]) -> RpcError {
    RpcError::new(
        ErrorCode::Timeout,
        format_args!("the nodes did not answer before the deadline ({})", reasons.join("; ")),
    )
}
