//! Walking over the frames of one segment. Reads only.

use std::fmt;
use std::io;

use super::format::{
    FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader, frame_crc,
    records, records_add_up,
};
use crate::disk::DiskFile;

/// Reads frames from the first on, each checked against the one before.
pub(super) struct SegmentReader<'a> {
    window: Window<'a>,
    seed: u32,
    offset: u64,
    chain: u32,
    next_lsn: u64,
}

/// What stands at the reader's place.
pub(super) enum Step<'a> {
    Frame(Frame<'a>),
    /// Nothing more: the end of the file, or zeros up to it.
    End,
    /// Something that is not the next frame.
    Bad {
        offset: u64,
        bad: BadFrame,
    },
}

/// One frame, verified.
pub(super) struct Frame<'a> {
    pub header: FrameHeader,
    /// Where it begins.
    pub offset: u64,
    body: &'a [u8],
}

impl Frame<'_> {
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        records(self.body)
    }
}

/// Why bytes are not the next frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadFrame {
    /// No header that verifies.
    Header,
    /// A header, but the file ends before its body does.
    Short,
    /// A header, but the checksum over header and body does not match.
    Body,
    /// A frame that verifies but follows another than the one before it.
    Chain,
    /// A frame that verifies but whose lsn is not the next.
    Lsn { found: u64, expected: u64 },
    /// A frame that verifies but says that it is longer than a frame can be, or whose records do not add up.
    Contents,
    /// A frame that verifies but says that records are durable which come after it.
    Promise,
}

impl BadFrame {
    /// Whether a write that a crash interrupted can leave this behind. A frame that verifies was written as a whole; if
    /// it does not belong where it stands, no crash put it there.
    pub fn can_be_torn(self) -> bool {
        match self {
            Self::Header | Self::Short | Self::Body => true,
            Self::Chain | Self::Lsn { .. } | Self::Contents | Self::Promise => false,
        }
    }
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("the bytes are no frame header"),
            Self::Short => f.write_str("the file ends inside a frame"),
            Self::Body => f.write_str("the checksum of a frame does not match"),
            Self::Chain => f.write_str("a frame follows another frame than the one before it"),
            Self::Lsn { found, expected } => write!(f, "a frame begins with lsn {found} where {expected} is due"),
            Self::Contents => f.write_str("the records of a frame do not add up to its length"),
            Self::Promise => f.write_str("a frame declares records durable that come after it"),
        }
    }
}

impl<'a> SegmentReader<'a> {
    /// A reader of the first `len` bytes of a segment whose header was read.
    pub fn new(file: &'a dyn DiskFile, header: &SegmentHeader, len: u64) -> Self {
        Self {
            window: Window { file, len, start: 0, bytes: Vec::new() },
            seed: header.seed(),
            offset: SEGMENT_HEADER_BYTES as u64,
            chain: header.crc(),
            next_lsn: header.first_lsn,
        }
    }

    /// Where the reader stands: behind the last good frame.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The lsn that the next record has to have.
    pub fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    /// Crc of the last good frame.
    pub fn chain(&self) -> u32 {
        self.chain
    }

