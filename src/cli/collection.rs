//! `vecino collection create | list | describe | drop`.

use std::collections::BTreeMap;

use serde::Serialize;
use vecino_client::{CollectionInfo, CollectionSchema, CollectionStats, Dropped, FieldSchema, Fsync};
use vecino_model::DEFAULT_FIELD;

use super::args::{CollectionArgs, CollectionCommand, CreateArgs};
use super::connection::connect_running;
use super::failure::Failure;
use super::output::{Style, Table, json, print, printable};
use super::text::cut;
use super::values::NamedField;
use vecino_engine::memory::Bytes;

/// Carries out the command.
pub async fn run(args: CollectionArgs, style: Style) -> Result<(), Failure> {
    let client = connect_running(&args.connection).await?;
    let text = match args.command {
        CollectionCommand::Create(create) => {
            let info = client.collection(&create.name).create_from(schema(&create)?).await?;
            render_created(&info, style)
        }
        CollectionCommand::List => render_list(&client.collections().await?, style),
        CollectionCommand::Describe { name } => render_one(&client.collection(name).describe().await?, style),
        CollectionCommand::Drop { name } => {
            let Dropped { freed_bytes, .. } = client.collection(&name).drop_collection().await?;
            render_dropped(&name, freed_bytes, style)
        }
    };
    client.close().await;
    print(&text)
}

fn schema(args: &CreateArgs) -> Result<CollectionSchema, Failure> {
    let CreateArgs { name: _, dim, metric, fields: named, replicas, m, ef_construction, profile, fsync } = args;
    let field = |dim, metric| FieldSchema { dim, metric, m: *m, ef_construction: *ef_construction, profile: *profile };
    let mut fields = BTreeMap::new();
    if let (Some(dim), Some(metric)) = (*dim, *metric) {
        fields.insert(DEFAULT_FIELD.to_owned(), field(dim, metric));
    }
    for NamedField { name, dim, metric } in named {
        if fields.insert(name.clone(), field(*dim, *metric)).is_some() {
            return Err(Failure::new("usage", format!("--field {:?} was given twice", cut(name))));
        }
    }
    Ok(CollectionSchema {
        fields,
        // 0 asks the mesh for its default.
        replication_factor: replicas.unwrap_or(0),
        fsync: *fsync,
    })
}

fn render_created(info: &CollectionInfo, style: Style) -> String {
    match style {
        Style::Json => json(&CollectionJson::from(info)),
        _ => format!(
            "created {}: {}, {}",
            info.name,
            fields_text(&info.schema),
            match info.schema.replication_factor {
                1 => "each point on one node".to_owned(),
                replicas => format!("each point on {replicas} nodes"),
            }
        ),
    }
}

fn render_dropped(name: &str, freed_bytes: u64, style: Style) -> String {
    #[derive(Serialize)]
    struct DroppedJson<'a> {
        dropped: &'a str,
        freed_bytes: u64,
    }
    match style {
        Style::Json => json(&DroppedJson { dropped: name, freed_bytes }),
        _ => format!("dropped {name}: {} freed on disk", Bytes(freed_bytes)),
    }
}

fn render_list(infos: &[CollectionInfo], style: Style) -> String {
    #[derive(Serialize)]
    struct List<'a> {
        collections: Vec<CollectionJson<'a>>,
    }
    if style == Style::Json {
        return json(&List { collections: infos.iter().map(CollectionJson::from).collect() });
    }
    if infos.is_empty() {
        return "no collections; make one with `vecino collection create NAME --dim D --metric M`".to_owned();
    }
    let mut table = Table::new(&["name", "vectors", "#replicas", "fsync", "#points"]);
    for info in infos {
        table.row(vec![
            printable(&info.name),
            fields_text(&info.schema),
            info.schema.replication_factor.to_string(),
            fsync_text(info.schema.fsync),
            info.points.to_string(),
        ]);
    }
    table.render(style)
}

