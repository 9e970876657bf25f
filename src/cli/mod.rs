//! The command line: what is typed ([`args`]), and every command that asks something of a running mesh.
//!
//! A command's answer goes to standard output, what went wrong to standard error. The exit code is 0 only when all was
//! done, 1 for a failure, 2 for a command line that is wrong, 130 after Ctrl-C. Running a node and the demonstration live elsewhere;
//! [`certs`] and [`doctor`] ask no mesh.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser};

pub mod args;
mod backup;
mod bench;
pub mod certs;
mod collection;
mod connection;
pub mod doctor;
mod export;
pub mod failure;
mod import;
mod journal;
mod measure;
mod mesh;
pub mod output;
mod point;
mod progress;
mod search;
mod tally;
mod text;
pub mod values;

pub use args::{Cli, ClientCommand, Command};
pub use failure::Failure;
pub use mesh::{render_status, state_name};
pub use output::Style;
pub use search::render as render_search;

/// Parses the command line. Where it is wrong, or only asks for help, says so and returns the exit code.
pub fn parse(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, ExitCode> {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    Cli::try_parse_from(&arguments).map_err(|error| {
        let error = with_short_value(error);
        // Without a Cli nobody knows whether JSON was asked for, except by looking.
        if error.use_stderr() && arguments.iter().any(|argument| argument == "--json") {
            eprintln!("{}", usage_failure(&error).render(true));
        } else {
            // A closed pipe is no reason for another message.
            let _ = error.print();
        }
        ExitCode::from(exit_code(&error))
    })
}

/// The error with the value that it quotes cut, where that is long.
fn with_short_value(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
        let value = text::cut(value);
        error.insert(ContextKind::InvalidValue, ContextValue::String(value));
    }
    error
}

/// The script that completes commands in a shell.
pub fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vecino", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Carries out a command and reports its failure, if it fails.
pub async fn run(command: ClientCommand, json: bool) -> ExitCode {
    let style = Style::of_stdout(json);
    let done = match command {
        ClientCommand::Collection(args) => collection::run(args, style).await,
        ClientCommand::Put(args) => point::put(args, style).await,
        ClientCommand::Get(args) => point::get(args, style).await,
        ClientCommand::Delete(args) => point::delete(args, style).await,
        ClientCommand::Search(args) => search::run(args, style).await,
        ClientCommand::Import(args) => import::run(args, style).await,
        ClientCommand::Export(args) => export::run(args, style).await,
        ClientCommand::Bench(args) => bench::run(args, style).await,
        ClientCommand::Status(args) => mesh::status(args, style).await,
        ClientCommand::Ring(args) => mesh::ring(args, style).await,
        ClientCommand::Snapshot(args) => mesh::snapshot(args, style).await,
        ClientCommand::Backup { command } => backup::run(command, style).await,
        ClientCommand::Restore(args) => backup::restore(args, style).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure, json),
    }
}

/// Reports a failure on standard error and returns its exit code.
pub fn fail(failure: &Failure, json: bool) -> ExitCode {
    // The terminal may be gone; the exit code says that it failed all the same.
    let _ = writeln!(io::stderr(), "{}", failure.render(json));
    ExitCode::from(failure.exit_code())
}

/// 2 for a wrong command line, 0 for help and version.
fn exit_code(error: &clap::Error) -> u8 {
    if error.use_stderr() { 2 } else { 0 }
}

/// What clap says, on one line and without its own "error:".
fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    let words: Vec<&str> = text.trim_start_matches("error: ").split_whitespace().collect();
    Failure::new("usage", words.join(" "))
}

#[cfg(test)]
mod tests;
