//! Tables as `kubectl` prints them: no lines, upper-case headers, columns two spaces apart.

use std::io::{self, Write};

/// Rows under headers. Cells may hold colours; they count for nothing in the width.
pub(crate) struct Table {
    table: comfy_table::Table,
    columns: usize,
}

impl Table {
    /// A table with these headers and no rows.
    pub(crate) fn new(headers: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        // A terminal narrower than the table breaks the lines itself; a wrapped cell could not be cut and grepped.
        table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        table.set_header(headers);
        Self { table, columns: headers.len() }
    }

    /// Adds a row; an empty cell becomes `-`, so that tools which split at spaces count right.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }

    /// Whether it has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.row_count() == 0
    }

    /// The lines, without spaces at their ends.
    pub(crate) fn lines(mut self) -> Vec<String> {
        for index in 0..self.columns {
            if let Some(column) = self.table.column_mut(index) {
                column.set_padding((0, 2));
            }
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
    use crate::output::paint::{GOOD, paint};

    #[test]
    fn columns_are_two_spaces_apart_and_lines_end_without_any() {
        let mut table = Table::new(&["NAME", "STATE", "AGE"]);
        table.row(["web-0".into(), "passing".into(), "5s".into()]);
        table.row(["a-longer-name".into(), String::new(), "2h".into()]);
        assert_eq!(
            table.lines(),
            ["NAME           STATE    AGE", "web-0          passing  5s", "a-longer-name  -        2h"]
        );
    }

    #[test]
    fn colours_have_no_width() {
        let mut table = Table::new(&["STATE", "AGE"]);
        table.row([paint(GOOD, "passing"), "5s".into()]);
        let plain: Vec<_> =
            table.lines().iter().map(|l| anstream::adapter::strip_str(l).to_string()).collect();
        assert_eq!(plain, ["STATE    AGE", "passing  5s"]);
    }
}