fn render_one(info: &CollectionInfo, style: Style) -> String {
    if style == Style::Json {
        return json(&CollectionJson::from(info));
    }
    let mut text = format!("{}  ({})\n", info.name, info.id);
    for (name, field) in &info.schema.fields {
        let FieldSchema { dim, metric, m, ef_construction, profile } = field;
        let name = if name.is_empty() { "vector" } else { name };
        text.push_str(&format!(
            "  {:<9} {dim} values, {metric}, profile {profile}, m {m}, ef_construction {ef_construction}\n",
            printable(name)
        ));
    }
    text.push_str(&format!("  replicas  {}\n", info.schema.replication_factor));
    text.push_str(&format!("  fsync     {}\n", fsync_text(info.schema.fsync)));
    text.push_str(&format!("  points    {}\n\n", info.points));
    let headings =
        ["node", "#points", "#tombstones", "#unlinked", "#log", "#index", "#memory", "#snapshot at", "state", "error"];
    let mut table = Table::new(&headings).expendable(&["#snapshot at", "#tombstones", "#unlinked"]).flexible("error");
    for node in info.placement.keys() {
        let Some(stats) = info.nodes.get(node) else {
            let unheard = (0..8).map(|_| "-".to_owned()).chain(["did not answer".to_owned()]);
            table.row([node.short()].into_iter().chain(unheard).collect());
            continue;
        };
        let CollectionStats {
            points,
            tombstones,
            unlinked,
            log_bytes,
            index_bytes,
            memory_bytes,
            snapshot_lsn,
            error,
            serving,
            percent,
        } = stats;
        let state = percent.map_or(serving.name().to_owned(), |percent| format!("{} {percent} %", serving.name()));
        let counts = [points, tombstones, unlinked].map(u64::to_string);
        let sizes = [log_bytes, index_bytes, memory_bytes].map(|bytes| Bytes(*bytes).to_string());
        let error = style.shorten(error.as_deref().map(printable).unwrap_or_default());
        let cells = [node.short()].into_iter().chain(counts).chain(sizes);
        table.row(cells.chain([snapshot_lsn.to_string(), state, error]).collect());
    }
    text.push_str(&table.render(style));
    text
}

fn fields_text(schema: &CollectionSchema) -> String {
    let field = |(name, field): (&String, &FieldSchema)| match name.as_str() {
        DEFAULT_FIELD => format!("{} {}", field.dim, field.metric),
        name => format!("{}: {} {}", printable(name), field.dim, field.metric),
    };
    schema.fields.iter().map(field).collect::<Vec<_>>().join(", ")
}

fn fsync_text(fsync: Fsync) -> String {
    match fsync {
        Fsync::Always => "always".to_owned(),
        Fsync::EveryMs(ms) => format!("every {ms} ms"),
        Fsync::Never => "never".to_owned(),
    }
}

/// A collection as JSON. `fsync` has the values of `--fsync`.
#[derive(Serialize)]
struct CollectionJson<'a> {
    name: &'a str,
    id: String,
    fields: BTreeMap<&'a str, FieldJson>,
    replication_factor: u32,
    fsync: FsyncJson,
    points: u64,
    placement: Vec<String>,
    nodes: BTreeMap<String, StatsJson<'a>>,
}

#[derive(Serialize)]
struct FieldJson {
    dim: u32,
    metric: &'static str,
    profile: &'static str,
    m: u32,
    ef_construction: u32,
}

#[derive(Serialize)]
#[serde(untagged)]
enum FsyncJson {
    Word(&'static str),
    EveryMs(u32),
}

/// What one node holds of one collection, as JSON.
#[derive(Serialize)]
pub(super) struct StatsJson<'a> {
    points: u64,
    tombstones: u64,
    unlinked: u64,
    log_bytes: u64,
    index_bytes: u64,
    memory_bytes: u64,
    snapshot_lsn: u64,
    error: Option<&'a str>,
    state: &'static str,
    percent: Option<u8>,
}

impl<'a> From<&'a CollectionStats> for StatsJson<'a> {
    fn from(stats: &'a CollectionStats) -> Self {
        let CollectionStats {
            points,
            tombstones,
            unlinked,
            log_bytes,
            index_bytes,
            memory_bytes,
            snapshot_lsn,
            error,
            serving,
            percent,
        } = stats;
        Self {
            points: *points,
            tombstones: *tombstones,
            unlinked: *unlinked,
            log_bytes: *log_bytes,
            index_bytes: *index_bytes,
            memory_bytes: *memory_bytes,
            snapshot_lsn: *snapshot_lsn,
            error: error.as_deref(),
            state: serving.name(),
            percent: *percent,
        }
    }
}

