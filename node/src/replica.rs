//! What a node does for others with the collections that it keeps: the answers to replica requests.
//!
//! A coordinator that is a replica itself calls these directly, without a network between ([`ReplicaRequest::answer`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vecino_model::message::ReplicaHits;
use vecino_model::{Outcome, Record, Version, limits};
use vecino_net::error::{ErrorCode, Retry, RpcError};
use vecino_net::message::{
    ReplicaApply, ReplicaRead, ReplicaScan, ReplicaScanReply, ReplicaSearch, ReplicaVersions, Rpc,
};

use crate::blocking::blocking;
use crate::store::Store;
use vecino_engine::{ApplyError, SearchError, SearchRequest};

/// Most records in one page of a scan.
const SCAN_RECORDS_MAX: usize = 1_000;

/// A request that a replica answers from what it keeps.
pub trait ReplicaRequest: Rpc + Clone + Sync {
    /// Answers it.
    fn answer(self, store: &Arc<Store>) -> impl Future<Output = Result<Self::Reply, RpcError>> + Send;
}

fn check_batch(points: usize) -> Result<(), RpcError> {
    if points > limits::BATCH_POINTS_MAX {
        return Err(RpcError::invalid(format_args!(
            "a batch of {points} points is over the limit of {}",
            limits::BATCH_POINTS_MAX
        )));
    }
    Ok(())
}

impl ReplicaRequest for ReplicaVersions {
    async fn answer(self, store: &Arc<Store>) -> Result<Vec<Option<Version>>, RpcError> {
        let Self { collection, ids } = self;
        check_batch(ids.len())?;
        Ok(store.collection(collection).await?.versions(&ids))
    }
}

impl ReplicaRequest for ReplicaRead {
    async fn answer(self, store: &Arc<Store>) -> Result<Vec<Option<Record>>, RpcError> {
        let Self { collection, ids, parts } = self;
        check_batch(ids.len())?;
        let collection = store.collection(collection).await?;
        blocking(move || collection.read_parts(&ids, parts)).await
    }
}

/// What the sender of records is told where none has an outcome.
fn not_applied(error: ApplyError) -> RpcError {
    match error {
        ApplyError::Closed(_) => RpcError::new(ErrorCode::NotReady, error),
        ApplyError::Broken { .. } => RpcError::new(ErrorCode::Unavailable, error),
        ApplyError::Busy { retry_after, .. } => {
            let ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
            RpcError::new(ErrorCode::Overloaded, error).with_retry(Retry::AfterMs(ms))
        }
        ApplyError::Lost(_) => RpcError::new(ErrorCode::Internal, error).with_retry(Retry::Unknown),
    }
}

impl ReplicaRequest for ReplicaApply {
    async fn answer(self, store: &Arc<Store>) -> Result<Vec<Outcome>, RpcError> {
        let Self { collection, records } = self;
        check_batch(records.len())?;
        let collection = store.collection(collection).await?;
        collection.apply(records).await.map_err(not_applied)
    }
}

/// Tells work on another thread when nobody waits for it any more.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl ReplicaRequest for ReplicaSearch {
    async fn answer(self, store: &Arc<Store>) -> Result<ReplicaHits, RpcError> {
        let collection = store.collection(self.collection).await?;
        let permit = store.search_permit().await;
        // Where this future is dropped, the search ends as soon as it looks.
        let stop = StopOnDrop::default();
        let is_stopped = Arc::clone(&stop.0);
        let searched = blocking(move || {
            let _permit = permit;
            let Self { collection: _, field, vector, k, ef, threshold, with_payload, with_vectors, exact } = self;
            let request = SearchRequest { field, vector, k, ef, threshold, with_payload, with_vectors, exact };
            collection.search_until(&request, Some(&is_stopped))
        });
        searched.await?.map_err(|error| match error {
            SearchError::UnknownField(_) | SearchError::Index(_) | SearchError::TooLarge => RpcError::invalid(error),
            SearchError::Damaged { .. } => RpcError::new(ErrorCode::Internal, error),
        })
    }
}

impl ReplicaRequest for ReplicaScan {
    async fn answer(self, store: &Arc<Store>) -> Result<ReplicaScanReply, RpcError> {
        let Self { collection, after, limit, parts } = self;
        let collection = store.collection(collection).await?;
        let limit = (limit as usize).clamp(1, SCAN_RECORDS_MAX);
        let page =
            blocking(move || collection.scan_parts(after.as_ref().map(Into::into).as_ref(), limit, parts)).await?;
        Ok(ReplicaScanReply { records: page.records, end: page.end })
    }
}
