//! One UDP socket of a node or a client: dials, accepts, and makes calls.
//!
//! `pool` keeps the dialled connections and `serve` the accepted ones; how frames look is in
//! [`crate::frame`].

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};
use vecino_certs::{ALPN_CLIENT, ALPN_PEER, Identity, Role};
use vecino_model::NodeId;
use vecino_supervise::kept_running;

use crate::connection::{Connection, ExchangeError, to_rpc_error};
use crate::error::{ErrorCode, Retry, RpcError};
use crate::frame;
use crate::gossip::{GossipTransport, Inbox};
use crate::keys::TransportKeys;
use crate::message::Rpc;
use crate::node_id;
pub use crate::options::{EndpointError, EndpointOptions};
use crate::pool::{Pool, PoolError};
use crate::rpc::{self, DEADLINE_MAX, Service, TraceId};
use crate::serve::{self, CloseCode};
use crate::stream::Budget;

/// Most bytes of one stream that are buffered unread.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Most bytes of one connection that are buffered unread, and unacknowledged when sent. quinn's own default is no limit.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Most gossip messages of one peer on their way at a time.
const UNI_STREAMS_MAX: u32 = 64;
/// Round-trip time assumed before one was measured: a lost first packet is repeated after three times as long.
const FIRST_RTT: Duration = Duration::from_millis(100);
/// How long a closing endpoint waits for its last packets to leave.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// One UDP socket with everything that goes over it. Clones share it; it closes when the last one is dropped.
#[derive(Clone)]
pub struct Endpoint {
    handle: Arc<Handle>,
}

/// Closes the socket with the last [`Endpoint`]; the tasks only hold what is inside.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(quic) = self.shared.take_quic() {
            quic.close(CloseCode::Stopping.into(), b"the endpoint was dropped");
        }
    }
}

/// What the tasks of an endpoint share.
pub(crate) struct Shared {
    /// Absent once closed: quinn frees the port when the last handle is gone.
    quic: Mutex<Option<quinn::Endpoint>>,
    address: SocketAddr,
    pub(crate) dial_config: ClientConfig,
    pub(crate) options: EndpointOptions,
    pub(crate) node_id: NodeId,
    /// Absent for clients.
    pub(crate) service: Option<Arc<dyn Service>>,
    pub(crate) pool: Pool,
    pub(crate) permits: Semaphore,
    pub(crate) budget: Budget,
    pub(crate) inbox: Inbox,
    pub(crate) log_limit: LogLimit,
    in_flight: watch::Sender<usize>,
    stopping: watch::Sender<bool>,
}

impl Endpoint {
    /// A node's endpoint: it dials other nodes and serves whoever the mesh authority has signed. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be opened, the keys not be kept, or the identity is not a node's.
    pub fn server(
        identity: &Identity,
        options: EndpointOptions,
        service: Arc<dyn Service>,
    ) -> Result<Self, EndpointError> {
        if identity.role() != Role::Node {
            return Err(EndpointError::NotANode { name: identity.name().to_owned() });
        }
        let tls = vecino_certs::server_config(identity)?;
        let tls = QuicServerConfig::try_from(tls).map_err(|error| EndpointError::Quic(error.to_string()))?;
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server.transport_config(Arc::new(transport(&options, true)?)).migration(false);
        let (endpoint, quic) = Self::open(identity, options, ALPN_PEER, Some(server), Some(Arc::clone(&service)))?;
        let shared = Arc::clone(endpoint.shared());
        let accept = move || serve::accept(Arc::clone(&shared), quic.clone(), Arc::clone(&service));
        tokio::spawn(kept_running("accepting connections", accept));
        Ok(endpoint)
    }

