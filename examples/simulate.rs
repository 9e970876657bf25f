//! Runs whole meshes in virtual time, one for each seed, with faults, and judges what came of them.
//!
//! ```sh
//! cargo run --release --example simulate -- --seeds 1000
//! cargo run --release --example simulate -- --seeds 1 --from 42 --trace
//! ```
//!
//! Where a seed fails, what is needed of it for that is told, the seed stands on the last line, and the exit code is 1.

use std::process::ExitCode;
use std::time::Instant;

use vecino_mesh::plants::{Plant, Plants};
use vecino_simulation::{Options, Report, run, shrink};

const USAGE: &str = "\
simulate [--seeds N] [--from S] [--plant NAME] [--faults all] [--engine] [--trace]

  --seeds N      number of seeds to run, 1 to 2^32 (default 100)
  --from S       the first seed (default 0)
  --plant NAME   break this rule on purpose; `--plant list` lists them
  --faults all   faults, too, whose rules are not built yet
  --engine       run those seeds alone whose replicas are the engine
  --trace        write down what happens; of a seed that fails, what is needed for that";

struct Arguments {
    seeds: u64,
    from: u64,
    engine_alone: bool,
    options: Options,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let Arguments { seeds, from, engine_alone, options } = arguments;
    let began = Instant::now();
    let (mut ran, mut operations, mut done, mut faults, mut events) = (0_u64, 0, 0, 0, 0);
    for seed in from..from.saturating_add(seeds) {
        if engine_alone && seed % 10 != 7 {
            continue;
        }
        let report = run(seed, Options { trace: options.trace && seeds == 1, ..options });
        ran += 1;
        (operations, done) = (operations + report.operations, done + report.done);
        (faults, events) = (faults + report.faults, events + report.events);
        if report.violation.is_some() {
            return failed(&report, options);
        }
        report.trace.iter().for_each(|line| println!("{line}"));
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{ran} seeds from {from} on, nothing wrong: {operations} operations, {done} of them done, {faults} faults, \
         {events} events in {took:.1} s: {:.1} seeds a second",
        ran as f64 / took
    );
    ExitCode::SUCCESS
}

/// Says what is wrong with a seed, and with what of its plan it still is.
fn failed(report: &Report, options: Options) -> ExitCode {
    let Some(violation) = &report.violation else { return ExitCode::SUCCESS };
    println!("seed {}: {violation}", report.seed);
    if let Some((faults, clients, smaller)) = shrink(report.seed, options) {
        smaller.trace.iter().for_each(|line| println!("{line}"));
        if let Some(violation) = &smaller.violation {
            println!("with {faults} of its faults and {clients} of its clients: {violation}");
        }
    }
    println!("{}", report.seed);
    ExitCode::FAILURE
}

/// What the command line asks for; nothing where it only asks for help.
fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut parsed = Arguments { seeds: 100, from: 0, engine_alone: false, options: Options::default() };
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        let number = |text: String| {
            text.parse::<u64>().map_err(|_| format!("{name} {text:?}: give a number from 0 to 2^64 - 1"))
        };
        match name.as_str() {
            "--seeds" => {
                parsed.seeds = number(value()?)?;
                if parsed.seeds == 0 || parsed.seeds > 1 << 32 {
                    return Err(format!("--seeds {}: give 1 to 2^32", parsed.seeds));
                }
            }
            "--from" => parsed.from = number(value()?)?,
            "--plant" => {
                let plant = value()?;
                if plant == "list" {
                    Plant::ALL.iter().for_each(|plant| println!("{plant}"));
                    return Ok(None);
                }
                let found: Plant = plant.parse().map_err(|unknown| format!("{unknown}: `--plant list` lists them"))?;
                parsed.options.plants = Plants::only(found);
            }
            "--faults" => match value()?.as_str() {
                "all" => parsed.options.all_faults = true,
                other => return Err(format!("--faults {other:?}: there is \"all\"")),
            },
            "--engine" => parsed.engine_alone = true,
            "--trace" => parsed.options.trace = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(None);
            }
            other => return Err(format!("there is no {other}")),
        }
    }
    Ok(Some(parsed))
}
