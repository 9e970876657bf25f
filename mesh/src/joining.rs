//! Finding the mesh: whom a node without one asks, for how long, and when it starts one.
//!
//! Identical nodes with one list of seeds may start in any order: each asks the seeds for a mesh, and only the first seed
//! of the list starts one, where none of the others has any. The first seed may be a name with the addresses of several
//! nodes: then the node with the lowest of these addresses is the first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vecino_model::error::{ErrorCode, Retry, RpcError};
use vecino_model::message::{Join, JoinReply};
use vecino_model::{CatalogEntry, MeshId, NodeId, Placement};

use crate::machine::{CallId, Machine, Stepped, Steps};
use crate::time::{Now, Time};
use crate::tokens;

/// How long one seed may take to answer.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause between rounds over the seeds.
pub const ASK_EVERY: Duration = Duration::from_millis(300);
/// How long the first seed looks for a mesh before it starts one.
pub const START_AFTER: Duration = Duration::from_secs(2);
/// How often a node that finds no mesh says so.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// A node that belongs to no mesh yet.
#[derive(Clone, Debug)]
pub struct Stranger {
    /// Its id.
    pub node: NodeId,
    /// Where others reach it.
    pub address: SocketAddr,
    /// Names or addresses of nodes that may have a mesh. Without any, the node starts one at once.
    pub seeds: Vec<String>,
    /// The tokens that it has already, if it has any.
    pub tokens: Vec<u64>,
    /// The id of the mesh that it starts, if it starts one: by chance, and unlike every other.
    pub new_mesh: MeshId,
}

/// What is to be done for a node that looks for a mesh.
#[derive(Clone, Debug)]
pub enum Command {
    /// Look up the addresses of a seed; tell them with [`Arrival::Resolved`].
    Resolve {
        /// Under this number.
        call: CallId,
        /// A name or an address, with a port.
        seed: String,
    },
    /// Ask the node at this address; tell what comes of it with [`Arrival::Answered`].
    Ask {
        /// Under this number.
        call: CallId,
        /// Whom.
        address: SocketAddr,
        /// What.
        request: Join,
        /// When the answer is worthless.
        until: Time,
    },
    /// Tell the operator.
    Say(Notice),
}

/// What the operator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// One side refuses the other: asking on does not mend that. Told once for each address.
    Refused {
        /// By which seed.
        seed: String,
    },
    /// No seed has a mesh yet.
    NoMesh {
        /// What each of them said.
        reasons: Vec<String>,
    },
}

/// What arrives for a node that looks for a mesh.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// The addresses of a seed, or why it has none.
    Resolved(Result<Vec<SocketAddr>, String>),
    /// What a node answered.
    Answered(Result<JoinReply, RpcError>),
}

/// What a node has once it belongs to a mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// The mesh.
    pub mesh: MeshId,
    /// Its tokens.
    pub tokens: Vec<u64>,
    /// Addresses of the members.
    pub members: BTreeMap<NodeId, String>,
    /// The collections of the mesh.
    pub catalog: Vec<CatalogEntry>,
    /// The seed that it joined through; none where it started the mesh.
    pub seed: Option<String>,
}

/// A node on its way into a mesh.
pub struct Joining {
    machine: Machine<Command, Arrival, ()>,
    joined: Arc<Mutex<Option<Joined>>>,
}

impl Joining {
    /// Begins to look; [`Self::step`] gives the first commands.
    pub fn new(stranger: Stranger, now: Now) -> Self {
        let joined = Arc::new(Mutex::new(None));
        let steps = Steps::new(now);
        let (code, found) = (find(steps.clone(), stranger), Arc::clone(&joined));
        let machine = Machine::new(steps, async move {
            let joined = code.await;
            *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(joined);
        });
        Self { machine, joined }
    }

    /// Goes on with what has arrived, if anything has. An answer to a call that was answered before changes nothing.
    pub fn step(&mut self, now: Now, arrived: Option<(CallId, Arrival)>) -> Stepped<Command> {
        let arrived = arrived.filter(|(call, _)| self.machine.answered(*call).is_some());
        self.machine.step(now, arrived)
    }

