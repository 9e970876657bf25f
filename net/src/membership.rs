//! Who is in the mesh, as gossip says: each node's address, tokens and load, and whether it is up.
//!
//! Drives chitchat, and shows what is gossiped to a decider: the code of the caller that says who is up. The gossip loop is
//! supervised: if it ends or panics, or what follows it here does, it is started again under a new generation.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::transport::Transport;
use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};
use vecino_model::{LOOP_GENERATION_BITS, Member, MeshId, NodeId, NodeState, Observation, View};
use vecino_supervise::caught_async;

use crate::endpoint::Endpoint;
use crate::facts::{Facts, NAME, SOFTWARE, TOKENS, observation, write_tokens};

/// Largest gossiped value: a larger one could keep a node's later values from ever being sent.
pub const VALUE_BYTES_MAX: usize = 8 * 1024;
/// Restarts of the gossip loop before it is given up: the number that the generation has room for.
const LOOP_RESTARTS_MAX: u64 = (1 << LOOP_GENERATION_BITS) - 1;
/// Pause before the gossip loop is started again; it doubles with each restart up to the longest.
const LOOP_RESTART_PAUSE: Duration = Duration::from_millis(100);
const LOOP_RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long the gossip loop may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// What a node tells the mesh of itself, and how it listens.
#[derive(Clone, Debug)]
pub struct MembershipOptions {
    /// This node.
    pub node_id: NodeId,
    /// The mesh; gossip of another one is refused.
    pub mesh_id: MeshId,
    /// Where peers reach this node.
    pub advertise: SocketAddr,
    /// Addresses to find the mesh at, `host:port`; names are resolved again from time to time.
    pub seeds: Vec<String>,
    /// Addresses of members in an earlier life, tried like seeds.
    pub known: Vec<SocketAddr>,
    /// This node's places on the ring, at least one.
    pub tokens: Vec<u64>,
    /// Must be higher each time the node starts, and durable before this is called; below 2^56.
    pub generation: u64,
    /// Name of this node, for people.
    pub name: String,
    /// Version of the software.
    pub software: String,
    /// Pause between rounds of gossip.
    pub gossip_interval: Duration,
    /// A node whose heartbeat stands still for this long is down.
    pub down_after: Duration,
    /// How long gossip remembers a dead node. Long enough that nobody brings it up again as new, short enough that a mesh
    /// whose nodes restart often does not outgrow a message.
    pub dead_node_grace: Duration,
}

impl MembershipOptions {
    /// Options with the default timing, and no seeds.
    pub fn new(node_id: NodeId, mesh_id: MeshId, advertise: SocketAddr, generation: u64, tokens: Vec<u64>) -> Self {
        Self {
            node_id,
            mesh_id,
            advertise,
            seeds: Vec::new(),
            known: Vec::new(),
            tokens,
            generation,
            name: String::new(),
            software: concat!("vecino ", env!("CARGO_PKG_VERSION")).to_owned(),
            gossip_interval: Duration::from_millis(200),
            down_after: Duration::from_millis(1_800),
            dead_node_grace: Duration::from_secs(3600),
        }
    }
}

/// Why gossip could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// A node without tokens owns nothing.
    #[error("a node needs at least one token")]
    NoTokens,
    /// A value is too large to be gossiped.
    #[error("gossiped value {key:?} has {bytes} bytes, the limit is {VALUE_BYTES_MAX}")]
    Value {
        /// Its key.
        key: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// The generation leaves no room for the gossip loop's own.
    #[error("generation {0} is not below 2^56")]
    Generation(u64),
    /// The transport could not be opened.
    #[error("gossip could not be started: {0:#}")]
    Transport(anyhow::Error),
}

/// Decides who is up: takes in how much time passed, what this node says of itself, and what gossip shows of the others,
/// and gives the view where it changed.
pub type Decider = Box<dyn FnMut(Duration, Member, Vec<(NodeId, Observation)>) -> Option<Arc<View>> + Send>;

