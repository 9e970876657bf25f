//! Asking a mesh: one request to one node after another, and to a second one where the first is late, until one answers,
//! no other attempt is safe, or time is up. [`vecino_mesh::client`] decides, and here its calls are made.
//!
//! What requests say and what is done with their answers lives in the modules above.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;
use vecino_mesh::client::{
    self as decisions, Answered, Attempts, Call, Effect, Failed, Hedge, Next, Nodes, Plan, Said, Step,
};
use vecino_mesh::machine::{Machine, Steps};
use vecino_mesh::plants::Plants;
use vecino_mesh::time::{Now, Time};
use vecino_model::Outcome;
use vecino_net::endpoint::{Chunks, Endpoint};
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::message::{Members, Rpc, Stamp};
use vecino_net::rpc::DEADLINE_MAX;

use crate::error::ClientError;
use crate::listening::{LOOK_EVERY, Listening, Shown};
use crate::write::Batch;

/// A larger request is not sent to a second node while its node is alive, however late that is: it would be what makes it
/// late.
const SMALL_BYTES_MAX: usize = 64 * 1024;
/// A write of more points is as good as larger.
const SMALL_POINTS_MAX: usize = 64;
/// How often the members of the mesh are asked for anew.
const MEMBERS_EVERY: Duration = Duration::from_secs(30);
/// How long a node may take to say who they are.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(1);
/// Most nodes that a client keeps in mind.
const NODES_MAX: usize = 64;

/// The connections to a mesh and the time that a request may take. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    shared: Arc<Shared>,
    timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    /// As they were given.
    given: Vec<SocketAddr>,
    /// These, and the other members of the mesh behind them; it only grows.
    addresses: RwLock<Vec<SocketAddr>>,
    nodes: Arc<Nodes>,
    listening: Listening,
    began: Instant,
    /// Whether what looks after the nodes runs.
    is_tended: AtomicBool,
}

/// An answer in chunks that is being read.
#[derive(Debug)]
pub(crate) struct Opened<R> {
    chunks: Chunks<R>,
    /// Place of the node that sends it.
    place: usize,
}

impl Shared {
    fn time_of(&self, instant: Instant) -> Time {
        Time::default() + instant.saturating_duration_since(self.began)
    }

    fn now(&self) -> Now {
        Now { time: self.time_of(Instant::now()), wall_ms: 0 }
    }

    fn address(&self, place: usize) -> SocketAddr {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner)[place]
    }

    /// Makes a call, and notes meanwhile whether its node is alive.
    async fn listening_to<T>(self: &Arc<Self>, place: usize, call: impl Future<Output = T>) -> T {
        let listen = async {
            loop {
                self.listen(place);
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            answer = call => answer,
            () = listen => unreachable!("it listens for ever"),
        }
    }

    fn listen(self: &Arc<Self>, place: usize) {
        let received = self.endpoint.received(self.address(place));
        match self.listening.look(place, received, Instant::now()) {
            Shown::Nothing => {}
            Shown::Life => self.nodes.was_heard(place, self.now().time),
            Shown::Quiet => {
                // A node that has nothing to say acknowledges at least this.
                let session = Arc::clone(self);
                tokio::spawn(async move {
                    let _ = members_by(&session, place).await;
                    session.listening.was_asked(place);
                });
            }
        }
    }

    fn left(&self, until: Time) -> Duration {
        until.since(self.now().time)
    }

    /// Carries out a request: its code decides, `call` makes its calls.
    async fn carry_out<'c, Q, P, T, F>(
        &self,
        code: impl FnOnce(decisions::Task<Q, P>) -> F,
        call: impl Fn(Call<Q>) -> BoxFuture<'c, Result<P, RpcError>>,
    ) -> T
    where
        Q: Send + 'static,
        P: Send + 'static,
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let steps = Steps::new(self.now());
        let code = code(steps.clone());
        let result = Arc::new(Mutex::new(None));
        let mut machine = Machine::new(steps, {
            let result = Arc::clone(&result);
            async move {
                let ended = code.await;
                *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
            }
        });
        let mut calls = FuturesUnordered::new();
        let mut stepped = machine.step(self.now(), None);
        loop {
            for made in stepped.commands {
                let number = made.call;
                let answer = call(made);
                calls.push(async move { (number, answer.await) });
            }
            if stepped.is_done {
                break;
            }
            // At the latest then: a far time only says that nothing else is waited for.
            let wake_at = self.began + stepped.wake_at.since(Time::default()).min(DEADLINE_MAX * 24);
            let arrived = tokio::select! {
                Some(arrived) = calls.next(), if !calls.is_empty() => Some(arrived),
                () = sleep_until(wake_at) => None,
            };
            if let Some((number, _)) = &arrived {
                machine.answered(*number);
            }
            stepped = machine.step(self.now(), arrived);
        }
        let ended = result.lock().unwrap_or_else(PoisonError::into_inner).take();
        ended.expect("the code of a request ends with its result")
    }
}

