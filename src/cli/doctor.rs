//! `vecino doctor`: what is wrong with a data directory on which no node runs, and repairing what loses nothing.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use vecino_storage::{DirLock, Disk, RealDisk};

use super::args::DoctorArgs;
use super::failure::Failure;
use super::output::{self, Style, Table, printable};
use crate::doctor::{CollectionReport, Diagnosis, Loss, Repair, Repaired, Report, examine, repair};
use vecino_node::{catalog_file, collection_files, state};

/// Findings that are told one by one to people; `--json` has all of them.
const FINDINGS_SHOWN: usize = 50;

/// Examines, repairs if that is asked for, and says what was found: exit code 0 where nothing is damaged any more, 1
/// where damage remains or nothing could be examined, 2 where the folder is no data directory.
pub fn run(args: DoctorArgs, json: bool) -> ExitCode {
    match examine_and_print(&args, Style::of_stdout(json)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err((code, failure)) => {
            super::fail(&failure, json);
            ExitCode::from(code)
        }
    }
}

/// What the answer is made of.
#[derive(Serialize)]
struct Answer<'a> {
    data: &'a Path,
    healthy: bool,
    #[serde(flatten)]
    report: &'a Report,
    repaired: &'a [Repair],
    failed: &'a [FailedRepair],
}

/// A repair that the system did not let be done.
#[derive(Serialize)]
struct FailedRepair {
    repair: Repair,
    reason: String,
}

fn examine_and_print(args: &DoctorArgs, style: Style) -> Result<bool, (u8, Failure)> {
    let DoctorArgs { data, repair: repairing } = args;
    check_is_data(data).map_err(|failure| (2, failure))?;
    let failed = |failure| (1, failure);
    let _lock = DirLock::acquire(data).map_err(|error| failed(Failure::of("locked", &error)))?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(data.clone()));
    let cannot = |error| failed(Failure::io(&format!("cannot examine {}", data.display()), &error));
    let report = examine(&disk).map_err(cannot)?;
    let Repaired { done, failed: not_done, report } = if *repairing {
        repair(&disk, report).map_err(cannot)?
    } else {
        Repaired { done: Vec::new(), failed: Vec::new(), report }
    };
    let not_done: Vec<FailedRepair> =
        not_done.into_iter().map(|(repair, error)| FailedRepair { repair, reason: error.to_string() }).collect();
    let healthy = report.damage().next().is_none();
    let answer = Answer { data, healthy, report: &report, repaired: &done, failed: &not_done };
    let text = if style == Style::Json { output::json(&answer) } else { answer.render(style, *repairing) };
    output::print(&text).map_err(failed)?;
    Ok(healthy && not_done.is_empty())
}

/// Refuses a folder that no node has ever used, before a lock file is put there.
fn check_is_data(data: &Path) -> Result<(), Failure> {
    if !data.is_dir() {
        return Err(Failure::new(
            "usage",
            format!("{} is no folder: give --data the folder of a node", data.display()),
        ));
    }
    let parts = [state::FILE, catalog_file::CATALOG_FILE, collection_files::COLLECTIONS];
    if parts.iter().any(|part| data.join(part).exists()) {
        return Ok(());
    }
    let message = format!(
        "{} is no data directory, since it has none of {}: give --data the folder of a node",
        data.display(),
        parts.join(", ")
    );
    Err(Failure::new("usage", message))
}

impl Answer<'_> {
    fn render(&self, style: Style, repairing: bool) -> String {
        let Self { data, healthy: _, report, repaired, failed } = self;
        let node = report.node.as_ref().map_or("an unknown node".to_owned(), |node| format!("node {node}"));
        let mut parts = vec![format!("data of {node} in {}", data.display())];
        if !report.collections.is_empty() {
            parts.push(collections(&report.collections, style));
        }
        // What is only superfluous must not crowd out what is damaged.
        let superfluous = report.findings.iter().filter(|diagnosis| diagnosis.loss == Loss::Nothing);
        let shown = report.damage().chain(superfluous).take(FINDINGS_SHOWN);
        parts.extend(shown.map(|diagnosis| described(diagnosis, repairing)));
        if report.findings.len() > FINDINGS_SHOWN {
            parts.push(format!("and {} more: --json tells all", report.findings.len() - FINDINGS_SHOWN));
        }
        parts.extend(failed.iter().map(|FailedRepair { repair, reason }| format!("not {repair}: {reason}")));
        if !repaired.is_empty() {
            let lines: Vec<String> = repaired.iter().map(Repair::to_string).collect();
            parts.push(lines.join("\n"));
        }
        parts.push(self.verdict(repairing));
        parts.join("\n\n")
    }

    fn verdict(&self, repairing: bool) -> String {
        let damage: Vec<&Diagnosis> = self.report.damage().collect();
        let superfluous = self.report.findings.len() - damage.len();
        let count = |loss| damage.iter().filter(|diagnosis| diagnosis.loss == loss).count();
        if !damage.is_empty() {
            let counts = [
                (count(Loss::Recoverable), "recoverable here"),
                (count(Loss::OnlyReplicas), "that only replicas can heal"),
                (count(Loss::Unknown), "that cannot be judged"),
            ];
            let told = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
            let hint = if !repairing && self.report.repairs().next().is_some() {
                "; --repair does what loses nothing"
            } else {
                ""
            };
            return format!("damage remains: {}{hint}", told.collect::<Vec<_>>().join(", "));
        }
        match superfluous {
            0 => "healthy".to_owned(),
            1 => "healthy, with 1 thing that is not needed".to_owned(),
            _ => format!("healthy, with {superfluous} things that are not needed"),
        }
    }
}

fn collections(reports: &[CollectionReport], style: Style) -> String {
    let headings = [
        "collection",
        "state",
        "#points",
        "#records",
        "#frames",
        "#segments",
        "#from lsn",
        "#to lsn",
        "#snapshots",
        "#pages",
    ];
    let mut table = Table::new(&headings);
    for report in reports {
        let CollectionReport {
            name,
            id,
            segments,
            frames,
            records,
            first_lsn,
            next_lsn,
            snapshots,
            pages,
            is_complete,
        } = report;
        let usable = snapshots.iter().filter(|snapshot| snapshot.is_usable).count();
        let points = snapshots.iter().find_map(|snapshot| snapshot.points);
        table.row(vec![
            name.as_deref().map_or_else(|| id.clone(), printable),
            if *is_complete { "complete" } else { "incomplete" }.to_owned(),
            points.map_or("-".to_owned(), |points| points.to_string()),
            records.to_string(),
            frames.to_string(),
            segments.to_string(),
            first_lsn.to_string(),
            next_lsn.saturating_sub(1).to_string(),
            format!("{usable}/{}", snapshots.len()),
            pages.to_string(),
        ]);
    }
    table.render(style)
}

fn described(diagnosis: &Diagnosis, repairing: bool) -> String {
    let Diagnosis { file, offset, problem, loss: _, meaning, repairs } = diagnosis;
    let remedy = match (repairs.is_empty(), repairing) {
        (false, false) => "--repair puts it right",
        (false, true) | (true, true) => "left alone",
        (true, false) => "--repair leaves it alone",
    };
    let lines = [problem, meaning].map(|line| format!("\n  {}", printable(line)));
    format!("{}, offset {offset}{}\n  {remedy}", printable(file), lines.concat())
}