    /// A client's endpoint: it only dials. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn client(identity: &Identity, options: EndpointOptions) -> Result<Self, EndpointError> {
        Ok(Self::open(identity, options, ALPN_CLIENT, None, None)?.0)
    }

    /// Sends a request to the node at `address` and waits for its reply, for `deadline` at the most ([`DEADLINE_MAX`]).
    ///
    /// With `expect`, only that node may answer: another one at the address gets nothing and the call fails. A request
    /// that surely was not sent, as when the connection turns out to be of the node's earlier life, is sent again once.
    ///
    /// # Errors
    /// What the node answered, or [`ErrorCode::Connection`] and [`ErrorCode::Timeout`] when it did not.
    pub async fn call<R: Rpc>(
        &self,
        address: SocketAddr,
        expect: Option<NodeId>,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Reply, RpcError> {
        let until = Instant::now() + deadline.min(DEADLINE_MAX);
        let body = rpc::encode(request)?;
        frame::check_body_bytes(body.len())?;
        let body = Bytes::from(body);
        let what = || format!("{} to {address}", R::NAME);
        let trace = TraceId::current().unwrap_or_else(TraceId::random);
        let mut retried = false;
        let reply = loop {
            let connection = self.connection(address, expect, until, &what).await?;
            match connection.exchange(R::KIND, body.clone(), until, trace).await {
                Ok(reply) => break reply?,
                Err(ExchangeError::NotSent(_)) if !retried => retried = true,
                Err(error) => return Err(to_rpc_error(error, &what(), deadline)),
            }
        };
        rpc::decode(R::NAME, &reply)
    }

    /// The address of the socket.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared().address
    }

    /// How many connections are open, dialled and accepted ones.
    pub fn open_connections(&self) -> usize {
        self.shared().quic().map_or(0, |quic| quic.open_connections())
    }

    /// Stops: new connections and requests are turned away, those under way may finish for `grace`, and their answers
    /// are acknowledged before the connections close. The port is free again afterwards.
    pub async fn close(&self, grace: Duration) {
        let shared = self.shared();
        shared.stopping.send_replace(true);
        let Some(quic) = shared.quic() else { return };
        quic.set_server_config(None);
        let mut in_flight = shared.in_flight.subscribe();
        if timeout(grace, in_flight.wait_for(|count| *count == 0)).await.is_err() {
            warn!(requests = *shared.in_flight.borrow(), ?grace, "closing although requests are under way");
        }
        quic.close(CloseCode::Stopping.into(), b"the node is stopping");
        let _ = timeout(CLOSE_WAIT, quic.wait_idle()).await;
        drop((quic, shared.take_quic()));
        shared.pool.clear();
        // The socket goes with quinn's own tasks, of whose end there is no other sign.
        let freed = async {
            while bind(shared.address).is_err() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = timeout(CLOSE_WAIT, freed).await;
    }

    /// A transport for chitchat over this endpoint's connections. `advertise` is the address at which peers reach it.
    pub fn gossip_transport(&self, advertise: SocketAddr) -> GossipTransport {
        GossipTransport::new(self.clone(), advertise)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    async fn connection(
        &self,
        address: SocketAddr,
        expect: Option<NodeId>,
        until: Instant,
        what: &impl Fn() -> String,
    ) -> Result<Arc<Connection>, RpcError> {
        let shared = self.shared();
        let connection = match timeout_at(until, shared.pool.connection(shared, address)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(not_connected(&error, &what())),
            Err(_) => {
                let message = format!("{} was not sent: no connection was made before the deadline", what());
                return Err(RpcError { code: ErrorCode::Timeout, message, retry: Retry::Safe });
            }
        };
        match expect {
            Some(expected) if expected != connection.peer.node_id => Err(RpcError {
                code: ErrorCode::Connection,
                message: format!(
                    "{} was not sent: node {} is there, expected was {expected}",
                    what(),
                    connection.peer.node_id
                ),
                retry: Retry::Safe,
            }),
            _ => Ok(connection),
        }
    }

    fn open(
        identity: &Identity,
        options: EndpointOptions,
        alpn: &[u8],
        server: Option<ServerConfig>,
        service: Option<Arc<dyn Service>>,
    ) -> Result<(Self, quinn::Endpoint), EndpointError> {
        let tls = vecino_certs::client_config(identity, alpn)?;
        let tls = QuicClientConfig::try_from(tls).map_err(|error| EndpointError::Quic(error.to_string()))?;
        let mut dial_config = ClientConfig::new(Arc::new(tls));
        dial_config.transport_config(Arc::new(transport(&options, false)?));

        let keys = match &options.state_dir {
            Some(dir) => TransportKeys::load_or_create(dir)?,
            None => TransportKeys::random()
                .map_err(|source| EndpointError::Keys { path: "of this process".into(), source })?,
        };
        let mut config = EndpointConfig::new(Arc::new(keys.reset_key()));
        let connection_id_key = keys.connection_id_key();
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id_key)));

        let fail = |source| EndpointError::Socket { address: options.listen, source };
        let socket = socket(&options).map_err(fail)?;
        let address = socket.local_addr().map_err(fail)?;
        let quic = quinn::Endpoint::new(config, server, socket, Arc::new(TokioRuntime)).map_err(fail)?;
        let shared = Shared {
            quic: Mutex::new(Some(quic.clone())),
            address,
            dial_config,
            node_id: node_id(identity.key_id()),
            service,
            pool: Pool::default(),
            permits: Semaphore::new(options.max_concurrent_requests),
            budget: Budget::new(options.request_bytes_max),
            inbox: Inbox::default(),
            log_limit: LogLimit::default(),
            in_flight: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
            options,
        };
        Ok((Self { handle: Arc::new(Handle { shared: Arc::new(shared) }) }, quic))
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.local_addr()).finish_non_exhaustive()
    }
}

