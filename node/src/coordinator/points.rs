//! Put, get, delete.

use std::sync::{Arc, PoisonError};

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use vecino_mesh::hlc::ClockDrift;
use vecino_model::{
    CollectionId, CollectionSchema, Level, NodeId, Outcome, Parts, Point, PointId, RawStoredPoint, Record, RecordValue,
    Version, limits, position, validate,
};
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::message::{Delete, Get, Put, ReplicaApply, ReplicaRead, ReplicaVersions, Rpc};
use vecino_net::rpc::RequestContext;

use super::{Coordinator, HEDGE_AFTER, replica_deadline, spawn};
use crate::replica::ReplicaRequest;
use crate::route::Route;
use vecino_mesh::quorum::read::{self, Partial, Read};
use vecino_mesh::quorum::write::{self, Failed, SendNumber, Write};
use vecino_mesh::quorum::{PointIndex, Replicas};

/// Most bytes of points in the answer to one get; a frame holds a little more.
const GET_BYTES_MAX: usize = 60 * 1024 * 1024;

/// Most bytes that one replica is asked for at a time.
const READ_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Most bytes of records on their way to one replica. A replica that takes them more slowly than they come misses some,
/// instead of filling this node's memory.
const WRITING_BYTES_MAX: usize = 128 * 1024 * 1024;

/// How many points fit into one answer of a replica however large their payloads are.
fn points_in_a_read(schema: &CollectionSchema, parts: Parts) -> usize {
    let vectors: usize = schema.fields.values().map(|field| field.dim as usize * 4).sum();
    let vectors = if parts.vectors { vectors } else { 0 };
    let payload = if parts.payload { limits::PAYLOAD_BYTES_MAX } else { 0 };
    (READ_BYTES_MAX / (vectors + payload + limits::POINT_ID_BYTES_MAX)).max(1)
}

impl Coordinator {
    /// Writes points. Those that are not valid are refused; the others go to their replicas.
    pub async fn put(&self, context: &RequestContext, request: Put) -> Result<Vec<Outcome>, RpcError> {
        let deadline = context.deadline;
        let Put { collection, points, level } = request;
        check_batch(points.len())?;
        let route = self.route(&collection).await?;
        let checked = points.into_iter().map(|point| match validate::point(&route.schema, &point) {
            Ok(()) => Ok(point),
            Err(invalid) => Err(Outcome::Refused(invalid.to_string())),
        });
        let values = checked
            .map(|point| point.map(|Point { id, vectors, payload }| (id, Some(RecordValue { vectors, payload }))));
        self.write(&route, values.collect(), level, deadline).await
    }

    /// Deletes points; deleting what is absent succeeds.
    pub async fn delete(&self, context: &RequestContext, request: Delete) -> Result<Vec<Outcome>, RpcError> {
        let deadline = context.deadline;
        let Delete { collection, ids, level } = request;
        check_batch(ids.len())?;
        let route = self.route(&collection).await?;
        let checked = ids.into_iter().map(|id| match validate::point_id(&id) {
            Ok(()) => Ok((id, None)),
            Err(invalid) => Err(Outcome::Refused(invalid.to_string())),
        });
        self.write(&route, checked.collect(), level, deadline).await
    }

    /// Writes values, or tombstones, of the points that were not refused already.
    async fn write(
        &self,
        route: &Arc<Route>,
        points: Vec<Result<(PointId, Option<RecordValue>), Outcome>>,
        level: Level,
        deadline: Instant,
    ) -> Result<Vec<Outcome>, RpcError> {
        let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(points.len());
        let mut values = Vec::with_capacity(points.len());
        for point in points {
            match point {
                Ok(value) => {
                    values.push(value);
                    outcomes.push(None);
                }
                Err(refused) => outcomes.push(Some(refused)),
            }
        }
        let mut written = self.write_valid(route, values, level, deadline).await.into_iter();
        Ok(outcomes
            .into_iter()
            .map(|outcome| outcome.or_else(|| written.next()))
            .map(|outcome| outcome.unwrap_or_else(|| Outcome::Unknown("the write gave no outcome".to_owned())))
            .collect())
    }

