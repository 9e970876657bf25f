//! A running node.
//!
//! [`Node::start`] takes the data directory, opens what is in it, finds the mesh and begins to gossip and to answer.
//! The parts: [`store`](crate::store) keeps catalog and collections, [`service`](crate::service) answers requests, of which the
//! [driver](crate::driver) carries out what is decided, [`snapshots`] and the loops here work in the background.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{info, warn};
use vecino_model::{MeshId, NodeId};
use vecino_net::admission::{Admission, NoMemory};
use vecino_net::endpoint::{Endpoint, EndpointError, EndpointOptions};
use vecino_net::error::RpcError;
use vecino_net::membership::{Membership, MembershipError, MembershipOptions};
use vecino_net::rpc::Service;
use vecino_storage::{DirLock, Disk, LockError, RealDisk};
use vecino_supervise::{count_panics, kept_running};

use crate::blocking::blocking;
use crate::config::Settings;
use crate::driver::Driver;
use crate::hints::Hints;
use crate::identity::{IdentityError, NodeIdentity};
use crate::service::NodeService;
use crate::state::{NodeState, StateError};
use crate::store::{Store, StoreError};
use crate::wall_clock::{SystemClock, WallClock};
use crate::{identity, join, snapshots};
use vecino_engine::ballast::{BALLAST_BYTES, Ballast};
use vecino_engine::indexers::Indexers;
use vecino_engine::memory::{self, Budget};
use vecino_engine::resources::Resources;
use vecino_mesh::core::Start;
use vecino_mesh::joining::Joined;
use vecino_mesh::plants::Plants;
use vecino_mesh::roster::Roster;
use vecino_mesh::turns::TurnLimits;

