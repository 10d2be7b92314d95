//! Tables as `kubectl` prints them: no lines, upper-case headers, columns two spaces apart.

use std::io::{self, Write};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, presets};

use super::paint::Tone;

/// Rows under headers.
pub(crate) struct Table {
    table: comfy_table::Table,
    rows: usize,
}

/// A cell without colour. Empty it is `-`, so that tools which split at spaces count right.
pub(crate) fn plain(text: impl Into<String>) -> Cell {
    let text = text.into();
    Cell::new(if text.is_empty() { "-".to_owned() } else { text })
}

/// A cell whose colour says how things are.
pub(crate) fn toned(tone: Tone, text: impl Into<String>) -> Cell {
    let cell = plain(text);
    match tone {
        Tone::Good => cell.fg(Color::Green),
        Tone::Warn => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Faint => cell.add_attribute(Attribute::Dim),
    }
}

impl Table {
    /// A table with these headers and no rows.
    pub(crate) fn new(headers: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        // A terminal narrower than the table breaks the lines itself; a wrapped cell could not be cut and grepped.
        table.set_content_arrangement(ContentArrangement::Disabled);
        // Colours are always there; the stream that the lines go to (`anstream`) takes them off where they do not belong.
        table.enforce_styling();
        table.set_header(headers);
        Self { table, rows: 0 }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.table.add_row(cells.into_iter().collect::<Vec<_>>());
        self.rows += 1;
    }

    /// Whether it has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The lines, with colours and without spaces at their ends.
    pub(crate) fn lines(mut self) -> Vec<String> {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.table.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Writes it to stdout, in colour where stdout has any.
    pub(crate) fn print(self) -> io::Result<()> {
        let mut stdout = anstream::stdout().lock();
        for line in self.lines() {
            writeln!(stdout, "{line}")?;
        }
        stdout.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_two_spaces_apart_and_lines_end_without_any() {
        let mut table = Table::new(&["NAME", "STATE", "AGE"]);
        table.row(["web-0", "passing", "5s"].map(plain));
        table.row(["a-longer-name", "", "2h"].map(plain));
        assert_eq!(
            table.lines(),
            ["NAME           STATE    AGE", "web-0          passing  5s", "a-longer-name  -        2h"]
        );
    }

    #[test]
    fn colours_have_no_width() {
        let mut table = Table::new(&["STATE", "AGE"]);
        table.row([toned(Tone::Good, "passing"), plain("5s")]);
        let lines = table.lines();
        assert!(lines[1].contains('\x1b'), "{lines:?}");
        let plain: Vec<_> = lines.iter().map(|l| anstream::adapter::strip_str(l).to_string()).collect();
        assert_eq!(plain, ["STATE    AGE", "passing  5s"]);
    }
}