impl<'a> From<&'a CollectionInfo> for CollectionJson<'a> {
    fn from(info: &'a CollectionInfo) -> Self {
        let CollectionInfo { name, id, schema, placement, points, nodes, .. } = info;
        let CollectionSchema { fields, replication_factor, fsync } = schema;
        let field = |(name, field): (&'a String, &FieldSchema)| {
            let FieldSchema { dim, metric, m, ef_construction, profile } = *field;
            (name.as_str(), FieldJson { dim, metric: metric.name(), profile: profile.name(), m, ef_construction })
        };
        Self {
            name,
            id: id.to_string(),
            fields: fields.iter().map(field).collect(),
            replication_factor: *replication_factor,
            fsync: match fsync {
                Fsync::Always => FsyncJson::Word("always"),
                Fsync::Never => FsyncJson::Word("never"),
                Fsync::EveryMs(ms) => FsyncJson::EveryMs(*ms),
            },
            points: *points,
            placement: placement.keys().map(ToString::to_string).collect(),
            nodes: nodes.iter().map(|(node, stats)| (node.to_string(), StatsJson::from(stats))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use vecino_client::{Metric, NodeId};
    use vecino_model::CollectionId;

    use super::*;

    fn arguments(dim: u32, metric: Metric) -> CreateArgs {
        CreateArgs {
            name: "films".into(),
            dim: Some(dim),
            metric: Some(metric),
            fields: Vec::new(),
            replicas: None,
            m: 16,
            ef_construction: 200,
            profile: Default::default(),
            fsync: Fsync::Always,
        }
    }

    fn info(fsync: Fsync) -> CollectionInfo {
        let schema = schema(&CreateArgs { replicas: Some(2), fsync, ..arguments(3, Metric::Cosine) }).unwrap();
        let (one, two) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
        let stats = CollectionStats { points: 5, log_bytes: 640, ..Default::default() };
        let placement = BTreeMap::from([(one, vec![1]), (two, vec![2])]);
        let mut info = CollectionInfo::new("films".into(), CollectionId([0xab; 16]), schema, placement);
        (info.points, info.nodes) = (5, BTreeMap::from([(one, stats)]));
        info
    }

    #[test]
    fn json_has_the_schema_and_the_nodes() {
        let one = "01".repeat(16);
        let two = "02".repeat(16);
        let expected = format!(
            "{{\"name\":\"films\",\"id\":\"{}\",\
             \"fields\":{{\"\":{{\"dim\":3,\"metric\":\"cosine\",\"profile\":\"fast\",\"m\":16,\"ef_construction\":200}}}},\
             \"replication_factor\":2,\"fsync\":\"always\",\"points\":5,\"placement\":[\"{one}\",\"{two}\"],\
             \"nodes\":{{\"{one}\":{{\"points\":5,\"tombstones\":0,\"unlinked\":0,\"log_bytes\":640,\"index_bytes\":0,\
             \"memory_bytes\":0,\"snapshot_lsn\":0,\"error\":null,\"state\":\"open\",\"percent\":null}}}}}}",
            "ab".repeat(16)
        );
        assert_eq!(render_one(&info(Fsync::Always), Style::Json), expected);
        assert_eq!(render_created(&info(Fsync::Always), Style::Json), expected);
        assert_eq!(render_list(&[info(Fsync::Always)], Style::Json), format!("{{\"collections\":[{expected}]}}"));
        assert!(render_one(&info(Fsync::EveryMs(250)), Style::Json).contains("\"fsync\":250,"));
        assert_eq!(render_dropped("films", 7, Style::Json), r#"{"dropped":"films","freed_bytes":7}"#);
        assert_eq!(render_dropped("films", 3 << 20, Style::Plain), "dropped films: 3.0 MiB freed on disk");
    }

    #[test]
    fn people_get_words() {
        assert_eq!(
            render_created(&info(Fsync::Always), Style::Plain),
            "created films: 3 cosine, each point on 2 nodes"
        );
        assert_eq!(
            render_list(&[info(Fsync::EveryMs(250))], Style::Plain),
            "NAME   VECTORS   REPLICAS  FSYNC         POINTS\nfilms  3 cosine         2  every 250 ms       5"
        );
        assert!(render_list(&[], Style::Plain).contains("vecino collection create"));
        let described = render_one(&info(Fsync::Never), Style::Plain);
        assert!(
            described.contains("  vector    3 values, cosine, profile fast, m 16, ef_construction 200\n"),
            "{described}"
        );
        assert!(
            described.lines().any(|line| line.starts_with("01010101 ") && line.contains("640 bytes")),
            "{described}"
        );
        assert!(described.lines().any(|line| line.starts_with("02020202 ") && line.ends_with("did not answer")));
    }

    #[test]
    fn without_replicas_the_mesh_decides() {
        let mut args = arguments(3, Metric::Dot);
        assert_eq!(schema(&args).unwrap().replication_factor, 0);
        args.replicas = Some(2);
        assert_eq!(schema(&args).unwrap().replication_factor, 2);
    }

    #[test]
    fn fields_with_names_stand_beside_the_unnamed_one() {
        let field = |name: &str, dim| NamedField { name: name.into(), dim, metric: Metric::Dot };
        let mut args = arguments(3, Metric::Cosine);
        args.fields = vec![field("title", 384), field("image", 512)];
        let dims = |args: &CreateArgs| {
            let fields = schema(args).unwrap().fields;
            fields.into_iter().map(|(name, field)| (name, field.dim)).collect::<Vec<_>>()
        };
        assert_eq!(dims(&args), [("".into(), 3), ("image".into(), 512), ("title".into(), 384)]);
        (args.dim, args.metric) = (None, None);
        assert_eq!(dims(&args), [("image".into(), 512), ("title".into(), 384)]);
        args.fields = vec![field("title", 384), field("title", 3)];
        assert!(schema(&args).unwrap_err().render(false).contains("--field \"title\" was given twice"));
    }
}
