//! The fixed headers before every body, as bytes. Drawn in `docs/wire.md`; reading and writing streams is in
//! `stream`.
//!
//! All integers are little-endian. There is no checksum: QUIC authenticates every packet.

use std::time::Duration;

use crate::error::{ErrorCode, RpcError};
use crate::rpc::TraceId;
use vecino_model::limits::FRAME_BYTES_MAX;

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"VCNO";
/// Version of the protocol spoken here. Magic and version stand first in every version's frames.
pub const PROTOCOL_VERSION: u16 = 1;
/// Magic and version.
pub const PREFIX_BYTES: usize = 6;
/// Size of a request's header.
pub const REQUEST_HEADER_BYTES: usize = 36;
/// Size of a reply's header.
pub const REPLY_HEADER_BYTES: usize = 16;
/// Flag of a reply whose body is an [`RpcError`].
const FLAG_ERROR: u16 = 1;

/// What stands before a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Number of the request, [`crate::message::Rpc::KIND`].
    pub kind: u16,
    /// Size of the body.
    pub body_bytes: u32,
    /// How long the caller waits, counted from when the header is read.
    pub deadline_ms: u32,
    /// Ties log lines together.
    pub trace: TraceId,
}

/// What stands before a reply's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// Number of the request that this answers.
    pub kind: u16,
    /// Whether the body is an [`RpcError`].
    pub error: bool,
    /// Size of the body.
    pub body_bytes: u32,
}

/// Bytes that are no header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not this protocol at all.
    #[error("a frame begins with {0:02x?} instead of {MAGIC:02x?}: the sender does not speak vecino's protocol")]
    Magic([u8; 4]),
    /// A version that is not spoken here.
    #[error("protocol version {0} is not spoken here, only {PROTOCOL_VERSION}: run the same release on both sides")]
    Version(u16),
    /// A flag that must be understood and is not.
    #[error("flags {0:#06x} are unknown in protocol version {PROTOCOL_VERSION}")]
    Flags(u16),
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

/// Checks magic and version.
pub fn check_prefix(bytes: &[u8]) -> Result<(), FrameError> {
    let mut fields = Fields(bytes, bytes.len());
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
    /// The bytes of this header.
    pub fn encode(&self) -> [u8; REQUEST_HEADER_BYTES] {
        let mut bytes = [0; REQUEST_HEADER_BYTES];
        encode_start(&mut bytes, self.kind, 0, self.body_bytes);
        bytes[16..20].copy_from_slice(&self.deadline_ms.to_le_bytes());
        bytes[20..36].copy_from_slice(self.trace.as_bytes());
        bytes
    }

    /// Reads a header; bytes behind it are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (mut fields, kind, flags, body_bytes) = decode_start(bytes)?;
        if flags != 0 {
            return Err(FrameError::Flags(flags));
        }
        let deadline_ms = u32::from_le_bytes(fields.take()?);
        let trace = TraceId::from_bytes(fields.take()?);
        Ok(Self { kind, body_bytes, deadline_ms, trace })
    }

    /// How long the caller waits.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms.into())
    }
}

impl ReplyHeader {
    /// The bytes of this header.
    pub fn encode(&self) -> [u8; REPLY_HEADER_BYTES] {
        let mut bytes = [0; REPLY_HEADER_BYTES];
        encode_start(&mut bytes, self.kind, if self.error { FLAG_ERROR } else { 0 }, self.body_bytes);
        bytes
    }

    /// Reads a header; bytes behind it are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (_, kind, flags, body_bytes) = decode_start(bytes)?;
        if flags & !FLAG_ERROR != 0 {
            return Err(FrameError::Flags(flags));
        }
        Ok(Self { kind, error: flags & FLAG_ERROR != 0, body_bytes })
    }
}

/// Writes the 16 bytes that requests and replies have in common.
fn encode_start(bytes: &mut [u8], kind: u16, flags: u16, body_bytes: u32) {
    bytes[0..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    bytes[6..8].copy_from_slice(&kind.to_le_bytes());
    bytes[8..10].copy_from_slice(&flags.to_le_bytes());
    bytes[12..16].copy_from_slice(&body_bytes.to_le_bytes());
}

/// Reads the 16 bytes that requests and replies have in common: kind, flags, body size.
fn decode_start(bytes: &[u8]) -> Result<(Fields<'_>, u16, u16, u32), FrameError> {
    check_prefix(bytes)?;
    let mut fields = Fields(&bytes[PREFIX_BYTES..], bytes.len());
    let kind = u16::from_le_bytes(fields.take()?);
    let flags = u16::from_le_bytes(fields.take()?);
    let _reserved: [u8; 2] = fields.take()?;
    let body_bytes = u32::from_le_bytes(fields.take()?);
    if u64::from(body_bytes) > FRAME_BYTES_MAX as u64 {
        return Err(FrameError::TooLarge(body_bytes.into()));
    }
    Ok((fields, kind, flags, body_bytes))
}

/// Bytes still to be read, and how many there were.
struct Fields<'a>(&'a [u8], usize);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(FrameError::Truncated(self.1))?;
        self.0 = rest;
        Ok(*field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: RequestHeader = RequestHeader {
        kind: 0x0102,
        body_bytes: 0x03040506,
        deadline_ms: 0x0708090a,
        trace: TraceId::from_bytes([0xee; 16]),
    };

    #[test]
    fn a_request_header_has_the_bytes_that_the_document_draws() {
        let header = RequestHeader { body_bytes: 0x0004_0506, ..REQUEST };
        let mut expected = b"VCNO\x01\x00\x02\x01\x00\x00\x00\x00\x06\x05\x04\x00\x0a\x09\x08\x07".to_vec();
        expected.extend([0xee; 16]);
        assert_eq!(header.encode()[..], expected[..]);
    }

    #[test]
    fn a_reply_header_has_the_bytes_that_the_document_draws() {
        let header = ReplyHeader { kind: 9, error: true, body_bytes: 7 };
        assert_eq!(header.encode(), *b"VCNO\x01\x00\x09\x00\x01\x00\x00\x00\x07\x00\x00\x00");
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

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), magic in any::<bool>()) {
            let bytes = if magic { [&MAGIC[..], &[1, 0], &bytes].concat() } else { bytes };
            let _ = ReplyHeader::decode(&bytes);
            if let Ok(header) = RequestHeader::decode(&bytes) {
                prop_assert!(header.body_bytes as usize <= FRAME_BYTES_MAX);
                let mut again = header.encode();
                again[10..12].copy_from_slice(&bytes[10..12]);
                prop_assert_eq!(&again[..], &bytes[..REQUEST_HEADER_BYTES]);
            }
        }

        #[test]
        fn headers_survive(kind: u16, error: bool, body_bytes in 0..=FRAME_BYTES_MAX as u32, deadline_ms: u32, trace: [u8; 16]) {
            let request = RequestHeader { kind, body_bytes, deadline_ms, trace: TraceId::from_bytes(trace) };
            prop_assert_eq!(RequestHeader::decode(&request.encode()), Ok(request));
            let reply = ReplyHeader { kind, error, body_bytes };
            prop_assert_eq!(ReplyHeader::decode(&reply.encode()), Ok(reply));
        }
    }
}
