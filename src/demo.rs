//! `vecino demo`: three nodes on this machine, real data, one killed and started again, shown step by step.

use std::cell::Cell;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use vecino_certs::{Authority, IssueOptions, Role};
use vecino_client::{Client, Metric, NodeState, PointId, payload, point};

use crate::cli::output::terminal_width;
use crate::cli::{Failure, Style, render_search, render_status, state_name};
use crate::colors::{NamedColor, named_colors};
use crate::process::{NodeCommand, NodeProcess, ProcessError};

const NODES: usize = 3;
const COLLECTION: &str = "colors";
/// The colour whose neighbours are looked for.
const WANTED: &str = "coral";
/// A colour that is no named one: sRGB #e2725b, with its place in L*a*b* under D65.
const NEW_COLOR: (&str, &str, [f32; 3]) = ("terracotta", "#e2725b", [60.75, 41.59, 32.80]);
/// How long the mesh may take to notice that a node is gone or back.
const NOTICE_WAIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs the demonstration; with `keep` the nodes stay until Ctrl-C.
pub async fn run(keep: bool, json: bool) -> Result<(), Failure> {
    // Whether everything was shown, and only Ctrl-C is waited for.
    let shown = Cell::new(false);
    tokio::select! {
        done = show(keep, Narrator { style: Style::of_stdout(json) }, &shown) => done,
        interrupted = interrupted() => {
            interrupted.map_err(|error| Failure::io("cannot listen for signals", &error))?;
            // The nodes are killed and their folder is removed with what `show` held.
            if shown.get() {
                Ok(())
            } else {
                Err(Failure::new("interrupted", "interrupted; the nodes are stopped and their folder is removed"))
            }
        }
    }
}

/// Ctrl-C, SIGTERM, or the end of the terminal.
async fn interrupted() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
    }
}

/// Says what happens, to people or to scripts.
#[derive(Clone, Copy)]
struct Narrator {
    style: Style,
}

impl Narrator {
    fn say(self, text: &str) {
        if self.style != Style::Json {
            print_line(text);
        }
    }

    /// A heading, and the object that a script gets in its place.
    fn step(self, heading: &str, event: &serde_json::Value) {
        match self.style {
            Style::Json => print_line(&event.to_string()),
            Style::Plain => print_line(&format!("\n== {heading}")),
            Style::Terminal => print_line(&format!("\n\x1b[1m== {heading}\x1b[0m")),
        }
    }

    /// A table, set in where there is room for that.
    fn show(self, table: &str) {
        let widest = table.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        let has_room = self.style != Style::Terminal || widest + INDENT.len() <= terminal_width();
        let indent = if has_room { INDENT } else { "" };
        table.lines().for_each(|line| self.say(&format!("{indent}{line}")));
    }
}

/// What stands before the lines below a heading.
const INDENT: &str = "   ";

/// Writes a line. Nobody may be reading any more, as behind `head`; what the demonstration started is then ended all the
/// same.
fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

async fn show(keep: bool, narrator: Narrator, shown: &Cell<bool>) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(|error| Failure::io("cannot make a temporary folder", &error))?;
    let mut mesh = Mesh::start(folder.path(), narrator).await?;
    let first = mesh.client(0).await?;

    let colors = named_colors();
    first.collection(COLLECTION).create(3, Metric::Euclidean).await?;
    let started = Instant::now();
    let points = colors.iter().map(|NamedColor { name, hex, lab }| color_point(name, hex, *lab));
    first.collection(COLLECTION).put(points).await?;
    narrator.step(
        &format!("{} colours loaded in {:.0?}", colors.len(), started.elapsed()),
        &json!({ "step": "loaded", "points": colors.len() }),
    );
    narrator.say("   The named colours of CSS (W3C, CSS Color Module Level 4) as points in the");
    narrator.say("   CIE L*a*b* space, where near means similar to the eye. Each is kept by");
    narrator.say("   three nodes, and two had it on disk before it counted.");

    search(&first, narrator, &format!("What looks most like {WANTED:?}? Asked at node 1"), "search").await?;

    let killed_at = Instant::now();
    let killed = mesh.kill(1).await?;
    narrator
        .step("Node 2 killed with SIGKILL, as by a power cut", &json!({ "step": "killed", "node": killed.node_id }));
    search(&first, narrator, "The same search, before anybody has noticed", "search_unnoticed").await?;
    mesh.await_state(&first, &killed.node_id, NodeState::Down).await?;
    let noticed = killed_at.elapsed();
    narrator.step(
        &format!("The others have noticed, {noticed:.1?} after the kill"),
        &json!({ "step": "noticed", "milliseconds": noticed.as_millis() as u64 }),
    );
    narrator.show(&render_status(&first.status().await?, narrator.style));
    search(&first, narrator, "The same search, one node down: nothing is missing", "search_down").await?;

    let (name, hex, lab) = NEW_COLOR;
    first.collection(COLLECTION).put([color_point(name, hex, lab)]).await?;
    narrator.step(&format!("{name} ({hex}) put while node 2 is away"), &json!({ "step": "put", "id": name }));
    narrator.say("   Two of its three nodes have it on disk: a majority, so it counts.");

    let started = Instant::now();
    mesh.restart(killed).await?;
    let second = mesh.client(1).await?;
    let node = mesh.node(1).node_id().to_owned();
    mesh.await_state(&first, &node, NodeState::Up).await?;
    narrator.step(
        &format!("Node 2 started again, back in the mesh after {:.1?}", started.elapsed()),
        &json!({ "step": "restarted", "node": node, "milliseconds": started.elapsed().as_millis() as u64 }),
    );
    let held = held_by(&second, &node).await?;
    let all = colors.len() as u64 + 1;
    narrator.say(&format!("   Its own log brought back {held} of {all} colours."));
    caught_up(&second, narrator, &node, held, all).await?;
    search(&second, narrator, "The search once more, asked at node 2", "search_restarted").await?;

    what_next(&mesh, narrator, keep);
    if keep {
        shown.set(true);
        // Until Ctrl-C drops this.
        std::future::pending::<()>().await;
    }
    mesh.stop().await
}

