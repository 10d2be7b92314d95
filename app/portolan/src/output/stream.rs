//! A table whose rows come one by one: columns grow with the widest cell so far, and never shrink.

use std::io::{self, Write};

/// The table so far.
#[derive(Default)]
pub(crate) struct Stream {
    widths: Vec<usize>,
}

/// A row: headers, which are the same for all rows, and cells.
pub(crate) type Row = Vec<(&'static str, String)>;

impl Stream {
    /// Writes rows that came together to stdout, before the first ones also the headers.
    pub(crate) fn rows(&mut self, rows: &[Row]) -> io::Result<()> {
        let mut stdout = anstream::stdout().lock();
        for line in self.lines(rows) {
            writeln!(stdout, "{line}")?;
        }
        stdout.flush()
    }

    fn lines(&mut self, rows: &[Row]) -> Vec<String> {
        let headers = self.widths.is_empty();
        for row in rows {
            self.widths.resize(row.len(), 0);
            for (width, (header, cell)) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(header.len()).max(cell.chars().count());
            }
        }
        let mut lines = Vec::new();
        if let (true, Some(row)) = (headers, rows.first()) {
            lines.push(self.line(row.iter().map(|(header, _)| *header)));
        }
        let cell = |cell: &'_ String| if cell.is_empty() { "-".to_owned() } else { cell.clone() };
        for row in rows {
            let cells: Vec<_> = row.iter().map(|(_, text)| cell(text)).collect();
            lines.push(self.line(cells.iter().map(String::as_str)));
        }
        lines
    }

    fn line<'a>(&self, cells: impl Iterator<Item = &'a str>) -> String {
        let padded: Vec<_> =
            cells.zip(&self.widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        padded.join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_grow_and_never_shrink() {
        let mut stream = Stream::default();
        let row = |a: &str, b: &str| vec![("NAME", a.to_owned()), ("STATE", b.to_owned())];
        let first = [row("web", "passing"), row("other", "")];
        assert_eq!(stream.lines(&first), ["NAME   STATE", "web    passing", "other  -"]);
        assert_eq!(stream.lines(&[row("longer-name", "x")]), ["longer-name  x"]);
        assert_eq!(stream.lines(&[row("web", "x")]), ["web          x"]);
        assert!(stream.lines(&[]).is_empty());
    }
}
