//! Checks the bytes of a payload in one pass, with memory for its keys and nothing else.

use std::fmt;

use crate::limits::{PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX};

/// Why bytes are no payload, and where; lower case, no full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadFault {
    /// Keys and positions that lead to the fault, the outermost last.
    path: Vec<Step>,
    fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Position(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    TooLarge(usize),
    NoMap,
    TooDeep,
    NotFinite(&'static str),
    NotText,
    KeyNotText,
    KeyTwice(String),
    Bytes,
    Extension,
    Reserved,
    CutOff,
    Behind(usize),
}

/// Longest part of a key that is shown, in characters.
const SHOWN_CHARS: usize = 40;

/// Checks the bytes of a payload; see [`super::RawPayload::check`].
pub(super) fn check(bytes: &[u8]) -> Result<(), PayloadFault> {
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(Fault::TooLarge(bytes.len()).into());
    }
    let mut walk = Walk { rest: bytes, keys: Vec::new() };
    let entries = match walk.byte()? {
        marker @ 0x80..=0x8f => u32::from(marker & 0x0f),
        0xde => walk.length(2)?,
        0xdf => walk.length(4)?,
        _ => return Err(Fault::NoMap.into()),
    };
    walk.map(entries, 1)?;
    if walk.rest.is_empty() { Ok(()) } else { Err(Fault::Behind(walk.rest.len()).into()) }
}

struct Walk<'a> {
    /// What was not looked at yet.
    rest: &'a [u8],
    /// The keys so far of the maps that the walk is in, the innermost map's last.
    keys: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    /// Checks a value at this depth, where the values of the payload's own keys are at depth 1.
    fn value(&mut self, depth: usize) -> Result<(), PayloadFault> {
        if depth > PAYLOAD_DEPTH_MAX {
            return Err(Fault::TooDeep.into());
        }
        match self.byte()? {
            // Small integers, null, false, true.
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Ok(()),
            0xcc | 0xd0 => self.take(1).map(drop),
            0xcd | 0xd1 => self.take(2).map(drop),
            0xce | 0xd2 => self.take(4).map(drop),
            0xcf | 0xd3 => self.take(8).map(drop),
            0xca => {
                let bytes = self.array::<4>()?;
                finite(f64::from(f32::from_be_bytes(bytes)))
            }
            0xcb => {
                let bytes = self.array::<8>()?;
                finite(f64::from_be_bytes(bytes))
            }
            marker @ (0xa0..=0xbf | 0xd9..=0xdb) => self.text(marker, Fault::NotText).map(drop),
            marker @ 0x90..=0x9f => self.list(u32::from(marker & 0x0f), depth + 1),
            0xdc => {
                let length = self.length(2)?;
                self.list(length, depth + 1)
            }
            0xdd => {
                let length = self.length(4)?;
                self.list(length, depth + 1)
            }
            marker @ 0x80..=0x8f => self.map(u32::from(marker & 0x0f), depth + 1),
            0xde => {
                let length = self.length(2)?;
                self.map(length, depth + 1)
            }
            0xdf => {
                let length = self.length(4)?;
                self.map(length, depth + 1)
            }
            0xc4..=0xc6 => Err(Fault::Bytes.into()),
            0xc7..=0xc9 | 0xd4..=0xd8 => Err(Fault::Extension.into()),
            0xc1 => Err(Fault::Reserved.into()),
        }
    }

    fn list(&mut self, length: u32, depth: usize) -> Result<(), PayloadFault> {
        (0..length).try_for_each(|position| self.value(depth).map_err(|fault| fault.inside(Step::Position(position))))
    }

    /// Checks the entries of a map whose values are at this depth.
    fn map(&mut self, entries: u32, depth: usize) -> Result<(), PayloadFault> {
        let first = self.keys.len();
        let mut ascending = true;
        for _ in 0..entries {
            let marker = self.byte()?;
            let key = self.text(marker, Fault::KeyNotText)?;
            ascending &= self.keys[first..].last().is_none_or(|before| *before < key);
            self.keys.push(key);
            self.value(depth).map_err(|fault| fault.inside(Step::Key(shown(key))))?;
        }
        if !ascending {
            let keys = &mut self.keys[first..];
            keys.sort_unstable();
            if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(Fault::KeyTwice(shown(twice[0])).into());
            }
        }
        self.keys.truncate(first);
        Ok(())
    }

    /// The text behind this marker; `otherwise` where it is none.
    fn text(&mut self, marker: u8, otherwise: Fault) -> Result<&'a str, PayloadFault> {
        let length = match marker {
            0xa0..=0xbf => u32::from(marker & 0x1f),
            0xd9 => self.length(1)?,
            0xda => self.length(2)?,
            0xdb => self.length(4)?,
            _ => return Err(otherwise.into()),
        };
        let bytes = self.take(length as usize)?;
        std::str::from_utf8(bytes).map_err(|_| otherwise.into())
    }

    /// A length of this many bytes, big-endian.
    fn length(&mut self, bytes: usize) -> Result<u32, PayloadFault> {
        Ok(self.take(bytes)?.iter().fold(0, |length, byte| length << 8 | u32::from(*byte)))
    }

    fn byte(&mut self) -> Result<u8, PayloadFault> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PayloadFault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Fault::CutOff)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], PayloadFault> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Fault::CutOff)?;
        self.rest = rest;
        Ok(taken)
    }
}

