//! chitchat's messages over this endpoint's connections: one unidirectional stream each.
//!
//! chitchat awaits its sends one after the other, those to dead nodes among them, so [`Socket::send`] only puts the message
//! into the peer's queue; a task of the peer's takes it from there, and dials if need be. chitchat answers to the address
//! that a message came from, so that is always the sender's listening address, never a dialling port.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{debug, warn};
use vecino_supervise::kept_running;

use crate::frame::{self, RequestHeader, StreamKind};
use crate::message::{ConnectionClass, GOSSIP_KIND};
use crate::pool::Pool;
use crate::serve::UniSink;
use crate::stream::{ResetOnDrop, read_body};
use crate::trace::TraceId;

/// Largest gossip message: chitchat fills its messages up to what fits into a UDP datagram.
pub const GOSSIP_BYTES_MAX: usize = 65_507;
/// Most messages that wait for one peer; the oldest make room, as a newer one says the same and more.
const QUEUE_MESSAGES_MAX: usize = 16;
/// Most messages that wait for the gossip loop; more are dropped, and gossip repeats itself.
const INBOX_MESSAGES_MAX: usize = 1024;
/// Most peers with a queue; messages to more are dropped.
const PEERS_MAX: usize = 4096;
/// Time without messages after which the task of a peer ends.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How long one message may take to be sent or to arrive.
const MESSAGE_WAIT: Duration = Duration::from_secs(2);

/// Where arriving messages go: to the open socket, if any.
#[derive(Default)]
pub(crate) struct Inbox {
    open: Mutex<Option<mpsc::Sender<(SocketAddr, ChitchatMessage)>>>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Option<mpsc::Sender<(SocketAddr, ChitchatMessage)>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UniSink for Inbox {
    fn receive(
        self: Arc<Self>,
        from: SocketAddr,
        stream: quinn::RecvStream,
        body_bytes: usize,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(receive(self, from, stream, body_bytes))
    }
}

/// A chitchat transport over an endpoint's connections. It can be open once at a time.
#[derive(Clone)]
pub struct GossipTransport {
    pool: Arc<Pool>,
    inbox: Arc<Inbox>,
    advertise: SocketAddr,
}

impl GossipTransport {
    pub(crate) fn new(pool: Arc<Pool>, inbox: Arc<Inbox>, advertise: SocketAddr) -> Self {
        Self { pool, inbox, advertise }
    }
}

impl std::fmt::Debug for GossipTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GossipTransport").field("advertise", &self.advertise).finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for GossipTransport {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        if listen != self.advertise {
            bail!("gossip cannot be opened at {listen}: this endpoint is reached at {}", self.advertise);
        }
        let mut open = self.inbox.lock();
        if open.as_ref().is_some_and(|inbox| !inbox.is_closed()) {
            bail!("gossip is open already at {listen}");
        }
        let (sender, inbox) = mpsc::channel(INBOX_MESSAGES_MAX);
        *open = Some(sender);
        Ok(Box::new(GossipSocket { pool: Arc::clone(&self.pool), inbox, peers: Arc::default() }))
    }
}

/// The open socket.
struct GossipSocket {
    pool: Arc<Pool>,
    inbox: mpsc::Receiver<(SocketAddr, ChitchatMessage)>,
    peers: Arc<Peers>,
}

#[derive(Default)]
struct Peers(Mutex<HashMap<SocketAddr, Peer>>);

struct Peer {
    queue: Arc<Queue>,
    task: AbortHandle,
}

/// Messages that wait for one peer.
#[derive(Default)]
struct Queue {
    messages: Mutex<VecDeque<Bytes>>,
    filled: Notify,
}

#[async_trait]
impl Socket for GossipSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let bytes = message.serialize_to_vec();
        if bytes.len() > GOSSIP_BYTES_MAX {
            warn!(%to, bytes = bytes.len(), limit = GOSSIP_BYTES_MAX, "gossip message dropped: it is too large");
            return Ok(());
        }
        self.peers.enqueue(&self.pool, to, bytes.into());
        Ok(())
    }

    // Cancel-safe: a message stays in the channel until the future that takes it is ready.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        self.inbox.recv().await.context("the endpoint was closed")
    }
}

