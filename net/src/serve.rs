//! The accepting side: which callers may connect, and how one request after the other is served.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::ConnectionError;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};
use vecino_supervise::caught_async;

use crate::admission::{Admission, Admitted, BRIEF_DEADLINE_MAX, BodyBytes, Class, Taken, deadline_max};
use crate::answer::{
    ANSWER_WAIT, Answer, CHUNK_WAIT, SendChunksError, conclude, name, refuse, send_chunks, unreadable,
};
use crate::error::{ErrorCode, Retry, RpcError};
use crate::frame::{FrameError, REQUEST_HEADER_BYTES, RequestHeader, StreamKind};
use crate::greeting::{Accepted, Greeting, greet};
use crate::log_limit::LogLimit;
use crate::message::{GOSSIP_KIND, Hello, HelloReply, Kind, Rpc};
use crate::pool::Pool;
use crate::quic::{CloseCode, describe};
use crate::refusal::{Refusal, same_mesh};
use crate::rpc::{self, Caller, ChunkSender, PEER_KIND_MIN, RequestContext, Service};
use crate::socket::widen;
use crate::stream::{CANCELLED, ReadFrameError, ResetOnDrop, read_body, read_header};

/// How long a new connection may take to finish its handshake and to say hello.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// How long a stream may take to bring its header.
const HEADER_WAIT: Duration = Duration::from_secs(5);

/// Takes the streams in one direction that peers open: gossip.
pub(crate) trait UniSink: Send + Sync {
    /// Takes one message of `body_bytes` off a stream that the peer at `from` opened, behind its header.
    fn receive(
        self: Arc<Self>,
        from: SocketAddr,
        stream: quinn::RecvStream,
        body_bytes: usize,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// What accepted connections are served with.
pub(crate) struct Server<S> {
    pub(crate) service: Arc<dyn Service>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) sink: Arc<S>,
    pub(crate) max_connections: usize,
    /// How long a request may take until it is there as a whole.
    pub(crate) request_wait: Duration,
}

/// Accepts connections until the endpoint is closed.
pub(crate) async fn accept<S: UniSink + 'static>(server: Arc<Server<S>>, quic: quinn::Endpoint) {
    while let Some(incoming) = quic.accept().await {
        let remote = incoming.remote_address();
        let Some(greeting) = server.admission.greet() else {
            if server.pool.dialler().log_limit.allows("connections") {
                warn!(%remote, limit = server.max_connections, "connection refused: too many are open");
            }
            incoming.refuse();
            continue;
        };
        // Half full: from here on only a caller that can receive at its address gets a place.
        if server.admission.is_crowded() && !incoming.remote_address_validated() {
            if let Err(error) = incoming.retry() {
                debug!(%remote, %error, "connection not accepted");
            }
            continue;
        }
        let server = Arc::clone(&server);
        spawn("serving a connection", async move {
            match incoming.accept() {
                Ok(connecting) => serve_connection(server, connecting, remote, greeting).await,
                Err(error) => debug!(%remote, %error, "connection not accepted"),
            }
        });
    }
}

/// Starts work of which a panic costs nothing but itself: a connection, a request, a message.
fn spawn(what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move { drop(caught_async(what, work).await) });
}

