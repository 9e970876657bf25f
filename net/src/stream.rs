//! Frames on QUIC streams: bodies are read piece by piece, so that a length that lies costs no memory.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{ReadError, ReadExactError, RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::frame::{self, FrameError, PREFIX_BYTES};

/// Most bytes taken from a stream at a time, and most memory reserved before anything has arrived.
const PIECE_BYTES_MAX: usize = 64 * 1024;
/// Unit in which a [`Budget`] is counted.
const BUDGET_UNIT_BYTES: usize = 4 * 1024;

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
    /// Too many bytes of bodies are in memory.
    #[error("the bodies of other requests take all {0} bytes that are set aside for them")]
    Budget(usize),
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

/// Reads the body, which must end the stream. The permit returns its bytes to the budget when dropped.
pub(crate) async fn read_body(
    recv: &mut RecvStream,
    expected: usize,
    budget: Option<&Budget>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ReadFrameError> {
    let mut permit: Option<OwnedSemaphorePermit> = None;
    let mut body = Vec::with_capacity(expected.min(PIECE_BYTES_MAX));
    while let Some(piece) = recv.read_chunk(PIECE_BYTES_MAX, true).await? {
        if body.len() + piece.bytes.len() > expected {
            return Err(ReadFrameError::Long { expected });
        }
        if let Some(budget) = budget {
            budget.extend(&mut permit, body.len() + piece.bytes.len())?;
        }
        if body.is_empty() && piece.bytes.len() == expected {
            // Nearly every request is one piece: it is passed on without a copy.
            return match recv.read_chunk(1, true).await? {
                None => Ok((piece.bytes, permit)),
                Some(_) => Err(ReadFrameError::Long { expected }),
            };
        }
        body.extend_from_slice(&piece.bytes);
    }
    if body.len() < expected {
        return Err(ReadFrameError::Short { expected, received: body.len() });
    }
    Ok((body.into(), permit))
}

/// A bound on the bytes of request bodies in memory, over all connections.
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    bytes_max: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let units = (bytes_max / BUDGET_UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), bytes_max }
    }

    /// Grows `permit` to cover `bytes`, or says that there is no room; it never waits, so that no two bodies can wait
    /// for each other.
    fn extend(&self, permit: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), ReadFrameError> {
        let held = permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(BUDGET_UNIT_BYTES).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).map_err(|_| ReadFrameError::Budget(self.bytes_max))?;
        let more = Arc::clone(&self.units)
            .try_acquire_many_owned(missing)
            .map_err(|_| ReadFrameError::Budget(self.bytes_max))?;
        match permit {
            Some(permit) => permit.merge(more),
            None => *permit = Some(more),
        }
        Ok(())
    }
}

/// A sending stream that is reset when it is dropped before it was finished, so that the receiver never takes half a
/// message for a whole one.
pub(crate) struct ResetOnDrop {
    stream: SendStream,
    finished: bool,
}

impl ResetOnDrop {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self { stream, finished: false }
    }

    /// Sends header and body and ends the stream.
    pub(crate) async fn send(&mut self, header: &[u8], body: Bytes) -> Result<(), quinn::WriteError> {
        self.stream.write_all_chunks(&mut [Bytes::copy_from_slice(header), body]).await?;
        self.stream.finish()?;
        self.finished = true;
        Ok(())
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
