//! What several kinds of request are refused for.

use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::{Level, limits};

use super::task::Task;
use crate::wall_clocks::OFF_MS_MAX;

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

/// Refuses to give versions at level `one` while this node's clock is off: nothing but the clock would decide what is newer.
/// Nothing has happened, and another node may do it.
pub(super) fn check_clock(task: &Task, level: Level) -> Result<(), RpcError> {
    if level != Level::One {
        return Ok(());
    }
    let standing = task.core().clock_standing(task.now());
    if !standing.is_off {
        return Ok(());
    }
    let (off_ms, way) = (standing.ahead_ms.unsigned_abs(), if standing.ahead_ms < 0 { "behind" } else { "ahead of" });
    Err(RpcError::new(
        ErrorCode::Unavailable,
        format_args!(
            "the clock of node {} is {off_ms} ms {way} the median of its own and those of the {} members that it hears \
             (at most {OFF_MS_MAX} ms), and at level one clocks decide which write is the newer: set the clock of that \
             node, ask another one, or write at level quorum",
            task.core().own.short(),
            standing.heard,
        ),
    ))
}