/// How often a node tells the mesh what it holds, and looks at what it was told.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// How often a node looks for collections that have to be opened anew.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Number of looks after which collections that could not be opened are tried again.
const LOOKS_BEFORE_REOPENING: u64 = 30;
/// How often a node says how far a collection is that takes long to open.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Memory that threads, connections and what an allocator keeps come to take once requests are served, measured.
const SERVING_BYTES: u64 = 16 << 20;
/// How long requests under way may take when the node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// A node that takes part in its mesh.
pub struct Node {
    node_id: NodeId,
    mesh_id: MeshId,
    address: SocketAddr,
    client_certs: Option<PathBuf>,
    endpoint: Endpoint,
    membership: Arc<Membership>,
    store: Arc<Store>,
    driver: Driver,
    hints: Arc<Hints>,
    background: JoinSet<()>,
    /// Last, so that the directory is let go of when nothing writes to it any more.
    _lock: DirLock,
}

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What it remembers of itself.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its collections.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its socket.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Gossip.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The address for others.
    #[error("advertised address {address:?} cannot be used: {reason}")]
    Advertise {
        /// As it was given.
        address: String,
        /// Why.
        reason: String,
    },
    /// A thread.
    #[error("the indexing threads could not be started: {0}")]
    Threads(#[source] std::io::Error),
    /// A part failed inside.
    #[error(transparent)]
    Task(#[from] RpcError),
}

impl Node {
    /// Starts a node. Returns once it has found its mesh and answers requests, however long that takes.
    ///
    /// # Errors
    /// When the data directory is in use, damaged or another node's, there is no certificate, or the address cannot be
    /// listened on.
    pub async fn start(settings: &Settings) -> Result<Self, StartError> {
        let Settings { data, listen, advertise, seeds, certs, memory_limit, open_collections, log_format: _ } =
            settings;
        count_panics();
        let lock = DirLock::acquire(data)?;
        let NodeIdentity { identity, client_certs, made_authority } =
            identity::load_or_make(data, certs.as_deref(), !seeds.is_empty())?;
        if made_authority {
            info!(folder = %data.join("certs").display(), "made an authority, and certificates for this node and for clients");
        }
        let node_id = vecino_net::node_id(identity.key_id());
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(data.clone()));
        let mut state = NodeState::begin(&*disk, node_id)?;

        let limit = memory_limit.bytes(memory::available());
        info!(limit = %memory::Bytes(limit), setting = %memory_limit, "memory limit");
        let indexers = Arc::new(Indexers::start(indexing_threads()).map_err(StartError::Threads)?);
        let runtime = tokio::runtime::Handle::current();
        let (store, hints) = {
            let disk = Arc::clone(&disk);
            let wall = Arc::new(SystemClock);
            let open_max = *open_collections;
            blocking(move || {
                // What the process itself takes comes first, and then what the collections do.
                let memory = Budget::new(limit, memory::resident() + SERVING_BYTES);
                let ballast = Ballast::load(Arc::clone(&disk), BALLAST_BYTES);
                let hints = Hints::open(Arc::clone(&disk), &memory, Arc::clone(&wall) as Arc<dyn WallClock>);
                let resources = Arc::new(Resources { memory, ballast });
                Store::open(node_id, disk, indexers, wall, open_max, runtime, resources).map(|store| (store, hints))
            })
            .await??
        };
        let (store, hints) = (Arc::new(store), Arc::new(hints));
        let mut background = JoinSet::new();
        let opening = Arc::clone(&store);
        background.spawn(kept_running("opening large collections", move || open_large(Arc::clone(&opening))));

        // The port may be left to the system, so the address for others is known only once there is a socket; and the
        // service has to know it before the first connection. So the socket is bound here, and asked for again.
        let listen = free_port(*listen)?;
        let advertise = match advertise {
            None => listen,
            Some(address) => resolve(address, listen).await?,
        };
        let service = Arc::new(NodeService::new(node_id, advertise));
        let options = EndpointOptions { listen, state_dir: Some(data.join("net")), ..EndpointOptions::default() };
        let memory = Arc::clone(&store.resources().memory);
        let count = Box::new(move |bytes| {
            let counted = memory.try_count(bytes).map(|counted| Box::new(counted) as Box<dyn Send + Sync>);
            counted.ok_or_else(|| NoMemory { used: memory.used(), limit: memory.limit() })
        });
        let admission = Admission::new(options.admission(), count);
        let endpoint =
            Endpoint::server_behind(&identity, options, Arc::clone(&service) as Arc<dyn Service>, admission)?;
        info!(node = %node_id, address = %listen, %advertise, "listening");

        let catalog = match state.mesh_id {
            Some(mesh) => {
                if !seeds.is_empty() {
                    info!(%mesh, "this node is in a mesh already and joins no other; seeds only help to find its members");
                }
                Vec::new()
            }
            None => {
                let Joined { mesh, tokens, members, catalog, seed: _ } =
                    join::find(&endpoint, node_id, advertise, seeds, &state.tokens).await;
                state = NodeState { mesh_id: Some(mesh), tokens, peers: members, ..state };
                state.save(&*disk)?;
                catalog
            }
        };
        let mesh_id = state.mesh_id.expect("it was just joined or known before");
        service.set_mesh(mesh_id);
        let address = |(node, address): (&NodeId, &String)| Some((*node, address.parse().ok()?));
        let remembered: BTreeMap<NodeId, SocketAddr> = state.peers.iter().filter_map(address).collect();
        let options = MembershipOptions {
            name: identity.name().to_owned(),
            seeds: seeds.clone(),
            known: remembered.values().copied().collect(),
            ..MembershipOptions::new(node_id, mesh_id, advertise, state.generation, state.tokens.clone())
        };
        let roster = Roster::new(node_id, options.down_after, options.gossip_interval * 2);
        let decider = Box::new(roster.into_decider());
        let membership = Arc::new(Membership::start(options, &endpoint, decider).await?);
        let start = Start {
            node: node_id,
            mesh: mesh_id,
            start: state.starts,
            remembered,
            hints: hints.waited().clone(),
            seed: fastrand::u64(..),
            turns: TurnLimits::default(),
            plants: Plants::default(),
        };
        let driver = Driver::new(start, endpoint.clone(), Arc::clone(&store), Arc::clone(&hints));
        if let Err(error) = driver.take_over(catalog).await {
            warn!(%error, "the catalog of the mesh could not be taken over yet");
        }
        driver.start(&mut background, &membership.view());

        run_in_background(&mut background, &membership, &driver, &store, state, disk);
        service.open(driver.clone());
        info!(node = %node_id, mesh = %mesh_id, %advertise, "ready");
        Ok(Self {
            node_id,
            mesh_id,
            address: advertise,
            client_certs,
            endpoint,
            membership,
            store,
            driver,
            hints,
            background,
            _lock: lock,
        })
    }

    /// Its id.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Its mesh.
    pub fn mesh_id(&self) -> MeshId {
        self.mesh_id
    }

    /// Where others reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Folder with a certificate for clients, where this node made its own authority.
    pub fn client_certs(&self) -> Option<&std::path::Path> {
        self.client_certs.as_deref()
    }

    /// Finishes what is under way, takes last snapshots and stops.
    pub async fn stop(self) {
        let Self { endpoint, membership, store, driver, hints, mut background, .. } = self;
        info!("stopping");
        driver.drained(DRAIN).await;
        endpoint.close(DRAIN).await;
        background.shutdown().await;
        if let Some(membership) = Arc::into_inner(membership) {
            membership.shutdown().await;
        }
        hints.flush().await;
        let closed = blocking(move || {
            snapshots::take_last(&store);
            store.close();
        });
        if let Err(error) = closed.await {
            warn!(%error, "the collections were not closed in order; their logs have everything");
        }
        info!("stopped");
    }
}

