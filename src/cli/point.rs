//! `vecino put | get | delete`.

use serde::Serialize;
use vecino_client::{Fields, Outcome, Point, PointId, StoredPoint, Vector, Version};
use vecino_model::DEFAULT_FIELD;

use super::args::{DeleteArgs, GetArgs, PutArgs};
use super::connection::connect_running;
use super::failure::Failure;
use super::output::{Style, id_text, json, print, printable, vector_text};
use super::text::{cut, quoted_id};
use crate::files::json::{PayloadRef, VectorsRef};

/// `vecino put`.
pub async fn put(args: PutArgs, style: Style) -> Result<(), Failure> {
    let PutArgs { collection, id, vectors, fields, payload, level, connection } = args;
    let id = id.point_id();
    let point = Point { id: id.clone(), vectors: by_field(fields, vectors)?, payload: payload.unwrap_or_default() };
    let client = connect_running(&connection).await?;
    let report = client.collection(collection).put([point]).level(level.level).each().await?;
    client.close().await;
    print(&render_put(&id, &one(report.into_outcomes())?, style)?)
}

/// Each vector under the field in the same place; a single vector without a field is that of the unnamed one.
fn by_field(mut fields: Vec<String>, vectors: Vec<Vector>) -> Result<Fields, Failure> {
    if fields.is_empty() && vectors.len() == 1 {
        fields.push(DEFAULT_FIELD.to_owned());
    }
    if fields.len() != vectors.len() {
        let message = format!(
            "{} --vector and {} --field were given: give one --field NAME for each --vector, in the same order",
            vectors.len(),
            fields.len()
        );
        return Err(Failure::new("usage", message));
    }
    let mut point = Fields::new();
    for (field, vector) in fields.into_iter().zip(vectors) {
        if point.contains_key(&field) {
            return Err(Failure::new("usage", format!("--field {:?} was given twice", cut(&field))));
        }
        point.insert(field, vector);
    }
    Ok(point)
}

/// `vecino get`.
pub async fn get(args: GetArgs, style: Style) -> Result<(), Failure> {
    let GetArgs { collection, id, level, connection } = args;
    let id = id.point_id();
    let client = connect_running(&connection).await?;
    let found = client.collection(&collection).get_one(&id).level(level.level).await?;
    client.close().await;
    let point = found.ok_or_else(|| {
        Failure::new("not_found", format!("point {} is not in collection {collection:?}", quoted_id(&id)))
    })?;
    print(&render_point(&point, style))
}

/// `vecino delete`.
pub async fn delete(args: DeleteArgs, style: Style) -> Result<(), Failure> {
    let DeleteArgs { collection, id, id_text, level, connection } = args;
    let ids: Vec<PointId> = id.into_iter().chain(id_text).collect();
    let client = connect_running(&connection).await?;
    let outcomes = client.collection(collection).delete(&ids).level(level.level).each().await?.into_outcomes();
    client.close().await;
    let failures: Vec<Failure> =
        ids.iter().zip(&outcomes).filter_map(|(id, outcome)| Failure::of_outcome(id, outcome)).collect();
    print(&render_deleted(&ids, &outcomes, style))?;
    let Some((last, others)) = failures.split_last() else { return Ok(()) };
    for failure in others {
        eprintln!("{}", failure.render(style == Style::Json));
    }
    Err(last.clone())
}

/// The only answer to a request for one point.
fn one<T>(answers: Vec<T>) -> Result<T, Failure> {
    answers.into_iter().next().ok_or_else(|| Failure::new("protocol", "the node's answer is empty"))
}

fn render_put(id: &PointId, outcome: &Outcome, style: Style) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Written<'a> {
        id: &'a PointId,
        version: String,
    }
    match outcome {
        Outcome::Written(version) if style == Style::Json => Ok(json(&Written { id, version: version.to_string() })),
        Outcome::Written(version) => Ok(format!("put {}, version {}", id_text(id), version_text(version, style))),
        _ => Err(Failure::of_outcome(id, outcome).expect("every outcome but the written one is a failure")),
    }
}

fn render_deleted(ids: &[PointId], outcomes: &[Outcome], style: Style) -> String {
    #[derive(Serialize)]
    struct Deleted<'a> {
        deleted: Vec<&'a PointId>,
        failed: Vec<&'a PointId>,
    }
    let (deleted, failed): (Vec<_>, Vec<_>) =
        ids.iter().zip(outcomes).partition(|(_, outcome)| matches!(outcome, Outcome::Written(_)));
    let ids = |pairs: Vec<(_, _)>| pairs.into_iter().map(|(id, _)| id).collect::<Vec<&PointId>>();
    let answer = Deleted { deleted: ids(deleted), failed: ids(failed) };
    match style {
        Style::Json => json(&answer),
        _ if answer.failed.is_empty() => format!("deleted {}", answer.deleted.len()),
        _ => format!("deleted {}, failed {}", answer.deleted.len(), answer.failed.len()),
    }
}