impl Drop for GossipSocket {
    fn drop(&mut self) {
        self.peers.lock().drain().for_each(|(_, peer)| peer.task.abort());
    }
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(self: &Arc<Self>, pool: &Arc<Pool>, to: SocketAddr, message: Bytes) {
        let mut peers = self.lock();
        if peers.len() >= PEERS_MAX && !peers.contains_key(&to) {
            return debug!(%to, "gossip message dropped: {PEERS_MAX} peers have one waiting");
        }
        let peer = peers.entry(to).or_insert_with(|| {
            let queue = Arc::<Queue>::default();
            let (peers, pool, waiting) = (Arc::clone(self), Arc::clone(pool), Arc::clone(&queue));
            let deliver = move || deliver(Arc::clone(&peers), Arc::clone(&pool), to, Arc::clone(&waiting));
            let task = tokio::spawn(kept_running("delivering gossip", deliver));
            Peer { queue, task: task.abort_handle() }
        });
        peer.queue.push(message);
    }

    /// Forgets a peer unless a message has come in meanwhile.
    fn retire(&self, to: SocketAddr, queue: &Queue) -> bool {
        let mut peers = self.lock();
        let idle = queue.lock().is_empty();
        if idle {
            peers.remove(&to);
        }
        idle
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Bytes>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, message: Bytes) {
        let mut messages = self.lock();
        if messages.len() >= QUEUE_MESSAGES_MAX {
            messages.pop_front();
        }
        messages.push_back(message);
        drop(messages);
        self.filled.notify_one();
    }

    async fn pop(&self) -> Bytes {
        loop {
            let message = self.lock().pop_front();
            match message {
                Some(message) => return message,
                None => self.filled.notified().await,
            }
        }
    }
}

/// Sends one peer's messages, until there are none for a while.
async fn deliver(peers: Arc<Peers>, pool: Arc<Pool>, to: SocketAddr, queue: Arc<Queue>) {
    loop {
        let Ok(message) = timeout(IDLE_MAX, queue.pop()).await else {
            if peers.retire(to, &queue) {
                return;
            }
            continue;
        };
        if let Err(error) = deliver_one(&pool, to, message).await {
            debug!(%to, %error, "gossip message dropped");
            // What waits is older than what the next round of gossip will say.
            queue.lock().clear();
        }
    }
}

async fn deliver_one(pool: &Arc<Pool>, to: SocketAddr, message: Bytes) -> anyhow::Result<()> {
    let connection = pool.connection(to, ConnectionClass::Ordinary).await?;
    if connection.peer.node_id == pool.dialler().node_id {
        bail!("{to} is this node itself");
    }
    let body_bytes = frame::check_body_bytes(message.len())?;
    let deadline_ms = u32::try_from(MESSAGE_WAIT.as_millis()).unwrap_or(u32::MAX);
    let mut header = RequestHeader::new(GOSSIP_KIND, body_bytes, deadline_ms, TraceId::random());
    header.stream = StreamKind::OneWay;
    header.epoch = pool.dialler().epoch();
    let send = async {
        let stream = connection.quic.open_uni().await?;
        // A heartbeat must not wait behind a batch of vectors.
        stream.set_priority(1)?;
        let mut stream = ResetOnDrop::new(stream);
        header.clock = connection.clock_told();
        stream.send(&header.encode(), message).await?;
        anyhow::Ok(())
    };
    timeout(MESSAGE_WAIT, send).await.context("the peer takes no messages")?
}

/// Takes one message off an accepted stream.
async fn receive(inbox: Arc<Inbox>, from: SocketAddr, mut recv: quinn::RecvStream, body_bytes: usize) {
    if body_bytes > GOSSIP_BYTES_MAX {
        return warn!(%from, bytes = body_bytes, limit = GOSSIP_BYTES_MAX, "gossip message dropped: it is too large");
    }
    let bytes = match timeout(MESSAGE_WAIT, read_body(&mut recv, body_bytes, None)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return debug!(%from, %error, "gossip message lost"),
        Err(_) => return debug!(%from, "gossip message not complete within {MESSAGE_WAIT:?}"),
    };
    match ChitchatMessage::deserialize(&mut &bytes[..]) {
        Ok(message) => {
            let inbox = inbox.lock().clone();
            if inbox.is_none_or(|inbox| inbox.try_send((from, message)).is_err()) {
                debug!(%from, "gossip message dropped: nobody takes it");
            }
        }
        Err(error) => warn!(%from, %error, bytes = bytes.len(), "gossip message dropped: it cannot be read"),
    }
}
