//! Carries out what [`vecino_mesh`] decides for a node: sends requests to other nodes, has the own engine and the own disk
//! work, wakes operations when their time has come, answers callers; and tells what comes of it.
//!
//! The operations of a node are spread over lanes, each behind a lock that is held while one event is handled, so that
//! requests wait for each other no longer than that.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use vecino_mesh::core::{Core, Start};
use vecino_mesh::event::{self, Change, Command, Event, OpId};
use vecino_mesh::machine::CallId;
use vecino_mesh::message::{Ask, Reply, Request};
use vecino_mesh::node::Node;
use vecino_mesh::time::{Now, Time};
use vecino_mesh::wall_clocks::Standing;
use vecino_model::message::{Dropped, NodeStats, NodeStatsReply};
use vecino_model::{ClockStatus, NodeId, View};
use vecino_net::endpoint::Endpoint;
use vecino_net::error::{ErrorCode, Retry, RpcError};
use vecino_net::message::Rpc;
use vecino_net::rpc::{Caller, RequestContext, TraceId};
use vecino_supervise::kept_running;

use crate::blocking::blocking;
use crate::hints::Hints;
use crate::replica::ReplicaRequest;
use crate::snapshots;
use crate::store::{Store, to_rpc_error};
use crate::wall_clock::{SystemClock, WallClock};

/// Most lanes; beyond it two requests rarely meet in one.
const LANES_MAX: usize = 16;
/// 2^64 divided by the golden ratio: multiples of it are spread evenly (Knuth, TAOCP 3, 6.4).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// A timer looks again after this, whatever it was told.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// Drives the decisions of one node. Cheap to clone.
#[derive(Clone)]
pub struct Driver {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Core>,
    lanes: Vec<Lane>,
    endpoint: Endpoint,
    store: Arc<Store>,
    hints: Arc<Hints>,
    began: Instant,
    operations: AtomicU64,
}

struct Lane {
    state: Mutex<LaneState>,
    /// Told when an operation wants to be woken sooner than every other.
    sooner: Notify,
}

struct LaneState {
    node: Node,
    callers: HashMap<OpId, Waiting>,
    /// What ends the wait for a call.
    calls: HashMap<(OpId, CallId), oneshot::Sender<()>>,
    wakes: BTreeSet<(Time, OpId)>,
    wake_of: HashMap<OpId, Time>,
}

/// The caller of an operation.
struct Waiting {
    answer: Option<oneshot::Sender<Result<Reply, RpcError>>>,
    trace: TraceId,
}

