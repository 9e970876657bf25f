//! What all requests of one node share: its clock, the other nodes and their clocks, the collections, hints, chance.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vecino_model::{MeshId, NodeId, NodeState};

use crate::allocator::TokenAllocator;
use crate::clock::Clock;
use crate::collections::Collections;
use crate::hints::Hints;
use crate::peers::Peers;
use crate::plants::Plants;
use crate::time::{Now, Time};
use crate::turns::TurnLimits;
use crate::wall_clocks::{Standing, WallClocks};

/// What a node knows when it starts.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its id.
    pub node: NodeId,
    /// Its mesh.
    pub mesh: MeshId,
    /// How often it was started on its disk, this time included.
    pub start: u32,
    /// Where other nodes were when it last ran.
    pub remembered: BTreeMap<NodeId, SocketAddr>,
    /// Number of records on its disk that other nodes have missed.
    pub hints: BTreeMap<NodeId, u64>,
    /// What its choices by chance begin with.
    pub seed: u64,
    /// What takes turns on each lane.
    pub turns: TurnLimits,
    /// Rules that are broken on purpose.
    pub plants: Plants,
}

/// What all requests of a node share. Several threads may decide for one node; each lock is held for a look or a change,
/// and never for two at once.
#[derive(Debug)]
pub struct Core {
    /// The node.
    pub own: NodeId,
    /// Its mesh.
    pub mesh: MeshId,
    /// What takes turns on each lane.
    pub turns: TurnLimits,
    /// Rules that are broken on purpose.
    pub plants: Plants,
    /// The catalog that is in effect.
    pub collections: Arc<Collections>,
    clock: Mutex<Clock>,
    wall_clocks: Mutex<WallClocks>,
    peers: Mutex<Peers>,
    hints: Mutex<Hints>,
    chance: Mutex<fastrand::Rng>,
    allocator: Mutex<TokenAllocator>,
}

impl Core {
    /// Of a node that starts now with these collections.
    pub fn new(start: Start, collections: Arc<Collections>, now: Time) -> Self {
        let Start { node, mesh, start, remembered, hints, seed, turns, plants } = start;
        Self {
            own: node,
            mesh,
            turns,
            plants,
            collections,
            clock: Mutex::new(Clock::new(node, start)),
            wall_clocks: Mutex::default(),
            peers: Mutex::new(Peers::new(node, remembered, now)),
            hints: Mutex::new(Hints::new(hints)),
            chance: Mutex::new(fastrand::Rng::with_seed(seed)),
            allocator: Mutex::default(),
        }
    }

    /// Its clock.
    pub fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wall clocks of the other nodes.
    pub fn wall_clocks(&self) -> MutexGuard<'_, WallClocks> {
        self.wall_clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How its wall clock stands to those of the members that are up and heard.
    pub fn clock_standing(&self, now: Now) -> Standing {
        let view = Arc::clone(self.peers().view());
        let is_up = |node: &NodeId| view.members.get(node).is_some_and(|member| member.state == NodeState::Up);
        self.wall_clocks().standing(now, is_up)
    }

    /// The other nodes.
    pub fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What other nodes have missed.
    pub fn hints(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Choices by chance.
    pub fn chance(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives tokens to nodes that join.
    pub fn allocator(&self) -> MutexGuard<'_, TokenAllocator> {
        self.allocator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
