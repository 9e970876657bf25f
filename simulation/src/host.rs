//! A simulated node: its decisions, its replicas, its disk and its clocks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use vecino_mesh::catalog::{Catalog, NameInUse};
use vecino_mesh::collections::Collections;
use vecino_mesh::core::{Core, Start};
use vecino_mesh::event::{Change, OpId};
use vecino_mesh::hlc;
use vecino_mesh::machine::CallId;
use vecino_mesh::message::{Reply, Request};
use vecino_mesh::node::Node;
use vecino_mesh::plants::{Plant, Plants};
use vecino_mesh::time::{Now, Time};
use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::message::{Dropped, ReplicaApply};
use vecino_model::{CatalogEntry, CollectionId, MeshId, NodeId, Outcome};

use crate::replica::{Kind, Replica};

/// The mesh of every run.
const MESH: MeshId = MeshId([7; 16]);
/// What every wall clock shows when a run begins, but for its error.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The id of the node of this number.
pub(crate) fn id_of(number: usize) -> NodeId {
    let hash = blake3::hash(&(number as u64).to_le_bytes());
    NodeId::from_bytes(std::array::from_fn(|byte| hash.as_bytes()[byte]))
}

/// Its address, which nothing listens at.
pub(crate) fn address_of(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8 + 1], 7450))
}

/// Who is to have an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// An operation of another node, in this life of it.
    Node { node: usize, life: u32, op: OpId, call: CallId },
    /// A deed of a client.
    Client { client: usize, deed: u64, call: CallId },
}

/// A call of a node that is not answered yet.
pub(crate) struct Outstanding {
    /// What it sent, where that may have to be kept for the other node.
    pub request: Option<Request>,
}

/// A node.
pub(crate) struct Host {
    pub number: usize,
    pub id: NodeId,
    pub tokens: Vec<u64>,
    /// Rises with each crash, so that what was meant for an earlier life is known.
    pub life: u32,
    pub is_up: bool,
    pub paused_until: Time,
    pub refuses_until: Time,
    pub node: Option<Node>,
    pub callers: BTreeMap<OpId, Caller>,
    pub calls: BTreeMap<(OpId, CallId), Outstanding>,
    pub next_op: OpId,
    /// When each node was last heard, by gossip.
    pub heard: Vec<Time>,
    /// Digest of each node's catalog, as it was last heard.
    pub digests: Vec<String>,
    clock_offset_ms: i64,
    clock_ppm: i64,
    clock_since: Time,
    // What is on its disk.
    starts: u32,
    catalog: Catalog,
    pub replicas: BTreeMap<CollectionId, Box<dyn Replica>>,
    collections: Arc<Collections>,
    kind: Kind,
    plants: Plants,
}

impl Host {
    pub(crate) fn new(number: usize, tokens: Vec<u64>, kind: Kind, plants: Plants) -> Self {
        Self {
            number,
            id: id_of(number),
            tokens,
            life: 0,
            is_up: false,
            paused_until: Time::default(),
            refuses_until: Time::default(),
            node: None,
            callers: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_op: 0,
            heard: Vec::new(),
            digests: Vec::new(),
            clock_offset_ms: 0,
            clock_ppm: 0,
            clock_since: Time::default(),
            starts: 0,
            catalog: Catalog::default(),
            replicas: BTreeMap::new(),
            collections: Arc::new(Collections::new()),
            kind,
            plants,
        }
    }

    /// Starts it with what is on its disk.
    pub(crate) fn start(&mut self, nodes: usize, seed: u64, now: Time) {
        self.is_up = true;
        self.starts += 1;
        self.collections = Arc::new(Collections::new());
        self.collections.install(self.catalog.clone());
        self.heard = vec![Time::default(); nodes];
        self.digests = vec![String::new(); nodes];
        let remembered = (0..nodes).map(|number| (id_of(number), address_of(number))).collect();
        let start = Start {
            node: self.id,
            mesh: MESH,
            start: self.starts,
            remembered,
            seed: seed ^ u64::from(self.starts) << 8 ^ self.number as u64,
            plants: self.plants,
        };
        let core = Arc::new(Core::new(start, Arc::clone(&self.collections), now));
        self.node = Some(Node::new(core));
    }

    /// Its power goes: everything that is not on its disk is gone.
    pub(crate) fn crash(&mut self, seed: u64) {
        self.life += 1;
        self.is_up = false;
        self.node = None;
        self.callers.clear();
        self.calls.clear();
        self.paused_until = Time::default();
        self.replicas.values_mut().for_each(|replica| replica.crash(seed));
    }

    /// What was on its disk is gone, but for its name and the number of its starts.
    pub(crate) fn empty(&mut self) {
        self.catalog = Catalog::default();
        self.replicas.clear();
    }

