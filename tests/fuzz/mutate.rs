//! Changing bytes as fuzzers do, and making their checksums right again, so that what is behind them is reached.

use fastrand::Rng;

/// Changes bytes in one to four places.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(1..5) {
        let length = bytes.len();
        let at = random.usize(..length.max(1)).min(length);
        let end = (at + random.usize(1..64)).min(length);
        match random.u8(0..9) {
            0 if length > 0 => bytes[at] ^= 1 << random.u8(0..8),
            1 if length > 0 => bytes[at] = *random.choice(&[0, 1, 0x7f, 0x80, 0xc0, 0xff]).unwrap_or(&0),
            2 => write(bytes, at, &interesting(length, random).to_le_bytes()[..4]),
            3 => write(bytes, at, &interesting(length, random).to_le_bytes()),
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..end)),
            6 => {
                let copied = bytes[at..end].to_vec();
                let to = random.usize(..=bytes.len());
                drop(bytes.splice(to..to, copied));
            }
            7 => bytes.extend((0..random.usize(1..40)).map(|_| random.u8(..))),
            _ => bytes[at..end].iter_mut().for_each(|byte| *byte = random.u8(..)),
        }
    }
}

/// A number that code is wont to be wrong about.
fn interesting(length: usize, random: &mut Rng) -> u64 {
    let length = length as u64;
    let choices =
        [0, 1, length, length + 1, length.wrapping_sub(1), 0x7fff_ffff, 0xffff_ffff, u64::MAX, random.u64(..)];
    choices[random.usize(..choices.len())]
}

fn write(bytes: &mut [u8], at: usize, value: &[u8]) {
    let end = (at + value.len()).min(bytes.len());
    bytes[at..end].copy_from_slice(&value[..end - at]);
}

fn crc(initial: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(initial);
    hasher.update(bytes);
    hasher.finalize()
}

fn put_crc(bytes: &mut [u8], at: usize, value: u32) {
    write(bytes, at, &value.to_le_bytes());
}

/// Makes the preamble right.
pub fn mend_preamble(bytes: &mut [u8]) {
    if bytes.len() >= 16 {
        let value = crc(0, &bytes[..12]);
        put_crc(bytes, 12, value);
    }
}

/// Makes the checksums of a log segment right, and the chain of its frames.
pub fn mend_segment(bytes: &mut [u8]) {
    const HEADER: usize = 56;
    const FRAME: usize = 40;
    mend_preamble(bytes);
    if bytes.len() < HEADER {
        return;
    }
    let mut chain = crc(0, &bytes[..52]);
    put_crc(bytes, 52, chain);
    let seed = crc(0, &bytes[16..40]);
    let mut at = HEADER;
    while let Some(length) = bytes.get(at + 16..at + 20) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let Some(end) = (at + FRAME).checked_add(length).filter(|end| *end <= bytes.len()) else { return };
        put_crc(bytes, at + 12, chain);
        chain = crc(seed, &bytes[at + 12..end]);
        put_crc(bytes, at + 8, chain);
        let header = crc(seed, &bytes[at + 8..at + FRAME]);
        put_crc(bytes, at + 4, header);
        at = end;
    }
}

/// Makes a preamble, and a hash that stands behind everything, right.
pub fn mend_hashed(bytes: &mut [u8]) {
    mend_preamble(bytes);
    if let Some(body) = bytes.len().checked_sub(32) {
        let hash = blake3::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(hash.as_bytes());
    }
}

/// Makes a small file right: preamble, length, hash before the contents.
pub fn mend_small_file(bytes: &mut [u8]) {
    const HEADER: usize = 56;
    mend_preamble(bytes);
    if let Some(length) = bytes.len().checked_sub(HEADER) {
        write(bytes, 16, &(length as u64).to_le_bytes());
        let hash = blake3::hash(&bytes[HEADER..]);
        bytes[24..HEADER].copy_from_slice(hash.as_bytes());
    }
}
