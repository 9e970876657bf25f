//! What the code of an operation works with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vecino_model::error::{ErrorCode, Retry, RpcError};
use vecino_model::message::{CatalogFetch, Dropped, ReplicaApply};
use vecino_model::{CatalogEntry, NodeId, Record};

use crate::collections::Route;
use crate::core::Core;
use crate::event::{Change, Command, OpId};
use crate::machine::{CallId, Steps};
use crate::message::{Ask, Reply, Request};
use crate::peers::Pace;
use crate::quorum::write::Failed;
use crate::time::{Now, Time};

/// How long catalogs are looked for on other nodes when a collection is not known here.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The reply, or why there is none.
    pub result: Result<Reply, RpcError>,
    /// What was asked, where it is still there.
    pub request: Option<Request>,
}

/// What is remembered of a call until it is answered.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Of another node.
    Node {
        /// Which.
        node: NodeId,
        /// What kind of work it is.
        pace: Pace,
        /// When it was asked.
        since: Time,
        /// Bytes of records that it was sent.
        bytes: usize,
    },
    /// Of this node's own engine or disk.
    Own {
        /// What kind of work it is.
        pace: Pace,
    },
}

impl Asked {
    /// The other node that was asked.
    pub(crate) fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Node { node, .. } => Some(node),
            Self::Own { .. } => None,
        }
    }

    /// Whether it costs much and changes nothing, so that it is given up when nobody waits for it any more.
    pub(crate) fn is_search(&self) -> bool {
        let (Self::Node { pace, .. } | Self::Own { pace }) = self;
        *pace == Pace::Search
    }

    /// Takes note of how long it has taken so far.
    pub(crate) fn is_given_up(&self, core: &Core, now: Time) {
        if let Self::Node { node, pace, since, .. } = self {
            core.peers().took_longer(*node, *pace, now.since(*since));
        }
    }

    /// Takes note of how long it took.
    pub(crate) fn settle(&self, core: &Core, now: Time, answered: bool) {
        let Self::Node { node, pace, since, bytes } = self else { return };
        let mut peers = core.peers();
        if *bytes > 0 {
            peers.end_writing(*node, *bytes);
        }
        if answered {
            peers.answered(*node, *pace, now.since(*since));
        }
    }
}

/// An operation as its code sees it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Task {
    core: Arc<Core>,
    steps: Steps<Command, Arrival, Asked>,
    op: OpId,
    deadline: Time,
}

impl Task {
    pub(crate) fn new(core: Arc<Core>, steps: Steps<Command, Arrival, Asked>, op: OpId, deadline: Time) -> Self {
        Self { core, steps, op, deadline }
    }

    /// What the operations of the node share.
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// What the clocks say.
    pub(crate) fn now(&self) -> Now {
        self.steps.now()
    }

    /// Until when replicas may take, so that the answer still reaches the caller.
    pub(crate) fn replica_deadline(&self) -> Time {
        let now = self.now().time;
        now + self.deadline.since(now).mul_f64(0.9)
    }

    /// Answers the request. The code may go on.
    pub(crate) fn answer(&self, result: Result<Reply, RpcError>) {
        self.steps.command(Command::Answer { op: self.op, result });
    }

    /// The next answer to a call of this operation, or nothing once it is `until`.
    pub(crate) async fn next(&self, until: Time) -> Option<(CallId, Arrival)> {
        self.steps.next(until).await
    }

    /// Waits for so long.
    pub(crate) async fn pause(&self, pause: Duration) {
        self.steps.pause(self.now().time + pause).await;
    }

    /// Asks a node, this one or another.
    pub(crate) fn ask(&self, node: NodeId, request: impl Into<Request>, deadline: Time) -> CallId {
        let (request, now) = (request.into(), self.now().time);
        if node == self.core.own {
            let asked = Asked::Own { pace: pace(&request) };
            return self.steps.call(asked, |call| Command::Engine { op: self.op, call, request });
        }
        let pace = pace(&request);
        let bytes = if let Request::ReplicaApply(apply) = &request { bytes_of(apply) } else { 0 };
        let refused = {
            let mut peers = self.core.peers();
            if peers.address(node).is_none() {
                Some("its address is not known: it was not seen since this node started".to_owned())
            } else if !peers.is_up(node, now) {
                // What is asked of a dead node waits for a timeout, and holds its memory until then.
                Some("it is down".to_owned())
            } else {
                let slow = |under_way| format!("it is slow: {under_way} bytes are on their way to it already");
                peers.begin_writing(node, bytes).err().map(slow)
            }
        };
        if let Some(reason) = refused {
            let result = Err(RpcError::new(ErrorCode::Unavailable, reason));
            return self.steps.answered_call(Arrival { result, request: Some(request) });
        }
        let asked = Asked::Node { node, pace, since: now, bytes };
        self.steps.call(asked, |call| Command::Send { op: self.op, call, to: node, request, deadline })
    }

