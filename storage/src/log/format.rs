//! Segment headers and frames as bytes, drawn in `docs/disk.md`. Pure: no file is touched here.

use std::ops::Range;

use super::error::LogError;
use super::limits::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};
use crate::preamble::{PREAMBLE_BYTES, Preamble, encode, judge, u32_at, u64_at};

/// The newest format of the log that this program reads, and the one that it writes.
pub const LOG_FORMAT_VERSION: u32 = 1;
/// Largest body of a frame: one record of the largest size and its length field.
pub(super) const FRAME_BODY_BYTES_MAX: usize = RECORD_BYTES_MAX + RECORD_HEADER_BYTES;

pub(super) const SEGMENT_HEADER_BYTES: usize = PREAMBLE_BYTES + 40;
pub(super) const FRAME_HEADER_BYTES: usize = 40;
pub(super) const FRAME_MAGIC: [u8; 4] = *b"VFRM";
const SEGMENT_MAGIC: &[u8; 8] = b"VECINOLG";
const RECORD_HEADER_BYTES: usize = 4;

/// What stands at the head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub collection: [u8; 16],
    /// Numbers the segments of a log without gaps.
    pub segment_id: u64,
    pub first_lsn: u64,
    /// Crc of the last frame of the segment before, 0 in the first segment.
    pub previous_crc: u32,
}

/// What the first bytes of a segment say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ParsedHeader {
    Good(SegmentHeader),
    Newer(u32),
    Bad { offset: u64, reason: &'static str },
}

impl SegmentHeader {
    pub fn encode(&self) -> Vec<u8> {
        let Self { collection, segment_id, first_lsn, previous_crc } = self;
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        encode(SEGMENT_MAGIC, LOG_FORMAT_VERSION, &mut out);
        out.extend_from_slice(collection);
        out.extend_from_slice(&segment_id.to_le_bytes());
        out.extend_from_slice(&first_lsn.to_le_bytes());
        out.extend_from_slice(&previous_crc.to_le_bytes());
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn parse(bytes: &[u8]) -> ParsedHeader {
        match judge(bytes, SEGMENT_MAGIC, LOG_FORMAT_VERSION) {
            Preamble::Known => {}
            Preamble::Newer(version) => return ParsedHeader::Newer(version),
            Preamble::Bad(reason) => return ParsedHeader::Bad { offset: 0, reason },
        }
        if bytes.len() < SEGMENT_HEADER_BYTES {
            return ParsedHeader::Bad { offset: bytes.len() as u64, reason: "the file is shorter than its header" };
        }
        let mut collection = [0; 16];
        collection.copy_from_slice(&bytes[16..32]);
        let header = Self {
            collection,
            segment_id: u64_at(bytes, 32),
            first_lsn: u64_at(bytes, 40),
            previous_crc: u32_at(bytes, 48),
        };
        if crc32fast::hash(&bytes[..52]) != u32_at(bytes, 52) {
            return ParsedHeader::Bad { offset: 16, reason: "the checksum of the segment header does not match" };
        }
        ParsedHeader::Good(header)
    }

    /// What the first frame is chained to.
    pub fn crc(&self) -> u32 {
        u32_at(&self.encode(), 52)
    }

    /// What the checksums of this segment's frames start from, so that no frame of another segment or collection, and no
    /// run of zeros, verifies here.
    pub fn seed(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.collection);
        hasher.update(&self.segment_id.to_le_bytes());
        hasher.finalize()
    }
}

/// What stands at the head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub frame_crc: u32,
    pub previous_crc: u32,
    pub body_bytes: u32,
    pub count: u32,
    pub first_lsn: u64,
    /// Every record up to and with this one was durable before the frame was written.
    pub durable_lsn: u64,
}

impl FrameHeader {
    /// Reads a header that verifies on its own, wherever it stands in the segment.
    pub fn parse(bytes: &[u8; FRAME_HEADER_BYTES], seed: u32) -> Option<Self> {
        if bytes[..4] != FRAME_MAGIC || crc(seed, &bytes[8..]) != u32_at(bytes, 4) {
            return None;
        }
        Some(Self {
            frame_crc: u32_at(bytes, 8),
            previous_crc: u32_at(bytes, 12),
            body_bytes: u32_at(bytes, 16),
            count: u32_at(bytes, 20),
            first_lsn: u64_at(bytes, 24),
            durable_lsn: u64_at(bytes, 32),
        })
    }
}

