//! What happens to a node, and what is to be done for it.

use std::sync::Arc;

use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::{CatalogEntry, NodeId, View};

use crate::machine::CallId;
use crate::message::{Reply, Request};
use crate::time::Time;

/// Numbers the operations of a node. Those of one node have different numbers.
pub type OpId = u64;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A client.
    Client,
    /// Another node.
    Peer(NodeId),
}

/// What happens to a node.
#[derive(Debug)]
pub enum Event {
    /// It takes part in its mesh from now on: what it does by itself begins.
    Started,
    /// A request has come.
    Request {
        /// Its operation, by which it is answered.
        op: OpId,
        /// Who asks.
        caller: Caller,
        /// What for.
        request: Request,
        /// When its caller stops waiting.
        deadline: Time,
    },
    /// Nobody waits for the answer to a request any more.
    Abandoned {
        /// Its operation.
        op: OpId,
    },
    /// A call that this node made has ended: another node, its own engine, or its own disk has done it or failed to.
    Answered {
        /// The operation that called.
        op: OpId,
        /// Which of its calls.
        call: CallId,
        /// What came of it.
        result: Result<Reply, RpcError>,
        /// What was asked, where the driver still has it: what a replica did not take is kept for it.
        request: Option<Request>,
    },
    /// A time has come that [`Command::Wake`] named.
    Woken {
        /// The operation that waits for it.
        op: OpId,
    },
    /// Another node has told its wall clock with what it sent; see [`WallClocks`](crate::wall_clocks::WallClocks).
    ClockHeard {
        /// The node.
        node: NodeId,
        /// What it told.
        told: u32,
    },
    /// Gossip shows other members than before, or others that are up.
    Members(Arc<View>),
}

/// What is to be done for a node.
#[derive(Debug)]
pub enum Command {
    /// Send a request to another node; tell what comes of it with [`Event::Answered`].
    Send {
        /// The operation that calls.
        op: OpId,
        /// Which of its calls.
        call: CallId,
        /// Whom.
        to: NodeId,
        /// What.
        request: Request,
        /// When the answer is worthless.
        deadline: Time,
    },
    /// Stop waiting for an answer: tell so with [`Event::Answered`].
    GiveUp {
        /// The operation that calls.
        op: OpId,
        /// Which of its calls.
        call: CallId,
    },
    /// Have this node's own replica do a request; tell what comes of it with [`Event::Answered`].
    Engine {
        /// The operation that calls.
        op: OpId,
        /// Which of its calls.
        call: CallId,
        /// What.
        request: Request,
    },
    /// Change the catalog durably and put it into effect; answer with [`Reply::Dropped`].
    Persist {
        /// The operation that calls.
        op: OpId,
        /// Which of its calls.
        call: CallId,
        /// How.
        change: Change,
    },
    /// Answer a request.
    Answer {
        /// Its operation.
        op: OpId,
        /// With this.
        result: Result<Reply, RpcError>,
    },
    /// Tell an operation with [`Event::Woken`] when it is this time; only the last such command of an operation counts, and
    /// with [`Time::NEVER`] it need not be told any more.
    Wake {
        /// Which.
        op: OpId,
        /// When.
        at: Time,
    },
}

/// A change of the catalog.
#[derive(Clone, Debug)]
pub enum Change {
    /// This entry, unless another collection has its name.
    Apply(CatalogEntry),
    /// What is new in the entries of another node.
    Merge(Vec<CatalogEntry>),
}

/// The failure of a call that was given up, since its node is down or nobody waits for what it finds.
pub fn given_up() -> RpcError {
    RpcError::new(ErrorCode::Connection, "it went down while it was asked")
}
