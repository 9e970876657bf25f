//! A simulated node: its decisions, its replicas, its disk and its clocks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use vecino_engine::hints::{HintBatch, HintError, HintLimits, HintLogs};
use vecino_mesh::catalog::{Catalog, NameInUse};
use vecino_mesh::collections::Collections;
use vecino_mesh::core::{Core, Start};
use vecino_mesh::event::{Change, OpId, given_up};
use vecino_mesh::hlc;
use vecino_mesh::joining::Joining;
use vecino_mesh::machine::CallId;
use vecino_mesh::message::{self, KeepHints, NextHints, Reply, Request, TakenHints, WaitingHints};
use vecino_mesh::node::Node;
use vecino_mesh::plants::{Plant, Plants};
use vecino_mesh::time::{Now, Time};
use vecino_mesh::turns::TurnLimits;
use vecino_model::error::{ErrorCode, RpcError};
use vecino_model::message::{Dropped, NodeStatsReply, ReplicaApply};
use vecino_model::{CatalogEntry, CollectionId, CollectionStats, MeshId, NodeId, Outcome};
use vecino_storage::{Fault, FaultyDisk, MemDisk};

use crate::replica::{Kind, Replica};

/// Small, so that logs have several segments. None is forgotten for its number.
const HINT_LIMITS: HintLimits =
    HintLimits { bytes_max: 64 * 1024 * 1024, age_max: Duration::from_secs(3 * 3600), segment_bytes: 16 * 1024 };

/// The mesh of runs that begin with one.
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
    /// A node that looks for a mesh, in this life of it.
    Joiner { node: usize, life: u32, call: CallId },
    /// A deed of a client.
    Client { client: usize, deed: u64, call: CallId },
}

/// A call of a node that is not answered yet.
pub(crate) struct Outstanding {
    /// What it sent, where that may have to be kept for the other node.
    pub request: Option<Request>,
}

/// What was on a disk at some time.
pub(crate) struct Image {
    starts: u32,
    mesh: Option<MeshId>,
    tokens: Vec<u64>,
    remembered: BTreeMap<NodeId, SocketAddr>,
    catalog: Catalog,
    replicas: BTreeMap<CollectionId, Box<dyn Replica>>,
    hint_disk: MemDisk,
}

/// A node.
pub(crate) struct Host {
    pub number: usize,
    pub id: NodeId,
    pub tokens: Vec<u64>,
    /// Rises with each crash, so that what was meant for an earlier life is known.
    pub life: u32,
    pub is_up: bool,
    /// Whether it was ever started.
    pub is_begun: bool,
    /// Whether it is gone for good.
    pub is_gone: bool,
    pub paused_until: Time,
    pub refuses_until: Time,
    pub full_until: Time,
    /// How it finds a mesh, while it has none.
    pub joining: Option<Joining>,
    /// When its engine has done all that it was told to apply.
    pub applied_at: Time,
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
    mesh: Option<MeshId>,
    remembered: BTreeMap<NodeId, SocketAddr>,
    catalog: Catalog,
    pub replicas: BTreeMap<CollectionId, Box<dyn Replica>>,
    hint_disk: MemDisk,
    /// The same disk, which may be full, and what is open on it.
    faulty_hint_disk: FaultyDisk,
    hints: Option<HintLogs>,
    collections: Arc<Collections>,
    kind: Kind,
    turns: TurnLimits,
    plants: Plants,
}

impl Host {
    pub(crate) fn new(number: usize, tokens: Vec<u64>, kind: Kind, turns: TurnLimits, plants: Plants) -> Self {
        let hint_disk = MemDisk::new();
        let faulty_hint_disk = FaultyDisk::new(Arc::new(hint_disk.clone()));
        Self {
            number,
            id: id_of(number),
            tokens,
            life: 0,
            is_up: false,
            is_begun: false,
            is_gone: false,
            paused_until: Time::default(),
            refuses_until: Time::default(),
            full_until: Time::default(),
            joining: None,
            applied_at: Time::default(),
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
            mesh: None,
            remembered: BTreeMap::new(),
            catalog: Catalog::default(),
            replicas: BTreeMap::new(),
            hint_disk,
            faulty_hint_disk,
            hints: None,
            collections: Arc::new(Collections::new()),
            kind,
            turns,
            plants,
        }
    }

