//! The UDP socket, and how QUIC connections on it behave.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{info, warn};

use crate::options::{EndpointError, EndpointOptions};

/// Most bytes of one stream that are buffered unread.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Most bytes of one connection that are buffered unread, and unacknowledged when sent. quinn's own default is no limit.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Most bytes of an accepted connection that are buffered unread until it has said hello.
const GREETING_WINDOW_BYTES: u32 = 32 << 10;
/// Streams of an accepted connection until it has said hello: that of the hello. quinn keeps room for every stream that
/// may be opened.
const GREETING_STREAMS: u32 = 1;
/// Most gossip messages of one peer on their way at a time.
const UNI_STREAMS_MAX: u32 = 64;
/// Round-trip time assumed before one was measured: a lost first packet is repeated after three times as long.
const FIRST_RTT: Duration = Duration::from_millis(100);
/// How connections behave. The dialling side accepts no streams: requests and gossip flow from the dialling side only.
pub(crate) fn transport(options: &EndpointOptions, accepting: bool) -> Result<TransportConfig, EndpointError> {
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
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(options.keep_alive))
        .initial_rtt(FIRST_RTT)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(if accepting { GREETING_WINDOW_BYTES } else { CONNECTION_WINDOW_BYTES }))
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .max_concurrent_bidi_streams(VarInt::from_u32(if accepting { GREETING_STREAMS } else { 0 }))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(options.gso);
    Ok(transport)
}

/// Gives an accepted connection the room that it gets once it has said hello: so many requests at a time, and gossip
/// where it is a node's.
pub(crate) fn widen(quic: &quinn::Connection, requests: u32, gossips: bool) {
    quic.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
    quic.set_max_concurrent_bi_streams(VarInt::from_u32(requests));
    if gossips {
        quic.set_max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX));
    }
}

/// Opens the socket and asks the kernel for large buffers: its default drops packets under load.
pub(crate) fn socket(options: &EndpointOptions) -> io::Result<UdpSocket> {
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

/// Binds a UDP socket.
pub(crate) fn bind(address: SocketAddr) -> io::Result<Socket> {
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
    fn a_keep_alive_that_cannot_work_is_refused() {
        let options = EndpointOptions { keep_alive: Duration::from_secs(4), ..EndpointOptions::default() };
        let error = transport(&options, true).unwrap_err().to_string();
        assert!(error.contains("keep_alive") && error.contains("4s"), "{error}");
    }
}