impl Driver {
    /// A driver of a node that starts now.
    pub fn new(start: Start, endpoint: Endpoint, store: Arc<Store>, hints: Arc<Hints>) -> Self {
        let core = Arc::new(Core::new(start, Arc::clone(store.known()), Time::default()));
        let lanes = std::thread::available_parallelism().map_or(1, usize::from).min(LANES_MAX);
        let lane = |_| Lane {
            state: Mutex::new(LaneState {
                node: Node::new(Arc::clone(&core)),
                callers: HashMap::new(),
                calls: HashMap::new(),
                wakes: BTreeSet::new(),
                wake_of: HashMap::new(),
            }),
            sooner: Notify::new(),
        };
        let lanes = (0..lanes).map(lane).collect();
        let (began, operations) = (Instant::now(), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { core, lanes, endpoint, store, hints, began, operations }) }
    }

    /// What the operations of the node share.
    pub fn core(&self) -> &Core {
        &self.shared.core
    }

    /// Starts what runs for as long as the node does: its timers, its own work, and what follows the members of the mesh.
    pub fn start(&self, background: &mut tokio::task::JoinSet<()>, view: &watch::Receiver<Arc<View>>) {
        for lane in 0..self.shared.lanes.len() {
            let driver = self.clone();
            background.spawn(kept_running("timers", move || driver.clone().wake_operations(lane)));
        }
        let (driver, view) = (self.clone(), view.clone());
        background.spawn(kept_running("following members", move || driver.clone().follow_members(view.clone())));
        let hints = Arc::clone(&self.shared.hints);
        background.spawn(kept_running("flushing hints", move || {
            let hints = Arc::clone(&hints);
            async move { hints.flush_for_ever().await }
        }));
        self.happened(0, Event::Started);
    }

    /// Another node has told its wall clock with what it sent.
    pub fn clock_heard(&self, node: NodeId, told: u32) {
        // Any lane does it, and none does it for all.
        let lane = usize::from(node.as_bytes()[0]) % self.shared.lanes.len();
        self.happened(lane, Event::ClockHeard { node, told });
    }

    /// How this node's wall clock stands to those of the others that it hears.
    pub fn clock_standing(&self) -> Standing {
        self.core().clock_standing(self.now())
    }

    /// Makes a request of a caller, and gives its answer. Where the future is dropped, what only reads ends.
    ///
    /// # Errors
    /// What the request fails with.
    pub async fn ask<R: Ask>(&self, context: &RequestContext, request: R) -> Result<R::Answer, RpcError> {
        let caller = match &context.caller {
            Caller::Peer(peer) => event::Caller::Peer(*peer),
            _ => event::Caller::Client,
        };
        let op = self.shared.operations.fetch_add(1, Ordering::Relaxed);
        let lane = self.lane_of(op);
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { answer: Some(answer), trace: context.trace };
        self.lane(lane).callers.insert(op, waiting);
        let asking = Asking { driver: self, lane, op };
        let deadline = self.time_of(context.deadline);
        self.happened(lane, Event::Request { op, caller, request: request.into(), deadline });
        let result = answered.await;
        drop(asking);
        let lost = |_| Err(RpcError::new(ErrorCode::Internal, "the request ended without an answer"));
        let reply = result.unwrap_or_else(lost)?;
        R::answer(reply).ok_or_else(|| RpcError::new(ErrorCode::Internal, "the request was answered as another kind"))
    }

    /// A client's writes follow each other at even distances, so the lane is not the remainder of the number.
    fn lane_of(&self, op: OpId) -> usize {
        (op.wrapping_mul(SPREAD) >> 32) as usize % self.shared.lanes.len()
    }

    fn lane(&self, lane: usize) -> MutexGuard<'_, LaneState> {
        self.shared.lanes[lane].state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        Now { time: self.time_of(Instant::now()), wall_ms: SystemClock.now_ms() }
    }

    fn time_of(&self, instant: Instant) -> Time {
        Time::default() + instant.saturating_duration_since(self.shared.began)
    }

    fn instant_of(&self, time: Time) -> Instant {
        self.shared.began + time.since(Time::default())
    }

    /// Has the node decide about an event, and carries out what it decides: at once what takes next to no time, and what else
    /// there is in tasks of their own.
    fn happened(&self, lane: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for (trace, work) in self.decide(lane, event) {
                let (driver, is_brief) = (self.clone(), work.is_brief());
                let work = trace.scope(self.clone().work(work));
                if !is_brief {
                    tokio::spawn(async move { driver.happened(lane, work.await) });
                    continue;
                }
                let mut work = Box::pin(work);
                match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(done) => events.push_back(done),
                    Poll::Pending => drop(tokio::spawn(async move { driver.happened(lane, work.await) })),
                }
            }
        }
    }

    /// Has the node decide about an event, and gives the work that follows from it.
    fn decide(&self, lane: usize, event: Event) -> Vec<(TraceId, Work)> {
        let now = self.now();
        let mut state = self.lane(lane);
        if let Event::Answered { op, call, .. } = &event {
            state.calls.remove(&(*op, *call));
        }
        let commands = state.node.handle(now, event);
        let mut rest = Vec::with_capacity(commands.len());
        for command in commands {
            match command {
                Command::Answer { op, result } => {
                    if let Some(answer) = state.callers.get_mut(&op).and_then(|waiting| waiting.answer.take()) {
                        // The caller may have gone.
                        let _ = answer.send(result);
                    }
                }
                Command::Wake { op, at } => self.set_wake(lane, &mut state, op, at),
                Command::GiveUp { op, call } => {
                    if let Some(give_up) = state.calls.remove(&(op, call)) {
                        let _ = give_up.send(());
                    }
                }
                Command::Send { op, call, to, request, deadline } => {
                    let (give_up, given_up) = oneshot::channel();
                    state.calls.insert((op, call), give_up);
                    let trace = state.callers.get(&op).map_or_else(TraceId::random, |waiting| waiting.trace);
                    rest.push((trace, Work::Send { op, call, to, request, deadline, given_up }));
                }
                Command::Engine { op, call, request } => {
                    let (give_up, given_up) = oneshot::channel();
                    state.calls.insert((op, call), give_up);
                    let trace = state.callers.get(&op).map_or_else(TraceId::random, |waiting| waiting.trace);
                    rest.push((trace, Work::Engine { op, call, request, given_up }));
                }
                Command::Persist { op, call, change } => {
                    let trace = state.callers.get(&op).map_or_else(TraceId::random, |waiting| waiting.trace);
                    rest.push((trace, Work::Persist { op, call, change }));
                }
            }
        }
        rest
    }

    fn set_wake(&self, lane: usize, state: &mut LaneState, op: OpId, at: Time) {
        if let Some(before) = state.wake_of.remove(&op) {
            state.wakes.remove(&(before, op));
        }
        if at == Time::NEVER {
            return;
        }
        let is_first = state.wakes.first().is_none_or(|(first, _)| at < *first);
        state.wakes.insert((at, op));
        state.wake_of.insert(op, at);
        if is_first {
            self.shared.lanes[lane].sooner.notify_one();
        }
    }

    /// Wakes the operations of a lane when their time has come, for ever.
    async fn wake_operations(self, lane: usize) {
        loop {
            let (due, next) = {
                let now = self.now().time;
                let mut state = self.lane(lane);
                let mut due = Vec::new();
                while let Some((at, op)) = state.wakes.first().copied().filter(|(at, _)| *at <= now) {
                    state.wakes.remove(&(at, op));
                    state.wake_of.remove(&op);
                    due.push(op);
                }
                (due, state.wakes.first().map(|(at, _)| *at))
            };
            if !due.is_empty() {
                due.into_iter().for_each(|op| self.happened(lane, Event::Woken { op }));
                continue;
            }
            let latest = Instant::now() + LOOK_MAX;
            let until = next.map_or(latest, |next| self.instant_of(next).min(latest));
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.shared.lanes[lane].sooner.notified() => {}
            }
        }
    }

    /// Tells the node who is in the mesh, each time that this changes, for ever.
    async fn follow_members(self, mut view: watch::Receiver<Arc<View>>) {
        loop {
            let members = Arc::clone(&view.borrow_and_update());
            for lane in 0..self.shared.lanes.len() {
                self.happened(lane, Event::Members(Arc::clone(&members)));
            }
            if view.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn work(self, work: Work) -> Event {
        let (op, call, result, request) = match work {
            Work::Send { op, call, to, request, deadline, given_up } => {
                let left = deadline.since(self.now().time);
                let result = tokio::select! {
                    result = self.send(to, &request, left) => result,
                    Ok(()) = given_up => Err(event::given_up()),
                };
                let request = matches!(request, Request::ReplicaApply(_)).then_some(request);
                (op, call, result, request)
            }
            Work::Engine { op, call, request, given_up } => {
                let result = tokio::select! {
                    result = self.engine(request) => result,
                    Ok(()) = given_up => Err(event::given_up()),
                };
                (op, call, result, None)
            }
            Work::Persist { op, call, change } => (op, call, self.persist(change).await, None),
        };
        Event::Answered { op, call, result, request }
    }

    /// Sends a request to another node.
    async fn send(&self, to: NodeId, request: &Request, left: Duration) -> Result<Reply, RpcError> {
        match request {
            Request::ReplicaVersions(request) => self.call(to, request, left).await.map(Reply::Versions),
            Request::ReplicaApply(request) => self.call(to, request, left).await.map(Reply::Outcomes),
            Request::ReplicaRead(request) => self.call(to, request, left).await.map(Reply::Records),
            Request::ReplicaSearch(request) => self.call(to, request, left).await.map(Reply::Hits),
            Request::ReplicaScan(request) => self.call(to, request, left).await.map(Reply::RecordPage),
            Request::CatalogFetch(request) => self.call(to, request, left).await.map(Reply::Catalog),
            Request::CatalogApply(request) => self.call(to, request, left).await.map(Reply::Dropped),
            Request::Probe(request) => self.call(to, request, left).await.map(Reply::Probed),
            Request::NodeStats(request) => self.call(to, request, left).await.map(Reply::Stats),
            Request::NodeSnapshot(request) => self.call(to, request, left).await.map(Reply::Snapshots),
            other => Err(unexpected(other)),
        }
    }

    async fn call<R: Rpc + Sync>(&self, to: NodeId, request: &R, left: Duration) -> Result<R::Reply, RpcError> {
        let Some(address) = self.shared.core.peers().address(to) else {
            return Err(RpcError::new(ErrorCode::Unavailable, "its address is not known any more"));
        };
        self.shared.endpoint.call(address, Some(to), request, left).await
    }

    /// Has the own replica do a request.
    async fn engine(&self, request: Request) -> Result<Reply, RpcError> {
        let store = &self.shared.store;
        match request {
            Request::ReplicaVersions(request) => request.answer(store).await.map(Reply::Versions),
            Request::ReplicaApply(request) => request.answer(store).await.map(Reply::Outcomes),
            Request::ReplicaRead(request) => request.answer(store).await.map(Reply::Records),
            Request::ReplicaSearch(request) => request.answer(store).await.map(Reply::Hits),
            Request::ReplicaScan(request) => request.answer(store).await.map(Reply::RecordPage),
            Request::NodeStats(NodeStats {}) => Ok(Reply::Stats(stats_of(store, self.clock_standing()))),
            Request::NodeSnapshot(request) => {
                snapshots::take(Arc::clone(store), self.shared.core.own, request).await.map(Reply::Snapshots)
            }
            Request::KeepHints(request) => self.shared.hints.keep(request).await.map(Reply::Hints),
            Request::NextHints(request) => self.shared.hints.next(request).await.map(Reply::Hints),
            Request::TakenHints(request) => self.shared.hints.taken(request).await.map(Reply::Hints),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes the catalog on the own disk and puts it into effect.
    async fn persist(&self, change: Change) -> Result<Reply, RpcError> {
        let store = Arc::clone(&self.shared.store);
        let changed = blocking(move || match change {
            Change::Apply(entry) => store.apply(entry),
            Change::Merge(entries) => store.merge_all(entries),
        });
        changed.await?.map(|freed_bytes| Reply::Dropped(Dropped::new(freed_bytes))).map_err(to_rpc_error)
    }

    /// Takes over what is new in these entries of a catalog.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub async fn take_over(&self, entries: Vec<vecino_model::CatalogEntry>) -> Result<(), RpcError> {
        self.persist(Change::Merge(entries)).await.map(drop)
    }

    /// Waits until no operation of a request is under way, for `grace` at the most: a write that was answered may still be
    /// on its way to its last replica.
    pub async fn drained(&self, grace: Duration) {
        let under_way = || (0..self.shared.lanes.len()).any(|lane| !self.lane(lane).calls.is_empty());
        let drained = async {
            while under_way() {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        let _ = timeout(grace, drained).await;
    }
}

/// Versions of no more points than this are looked up at once.
const BRIEF_POINTS_MAX: usize = 64;

/// How often a node that stops looks whether writes are still on their way.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// What takes time, or may.
enum Work {
    Send { op: OpId, call: CallId, to: NodeId, request: Request, deadline: Time, given_up: oneshot::Receiver<()> },
    Engine { op: OpId, call: CallId, request: Request, given_up: oneshot::Receiver<()> },
    Persist { op: OpId, call: CallId, change: Change },
}

impl Work {
    /// Whether it is as good as done where the collection is open: to look versions up takes less than to start a task.
    fn is_brief(&self) -> bool {
        matches!(self, Self::Engine { request: Request::ReplicaVersions(asked), .. } if asked.ids.len() <= BRIEF_POINTS_MAX)
    }
}

/// What this node holds of each collection, and what it takes in all.
fn stats_of(store: &Store, clock: Standing) -> NodeStatsReply {
    let Standing { ahead_ms, heard, is_off } = clock;
    let heard = u32::try_from(heard).unwrap_or(u32::MAX);
    NodeStatsReply {
        collections: store.stats().into_iter().collect(),
        memory: Some(store.memory()),
        panics: vecino_supervise::panics(),
        clock: Some(ClockStatus::new(ahead_ms, heard, is_off)),
    }
}

fn unexpected(request: &Request) -> RpcError {
    let message = format_args!("a node does not send a {}", request.name());
    RpcError::new(ErrorCode::Internal, message).with_retry(Retry::No)
}

/// A caller that waits. When it goes away, its operation is told.
struct Asking<'d> {
    driver: &'d Driver,
    lane: usize,
    op: OpId,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let waiting = self.driver.lane(self.lane).callers.remove(&self.op);
        if waiting.is_some_and(|waiting| waiting.answer.is_some()) {
            self.driver.happened(self.lane, Event::Abandoned { op: self.op });
        }
    }
}
