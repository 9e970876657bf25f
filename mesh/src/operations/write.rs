//! Writing points: put and delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::message::{Delete, Put, ReplicaApply, ReplicaVersions};
use vecino_model::{CollectionId, Level, NodeId, Outcome, Point, PointId, Record, RecordValue, Version, validate};

use super::checks::{check_batch, check_clock};
use super::stamp::{StampFault, check_stamps, own_versions, stamp_above};
use super::task::{Arrival, Task, answer_of, failed};
use crate::collections::Route;
use crate::machine::CallId;
use crate::message::{KeepHints, Reply, Request, WaitingHints};
use crate::plants::Plant;
use crate::quorum::PointIndex;
use crate::quorum::write::{Command, SendNumber, Write};
use crate::time::Time;

/// What is to be written of a point: its value, or a tombstone.
type Value = (PointId, Option<RecordValue>);

/// Writes points. Those that are not valid are refused; the others go to their replicas.
pub(super) async fn put(task: &Task, request: Put) {
    let Put { collection, points, level, stamps } = request;
    let begun = begin(task, &collection, points.len(), &stamps, level).await;
    let route = match begun {
        Ok(route) => route,
        Err(error) => return task.answer(Err(error)),
    };
    let checked = points.into_iter().map(|point| match validate::point(&route.schema, &point) {
        Ok(()) => {
            let Point { id, vectors, payload } = point;
            Ok((id, Some(RecordValue { vectors, payload })))
        }
        Err(invalid) => Err(Outcome::Refused(invalid.to_string())),
    });
    write(task, &route, checked.collect(), stamps, level).await;
}

/// Deletes points; deleting what is absent succeeds.
pub(super) async fn delete(task: &Task, request: Delete) {
    let Delete { collection, ids, level, stamps } = request;
    let route = match begin(task, &collection, ids.len(), &stamps, level).await {
        Ok(route) => route,
        Err(error) => return task.answer(Err(error)),
    };
    let checked = ids.into_iter().map(|id| match validate::point_id(&id) {
        Ok(()) => Ok((id, None)),
        Err(invalid) => Err(Outcome::Refused(invalid.to_string())),
    });
    write(task, &route, checked.collect(), stamps, level).await;
}

async fn begin(
    task: &Task,
    collection: &str,
    points: usize,
    stamps: &[Version],
    level: Level,
) -> Result<Arc<Route>, RpcError> {
    check_batch(points)?;
    if !stamps.is_empty() && stamps.len() != points {
        let message = format_args!("stamps has {} versions for {points} points: one for each, or none", stamps.len());
        return Err(RpcError::invalid(message));
    }
    // With stamps it is not this node's clock that decides.
    if stamps.is_empty() {
        check_clock(task, level)?;
    }
    task.route(collection).await
}

/// Writes the values of the points that were not refused already, answers, and sees what was written to every replica.
async fn write(
    task: &Task,
    route: &Arc<Route>,
    points: Vec<Result<Value, Outcome>>,
    stamps: Vec<Version>,
    level: Level,
) {
    let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(points.len());
    let mut values = Vec::with_capacity(points.len());
    let mut stamped = Vec::new();
    for (index, point) in points.into_iter().enumerate() {
        match point {
            Ok(value) => {
                if let Some(stamp) = stamps.get(index) {
                    stamped.push((value.0.clone(), *stamp));
                }
                values.push(value);
                outcomes.push(None);
            }
            Err(refused) => outcomes.push(Some(refused)),
        }
    }
    if !stamps.is_empty() {
        let faults = check_stamps(task, route, &stamped).await;
        if !faults.is_empty() {
            refuse(&faults, &mut outcomes, &mut values, &mut stamped);
        }
    }
    let stamps = (!stamps.is_empty()).then(|| stamped.into_iter().map(|(_, stamp)| stamp).collect());
    let mut writing = Writing::new(task, route, values, stamps, level);
    writing.run().await;
    let results = writing.write.outcomes();
    let mut written = results.iter().cloned();
    let all = outcomes.into_iter().map(|outcome| outcome.or_else(|| written.next()));
    let unwritten = || Outcome::Unknown("the write gave no outcome".to_owned());
    task.answer(Ok(Reply::Outcomes(all.map(|outcome| outcome.unwrap_or_else(unwritten)).collect())));
    writing.see_to_every_replica(&results).await;
}

