//! A simulated client: it makes its decisions with the code of the client library.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vecino_mesh::client::{
    self as decisions, Answered, Arrival, Asking, Call, Effect, Failed, Hedge, Nodes, Plan, Said, Step,
};
use vecino_mesh::machine::{CallId, Machine, Steps};
use vecino_mesh::message::{Reply, Request};
use vecino_mesh::plants::Plants;
use vecino_mesh::time::{Now, Time};
use vecino_model::message::{CreateCollection, Delete, Get, Put, Query, Search, Stamp};
use vecino_model::{CollectionSchema, FieldSchema, Fsync, Level, Metric, Outcome, Point, PointId, Profile};

use crate::plan::{ClientPlan, Deed};
use crate::value;

/// The collection of every run.
pub(crate) const COLLECTION: &str = "simulated";
/// How long a deed may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Numbers for kinds of requests, each of which takes times of its own.
const KINDS: [u16; 4] = [1, 2, 3, 4];

/// What a deed came to.
pub(crate) enum Ended {
    /// What became of a put or a delete.
    Written(Result<Vec<Outcome>, Failed>),
    /// What was read.
    Read(Result<Answered<Reply>, Failed>),
}

/// What a client's machine asks for: which part of its deed, at which node.
pub(crate) struct Wanted {
    pub call: CallId,
    pub node: usize,
    pub request: Request,
    pub until: Time,
}

enum Code {
    Write(Machine<Call<Step>, Arrival<Said>, Asking>),
    Read(Machine<Call<()>, Arrival<Reply>, Asking>),
}

/// A deed under way.
pub(crate) struct Doing {
    pub number: u64,
    pub deed: Deed,
    pub value: u64,
    pub began: u64,
    /// When it began.
    pub since: Time,
    code: Code,
    ended: Arc<Mutex<Option<Ended>>>,
}

/// What came of a step.
pub(crate) struct Stepped {
    pub wanted: Vec<Wanted>,
    pub wake_at: Time,
    pub ended: Option<Ended>,
}

/// A client.
pub(crate) struct Client {
    pub plan: ClientPlan,
    pub next: usize,
    pub doing: Option<Doing>,
    nodes: Arc<Nodes>,
    /// The nodes that it knows, by their places.
    places: Vec<usize>,
    learns: bool,
    plants: Plants,
    repeats_unknown: bool,
    /// Whether what it writes is large.
    is_large: bool,
}

impl Client {
    /// A client that knows these nodes.
    pub(crate) fn new(plan: ClientPlan, places: Vec<usize>, plants: Plants, repeats_unknown: bool) -> Self {
        let (nodes, is_large) = (Arc::new(Nodes::new(places.len())), plan.is_large);
        Self { plan, next: 0, doing: None, nodes, places, learns: true, plants, repeats_unknown, is_large }
    }

    /// The same, which never asks another node than those.
    pub(crate) fn faithful(self) -> Self {
        Self { learns: false, ..self }
    }

    /// It is told who the members are.
    pub(crate) fn learn(&mut self, members: &[usize]) {
        if self.learns {
            let new = members.iter().filter(|node| !self.places.contains(node)).copied();
            let new: Vec<usize> = new.collect();
            self.places.extend(new);
            self.nodes.grow(self.places.len());
        }
    }

