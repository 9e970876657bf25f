//! What several kinds of request are refused for.

use vecino_model::error::RpcError;
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
