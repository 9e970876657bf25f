//! How far an import, a backup or a restore is: a bar on a terminal, a line every ten seconds where standard error is a pipe
//! or a file.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{Style, printable};

/// How far it is, shown as it changes.
pub struct Progress {
    bar: ProgressBar,
    pace: Pace,
    /// Whether lines are written instead of the bar.
    lines: bool,
    next_line: Instant,
}

/// The counts, and what is said of them.
#[derive(Clone, Copy, Debug)]
struct Pace {
    what: &'static str,
    rows: Option<u64>,
    started: Instant,
    /// Rows that are done with, also those that were skipped or refused.
    done: u64,
    /// Points that were read or written in this run.
    written: u64,
}

impl Progress {
    /// Begins. `what` is done with what is counted, for example `imported`.
    pub fn new(what: &'static str, rows: Option<u64>, style: Style) -> Self {
        let (quiet, terminal) = (style == Style::Json, io::stderr().is_terminal());
        let target = if quiet || !terminal { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(rows, target);
        let template = match rows {
            Some(_) => "{wide_bar} {human_pos}/{human_len} {msg}",
            None => "{spinner} {human_pos} {msg}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant that a test uses"));
        let started = Instant::now();
        let pace = Pace { what, rows, started, done: 0, written: 0 };
        Self { bar, pace, lines: !quiet && !terminal, next_line: started + LINE_EVERY }
    }

    /// Points were read or written.
    pub fn moved(&mut self, points: u64) {
        self.pace.written += points;
        self.passed(points);
    }

    /// Rows are done with.
    pub fn passed(&mut self, rows: u64) {
        self.pace.done += rows;
        self.bar.inc(rows);
        if self.lines {
            self.line(None);
        } else {
            self.bar.set_message(self.pace.speed(Instant::now()));
        }
    }

    /// The mesh does not take points.
    pub fn waits(&mut self, reason: &str) {
        if self.lines {
            self.line(Some(reason));
        } else {
            self.bar.set_message(format!("waiting for the mesh: {}", printable(reason)));
        }
    }

    /// The mesh takes points again.
    pub fn goes_on(&mut self) {
        self.bar.set_message("");
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }

    /// Writes a line where it is time for one.
    fn line(&mut self, waits_for: Option<&str>) {
        let now = Instant::now();
        if now >= self.next_line {
            self.next_line = now + LINE_EVERY;
            eprintln!("{}", self.pace.line(now, waits_for));
        }
    }
}

impl Pace {
    /// Points a second and the time that is left. Rows that were skipped take next to no time, and do not count.
    fn speed(&self, now: Instant) -> String {
        let seconds = now.saturating_duration_since(self.started).as_secs_f64();
        if self.written == 0 || seconds <= 0.0 {
            return String::new();
        }
        let rate = self.written as f64 / seconds;
        let left = self.rows.map(|rows| rows.saturating_sub(self.done) as f64 / rate);
        let left = left.map(|seconds| format!(", {seconds:.0} s left")).unwrap_or_default();
        format!("{rate:.0} points/s{left}")
    }

    fn line(&self, now: Instant, waits_for: Option<&str>) -> String {
        let of = self.rows.map(|rows| format!(" of {rows}")).unwrap_or_default();
        let told = match waits_for {
            Some(reason) => format!("waiting for the mesh: {}", printable(reason)),
            None => self.speed(now),
        };
        let comma = if told.is_empty() { "" } else { ", " };
        format!("{} {}{of}{comma}{told}", self.what, self.done)
    }
}

/// How often a line is written.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_has_a_valid_template_with_and_without_a_length() {
        assert_eq!(Progress::new("imported", Some(3), Style::Json).bar.length(), Some(3));
        assert_eq!(Progress::new("imported", None, Style::Json).bar.length(), None);
    }

    #[test]
    fn skipped_rows_do_not_count_as_speed() {
        let started = Instant::now();
        let pace = Pace { what: "imported", rows: Some(10_000), started, done: 9_000, written: 1_000 };
        let now = started + Duration::from_secs(2);
        assert_eq!(pace.line(now, None), "imported 9000 of 10000, 500 points/s, 2 s left");
        assert_eq!(Pace { rows: None, ..pace }.line(now, None), "imported 9000, 500 points/s");
        let none = Pace { written: 0, ..pace };
        assert_eq!(none.line(now, None), "imported 9000 of 10000");
        let waiting = "imported 9000 of 10000, waiting for the mesh: no replica answers";
        assert_eq!(none.line(now, Some("no replica answers")), waiting);
    }
}
