//! Scan: a collection page by page, in ring order.

use std::time::Duration;

use tokio::time::Instant;
use vecino_model::Parts;
use vecino_net::error::RpcError;
use vecino_net::message::{ReplicaScan, ReplicaScanReply, Scan, ScanReply, ScanStream};
use vecino_net::rpc::{ChunkSender, RequestContext};

use super::points::stored_point;
use super::{Coordinator, replica_deadline};
use vecino_mesh::merge::{self, PagePart};

/// Most points in one page.
const LIMIT_MAX: u32 = 1_000;

/// How long the replicas may take for one page of a stream, which as a whole may last for an hour.
const PAGE_WAIT: Duration = Duration::from_secs(30);

impl Coordinator {
    /// Reads page after page to the end of the collection. The next page is read while one is on its way.
    pub async fn scan_stream(
        &self,
        context: &RequestContext,
        request: ScanStream,
        chunks: &ChunkSender,
    ) -> Result<(), RpcError> {
        let ScanStream { mut scan } = request;
        loop {
            let mut context = context.clone();
            context.deadline = context.deadline.min(Instant::now() + PAGE_WAIT);
            let page = self.scan(&context, scan.clone()).await?;
            chunks.send::<ScanStream>(&page).await?;
            match page.next {
                Some(next) => scan.after = Some(next),
                None => return Ok(()),
            }
        }
    }

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