    /// Looks at what stands at the reader's place, and moves behind it if it is a frame.
    pub fn step(&mut self) -> io::Result<Step<'_>> {
        let offset = self.offset;
        let head = self.window.get(offset, FRAME_HEADER_BYTES)?;
        if head.iter().all(|byte| *byte == 0) && self.is_zero_from(offset)? {
            return Ok(Step::End);
        }
        let header = match self.header_at(offset)? {
            Some(header) => header,
            None => return Ok(Step::Bad { offset, bad: BadFrame::Header }),
        };
        if header.body_bytes as usize > FRAME_BODY_BYTES_MAX {
            return Ok(Step::Bad { offset, bad: BadFrame::Contents });
        }
        let frame_bytes = FRAME_HEADER_BYTES + header.body_bytes as usize;
        let (chain, next_lsn, seed) = (self.chain, self.next_lsn, self.seed);
        let frame = self.window.get(offset, frame_bytes)?;
        let bad = if frame.len() < frame_bytes {
            Some(BadFrame::Short)
        } else if frame_crc(seed, frame) != header.frame_crc {
            Some(BadFrame::Body)
        } else if header.previous_crc != chain {
            Some(BadFrame::Chain)
        } else if header.first_lsn != next_lsn {
            Some(BadFrame::Lsn { found: header.first_lsn, expected: next_lsn })
        } else if !records_add_up(&frame[FRAME_HEADER_BYTES..], header.count) {
            Some(BadFrame::Contents)
        } else if header.durable_lsn >= header.first_lsn {
            Some(BadFrame::Promise)
        } else {
            None
        };
        if let Some(bad) = bad {
            return Ok(Step::Bad { offset, bad });
        }
        self.offset += frame_bytes as u64;
        self.chain = header.frame_crc;
        self.next_lsn += u64::from(header.count);
        Ok(Step::Frame(Frame { header, offset, body: &frame[FRAME_HEADER_BYTES..] }))
    }

    /// Where, behind the reader's place, a header stands that declares the record due here durable; `None` if nowhere.
    ///
    /// A header verifies on its own, so that damage to one frame hides none behind it.
    pub fn declared_durable_at(&mut self) -> io::Result<Option<u64>> {
        let (seed, lsn) = (self.seed, self.next_lsn);
        let mut from = self.offset + 1;
        loop {
            let bytes = self.window.get(from, SCAN_BYTES)?;
            if bytes.len() < FRAME_HEADER_BYTES {
                return Ok(None);
            }
            let declares = |bytes: &[u8; FRAME_HEADER_BYTES]| {
                bytes[..4] == FRAME_MAGIC
                    && FrameHeader::parse(bytes, seed)
                        .is_some_and(|h| h.durable_lsn >= lsn && h.durable_lsn < h.first_lsn)
            };
            let mut places = bytes.windows(FRAME_HEADER_BYTES).filter_map(|window| window.first_chunk());
            if let Some(at) = places.position(declares) {
                return Ok(Some(from + at as u64));
            }
            from += (bytes.len() + 1 - FRAME_HEADER_BYTES) as u64;
        }
    }

    /// Moves in front of the next frame behind the reader's place that is whole and goes back to no earlier record, as if
    /// all between were not there. Whether there is one; where there is none the reader stays.
    pub fn resync(&mut self) -> io::Result<bool> {
        let seed = self.seed;
        let mut from = self.offset + 1;
        loop {
            let bytes = self.window.get(from, SCAN_BYTES)?;
            if bytes.len() < FRAME_HEADER_BYTES {
                return Ok(false);
            }
            let mut places = bytes.windows(FRAME_HEADER_BYTES).filter_map(|window| window.first_chunk());
            let header = places.by_ref().enumerate().find_map(|(at, bytes)| {
                let is_magic = bytes[..4] == FRAME_MAGIC;
                Some((at as u64, is_magic.then(|| FrameHeader::parse(bytes, seed)).flatten()?))
            });
            let Some((at, header)) = header else {
                from += (bytes.len() + 1 - FRAME_HEADER_BYTES) as u64;
                continue;
            };
            let offset = from + at;
            if header.first_lsn >= self.next_lsn && self.is_whole(offset, &header)? {
                (self.offset, self.chain, self.next_lsn) = (offset, header.previous_crc, header.first_lsn);
                return Ok(true);
            }
            from = offset + 1;
        }
    }

    fn is_whole(&mut self, offset: u64, header: &FrameHeader) -> io::Result<bool> {
        if header.body_bytes as usize > FRAME_BODY_BYTES_MAX {
            return Ok(false);
        }
        let (seed, frame_bytes) = (self.seed, FRAME_HEADER_BYTES + header.body_bytes as usize);
        let frame = self.window.get(offset, frame_bytes)?;
        Ok(frame.len() == frame_bytes && frame_crc(seed, frame) == header.frame_crc)
    }

    /// Copies the reader's bytes from `from` up to its place into the same file again, so that a flush writes them.
    pub fn rewrite(&mut self, from: u64, into: &dyn DiskFile) -> io::Result<()> {
        let mut at = from;
        while at < self.offset {
            let bytes = self.window.get(at, SCAN_BYTES.min((self.offset - at) as usize))?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            into.write_at(bytes, at)?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    fn header_at(&mut self, offset: u64) -> io::Result<Option<FrameHeader>> {
        let seed = self.seed;
        let bytes = self.window.get(offset, FRAME_HEADER_BYTES)?;
        Ok(bytes.first_chunk::<FRAME_HEADER_BYTES>().and_then(|bytes| FrameHeader::parse(bytes, seed)))
    }

    fn is_zero_from(&mut self, offset: u64) -> io::Result<bool> {
        let mut at = offset;
        loop {
            let bytes = self.window.get(at, SCAN_BYTES)?;
            if bytes.is_empty() {
                return Ok(true);
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += bytes.len() as u64;
        }
    }
}

/// A stretch of the file in memory: at most the larger of [`SCAN_BYTES`] and one frame.
struct Window<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The `wanted` bytes at `offset`, fewer where the file ends.
    fn get(&mut self, offset: u64, wanted: usize) -> io::Result<&[u8]> {
        let wanted = (wanted as u64).min(self.len.saturating_sub(offset)) as usize;
        let inside = offset >= self.start && offset + wanted as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            let ahead = (wanted.max(SCAN_BYTES) as u64).min(self.len.saturating_sub(offset)) as usize;
            self.bytes.resize(ahead, 0);
            let read = self.file.read_at(&mut self.bytes, offset)?;
            self.bytes.truncate(read);
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        let to = (from + wanted).min(self.bytes.len());
        Ok(&self.bytes[from.min(to)..to])
    }
}

/// How much is read ahead and looked through at a time.
const SCAN_BYTES: usize = 256 * 1024;