impl Session {
    pub(crate) fn new(endpoint: Endpoint, given: Vec<SocketAddr>, timeout: Duration) -> Self {
        let nodes = Arc::new(Nodes::new(given.len()));
        let addresses = RwLock::new(given.clone());
        let (began, is_tended) = (Instant::now(), AtomicBool::new(false));
        let listening = Listening::default();
        Self { shared: Arc::new(Shared { endpoint, given, addresses, nodes, listening, began, is_tended }), timeout }
    }

    pub(crate) fn with_timeout(&self, timeout: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), timeout }
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn nodes(&self) -> &[SocketAddr] {
        &self.shared.given
    }

    /// Closes the connections, also those of clones, and waits at most `grace` for requests under way.
    pub(crate) async fn close(&self, grace: Duration) {
        self.shared.endpoint.close(grace).await;
    }

    pub(crate) async fn call<R: Rpc + Sync>(&self, request: &R, effect: Effect) -> Result<R::Reply, ClientError> {
        self.ask_as(request, effect, Hedge::Never).await.map(|(reply, _)| reply)
    }

    /// Makes one request of about this size that only reads, and says which node answered it.
    pub(crate) async fn ask<R: Rpc + Sync>(
        &self,
        request: &R,
        bytes: usize,
    ) -> Result<(R::Reply, SocketAddr), ClientError> {
        let hedge = if bytes > SMALL_BYTES_MAX { Hedge::Quiet } else { Hedge::Late };
        self.ask_as(request, Effect::Read, hedge).await
    }

    async fn ask_as<R: Rpc + Sync>(
        &self,
        request: &R,
        effect: Effect,
        hedge: Hedge,
    ) -> Result<(R::Reply, SocketAddr), ClientError> {
        let shared = &self.shared;
        let until = shared.time_of(Instant::now() + self.timeout);
        let plan = Plan { effect, kind: R::KIND, until, hedge, chance: fastrand::f64() };
        let nodes = Arc::clone(&shared.nodes);
        let code = move |task| async move { decisions::ask(&task, &nodes, plan, ()).await };
        let call = |Call { place, until, .. }: Call<()>| -> BoxFuture<'_, _> {
            let (address, left) = (shared.address(place), shared.left(until));
            let call = shared.endpoint.call(address, None, request, left);
            if hedge == Hedge::Quiet { Box::pin(shared.listening_to(place, call)) } else { Box::pin(call) }
        };
        match shared.carry_out(code, call).await {
            Ok(Answered { reply, place, .. }) => {
                self.tend();
                Ok((reply, shared.address(place)))
            }
            Err(failed) => Err(self.failed(R::NAME, failed)),
        }
    }

    /// Writes a batch: points that were not settled are written again while time is left, with the versions that they
    /// had. The outcomes are in the order of the points.
    pub(crate) async fn write<B: Batch>(&self, batch: &B, repeat_unknown: bool) -> Result<Vec<Outcome>, ClientError> {
        let shared = &self.shared;
        let is_large = batch.count() > SMALL_POINTS_MAX || batch.bytes() > SMALL_BYTES_MAX;
        let writing = decisions::Write {
            points: batch.count(),
            kinds: [Stamp::KIND, B::KIND],
            until: shared.time_of(Instant::now() + self.timeout),
            repeats_unknown: repeat_unknown,
            hedge: if is_large { Hedge::Quiet } else { Hedge::Late },
            chance: fastrand::f64(),
            plants: Plants::default(),
        };
        let nodes = Arc::clone(&shared.nodes);
        let code = move |task| async move { decisions::write(&task, &nodes, writing).await };
        let call = |Call { place, what, until, .. }: Call<Step>| -> BoxFuture<'_, _> {
            let (address, endpoint) = (shared.address(place), &shared.endpoint);
            let call = async move {
                match what {
                    Step::Stamp(places) => {
                        let request = batch.stamp(&places);
                        let stamps = endpoint.call(address, None, &request, shared.left(until)).await?;
                        check_count::<Stamp>(stamps.len(), places.len()).map(|()| Said::Stamps(stamps))
                    }
                    Step::Write(places, stamps) => {
                        let request = batch.part(&places, stamps);
                        let outcomes = endpoint.call(address, None, &request, shared.left(until)).await?;
                        check_count::<B>(outcomes.len(), places.len()).map(|()| Said::Outcomes(outcomes))
                    }
                }
            };
            if is_large { Box::pin(shared.listening_to(place, call)) } else { Box::pin(call) }
        };
        let outcomes = shared.carry_out(code, call).await.map_err(|failed| self.failed(B::NAME, failed))?;
        self.tend();
        Ok(outcomes)
    }

    fn failed(&self, operation: &'static str, failed: Failed) -> ClientError {
        let Failed { error: RpcError { code, message, .. }, retry, place, attempts } = failed;
        // The decisions do not know what is asked for.
        let is_unnamed = code == ErrorCode::Timeout && !message.contains(operation);
        let message = if is_unnamed { format!("{operation} has {message}") } else { message };
        ClientError::Request { operation, node: self.shared.address(place), attempts, code, message, retry }
    }

    /// Looks after the nodes from the first answer on: learns where the other members of the mesh are, keeps a connection
    /// to a second one, and asks silent ones whether they answer again.
    fn tend(&self) {
        if !self.shared.is_tended.swap(true, Ordering::Relaxed) {
            tokio::spawn(tend(Arc::downgrade(&self.shared)));
        }
    }

    /// The next chunk of an answer, from the stream that is open or else from a new one, and the node that sent it. A stream
    /// that was cut off or has ended is replaced, so the request must ask for what comes behind the last chunk.
    pub(crate) async fn next_chunk<R: Rpc>(
        &self,
        request: &R,
        opened: &mut Option<Opened<R>>,
    ) -> Result<(R::Reply, SocketAddr), ClientError> {
        let first = opened.as_ref().map(|opened| opened.place);
        let mut round = Round::new::<R>(&self.shared, Effect::Read, first, self.timeout);
        loop {
            let Turn { place, node, patience } = round.turn();
            let next = timeout(patience, self.chunk_of(request, opened.take(), place)).await;
            let late = || format!("{} to {node} has brought nothing within {patience:?}", R::NAME);
            match next.unwrap_or_else(|_| Err(RpcError::new(ErrorCode::Timeout, late()))) {
                Ok((chunk, chunks)) => {
                    *opened = Some(Opened { chunks, place });
                    round.answered();
                    return Ok((chunk, node));
                }
                Err(error) => round.failed(error).await?,
            }
        }
    }

    /// The next chunk of the node at this place, from the stream that is open where it is that node's.
    async fn chunk_of<R: Rpc>(
        &self,
        request: &R,
        opened: Option<Opened<R>>,
        place: usize,
    ) -> Result<(R::Reply, Chunks<R>), RpcError> {
        if let Some(Opened { mut chunks, .. }) = opened.filter(|opened| opened.place == place)
            && let Some(chunk) = chunks.try_next().await?
        {
            return Ok((chunk, chunks));
        }
        let node = self.shared.address(place);
        let mut chunks = self.shared.endpoint.call_streaming(node, None, request, DEADLINE_MAX).await?;
        let chunk = chunks.try_next().await?;
        let empty = || format!("the answer of {node} to {} ended before it began", R::NAME);
        chunk.map(|chunk| (chunk, chunks)).ok_or_else(|| RpcError::new(ErrorCode::Protocol, empty()))
    }
}

