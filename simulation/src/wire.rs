//! Requests and replies as they travel: encoded, and decoded again.

use vecino_mesh::message::{Reply, Request};
use vecino_model::error::RpcError;
use vecino_net::message::Rpc;
use vecino_net::rpc::{decode, encode};

fn there_and_back<R: Rpc>(request: &R) -> R {
    let bytes = encode(request).unwrap_or_else(|error| panic!("a {} cannot be encoded: {error}", R::NAME));
    decode(R::NAME, &bytes).unwrap_or_else(|error| panic!("a {} cannot be decoded: {error}", R::NAME))
}

fn value<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let bytes = encode(value).unwrap_or_else(|error| panic!("a reply cannot be encoded: {error}"));
    decode("a reply", &bytes).unwrap_or_else(|error| panic!("a reply cannot be decoded: {error}"))
}

/// A request after its journey.
pub(crate) fn request(request: Request) -> Request {
    match request {
        Request::Put(request) => there_and_back(&request).into(),
        Request::Delete(request) => there_and_back(&request).into(),
        Request::Stamp(request) => there_and_back(&request).into(),
        Request::Get(request) => there_and_back(&request).into(),
        Request::Search(request) => there_and_back(&request).into(),
        Request::Scan(request) => there_and_back(&request).into(),
        Request::CreateCollection(request) => there_and_back(&request).into(),
        Request::DropCollection(request) => there_and_back(&request).into(),
        Request::ListCollections(request) => there_and_back(&request).into(),
        Request::DescribeCollection(request) => there_and_back(&request).into(),
        Request::Status(request) => there_and_back(&request).into(),
        Request::RingInfo(request) => there_and_back(&request).into(),
        Request::TakeSnapshot(request) => there_and_back(&request).into(),
        Request::NodeStats(request) => there_and_back(&request).into(),
        Request::NodeSnapshot(request) => there_and_back(&request).into(),
        Request::Join(request) => there_and_back(&request).into(),
        Request::CatalogFetch(request) => there_and_back(&request).into(),
        Request::CatalogApply(request) => there_and_back(&request).into(),
        Request::Members(request) => there_and_back(&request).into(),
        Request::Probe(request) => there_and_back(&request).into(),
        Request::ReplicaVersions(request) => there_and_back(&request).into(),
        Request::ReplicaApply(request) => there_and_back(&request).into(),
        Request::ReplicaRead(request) => there_and_back(&request).into(),
        Request::ReplicaSearch(request) => there_and_back(&request).into(),
        Request::ReplicaScan(request) => there_and_back(&request).into(),
        request @ (Request::Find(_) | Request::KeepHints(_) | Request::NextHints(_) | Request::TakenHints(_)) => {
            request
        }
    }
}

/// A reply after its journey.
pub(crate) fn reply(result: Result<Reply, RpcError>) -> Result<Reply, RpcError> {
    Ok(match result.map_err(|error| value(&error))? {
        Reply::Outcomes(reply) => Reply::Outcomes(value(&reply)),
        Reply::Stamps(reply) => Reply::Stamps(value(&reply)),
        Reply::Points(reply) => Reply::Points(value(&reply)),
        Reply::Found(reply) => Reply::Found(value(&reply)),
        Reply::Page(reply) => Reply::Page(value(&reply)),
        Reply::Collection(reply) => Reply::Collection(value(&reply)),
        Reply::Collections(reply) => Reply::Collections(value(&reply)),
        Reply::Status(reply) => Reply::Status(value(&reply)),
        Reply::Ring(reply) => Reply::Ring(value(&reply)),
        Reply::Snapshots(reply) => Reply::Snapshots(value(&reply)),
        Reply::Stats(reply) => Reply::Stats(value(&reply)),
        Reply::Dropped(reply) => Reply::Dropped(value(&reply)),
        Reply::Joined(reply) => Reply::Joined(value(&reply)),
        Reply::Catalog(reply) => Reply::Catalog(value(&reply)),
        Reply::Members(reply) => Reply::Members(value(&reply)),
        Reply::Probed(reply) => Reply::Probed(value(&reply)),
        Reply::Versions(reply) => Reply::Versions(value(&reply)),
        Reply::Records(reply) => Reply::Records(value(&reply)),
        Reply::Hits(reply) => Reply::Hits(value(&reply)),
        Reply::RecordPage(reply) => Reply::RecordPage(value(&reply)),
        reply @ (Reply::Route(_) | Reply::Hints(_)) => reply,
    })
}
