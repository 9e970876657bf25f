//! `vecino status | ring | snapshot`.

use std::collections::BTreeMap;

use serde::Serialize;
use vecino_client::{
    ClockStatus, MemoryUse, NodeId, NodeState, NodeStatus, RangeInfo, RingReply, Serving, SnapshotReport, StatusReply,
};

use super::args::{RingArgs, SnapshotArgs, StatusArgs};
use super::collection::StatsJson;
use super::connection::connect_running;
use super::failure::Failure;
use super::output::{Style, Table, json, percent, print, printable};
use vecino_engine::memory::Bytes;
use vecino_mesh::wall_clocks::OFF_MS_MAX;

/// `vecino status`.
pub async fn status(args: StatusArgs, style: Style) -> Result<(), Failure> {
    let client = connect_running(&args.connection).await?;
    let reply = client.status().await?;
    client.close().await;
    print(&render_status(&reply, style))
}

/// `vecino ring`.
pub async fn ring(args: RingArgs, style: Style) -> Result<(), Failure> {
    let client = connect_running(&args.connection).await?;
    let reply = match args.collection {
        Some(collection) => client.collection(collection).ring().await?,
        None => client.ring().await?,
    };
    client.close().await;
    print(&render_ring(&reply, style))
}

/// `vecino snapshot`. Fails when it failed anywhere, after showing where.
pub async fn snapshot(args: SnapshotArgs, style: Style) -> Result<(), Failure> {
    let client = connect_running(&args.connection).await?;
    let reports = match args.collection {
        Some(collection) => client.collection(collection).snapshot().await?,
        None => client.snapshot().await?,
    };
    client.close().await;
    print(&render_snapshots(&reports, style))?;
    match reports.iter().filter(|report| report.error.is_some()).count() {
        0 => Ok(()),
        failed => Err(Failure::new("snapshot", format!("{failed} of {} snapshots failed", reports.len()))),
    }
}

/// The state of the mesh as text.
pub fn render_status(reply: &StatusReply, style: Style) -> String {
    let StatusReply { mesh, answered_by, nodes, .. } = reply;
    if style == Style::Json {
        return json(&StatusJson {
            mesh: mesh.to_string(),
            answered_by: answered_by.to_string(),
            nodes: nodes.iter().map(NodeJson::from).collect(),
        });
    }
    let up = nodes.iter().filter(|node| node.state == NodeState::Up).count();
    let headings = ["name", "node", "address", "state", "#points", "#owns", "#memory", "#limit", "version"];
    // On a terminal troubles follow the table, each on a line of its own; in a pipe they stay with their node.
    let headings = headings.into_iter().chain((style != Style::Terminal).then_some("trouble"));
    let mut table = Table::new(&headings.collect::<Vec<_>>()).expendable(&["version", "#limit", "#owns"]);
    let mut troubles = String::new();
    for node in nodes {
        let NodeStatus { id, address, state, points, owns, name, software, memory, panics, clock, collections, .. } =
            node;
        let panicked = panics.filter(|panics| *panics > 0).map(|panics| format!("{panics} panics: its log says where"));
        let of_collections = collections.iter().filter_map(|(name, stats)| match (&stats.error, stats.serving) {
            (Some(error), Serving::NeedsCopy) => Some(format!("{name}: {error} ({})", stats.serving.name())),
            (Some(error), _) => Some(format!("{name}: {error}")),
            (None, Serving::Opening | Serving::Warming) => {
                Some(format!("{name}: {} {} %", stats.serving.name(), stats.percent.unwrap_or(0)))
            }
            (None, _) => None,
        });
        let clock = clock.and_then(clock_trouble);
        let trouble: Vec<String> = clock.into_iter().chain(panicked).chain(of_collections).collect();
        let trouble = printable(&trouble.join("; "));
        if style == Style::Terminal && !trouble.is_empty() {
            let name = if name.is_empty() { String::new() } else { format!("{} ", printable(name)) };
            troubles.push_str(&format!("\n{name}{}: {trouble}", id.short()));
        }
        let cells = vec![
            style.shorten(printable(name)),
            id.short() + if id == answered_by { " *" } else { "" },
            printable(address),
            state_name(*state).to_owned(),
            points.map_or_else(unheard, |points| points.to_string()),
            percent(*owns),
            memory.map_or_else(unheard, |memory| Bytes(memory.used_bytes).to_string()),
            memory.map_or_else(unheard, |memory| limit_text(memory.limit_bytes)),
            printable(software.trim_start_matches("vecino ")),
        ];
        table.row(cells.into_iter().chain((style != Style::Terminal).then_some(trouble)).collect());
    }
    let table = table.render(style);
    format!("mesh {mesh}: {up} of {} nodes up; * answered\n{table}{troubles}", nodes.len())
}

