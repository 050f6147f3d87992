//! Draws a table as upstream's `list` does: boxed, headers centred, the last column wrapped to the width there is.

/// Draws `rows` under `headers` (each with the least width of its column), at most `width` columns wide if the last
/// column can be narrowed so far.
pub(super) fn draw<const N: usize>(
    headers: [(&str, usize); N],
    rows: &[[String; N]],
    width: usize,
) -> String {
    const NARROWEST: usize = 10;
    let mut widths = headers.map(|(header, least)| header.chars().count().max(least));
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let others: usize = widths.iter().rev().skip(1).map(|width| width + 3).sum();
    if let Some(last) = widths.last_mut() {
        *last = (*last).min(width.saturating_sub(others + 4).max(NARROWEST));
    }
    let rule = |line: char| {
        let parts = widths.map(|width| line.to_string().repeat(width + 2));
        format!("+{}+\n", parts.join("+"))
    };
    let boxed = |cells: [String; N]| format!("| {} |\n", cells.join(" | "));
    let mut out = rule('-');
    let mut index = 0;
    out += &boxed(headers.map(|(header, _)| {
        index += 1;
        centred(header, widths[index - 1])
    }));
    out += &rule('=');
    for row in rows {
        let mut cells: Vec<Vec<String>> =
            row.iter().zip(widths).map(|(cell, width)| wrapped(cell, width)).collect();
        let lines = cells.iter().map(Vec::len).max().unwrap_or(1);
        cells.iter_mut().for_each(|cell| cell.resize(lines, String::new()));
        for line in 0..lines {
            let mut column = 0;
            out += &boxed([(); N].map(|()| {
                column += 1;
                let width = widths[column - 1];
                format!("{:width$}", cells[column - 1][line])
            }));
        }
        out += &rule('-');
    }
    out.truncate(out.trim_end().len());
    out
}

fn centred(text: &str, width: usize) -> String {
    let spare = width.saturating_sub(text.chars().count());
    format!("{}{text}{}", " ".repeat(spare / 2), " ".repeat(spare - spare / 2))
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    if letters.is_empty() {
        return vec![String::new()];
    }
    letters.chunks(width.max(1)).map(|chunk| chunk.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_wrapped() {
        insta::assert_snapshot!(draw([("A", 1), ("B", 1)], &[["1".into(), "abcdefghijklmnopqrstuvwxyz".into()]], 5), @r"
        +---+------------+
        | A |     B      |
        +===+============+
        | 1 | abcdefghij |
        |   | klmnopqrst |
        |   | uvwxyz     |
        +---+------------+
        ");
    }
}
