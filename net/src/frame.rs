//! The fixed headers before every body, as bytes. Drawn in `docs/wire.md`; reading and writing streams is in
//! `stream`.
//!
//! All integers are little-endian. There is no checksum: QUIC authenticates every packet.

use std::time::Duration;

use crate::error::{ErrorCode, RpcError};
use crate::trace::TraceId;
use vecino_model::limits::FRAME_BYTES_MAX;

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"VCNO";
/// Version of the protocol spoken here. Magic and version stand first in every version's frames.
pub const PROTOCOL_VERSION: u16 = 2;
/// Magic and version.
pub const PREFIX_BYTES: usize = 6;
/// Size of a request's header.
pub const REQUEST_HEADER_BYTES: usize = 48;
/// Size of the header of a reply, and of each part of a reply that comes in chunks.
pub const REPLY_HEADER_BYTES: usize = 16;

/// What comes back for a request on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamKind {
    /// One reply.
    Reply = 0,
    /// Any number of chunks, and then an end or an error.
    Chunks = 1,
    /// Nothing: the stream has one direction.
    OneWay = 2,
}

/// Which part of an answer a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The reply.
    Reply = 0,
    /// Why there is no reply, or no further chunk: the body is an [`RpcError`].
    Error = 1,
    /// A chunk; more frames follow.
    Chunk = 2,
    /// All chunks were sent. The body is empty.
    End = 3,
}

/// What stands before a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestHeader {
    /// Number of the request, [`crate::message::Rpc::KIND`].
    pub kind: u16,
    /// What is to come back.
    pub stream: StreamKind,
    /// Features of this kind that the request uses and that must not be ignored, [`crate::message::Rpc::features`].
    pub features: u16,
    /// Size of the body.
    pub body_bytes: u32,
    /// How long the caller waits, counted from when the header is read.
    pub deadline_ms: u32,
    /// What the caller told of its wall clock, 0 where it told nothing: [`crate::rpc::Service::clock_told`].
    pub clock: u32,
    /// The last agreed change of the mesh that the caller knows of; 0 before the first.
    pub epoch: u64,
    /// Ties log lines together.
    pub trace: TraceId,
}

/// What stands before the body of a reply, or of a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplyHeader {
    /// Number of the request that this answers.
    pub kind: u16,
    /// Which part of the answer it is.
    pub part: Part,
    /// Size of the body.
    pub body_bytes: u32,
}

/// Bytes that are no header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Not this protocol at all.
    #[error("a frame begins with {0:02x?} instead of {MAGIC:02x?}: the sender does not speak vecino's protocol")]
    Magic([u8; 4]),
    /// A version that is not spoken here.
    #[error(
        "protocol version {0} is not spoken here, only version {PROTOCOL_VERSION}: run the same release on both sides"
    )]
    Version(u16),
    /// A kind of stream that is not known.
    #[error("kind of stream {0} is unknown in protocol version {PROTOCOL_VERSION}")]
    StreamKind(u8),
    /// A part of an answer that is not known.
    #[error("part {0} of an answer is unknown in protocol version {PROTOCOL_VERSION}")]
    Part(u8),
    /// Bytes that must be zero are not: they mean something that is not understood here.
    #[error("reserved bytes at offset {offset} of a header are not zero: run the same release on both sides")]
    Reserved {
        /// Where they begin.
        offset: usize,
    },
    /// A body that is too large.
    #[error("a frame of {0} bytes exceeds the maximum of {FRAME_BYTES_MAX}: send less at once")]
    TooLarge(u64),
    /// The header ends early.
    #[error("a header ended after {0} bytes")]
    Truncated(usize),
}

impl From<FrameError> for RpcError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLarge(_) => Self::invalid(error),
            _ => Self::new(ErrorCode::Protocol, error),
        }
    }
}

impl FrameError {
    /// The version that whoever sent such a frame can read an answer in.
    pub(crate) fn answer_version(&self) -> u16 {
        if *self == Self::Version(1) { 1 } else { PROTOCOL_VERSION }
    }
}

/// Checks magic and version.
pub fn check_prefix(bytes: &[u8]) -> Result<(), FrameError> {
    let mut fields = Fields::of(bytes);
    let magic = fields.take()?;
    if magic != MAGIC {
        return Err(FrameError::Magic(magic));
    }
    match u16::from_le_bytes(fields.take()?) {
        PROTOCOL_VERSION => Ok(()),
        version => Err(FrameError::Version(version)),
    }
}

/// Whether a body of this size may be sent.
pub fn check_body_bytes(bytes: usize) -> Result<u32, FrameError> {
    let error = || FrameError::TooLarge(u64::try_from(bytes).unwrap_or(u64::MAX));
    if bytes > FRAME_BYTES_MAX {
        return Err(error());
    }
    u32::try_from(bytes).map_err(|_| error())
}