/// The attempts at one request, with the clock and the nodes that [`Attempts`] knows nothing of.
struct Round<'a> {
    shared: &'a Shared,
    attempts: Attempts,
    /// Names the request.
    name: &'static str,
}

/// One attempt.
struct Turn {
    /// Index of the node to ask.
    place: usize,
    node: SocketAddr,
    /// How long it may take.
    patience: Duration,
}

impl<'a> Round<'a> {
    /// Attempts that begin with the node at `first`, or else with the one that answered last.
    fn new<R: Rpc>(shared: &'a Shared, effect: Effect, first: Option<usize>, patience: Duration) -> Self {
        let first = first.unwrap_or_else(|| shared.nodes.first());
        let now = shared.now().time;
        let attempts = Attempts::new(effect, shared.nodes.count(), first, now, now + patience);
        Self { shared, attempts, name: R::NAME }
    }

    fn turn(&self) -> Turn {
        let place = self.attempts.node();
        Turn { place, node: self.shared.address(place), patience: self.attempts.patience(self.shared.now().time) }
    }

    fn answered(&self) {
        self.shared.nodes.is_there(self.attempts.node());
    }

    /// Waits until the next attempt is due, or says why there is none.
    async fn failed(&mut self, error: RpcError) -> Result<(), ClientError> {
        let operation = self.name;
        let node = self.shared.address(self.attempts.node());
        match self.attempts.failed(&error, self.shared.now().time, fastrand::f64(), |_| false) {
            Next::Try(pause) => {
                let next = self.shared.address(self.attempts.node());
                debug!(request = operation, %node, %error, ?pause, %next, "trying again");
                sleep(pause).await;
                Ok(())
            }
            Next::GiveUp => {
                let RpcError { code, message, retry, .. } = error;
                let (attempts, retry) = (self.attempts.count(), self.attempts.verdict(retry));
                Err(ClientError::Request { operation, node, attempts, code, message, retry })
            }
        }
    }
}

