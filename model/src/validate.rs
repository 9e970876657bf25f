//! What a client may send: every check on names, schemas and points, made before anything is logged.
//!
//! Pure. Each error names the field, the value and the limit.

use std::ops::RangeInclusive;

use crate::limits;
use crate::{
    CollectionSchema, DEFAULT_FIELD, FieldSchema, Fields, Metric, Point, PointId, RawPayload, RawPoint, Vector,
};

/// Why something was refused; lower case, no full stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

macro_rules! refuse {
    ($($message:tt)*) => { return Err(Invalid(format!($($message)*))) };
}

/// The range of HNSW's `M`.
const M_RANGE: RangeInclusive<u32> = limits::M_MIN..=limits::M_MAX;
/// The range of HNSW's `efConstruction`.
const EF_CONSTRUCTION_RANGE: RangeInclusive<u32> = limits::EF_CONSTRUCTION_MIN..=limits::EF_CONSTRUCTION_MAX;
/// The range of times between flushes.
const FSYNC_MS_RANGE: RangeInclusive<u32> = limits::FSYNC_MS_MIN..=limits::FSYNC_MS_MAX;

/// Checks a collection's name.
pub fn collection_name(name: &str) -> Result<(), Invalid> {
    name_of("collection name", name)
}

fn name_of(what: &str, name: &str) -> Result<(), Invalid> {
    if name.is_empty() || name.len() > limits::NAME_BYTES_MAX {
        refuse!("{what} {:?} has {} bytes: use 1 to {}", shortened(name), name.len(), limits::NAME_BYTES_MAX);
    }
    if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(*c))) {
        refuse!("{what} {name:?} contains {bad:?}: use letters, digits, '-', '_' and '.'");
    }
    if name.starts_with('.') {
        refuse!("{what} {name:?} starts with a '.': start it with a letter or a digit");
    }
    Ok(())
}

/// Checks a schema.
pub fn schema(schema: &CollectionSchema) -> Result<(), Invalid> {
    let CollectionSchema { fields, replication_factor, fsync } = schema;
    if fields.is_empty() || fields.len() > limits::FIELDS_MAX {
        refuse!("the schema has {} vector fields: use 1 to {}", fields.len(), limits::FIELDS_MAX);
    }
    if *replication_factor > limits::REPLICATION_FACTOR_MAX {
        let max = limits::REPLICATION_FACTOR_MAX;
        refuse!("replication factor {replication_factor} is over the limit of {max}: use 1 to {max}");
    }
    if let crate::Fsync::EveryMs(ms) = fsync
        && !FSYNC_MS_RANGE.contains(ms)
    {
        refuse!("fsync every {ms} ms is out of range: use {} to {} ms", FSYNC_MS_RANGE.start(), FSYNC_MS_RANGE.end());
    }
    for (name, field) in fields {
        if name != DEFAULT_FIELD {
            name_of("field name", name)?;
        }
        let FieldSchema { dim, metric: _, m, ef_construction, profile: _ } = field;
        if *dim == 0 || *dim > limits::DIM_MAX {
            refuse!("{} has dimension {dim}: use 1 to {}", described(name), limits::DIM_MAX);
        }
        if !M_RANGE.contains(m) {
            refuse!("{} has m {m}: use {} to {}", described(name), M_RANGE.start(), M_RANGE.end());
        }
        if !EF_CONSTRUCTION_RANGE.contains(ef_construction) {
            refuse!(
                "{} has ef_construction {ef_construction}: use {} to {}",
                described(name),
                EF_CONSTRUCTION_RANGE.start(),
                EF_CONSTRUCTION_RANGE.end()
            );
        }
    }
    Ok(())
}

/// Checks a point against a schema.
pub fn point(schema: &CollectionSchema, point: &RawPoint) -> Result<(), Invalid> {
    let Point { id, vectors, payload: data } = point;
    point_id(id)?;
    fields(schema, vectors)?;
    payload(data)
}

/// Checks a point's id.
pub fn point_id(id: &PointId) -> Result<(), Invalid> {
    match id {
        PointId::Number(_) => Ok(()),
        PointId::Text(text) if text.is_empty() => {
            Err(Invalid(format!("id is an empty string: use 1 to {} bytes", limits::POINT_ID_BYTES_MAX)))
        }
        PointId::Text(text) if text.len() > limits::POINT_ID_BYTES_MAX => Err(Invalid(format!(
            "id {:?} has {} bytes: at most {} are allowed",
            shortened(text),
            text.len(),
            limits::POINT_ID_BYTES_MAX
        ))),
        PointId::Text(_) => Ok(()),
    }
}

/// Checks the vectors of a point: one or more of the schema's fields, and no other.
pub fn fields(schema: &CollectionSchema, vectors: &Fields) -> Result<(), Invalid> {
    norms(schema, vectors, |_| {})
}

/// As [`fields`]; gives the Euclidean norm of each vector, in their order, so that nobody has to compute it again.
pub fn norms(schema: &CollectionSchema, vectors: &Fields, mut each: impl FnMut(f64)) -> Result<(), Invalid> {
    let known = || schema.fields.keys().map(|name| described(name)).collect::<Vec<_>>().join(", ");
    if vectors.is_empty() {
        refuse!("the point has no vector: give one for each field, or for at least one, of {}", known());
    }
    for (name, values) in vectors {
        match schema.fields.get(name) {
            None => refuse!("{} is not in the schema, which has {}", described(name), known()),
            Some(field) => each(vector(name, field, values)?),
        }
    }
    Ok(())
}