    /// The digest of its catalog.
    pub(crate) fn digest(&self) -> String {
        self.collections.digest()
    }

    /// What its clocks say.
    pub(crate) fn now(&self, time: Time) -> Now {
        let elapsed = time.since(Time::default()).as_millis() as i64;
        let drifted = time.since(self.clock_since).as_millis() as i64 * self.clock_ppm / 1_000_000;
        let wall_ms = EPOCH_MS as i64 + elapsed + self.clock_offset_ms + drifted;
        Now { time, wall_ms: wall_ms.max(0) as u64 }
    }

    /// Its wall clock jumps.
    pub(crate) fn jump(&mut self, by_ms: i64) {
        self.clock_offset_ms += by_ms;
    }

    /// Its wall clock runs at another pace from now on.
    pub(crate) fn drift(&mut self, ppm: i64, now: Time) {
        let drifted = now.since(self.clock_since).as_millis() as i64 * self.clock_ppm / 1_000_000;
        self.clock_offset_ms += drifted;
        (self.clock_ppm, self.clock_since) = (ppm, now);
    }

    /// Its wall clock is set right.
    pub(crate) fn set_clock(&mut self) {
        (self.clock_offset_ms, self.clock_ppm) = (0, 0);
    }

    /// Its replica does a request.
    pub(crate) fn engine(&mut self, request: Request, now: Time) -> Result<Reply, RpcError> {
        let collection = match &request {
            Request::ReplicaVersions(request) => request.collection,
            Request::ReplicaRead(request) => request.collection,
            Request::ReplicaApply(request) => request.collection,
            Request::ReplicaSearch(request) => request.collection,
            Request::ReplicaScan(request) => request.collection,
            other => {
                return Err(RpcError::new(ErrorCode::Internal, format_args!("a replica does no {}", other.name())));
            }
        };
        let Some(replica) = self.replicas.get_mut(&collection) else {
            let message = format_args!("node {} keeps no collection {collection}", self.id.short());
            return Err(RpcError::new(ErrorCode::NotFound, message));
        };
        Ok(match request {
            Request::ReplicaVersions(request) => Reply::Versions(replica.versions(&request.ids)),
            Request::ReplicaRead(request) => Reply::Records(replica.read(&request.ids, request.parts)),
            Request::ReplicaApply(ReplicaApply { collection: _, records }) => {
                if now < self.refuses_until {
                    let full = || Outcome::Unavailable("there is no room".to_owned());
                    return Ok(Reply::Outcomes(records.iter().map(|_| full()).collect()));
                }
                Reply::Outcomes(replica.apply(records))
            }
            Request::ReplicaSearch(request) => Reply::Hits(replica.search(&request)),
            Request::ReplicaScan(request) => Reply::RecordPage(replica.scan(&request)),
            _ => return Err(RpcError::new(ErrorCode::Internal, "it was looked at above")),
        })
    }

    /// Changes its catalog durably and puts it into effect.
    pub(crate) fn persist(&mut self, change: Change, now: Time) -> Result<Reply, RpcError> {
        let mut next = self.catalog.clone();
        let entries: Vec<CatalogEntry> = match change {
            Change::Apply(entry) => {
                next.check(&entry)
                    .map_err(|NameInUse(name)| RpcError::new(ErrorCode::AlreadyExists, NameInUse(name)))?;
                vec![entry]
            }
            Change::Merge(entries) => {
                let wall_ms = self.now(now).wall_ms;
                entries.into_iter().filter(|entry| hlc::check_drift(entry.version.time, wall_ms).is_ok()).collect()
            }
        };
        for entry in entries {
            next.merge(entry);
        }
        self.catalog = next;
        self.collections.install(self.catalog.clone());
        let kept: BTreeMap<CollectionId, _> = self
            .catalog
            .entries()
            .filter_map(|entry| Some((entry.id, entry.live.as_ref()?)))
            .filter(|(_, live)| live.placement.contains_key(&self.id))
            .collect();
        self.replicas.retain(|id, _| kept.contains_key(id));
        for (id, live) in kept {
            self.replicas.entry(id).or_insert_with(|| self.kind.make(id, &live.schema));
        }
        Ok(Reply::Dropped(Dropped::new(0)))
    }

    /// Whether what it applies is acknowledged before it is flushed.
    pub(crate) fn acknowledges_early(&self) -> bool {
        self.plants.has(Plant::AcknowledgedBeforeTheFlush)
    }

    /// How long its engine takes, about.
    pub(crate) fn engine_delay(random: &mut fastrand::Rng) -> Duration {
        match random.u32(..20) {
            0 => Duration::from_micros(random.u64(1_000..20_000)),
            _ => Duration::from_micros(random.u64(20..400)),
        }
    }
}