/// Takes part in gossip until it is shut down or dropped.
#[derive(Debug)]
pub struct Membership {
    view: watch::Receiver<Arc<View>>,
    facts: watch::Sender<Facts>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Membership {
    /// Starts to gossip over `endpoint`.
    ///
    /// # Errors
    /// When the options cannot be gossiped, or gossip runs on this endpoint already.
    pub async fn start(
        options: MembershipOptions,
        endpoint: &Endpoint,
        decider: Decider,
    ) -> Result<Self, MembershipError> {
        let transport = endpoint.gossip_transport(options.advertise);
        Self::start_on(options, Box::new(transport), decider).await
    }

    /// Starts to gossip over any transport.
    ///
    /// # Errors
    /// As [`Membership::start`].
    pub async fn start_on(
        options: MembershipOptions,
        transport: Box<dyn Transport>,
        decider: Decider,
    ) -> Result<Self, MembershipError> {
        check(&options)?;
        let facts = watch::Sender::new(Facts::default());
        let stop = watch::Sender::new(false);
        let handle = spawn(&options, &facts.borrow().clone(), 0, &*transport).await?;
        let mut driver = Driver { options, transport, facts: facts.subscribe(), stop: stop.subscribe(), decider };
        let first = driver.observe(Duration::ZERO, &handle).await;
        let view = watch::Sender::new(first.unwrap_or_default());
        let receiver = view.subscribe();
        let task = tokio::spawn(driver.run(handle, view));
        Ok(Self { view: receiver, facts, stop, task })
    }

    /// The members, kept up to date.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Tells the mesh how much this node holds.
    pub fn publish(&self, points: u64, bytes: u64) {
        self.facts.send_if_modified(|facts| {
            let changed = (facts.points, facts.bytes) != (points, bytes);
            (facts.points, facts.bytes) = (points, bytes);
            changed
        });
    }

    /// Tells the mesh which catalog this node has.
    pub fn publish_catalog_digest(&self, digest: String) {
        if digest.len() > VALUE_BYTES_MAX {
            return warn!(
                bytes = digest.len(),
                limit = VALUE_BYTES_MAX,
                "catalog digest not published: it is too large"
            );
        }
        self.facts.send_if_modified(|facts| {
            let changed = facts.catalog_digest != digest;
            facts.catalog_digest = digest;
            changed
        });
    }

    /// Stops to gossip. The others notice by its silence.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if timeout(STOP_WAIT, &mut self.task).await.is_err() {
            warn!("gossip did not stop within {STOP_WAIT:?}");
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn check(options: &MembershipOptions) -> Result<(), MembershipError> {
    if options.tokens.is_empty() {
        return Err(MembershipError::NoTokens);
    }
    if options.generation >= 1 << (u64::BITS - LOOP_GENERATION_BITS) {
        return Err(MembershipError::Generation(options.generation));
    }
    let tokens = write_tokens(&options.tokens).len();
    for (key, bytes) in [(TOKENS, tokens), (SOFTWARE, options.software.len()), (NAME, options.name.len())] {
        if bytes > VALUE_BYTES_MAX {
            return Err(MembershipError::Value { key, bytes });
        }
    }
    Ok(())
}

/// Starts the gossip loop under its `restart`-th generation.
async fn spawn(
    options: &MembershipOptions,
    facts: &Facts,
    restart: u64,
    transport: &dyn Transport,
) -> Result<ChitchatHandle, MembershipError> {
    let generation = options.generation << LOOP_GENERATION_BITS | restart;
    let seeds = options.seeds.iter().cloned().chain(options.known.iter().map(SocketAddr::to_string)).collect();
    let config = ChitchatConfig {
        chitchat_id: ChitchatId::new(options.node_id.to_string(), generation, options.advertise),
        cluster_id: options.mesh_id.to_string(),
        gossip_interval: options.gossip_interval,
        listen_addr: options.advertise,
        seed_nodes: seeds,
        // Only decides with whom chitchat gossips most; who is up, the roster decides.
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: 8.0,
            sampling_window_size: 1_000,
            max_interval: options.gossip_interval * 10,
            initial_interval: options.gossip_interval,
            dead_node_grace_period: options.dead_node_grace,
        },
        marked_for_deletion_grace_period: options.dead_node_grace,
        catchup_callback: None,
        extra_liveness_predicate: None,
    };
    let mut values = vec![
        (TOKENS.to_owned(), write_tokens(&options.tokens)),
        (SOFTWARE.to_owned(), options.software.clone()),
        (NAME.to_owned(), options.name.clone()),
    ];
    values.extend(facts.values().map(|(key, value)| (key.to_owned(), value)));
    spawn_chitchat(config, values, transport).await.map_err(MembershipError::Transport)
}

/// The task behind a [`Membership`].
struct Driver {
    options: MembershipOptions,
    transport: Box<dyn Transport>,
    facts: watch::Receiver<Facts>,
    stop: watch::Receiver<bool>,
    decider: Decider,
}

/// Why a gossip loop is left.
enum Ended {
    Stopped,
    Failed(anyhow::Error),
}

impl Driver {
    async fn run(mut self, mut handle: ChitchatHandle, view: watch::Sender<Arc<View>>) {
        let mut restart = 0;
        loop {
            let driven = caught_async("following gossip", self.drive(&handle, &view)).await;
            let reason = match driven.unwrap_or_else(|panic| Ended::Failed(panic.into())) {
                Ended::Stopped => {
                    let _ = timeout(STOP_WAIT, handle.shutdown()).await;
                    return;
                }
                Ended::Failed(reason) => reason,
            };
            handle.abort();
            handle = loop {
                if restart == LOOP_RESTARTS_MAX {
                    return error!(%reason, "gossip failed {restart} times and is given up: restart the node");
                }
                restart += 1;
                let pause = LOOP_RESTART_PAUSE.saturating_mul(1 << restart.min(16)).min(LOOP_RESTART_PAUSE_MAX);
                error!(%reason, restart, "gossip failed and is started again under a new generation");
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = self.stop.wait_for(|stop| *stop) => return,
                }
                let facts = self.facts.borrow_and_update().clone();
                let starting = spawn(&self.options, &facts, restart, &*self.transport);
                match caught_async("starting gossip", starting).await {
                    Ok(Ok(handle)) => break handle,
                    Ok(Err(error)) => error!(%error, "gossip could not be started"),
                    // It has been logged.
                    Err(_) => {}
                }
            };
        }
    }

