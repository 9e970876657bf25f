//! The values that points of a run have, as the mesh keeps them.

use std::collections::BTreeMap;

use vecino_model::{Fields, RawPayload, Record, RecordValue, Vector};

use crate::plan::SPREAD;

/// Values from here on say where they lie.
const PLACED: u64 = 1 << 40;

/// A value that lies at this place. `number` makes it unlike others.
pub(crate) fn at(place: u64, number: u64) -> u64 {
    PLACED | number << 16 | place
}

/// How far a value is from a place.
pub(crate) fn distance(value: u64, place: u64) -> u64 {
    spread_of(value).abs_diff(place)
}

/// Where a value lies: far from the next one, if it does not say so itself.
fn spread_of(value: u64) -> u64 {
    if value >= PLACED { value & 0xffff } else { (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % SPREAD }
}

/// The vector of a place.
pub(crate) fn vector(place: u64) -> Vector {
    Vector(vec![place as f32, 0.0])
}

/// The vectors of a value.
pub(crate) fn vectors(value: u64) -> Fields {
    BTreeMap::from([(String::new(), vector(spread_of(value)))])
}

/// The payload of a value: a map with the value in it.
pub(crate) fn payload(value: u64) -> RawPayload {
    let mut bytes = vec![0x81, 0xa1, b'v', 0xcf];
    bytes.extend(value.to_be_bytes());
    RawPayload::from_bytes(bytes)
}

/// The value in a payload.
pub(crate) fn value_in(payload: &RawPayload) -> Option<u64> {
    let value = payload.as_bytes().strip_prefix(&[0x81, 0xa1, b'v', 0xcf])?;
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

/// The value of a record; nothing for a tombstone.
pub(crate) fn value_of(record: &Record) -> Option<u64> {
    record.value.as_ref().and_then(|RecordValue { vectors: _, payload }| value_in(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_its_payload_and_lies_somewhere() {
        let places: std::collections::BTreeSet<u64> = (0..100).map(spread_of).collect();
        assert!(places.len() > 80 && places.iter().all(|place| *place < SPREAD), "{places:?}");
        assert_eq!(distance(at(300, 7), 310), 10);
        assert_ne!(at(300, 7), at(300, 8));
        assert_eq!(value_in(&payload(u64::MAX - 3)), Some(u64::MAX - 3));
        assert!(payload(7).check().is_ok());
        assert_eq!(distance(7, spread_of(7)), 0);
    }
}