/// The node answered, but with what cannot be an answer.
pub(crate) fn nonsense<R: Rpc>(node: SocketAddr, what: std::fmt::Arguments<'_>) -> ClientError {
    let message = format!("the answer to {} has {what}: is the node of another version?", R::NAME);
    let RpcError { code, message, retry, .. } = RpcError::new(ErrorCode::Protocol, message);
    ClientError::Request { operation: R::NAME, node, attempts: 1, code, message, retry }
}

/// Looks after the nodes for as long as the session is there.
async fn tend(shared: Weak<Shared>) {
    let mut learned_at = None::<Instant>;
    loop {
        let Some(session) = shared.upgrade() else { return };
        if learned_at.is_none_or(|at| at.elapsed() >= MEMBERS_EVERY) {
            learned_at = Some(Instant::now());
            learn(&session).await;
        }
        for place in session.nodes.silent() {
            if members_by(&session, place).await.is_ok() {
                session.nodes.is_there(place);
            }
        }
        drop(session);
        sleep(decisions::PROBE_EVERY).await;
    }
}

/// Learns where the members are, and gets to know a second one, so that there is a connection when it is needed.
async fn learn(session: &Shared) {
    let first = session.nodes.first();
    let Ok(found) = members_by(session, first).await else { return };
    let count = {
        let mut addresses = session.addresses.write().unwrap_or_else(PoisonError::into_inner);
        for address in found {
            if addresses.len() < NODES_MAX && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses.len()
    };
    session.nodes.grow(count);
    let others = (1..count).map(|step| (first + step) % count);
    for place in others {
        if members_by(session, place).await.is_ok() {
            return;
        }
    }
}

async fn members_by(session: &Shared, place: usize) -> Result<Vec<SocketAddr>, RpcError> {
    let reply = session.endpoint.call(session.address(place), None, &Members {}, MEMBERS_TIMEOUT).await?;
    Ok(reply.addresses.iter().filter_map(|address| address.parse().ok()).collect())
}

fn check_count<R: Rpc>(answered: usize, asked: usize) -> Result<(), RpcError> {
    if answered == asked {
        return Ok(());
    }
    let message = format_args!(
        "the answer to {} has {answered} entries for {asked} points: is the node of another version?",
        R::NAME
    );
    Err(RpcError::new(ErrorCode::Protocol, message).with_retry(vecino_net::error::Retry::Unknown))
}
