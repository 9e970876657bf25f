//! What an import has done so far, and how long it waits for a mesh that does not answer: the decisions, without clock
//! or socket.

use std::time::{Duration, Instant};

use serde::Serialize;
use vecino_client::PointId;

use super::output::{Style, json};

/// The count of an import.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Points acknowledged in this run.
    pub acknowledged: u64,
    /// Points that the journal had.
    pub skipped: u64,
    /// Points that were sent and neither acknowledged nor refused when the run ended.
    pub unsettled: u64,
    /// How long the run took.
    pub seconds: f64,
    refused: u64,
    first_refused: Vec<String>,
}

impl Tally {
    /// Counts a point that was refused. The first few are remembered for people.
    pub fn refuse(&mut self, id: &PointId, reason: String) {
        self.refused += 1;
        if self.first_refused.len() < REFUSED_SHOWN {
            self.first_refused.push(format!("point {id:?}: {reason}"));
        }
    }

    /// Points that were sent and not acknowledged.
    pub fn failed(&self) -> u64 {
        self.refused + self.unsettled
    }

    /// The refused points that were remembered, and how many more there were.
    pub fn refusal_lines(&self) -> Vec<String> {
        let more = self.refused - self.first_refused.len() as u64;
        let mut lines: Vec<String> = self.first_refused.iter().map(|line| format!("refused: {line}")).collect();
        if more > 0 {
            lines.push(format!("refused: {more} more"));
        }
        lines
    }

    /// `; the first: …`, or nothing where none was refused.
    pub fn first_refusal(&self) -> String {
        self.first_refused.first().map(|line| format!("; the first: {line}")).unwrap_or_default()
    }

    /// The last line of the command.
    pub fn render(&self, style: Style) -> String {
        #[derive(Serialize)]
        struct Done {
            acknowledged: u64,
            failed: u64,
            seconds: f64,
        }
        let Self { acknowledged, skipped, unsettled: _, seconds, refused: _, first_refused: _ } = self;
        let failed = self.failed();
        if style == Style::Json {
            return json(&Done { acknowledged: *acknowledged, failed, seconds: (seconds * 1000.0).round() / 1000.0 });
        }
        let rate = if *seconds > 0.0 { *acknowledged as f64 / seconds } else { 0.0 };
        let mut text = format!("acknowledged {acknowledged} in {seconds:.1} s ({rate:.0} a second), failed {failed}");
        if *skipped > 0 {
            text.push_str(&format!(", skipped {skipped} that the journal has"));
        }
        text
    }
}

/// How long to go on trying, and how long to rest in between.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    /// Begins to be patient.
    pub fn new(patience: Duration, now: Instant) -> Self {
        Self { until: now + patience, pause: PAUSE_FIRST }
    }

    /// How long to rest before the next attempt; `None` once patience has ended. An attempt is always made at the very
    /// end, so that a mesh that came back just in time is not missed.
    pub fn next_pause(&mut self, now: Instant) -> Option<Duration> {
        let left = self.until.saturating_duration_since(now);
        if left.is_zero() {
            return None;
        }
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Some(pause)
    }
}

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How many refused points are listed.
const REFUSED_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_has_the_shape_that_scripts_rely_on() {
        let mut tally = Tally { acknowledged: 1500, unsettled: 1, seconds: 2.50049, ..Default::default() };
        tally.refuse(&7.into(), "too long".into());
        assert_eq!(tally.render(Style::Json), r#"{"acknowledged":1500,"failed":2,"seconds":2.5}"#);
        assert_eq!(tally.render(Style::Plain), "acknowledged 1500 in 2.5 s (600 a second), failed 2");
        tally.skipped = 20;
        assert!(tally.render(Style::Terminal).ends_with(", skipped 20 that the journal has"));
        assert!(Tally::default().render(Style::Json).contains(r#""seconds":0.0"#));
    }

    #[test]
    fn the_first_ten_refusals_are_listed_and_the_rest_counted() {
        let mut tally = Tally::default();
        assert_eq!((tally.refusal_lines(), tally.first_refusal()), (Vec::new(), String::new()));
        for id in 0..13 {
            tally.refuse(&PointId::Number(id), "no".into());
        }
        let lines = tally.refusal_lines();
        assert_eq!(lines.len(), 11);
        assert_eq!(lines[9], "refused: point 9: no");
        assert_eq!(lines[10], "refused: 3 more");
        assert_eq!(tally.first_refusal(), "; the first: point 0: no");
        assert_eq!(tally.failed(), 13);
    }

    #[test]
    fn patience_is_bounded_and_ends_with_an_attempt() {
        let start = Instant::now();
        let mut patience = Patience::new(Duration::from_secs(5), start);
        let (mut now, mut pauses) = (start, Vec::new());
        while let Some(pause) = patience.next_pause(now) {
            now += pause;
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 1900]);
        assert_eq!(now - start, Duration::from_secs(5));
        assert_eq!(Patience::new(Duration::ZERO, start).next_pause(start), None);
    }
}