/// Takes out the points whose stamps are not taken.
fn refuse(
    faults: &BTreeMap<PointIndex, Result<(), StampFault>>,
    outcomes: &mut [Option<Outcome>],
    values: &mut Vec<Value>,
    stamped: &mut Vec<(PointId, Version)>,
) {
    let open: Vec<usize> = (0..outcomes.len()).filter(|index| outcomes[*index].is_none()).collect();
    for (index, place) in open.into_iter().enumerate() {
        outcomes[place] = match faults.get(&index) {
            Some(Err(StampFault::Wrong(reason))) => Some(Outcome::Refused(reason.clone())),
            Some(Err(StampFault::Unknown(reason))) => Some(Outcome::Unavailable(reason.clone())),
            Some(Ok(())) | None => None,
        };
    }
    let mut index = 0;
    values.retain(|_| {
        index += 1;
        !faults.contains_key(&(index - 1))
    });
    let mut index = 0;
    stamped.retain(|_| {
        index += 1;
        !faults.contains_key(&(index - 1))
    });
}

/// A batch on its way to its replicas.
struct Writing<'t> {
    task: &'t Task,
    collection: CollectionId,
    route: Arc<Route>,
    ids: Vec<PointId>,
    level: Level,
    /// Nothing is left of what has gone to its last replica.
    values: Vec<Option<Value>>,
    write: Write,
    first: Vec<Command>,
    waiting: BTreeMap<CallId, Waiting>,
    missed: Vec<(NodeId, PointIndex, Record)>,
    /// What others were sent, until it is known whether this node's own replica has it.
    spare: BTreeMap<PointIndex, Record>,
    /// What this node's own replica did not take.
    own_missed: Vec<PointIndex>,
}

enum Waiting {
    Versions(NodeId),
    Written(NodeId, SendNumber, Vec<PointIndex>),
    /// The disk keeps what this node missed; bytes of records.
    Kept(NodeId, usize),
}

impl<'t> Writing<'t> {
    fn new(task: &'t Task, route: &Arc<Route>, values: Vec<Value>, stamps: Option<Vec<Version>>, level: Level) -> Self {
        let ids: Vec<PointId> = values.iter().map(|(id, _)| id.clone()).collect();
        let replicas = route.replicas(&ids);
        let plants = task.core().plants;
        let asks = level != Level::One && !plants.has(Plant::WritesDoNotAsk);
        let (mut write, first) = match stamps {
            Some(stamps) => Write::stamped(replicas, level, stamps),
            None => Write::begin(replicas, level, asks),
        };
        if plants.has(Plant::WritesCountOne) {
            write.count_one();
        }
        Self {
            task,
            collection: route.id,
            route: Arc::clone(route),
            ids,
            level,
            values: values.into_iter().map(Some).collect(),
            write,
            first,
            waiting: BTreeMap::new(),
            missed: Vec::new(),
            spare: BTreeMap::new(),
            own_missed: Vec::new(),
        }
    }

    /// Runs until every point has its outcome.
    async fn run(&mut self) {
        let deadline = self.task.replica_deadline();
        let first = std::mem::take(&mut self.first);
        let mut is_finished = self.carry_out(first, deadline).await;
        while !is_finished {
            let commands = match self.task.next(deadline).await {
                Some((call, arrival)) => self.arrived(call, arrival),
                None => self.write.on_deadline(),
            };
            is_finished = self.carry_out(commands, deadline).await;
        }
    }

    /// Waits for the replicas that were not needed, and keeps for each what it missed of what was written.
    async fn see_to_every_replica(&mut self, outcomes: &[Outcome]) {
        if self.task.core().plants.has(Plant::MissedWritesAreForgotten) {
            return;
        }
        loop {
            self.keep_missed(outcomes);
            if !self.waiting.values().any(|waiting| matches!(waiting, Waiting::Written(..) | Waiting::Kept(..))) {
                return;
            }
            let Some((call, arrival)) = self.task.next(Time::NEVER).await else { continue };
            self.arrived(call, arrival);
        }
    }

    fn keep_missed(&mut self, outcomes: &[Outcome]) {
        let own = self.task.core().own;
        let (spare, missed) = (&mut self.spare, &mut self.missed);
        self.own_missed.retain(|point| match spare.remove(point) {
            Some(record) => {
                missed.push((own, *point, record));
                false
            }
            None => true,
        });
        let mut by_node: BTreeMap<NodeId, Vec<Record>> = BTreeMap::new();
        for (node, point, record) in self.missed.drain(..) {
            if matches!(outcomes.get(point), Some(Outcome::Written(_))) {
                by_node.entry(node).or_default().push(record);
            }
        }
        for (node, records) in by_node {
            let bytes = records.iter().map(Record::bytes).sum();
            if self.task.core().hints().begin_keeping(records.len(), bytes) {
                let request = KeepHints { node, collection: self.collection, records };
                self.waiting.insert(self.task.ask(own, request, Time::NEVER), Waiting::Kept(node, bytes));
            }
        }
    }