/// The ring as text.
pub fn render_ring(reply: &RingReply, style: Style) -> String {
    let RingReply { ranges, owns, replication_factor, .. } = reply;
    if style == Style::Json {
        return json(&RingJson {
            replication_factor: *replication_factor,
            owns: owns.iter().map(|(node, share)| (node.to_string(), *share)).collect(),
            ranges: ranges.iter().map(RangeJson::from).collect(),
        });
    }
    let mut shares = Table::new(&["node", "#owns"]);
    for (node, share) in owns {
        shares.row(vec![node.short(), percent(*share)]);
    }
    let mut table = Table::new(&["from", "to", "replicas"]);
    for RangeInfo { start, end, replicas } in ranges {
        let replicas: Vec<String> = replicas.iter().map(NodeId::short).collect();
        table.row(vec![position(*start), position(*end), replicas.join(" ")]);
    }
    format!("{}\n\n{}", shares.render(style), table.render(style))
}

/// What was snapshotted, as text.
pub fn render_snapshots(reports: &[SnapshotReport], style: Style) -> String {
    #[derive(Serialize)]
    struct Snapshots<'a> {
        snapshots: Vec<SnapshotJson<'a>>,
    }
    if style == Style::Json {
        return json(&Snapshots { snapshots: reports.iter().map(SnapshotJson::from).collect() });
    }
    if reports.is_empty() {
        return "no collection to take a snapshot of".to_owned();
    }
    let mut table = Table::new(&["node", "collection", "#lsn", "#pages", "#written", "#ms", "error"])
        .expendable(&["#lsn", "#pages"])
        .flexible("error");
    for SnapshotReport { node, collection, lsn, pages, pages_written, milliseconds, error, .. } in reports {
        let numbers = [lsn, pages, pages_written, milliseconds].map(u64::to_string);
        let error = style.shorten(error.as_deref().map(printable).unwrap_or_default());
        table.row([node.short(), printable(collection)].into_iter().chain(numbers).chain([error]).collect());
    }
    table.render(style)
}

/// A place on the ring in 16 hex digits, because many readers of JSON have no exact 64-bit integers.
fn position(place: u64) -> String {
    format!("{place:016x}")
}

fn limit_text(limit_bytes: u64) -> String {
    if limit_bytes == u64::MAX { "none".to_owned() } else { Bytes(limit_bytes).to_string() }
}

/// What is wrong with a clock, as its node sees it.
fn clock_trouble(clock: ClockStatus) -> Option<String> {
    let ClockStatus { ahead_ms, heard, refuses_one, .. } = clock;
    let (off_ms, way) = (ahead_ms.unsigned_abs(), if ahead_ms < 0 { "behind" } else { "ahead of" });
    if refuses_one {
        return Some(format!(
            "clock {off_ms} ms {way} the median of {} nodes: set it; writes at level one are refused",
            u64::from(heard) + 1
        ));
    }
    // Half of those that are heard differ from the other half.
    (off_ms > OFF_MS_MAX).then(|| {
        format!("clock {off_ms} ms {way} those of half of the nodes, which may be right: set those that are wrong")
    })
}

/// In the place of a figure of a node that did not answer.
fn unheard() -> String {
    "?".to_owned()
}

/// A node's state in a word.
pub fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Down => "down",
    }
}

#[derive(Serialize)]
struct StatusJson<'a> {
    mesh: String,
    answered_by: String,
    nodes: Vec<NodeJson<'a>>,
}

#[derive(Serialize)]
struct NodeJson<'a> {
    id: String,
    address: &'a str,
    state: &'static str,
    points: Option<u64>,
    owns: f64,
    name: &'a str,
    software: &'a str,
    memory: Option<MemoryJson>,
    panics: Option<u64>,
    clock: Option<ClockJson>,
    collections: BTreeMap<&'a str, StatsJson<'a>>,
}

#[derive(Serialize)]
struct ClockJson {
    ahead_ms: i64,
    heard: u32,
    refuses_one: bool,
}

