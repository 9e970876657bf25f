//! One UDP socket of a node or a client: dials, accepts, and makes calls.
//!
//! `pool` keeps the dialled connections and `serve` the accepted ones; how frames look is in
//! [`crate::frame`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, EndpointConfig, ServerConfig, TokioRuntime};
use quinn_proto::HashedConnectionIdGenerator;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::warn;
use vecino_certs::{ALPN_CLIENT, ALPN_PEER, Identity, Role};
use vecino_model::NodeId;
use vecino_supervise::kept_running;

use crate::admission::Admission;
pub use crate::chunks::Chunks;
use crate::connection::{Connection, ExchangeError, Outgoing, exchange_failed};
use crate::dialler::{Dialler, DiallerParts};
use crate::error::{ErrorCode, Retry, RpcError};
use crate::frame::{self, RequestHeader, StreamKind};
use crate::gossip::{GossipTransport, Inbox};
use crate::keys::TransportKeys;
use crate::message::{ConnectionClass, Rpc};
use crate::node_id;
pub use crate::options::{EndpointError, EndpointOptions};
use crate::pool::{Pool, PoolError};
use crate::quic::CloseCode;
use crate::rpc::{self, DEADLINE_MAX, Service, TraceId};
use crate::serve::{self, Server};
use crate::socket::{bind, socket, transport};

/// How long a closing endpoint waits for its last packets to leave.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// One UDP socket with everything that goes over it. Clones share it; it closes when the last one is dropped.
#[derive(Clone)]
pub struct Endpoint {
    handle: Arc<Handle>,
}

/// Closes the socket with the last [`Endpoint`]; the tasks only hold what is inside.
struct Handle {
    pool: Arc<Pool>,
    inbox: Arc<Inbox>,
    /// Absent for clients.
    admission: Option<Arc<Admission>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(quic) = self.pool.dialler().take_quic() {
            quic.close(CloseCode::Stopping.into(), b"the endpoint was dropped");
        }
    }
}

impl Endpoint {
    /// A node's endpoint: it dials other nodes and serves every caller whose certificate the mesh authority has signed. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be opened, the keys not be kept, or the identity is not a node's.
    pub fn server(
        identity: &Identity,
        options: EndpointOptions,
        service: Arc<dyn Service>,
    ) -> Result<Self, EndpointError> {
        let admission = Admission::uncounted(options.admission());
        Self::server_behind(identity, options, service, admission)
    }

    /// A node's endpoint whose requests go through an admission that other doors of the node may share.
    ///
    /// # Errors
    /// As [`Endpoint::server`].
    pub fn server_behind(
        identity: &Identity,
        options: EndpointOptions,
        service: Arc<dyn Service>,
        admission: Arc<Admission>,
    ) -> Result<Self, EndpointError> {
        if identity.role() != Role::Node {
            return Err(EndpointError::NotANode { name: identity.name().to_owned() });
        }
        let tls = vecino_certs::server_config(identity)?;
        let tls = QuicServerConfig::try_from(tls)?;
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server.transport_config(Arc::new(transport(&options, true)?)).migration(false);
        let (max_connections, request_wait) = (options.max_connections, options.request_wait);
        let behind = Some((Arc::clone(&service), Arc::clone(&admission)));
        let (endpoint, quic) = Self::open(identity, options, ALPN_PEER, Some(server), behind)?;
        let Handle { pool, inbox, .. } = &*endpoint.handle;
        let (pool, sink) = (Arc::clone(pool), Arc::clone(inbox));
        let server = Arc::new(Server { service, admission, pool, sink, max_connections, request_wait });
        let accept = move || serve::accept(Arc::clone(&server), quic.clone());
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
    /// A node works on most requests for a minute at the most
    /// ([`BRIEF_DEADLINE_MAX`](crate::admission::BRIEF_DEADLINE_MAX)).
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
        const { assert!(matches!(R::STREAM, StreamKind::Reply), "use call_streaming") };
        let (outgoing, what) = (self.outgoing(request, deadline)?, || format!("{} to {address}", R::NAME));
        let mut retried = false;
        let reply = loop {
            let connection = self.connection(address, R::CLASS, expect, outgoing.deadline, &what).await?;
            match connection.exchange(&outgoing).await {
                Ok(reply) => break reply?,
                Err(ExchangeError::NotSent(_)) if !retried => retried = true,
                Err(error) => return Err(exchange_failed(error, &what(), deadline)),
            }
        };
        // The request was done; only what came of it is not known.
        rpc::decode(R::NAME, &reply).map_err(|error| error.with_retry(Retry::Unknown))
    }

    /// Sends a request that is answered in chunks, and gives the chunks to be read. All of them must have been read within
    /// `deadline`. Otherwise it is as [`call`](Self::call).
    ///
    /// # Errors
    /// [`ErrorCode::Connection`] and [`ErrorCode::Timeout`] where the request could not be sent. What the node answers
    /// comes when chunks are read.
    pub async fn call_streaming<R: Rpc>(
        &self,
        address: SocketAddr,
        expect: Option<NodeId>,
        request: &R,
        deadline: Duration,
    ) -> Result<Chunks<R>, RpcError> {
        const { assert!(matches!(R::STREAM, StreamKind::Chunks), "use call") };
        let (outgoing, what) = (self.outgoing(request, deadline)?, || format!("{} to {address}", R::NAME));
        let mut retried = false;
        loop {
            let connection = self.connection(address, R::CLASS, expect, outgoing.deadline, &what).await?;
            match connection.begin(&outgoing).await {
                Ok(recv) => return Ok(Chunks::new(recv, connection, what(), outgoing.deadline, deadline)),
                Err(ExchangeError::NotSent(_)) if !retried => retried = true,
                Err(error) => return Err(exchange_failed(error, &what(), deadline)),
            }
        }
    }

