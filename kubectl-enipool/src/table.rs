//! Tables as kubectl prints them: columns left-aligned, three spaces apart, nothing behind the last.

use std::fmt;

const GAP: usize = 3;

/// Rows under headings. A cell without a value is written `-`.
#[derive(Debug, Clone, Default)]
pub struct Table {
    indent: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<'a>(headings: impl IntoIterator<Item = &'a str>) -> Self {
        Self { indent: 0, rows: vec![headings.into_iter().map(str::to_owned).collect()] }
    }

    /// Moved to the right by `indent` spaces.
    #[must_use]
    pub fn indented(mut self, indent: usize) -> Self {
        self.indent = indent;
        self
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &self.rows {
            let mut line = " ".repeat(self.indent);
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(width - cell.chars().count() + GAP));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A cell for a number that may not be known.
pub fn cell(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_where_their_text_ends() {
        let mut table = Table::new(["NODE", "FREE"]);
        table.row(["a-long-name".into(), "7".into()]);
        table.row(["b".into(), String::new()]);
        assert_eq!(table.to_string(), "NODE          FREE\na-long-name   7\nb             -\n");
    }
}
