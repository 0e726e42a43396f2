//! What `kubectl get` prints, read as a person reads it: by the columns.

use std::collections::BTreeMap;

/// One line: what stands under each heading.
pub(super) type Row<'a> = BTreeMap<&'a str, &'a str>;

/// The lines under the headings. A cell may hold spaces, a heading may not.
pub(super) fn rows(printed: &str) -> Vec<Row<'_>> {
    let mut lines = printed.lines();
    let headings = headings(lines.next().unwrap_or_default());
    lines.map(|line| row(&headings, line)).collect()
}

/// Each heading with the place where its column begins.
fn headings(line: &str) -> Vec<(usize, &str)> {
    line.split_whitespace().map(|heading| (heading.as_ptr().addr() - line.as_ptr().addr(), heading)).collect()
}

fn row<'a>(headings: &[(usize, &'a str)], line: &'a str) -> Row<'a> {
    let ends = headings.iter().skip(1).map(|(begin, _)| *begin).chain([line.len()]);
    let cells = headings.iter().zip(ends);
    cells.map(|((begin, heading), end)| (*heading, line.get(*begin..end).unwrap_or_default().trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_with_spaces_and_empty_ones_stand_under_their_heading() {
        let printed = "NAME     WARM    REASON      AGE\n\
                       node-a   1 ENI   AsPlanned   3m\n\
                       node-b                       3m\n";
        let rows = rows(printed);
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (rows[0]["NAME"], rows[0]["WARM"], rows[0]["REASON"], rows[0]["AGE"]),
            ("node-a", "1 ENI", "AsPlanned", "3m")
        );
        assert_eq!((rows[1]["NAME"], rows[1]["WARM"], rows[1]["REASON"], rows[1]["AGE"]), ("node-b", "", "", "3m"));
    }

    #[test]
    fn no_table_has_no_rows() {
        assert_eq!(rows(""), []);
    }
}