fn render_point(point: &StoredPoint, style: Style) -> String {
    let StoredPoint { id, vectors, payload, version } = point;
    if style == Style::Json {
        return json(&PointJson {
            id,
            vector: VectorsRef(vectors),
            payload: PayloadRef(payload),
            version: version.to_string(),
        });
    }
    let mut lines = vec![format!("id       {}", id_text(id)), format!("version  {}", version_text(version, style))];
    for (field, vector) in vectors {
        let name = if field == DEFAULT_FIELD { String::new() } else { format!("{} ", printable(field)) };
        lines.push(format!("vector   {name}{}", vector_text(vector, VALUES_SHOWN, style)));
    }
    lines.push(format!("payload  {}", json(&PayloadRef(payload))));
    lines.join("\n")
}

#[derive(Serialize)]
struct PointJson<'a> {
    id: &'a PointId,
    vector: VectorsRef<'a>,
    payload: PayloadRef<'a>,
    version: String,
}

fn version_text(version: &Version, style: Style) -> String {
    if style == Style::Terminal {
        format!("{}.{}-{}", version.time >> 16, version.time & 0xffff, version.node.short())
    } else {
        version.to_string()
    }
}

/// Values of a vector that a terminal gets to see.
const VALUES_SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use vecino_client::{NodeId, Payload, Value};

    use super::*;

    fn version() -> Version {
        Version { time: (1_700_000_000_000 << 16) | 3, node: NodeId::from_bytes([0xab; 16]), seq: 0 }
    }

    fn point(vectors: Fields) -> StoredPoint {
        let payload = Payload::from([("title".into(), Value::Text("Río".into())), ("year".into(), Value::Int(1948))]);
        StoredPoint { id: 100.into(), vectors, payload, version: version() }
    }

    fn default_field(values: &[f32]) -> Fields {
        Fields::from([(String::new(), Vector(values.to_vec()))])
    }

    #[test]
    fn get_answers_in_the_shape_that_scripts_rely_on() {
        let node = "ab".repeat(16);
        assert_eq!(
            render_point(&point(default_field(&[0.1, 0.2, 1.0])), Style::Json),
            format!(
                "{{\"id\":100,\"vector\":[0.1,0.2,1.0],\"payload\":{{\"title\":\"Río\",\"year\":1948}},\
                 \"version\":\"1700000000000.3-{node}\"}}"
            )
        );
        let named = Fields::from([("a".into(), Vector(vec![1.0])), ("b".into(), Vector(vec![2.0]))]);
        let text = render_point(&StoredPoint { id: "1".into(), ..point(named) }, Style::Json);
        assert!(text.starts_with(r#"{"id":"1","vector":{"a":[1.0],"b":[2.0]},"payload""#), "{text}");
    }

    #[test]
    fn people_see_the_beginning_of_a_long_vector() {
        let values: Vec<f32> = (0..100).map(|n| n as f32).collect();
        let text = render_point(&point(default_field(&values)), Style::Terminal);
        assert!(text.contains("vector   0,1,2,3,4,5,6,7,… (100 values)\n"), "{text}");
        assert!(text.contains("version  1700000000000.3-abababab\n"), "{text}");
        assert!(render_point(&point(default_field(&values)), Style::Plain).contains(",98,99\n"));
    }

    #[test]
    fn put_answers_with_the_version_or_fails() {
        let written = Outcome::Written(version());
        assert_eq!(
            render_put(&"x".into(), &written, Style::Json).unwrap(),
            format!(r#"{{"id":"x","version":"1700000000000.3-{}"}}"#, "ab".repeat(16))
        );
        assert_eq!(
            render_put(&7.into(), &written, Style::Terminal).unwrap(),
            "put 7, version 1700000000000.3-abababab"
        );
        let failure = render_put(&7.into(), &Outcome::Refused("too long".into()), Style::Json).unwrap_err();
        assert_eq!(failure.render(false), "error: point 7: too long");
    }

    #[test]
    fn every_vector_goes_to_the_field_in_its_place() {
        let one = || Vector(vec![1.0]);
        let fields = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(by_field(Vec::new(), vec![one()]).unwrap(), default_field(&[1.0]));
        let both = by_field(fields(&["title", "image"]), vec![one(), Vector(vec![2.0, 3.0])]).unwrap();
        assert_eq!((both["title"].0.as_slice(), both["image"].0.as_slice()), (&[1.0][..], &[2.0, 3.0][..]));
        let told =
            |names: &[&str], vectors: usize| by_field(fields(names), vec![one(); vectors]).unwrap_err().render(false);
        assert!(told(&["title"], 2).contains("2 --vector and 1 --field"));
        assert!(told(&[], 2).contains("one --field NAME for each --vector"));
        assert!(told(&["a", "a"], 2).contains("--field \"a\" was given twice"));
    }

    #[test]
    fn delete_tells_what_is_gone_from_what_is_not() {
        let ids = [PointId::from(1), "b".into(), 3.into()];
        let outcomes = [Outcome::Written(version()), Outcome::Unknown("late".into()), Outcome::Written(version())];
        assert_eq!(render_deleted(&ids, &outcomes, Style::Json), r#"{"deleted":[1,3],"failed":["b"]}"#);
        assert_eq!(render_deleted(&ids, &outcomes, Style::Plain), "deleted 2, failed 1");
        assert_eq!(render_deleted(&ids[..1], &outcomes[..1], Style::Plain), "deleted 1");
    }
}