    /// It belongs to the mesh when the run begins, as the first of all nodes do, up to this number.
    pub(crate) fn is_member_from_the_beginning(&mut self, nodes: usize) {
        self.mesh = Some(MESH);
        self.remembered = (0..nodes).map(|number| (id_of(number), address_of(number))).collect();
    }

    /// The mesh that it belongs to.
    pub(crate) fn mesh(&self) -> Option<MeshId> {
        self.mesh
    }

    /// Whether it belongs to a mesh.
    pub(crate) fn is_member(&self) -> bool {
        self.mesh.is_some()
    }

    /// Whether it is in its mesh and working.
    pub(crate) fn takes_part(&self) -> bool {
        self.is_up && self.node.is_some()
    }

    /// It belongs to a mesh from now on.
    pub(crate) fn join(&mut self, mesh: MeshId, tokens: Vec<u64>, members: BTreeMap<NodeId, String>) {
        (self.mesh, self.tokens) = (Some(mesh), tokens);
        let address = |(node, address): (NodeId, String)| Some((node, address.parse().ok()?));
        self.remembered = members.into_iter().filter_map(address).collect();
    }

    /// What it knows of the others is on its disk.
    pub(crate) fn remember_members(&mut self) {
        if let Some(node) = &self.node {
            self.remembered.clone_from(node.core().peers().remembered());
        }
    }

    /// Starts it with what is on its disk.
    pub(crate) fn start(&mut self, nodes: usize, seed: u64, now: Time) {
        (self.is_up, self.is_begun) = (true, true);
        self.starts += 1;
        self.replicas.values_mut().for_each(|replica| replica.open());
        self.collections = Arc::new(Collections::new());
        self.collections.install(self.catalog.clone());
        self.heard = vec![Time::default(); nodes];
        self.digests = vec![String::new(); nodes];
        let hints = HintLogs::open(Arc::new(self.faulty_hint_disk.clone()), HINT_LIMITS);
        let start = Start {
            node: self.id,
            mesh: self.mesh.unwrap_or(MESH),
            start: self.starts,
            remembered: self.remembered.clone(),
            hints: hints.waiting(),
            seed: seed ^ u64::from(self.starts) << 8 ^ self.number as u64,
            turns: self.turns,
            plants: self.plants,
        };
        let core = Arc::new(Core::new(start, Arc::clone(&self.collections), now));
        self.node = Some(Node::new(core));
        self.hints = Some(hints);
    }

    /// Its power goes: everything that is not on its disk is gone.
    pub(crate) fn crash(&mut self, seed: u64) {
        self.life += 1;
        self.is_up = false;
        (self.node, self.joining, self.hints) = (None, None, None);
        self.hint_disk.crash(seed);
        self.callers.clear();
        self.calls.clear();
        self.paused_until = Time::default();
        self.applied_at = Time::default();
        self.replicas.values_mut().for_each(|replica| replica.crash(seed));
    }

    /// What was on its disk is gone, but for what it knows of itself: its mesh, its tokens, the number of its starts.
    pub(crate) fn empty(&mut self) {
        self.catalog = Catalog::default();
        self.replicas.clear();
        self.set_hint_disk(MemDisk::new());
    }

    fn set_hint_disk(&mut self, disk: MemDisk) {
        self.faulty_hint_disk = FaultyDisk::new(Arc::new(disk.clone()));
        self.hint_disk = disk;
    }

    /// What is on its disk now.
    pub(crate) fn fork(&self) -> Image {
        Image {
            starts: self.starts,
            mesh: self.mesh,
            tokens: self.tokens.clone(),
            remembered: self.remembered.clone(),
            catalog: self.catalog.clone(),
            replicas: self.replicas.iter().map(|(id, replica)| (*id, replica.fork())).collect(),
            hint_disk: self.hint_disk.fork(),
        }
    }

    /// Its disk is as it was once, when its power went too.
    pub(crate) fn roll_back(&mut self, image: Image, seed: u64) {
        let Image { starts, mesh, tokens, remembered, catalog, replicas, hint_disk } = image;
        (self.starts, self.mesh, self.tokens, self.remembered) = (starts, mesh, tokens, remembered);
        (self.catalog, self.replicas) = (catalog, replicas);
        self.replicas.values_mut().for_each(|replica| replica.crash(seed));
        hint_disk.crash(seed);
        self.set_hint_disk(hint_disk);
    }