async fn serve_connection<S: UniSink + 'static>(
    server: Arc<Server<S>>,
    connecting: quinn::Connecting,
    remote: SocketAddr,
    greeting: Taken,
) {
    let until = Instant::now() + HELLO_WAIT;
    let quic = match timeout_at(until, connecting).await {
        Ok(Ok(quic)) => quic,
        Ok(Err(error)) => return log_lost(&server.pool.dialler().log_limit, remote, &error),
        Err(_) => return debug!(%remote, "handshake not finished within {HELLO_WAIT:?}"),
    };
    let software = server.pool.dialler().software.clone();
    let greeted = timeout_at(until, greet(&*server.service, software, &server.admission, &quic)).await;
    let accepted = match greeted.unwrap_or_else(|_| Err(Greeting::Refused(Refusal::NoHello(HELLO_WAIT)))) {
        Ok(accepted) => Arc::new(accepted),
        Err(Greeting::Refused(refusal)) => {
            let reason = refusal.to_string();
            quic.close(CloseCode::Refused.into(), reason.as_bytes());
            if server.pool.dialler().log_limit.allows(&format!("{} {reason}", remote.ip())) {
                warn!(%remote, reason, "connection refused");
            }
            return;
        }
        Err(Greeting::Lost(error)) => return log_lost(&server.pool.dialler().log_limit, remote, &error),
    };
    drop(greeting);
    let streams_max = server.admission.streams_max(&accepted.share, accepted.class);
    widen(&accepted.quic, streams_max, accepted.advertised.is_some());
    debug!(%remote, caller = %accepted.caller, class = ?accepted.class, "connection accepted");
    if let Some(address) = accepted.advertised {
        server.pool.wake(address);
    }
    let closed = loop {
        tokio::select! {
            stream = accepted.quic.accept_bi() => match stream {
                Ok((send, recv)) => {
                    let (server, accepted) = (Arc::clone(&server), Arc::clone(&accepted));
                    spawn("serving a request", serve_stream(server, accepted, send, recv));
                }
                Err(error) => break error,
            },
            stream = accepted.quic.accept_uni() => match (stream, accepted.advertised) {
                (Ok(recv), Some(from)) => {
                    let (server, accepted) = (Arc::clone(&server), Arc::clone(&accepted));
                    spawn("receiving a message", serve_one_way(server, accepted, from, recv));
                }
                (Ok(mut recv), None) => drop(recv.stop(CANCELLED)),
                (Err(error), _) => break error,
            },
        }
    };
    match closed {
        // The other side found fault with this node's answer to its hello, or with a reply.
        ConnectionError::ApplicationClosed(close) if close.error_code == CloseCode::Refused.into() => {
            log_lost(&server.pool.dialler().log_limit, remote, &ConnectionError::ApplicationClosed(close));
        }
        error => debug!(%remote, caller = %accepted.caller, reason = describe(&error), "connection ended"),
    }
}

/// Logs a lost connection: loud if one side refused the other, as then somebody has to mend something.
fn log_lost(log_limit: &LogLimit, remote: SocketAddr, error: &ConnectionError) {
    let reason = match error {
        ConnectionError::TransportError(error) => format!("this node refused it: {error}"),
        error => describe(error),
    };
    let loud = matches!(
        error,
        ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::ApplicationClosed(_)
    );
    if loud && log_limit.allows(&format!("{} {reason}", remote.ip())) {
        warn!(%remote, reason, "connection refused");
    } else {
        debug!(%remote, reason, "connection lost");
    }
}

/// Serves one request. The task ends when its answer was acknowledged, so that a stopping endpoint can wait for it.
async fn serve_stream<S>(
    server: Arc<Server<S>>,
    accepted: Arc<Accepted>,
    send: quinn::SendStream,
    mut recv: quinn::RecvStream,
) {
    let _in_flight = server.admission.in_flight();
    let mut send = ResetOnDrop::new(send);
    let began = Instant::now();
    let arriving = match server.admission.arriving(&accepted.share) {
        Ok(arriving) => arriving,
        Err(error) => {
            let _ = recv.stop(CANCELLED);
            return drop(timeout(ANSWER_WAIT, conclude(&mut send, 0, Err(error), ())).await);
        }
    };
    let header = match read_request_header(&mut recv).await {
        Ok(header) => header,
        Err(ReadFrameError::Frame(error @ FrameError::Magic(_))) => {
            let remote = accepted.quic.remote_address();
            warn!(%remote, caller = %accepted.caller, %error, "connection closed");
            accepted.quic.close(CloseCode::Protocol.into(), error.to_string().as_bytes());
            return;
        }
        Err(ReadFrameError::Stream(_) | ReadFrameError::Late(_)) => return,
        Err(error) => {
            let _ = recv.stop(CANCELLED);
            debug!(caller = %accepted.caller, %error, "request refused");
            return refuse(&mut send, error).await;
        }
    };
    // A caller may ask for less time than a node gives, and not for more.
    let longest = Kind::of(header.kind).map_or(BRIEF_DEADLINE_MAX, deadline_max);
    let deadline = Instant::now() + header.deadline().min(longest);
    let context = RequestContext::new(accepted.caller.clone(), deadline, header.trace).with_epoch(header.epoch);
    let settled = send.settled();
    let arrival = Arrival { recv: &mut recv, until: deadline.min(began + server.request_wait), _place: arriving };
    let mut admitted = None;
    let work = serve_request(&server, &accepted, &header, context, arrival, &mut send, &mut admitted);
    let result = tokio::select! {
        // The caller gave up, or is gone: dropping the work cancels it.
        () = settled => return debug!(trace = %header.trace, kind = header.kind, "request cancelled"),
        result = timeout_at(deadline, work) => result.unwrap_or_else(|_| {
            let patience = header.deadline().min(longest);
            let message = format!("{} was not done within {patience:?}", name(header.kind));
            Err(RpcError::new(ErrorCode::Timeout, message))
        }),
    };
    let _ = timeout_at(deadline + ANSWER_WAIT, conclude(&mut send, header.kind, result, admitted)).await;
}