    fn arrived(&mut self, call: CallId, arrival: Arrival) -> Vec<Command> {
        match self.waiting.remove(&call) {
            Some(Waiting::Versions(node)) => {
                let answer = answer_of::<ReplicaVersions>(arrival.result).map_err(failed);
                self.write.on_versions(node, answer)
            }
            Some(Waiting::Written(node, send, points)) => {
                let Arrival { result, request } = arrival;
                let answer = answer_of::<ReplicaApply>(result);
                self.note_missed(node, &points, &answer, request);
                let answer = if self.task.core().plants.has(Plant::HintsCount) && answer.is_err() {
                    Ok(points.iter().map(|_| Outcome::Written(Version::ZERO)).collect())
                } else {
                    answer.map_err(failed)
                };
                self.write.on_written(send, answer)
            }
            Some(Waiting::Kept(node, bytes)) => {
                let mut hints = self.task.core().hints();
                hints.end_keeping(bytes);
                // What could not be kept was told where that was found out.
                if let Ok(WaitingHints { number, waiting, .. }) = answer_of::<KeepHints>(arrival.result) {
                    hints.set_waiting(node, number, waiting);
                }
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// Puts aside what a replica did not take of what it was sent. Of what this node's own did not take, another's is kept.
    fn note_missed(
        &mut self,
        node: NodeId,
        points: &[PointIndex],
        answer: &Result<Vec<Outcome>, RpcError>,
        request: Option<Request>,
    ) {
        let is_there = self.task.core().collections.exists(self.collection);
        let took = |index: usize| match answer {
            Ok(outcomes) => matches!(outcomes.get(index), Some(Outcome::Written(_) | Outcome::Refused(_))),
            // Of a collection that is gone nothing is missed. A node that does not know yet of one that is there gets it later.
            Err(error) => error.code == ErrorCode::NotFound && !is_there,
        };
        let own = self.task.core().own;
        if node == own {
            let missed = points.iter().enumerate().filter(|(index, _)| !took(*index)).map(|(_, point)| *point);
            self.own_missed.extend(missed);
            let is_taken = |point: &PointIndex| points.contains(point) && !self.own_missed.contains(point);
            if self.own_missed.is_empty() {
                self.spare.clear();
            } else {
                self.spare.retain(|point, _| !is_taken(point));
            }
            return;
        }
        let Some(Request::ReplicaApply(ReplicaApply { collection: _, records })) = request else { return };
        let is_own_open = !self.own_missed.is_empty()
            || self.waiting.values().any(|waiting| matches!(waiting, Waiting::Written(node, ..) if *node == own));
        for (index, (point, record)) in points.iter().zip(records).enumerate() {
            if !took(index) {
                self.missed.push((node, *point, record));
            } else if is_own_open {
                self.spare.insert(*point, record);
            }
        }
    }

    /// Carries commands out; whether the last of them was to finish.
    async fn carry_out(&mut self, commands: Vec<Command>, deadline: Time) -> bool {
        let mut left = self.uses(&commands);
        let mut commands = std::collections::VecDeque::from(commands);
        while let Some(command) = commands.pop_front() {
            match command {
                Command::AskVersions { node, points } => {
                    let ids = points.iter().map(|point| self.ids[*point].clone()).collect();
                    let request = ReplicaVersions { collection: self.collection, ids };
                    self.waiting.insert(self.task.ask(node, request, deadline), Waiting::Versions(node));
                }
                Command::Stamp { points } => {
                    let more = self.stamp(points).await;
                    left = self.uses(&more);
                    commands.extend(more);
                }
                Command::Write { node, send, points } => {
                    let records = points.iter().filter_map(|point| self.record(*point, &mut left)).collect();
                    let request = ReplicaApply { collection: self.collection, records };
                    let call = self.task.ask(node, request, deadline);
                    self.waiting.insert(call, Waiting::Written(node, send, points));
                }
                Command::Finish => return true,
            }
        }
        false
    }

    async fn stamp(&mut self, points: Vec<(PointIndex, Version)>) -> Vec<Command> {
        let mut above = points;
        if self.level == Level::One {
            // Nobody else is asked; what is here must not stay the newest.
            let ids: Vec<PointId> = above.iter().map(|(point, _)| self.ids[*point].clone()).collect();
            let own = own_versions(self.task, &self.route, &ids).await;
            for ((_, above), own) in above.iter_mut().zip(own) {
                *above = (*above).max(own.unwrap_or(Version::ZERO));
            }
        }
        let mut stamps = Vec::with_capacity(above.len());
        let mut commands = Vec::new();
        for (point, above) in above {
            match stamp_above(self.task, above) {
                Ok(stamp) => stamps.push((point, stamp)),
                Err(reason) => commands.extend(self.write.on_refused(point, &reason)),
            }
        }
        let mut stamped = self.write.on_stamped(stamps);
        stamped.extend(commands);
        stamped
    }

    /// How often each point is to be written. Each is sent to a replica once, all of them in one go.
    fn uses(&self, commands: &[Command]) -> Vec<usize> {
        let mut uses = Vec::new();
        for command in commands {
            if let Command::Write { node: _, send: _, points } = command {
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