/// Says whether a node that was away has what was put meanwhile, by looking.
async fn caught_up(client: &Client, narrator: Narrator, node: &str, held: u64, all: u64) -> Result<(), Failure> {
    let (name, _, _) = NEW_COLOR;
    if held == all {
        narrator.step("It has caught up with what was put meanwhile", &json!({ "step": "caught_up", "points": held }));
        return Ok(());
    }
    narrator.step(
        &format!("It has not caught up: {} put meanwhile is missing there", all - held),
        &json!({ "step": "not_caught_up", "points": held, "missing": all - held }),
    );
    narrator.say("   This version cannot yet hand a node what it missed. Reads and searches ask");
    narrator.say("   a majority, so none of them is wrong meanwhile, and a read gives the node");
    narrator.say("   that it asks its copy:");
    let found = client.collection(COLLECTION).get_one(name).await?;
    let held = held_by(client, node).await?;
    narrator.step(
        &format!("{name} read through node 2"),
        &json!({ "step": "read", "id": name, "found": found.is_some(), "points": held }),
    );
    match found {
        Some(_) => narrator.say(&format!("   Found, and node 2 now holds {held} of {all}.")),
        None => return Err(Failure::new("demo", format!("{name} was acknowledged and is not there"))),
    }
    Ok(())
}

fn what_next(mesh: &Mesh, narrator: Narrator, keep: bool) {
    let program = shown(&mesh.program);
    let certs = mesh.client_certs();
    narrator.step(
        if keep { "The mesh stays until Ctrl-C" } else { "What to try next" },
        &json!({
            "step": "done",
            "kept": keep,
            "nodes": mesh.nodes.iter().flatten().map(|node| node.address().to_string()).collect::<Vec<_>>(),
            "client_certs": if keep { Some(&certs) } else { None },
        }),
    );
    if keep {
        let connect = format!("--connect {} --certs {}", mesh.node(0).address(), certs.display());
        narrator.say(&format!("   {program} status {connect}"));
        narrator.say(&format!("   {program} search {COLLECTION} --id tomato {connect}"));
        narrator.say(&format!("   {program} ring {connect}"));
        for (number, node) in mesh.nodes.iter().enumerate() {
            if let Some(process) = node.as_ref().and_then(NodeProcess::process_id) {
                narrator.say(&format!("   kill -9 {process}   # node {}", number + 1));
            }
        }
        return;
    }
    narrator.say(&format!("   {program} demo --keep    # the same mesh, left running"));
    narrator.say(&format!("   {program} node           # a node of your own, in ./vecino-data"));
    narrator.say(&format!("   {program} --help         # collections, import, search, bench"));
    narrator.say("   README.md shows how to start a mesh on several machines.");
}

/// The program as it would be typed here.
fn shown(program: &Path) -> String {
    let here = std::env::current_dir().ok();
    here.and_then(|here| program.strip_prefix(here).ok()).unwrap_or(program).display().to_string()
}

async fn search(client: &Client, narrator: Narrator, heading: &str, step: &str) -> Result<(), Failure> {
    let started = Instant::now();
    let reply = client.collection(COLLECTION).search_like(WANTED).k(5).await?;
    let took = started.elapsed();
    let ids: Vec<&PointId> = reply.hits.iter().map(|hit| &hit.id).collect();
    narrator.step(
        &format!("{heading} ({took:.1?})"),
        &json!({ "step": step, "milliseconds": took.as_millis() as u64, "ids": ids, "coverage": reply.coverage }),
    );
    narrator.show(&render_search(&reply, narrator.style));
    Ok(())
}

