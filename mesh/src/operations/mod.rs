//! What a node does about each kind of request, and by itself: code that waits for answers and for time, and for nothing
//! else.

mod background;
mod catalog;
mod checks;
mod collections;
mod cover;
mod get;
mod replica;
mod scan;
mod search;
mod stamp;
mod status;
mod task;
mod write;

pub(crate) use background::{deliver_hints, follow_catalogs, probe_silent};
pub(crate) use task::{Arrival, Asked, Task};

use vecino_model::error::RpcError;
use vecino_model::message::{MembersReply, ProbeReply};
use vecino_model::{Point, PointId};

use crate::event::Caller;
use crate::message::{Reply, Request};

/// Whether a request is done to its end though its caller has gone: what it writes is to be whole, and to reach every
/// replica.
pub(crate) fn outlives_its_caller(request: &Request) -> bool {
    matches!(
        request,
        Request::Put(_)
            | Request::Delete(_)
            | Request::CreateCollection(_)
            | Request::DropCollection(_)
            | Request::CatalogApply(_)
            | Request::ReplicaApply(_)
    )
}

/// About how many bytes a client asks to write, or to delete.
pub(crate) fn bytes_to_write(request: &Request) -> usize {
    match request {
        Request::Put(put) => put.points.iter().map(Point::bytes).sum(),
        Request::Delete(delete) => delete.ids.iter().map(PointId::bytes).sum(),
        _ => 0,
    }
}

/// Does a request and answers it.
pub(crate) async fn answer(task: Task, caller: Caller, request: Request) {
    let result = match request {
        Request::Put(request) => return write::put(&task, request).await,
        Request::Delete(request) => return write::delete(&task, request).await,
        Request::Stamp(request) => stamp::stamp(&task, request).await.map(Reply::Stamps),
        Request::Get(request) => get::get(&task, request).await.map(Reply::Points),
        Request::Search(request) => search::search(&task, request).await.map(Reply::Found),
        Request::Scan(request) => scan::scan(&task, request).await.map(Reply::Page),
        Request::CreateCollection(request) => catalog::create(&task, request).await.map(Reply::Collection),
        Request::DropCollection(request) => catalog::drop_collection(&task, request).await.map(Reply::Dropped),
        Request::ListCollections(_) => Ok(Reply::Collections(collections::list(&task).await)),
        Request::DescribeCollection(request) => collections::describe(&task, request).await.map(Reply::Collection),
        Request::Status(_) => Ok(Reply::Status(status::status(&task).await)),
        Request::RingInfo(request) => status::ring(&task, request).await.map(Reply::Ring),
        Request::TakeSnapshot(request) => status::take_snapshot(&task, request).await.map(Reply::Snapshots),
        Request::Join(request) => catalog::join(&task, caller, request).map(Reply::Joined),
        Request::CatalogFetch(_) => Ok(Reply::Catalog(task.core().collections.entries())),
        Request::CatalogApply(request) => catalog::apply(&task, request).await.map(Reply::Dropped),
        Request::Find(request) => task.route(&request.collection).await.map(Reply::Route),
        Request::Members(_) => {
            let peers = task.core().peers();
            let addresses = peers.up().map(|member| member.address.to_string()).collect();
            Ok(Reply::Members(MembersReply::new(addresses)))
        }
        Request::Probe(_) => Ok(Reply::Probed(ProbeReply {})),
        request @ (Request::NodeStats(_) | Request::NodeSnapshot(_)) => replica::own(&task, request).await,
        request @ (Request::ReplicaVersions(_)
        | Request::ReplicaApply(_)
        | Request::ReplicaRead(_)
        | Request::ReplicaSearch(_)
        | Request::ReplicaScan(_)) => replica::answer(&task, caller, request).await,
        request @ (Request::KeepHints(_) | Request::NextHints(_) | Request::TakenHints(_)) => {
            Err(RpcError::invalid(format_args!("{} is nothing that a node asks another", request.name())))
        }
    };
    task.answer(result);
}
