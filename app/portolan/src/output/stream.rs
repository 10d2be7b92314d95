//! A table whose rows come one by one: columns grow with the widest cell so far, and never shrink.

use std::io::{self, Write};

/// The table so far.
#[derive(Default)]
pub(crate) struct Stream {
    widths: Vec<usize>,
}

impl Stream {
    /// Writes a row of headers and cells to stdout, before the first one also the headers.
    pub(crate) fn row(&mut self, cells: &[(&str, String)]) -> io::Result<()> {
        let mut stdout = anstream::stdout().lock();
        for line in self.lines(cells) {
            writeln!(stdout, "{line}")?;
        }
        stdout.flush()
    }

    fn lines(&mut self, cells: &[(&str, String)]) -> Vec<String> {
        let headers = self.widths.is_empty();
        self.widths.resize(cells.len(), 0);
        for (width, (header, cell)) in self.widths.iter_mut().zip(cells) {
            *width = (*width).max(header.len()).max(cell.chars().count());
        }
        let mut lines = Vec::new();
        if headers {
            lines.push(self.line(cells.iter().map(|(header, _)| *header)));
        }
        lines.push(self.line(cells.iter().map(|(_, cell)| if cell.is_empty() { "-" } else { cell })));
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
        let cells = |a: &str, b: &str| [("NAME", a.to_owned()), ("STATE", b.to_owned())];
        assert_eq!(stream.lines(&cells("web", "passing")), ["NAME  STATE", "web   passing"]);
        assert_eq!(stream.lines(&cells("longer-name", "")), ["longer-name  -"]);
        assert_eq!(stream.lines(&cells("web", "x")), ["web          x"]);
    }
}
