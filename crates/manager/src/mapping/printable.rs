//! Text of strangers and programs in messages.

/// A stranger's or a program's text as it may stand in a log: short, on one line, without control characters.
pub(super) fn printable(text: &str) -> String {
    const LIMIT: usize = 300;
    let mut out = String::new();
    for c in text.chars().take(LIMIT) {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            other => out.extend(other.escape_debug()),
        }
    }
    if text.chars().nth(LIMIT).is_some() {
        out.push('…');
    }
    out
}