    async fn write_valid(
        &self,
        route: &Arc<Route>,
        values: Vec<(PointId, Option<RecordValue>)>,
        level: Level,
        deadline: Instant,
    ) -> Vec<Outcome> {
        let ids: Vec<PointId> = values.iter().map(|(id, _)| id.clone()).collect();
        if level == Level::One && self.shared.store.keeps(route.id) {
            // Nobody is asked for versions, so the clock has to know those that are here: opening raises it.
            let _ = timeout_at(replica_deadline(deadline), self.shared.store.collection(route.id)).await;
        }
        let (write, commands) = Write::new(replicas(route, &ids), level);
        let (events, mut inbox) = mpsc::unbounded_channel();
        let mut driver = WriteDriver {
            coordinator: self.clone(),
            route: Arc::clone(route),
            values: values.into_iter().map(Some).collect(),
            write,
            events,
            deadline: replica_deadline(deadline),
        };
        let mut finished = driver.carry_out(commands);
        while !finished {
            let commands = match timeout_at(driver.deadline, inbox.recv()).await {
                Ok(Some(WriteEvent::Versions(node, answer))) => driver.write.on_versions(node, answer),
                Ok(Some(WriteEvent::Written(send, answer))) => driver.write.on_written(send, answer),
                Ok(None) | Err(_) => driver.write.on_deadline(),
            };
            finished = driver.carry_out(commands);
        }
        driver.write.into_outcomes()
    }