#[derive(Serialize)]
struct MemoryJson {
    used_bytes: u64,
    limit_bytes: u64,
}

impl<'a> From<&'a NodeStatus> for NodeJson<'a> {
    fn from(node: &'a NodeStatus) -> Self {
        let NodeStatus { id, address, state, points, owns, name, software, memory, panics, clock, collections, .. } =
            node;
        let clock =
            clock.map(|ClockStatus { ahead_ms, heard, refuses_one, .. }| ClockJson { ahead_ms, heard, refuses_one });
        let memory = memory.map(|MemoryUse { used_bytes, limit_bytes }| MemoryJson { used_bytes, limit_bytes });
        Self {
            id: id.to_string(),
            address,
            state: state_name(*state),
            points: *points,
            owns: *owns,
            name,
            software,
            memory,
            panics: *panics,
            clock,
            collections: collections.iter().map(|(name, stats)| (name.as_str(), stats.into())).collect(),
        }
    }
}

#[derive(Serialize)]
struct RingJson {
    replication_factor: u32,
    owns: BTreeMap<String, f64>,
    ranges: Vec<RangeJson>,
}

#[derive(Serialize)]
struct RangeJson {
    start: String,
    end: String,
    replicas: Vec<String>,
}

impl From<&RangeInfo> for RangeJson {
    fn from(range: &RangeInfo) -> Self {
        let RangeInfo { start, end, replicas } = range;
        let replicas = replicas.iter().map(ToString::to_string).collect();
        Self { start: position(*start), end: position(*end), replicas }
    }
}

#[derive(Serialize)]
struct SnapshotJson<'a> {
    node: String,
    collection: &'a str,
    lsn: u64,
    pages: u64,
    pages_written: u64,
    milliseconds: u64,
    error: Option<&'a str>,
}

