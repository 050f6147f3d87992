//! Texts as they may stand in YAML: quoted, or as they are when nothing else than themselves can be read.

use std::fmt::Write as _;

/// The text as a string of JSON that YAML reads as the same text: ASCII, but for characters outside of the basic plane, which
/// would become surrogates.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' | '\u{10000}'.. => out.push(character),
            _ => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
        }
    }
    out.push('"');
    out
}

/// The text that a string of JSON stands for; `None` if it isn't one.
pub(super) fn unquoted(text: &str) -> Option<String> {
    (text.len() >= 2 && text.starts_with('"') && text.ends_with('"'))
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

/// Whether a key may stand in YAML as it is and be read as the same string.
pub(super) fn is_plain_key(key: &str) -> bool {
    /// Words that YAML 1.1 reads as another type.
    const TYPED: [&str; 11] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];
    let mut characters = key.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|next| next.is_ascii_alphanumeric() || matches!(next, '_' | '-' | '.'))
        && key.len() <= 200
        && !TYPED.iter().any(|word| key.eq_ignore_ascii_case(word))
}

/// Whether a text of the account database can't be structure of YAML.
pub(super) fn is_plain(text: &str) -> bool {
    let mut characters = text.chars();
    let starts_well =
        characters.next().is_none_or(|first| first.is_alphanumeric() || matches!(first, '/' | '_' | '.'));
    starts_well
        && !text.ends_with(' ')
        && characters.all(|next| next.is_alphanumeric() || " _./@+-,()='".contains(next))
}
