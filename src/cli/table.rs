//! Aligned columns for people.

/// Rows under a heading, each column as wide as its widest cell. Control characters are the caller's to escape.
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned)] }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// The lines, without blanks at their ends.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let widths: [usize; N] =
            std::array::from_fn(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
        self.rows.iter().map(move |row| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(&padded(cell, width + 2));
            }
            line.truncate(line.trim_end().len());
            line
        })
    }
}

/// The text with blanks after it, so that it fills a width.
pub(super) fn padded(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["NAME", "PEER", ""]);
        table.row(["amber-heron".into(), "…Yt81".into(), String::new()]);
        table.row(["x".into(), String::new(), "relay".into()]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines, ["NAME         PEER", "amber-heron  …Yt81", "x                   relay"]);
    }
}