impl RequestHeader {
    /// The header of a request that needs no features, of epoch 0, for one reply; it tells no clock.
    pub fn new(kind: u16, body_bytes: u32, deadline_ms: u32, trace: TraceId) -> Self {
        Self { kind, stream: StreamKind::Reply, features: 0, body_bytes, deadline_ms, clock: 0, epoch: 0, trace }
    }

    /// The bytes of this header.
    pub fn encode(&self) -> [u8; REQUEST_HEADER_BYTES] {
        let Self { kind, stream, features, body_bytes, deadline_ms, clock, epoch, trace } = *self;
        let mut bytes = [0; REQUEST_HEADER_BYTES];
        encode_start(&mut bytes, PROTOCOL_VERSION, kind, stream as u8, body_bytes);
        bytes[10..12].copy_from_slice(&features.to_le_bytes());
        bytes[16..20].copy_from_slice(&deadline_ms.to_le_bytes());
        bytes[20..24].copy_from_slice(&clock.to_le_bytes());
        bytes[24..32].copy_from_slice(&epoch.to_le_bytes());
        bytes[32..48].copy_from_slice(trace.as_bytes());
        bytes
    }

    /// Reads a header; bytes behind it are ignored.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        check_prefix(bytes)?;
        let mut fields = Fields::of(bytes);
        let _: [u8; PREFIX_BYTES] = fields.take()?;
        let kind = u16::from_le_bytes(fields.take()?);
        let stream = StreamKind::decode(u8::from_le_bytes(fields.take()?))?;
        fields.reserved::<1>()?;
        let features = u16::from_le_bytes(fields.take()?);
        let body_bytes = fields.body_bytes()?;
        let deadline_ms = u32::from_le_bytes(fields.take()?);
        let clock = u32::from_le_bytes(fields.take()?);
        let epoch = u64::from_le_bytes(fields.take()?);
        let trace = TraceId::from_bytes(fields.take()?);
        Ok(Self { kind, stream, features, body_bytes, deadline_ms, clock, epoch, trace })
    }

    /// How long the caller waits.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms.into())
    }
}

impl ReplyHeader {
    /// The header of a part of an answer.
    pub fn new(kind: u16, part: Part, body_bytes: u32) -> Self {
        Self { kind, part, body_bytes }
    }

    /// The bytes of this header.
    pub fn encode(&self) -> [u8; REPLY_HEADER_BYTES] {
        self.encode_as(PROTOCOL_VERSION)
    }

    /// The bytes of this header for a caller that speaks another version. The header of an error was the same in
    /// version 1 but for the version.
    pub(crate) fn encode_as(&self, version: u16) -> [u8; REPLY_HEADER_BYTES] {
        let mut bytes = [0; REPLY_HEADER_BYTES];
        encode_start(&mut bytes, version, self.kind, self.part as u8, self.body_bytes);
        bytes
    }

    /// Reads a header; bytes behind it are ignored.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        check_prefix(bytes)?;
        let mut fields = Fields::of(bytes);
        let _: [u8; PREFIX_BYTES] = fields.take()?;
        let kind = u16::from_le_bytes(fields.take()?);
        let part = Part::decode(u8::from_le_bytes(fields.take()?))?;
        fields.reserved::<3>()?;
        Ok(Self { kind, part, body_bytes: fields.body_bytes()? })
    }
}

impl StreamKind {
    fn decode(byte: u8) -> Result<Self, FrameError> {
        match byte {
            0 => Ok(Self::Reply),
            1 => Ok(Self::Chunks),
            2 => Ok(Self::OneWay),
            unknown => Err(FrameError::StreamKind(unknown)),
        }
    }
}

impl Part {
    fn decode(byte: u8) -> Result<Self, FrameError> {
        match byte {
            0 => Ok(Self::Reply),
            1 => Ok(Self::Error),
            2 => Ok(Self::Chunk),
            3 => Ok(Self::End),
            unknown => Err(FrameError::Part(unknown)),
        }
    }
}

/// Writes what stands at the same place in requests and replies.
fn encode_start(bytes: &mut [u8], version: u16, kind: u16, stream_or_part: u8, body_bytes: u32) {
    bytes[0..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&version.to_le_bytes());
    bytes[6..8].copy_from_slice(&kind.to_le_bytes());
    bytes[8] = stream_or_part;
    bytes[12..16].copy_from_slice(&body_bytes.to_le_bytes());
}

