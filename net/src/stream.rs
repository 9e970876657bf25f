//! Frames on QUIC streams: bodies are read piece by piece, so that a length that lies costs no memory.

use std::time::Duration;

use bytes::Bytes;
use quinn::{ReadError, ReadExactError, RecvStream, SendStream, VarInt};

use crate::admission::{BodyBytes, NoRoom};
use crate::frame::{self, FrameError, PREFIX_BYTES};

/// Most bytes taken from a stream at a time, and most memory reserved before anything has arrived.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Code with which a stream is reset or stopped that is no longer wanted.
pub(crate) const CANCELLED: VarInt = VarInt::from_u32(1);

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFrameError {
    /// The header is none, or the body too large.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The sender gave up, or the connection was lost.
    #[error(transparent)]
    Stream(#[from] ReadError),
    /// The stream ended before the body did.
    #[error("a body of {expected} bytes ended after {received}")]
    Short { expected: usize, received: usize },
    /// The stream did not end where the body did.
    #[error("a body of {expected} bytes is followed by more")]
    Long { expected: usize },
    /// The header did not come in time.
    #[error("no header within {0:?}")]
    Late(Duration),
    /// Too many bytes of bodies are in memory.
    #[error(transparent)]
    Budget(#[from] NoRoom),
}

/// Reads a header of `N` bytes. Magic and version are checked first, as another version's header may be shorter.
pub(crate) async fn read_header<const N: usize>(recv: &mut RecvStream) -> Result<[u8; N], ReadFrameError> {
    let mut header = [0; N];
    read_exact(recv, &mut header[..PREFIX_BYTES]).await?;
    frame::check_prefix(&header[..PREFIX_BYTES])?;
    read_exact(recv, &mut header[PREFIX_BYTES..]).await?;
    Ok(header)
}

async fn read_exact(recv: &mut RecvStream, bytes: &mut [u8]) -> Result<(), ReadFrameError> {
    recv.read_exact(bytes).await.map_err(|error| match error {
        ReadExactError::FinishedEarly(received) => FrameError::Truncated(received).into(),
        ReadExactError::ReadError(error) => error.into(),
    })
}

/// Reads the body, which must end the stream, under these bounds.
pub(crate) async fn read_body(
    recv: &mut RecvStream,
    expected: usize,
    bounds: Option<&mut BodyBytes>,
) -> Result<Bytes, ReadFrameError> {
    let body = read_part(recv, expected, bounds).await?;
    read_end(recv, expected).await?;
    Ok(body)
}

/// Checks that the stream ends where its last body of `expected` bytes does.
pub(crate) async fn read_end(recv: &mut RecvStream, expected: usize) -> Result<(), ReadFrameError> {
    match recv.read_chunk(1, true).await? {
        None => Ok(()),
        Some(_) => Err(ReadFrameError::Long { expected }),
    }
}

/// Reads a body that others may follow.
pub(crate) async fn read_part(
    recv: &mut RecvStream,
    expected: usize,
    mut bounds: Option<&mut BodyBytes>,
) -> Result<Bytes, ReadFrameError> {
    if expected == 0 {
        return Ok(Bytes::new());
    }
    let mut body = Vec::new();
    while let Some(piece) = recv.read_chunk(PIECE_BYTES_MAX.min(expected - body.len()), true).await? {
        if let Some(bounds) = &mut bounds {
            bounds.cover(body.len() + piece.bytes.len())?;
        }
        if piece.bytes.len() == expected {
            // Nearly every body is one piece: it is passed on without a copy.
            return Ok(piece.bytes);
        }
        if body.is_empty() {
            body.reserve(expected.min(PIECE_BYTES_MAX));
        }
        body.extend_from_slice(&piece.bytes);
        if body.len() == expected {
            return Ok(body.into());
        }
    }
    Err(ReadFrameError::Short { expected, received: body.len() })
}

/// A sending stream that is reset when it is dropped before it was finished, so that the receiver never takes half a
/// message for a whole one.
pub(crate) struct ResetOnDrop {
    stream: SendStream,
    finished: bool,
    /// Whether a frame was begun and not ended. Nothing can follow it.
    in_frame: bool,
}

impl ResetOnDrop {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self { stream, finished: false, in_frame: false }
    }

    /// Sends header and body and ends the stream.
    pub(crate) async fn send(&mut self, header: &[u8], body: Bytes) -> Result<(), quinn::WriteError> {
        self.send_part(header, body).await?;
        self.stream.finish()?;
        self.finished = true;
        Ok(())
    }

    /// Sends header and body; others may follow.
    pub(crate) async fn send_part(&mut self, header: &[u8], body: Bytes) -> Result<(), quinn::WriteError> {
        self.in_frame = true;
        self.stream.write_all_chunks(&mut [Bytes::copy_from_slice(header), body]).await?;
        self.in_frame = false;
        Ok(())
    }

    /// Whether a frame was cut off, so that the stream can only be reset.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.in_frame
    }

    /// Completes when the other side wants nothing more: it has everything, it gave up, or it is gone.
    pub(crate) fn settled(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.stream.stopped();
        async move {
            let _ = stopped.await;
        }
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.stream.reset(CANCELLED);
        }
    }
}