    /// A byte of a collection changes on its disk.
    pub(crate) fn damage(&mut self, random: &mut fastrand::Rng) {
        if let Some(replica) = random.choice(self.replicas.values_mut()) {
            replica.damage(random);
        }
    }

    /// The folder of a collection is gone.
    pub(crate) fn lose_folder(&mut self, random: &mut fastrand::Rng) {
        let Some(id) = random.choice(self.replicas.keys().copied()) else { return };
        if let Some(live) = self.catalog.entry(id).and_then(|entry| entry.live.as_ref()) {
            self.replicas.insert(id, self.kind.make(id, &live.schema));
        }
    }

    /// Its disk has room for this number of bytes more.
    pub(crate) fn fill(&mut self, room: u64) {
        self.replicas.values_mut().for_each(|replica| replica.fill(room));
        self.faulty_hint_disk.set(Fault::Room(room));
    }

    /// Its disk has room.
    pub(crate) fn make_room(&mut self) {
        self.replicas.values_mut().for_each(|replica| replica.make_room());
        self.faulty_hint_disk.heal();
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
            Request::KeepHints(_) | Request::NextHints(_) | Request::TakenHints(_) => {
                return self.hint(request, now).map(Reply::Hints);
            }
            Request::NodeStats(_) => return Ok(Reply::Stats(self.stats())),
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
        if let Some(reason) = replica.closed() {
            let message = format_args!("collection {collection} is not open on node {}: {reason}", self.id.short());
            return Err(RpcError::new(ErrorCode::Unavailable, message));
        }
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

    /// Its disk keeps what other nodes have missed, hands it out, or removes it.
    fn hint(&mut self, request: Request, now: Time) -> Result<WaitingHints, RpcError> {
        let now_ms = self.now(now).wall_ms;
        let failed = |error: HintError| RpcError::new(ErrorCode::Unavailable, error);
        let hints = self.hints.as_mut().ok_or_else(given_up)?;
        let (waiting, batch) = match request {
            Request::KeepHints(KeepHints { node, collection, records }) => {
                (hints.keep(node, collection, records, now_ms), None)
            }
            Request::NextHints(NextHints { node }) => {
                let next = hints.next(node, now_ms).map_err(failed)?;
                let batch =
                    |HintBatch { collection, records, last_lsn }| message::HintBatch { collection, records, last_lsn };
                (hints.waiting_for(node), next.map(batch))
            }
            Request::TakenHints(TakenHints { node, last_lsn }) => (hints.taken(node, last_lsn).map_err(failed)?, None),
            other => return Err(RpcError::new(ErrorCode::Internal, format_args!("no hint: {}", other.name()))),
        };
        Ok(WaitingHints { number: hints.calls(), waiting, batch })
    }

    /// What it keeps for others is made durable.
    pub(crate) fn flush_hints(&mut self) {
        if let Some(hints) = &mut self.hints {
            hints.flush();
        }
    }

    /// What it holds of each collection.
    fn stats(&self) -> NodeStatsReply {
        let held = self.catalog.all_named().into_iter().filter_map(|entry| {
            let points = self.replicas.get(&entry.id)?.all().iter().filter(|record| record.value.is_some()).count();
            Some((entry.name.clone(), CollectionStats { points: points as u64, ..CollectionStats::default() }))
        });
        NodeStatsReply { collections: held.collect(), memory: None, panics: 0, clock: None }
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
        // On a full disk there is room to drop and not to create.
        if now < self.full_until && entries.iter().any(|entry| entry.live.is_some()) {
            return Err(RpcError::new(ErrorCode::Unavailable, "the catalog cannot be kept: the disk is full"));
        }
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

    /// When its engine has applied one batch more, if each batch takes this long.
    pub(crate) fn apply_at(&mut self, takes: Duration, now: Time) -> Time {
        self.applied_at = self.applied_at.max(now) + takes;
        self.applied_at
    }

    /// How long its engine takes, about.
    pub(crate) fn engine_delay(random: &mut fastrand::Rng) -> Duration {
        match random.u32(..20) {
            0 => Duration::from_micros(random.u64(1_000..20_000)),
            _ => Duration::from_micros(random.u64(20..400)),
        }
    }
}
