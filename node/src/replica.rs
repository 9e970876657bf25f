//! What a node does for others with the collections that it keeps: the answers to replica requests.
//!
//! A coordinator that is a replica itself calls these directly, without a network between ([`ReplicaRequest::answer`]).

use std::sync::Arc;

use vecino_model::{CollectionId, Outcome, RawHit, Record, Version, limits};
use vecino_net::error::{ErrorCode, Retry, RpcError};
use vecino_net::message::{
    ReplicaApply, ReplicaRead, ReplicaScan, ReplicaScanReply, ReplicaSearch, ReplicaVersions, Rpc,
};

use crate::blocking::blocking;
use crate::store::Store;
use vecino_engine::{ApplyError, SearchError, SearchRequest};
use vecino_mesh::hlc::ClockDrift;

/// Most records in one page of a scan.
const SCAN_RECORDS_MAX: usize = 1_000;

/// A request that a replica answers from what it keeps.
pub trait ReplicaRequest: Rpc + Clone + Sync {
    /// Of which collection.
    fn collection(&self) -> CollectionId;

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
    fn collection(&self) -> CollectionId {
        self.collection
    }

    async fn answer(self, store: &Arc<Store>) -> Result<Vec<Option<Version>>, RpcError> {
        let Self { collection, ids } = self;
        check_batch(ids.len())?;
        Ok(store.collection(collection).await?.versions(&ids))
    }
}

impl ReplicaRequest for ReplicaRead {
    fn collection(&self) -> CollectionId {
        self.collection
    }

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
        ApplyError::Lost(_) => RpcError::new(ErrorCode::Internal, error).with_retry(Retry::Unknown),
    }
}

impl ReplicaRequest for ReplicaApply {
    fn collection(&self) -> CollectionId {
        self.collection
    }

    async fn answer(self, store: &Arc<Store>) -> Result<Vec<Outcome>, RpcError> {
        let Self { collection, records } = self;
        check_batch(records.len())?;
        let collection = store.collection(collection).await?;
        // A version from the future would win over every later write until the clocks catch up. Where the newest is not
        // from there, none is.
        let newest = records.iter().map(|record| record.version).max();
        if newest.is_none_or(|newest| store.clock().observe(newest).is_ok()) {
            return collection.apply(records).await.map_err(not_applied);
        }
        let (mut refusals, mut accepted) = (Vec::with_capacity(records.len()), Vec::new());
        for record in records {
            let refusal = store.clock().observe(record.version).err();
            if refusal.is_none() {
                accepted.push(record);
            }
            refusals.push(refusal);
        }
        let mut applied = collection.apply(accepted).await.map_err(not_applied)?.into_iter();
        let outcome = |refusal: Option<ClockDrift>| match refusal {
            Some(reason) => Outcome::Refused(reason.to_string()),
            None => applied.next().unwrap_or_else(|| Outcome::Unknown("the writer gave no outcome".to_owned())),
        };
        Ok(refusals.into_iter().map(outcome).collect())
    }
}

impl ReplicaRequest for ReplicaSearch {
    fn collection(&self) -> CollectionId {
        self.collection
    }

    async fn answer(self, store: &Arc<Store>) -> Result<Vec<RawHit>, RpcError> {
        let collection = store.collection(self.collection).await?;
        let permit = store.search_permit().await;
        let searched = blocking(move || {
            let _permit = permit;
            let Self { collection: _, field, vector, k, ef, threshold, with_payload, with_vectors, exact } = self;
            let request = SearchRequest { field, vector, k, ef, threshold, with_payload, with_vectors, exact };
            collection.search(&request)
        });
        searched.await?.map_err(|error| match error {
            SearchError::UnknownField(_) | SearchError::Index(_) | SearchError::TooLarge => RpcError::invalid(error),
            SearchError::Damaged { .. } => RpcError::new(ErrorCode::Internal, error),
        })
    }
}

impl ReplicaRequest for ReplicaScan {
    fn collection(&self) -> CollectionId {
        self.collection
    }

    async fn answer(self, store: &Arc<Store>) -> Result<ReplicaScanReply, RpcError> {
        let Self { collection, after, limit, parts } = self;
        let collection = store.collection(collection).await?;
        let limit = (limit as usize).clamp(1, SCAN_RECORDS_MAX);
        let page =
            blocking(move || collection.scan_parts(after.as_ref().map(Into::into).as_ref(), limit, parts)).await?;
        Ok(ReplicaScanReply { records: page.records, end: page.end })
    }
}