impl<'a> From<&'a SnapshotReport> for SnapshotJson<'a> {
    fn from(report: &'a SnapshotReport) -> Self {
        let SnapshotReport { node, collection, lsn, pages, pages_written, milliseconds, error, .. } = report;
        Self {
            node: node.to_string(),
            collection,
            lsn: *lsn,
            pages: *pages,
            pages_written: *pages_written,
            milliseconds: *milliseconds,
            error: error.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use vecino_client::CollectionStats;
    use vecino_model::MeshId;

    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 16])
    }

    fn status() -> StatusReply {
        let quarantined =
            CollectionStats { error: Some("bad page".into()), serving: Serving::NeedsCopy, ..Default::default() };
        let mut one = NodeStatus::new(node(1), "127.0.0.1:7400".into(), NodeState::Up);
        (one.points, one.owns, one.panics) = (Some(5), 0.25, Some(2));
        (one.name, one.software) = ("n1".into(), "0.1.0".into());
        one.memory = Some(MemoryUse { used_bytes: 3 << 29, limit_bytes: 4 << 30 });
        one.collections = BTreeMap::from([("films".into(), quarantined)]);
        one.clock = Some(ClockStatus::new(-3_600_000, 2, true));
        let mut two = NodeStatus::new(node(2), String::new(), NodeState::Down);
        two.owns = 0.75;
        StatusReply::new(MeshId([0xcd; 16]), node(1), vec![one, two])
    }

    #[test]
    fn status_answers_in_the_shape_that_scripts_rely_on() {
        let value: serde_json::Value = serde_json::from_str(&render_status(&status(), Style::Json)).unwrap();
        assert_eq!(value["mesh"], "cd".repeat(16));
        assert_eq!(value["answered_by"], "01".repeat(16));
        assert_eq!(value["nodes"][0]["id"], "01".repeat(16));
        assert_eq!((&value["nodes"][0]["name"], &value["nodes"][1]["name"]), (&"n1".into(), &"".into()));
        assert_eq!(value["nodes"][0]["state"], "up");
        assert_eq!(value["nodes"][0]["points"], 5);
        assert_eq!(value["nodes"][0]["owns"], 0.25);
        assert_eq!(value["nodes"][0]["collections"]["films"]["error"], "bad page");
        assert_eq!(
            value["nodes"][0]["memory"],
            serde_json::json!({ "used_bytes": 3u64 << 29, "limit_bytes": 4u64 << 30 })
        );
        assert_eq!(value["nodes"][1]["memory"], serde_json::Value::Null);
        assert_eq!(value["nodes"][0]["panics"], 2);
        assert_eq!(value["nodes"][0]["collections"]["films"]["state"], "needs copy from replicas");
        let clock = serde_json::json!({ "ahead_ms": -3_600_000, "heard": 2, "refuses_one": true });
        assert_eq!((&value["nodes"][0]["clock"], &value["nodes"][1]["clock"]), (&clock, &serde_json::Value::Null));
        assert_eq!(value["nodes"][1]["state"], "down");
        assert_eq!(value["nodes"][1]["points"], serde_json::Value::Null);
    }

    #[test]
    fn people_see_who_is_down_and_what_is_wrong() {
        let text = render_status(&status(), Style::Plain);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], format!("mesh {}: 1 of 2 nodes up; * answered", "cd".repeat(16)));
        assert!(lines[2].starts_with("n1    01010101 *  127.0.0.1:7400  up"), "{text}");
        assert!(lines[2].contains("1.5 GiB  4.0 GiB"), "{text}");
        assert!(lines[2].contains("2 panics: its log says where; films: bad page"), "{text}");
        assert!(lines[2].contains("25.0 %") && lines[2].contains("films: bad page"), "{text}");
        assert!(lines[3].contains("down") && lines[3].contains('?'), "{text}");
    }

    #[test]
    fn on_a_terminal_troubles_follow_the_table() {
        let text = render_status(&status(), Style::Terminal);
        let table = text.lines().filter(|line| line.contains('│')).collect::<Vec<_>>().join("\n");
        assert!(!table.contains("trouble") && !table.contains("bad page"), "{text}");
        let troubles = "clock 3600000 ms behind the median of 3 nodes: set it; writes at level one are refused; \
                        2 panics: its log says where; films: bad page (needs copy from replicas)";
        assert!(text.ends_with(&format!("\nn1 01010101: {troubles}")), "{text}");
    }

    #[test]
    fn a_clock_that_differs_is_named_where_nobody_can_tell_which_is_wrong() {
        let text = |ahead_ms, refuses_one| clock_trouble(ClockStatus::new(ahead_ms, 1, refuses_one));
        assert_eq!(text(500, false), None);
        assert!(text(-501, false).unwrap().starts_with("clock 501 ms behind those of half of the nodes"));
        assert!(text(501, true).unwrap().contains("ahead of the median of 2 nodes"));
    }

    #[test]
    fn a_ring_shows_every_range_exactly() {
        let reply = RingReply::new(
            vec![RangeInfo { start: u64::MAX, end: 15, replicas: vec![node(2), node(1)] }],
            BTreeMap::from([(node(1), 0.5), (node(2), 0.5)]),
            2,
        );
        let (one, two) = ("01".repeat(16), "02".repeat(16));
        assert_eq!(
            render_ring(&reply, Style::Json),
            format!(
                "{{\"replication_factor\":2,\"owns\":{{\"{one}\":0.5,\"{two}\":0.5}},\"ranges\":[{{\
                 \"start\":\"ffffffffffffffff\",\"end\":\"000000000000000f\",\"replicas\":[\"{two}\",\"{one}\"]}}]}}"
            )
        );
        let text = render_ring(&reply, Style::Plain);
        assert!(text.contains("ffffffffffffffff  000000000000000f  02020202 01010101"), "{text}");
        assert!(text.contains("01010101  50.0 %"), "{text}");
    }

    #[test]
    fn snapshots_are_listed_by_node() {
        let report = |error: Option<&str>| {
            let mut report = SnapshotReport::new(node(1), "films".into());
            (report.lsn, report.pages, report.pages_written, report.milliseconds) = (7, 3, 1, 12);
            report.error = error.map(str::to_owned);
            report
        };
        assert_eq!(
            render_snapshots(&[report(None)], Style::Json),
            format!(
                "{{\"snapshots\":[{{\"node\":\"{}\",\"collection\":\"films\",\"lsn\":7,\"pages\":3,\"pages_written\":1,\
                 \"milliseconds\":12,\"error\":null}}]}}",
                "01".repeat(16)
            )
        );
        let text = render_snapshots(&[report(Some("disk full"))], Style::Plain);
        assert!(text.ends_with("01010101  films         7      3        1  12  disk full"), "{text}");
        assert_eq!(render_snapshots(&[], Style::Plain), "no collection to take a snapshot of");
    }
}
