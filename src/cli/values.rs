//! What the values of arguments may be: those that can be judged without a node are refused as usage.

use std::time::Duration;

use vecino_model::limits::{DIM_MAX, FSYNC_MS_MAX, FSYNC_MS_MIN, POINT_ID_BYTES_MAX, REPLICATION_FACTOR_MAX};
use vecino_model::{Fsync, Metric, Payload, PointId, Vector};

use super::text::cut;
use crate::files::json;

/// Longest time that an option may ask for: a day.
const SECONDS_MAX: f64 = 86_400.0;

/// A vector field with a name, as `--field` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedField {
    /// Its name.
    pub name: String,
    /// Number of values in each vector.
    pub dim: u32,
    /// How its vectors are compared.
    pub metric: Metric,
}

/// Reads an id as `json::canonical_number` does: `0`, `7` and `18446744073709551615` are numbers; `007`, `-5`, `1.5`
/// and digits beyond 64 bits are text.
pub(super) fn parse_id(text: &str) -> Result<PointId, String> {
    match json::canonical_number(text) {
        Some(number) => Ok(PointId::Number(number)),
        None => parse_text_id(text),
    }
}

pub(super) fn parse_text_id(text: &str) -> Result<PointId, String> {
    if (1..=POINT_ID_BYTES_MAX).contains(&text.len()) {
        Ok(PointId::Text(text.to_owned()))
    } else {
        Err(format!("a text id has 1 to {POINT_ID_BYTES_MAX} bytes, and this one has {}", text.len()))
    }
}

/// `NAME:DIM:METRIC`.
pub(super) fn parse_field(text: &str) -> Result<NamedField, String> {
    let usage = || format!("{:?} is not NAME:DIM:METRIC, for example title:384:cosine", cut(text));
    let [name, dim, metric] = text.split(':').collect::<Vec<_>>()[..] else { return Err(usage()) };
    if name.is_empty() {
        return Err(format!("{}; the field without a name is made by --dim and --metric", usage()));
    }
    let dim = dim.parse().ok().filter(|dim| (1..=DIM_MAX).contains(dim));
    let dim = dim.ok_or_else(|| format!("{}: DIM is a whole number from 1 to {DIM_MAX}", usage()))?;
    let metric = metric.parse().map_err(|error| format!("{}: {error}", usage()))?;
    Ok(NamedField { name: name.to_owned(), dim, metric })
}

/// A number of replicas.
pub(super) fn parse_replicas(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("a point needs at least 1 replica; without --replicas the mesh decides".to_owned()),
        Ok(replicas @ 1..=REPLICATION_FACTOR_MAX) => Ok(replicas),
        Ok(replicas) => Err(format!("{replicas} replicas: a point has {REPLICATION_FACTOR_MAX} at most")),
        Err(_) => Err(format!("{:?} is not a whole number of replicas, 1 or more", cut(text))),
    }
}

pub(super) fn parse_vector(text: &str) -> Result<Vector, String> {
    let values: Vec<f32> = text
        .split(',')
        .enumerate()
        .map(|(at, value)| parse_finite(value.trim()).map_err(|error| format!("value {at}: {error}")))
        .collect::<Result<_, _>>()?;
    if values.len() > DIM_MAX as usize {
        return Err(format!("{} values, the limit is {DIM_MAX}", values.len()));
    }
    Ok(Vector(values))
}

/// A finite f32. `inf`, `nan` and what rounds to infinity are refused.
pub(super) fn parse_finite(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(format!("{:?} is not finite in 32 bits", cut(text))),
        Err(_) => Err(format!("{:?} is not a number", cut(text))),
    }
}

pub(super) fn parse_payload(text: &str) -> Result<Payload, String> {
    json::payload_from_text(text).map_err(|error| error.to_string())
}

pub(super) fn parse_fsync(text: &str) -> Result<Fsync, String> {
    match text {
        "always" => Ok(Fsync::Always),
        "never" => Ok(Fsync::Never),
        _ => match text.strip_suffix("ms").unwrap_or(text).parse() {
            Ok(0) => Err("every 0 ms is `always`".to_owned()),
            Ok(ms @ FSYNC_MS_MIN..=FSYNC_MS_MAX) => Ok(Fsync::EveryMs(ms)),
            Ok(ms) => Err(format!("every {ms} ms is too seldom: {FSYNC_MS_MAX} ms at most, or `never`")),
            Err(_) => Err(format!("{:?} is not always, never, or a number of milliseconds", cut(text))),
        },
    }
}

pub(super) fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= SECONDS_MAX => Ok(seconds),
        _ => Err(format!("{:?} is not a number of seconds above 0 and up to {SECONDS_MAX}", cut(text))),
    }
}

/// `500ms`, `10s`, `2m`; a bare number is seconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit_seconds) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else {
        (text, 1.0)
    };
    match number.parse::<f64>().map(|number| number * unit_seconds) {
        Ok(seconds) if seconds > 0.0 && seconds <= SECONDS_MAX => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("{:?} is not a time such as 500ms, 10s or 2m, above 0 and up to a day", cut(text))),
    }
}
