//! Reading points.

use std::collections::BTreeMap;
use std::sync::Arc;

use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::message::{Get, ReplicaApply, ReplicaRead, ReplicaVersions};
use vecino_model::{
    CollectionId, CollectionSchema, Level, NodeId, Parts, PointId, RawStoredPoint, Record, RecordValue, Version,
    limits, validate,
};

use super::checks::check_batch;
use super::task::{Task, answer_of, failed};
use crate::collections::Route;
use crate::machine::CallId;
use crate::message::{Ask, Request};
use crate::peers::{LATE_MAX, Pace};
use crate::plants::Plant;
use crate::quorum::read::{self, Partial, Read};
use crate::quorum::{PointIndex, Replicas};

/// Most bytes of points in the answer to one get; a frame holds a little more.
const GET_BYTES_MAX: usize = 60 * 1024 * 1024;

/// Most bytes that one replica is asked for at a time.
const READ_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Reads points.
pub(super) async fn get(task: &Task, request: Get) -> Result<Vec<Option<RawStoredPoint>>, RpcError> {
    let Get { collection, ids, level, with_vectors } = request;
    check_batch(ids.len())?;
    for id in &ids {
        validate::point_id(id).map_err(RpcError::invalid)?;
    }
    let route = task.route(&collection).await?;
    let (mut points, mut bytes) = (Vec::with_capacity(ids.len()), 0);
    let parts = Parts { vectors: with_vectors, payload: true };
    for some in ids.chunks(points_in_a_read(&route.schema, parts)) {
        let records = records(task, &route, some, parts, level).await?;
        bytes += records.iter().flatten().map(Record::bytes).sum::<usize>();
        if bytes > GET_BYTES_MAX {
            return Err(RpcError::invalid(format_args!(
                "{} points take more than {GET_BYTES_MAX} bytes: ask for fewer at once",
                ids.len()
            )));
        }
        points.extend(records.into_iter().map(|record| record.and_then(stored_point)));
    }
    Ok(points)
}

/// How many points fit into one answer of a replica however large their payloads are.
fn points_in_a_read(schema: &CollectionSchema, parts: Parts) -> usize {
    let vectors: usize = schema.fields.values().map(|field| field.dim as usize * 4).sum();
    let vectors = if parts.vectors { vectors } else { 0 };
    let payload = if parts.payload { limits::PAYLOAD_BYTES_MAX } else { 0 };
    (READ_BYTES_MAX / (vectors + payload + limits::POINT_ID_BYTES_MAX)).max(1)
}

/// Reads records, tombstones among them, at a level, with these parts of them.
///
/// Where replicas do not agree about a point, it is read anew with everything, so that the newest record can be written
/// back.
pub(super) async fn records(
    task: &Task,
    route: &Arc<Route>,
    ids: &[PointId],
    parts: Parts,
    level: Level,
) -> Result<Vec<Option<Record>>, RpcError> {
    let whole = async |ids: &[PointId]| {
        let readers = readers(task, route, ids, |_| false);
        let mut begun = Read::new(readers, level);
        if task.core().plants.has(Plant::ReadsDoNotWriteBack) {
            begun.0.do_not_write_back();
        }
        run(task, route, ids, Parts::ALL, begun).await.into_results()
    };
    let results = if parts == Parts::ALL || task.core().plants.has(Plant::ReadsDoNotWriteBack) {
        whole(ids).await
    } else {
        let readers = readers(task, route, ids, |_| false);
        let read = run(task, route, ids, parts, Read::parts(readers, level)).await;
        let unsettled = read.unsettled();
        let part = |found: Result<Option<Partial>, String>| Ok(found?.map(|Partial(record)| record));
        let mut results: Vec<Result<Option<Record>, String>> = read.into_results().into_iter().map(part).collect();
        if !unsettled.is_empty() {
            let anew: Vec<PointId> = unsettled.iter().map(|point| ids[*point].clone()).collect();
            for (point, found) in unsettled.into_iter().zip(whole(&anew).await) {
                results[point] = found.map(|record| record.map(|record| record.with_parts(parts)));
            }
        }
        results
    };
    let told = |(result, id): (Result<_, String>, _)| result.map_err(|reason| unreadable(id, &reason));
    results.into_iter().zip(ids).map(told).collect()
}

/// Reads the versions of points at a level, best from nodes that are `quick`.
pub(super) async fn versions(
    task: &Task,
    route: &Arc<Route>,
    ids: &[PointId],
    quick: impl Fn(NodeId) -> bool,
    level: Level,
) -> Vec<Result<Option<Version>, String>> {
    let readers = readers(task, route, ids, quick);
    run(task, route, ids, Parts::ALL, Read::versions(readers, level)).await.into_results()
}

/// The replicas of points in the order in which they are best asked: those that answer, quick ones, this node, those that
/// are up.
fn readers(task: &Task, route: &Route, ids: &[PointId], quick: impl Fn(NodeId) -> bool) -> Replicas {
    let mut readers = route.replicas(ids);
    let (own, now) = (task.core().own, task.now().time);
    // Once for each node, and not for each point.
    let ranks: BTreeMap<NodeId, _> = {
        let peers = task.core().peers();
        let rank = |node: NodeId| (!peers.is_up(node, now), peers.is_silent(node), !quick(node), node != own);
        route.ring.nodes().map(|node| (node, rank(node))).collect()
    };
    for nodes in &mut readers {
        nodes.sort_by_cached_key(|node| ranks.get(node).copied());
    }
    readers
}