    /// Follows one gossip loop until it ends or is to stop.
    async fn drive(&mut self, handle: &ChitchatHandle, view: &watch::Sender<Arc<View>>) -> Ended {
        let mut ended = std::pin::pin!(handle.termination_watcher());
        let mut ticks = interval(self.options.gossip_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        let mut stop = self.stop.clone();
        let mut stopped = std::pin::pin!(async move { drop(stop.wait_for(|stop| *stop).await) });
        loop {
            tokio::select! {
                result = &mut ended => {
                    return Ended::Failed(result.err().unwrap_or_else(|| anyhow::anyhow!("the gossip loop ended")));
                }
                () = &mut stopped => return Ended::Stopped,
                Ok(()) = self.facts.changed() => {
                    let facts = self.facts.borrow_and_update().clone();
                    handle.with_chitchat(|chitchat| {
                        facts.values().for_each(|(key, value)| chitchat.self_node_state().set(key, value));
                    }).await;
                }
                now = ticks.tick() => {
                    let elapsed = now.saturating_duration_since(last);
                    last = now;
                    if let Some(changed) = self.observe(elapsed, handle).await {
                        log_changes(&view.borrow(), &changed);
                        view.send_replace(changed);
                    }
                }
            }
        }
    }

    async fn observe(&mut self, elapsed: Duration, handle: &ChitchatHandle) -> Option<Arc<View>> {
        let observations: Vec<_> = handle
            .with_chitchat(|chitchat| {
                chitchat.node_states().iter().filter_map(|(id, state)| observation(id, state)).collect()
            })
            .await;
        let Facts { points, bytes, catalog_digest } = self.facts.borrow().clone();
        let myself = Member {
            id: self.options.node_id,
            address: self.options.advertise,
            state: NodeState::Up,
            tokens: self.options.tokens.clone(),
            generation: self.options.generation,
            name: self.options.name.clone(),
            software: self.options.software.clone(),
            points,
            bytes,
            catalog_digest,
        };
        (self.decider)(elapsed, myself, observations)
    }
}

fn log_changes(before: &View, after: &View) {
    for (id, member) in &after.members {
        let was = before.members.get(id).map(|member| member.state);
        // A node of which nothing but its name was heard yet is no news.
        let news = was.unwrap_or(NodeState::Down) != member.state;
        if news {
            info!(node = %id, address = %member.address, generation = member.generation, "node is {:?}", member.state);
        }
    }
}