    /// Number of packets that have come from the node at `address` on the connection for ordinary requests, acknowledgements
    /// among them; nothing where there is none. What does not rise is quiet: the node, or the way to it, may have gone.
    pub fn received(&self, address: SocketAddr) -> Option<u64> {
        self.handle.pool.received(address, ConnectionClass::Ordinary)
    }

    /// Sends requests with this epoch from now on, unless a later one was set: the last agreed change of the mesh that is
    /// known here.
    pub fn raise_epoch(&self, epoch: u64) {
        self.dialler().raise_epoch(epoch);
    }

    /// The address of the socket.
    pub fn local_addr(&self) -> SocketAddr {
        self.dialler().address
    }

    /// How many connections are open, dialled and accepted ones.
    pub fn open_connections(&self) -> usize {
        self.dialler().quic().map_or(0, |quic| quic.open_connections())
    }

    /// Stops: new connections and requests are turned away, those under way may finish for `grace`, and their answers
    /// are acknowledged before the connections close. The port is free again afterwards.
    pub async fn close(&self, grace: Duration) {
        let Handle { pool, admission, .. } = &*self.handle;
        if let Some(admission) = admission {
            admission.stop();
        }
        let Some(quic) = pool.dialler().quic() else { return };
        quic.set_server_config(None);
        let requests = match admission {
            Some(admission) => admission.drained(grace).await,
            None => 0,
        };
        if requests > 0 {
            warn!(requests, ?grace, "closing although requests are under way");
        }
        quic.close(CloseCode::Stopping.into(), b"the node is stopping");
        let _ = timeout(CLOSE_WAIT, quic.wait_idle()).await;
        drop((quic, pool.dialler().take_quic()));
        pool.clear();
        // The socket goes with quinn's own tasks, of whose end there is no other sign.
        let freed = async {
            while bind(pool.dialler().address).is_err() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = timeout(CLOSE_WAIT, freed).await;
    }

    /// A transport for chitchat over this endpoint's connections. `advertise` is the address at which peers reach it.
    pub fn gossip_transport(&self, advertise: SocketAddr) -> GossipTransport {
        GossipTransport::new(Arc::clone(&self.handle.pool), Arc::clone(&self.handle.inbox), advertise)
    }

    fn dialler(&self) -> &Dialler {
        self.handle.pool.dialler()
    }

    fn outgoing<R: Rpc>(&self, request: &R, patience: Duration) -> Result<Outgoing, RpcError> {
        let deadline = Instant::now() + patience.min(DEADLINE_MAX);
        // Nothing was sent.
        let body = rpc::encode(request).map_err(|error| error.with_retry(Retry::No))?;
        frame::check_body_bytes(body.len())?;
        let trace = TraceId::current().unwrap_or_else(TraceId::random);
        let mut header = RequestHeader::new(R::KIND, 0, 0, trace);
        (header.stream, header.features, header.epoch) = (R::STREAM, request.features(), self.dialler().epoch());
        Ok(Outgoing { header, body: body.into(), deadline })
    }

    async fn connection(
        &self,
        address: SocketAddr,
        class: ConnectionClass,
        expect: Option<NodeId>,
        until: Instant,
        what: &impl Fn() -> String,
    ) -> Result<Arc<Connection>, RpcError> {
        let connection = match timeout_at(until, self.handle.pool.connection(address, class)).await {
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
        behind: Option<(Arc<dyn Service>, Arc<Admission>)>,
    ) -> Result<(Self, quinn::Endpoint), EndpointError> {
        let tls = vecino_certs::client_config(identity, alpn)?;
        let tls = QuicClientConfig::try_from(tls)?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport(&options, false)?));

        let keys = match &options.state_dir {
            Some(dir) => TransportKeys::load_or_create(dir)?,
            None => TransportKeys::random()
                .map_err(|source| EndpointError::Keys { path: "of this process".into(), source })?,
        };
        let mut socket_config = EndpointConfig::new(Arc::new(keys.reset_key()));
        let connection_id_key = keys.connection_id_key();
        socket_config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id_key)));

        let fail = |source| EndpointError::Socket { address: options.listen, source };
        let socket = socket(&options).map_err(fail)?;
        let address = socket.local_addr().map_err(fail)?;
        let quic = quinn::Endpoint::new(socket_config, server, socket, Arc::new(TokioRuntime)).map_err(fail)?;
        let (service, admission) = behind.unzip();
        let EndpointOptions { software, dial_timeout, back_off_max, .. } = options;
        let dialler = Dialler::new(DiallerParts {
            quic: quic.clone(),
            config,
            address,
            node_id: node_id(identity.key_id()),
            software,
            dial_timeout,
            back_off_max,
            service,
        });
        let handle = Handle { pool: Pool::new(Arc::new(dialler)), inbox: Arc::default(), admission };
        Ok((Self { handle: Arc::new(handle) }, quic))
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.local_addr()).finish_non_exhaustive()
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