    /// Begins a deed. `value` is what a put writes.
    pub(crate) fn begin(&mut self, number: u64, deed: Deed, value: u64, began: u64, now: Now, chance: f64) {
        let until = now.time + TIMEOUT;
        let ended = Arc::new(Mutex::new(None));
        let nodes = Arc::clone(&self.nodes);
        let code = match deed {
            Deed::Put(_) | Deed::PutAt(..) | Deed::Delete(_) => {
                let batch = decisions::Write {
                    points: 1,
                    kinds: [KINDS[0], KINDS[1]],
                    until,
                    // Some clients leave it to the node to stamp what they write, and never send it again.
                    repeats_unknown: self.repeats_unknown,
                    hedge: if self.is_large { Hedge::Quiet } else { Hedge::Late },
                    chance,
                    plants: self.plants,
                };
                let (steps, result) = (Steps::new(now), Arc::clone(&ended));
                Code::Write(Machine::new(steps.clone(), async move {
                    let written = decisions::write(&steps, &nodes, batch).await;
                    *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ended::Written(written));
                }))
            }
            Deed::Get(_) | Deed::Search(..) | Deed::StampOne(_) => {
                let kind = match deed {
                    Deed::Get(_) => KINDS[2],
                    Deed::StampOne(_) => KINDS[0],
                    _ => KINDS[3],
                };
                let plan = Plan { effect: Effect::Read, kind, until, hedge: Hedge::Late, chance };
                let (steps, result) = (Steps::new(now), Arc::clone(&ended));
                Code::Read(Machine::new(steps.clone(), async move {
                    let read = decisions::ask(&steps, &nodes, plan, ()).await;
                    *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ended::Read(read));
                }))
            }
        };
        self.doing = Some(Doing { number, deed, value, began, since: now.time, code, ended });
    }

    /// Its deed goes on with what has arrived, if anything has.
    pub(crate) fn step(&mut self, now: Now, arrived: Option<(CallId, Arrival<Reply>)>) -> Stepped {
        let Some(doing) = &mut self.doing else {
            return Stepped { wanted: Vec::new(), wake_at: Time::NEVER, ended: None };
        };
        let (wanted, wake_at, is_done) = match &mut doing.code {
            Code::Write(machine) => {
                let arrived = arrived.filter(|(call, _)| machine.answered(*call).is_some());
                let said = arrived.map(|(call, arrival)| (call, arrival.map(said)));
                let stepped = machine.step(now, said);
                let deed = doing.deed;
                let wanted = stepped.commands.into_iter().map(|Call { call, place, what, until }| {
                    let request = request_of_step(deed, doing.value, what);
                    Wanted { call, node: self.places[place], request, until }
                });
                (wanted.collect(), stepped.wake_at, stepped.is_done)
            }
            Code::Read(machine) => {
                let arrived = arrived.filter(|(call, _)| machine.answered(*call).is_some());
                let stepped = machine.step(now, arrived);
                let deed = doing.deed;
                let wanted = stepped.commands.into_iter().map(|Call { call, place, what: (), until }| Wanted {
                    call,
                    node: self.places[place],
                    request: request_of_read(deed),
                    until,
                });
                (wanted.collect(), stepped.wake_at, stepped.is_done)
            }
        };
        let ended = doing.ended.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|_| is_done);
        Stepped { wanted, wake_at, ended }
    }

    /// A node that was late answers again.
    pub(crate) fn is_there(&self, node: usize) {
        if let Some(place) = self.places.iter().position(|known| *known == node) {
            self.nodes.is_there(place);
        }
    }

    /// A node is alive on its connection.
    pub(crate) fn hears(&self, node: usize, now: Time) {
        if let Some(place) = self.places.iter().position(|known| *known == node) {
            self.nodes.was_heard(place, now);
        }
    }

    /// Nodes that were late.
    pub(crate) fn silent(&self) -> Vec<usize> {
        self.nodes.silent().into_iter().map(|place| self.places[place]).collect()
    }
}

fn said(reply: Reply) -> Said {
    match reply {
        Reply::Stamps(stamps) => Said::Stamps(stamps),
        Reply::Outcomes(outcomes) => Said::Outcomes(outcomes),
        _ => Said::Outcomes(Vec::new()),
    }
}

fn request_of_step(deed: Deed, value: u64, step: Step) -> Request {
    let (collection, level) = (COLLECTION.to_owned(), Level::Quorum);
    let (Deed::Put(point)
    | Deed::PutAt(point, _)
    | Deed::Delete(point)
    | Deed::Get(point)
    | Deed::Search(_, point)
    | Deed::StampOne(point)) = deed;
    let id = PointId::Number(point);
    match step {
        Step::Stamp(_) => Stamp { collection, ids: vec![id], level }.into(),
        Step::Write(_, stamps) if matches!(deed, Deed::Put(_) | Deed::PutAt(..)) => {
            let point = Point { id, vectors: value::vectors(value), payload: value::payload(value) };
            Put { collection, points: vec![point], level, stamps }.into()
        }
        Step::Write(_, stamps) => Delete { collection, ids: vec![id], level, stamps }.into(),
    }
}

fn request_of_read(deed: Deed) -> Request {
    let (collection, level) = (COLLECTION.to_owned(), Level::Quorum);
    match deed {
        Deed::Search(k, place) => Search {
            collection,
            query: Query::Vector(value::vector(place)),
            field: String::new(),
            k,
            ef: None,
            threshold: None,
            level,
            with_payload: true,
            with_vectors: false,
            allow_partial: false,
            exact: true,
        }
        .into(),
        Deed::StampOne(point) => Stamp { collection, ids: vec![PointId::Number(point)], level: Level::One }.into(),
        Deed::Put(point) | Deed::PutAt(point, _) | Deed::Delete(point) | Deed::Get(point) => {
            Get { collection, ids: vec![PointId::Number(point)], level, with_vectors: false }.into()
        }
    }
}

/// What makes the collection.
pub(crate) fn create(name: &str, replicas: u32) -> Request {
    let field = FieldSchema { dim: 2, metric: Metric::Euclidean, m: 8, ef_construction: 40, profile: Profile::Fast };
    let fields = BTreeMap::from([(String::new(), field)]);
    let schema = CollectionSchema { fields, replication_factor: replicas, fsync: Fsync::Always };
    CreateCollection { name: name.to_owned(), schema }.into()
}