impl Shared {
    /// The socket's endpoint, unless it was closed.
    pub(crate) fn quic(&self) -> Option<quinn::Endpoint> {
        self.quic.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_quic(&self) -> Option<quinn::Endpoint> {
        self.quic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Counts a request until the value is dropped.
    pub(crate) fn in_flight(&self) -> InFlight<'_> {
        self.in_flight.send_modify(|count| *count += 1);
        InFlight(&self.in_flight)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

/// A request under way.
pub(crate) struct InFlight<'a>(&'a watch::Sender<usize>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Keeps a log from being filled by who tries the same thing over and over.
#[derive(Default)]
pub(crate) struct LogLimit {
    last: Mutex<HashMap<String, Instant>>,
}

impl LogLimit {
    /// How long the same line is left out.
    const PAUSE: Duration = Duration::from_secs(10);
    /// Most different lines in that time; more are left out.
    const LINES_MAX: usize = 256;

    /// Whether `line` may be logged now.
    pub(crate) fn allows(&self, line: &str) -> bool {
        self.allows_at(line, Instant::now())
    }

    fn allows_at(&self, line: &str, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= Self::LINES_MAX {
            last.retain(|_, at| now - *at < Self::PAUSE);
        }
        match last.get(line) {
            Some(at) if now - *at < Self::PAUSE => false,
            None if last.len() >= Self::LINES_MAX => false,
            _ => {
                last.insert(line.to_owned(), now);
                true
            }
        }
    }
}

/// Nothing was sent, so the request may be repeated; not at once, as the address rests.
fn not_connected(error: &PoolError, what: &str) -> RpcError {
    let pause = u32::try_from(error.retry_after().as_millis()).unwrap_or(u32::MAX);
    let retry = if error.refused() { Retry::No } else { Retry::AfterMs(pause) };
    // A refusal is about the two sides and not about the request.
    let message = if error.refused() { error.to_string() } else { format!("{what} was not sent: {error}") };
    RpcError { code: ErrorCode::Connection, message, retry }
}

/// How connections behave. Who dials accepts no streams: requests and gossip flow from the dialling side only.
fn transport(options: &EndpointOptions, accepting: bool) -> Result<TransportConfig, EndpointError> {
    if options.keep_alive * 2 > options.idle_timeout {
        return Err(EndpointError::Option {
            option: "keep_alive",
            value: format!("{:?}", options.keep_alive),
            reason: "it must be at most half the idle timeout",
        });
    }
    let idle = IdleTimeout::try_from(options.idle_timeout).map_err(|_| EndpointError::Option {
        option: "idle_timeout",
        value: format!("{:?}", options.idle_timeout),
        reason: "it must be below 2^62 milliseconds",
    })?;
    // Twice as many streams as permits, so that a caller beyond the limit is answered instead of left waiting.
    let requests = u32::try_from(options.max_concurrent_requests_per_connection).unwrap_or(u32::MAX / 2);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(options.keep_alive))
        .initial_rtt(FIRST_RTT)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .max_concurrent_bidi_streams(VarInt::from_u32(if accepting { requests.saturating_mul(2).max(2) } else { 0 }))
        .max_concurrent_uni_streams(VarInt::from_u32(if accepting { UNI_STREAMS_MAX } else { 0 }))
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(options.gso);
    Ok(transport)
}

/// Opens the socket and asks the kernel for large buffers: its default drops packets under load.
fn socket(options: &EndpointOptions) -> io::Result<UdpSocket> {
    let wished = options.listen;
    let any_address = wished.is_ipv6() && wished.ip().is_unspecified();
    let socket = match bind(wished) {
        Err(_) if any_address => bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, wished.port())))?,
        bound => bound?,
    };
    let bytes = options.socket_buffer_bytes;
    for (what, result) in
        [("receive", socket.set_recv_buffer_size(bytes)), ("send", socket.set_send_buffer_size(bytes))]
    {
        if let Err(error) = result {
            warn!(%error, bytes, "the {what} buffer of the UDP socket could not be set");
        }
    }
    let socket: UdpSocket = socket.into();
    let granted = socket2::SockRef::from(&socket);
    info!(
        address = %socket.local_addr()?,
        asked_bytes = bytes,
        receive_bytes = granted.recv_buffer_size().unwrap_or_default(),
        send_bytes = granted.send_buffer_size().unwrap_or_default(),
        "UDP socket open"
    );
    Ok(socket)
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logged_once_in_a_while_and_others_beside_it() {
        let (limit, now) = (LogLimit::default(), Instant::now());
        assert!(limit.allows_at("a", now) && !limit.allows_at("a", now) && limit.allows_at("b", now));
        let later = now + LogLimit::PAUSE;
        assert!(limit.allows_at("a", later));
        let lines = (0..2 * LogLimit::LINES_MAX).filter(|line| limit.allows_at(&line.to_string(), later)).count();
        assert_eq!(lines, LogLimit::LINES_MAX - 1, "one place is taken by the first line");
    }

    #[test]
    fn a_keep_alive_that_cannot_work_is_refused() {
        let options = EndpointOptions { keep_alive: Duration::from_secs(4), ..EndpointOptions::default() };
        let error = transport(&options, true).unwrap_err().to_string();
        assert!(error.contains("keep_alive") && error.contains("4s"), "{error}");
    }
}
