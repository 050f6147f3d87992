//! Draws tables as upstream's `list` does: with borders, centred headers, and the last column wrapped to the width.

/// Draws `rows` under `headers`, each with the minimum width of its column. The table is `width` wide at most, as far as the
/// last column can be narrowed.
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
    let boxed = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut out = rule('-');
    out += &boxed(headers.iter().zip(widths).map(|((header, _), width)| centred(header, width)).collect());
    out += &rule('=');
    for row in rows {
        let cells: Vec<_> =
            row.iter().zip(widths).map(|(cell, width)| (wrapped(cell, width), width)).collect();
        let lines = cells.iter().map(|(lines, _)| lines.len()).max().unwrap_or(1);
        for line in 0..lines {
            let part = |(lines, width): &(Vec<String>, usize)| {
                format!("{:width$}", lines.get(line).map_or("", String::as_str), width = *width)
            };
            out += &boxed(cells.iter().map(part).collect());
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