/// Checks one vector; gives its Euclidean norm.
pub fn vector(name: &str, field: &FieldSchema, vector: &Vector) -> Result<f64, Invalid> {
    let Vector(values) = vector;
    if values.len() != field.dim as usize {
        refuse!("{} has dimension {}, and the schema says {}", described(name), values.len(), field.dim);
    }
    let norm = vector.norm();
    // The squares of finite f32 are finite in f64, and so are their sums.
    if !norm.is_finite()
        && let Some((at, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite())
    {
        refuse!("{} has {value} at position {at}: only finite numbers are allowed", described(name));
    }
    if norm > limits::NORM_MAX {
        refuse!("{} has length {norm:e}: at most {:e} is allowed", described(name), limits::NORM_MAX);
    }
    if field.metric == Metric::Cosine && norm < limits::COSINE_NORM_MIN {
        let length = if norm == 0.0 { "is all zeros".to_owned() } else { format!("has length {norm:e}") };
        refuse!(
            "{} {length}, which has no direction: cosine needs a vector at least {:e} long",
            described(name),
            limits::COSINE_NORM_MIN
        );
    }
    Ok(norm)
}

/// Checks a payload; see [`RawPayload::check`].
pub fn payload(payload: &RawPayload) -> Result<(), Invalid> {
    payload.check().map_err(|fault| Invalid(fault.to_string()))
}

/// How a field is named in messages.
fn described(name: &str) -> String {
    if name == DEFAULT_FIELD { "the vector".to_owned() } else { format!("vector field {name:?}") }
}

/// The first part of a string that may be very long.
fn shortened(text: &str) -> String {
    if text.len() <= 40 { text.to_owned() } else { format!("{}…", text.chars().take(30).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{Fsync, Payload, Value};

    use super::*;

    fn films(metric: Metric) -> CollectionSchema {
        let field = FieldSchema { dim: 3, metric, m: 16, ef_construction: 200, profile: Default::default() };
        CollectionSchema {
            fields: BTreeMap::from([(String::new(), field)]),
            replication_factor: 3,
            fsync: Fsync::Always,
        }
    }

    fn refused(metric: Metric, values: &[f32]) -> String {
        let vectors = Fields::from([(String::new(), Vector(values.to_vec()))]);
        fields(&films(metric), &vectors).expect_err("refused").to_string()
    }

    #[test]
    fn a_bad_vector_is_refused_with_field_value_and_limit() {
        assert_eq!(refused(Metric::Dot, &[1.0]), "the vector has dimension 1, and the schema says 3");
        assert!(refused(Metric::Dot, &[1.0, f32::NAN, 0.0]).contains("NaN at position 1"));
        assert!(refused(Metric::Dot, &[1.0, 2.0, f32::NEG_INFINITY]).contains("-inf at position 2"));
        assert!(refused(Metric::Cosine, &[0.0, -0.0, 0.0]).contains("no direction"));
        assert!(refused(Metric::Euclidean, &[f32::MAX, 0.0, 0.0]).contains("at most 1e18"));
        let zero = Fields::from([(String::new(), Vector(vec![0.0; 3]))]);
        assert_eq!(fields(&films(Metric::Euclidean), &zero), Ok(()), "zero is a place like any other");
    }

    #[test]
    fn a_point_has_at_least_one_field_and_no_unknown_ones() {
        let mut schema = films(Metric::Dot);
        let none = fields(&schema, &Fields::new()).expect_err("no field").to_string();
        assert!(none.contains("no vector") && none.ends_with("of the vector"), "{none}");
        let both = Fields::from([(String::new(), Vector(vec![0.0; 3])), ("image".to_owned(), Vector(vec![0.0; 3]))]);
        assert!(fields(&schema, &both).expect_err("unknown").to_string().contains("\"image\" is not in the schema"));
        schema.fields.insert("image".to_owned(), schema.fields[""].clone());
        assert_eq!(fields(&schema, &both), Ok(()));
        for name in ["", "image"] {
            assert_eq!(fields(&schema, &Fields::from([(name.to_owned(), Vector(vec![0.0; 3]))])), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn ids_and_payloads_have_limits() {
        assert_eq!(point_id(&PointId::Text("x".repeat(512))), Ok(()));
        assert!(point_id(&PointId::Text("x".repeat(513))).expect_err("long").to_string().contains("513 bytes"));
        assert!(point_id(&PointId::Text(String::new())).is_err());
        let big = Payload::from([("k".to_owned(), Value::Text("x".repeat(limits::PAYLOAD_BYTES_MAX)))]);
        assert!(payload(&big.into()).expect_err("big").to_string().contains("at most 65536"));
    }

    #[test]
    fn names_and_schemas_have_limits() {
        assert_eq!(collection_name("films-2.v_1"), Ok(()));
        for name in ["", "a/b", ".hidden", "ö", &"x".repeat(129)] {
            assert!(collection_name(name).is_err(), "{name:?}");
        }
        for (dim, m, ef) in [(0, 16, 200), (limits::DIM_MAX + 1, 16, 200), (3, 1, 200), (3, 16, 7)] {
            let mut bad = films(Metric::Dot);
            bad.fields.insert(
                String::new(),
                FieldSchema { dim, metric: Metric::Dot, m, ef_construction: ef, profile: Default::default() },
            );
            assert!(schema(&bad).is_err(), "{dim} {m} {ef}");
        }
        assert_eq!(schema(&films(Metric::Dot)), Ok(()));
    }
}