    /// Reads points.
    pub async fn get(&self, context: &RequestContext, request: Get) -> Result<Vec<Option<RawStoredPoint>>, RpcError> {
        let deadline = context.deadline;
        let Get { collection, ids, level, with_vectors } = request;
        check_batch(ids.len())?;
        for id in &ids {
            validate::point_id(id).map_err(RpcError::invalid)?;
        }
        let route = self.route(&collection).await?;
        let (mut points, mut bytes) = (Vec::with_capacity(ids.len()), 0);
        let parts = Parts { vectors: with_vectors, payload: true };
        for some in ids.chunks(points_in_a_read(&route.schema, parts)) {
            let records = self.records(&route, some, parts, level, deadline).await?;
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

    /// Reads the newest of something of each point, at a level, until the read is finished.
    async fn read<T: Readable>(
        &self,
        route: &Arc<Route>,
        ids: &[PointId],
        parts: Parts,
        (mut read, mut commands): (Read<T>, Vec<read::Command>),
        deadline: Instant,
    ) -> Read<T> {
        let deadline = replica_deadline(deadline);
        let (events, mut inbox) = mpsc::unbounded_channel();
        let mut hedge_at = Instant::now() + HEDGE_AFTER;
        loop {
            for command in commands {
                let (coordinator, events) = (self.clone(), events.clone());
                match command {
                    read::Command::Read { node, points } => {
                        let wanted = points.iter().map(|point| ids[*point].clone()).collect();
                        let request = T::request(route.id, wanted, parts);
                        spawn(async move {
                            let answer = coordinator.ask(node, request, deadline).await.map(T::from_reply);
                            // The read may have finished without this answer.
                            let _ = events.send(ReadEvent::Read(node, points, answer));
                        });
                    }
                    read::Command::WriteBack { node, points } => {
                        let newest = points.iter().filter_map(|point| read.newest(*point)?.to_record()).collect();
                        let request = ReplicaApply { collection: route.id, records: newest };
                        spawn(async move {
                            let answer = coordinator.ask(node, request, deadline).await;
                            let _ = events.send(ReadEvent::WrittenBack(node, points, answer));
                        });
                    }
                    read::Command::Finish => return read,
                }
            }
            commands = match timeout_at(hedge_at.min(deadline), inbox.recv()).await {
                Ok(Some(ReadEvent::Read(node, points, answer))) => read.on_read(node, &points, answer),
                Ok(Some(ReadEvent::WrittenBack(node, points, answer))) => read.on_written_back(node, &points, answer),
                Ok(None) | Err(_) if Instant::now() >= deadline => read.on_deadline(),
                Ok(None) | Err(_) => {
                    hedge_at = Instant::now() + HEDGE_AFTER;
                    read.hedge()
                }
            };
        }
    }

    /// Reads records, tombstones among them, at a level, with these parts of them.
    ///
    /// Where replicas do not agree about a point, it is read anew with everything, so that the newest record can be written
    /// back.
    pub(super) async fn records(
        &self,
        route: &Arc<Route>,
        ids: &[PointId],
        parts: Parts,
        level: Level,
        deadline: Instant,
    ) -> Result<Vec<Option<Record>>, RpcError> {
        let whole = async |ids: &[PointId]| {
            let readers = self.readers(route, ids, |_| false);
            self.read(route, ids, Parts::ALL, Read::new(readers, level), deadline).await.into_results()
        };
        let results = if parts == Parts::ALL {
            whole(ids).await
        } else {
            let readers = self.readers(route, ids, |_| false);
            let read = self.read(route, ids, parts, Read::parts(readers, level), deadline).await;
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
        &self,
        route: &Arc<Route>,
        ids: &[PointId],
        quick: impl Fn(NodeId) -> bool,
        level: Level,
        deadline: Instant,
    ) -> Vec<Result<Option<Version>, String>> {
        let readers = self.readers(route, ids, quick);
        self.read(route, ids, Parts::ALL, Read::versions(readers, level), deadline).await.into_results()
    }

    /// The replicas of points in the order in which they are best asked: quick ones, this node, those that are up.
    fn readers(&self, route: &Route, ids: &[PointId], quick: impl Fn(NodeId) -> bool) -> Replicas {
        let mut readers = replicas(route, ids);
        for nodes in &mut readers {
            nodes.sort_by_key(|node| (!quick(*node), *node != self.shared.node_id, !self.is_up(*node)));
        }
        readers
    }
}

fn replicas(route: &Route, ids: &[PointId]) -> Replicas {
    ids.iter().map(|id| route.ring.replicas(position(route.id, id), route.replication_factor())).collect()
}

fn check_batch(points: usize) -> Result<(), RpcError> {
    if points == 0 || points > limits::BATCH_POINTS_MAX {
        return Err(RpcError::invalid(format_args!(
            "a request for {points} points: use 1 to {}",
            limits::BATCH_POINTS_MAX
        )));
    }
    Ok(())
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

/// Bytes on their way to a replica, until dropped.
struct Writing {
    coordinator: Coordinator,
    node: NodeId,
    bytes: usize,
}

impl Coordinator {
    /// Counts bytes that are sent to a replica, unless it has too many to take already.
    fn writing(&self, node: NodeId, bytes: usize) -> Result<Writing, Failed> {
        let mut writing = self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = writing.entry(node).or_default();
        if *under_way > 0 && *under_way + bytes > WRITING_BYTES_MAX {
            let reason = format!("it is slow: {under_way} bytes are on their way to it already");
            return Err(Failed { reason, may_have_happened: false });
        }
        *under_way += bytes;
        Ok(Writing { coordinator: self.clone(), node, bytes })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut writing = self.coordinator.shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = writing.get_mut(&self.node) {
            *under_way -= self.bytes;
        }
    }
}

// ------------------------------------------------------------------------------------------------- drivers

enum WriteEvent {
    Versions(NodeId, Result<Vec<Option<Version>>, Failed>),
    Written(SendNumber, Result<Vec<Outcome>, Failed>),
}

struct WriteDriver {
    coordinator: Coordinator,
    route: Arc<Route>,
    /// Nothing is left of what has gone to its last replica.
    values: Vec<Option<(PointId, Option<RecordValue>)>>,
    write: Write,
    events: mpsc::UnboundedSender<WriteEvent>,
    deadline: Instant,
}

impl WriteDriver {
    /// Carries commands out; true when the write is finished. Calls under way are not taken back then: the replicas
    /// that the level did not wait for get the write too.
    fn carry_out(&mut self, commands: Vec<write::Command>) -> bool {
        let mut finished = false;
        let mut left = self.uses(&commands);
        for command in commands {
            match command {
                write::Command::AskVersions { node, points } => {
                    let ids = points.iter().filter_map(|point| Some(self.values[*point].as_ref()?.0.clone())).collect();
                    let request = ReplicaVersions { collection: self.route.id, ids };
                    let (coordinator, events, deadline) =
                        (self.coordinator.clone(), self.events.clone(), self.deadline);
                    spawn(async move {
                        let answer = coordinator.ask(node, request, deadline).await;
                        // The driver may have finished without this answer.
                        let _ = events.send(WriteEvent::Versions(node, answer));
                    });
                }
                write::Command::Stamp { points } => {
                    let commands = self.stamp(points);
                    finished |= self.carry_out(commands);
                }
                write::Command::Write { node, send, points } => {
                    let records: Vec<Record> =
                        points.iter().filter_map(|point| self.record(*point, &mut left)).collect();
                    let writing = self.coordinator.writing(node, records.iter().map(Record::bytes).sum());
                    let request = ReplicaApply { collection: self.route.id, records };
                    let (coordinator, events, deadline) =
                        (self.coordinator.clone(), self.events.clone(), self.deadline);
                    spawn(async move {
                        let answer = match writing {
                            Ok(_writing) => coordinator.ask(node, request, deadline).await,
                            Err(failed) => Err(failed),
                        };
                        let _ = events.send(WriteEvent::Written(send, answer));
                    });
                }
                write::Command::Finish => finished = true,
            }
        }
        finished
    }

    fn stamp(&mut self, points: Vec<(PointIndex, Version)>) -> Vec<write::Command> {
        let clock = self.coordinator.shared.store.clock();
        let stamped: Result<Vec<_>, _> =
            points.into_iter().map(|(point, above)| Ok((point, clock.stamp(above)?))).collect();
        match stamped {
            Ok(stamps) => self.write.on_stamped(stamps),
            Err::<_, ClockDrift>(drift) => self.write.on_refused(&drift.to_string()),
        }
    }

    /// How often each point is to be written. Each is sent to a replica once, all of them in one go.
    fn uses(&self, commands: &[write::Command]) -> Vec<usize> {
        let mut uses = Vec::new();
        for command in commands {
            if let write::Command::Write { node: _, send: _, points } = command {
                uses.resize(self.values.len(), 0);
                points.iter().for_each(|point| uses[*point] += 1);
            }
        }
        uses
    }

    /// What is to be written of a point; `left` says how often it is. What is written for the last time is not copied.
    fn record(&mut self, point: PointIndex, left: &mut [usize]) -> Option<Record> {
        let version = self.write.stamp_of(point)?;
        left[point] -= 1;
        let place = &mut self.values[point];
        let (id, value) = if left[point] == 0 { place.take() } else { place.clone() }?;
        Some(Record { id, version, value })
    }
}

enum ReadEvent<T> {
    Read(NodeId, Vec<PointIndex>, Result<Vec<Option<T>>, Failed>),
    WrittenBack(NodeId, Vec<PointIndex>, Result<Vec<Outcome>, Failed>),
}

/// What can be read of a point, and how a replica is asked for it.
trait Readable: read::Versioned + Send + Sized + 'static {
    type Request: ReplicaRequest;

    fn request(collection: CollectionId, ids: Vec<PointId>, parts: Parts) -> Self::Request;

    fn from_reply(reply: <Self::Request as Rpc>::Reply) -> Vec<Option<Self>>;

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