fn finite(number: f64) -> Result<(), PayloadFault> {
    match number {
        number if number.is_finite() => Ok(()),
        number if number.is_nan() => Err(Fault::NotFinite("NaN").into()),
        number if number > 0.0 => Err(Fault::NotFinite("inf").into()),
        _ => Err(Fault::NotFinite("-inf").into()),
    }
}

/// The first part of a key that may be very long.
fn shown(key: &str) -> String {
    match key.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &key[..end]),
        None => key.to_owned(),
    }
}

impl PayloadFault {
    /// The same fault, seen from around it.
    fn inside(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    /// The path to the fault, such as `tags[3].name`; empty for the payload itself.
    fn path(&self) -> String {
        let mut path = String::new();
        for step in self.path.iter().rev() {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => path = path + "." + key,
                Step::Position(position) => path += &format!("[{position}]"),
            }
        }
        path
    }
}

impl From<Fault> for PayloadFault {
    fn from(fault: Fault) -> Self {
        Self { path: Vec::new(), fault }
    }
}

impl std::error::Error for PayloadFault {}

impl fmt::Display for PayloadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("payload")?;
        if !self.path.is_empty() {
            write!(f, " key {:?}", self.path())?;
        }
        match &self.fault {
            Fault::TooLarge(bytes) => write!(
                f,
                " has {bytes} bytes as MessagePack: at most {PAYLOAD_BYTES_MAX} are allowed; keep what is large elsewhere, and \
                 here where it is"
            ),
            Fault::NoMap => f.write_str(" is not a map: send a map with text keys"),
            Fault::TooDeep => {
                write!(f, " is nested deeper than {PAYLOAD_DEPTH_MAX} levels: use fewer lists and maps inside each other")
            }
            Fault::NotFinite(number) => write!(f, " is {number}: only finite numbers are allowed"),
            Fault::NotText => f.write_str(" is text that is not UTF-8: send text as UTF-8"),
            Fault::KeyNotText => f.write_str(" has a key that is not UTF-8 text: use text for keys"),
            Fault::KeyTwice(key) => write!(f, " has the key {key:?} twice: give each key once"),
            Fault::Bytes => f.write_str(" is binary: use text, for example base64"),
            Fault::Extension => f.write_str(
                " is a MessagePack extension: use null, booleans, numbers, text, lists and maps (a time is text or a number)",
            ),
            Fault::Reserved => f.write_str(" is no MessagePack: it has the reserved byte 0xc1"),
            Fault::CutOff => f.write_str(" ends before its MessagePack does: send it whole"),
            Fault::Behind(bytes) => write!(f, " has {bytes} bytes behind its map: send one map and nothing else"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Payload, Value};

    fn fault(bytes: &[u8]) -> String {
        check(bytes).unwrap_err().to_string()
    }

    /// `{"k": …}` with these bytes as the value.
    fn under_k(value: &[u8]) -> Vec<u8> {
        [&[0x81, 0xa1, b'k'], value].concat()
    }

    #[test]
    fn a_fault_is_told_with_its_path_and_what_to_do() {
        let nan = [&[0xcb][..], &f64::NAN.to_be_bytes()].concat();
        let inside = [&[0x92, 0xc0, 0x81, 0xa1, b'x'][..], &nan].concat();
        assert_eq!(fault(&under_k(&inside)), "payload key \"k[1].x\" is NaN: only finite numbers are allowed");
        let infinite = [&[0xca][..], &f32::NEG_INFINITY.to_be_bytes()].concat();
        assert!(fault(&under_k(&infinite)).contains("\"k\" is -inf"));
        assert!(fault(&under_k(&[0xc4, 1, 0])).contains("\"k\" is binary"));
        assert!(fault(&under_k(&[0xd6, 0xff, 0, 0, 0, 0])).contains("\"k\" is a MessagePack extension"));
        assert!(fault(&under_k(&[0xa1, 0xff])).contains("\"k\" is text that is not UTF-8"));
        assert!(fault(&under_k(&[0x81, 1, 1])).contains("\"k\" has a key that is not UTF-8 text"));
        assert!(fault(&under_k(&[0xc1])).contains("0xc1"));
        assert!(fault(&under_k(&[0xdd, 0xff, 0xff, 0xff, 0xff, 1])).contains("ends before"));
        assert!(fault(&[0x90]).contains("is not a map"));
        assert!(fault(&[]).contains("ends before"));
        assert!(fault(&[0x80, 0x80]).contains("1 bytes behind its map"));
        let twice = [0x83, 0xa1, b'b', 1, 0xa1, b'a', 1, 0xa1, b'b', 2];
        assert_eq!(fault(&under_k(&twice)), "payload key \"k\" has the key \"b\" twice: give each key once");
        assert_eq!(check(&under_k(&[0x82, 0xa1, b'b', 1, 0xa1, b'a', 1])), Ok(()), "any order will do");
    }

    #[test]
    fn a_payload_is_as_large_and_as_deep_as_the_limits_say() {
        let text = |bytes: usize| {
            let length = (bytes as u32).to_be_bytes();
            under_k(&[&[0xdb][..], &length, &vec![b'x'; bytes]].concat())
        };
        assert_eq!(check(&text(PAYLOAD_BYTES_MAX - 8)), Ok(()));
        assert!(fault(&text(PAYLOAD_BYTES_MAX - 7)).contains("at most 65536 are allowed"));
        let deep = |lists| under_k(&[&vec![0x91; lists][..], &[0xc0]].concat());
        assert_eq!(check(&deep(PAYLOAD_DEPTH_MAX - 1)), Ok(()));
        let error = fault(&deep(PAYLOAD_DEPTH_MAX));
        assert!(error.starts_with("payload key \"k[0][0]") && error.contains("deeper than 16 levels"), "{error}");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (1 << 63..=u64::MAX).prop_map(Value::UInt),
            any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Value::Float),
            any::<String>().prop_map(Value::Text),
        ];
        leaf.prop_recursive(6, 64, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Value::List),
                prop::collection::btree_map(any::<String>(), inner, 0..20).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_the_library_encodes_is_a_payload(payload in prop::collection::btree_map(any::<String>(), values(), 0..20)) {
            let bytes = rmp_serde::to_vec_named(&payload).unwrap();
            prop_assume!(bytes.len() <= PAYLOAD_BYTES_MAX);
            prop_assert_eq!(check(&bytes), Ok(()));
            for cut in [bytes.len() / 2, bytes.len() - 1] {
                prop_assert!(check(&bytes[..cut]).is_err());
            }
        }

        /// What the walker lets through is what the decoder can read.
        #[test]
        fn what_passes_can_be_decoded(
            payload in prop::collection::btree_map(any::<String>(), values(), 0..5),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = rmp_serde::to_vec_named(&payload).unwrap();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if check(&bytes).is_ok() {
                prop_assert!(rmp_serde::from_slice::<Payload>(&bytes).is_ok());
            }
        }
    }
}
