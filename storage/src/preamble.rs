//! The first 16 bytes of every file, the same in all format versions: what it is and how new. Drawn in `docs/disk.md`.

/// Bytes of the preamble: 8 of magic, the format version as u32, crc32 of those 12.
pub const PREAMBLE_BYTES: usize = 16;

/// Writes the preamble.
pub fn encode(magic: &[u8; 8], version: u32, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(magic);
    out.extend_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// What the first bytes of a file say.
#[derive(Debug, PartialEq, Eq)]
pub enum Preamble {
    /// A file of this kind, in a version that is known.
    Known,
    /// A file of this kind, written by a newer program, in this version.
    Newer(u32),
    /// No such file, or a damaged one; why.
    Bad(&'static str),
}

/// Judges the first bytes of a file. A version counts only under its checksum: a flipped bit is damage, not the future.
pub fn judge(bytes: &[u8], magic: &[u8; 8], known: u32) -> Preamble {
    let Some(bytes) = bytes.first_chunk::<PREAMBLE_BYTES>() else {
        return Preamble::Bad("the file is shorter than its preamble");
    };
    if u32_at(bytes, 12) != crc32fast::hash(&bytes[..12]) {
        return Preamble::Bad("the checksum of the preamble does not match");
    }
    if bytes[..8] != *magic {
        return Preamble::Bad("the magic number is that of another kind of file");
    }
    match u32_at(bytes, 8) {
        0 => Preamble::Bad("format version 0 does not exist"),
        version if version > known => Preamble::Newer(version),
        _ => Preamble::Known,
    }
}

/// The little-endian u32 at `offset`, which the caller has checked to be inside.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(value)
}

/// The little-endian u64 at `offset`, which the caller has checked to be inside.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(value)
}
