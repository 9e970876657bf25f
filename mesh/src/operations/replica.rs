//! What this node's own replica is asked by other nodes.

use vecino_model::CollectionId;
use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::message::ReplicaApply;
use vecino_model::{Outcome, Record};

use super::checks::check_batch;
use super::task::Task;
use crate::event::Caller;
use crate::message::{Reply, Request};
use crate::plants::Plant;
use crate::time::Time;

/// Has the engine do it. A collection that is not known here was perhaps created just now, and who asks knows of it.
pub(super) async fn answer(task: &Task, caller: Caller, request: Request) -> Result<Reply, RpcError> {
    let (collection, points) = match &request {
        Request::ReplicaVersions(request) => (request.collection, request.ids.len()),
        Request::ReplicaRead(request) => (request.collection, request.ids.len()),
        Request::ReplicaApply(request) => (request.collection, request.records.len()),
        Request::ReplicaSearch(request) => (request.collection, 1),
        Request::ReplicaScan(request) => (request.collection, 1),
        _ => return Err(RpcError::new(ErrorCode::Internal, "it is not for a replica to do")),
    };
    check_batch(points)?;
    let core = task.core();
    if let Caller::Peer(peer) = caller
        && !core.collections.is_kept_by(core.own, collection)
    {
        task.fetch_catalog_of(peer).await;
    }
    if core.plants.has(Plant::ClocksDecide)
        && let Request::ReplicaApply(request) = request
    {
        return apply_by_the_clock(task, request).await;
    }
    own(task, request).await
}

/// What this node's engine answers.
pub(super) async fn own(task: &Task, request: Request) -> Result<Reply, RpcError> {
    let wanted = task.ask(task.core().own, request, Time::NEVER);
    loop {
        // The engine answers in any case.
        let Some((call, arrival)) = task.next(Time::NEVER).await else { continue };
        if call == wanted {
            return arrival.result;
        }
    }
}

/// The newest version of a point that this node's own replica has; nothing where it keeps no replica.
pub(super) fn keeps(task: &Task, collection: CollectionId) -> bool {
    task.core().collections.is_kept_by(task.core().own, collection)
}

/// As nodes once did: refuses records from the future, and takes over the times of the others.
async fn apply_by_the_clock(task: &Task, request: ReplicaApply) -> Result<Reply, RpcError> {
    let ReplicaApply { collection, records } = request;
    let wall_ms = task.now().wall_ms;
    let mut refusals = Vec::with_capacity(records.len());
    let mut accepted: Vec<Record> = Vec::new();
    for record in records {
        let refusal = task.core().clock().observe(record.version, wall_ms).err();
        if refusal.is_none() {
            accepted.push(record);
        }
        refusals.push(refusal);
    }
    let applied = own(task, ReplicaApply { collection, records: accepted }.into()).await?;
    let Reply::Outcomes(applied) = applied else { return Ok(applied) };
    let mut applied = applied.into_iter();
    let outcome = |refusal: Option<_>| match refusal {
        Some(reason) => Outcome::Refused(crate::hlc::ClockDrift::to_string(&reason)),
        None => applied.next().unwrap_or_else(|| Outcome::Unknown("the engine gave no outcome".to_owned())),
    };
    Ok(Reply::Outcomes(refusals.into_iter().map(outcome).collect()))
}
