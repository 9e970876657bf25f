//! How answers are laid out: JSON for scripts, a drawn table on a terminal, aligned text in a pipe.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, presets};
use serde::Serialize;
use vecino_client::PointId;

use super::failure::Failure;

/// How an answer is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One JSON object.
    Json,
    /// Drawn tables, long values cut short.
    Terminal,
    /// Aligned text, nothing cut.
    Plain,
}

impl Style {
    /// The style for standard output.
    pub fn of_stdout(json: bool) -> Self {
        match (json, io::stdout().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Terminal,
            (false, false) => Self::Plain,
        }
    }

    /// `text`, cut short on a terminal.
    pub fn shorten(self, text: String) -> String {
        if self != Self::Terminal || text.chars().count() <= CELL_CHARS_MAX {
            return text;
        }
        text.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
    }
}

/// Rows under headings.
#[derive(Clone, Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table. A heading that begins with `#` stands over numbers: its column is aligned to the right.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, one cell for each heading.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headings.len());
        self.rows.push(cells);
    }

    /// The table as text, without a newline at its end.
    pub fn render(&self, style: Style) -> String {
        match style {
            Style::Terminal => self.render_drawn(),
            Style::Plain | Style::Json => self.render_aligned(),
        }
    }

    fn is_number(&self, column: usize) -> bool {
        self.headings[column].starts_with('#')
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.headings.iter().map(|heading| heading.trim_start_matches('#'))
    }

    fn render_drawn(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(self.names());
        table.add_rows(&self.rows);
        for column in (0..self.headings.len()).filter(|column| self.is_number(*column)) {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    fn render_aligned(&self) -> String {
        let names: Vec<String> = self.names().map(str::to_uppercase).collect();
        let lines: Vec<&Vec<String>> = [&names].into_iter().chain(&self.rows).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..names.len()).map(width).collect();
        let mut text = String::new();
        for (number, line) in lines.iter().enumerate() {
            let mut padded = String::new();
            for (column, cell) in line.iter().enumerate() {
                let width = widths[column];
                let gap = if column == 0 { "" } else { "  " };
                let _ = if self.is_number(column) {
                    write!(padded, "{gap}{cell:>width$}")
                } else {
                    write!(padded, "{gap}{cell:<width$}")
                };
            }
            if number > 0 {
                text.push('\n');
            }
            text.push_str(padded.trim_end());
        }
        text
    }
}

/// One line of JSON.
pub fn json(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).expect("an answer's maps have string keys, so it always makes JSON")
}

/// Text from outside for people to read: control characters, which could drive a terminal, are written as escapes.
pub fn printable(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// An id for people to read.
pub fn id_text(id: &PointId) -> String {
    match id {
        PointId::Number(number) => number.to_string(),
        PointId::Text(text) => printable(text),
    }
}

/// A share as a percentage.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Writes an answer and a newline to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Whoever read this has seen enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|error| Failure::io("standard output", &error)),
    }
}

/// Most characters of one cell on a terminal.
const CELL_CHARS_MAX: usize = 72;

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["name", "#points"]);
        table.row(vec!["films".into(), "5".into()]);
        table.row(vec!["ü".into(), "1000".into()]);
        table
    }

    #[test]
    fn a_pipe_gets_aligned_text() {
        assert_eq!(table().render(Style::Plain), "NAME   POINTS\nfilms       5\nü        1000");
    }

    #[test]
    fn a_terminal_gets_a_drawn_table() {
        let text = table().render(Style::Terminal);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("name") && lines[1].contains("points"), "{text}");
        assert!(lines[3].contains("films") && lines[3].trim_end_matches(['│', ' ']).ends_with('5'), "{text}");
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width), "{text}");
    }

    #[test]
    fn only_a_terminal_gets_long_values_cut() {
        let long = "ä".repeat(CELL_CHARS_MAX + 1);
        assert_eq!(Style::Plain.shorten(long.clone()), long);
        let cut = Style::Terminal.shorten(long);
        assert_eq!(cut.chars().count(), CELL_CHARS_MAX);
        assert!(cut.ends_with("ä…"));
        let fits = "ä".repeat(CELL_CHARS_MAX);
        assert_eq!(Style::Terminal.shorten(fits.clone()), fits);
    }

    #[test]
    fn an_id_cannot_drive_the_terminal() {
        assert_eq!(id_text(&"\u{1b}[2Jé\n".into()), "\\u{1b}[2Jé\\n");
        assert_eq!(id_text(&7.into()), "7");
    }
}