/// The fields of a header, one after the other.
struct Fields<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, total: bytes.len() }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or(FrameError::Truncated(self.total))?;
        self.rest = rest;
        Ok(*field)
    }

    fn reserved<const N: usize>(&mut self) -> Result<(), FrameError> {
        let offset = self.total - self.rest.len();
        if self.take::<N>()? == [0; N] { Ok(()) } else { Err(FrameError::Reserved { offset }) }
    }

    fn body_bytes(&mut self) -> Result<u32, FrameError> {
        let body_bytes = u32::from_le_bytes(self.take()?);
        let too_large = u64::from(body_bytes) > FRAME_BYTES_MAX as u64;
        if too_large { Err(FrameError::TooLarge(body_bytes.into())) } else { Ok(body_bytes) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: RequestHeader = RequestHeader {
        kind: 0x0102,
        stream: StreamKind::Chunks,
        features: 0x0304,
        body_bytes: 0x0006_0708,
        deadline_ms: 0x090a_0b0c,
        clock: 0x0d0e_0f10,
        epoch: 0x1112_1314_1516_1718,
        trace: TraceId::from_bytes([0xee; 16]),
    };

    #[test]
    fn a_request_header_has_the_bytes_that_the_document_draws() {
        let mut expected = b"VCNO\x02\x00\x02\x01\x01\x00\x04\x03\x08\x07\x06\x00\x0c\x0b\x0a\x09".to_vec();
        expected.extend(b"\x10\x0f\x0e\x0d\x18\x17\x16\x15\x14\x13\x12\x11");
        expected.extend([0xee; 16]);
        assert_eq!(REQUEST.encode()[..], expected[..]);
        assert_eq!(RequestHeader::decode(&expected), Ok(REQUEST));
    }

    #[test]
    fn a_reply_header_has_the_bytes_that_the_document_draws() {
        let header = ReplyHeader::new(9, Part::Error, 7);
        assert_eq!(header.encode(), *b"VCNO\x02\x00\x09\x00\x01\x00\x00\x00\x07\x00\x00\x00");
        assert_eq!(header.encode_as(1), *b"VCNO\x01\x00\x09\x00\x01\x00\x00\x00\x07\x00\x00\x00");
    }

    #[test]
    fn a_body_over_the_maximum_is_refused_from_the_header_alone() {
        let header = RequestHeader { body_bytes: FRAME_BYTES_MAX as u32 + 1, ..REQUEST };
        let error = RequestHeader::decode(&header.encode()).unwrap_err();
        assert_eq!(error, FrameError::TooLarge(FRAME_BYTES_MAX as u64 + 1));
        assert!(check_body_bytes(FRAME_BYTES_MAX).is_ok());
        assert!(check_body_bytes(FRAME_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn another_version_is_told_apart_from_garbage() {
        let mut bytes = REQUEST.encode();
        bytes[4] = 7;
        assert_eq!(RequestHeader::decode(&bytes), Err(FrameError::Version(7)));
        bytes[0] = b'G';
        assert_eq!(RequestHeader::decode(&bytes), Err(FrameError::Magic(*b"GCNO")));
        assert_eq!(check_prefix(b"VCN"), Err(FrameError::Truncated(3)));
    }

    #[test]
    fn reserved_bytes_that_are_not_zero_and_kinds_of_stream_and_parts_that_are_not_known_are_refused() {
        let mut bytes = REQUEST.encode();
        bytes[9] = 1;
        assert_eq!(RequestHeader::decode(&bytes), Err(FrameError::Reserved { offset: 9 }));
        let reply = ReplyHeader::new(9, Part::End, 0).encode();
        for offset in [9, 10, 11] {
            let mut bytes = reply;
            bytes[offset] = 1;
            assert_eq!(ReplyHeader::decode(&bytes), Err(FrameError::Reserved { offset: 9 }));
        }
        let (mut request, mut reply) = (REQUEST.encode(), reply);
        (request[8], reply[8]) = (3, 4);
        assert_eq!(RequestHeader::decode(&request), Err(FrameError::StreamKind(3)));
        assert_eq!(ReplyHeader::decode(&reply), Err(FrameError::Part(4)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), magic in any::<bool>()) {
            let bytes = if magic { [&MAGIC[..], &[2, 0], &bytes].concat() } else { bytes };
            if let Ok(header) = ReplyHeader::decode(&bytes) {
                prop_assert_eq!(&header.encode()[..], &bytes[..REPLY_HEADER_BYTES]);
            }
            if let Ok(header) = RequestHeader::decode(&bytes) {
                prop_assert!(header.body_bytes as usize <= FRAME_BYTES_MAX);
                prop_assert_eq!(&header.encode()[..], &bytes[..REQUEST_HEADER_BYTES]);
            }
        }

        #[test]
        fn headers_survive(
            kind: u16, streams in 0..3_u8, parts in 0..4_u8, features: u16, body_bytes in 0..=FRAME_BYTES_MAX as u32,
            deadline_ms: u32, clock: u32, epoch: u64, trace: [u8; 16],
        ) {
            let (stream, trace) = (StreamKind::decode(streams).unwrap(), TraceId::from_bytes(trace));
            let request = RequestHeader { kind, stream, features, body_bytes, deadline_ms, clock, epoch, trace };
            prop_assert_eq!(RequestHeader::decode(&request.encode()), Ok(request));
            let reply = ReplyHeader::new(kind, Part::decode(parts).unwrap(), body_bytes);
            prop_assert_eq!(ReplyHeader::decode(&reply.encode()), Ok(reply));
        }
    }
}
