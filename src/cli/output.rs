//! How answers are laid out: JSON for scripts, a drawn table on a terminal, aligned text in a pipe.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, presets};
use serde::Serialize;
use vecino_client::{PointId, Vector};

use super::failure::Failure;
use super::text::shortened;

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
        if self == Self::Terminal { shortened(&text, CELL_CHARS_MAX) } else { text }
    }
}

/// Columns of the terminal on standard output.
pub fn terminal_width() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(WIDTH_DEFAULT, |(width, _)| usize::from(width.0))
}

/// Columns that a drawn table takes: those of its frame.
fn drawn_width(drawn: &str) -> usize {
    drawn.lines().next().map_or(0, |frame| frame.chars().count())
}

/// Rows under headings.
#[derive(Clone, Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// Columns that a narrow terminal does without, the first of them first.
    expendable: Vec<&'static str>,
    /// The column whose cells are cut on a narrow terminal before any column is left out.
    flexible: Option<&'static str>,
}

impl Table {
    /// An empty table. A heading that begins with `#` stands over numbers: its column is aligned to the right.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new(), expendable: Vec::new(), flexible: None }
    }

    /// Names the columns that a narrow terminal does without, the first of them first.
    pub fn expendable(mut self, headings: &[&'static str]) -> Self {
        self.expendable = headings.to_vec();
        self
    }

    /// Names the column whose cells are cut on a narrow terminal.
    pub fn flexible(mut self, heading: &'static str) -> Self {
        self.flexible = Some(heading);
        self
    }

    /// Adds a row, one cell for each heading.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headings.len());
        self.rows.push(cells);
    }

    /// The table as text, without a newline at its end. On a terminal it is no wider than that.
    pub fn render(&self, style: Style) -> String {
        match style {
            Style::Terminal => self.fitted(terminal_width()),
            Style::Plain | Style::Json => self.render_aligned(),
        }
    }

    /// The drawn table in at most this width: with a column cut, or with columns left out, or one line for each value.
    /// Columns without any value are left out at every width.
    fn fitted(&self, width: usize) -> String {
        let is_empty = |column: usize| !self.rows.is_empty() && self.rows.iter().all(|row| row[column].is_empty());
        let empty: Vec<&str> =
            (0..self.headings.len()).filter(|column| is_empty(*column)).map(|column| self.headings[column]).collect();
        for hidden in 0..=self.expendable.len() {
            let mut shown = self.without(&[&empty, &self.expendable[..hidden]].concat());
            let excess = drawn_width(&shown.render_drawn()).saturating_sub(width);
            if excess == 0 || shown.cut_flexible(excess) {
                let mut text = shown.render_drawn();
                if hidden > 0 {
                    let names: Vec<_> =
                        self.expendable[..hidden].iter().map(|heading| heading.trim_start_matches('#')).collect();
                    text.push_str(&format!("\nleft out at this width: {}", names.join(", ")));
                }
                return text;
            }
        }
        self.render_upright()
    }

    /// The table without these columns.
    fn without(&self, hidden: &[&str]) -> Self {
        let shown: Vec<bool> = self.headings.iter().map(|heading| !hidden.contains(heading)).collect();
        let keep = |cells: &Vec<String>| {
            cells.iter().zip(&shown).filter(|(_, shown)| **shown).map(|(cell, _)| cell.clone()).collect()
        };
        Self {
            headings: self.headings.iter().zip(&shown).filter(|(_, shown)| **shown).map(|(name, _)| *name).collect(),
            rows: self.rows.iter().map(keep).collect(),
            expendable: Vec::new(),
            flexible: self.flexible,
        }
    }

    /// Takes `excess` characters from the flexible column; false where too little of it would be left.
    fn cut_flexible(&mut self, excess: usize) -> bool {
        let Some(column) = self.headings.iter().position(|heading| Some(*heading) == self.flexible) else {
            return false;
        };
        let widest = self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let left = widest.saturating_sub(excess);
        if left < FLEXIBLE_CHARS_MIN {
            return false;
        }
        for row in &mut self.rows {
            row[column] = shortened(&row[column], left);
        }
        true
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

    /// Each row as lines of a heading and a value, with an empty line between rows. Empty values are left out.
    fn render_upright(&self) -> String {
        let name = |heading: &'static str| match heading.trim_start_matches('#') {
            "" => heading,
            name => name,
        };
        let names = || self.headings.iter().map(|heading| name(heading));
        let width = names().map(|name| name.chars().count()).max().unwrap_or(0);
        let row = |cells: &Vec<String>| {
            let line = |(name, cell): (&str, &String)| format!("{name:<width$}  {cell}");
            let filled = names().zip(cells).filter(|(_, cell)| !cell.is_empty());
            filled.map(line).collect::<Vec<_>>().join("\n")
        };
        self.rows.iter().map(row).collect::<Vec<_>>().join("\n\n")
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

/// A vector for people to read: on a terminal its first `shown` values.
pub fn vector_text(Vector(values): &Vector, shown: usize, style: Style) -> String {
    let shown = if style == Style::Terminal { values.len().min(shown) } else { values.len() };
    let numbers = values[..shown].iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    if shown < values.len() { format!("{numbers},… ({} values)", values.len()) } else { numbers }
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
/// Least characters that are left of a column that is cut.
const FLEXIBLE_CHARS_MIN: usize = 16;
/// Width of a terminal that does not say how wide it is.
const WIDTH_DEFAULT: usize = 80;

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
    fn a_table_is_never_wider_than_the_terminal() {
        let mut table =
            Table::new(&["node", "#points", "version", "payload"]).expendable(&["version"]).flexible("payload");
        table.row(vec!["n1".into(), "1000".into(), "0.1.0-nightly".into(), "x".repeat(40)]);
        table.row(vec!["n2".into(), "7".into(), "0.1.0".into(), String::new()]);
        let widths = |width: usize| {
            let text = table.fitted(width);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width, "{width}\n{text}");
            text
        };
        // Wide enough: everything. Narrower: the payload is cut. Narrower still: the version is left out.
        assert!(widths(80).contains(&"x".repeat(40)));
        let cut = widths(66);
        assert!(cut.contains("version") && cut.contains("xx…"), "{cut}");
        let without = widths(46);
        assert!(without.contains("payload") && without.ends_with("left out at this width: version"), "{without}");
        // No row has a payload: no column for it.
        let mut bare = table.clone();
        bare.rows.remove(0);
        assert!(!bare.fitted(80).contains("payload"));
        // Too narrow for any table: one value a line, nothing left out.
        let upright = table.fitted(20);
        assert!(upright.starts_with("node     n1\npoints   1000\nversion  0.1.0-nightly\npayload  xxx"), "{upright}");
        assert!(upright.ends_with("\n\nnode     n2\npoints   7\nversion  0.1.0"), "{upright}");
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
