//! Asking a mesh: one request to one node after another, until one answers, no other attempt is safe, or time is up.
//!
//! What requests say and what is done with their answers lives in the modules above.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;
use vecino_model::Outcome;
use vecino_net::endpoint::Endpoint;
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::message::Rpc;

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

    async fn ask_until<R: Rpc>(
        &self,
        request: &R,
        effect: Effect,
        until: Instant,
    ) -> Result<(R::Reply, SocketAddr), ClientError> {
        let Shared { endpoint, nodes, preferred } = &*self.shared;
        let first = preferred.load(Ordering::Relaxed);
        let mut attempts = Attempts::new(effect, nodes.len(), first, Instant::now(), until);
        loop {
            let (node, patience) = (nodes[attempts.node()], attempts.patience(Instant::now()));
            let index = attempts.node();
            let error = match endpoint.call(node, None, request, patience).await {
                Ok(reply) => {
                    preferred.store(index, Ordering::Relaxed);
                    return Ok((reply, node));
                }
                Err(error) => error,
            };
            match attempts.failed(&error, Instant::now(), fastrand::f64()) {
                Next::Try(pause) => {
                    debug!(request = R::NAME, %node, %error, ?pause, next = %nodes[attempts.node()], "trying again");
                    sleep(pause).await;
                }
                Next::GiveUp => {
                    let RpcError { code, message, retry } = error;
                    let (attempts, retry) = (attempts.count(), attempts.verdict(retry));
                    return Err(ClientError::Request { operation: R::NAME, node, attempts, code, message, retry });
                }
            }
        }
    }
}

/// The node answered, but with what cannot be an answer.
pub(crate) fn nonsense<R: Rpc>(node: SocketAddr, what: std::fmt::Arguments<'_>) -> ClientError {
    let message = format!("the answer to {} has {what}: is the node of another version?", R::NAME);
    let RpcError { code, message, retry } = RpcError::new(ErrorCode::Protocol, message);
    ClientError::Request { operation: R::NAME, node, attempts: 1, code, message, retry }
}
