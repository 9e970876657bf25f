//! What an import has done, in words and for scripts.

use serde::Serialize;
use vecino_client::BulkSummary;

use super::output::{Style, json};

/// The count of an import.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// What the loader did.
    pub summary: BulkSummary,
    /// Rows that the journal had.
    pub skipped: u64,
}

impl Tally {
    /// Points that were sent and not acknowledged.
    pub fn failed(&self) -> u64 {
        self.summary.refused + self.summary.failed
    }

    /// The first points that were not written, with their reasons, and how many more there were.
    pub fn unwritten_lines(&self) -> Vec<String> {
        let first = &self.summary.first_unwritten;
        let mut lines: Vec<String> = first.iter().map(ToString::to_string).collect();
        let more = self.summary.refused.saturating_sub(first.len() as u64);
        if more > 0 {
            lines.push(format!("{more} more were refused"));
        }
        lines
    }

    /// `; the first: …`, or nothing where every point that was sent was written.
    pub fn first_reason(&self) -> String {
        self.summary.first_unwritten.first().map(|first| format!("; the first: {first}")).unwrap_or_default()
    }

    /// The last line of the command.
    pub fn render(&self, style: Style) -> String {
        #[derive(Serialize)]
        struct Done {
            acknowledged: u64,
            failed: u64,
            seconds: f64,
        }
        let Self { summary, skipped } = self;
        let (acknowledged, failed, seconds) = (summary.written, self.failed(), summary.elapsed.as_secs_f64());
        if style == Style::Json {
            return json(&Done { acknowledged, failed, seconds: (seconds * 1000.0).round() / 1000.0 });
        }
        let rate = if seconds > 0.0 { acknowledged as f64 / seconds } else { 0.0 };
        let mut text = format!("acknowledged {acknowledged} in {seconds:.1} s ({rate:.0} a second), failed {failed}");
        if *skipped > 0 {
            text.push_str(&format!(", skipped {skipped} that the journal has"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_line_has_the_shape_that_scripts_rely_on() {
        let mut tally = Tally::default();
        tally.summary.written = 1500;
        tally.summary.refused = 1;
        tally.summary.failed = 1;
        tally.summary.elapsed = Duration::from_micros(2_500_490);
        assert_eq!(tally.render(Style::Json), r#"{"acknowledged":1500,"failed":2,"seconds":2.5}"#);
        assert_eq!(tally.render(Style::Plain), "acknowledged 1500 in 2.5 s (600 a second), failed 2");
        tally.skipped = 20;
        assert!(tally.render(Style::Terminal).ends_with(", skipped 20 that the journal has"));
        assert!(Tally::default().render(Style::Json).contains(r#""seconds":0.0"#));
    }

    #[test]
    fn refusals_beyond_the_first_are_counted() {
        let mut tally = Tally::default();
        assert_eq!((tally.unwritten_lines(), tally.first_reason()), (Vec::new(), String::new()));
        tally.summary.refused = 3;
        assert_eq!(tally.unwritten_lines(), ["3 more were refused"]);
        assert_eq!(tally.failed(), 3);
    }
}