async fn read_request_header(recv: &mut quinn::RecvStream) -> Result<RequestHeader, ReadFrameError> {
    let bytes = timeout(HEADER_WAIT, read_header::<REQUEST_HEADER_BYTES>(recv)).await;
    Ok(RequestHeader::decode(&bytes.unwrap_or(Err(ReadFrameError::Late(HEADER_WAIT)))?)?)
}

async fn serve_request<S>(
    server: &Server<S>,
    accepted: &Accepted,
    header: &RequestHeader,
    context: RequestContext,
    arrival: Arrival<'_>,
    send: &mut ResetOnDrop,
    admitted: &mut Option<Admitted>,
) -> Result<Answer, RpcError> {
    let Server { service, admission, .. } = server;
    admission.check_running()?;
    let kind = check_kind(service, accepted, header)?;
    hear_clock(service, accepted, header);
    if header.deadline_ms == 0 {
        let message =
            format_args!("deadline_ms of a {} is 0, which leaves no time for it; nothing was done", kind.name);
        return Err(RpcError::new(ErrorCode::Timeout, message).with_retry(Retry::Safe));
    }
    let class = Class::of(kind, accepted.class);
    let mut held = admission.body(&accepted.share, class);
    let body = arrival.body(kind, header.body_bytes as usize, &mut held).await?;
    let admitted = admitted.insert(admission.admit(&accepted.share, class, kind, context.deadline)?);
    if header.kind == Hello::KIND {
        let software = server.pool.dialler().software.clone();
        let hello = rpc::decode(Hello::NAME, &body)?;
        return rpc::encode(&HelloReply::to(&hello, service.identity(), software)).map(Answer::Reply);
    }
    if kind.stream == StreamKind::Chunks {
        // Boxed, so that the many requests with one reply do not carry the room for this.
        return Box::pin(serve_chunks(service, admitted, kind, context, body, send)).await;
    }
    let bytes = body.len();
    let work = service.serve(context.clone(), kind.number, body);
    admitted.run(&context, bytes, work).await.map(Answer::Reply)
}

async fn serve_chunks(
    service: &Arc<dyn Service>,
    admitted: &Admitted,
    kind: &Kind,
    context: RequestContext,
    body: Bytes,
    send: &mut ResetOnDrop,
) -> Result<Answer, RpcError> {
    let (bytes, name) = (body.len(), kind.name);
    let (chunks, waiting) = ChunkSender::channel();
    let work = service.serve_chunks(context.clone(), kind.number, body, chunks);
    let mut work = std::pin::pin!(admitted.run(&context, bytes, work));
    let mut sending = std::pin::pin!(send_chunks(send, kind.number, waiting));
    let (result, sent) = tokio::select! {
        result = &mut work => (result, sending.await),
        sent = &mut sending => match sent {
            // What is left to be done behind the last chunk is bounded as a chunk is.
            Ok(()) => {
                let done = timeout(CHUNK_WAIT, work).await;
                (done.unwrap_or_else(|_| Err(stalled(name, &SendChunksError::Unmade))), Ok(()))
            }
            // Dropping the work cancels it.
            Err(error) => (Err(stalled(name, &error)), Err(error)),
        },
    };
    if let Err(error) = sent {
        debug!(trace = %context.trace, name, %error, "chunks not sent");
    }
    result.map(|()| Answer::End)
}