/// Starts the loops that work for as long as the node runs. Each is started again when it panics.
fn run_in_background(
    background: &mut JoinSet<()>,
    membership: &Arc<Membership>,
    driver: &Driver,
    store: &Arc<Store>,
    state: NodeState,
    disk: Arc<dyn Disk>,
) {
    let (membership, kept) = (Arc::clone(membership), Arc::clone(store));
    background.spawn(kept_running("publishing", move || publish(Arc::clone(&membership), Arc::clone(&kept))));
    let driver = driver.clone();
    let state = Arc::new(Mutex::new(state));
    background.spawn(kept_running("remembering members", move || {
        remember_members(driver.clone(), Arc::clone(&state), Arc::clone(&disk))
    }));
    let kept = Arc::clone(store);
    background.spawn(kept_running("taking snapshots", move || snapshots::run(Arc::clone(&kept))));
    let kept = Arc::clone(store);
    background.spawn(kept_running("opening collections again", move || retry_failed(Arc::clone(&kept))));
}

/// One processor is left for requests.
fn indexing_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().saturating_sub(1)).max(1)
}

/// The address to listen on, with a port that is free where it was left open.
fn free_port(listen: SocketAddr) -> Result<SocketAddr, EndpointError> {
    if listen.port() != 0 {
        return Ok(listen);
    }
    let bound = std::net::UdpSocket::bind(listen).and_then(|socket| socket.local_addr());
    bound.map_err(|source| EndpointError::Socket { address: listen, source })
}

/// An address that a name stands for, of the family that is listened on where there is one.
async fn resolve(address: &str, listen: SocketAddr) -> Result<SocketAddr, StartError> {
    let unusable = |reason: String| StartError::Advertise { address: address.to_owned(), reason };
    let found = tokio::net::lookup_host(address).await.map_err(|error| unusable(error.to_string()))?;
    found
        .min_by_key(|found| found.is_ipv4() != listen.is_ipv4())
        .ok_or_else(|| unusable("the name has no address".to_owned()))
}

/// Tells the mesh what this node holds, for ever.
async fn publish(membership: Arc<Membership>, store: Arc<Store>) {
    let mut ticks = tokio::time::interval(PUBLISH_EVERY);
    loop {
        ticks.tick().await;
        let held = store.stats();
        let points = held.iter().map(|(_, stats)| stats.points).sum();
        let bytes = held.iter().map(|(_, stats)| stats.index_bytes + stats.log_bytes).sum();
        membership.publish(points, bytes);
        membership.publish_catalog_digest(store.digest());
    }
}

/// Opens large collections, and says every second how far those are that take long, for ever.
async fn open_large(store: Arc<Store>) {
    let opening = blocking({
        let store = Arc::clone(&store);
        move || store.open_large()
    });
    let telling = async {
        loop {
            tokio::time::sleep(PROGRESS_EVERY).await;
            store.tell_progress();
        }
    };
    let ((), opened) = tokio::join!(telling, opening);
    if let Err(error) = opened {
        warn!(%error, "opening large collections failed");
    }
}

/// Tries to open what could not be opened, and closes what is idle where too many are open, for ever; sooner, opens those
/// anew whose writer has panicked.
async fn retry_failed(store: Arc<Store>) {
    for round in 1_u64.. {
        tokio::time::sleep(LOOK_EVERY).await;
        let store = Arc::clone(&store);
        let tended = blocking(move || {
            store.reopen_broken();
            if round.is_multiple_of(LOOKS_BEFORE_REOPENING) {
                store.retry_failed();
            }
        });
        if let Err(error) = tended.await {
            warn!(%error, "opening collections again failed");
        }
    }
}

/// Remembers where the other members are, for ever.
async fn remember_members(driver: Driver, known: Arc<Mutex<NodeState>>, disk: Arc<dyn Disk>) {
    let mut state = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut ticks = tokio::time::interval(PUBLISH_EVERY);
    loop {
        ticks.tick().await;
        let mut remembered = state.peers.clone();
        let others = driver.core().peers().remembered().clone();
        remembered.extend(others.into_iter().map(|(node, address)| (node, address.to_string())));
        if remembered != state.peers {
            state.peers = remembered;
            known.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&state);
            let (next, disk) = (state.clone(), Arc::clone(&disk));
            match blocking(move || next.save(&*disk)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "the addresses of the other nodes could not be saved"),
                Err(error) => warn!(%error, "the addresses of the other nodes could not be saved"),
            }
        }
    }
}