/// Reads the newest of something of each point, at a level, until the read is finished.
async fn run<T: Readable>(
    task: &Task,
    route: &Arc<Route>,
    ids: &[PointId],
    parts: Parts,
    (mut read, mut commands): (Read<T>, Vec<read::Command>),
) -> Read<T> {
    enum Waiting {
        Read(NodeId, Vec<PointIndex>),
        WriteBack(NodeId, Vec<PointIndex>),
    }
    let deadline = task.replica_deadline();
    let mut waiting: BTreeMap<CallId, Waiting> = BTreeMap::new();
    let mut hedge_at = task.now().time;
    loop {
        let mut patience = None;
        for command in commands {
            let node = match command {
                read::Command::Read { node, points } => {
                    let wanted = points.iter().map(|point| ids[*point].clone()).collect();
                    let request = T::request(route.id, wanted, parts);
                    waiting.insert(task.ask(node, request, deadline), Waiting::Read(node, points));
                    node
                }
                read::Command::WriteBack { node, points } => {
                    let newest = points.iter().filter_map(|point| read.newest(*point)?.to_record()).collect();
                    let request = ReplicaApply { collection: route.id, records: newest };
                    waiting.insert(task.ask(node, request, deadline), Waiting::WriteBack(node, points));
                    node
                }
                read::Command::Finish => return read,
            };
            let late_after = task.core().peers().late_after(node, Pace::Read);
            patience = patience.max(Some(late_after));
        }
        if let Some(patience) = patience {
            hedge_at = task.now().time + patience;
        }
        commands = match task.next(hedge_at.min(deadline)).await {
            Some((call, arrival)) => match waiting.remove(&call) {
                Some(Waiting::Read(node, points)) => {
                    let answer = answer_of::<T::Request>(arrival.result).map(T::from_reply).map_err(failed);
                    read.on_read(node, &points, answer)
                }
                Some(Waiting::WriteBack(node, points)) => {
                    let answer = answer_of::<ReplicaApply>(arrival.result).map_err(failed);
                    read.on_written_back(node, &points, answer)
                }
                // It was asked by a step before.
                None => Vec::new(),
            },
            None if task.now().time >= deadline => read.on_deadline(),
            None => {
                for late in waiting.values() {
                    let (Waiting::Read(node, _) | Waiting::WriteBack(node, _)) = late;
                    task.core().peers().was_late(*node);
                }
                hedge_at = task.now().time + LATE_MAX;
                if task.core().peers().take_hedge() { read.hedge() } else { Vec::new() }
            }
        };
    }
}

pub(super) fn unreadable(id: &PointId, reason: &str) -> RpcError {
    RpcError::new(ErrorCode::Unavailable, format_args!("point {id:?} cannot be read: {reason}"))
}

/// A record as clients see it; a tombstone is nothing.
pub(super) fn stored_point(record: Record) -> Option<RawStoredPoint> {
    let Record { id, version, value } = record;
    let RecordValue { vectors, payload } = value?;
    Some(RawStoredPoint { id, vectors, payload, version })
}

/// What can be read of a point, and how a replica is asked for it.
trait Readable: read::Versioned + Sized {
    type Request: Ask + Into<Request>;

    fn request(collection: CollectionId, ids: Vec<PointId>, parts: Parts) -> Self::Request;

    fn from_reply(reply: <Self::Request as Ask>::Answer) -> Vec<Option<Self>>;

    /// What is written back where it is missing; nothing for what is only a version or a part of a record.
    fn to_record(&self) -> Option<Record>;
}

impl Readable for Record {
    type Request = ReplicaRead;

    fn request(collection: CollectionId, ids: Vec<PointId>, parts: Parts) -> ReplicaRead {
        ReplicaRead { collection, ids, parts }
    }

    fn from_reply(records: Vec<Option<Record>>) -> Vec<Option<Self>> {
        records
    }

    fn to_record(&self) -> Option<Record> {
        Some(self.clone())
    }
}

impl Readable for Partial {
    type Request = ReplicaRead;

    fn request(collection: CollectionId, ids: Vec<PointId>, parts: Parts) -> ReplicaRead {
        ReplicaRead { collection, ids, parts }
    }

    fn from_reply(records: Vec<Option<Record>>) -> Vec<Option<Self>> {
        records.into_iter().map(|record| record.map(Partial)).collect()
    }

    fn to_record(&self) -> Option<Record> {
        None
    }
}

impl Readable for Version {
    type Request = ReplicaVersions;

    fn request(collection: CollectionId, ids: Vec<PointId>, _: Parts) -> ReplicaVersions {
        ReplicaVersions { collection, ids }
    }

    fn from_reply(versions: Vec<Option<Version>>) -> Vec<Option<Self>> {
        versions
    }

    fn to_record(&self) -> Option<Record> {
        None
    }
}