/// Why a stream was given up.
fn stalled(name: &str, error: &SendChunksError) -> RpcError {
    RpcError::new(ErrorCode::Timeout, format_args!("{name} was given up: {error}"))
}

/// A request that is not there as a whole. It takes a place among those that arrive.
struct Arrival<'a> {
    recv: &'a mut quinn::RecvStream,
    until: Instant,
    _place: Taken,
}

impl Arrival<'_> {
    /// The body, once all of it is there.
    async fn body(self, kind: &Kind, bytes: usize, held: &mut BodyBytes) -> Result<Bytes, RpcError> {
        let began = Instant::now();
        let read = timeout_at(self.until, read_body(self.recv, bytes, Some(&mut *held))).await;
        held.arrived();
        read.map_err(|_| {
            let waited = began.elapsed();
            let message = format_args!(
                "the {bytes} bytes of a {} were not there as a whole after {waited:.1?}; nothing was done",
                kind.name
            );
            RpcError::new(ErrorCode::Timeout, message).with_retry(Retry::Safe)
        })?
        .map_err(unreadable)
    }
}

/// Tells the service what a node told of its clock. Clients tell nothing that counts.
fn hear_clock(service: &Arc<dyn Service>, accepted: &Accepted, header: &RequestHeader) {
    if let Caller::Peer(node) = accepted.caller
        && header.clock != 0
    {
        service.clock_heard(node, header.clock);
    }
}

/// Takes one message off a stream in one direction.
async fn serve_one_way<S: UniSink + 'static>(
    server: Arc<Server<S>>,
    accepted: Arc<Accepted>,
    from: SocketAddr,
    mut recv: quinn::RecvStream,
) {
    let header = read_request_header(&mut recv).await.map_err(unreadable);
    let checked = header.and_then(|header| {
        let kind = Kind::of(header.kind).ok_or_else(|| unknown_kind(header.kind))?;
        kind.check(header.stream, header.features)?;
        hear_clock(&server.service, &accepted, &header);
        Ok((kind.number, header.body_bytes as usize))
    });
    match checked {
        Ok((GOSSIP_KIND, body_bytes)) => Arc::clone(&server.sink).receive(from, recv, body_bytes).await,
        Ok((kind, _)) => debug!(%from, kind, "message dropped: nobody takes it"),
        Err(error) => debug!(%from, %error, "message dropped"),
    }
}

/// Checks that this caller may ask this now, in this way.
fn check_kind(
    service: &Arc<dyn Service>,
    accepted: &Accepted,
    header: &RequestHeader,
) -> Result<&'static Kind, RpcError> {
    let kind = Kind::of(header.kind).ok_or_else(|| unknown_kind(header.kind))?;
    if kind.stream == StreamKind::OneWay {
        let message = format_args!("{} goes on a stream of one direction", kind.name);
        return Err(RpcError::new(ErrorCode::Protocol, message));
    }
    match &accepted.caller {
        Caller::Client(client) if kind.number >= PEER_KIND_MIN => {
            let message = format_args!("{} is asked by nodes only, and {client:?} connected as a client", kind.name);
            return Err(RpcError::new(ErrorCode::Forbidden, message));
        }
        // Both were without a mesh, or one was, when they said hello; since then they may have joined different ones.
        Caller::Peer(id) => same_mesh(*id, accepted.mesh_told, &service.identity()).map_err(|refusal| {
            let message = refusal.to_string();
            warn!(remote = %accepted.quic.remote_address(), reason = message, "connection refused");
            accepted.quic.close(CloseCode::Refused.into(), message.as_bytes());
            RpcError::new(ErrorCode::Forbidden, message)
        })?,
        Caller::Client(_) => {}
    }
    kind.check(header.stream, header.features)?;
    Ok(kind)
}

fn unknown_kind(kind: u16) -> RpcError {
    let message = format_args!("kind {kind} is unknown here: run the same release on both sides");
    RpcError::new(ErrorCode::Protocol, message)
}