    /// What the node has, once the last step is done.
    pub fn joined(&self) -> Option<Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

type Waiting = Steps<Command, Arrival, ()>;

async fn find(steps: Waiting, stranger: Stranger) -> Joined {
    if stranger.seeds.is_empty() {
        return started(stranger);
    }
    let began = steps.now().time;
    let mut said = None::<Time>;
    let mut refused = BTreeSet::new();
    loop {
        let mut reasons = Vec::new();
        let mut is_first = false;
        for (number, seed) in stranger.seeds.iter().enumerate() {
            let addresses = match resolve(&steps, seed).await {
                Ok(addresses) => addresses,
                Err(reason) => {
                    reasons.push(format!("{seed}: {reason}"));
                    continue;
                }
            };
            is_first |= number == 0 && is_first_of(&addresses, stranger.address);
            for address in addresses.into_iter().filter(|address| *address != stranger.address) {
                match ask(&steps, address, &stranger.tokens).await {
                    Ok(JoinReply { mesh_id, tokens, members, catalog }) => {
                        return Joined { mesh: mesh_id, tokens, members, catalog, seed: Some(seed.clone()) };
                    }
                    // Mostly for its certificate. The operator is told once and not every few seconds.
                    Err(error) if error.code == ErrorCode::Connection && error.retry == Retry::No => {
                        if refused.insert(address) {
                            steps.command(Command::Say(Notice::Refused { seed: seed.clone() }));
                        }
                    }
                    Err(error) => reasons.push(format!("{seed}: {error}")),
                }
            }
        }
        let now = steps.now().time;
        if is_first && now.since(began) >= START_AFTER {
            return started(stranger);
        }
        let is_due = said.is_none_or(|said| now.since(said) >= SAY_EVERY) && now.since(began) >= START_AFTER;
        if !reasons.is_empty() && is_due {
            steps.command(Command::Say(Notice::NoMesh { reasons }));
            said = Some(now);
        }
        steps.pause(now + ASK_EVERY).await;
    }
}

/// Whether a node's own address is the lowest of a name's addresses. Only addresses of its own family, IPv4 or IPv6, are
/// compared: a name often has an address of each family for the same node.
fn is_first_of(addresses: &[SocketAddr], own: SocketAddr) -> bool {
    addresses.iter().filter(|address| address.is_ipv4() == own.is_ipv4()).min() == Some(&own)
}

async fn resolve(steps: &Waiting, seed: &str) -> Result<Vec<SocketAddr>, String> {
    let wanted = steps.call((), |call| Command::Resolve { call, seed: seed.to_owned() });
    loop {
        // Looking a name up ends in any case.
        match steps.next(Time::NEVER).await {
            Some((call, Arrival::Resolved(resolved))) if call == wanted => return resolved,
            // An answer that was not waited for any more.
            _ => {}
        }
    }
}

async fn ask(steps: &Waiting, address: SocketAddr, tokens: &[u64]) -> Result<JoinReply, RpcError> {
    let until = steps.now().time + ASK_TIMEOUT;
    let request = Join { tokens: tokens.to_vec() };
    let wanted = steps.call((), |call| Command::Ask { call, address, request, until });
    loop {
        match steps.next(until).await {
            Some((call, Arrival::Answered(answered))) if call == wanted => return answered,
            Some(_) => {}
            None => return Err(RpcError::new(ErrorCode::Timeout, "it did not answer in time")),
        }
    }
}

/// A mesh of this node alone.
fn started(stranger: Stranger) -> Joined {
    let Stranger { node, address: _, seeds: _, tokens, new_mesh } = stranger;
    let tokens =
        if tokens.is_empty() { tokens::choose(&Placement::new(), node, tokens::TOKENS_PER_NODE) } else { tokens };
    Joined { mesh: new_mesh, tokens, members: BTreeMap::new(), catalog: Vec::new(), seed: None }
}

#[cfg(test)]
mod tests;