/// The checksum of a whole frame: over the header from its previous crc on, and the body.
pub(super) fn frame_crc(seed: u32, frame: &[u8]) -> u32 {
    crc(seed, &frame[12..])
}

fn crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// Writes one frame over what `out` held. Its records must fit, as [`frames_of`] sees to.
pub(super) fn encode_frame(
    records: &[&[u8]],
    seed: u32,
    previous_crc: u32,
    first_lsn: u64,
    durable_lsn: u64,
    out: &mut Vec<u8>,
) -> FrameHeader {
    out.clear();
    out.resize(FRAME_HEADER_BYTES, 0);
    for record in records {
        out.extend_from_slice(&(record.len() as u32).to_le_bytes());
        out.extend_from_slice(record);
    }
    let body_bytes = (out.len() - FRAME_HEADER_BYTES) as u32;
    let count = records.len() as u32;
    out[..4].copy_from_slice(&FRAME_MAGIC);
    out[12..16].copy_from_slice(&previous_crc.to_le_bytes());
    out[16..20].copy_from_slice(&body_bytes.to_le_bytes());
    out[20..24].copy_from_slice(&count.to_le_bytes());
    out[24..32].copy_from_slice(&first_lsn.to_le_bytes());
    out[32..40].copy_from_slice(&durable_lsn.to_le_bytes());
    let frame_crc = frame_crc(seed, out);
    out[8..12].copy_from_slice(&frame_crc.to_le_bytes());
    let header_crc = crc(seed, &out[8..FRAME_HEADER_BYTES]);
    out[4..8].copy_from_slice(&header_crc.to_le_bytes());
    FrameHeader { frame_crc, previous_crc, body_bytes, count, first_lsn, durable_lsn }
}

/// Which records of a batch go into one frame, and how long that is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FramePlan {
    pub records: Range<usize>,
    pub bytes: u64,
}

/// Cuts a batch into frames: one, where it fits.
pub(super) fn frames_of(records: &[&[u8]]) -> Result<Vec<FramePlan>, LogError> {
    let mut frames: Vec<FramePlan> = Vec::new();
    let header = FRAME_HEADER_BYTES as u64;
    for (index, record) in records.iter().enumerate() {
        if record.len() > RECORD_BYTES_MAX {
            return Err(LogError::RecordTooLarge { index, bytes: record.len() });
        }
        let bytes = (RECORD_HEADER_BYTES + record.len()) as u64;
        match frames.last_mut() {
            Some(frame) if frame.bytes + bytes <= header + FRAME_BODY_BYTES_MAX as u64 => {
                frame.bytes += bytes;
                frame.records.end = index + 1;
            }
            _ => frames.push(FramePlan { records: index..index + 1, bytes: header + bytes }),
        }
    }
    let bytes = frames.iter().map(|frame| frame.bytes).sum();
    if bytes > BATCH_BYTES_MAX { Err(LogError::BatchTooLarge { bytes }) } else { Ok(frames) }
}

/// The records of a body, as slices of it. `None` where lengths and count do not add up.
pub(super) fn records_add_up(body: &[u8], count: u32) -> bool {
    let mut rest = body;
    for _ in 0..count {
        let Some((len, tail)) = rest.split_at_checked(RECORD_HEADER_BYTES) else { return false };
        let Some((_, tail)) = tail.split_at_checked(u32_at(len, 0) as usize) else { return false };
        rest = tail;
    }
    rest.is_empty()
}

/// The records of a body of which [`records_add_up`] holds.
pub(super) fn records(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (len, tail) = rest.split_at_checked(RECORD_HEADER_BYTES)?;
        let (record, tail) = tail.split_at_checked(u32_at(len, 0) as usize)?;
        rest = tail;
        Some(record)
    })
}
