//! Scan: a collection page by page, in ring order.

use vecino_model::Parts;
use vecino_net::error::RpcError;
use vecino_net::message::{ReplicaScan, ReplicaScanReply, Scan, ScanReply};
use vecino_net::rpc::RequestContext;

use super::points::stored_point;
use super::{Coordinator, replica_deadline};
use vecino_mesh::merge::{self, PagePart};

/// Most points in one page.
const LIMIT_MAX: u32 = 1_000;

impl Coordinator {
    /// Reads the next page.
    pub async fn scan(&self, context: &RequestContext, request: Scan) -> Result<ScanReply, RpcError> {
        let deadline = context.deadline;
        let Scan { collection, after, limit, level, with_vectors, with_payload } = request;
        if limit == 0 || limit > LIMIT_MAX {
            return Err(RpcError::invalid(format_args!("a page of {limit} points: use 1 to {LIMIT_MAX}")));
        }
        let route = self.route(&collection).await?;
        let parts = Parts { vectors: with_vectors, payload: with_payload };
        let wanted = ReplicaScan { collection: route.id, after, limit, parts };
        let (answers, _) = self.ask_cover(&route, level, false, wanted, replica_deadline(deadline)).await?;
        let part = |ReplicaScanReply { records, end }| PagePart { records, end };
        let page = merge::page(route.id, answers.into_iter().map(part).collect(), limit as usize);
        Ok(ScanReply { points: page.records.into_iter().filter_map(stored_point).collect(), next: page.next })
    }
}
