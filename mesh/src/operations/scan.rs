//! Reading a collection page by page, in ring order.

use vecino_model::Parts;
use vecino_model::error::RpcError;
use vecino_model::message::{ReplicaScan, ReplicaScanReply, Scan, ScanReply};

use super::cover::ask_cover;
use super::get::stored_point;
use super::task::Task;
use crate::merge::{self, PagePart};

/// Most points in one page.
const LIMIT_MAX: u32 = 1_000;

/// Reads the next page.
pub(super) async fn scan(task: &Task, request: Scan) -> Result<ScanReply, RpcError> {
    let Scan { collection, after, limit, level, with_vectors, with_payload } = request;
    if limit == 0 || limit > LIMIT_MAX {
        return Err(RpcError::invalid(format_args!("a page of {limit} points: use 1 to {LIMIT_MAX}")));
    }
    let route = task.route(&collection).await?;
    let parts = Parts { vectors: with_vectors, payload: with_payload };
    let wanted = ReplicaScan { collection: route.id, after, limit, parts };
    let (answers, _) = ask_cover(task, &route, level, false, wanted, task.replica_deadline()).await?;
    let part = |ReplicaScanReply { records, end }| PagePart { records, end };
    let page = merge::page(route.id, answers.into_values().map(part).collect(), limit as usize);
    Ok(ScanReply { points: page.records.into_iter().filter_map(stored_point).collect(), next: page.next })
}