fn color_point(name: &str, hex: &str, lab: [f32; 3]) -> vecino_client::Point {
    point(name, lab, payload! { "hex": hex })
}

/// Points that a node holds, as it says itself.
async fn held_by(client: &Client, node: &str) -> Result<u64, Failure> {
    let status = client.status().await?;
    let points = status.nodes.iter().find(|status| status.id.to_string() == node).and_then(|status| status.points);
    points.ok_or_else(|| Failure::new("demo", format!("node {node} does not say what it holds")))
}

// ------------------------------------------------------------------------------------------------- the mesh

struct Mesh {
    program: PathBuf,
    folder: PathBuf,
    /// A node that was killed has no process.
    nodes: Vec<Option<NodeProcess>>,
}

/// A node that was killed, and what starts it again.
struct Killed {
    number: usize,
    node_id: String,
    command: NodeCommand,
}

impl Mesh {
    /// Makes an authority and starts the nodes, each in a process of its own.
    async fn start(folder: &Path, narrator: Narrator) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::io("cannot find this program", &error))?;
        let authority = Authority::init(folder.join("authority"), "demo").map_err(certificates)?;
        let issue = |name: &str, role| {
            let issued = authority.issue(&IssueOptions::new(name, role)).map_err(certificates)?;
            issued.write(folder.join(name)).map_err(certificates)
        };
        issue("client", Role::Client)?;
        let mut mesh = Self { program, folder: folder.to_owned(), nodes: Vec::new() };
        let mut seeds = Vec::new();
        for number in 1..=NODES {
            let name = format!("node-{number}");
            issue(&name, Role::Node)?;
            let command = NodeCommand {
                program: mesh.program.clone(),
                data: folder.join(format!("{name}-data")),
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                certs: Some(folder.join(&name)),
                seeds: seeds.clone(),
                memory_limit: None,
                launcher: Vec::new(),
                environment: Vec::new(),
            };
            let node = command.start().await.map_err(process)?;
            seeds = vec![
                mesh.nodes.first().unwrap_or(&None).as_ref().map_or(node.address(), NodeProcess::address).to_string(),
            ];
            mesh.nodes.push(Some(node));
        }
        let client = mesh.client(0).await?;
        for node in mesh.nodes.iter().flatten() {
            mesh.await_state(&client, node.node_id(), NodeState::Up).await?;
        }
        let nodes: Vec<_> = mesh.nodes.iter().flatten().collect();
        narrator.step(
            &format!("A mesh of {NODES} nodes on this machine"),
            &json!({ "step": "started", "nodes": nodes.iter().map(|node| node.node_id()).collect::<Vec<_>>() }),
        );
        for (number, node) in nodes.iter().enumerate() {
            let process = node.process_id().unwrap_or_default();
            let id = &node.node_id()[..8];
            narrator.say(&format!("   node {}: {id} at {}, process {process}", number + 1, node.address()));
        }
        Ok(mesh)
    }

    fn node(&self, number: usize) -> &NodeProcess {
        self.nodes[number].as_ref().expect("the demonstration only asks nodes that run")
    }

    fn client_certs(&self) -> PathBuf {
        self.folder.join("client")
    }

    async fn client(&self, number: usize) -> Result<Client, Failure> {
        let address = self.node(number).address().to_string();
        Ok(Client::builder().connect(address).certs(self.client_certs()).build().await?)
    }

    async fn kill(&mut self, number: usize) -> Result<Killed, Failure> {
        let node = self.nodes[number].take().expect("it runs");
        let node_id = node.node_id().to_owned();
        Ok(Killed { number, node_id, command: node.kill().await.map_err(process)? })
    }

    async fn restart(&mut self, killed: Killed) -> Result<(), Failure> {
        let Killed { number, node_id: _, command } = killed;
        self.nodes[number] = Some(command.start().await.map_err(process)?);
        Ok(())
    }

    /// Waits until the node that `client` asks sees another one in a state.
    async fn await_state(&self, client: &Client, node: &str, state: NodeState) -> Result<(), Failure> {
        let started = Instant::now();
        while started.elapsed() < NOTICE_WAIT {
            let status = client.status().await?;
            if status.nodes.iter().any(|status| status.id.to_string() == node && status.state == state) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(Failure::new("demo", format!("node {node} was not seen {} within {NOTICE_WAIT:?}", state_name(state))))
    }

    async fn stop(self) -> Result<(), Failure> {
        for node in self.nodes.into_iter().flatten() {
            node.stop().await.map_err(process)?;
        }
        Ok(())
    }
}

fn process(error: ProcessError) -> Failure {
    Failure::of("demo", &error)
}

fn certificates(error: vecino_certs::CertsError) -> Failure {
    Failure::of("certificates", &error)
}