    /// Sends a request to several other nodes at once, and gives what they answered until then.
    pub(crate) async fn gather<R: Ask + Clone>(
        &self,
        nodes: &[NodeId],
        request: &R,
        deadline: Time,
    ) -> BTreeMap<NodeId, Result<R::Answer, RpcError>> {
        let mut waiting: BTreeMap<CallId, NodeId> =
            nodes.iter().map(|node| (self.ask(*node, request.clone(), deadline), *node)).collect();
        let mut answers = BTreeMap::new();
        while !waiting.is_empty() {
            let Some((call, arrival)) = self.next(deadline).await else { break };
            if let Some(node) = waiting.remove(&call) {
                answers.insert(node, answer_of::<R>(arrival.result));
            }
        }
        let late = || RpcError::new(ErrorCode::Timeout, "it did not answer in time");
        answers.extend(waiting.into_values().map(|node| (node, Err(late()))));
        answers
    }

    /// Changes the catalog; gives the bytes of files that this removed.
    pub(crate) async fn persist(&self, change: Change) -> Result<u64, RpcError> {
        let wanted =
            self.steps.call(Asked::Own { pace: Pace::Other }, |call| Command::Persist { op: self.op, call, change });
        loop {
            // The disk answers in any case.
            let Some((call, arrival)) = self.next(Time::NEVER).await else { continue };
            if call == wanted {
                return match arrival.result? {
                    Reply::Dropped(Dropped { freed_bytes, .. }) => Ok(freed_bytes),
                    reply => Err(nonsense(&reply)),
                };
            }
        }
    }

    /// Takes over what is new in the entries of another node's catalog.
    pub(crate) async fn take_over(&self, entries: Vec<CatalogEntry>) {
        let is_news = |entry: &CatalogEntry| {
            self.core.collections.look(|catalog| catalog.entry(entry.id).is_none_or(|known| known != entry))
        };
        if entries.iter().any(is_news) {
            // What could not be kept is fetched again, for the digests still differ.
            let _ = self.persist(Change::Merge(entries)).await;
        }
    }

    /// Fetches the catalog of one node and takes over what is new in it.
    pub(crate) async fn fetch_catalog_of(&self, node: NodeId) {
        let until = self.now().time + REFRESH_TIMEOUT;
        for (_, answer) in self.gather(&[node], &CatalogFetch {}, until).await {
            if let Ok(entries) = answer {
                self.take_over(entries).await;
            }
        }
    }

    /// Fetches the catalogs of all nodes that are up and takes over what is new in them.
    pub(crate) async fn refresh_catalog(&self) {
        let others = self.core.peers().others_up();
        let until = self.now().time + REFRESH_TIMEOUT;
        for (_, answer) in self.gather(&others, &CatalogFetch {}, until).await {
            if let Ok(entries) = answer {
                self.take_over(entries).await;
            }
        }
    }

    /// The collection of this name, looked for on other nodes too where it is not known here.
    pub(crate) async fn route(&self, name: &str) -> Result<Arc<Route>, RpcError> {
        if let Some(route) = self.core.collections.route(name) {
            return Ok(route);
        }
        self.refresh_catalog().await;
        self.core.collections.route(name).ok_or_else(|| {
            RpcError::new(
                ErrorCode::NotFound,
                format_args!("collection {name:?} does not exist; `vecino collection list` shows those that do"),
            )
        })
    }
}

/// The answer to a request out of what came of its call.
pub(crate) fn answer_of<R: Ask>(result: Result<Reply, RpcError>) -> Result<R::Answer, RpcError> {
    result.and_then(|reply| {
        let other = nonsense(&reply);
        R::answer(reply).ok_or(other)
    })
}

fn nonsense(reply: &Reply) -> RpcError {
    let kind = std::mem::discriminant(reply);
    let message = format_args!("the reply is to a request of another kind ({kind:?})");
    RpcError::new(ErrorCode::Protocol, message).with_retry(Retry::Unknown)
}

/// A failed call, as the quorum machines are told of it.
pub(crate) fn failed(error: RpcError) -> Failed {
    Failed { may_have_happened: !surely_did_nothing(&error), reason: error.message }
}

/// Whether a request that failed this way changed nothing. Where that is not certain, it may have.
fn surely_did_nothing(error: &RpcError) -> bool {
    match error.retry {
        Retry::Safe | Retry::AfterMs(_) => true,
        Retry::Unknown => false,
        Retry::No => matches!(error.code, ErrorCode::Invalid | ErrorCode::NotFound | ErrorCode::Forbidden),
    }
}

fn pace(request: &Request) -> Pace {
    match request {
        Request::ReplicaVersions(_) | Request::ReplicaRead(_) => Pace::Read,
        Request::ReplicaApply(_) => Pace::Write,
        Request::ReplicaSearch(_) | Request::ReplicaScan(_) => Pace::Search,
        _ => Pace::Other,
    }
}

fn bytes_of(ReplicaApply { collection: _, records }: &ReplicaApply) -> usize {
    records.iter().map(Record::bytes).sum()
}
