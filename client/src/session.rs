//! Asking a mesh: one request to one node after another, until one answers, no other attempt is safe, or time is up.
//!
//! What requests say and what is done with their answers lives in the modules above.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::debug;
use vecino_model::Outcome;
use vecino_net::endpoint::{Chunks, Endpoint};
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::message::Rpc;
use vecino_net::rpc::DEADLINE_MAX;

use crate::attempts::{Attempts, Effect, Next};
use crate::error::ClientError;
use crate::write::{self, Batch};

/// The connections to a mesh and the time that a request may take. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    shared: Arc<Shared>,
    timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    nodes: Vec<SocketAddr>,
    /// Index of the node that answered last: it is asked first.
    preferred: AtomicUsize,
}

/// An answer in chunks that is being read.
#[derive(Debug)]
pub(crate) struct Opened<R> {
    chunks: Chunks<R>,
    /// Index of the node that sends it.
    place: usize,
}

impl Session {
    pub(crate) fn new(endpoint: Endpoint, nodes: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self { shared: Arc::new(Shared { endpoint, nodes, preferred: AtomicUsize::new(0) }), timeout }
    }

    pub(crate) fn with_timeout(&self, timeout: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), timeout }
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn nodes(&self) -> &[SocketAddr] {
        &self.shared.nodes
    }

    /// Closes the connections, also those of clones, and waits at most `grace` for requests under way.
    pub(crate) async fn close(&self, grace: Duration) {
        self.shared.endpoint.close(grace).await;
    }

    pub(crate) async fn call<R: Rpc>(&self, request: &R, effect: Effect) -> Result<R::Reply, ClientError> {
        self.ask(request, effect).await.map(|(reply, _)| reply)
    }

    /// Makes one request, and says which node answered it.
    pub(crate) async fn ask<R: Rpc>(&self, request: &R, effect: Effect) -> Result<(R::Reply, SocketAddr), ClientError> {
        self.ask_until(request, effect, Instant::now() + self.timeout).await
    }

    /// Writes a batch: points that were not settled are written again while time is left. The outcomes are in the order
    /// of the points.
    pub(crate) async fn write<B: Batch>(&self, batch: &B, repeat_unknown: bool) -> Result<Vec<Outcome>, ClientError> {
        let until = Instant::now() + self.timeout;
        let effect = if repeat_unknown { Effect::RepeatableWrite } else { Effect::SingleWrite };
        let (mut outcomes, node) = self.ask_until(batch, effect, until).await?;
        if outcomes.len() != batch.count() {
            return Err(nonsense::<B>(node, format_args!("{} outcomes for {} points", outcomes.len(), batch.count())));
        }
        for round in 1..=write::ROUNDS_MAX {
            let unsettled = write::unsettled(&outcomes, repeat_unknown);
            let pause = write::pause(round, fastrand::f64());
            if unsettled.is_empty() || Instant::now() + pause >= until {
                break;
            }
            debug!(points = unsettled.len(), round, "writing unsettled points again");
            sleep(pause).await;
            let again = batch.subset(&unsettled);
            match self.ask_until(&again, effect, until).await {
                Ok((later, _)) if later.len() == unsettled.len() => write::merge(&mut outcomes, &unsettled, later),
                Ok((_, node)) => debug!(%node, "the answer has another number of outcomes"),
                Err(error) => {
                    debug!(%error, "unsettled points could not be written again");
                    break;
                }
            }
        }
        Ok(outcomes)
    }

    /// The next chunk of an answer, from the stream that is open or else from a new one, and the node that sent it. A stream
    /// that was cut off or has ended is replaced, so the request must ask for what comes behind the last chunk.
    pub(crate) async fn next_chunk<R: Rpc>(
        &self,
        request: &R,
        opened: &mut Option<Opened<R>>,
    ) -> Result<(R::Reply, SocketAddr), ClientError> {
        let first = opened.as_ref().map(|opened| opened.place);
        let mut round = Round::new::<R>(&self.shared, Effect::Read, first, Instant::now() + self.timeout);
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
        let node = self.shared.nodes[place];
        let mut chunks = self.shared.endpoint.call_streaming(node, None, request, DEADLINE_MAX).await?;
        let chunk = chunks.try_next().await?;
        let empty = || format!("the answer of {node} to {} ended before it began", R::NAME);
        chunk.map(|chunk| (chunk, chunks)).ok_or_else(|| RpcError::new(ErrorCode::Protocol, empty()))
    }

    async fn ask_until<R: Rpc>(
        &self,
        request: &R,
        effect: Effect,
        until: Instant,
    ) -> Result<(R::Reply, SocketAddr), ClientError> {
        let mut round = Round::new::<R>(&self.shared, effect, None, until);
        loop {
            let Turn { node, patience, .. } = round.turn();
            match self.shared.endpoint.call(node, None, request, patience).await {
                Ok(reply) => {
                    round.answered();
                    return Ok((reply, node));
                }
                Err(error) => round.failed(error).await?,
            }
        }
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
    fn new<R: Rpc>(shared: &'a Shared, effect: Effect, first: Option<usize>, until: Instant) -> Self {
        let first = first.unwrap_or_else(|| shared.preferred.load(Ordering::Relaxed));
        let attempts = Attempts::new(effect, shared.nodes.len(), first, Instant::now(), until);
        Self { shared, attempts, name: R::NAME }
    }

    fn turn(&self) -> Turn {
        let place = self.attempts.node();
        Turn { place, node: self.shared.nodes[place], patience: self.attempts.patience(Instant::now()) }
    }

    fn answered(&self) {
        self.shared.preferred.store(self.attempts.node(), Ordering::Relaxed);
    }

    /// Waits until the next attempt is due, or says why there is none.
    async fn failed(&mut self, error: RpcError) -> Result<(), ClientError> {
        let (nodes, operation) = (&self.shared.nodes, self.name);
        let node = nodes[self.attempts.node()];
        match self.attempts.failed(&error, Instant::now(), fastrand::f64()) {
            Next::Try(pause) => {
                let next = nodes[self.attempts.node()];
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
