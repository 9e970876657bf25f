//! A page: some points of one collection, one behind the other, under the blake3 hash of its bytes. Drawn in
//! `docs/backup.md`. Equal points always give equal bytes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use vecino_client::{PointId, RawPayload, RawPoint, Vector};

/// The name of a page: the blake3 hash of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PageName(#[serde(with = "serde_bytes")] [u8; 32]);

impl PageName {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        blake3::Hash::from_hex(text).ok().filter(|_| lower).map(|hash| Self(*hash.as_bytes()))
    }
}

/// 64 hex digits.
impl fmt::Display for PageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageName({self})")
    }
}

/// One point in a page.
#[derive(Serialize, Deserialize)]
struct Entry {
    id: PointId,
    vectors: BTreeMap<String, Vector>,
    payload: RawPayload,
}

/// Why bytes are no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// It ends inside an entry.
    #[error("ends inside entry {0}")]
    CutOff(u32),
    /// An entry is not what this format writes.
    #[error("has an entry {number} that cannot be read: {reason}")]
    Entry {
        /// Which, from 0.
        number: u32,
        /// Why.
        reason: String,
    },
}

/// Appends a point to a page; how many bytes it took.
pub fn append(page: &mut Vec<u8>, point: RawPoint) -> usize {
    let RawPoint { id, vectors, payload } = point;
    let entry = rmp_serde::to_vec_named(&Entry { id, vectors, payload }).expect("an entry of bytes always encodes");
    page.extend_from_slice(&(entry.len() as u32).to_le_bytes());
    page.extend_from_slice(&entry);
    LENGTH_BYTES + entry.len()
}

/// The points of a page.
pub fn decode(mut bytes: &[u8]) -> Result<Vec<RawPoint>, PageError> {
    let mut points = Vec::new();
    while !bytes.is_empty() {
        let number = points.len() as u32;
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(PageError::CutOff(number))?;
        let (entry, rest) =
            rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(PageError::CutOff(number))?;
        let wrong = |error: rmp_serde::decode::Error| PageError::Entry { number, reason: error.to_string() };
        let Entry { id, vectors, payload } = rmp_serde::from_slice(entry).map_err(wrong)?;
        payload.check().map_err(|fault| PageError::Entry { number, reason: fault.to_string() })?;
        points.push(RawPoint { id, vectors, payload });
        bytes = rest;
    }
    Ok(points)
}

/// Bytes of an entry's length.
const LENGTH_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vecino_client::{Payload, point};

    use super::*;

    #[test]
    fn a_page_has_the_bytes_that_the_document_draws() {
        let mut page = Vec::new();
        let bytes = append(&mut page, point(7, vec![1.0], Payload::new()).into());
        let entry = [
            &[0x83, 0xa2][..],
            b"id",
            &[0x07, 0xa7],
            b"vectors",
            &[0x81, 0xa0, 0xc4, 4, 0, 0, 0x80, 0x3f, 0xa7],
            b"payload",
            &[0xc4, 1, 0x80],
        ]
        .concat();
        assert_eq!(page, [&(entry.len() as u32).to_le_bytes()[..], &entry].concat());
        assert_eq!(bytes, page.len());
    }

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let name = PageName::of(b"vecino");
        assert_eq!(PageName::parse(&name.to_string()), Some(name));
        assert_eq!(PageName::parse(&name.to_string().to_uppercase()), None, "one page has one name");
        assert_eq!(PageName::parse("abc"), None);
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_a_page_cut_anywhere_is_one(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let mut page = Vec::new();
            append(&mut page, point("a", vec![0.5, -0.0], Payload::new()).into());
            for length in 1..page.len() {
                prop_assert_eq!(decode(&page[..length]), Err(PageError::CutOff(0)));
            }
        }
    }
}
