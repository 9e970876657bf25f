//! The vecino binary: parses the command line, sets up logging and the runtime, and hands over.

use std::io::{ErrorKind, IsTerminal, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use vecino::cli::args::NodeArgs;
use vecino::cli::{self, Cli, Command, Failure};
use vecino_node::Node;
use vecino_node::config::{LogFormat, Settings};

/// Variable that says what is logged, in the notation of `tracing`'s EnvFilter.
const LOG_VARIABLE: &str = "VECINO_LOG";

fn main() -> ExitCode {
    let Cli { json, command } = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::fail(&Failure::io("cannot start the runtime", &error), json),
    };
    match command {
        Command::Client(command) => runtime.block_on(cli::run(command, json)),
        Command::Certs { command } => match cli::certs::run(command, json) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => cli::fail(&Failure::of("certificates", &*error), json),
        },
        Command::Completions { shell } => finish(cli::output::print(cli::completions(shell).trim_end()), json),
        Command::Doctor(args) => cli::doctor::run(args, json),
        Command::Node(args) => {
            let done = runtime.block_on(node(args, json));
            // A node that was stopped in order left nothing behind; one that was told twice does not wait for what it did.
            runtime.shutdown_background();
            finish(done, json)
        }
        Command::Demo(args) => finish(runtime.block_on(vecino::demo::run(args.keep, json)), json),
    }
}

fn finish(done: Result<(), Failure>, json: bool) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => cli::fail(&failure, json),
    }
}

/// Runs a node until it is told to stop.
async fn node(args: NodeArgs, json: bool) -> Result<(), Failure> {
    let (file, flags) = args.into_layer();
    let settings = Settings::load(file, flags, |name| std::env::var_os(name));
    let settings = settings.map_err(|error| Failure::of("config", &error))?;
    log_to_stderr(settings.log_format)?;
    check_address(settings.listen)?;
    let mut stop = StopSignals::new().map_err(|error| Failure::io("cannot listen for signals", &error))?;
    let node = tokio::select! {
        started = Node::start(&settings) => started.map_err(|error| Failure::of("node", &error))?,
        () = stop.next() => return Ok(()),
    };
    say_ready(&node, &settings, json);
    stop.next().await;
    tokio::select! {
        () = node.stop() => Ok(()),
        () = stop.next() => Err(Failure::new("stopped", "told to stop twice: stopped without finishing; the logs have every acknowledged write")),
    }
}

/// Fails where the node could not listen, before it makes a folder or an authority that nothing would use.
fn check_address(listen: SocketAddr) -> Result<(), Failure> {
    match UdpSocket::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let message = format!(
                "{listen} is in use, perhaps by another node: stop that one, or choose another address with --listen"
            );
            Err(Failure::new("node", message))
        }
        Err(error) => Err(Failure::new("node", format!("cannot listen on {listen}: {error}"))),
    }
}

/// Ctrl-C, SIGTERM, and SIGHUP, which the end of a terminal sends.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Says on standard output that requests are answered, and how to send some.
fn say_ready(node: &Node, settings: &Settings, json: bool) {
    let certs = node.client_certs();
    let text = if json {
        json!({ "ready": {
            "node": node.node_id().to_string(),
            "mesh": node.mesh_id().to_string(),
            "address": node.address().to_string(),
            "data": settings.data,
            "client_certs": certs,
        }})
        .to_string()
    } else {
        let certs = certs.map_or_else(|| "DIR".to_owned(), |certs| certs.display().to_string());
        format!(
            "node {} is ready in mesh {}\n  try: vecino status --connect {} --certs {certs}",
            node.node_id().short(),
            node.mesh_id(),
            node.address()
        )
    };
    // Nobody may be reading; the node serves all the same.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn log_to_stderr(format: LogFormat) -> Result<(), Failure> {
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(wanted) if !wanted.is_empty() => EnvFilter::try_new(&wanted)
            .map_err(|error| Failure::new("config", format!("{LOG_VARIABLE} is {wanted:?}: {error}")))?,
        // quinn and chitchat speak of every lost packet; what matters of that is said by this node itself.
        _ => EnvFilter::new("info,quinn=warn,quinn_proto=warn,chitchat=error"),
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
        LogFormat::Text => subscriber.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
    }
    Ok(())
}
