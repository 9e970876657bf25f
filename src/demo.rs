//! `vecino demo`.

use crate::cli::Failure;

/// Runs it.
pub async fn run(_keep: bool, _json: bool) -> Result<(), Failure> {
    Ok(())
}
