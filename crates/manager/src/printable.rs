//! Text of others in logs: a stranger's words, or those of a PAM module, show as what they are. They move no cursor, end no
//! line and can be read as UTF-8.

/// What stands for a letter that can't be shown.
const REPLACEMENT: char = '?';

/// A stranger's or a program's text as it may stand in a log: short, on one line, without control characters.
pub(crate) fn escaped(text: &str) -> String {
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

/// The text on one line. Ends of lines become blanks.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter == '\n' { ' ' } else { shown(letter) }).collect()
}

/// The text on its lines: each but the first is indented, so that it is none of the log's own.
pub(crate) fn lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(one_line).collect();
    lines.join("\n  ")
}

/// The letter, unless it controls a terminal, separates lines for some program or turns the direction of writing around.
pub(crate) fn shown(letter: char) -> char {
    let replaced = letter.is_control()
        || matches!(letter, '\u{2028}' | '\u{2029}' | char::REPLACEMENT_CHARACTER)
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if replaced { REPLACEMENT } else { letter }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others() {
        for (text, one, many) in [
            ("plain ü", "plain ü", "plain ü"),
            ("a\x1b[1A\x1b[2Kb", "a?[1A?[2Kb", "a?[1A?[2Kb"),
            ("a\r\nb", "a? b", "a?\n  b"),
            ("a\u{2028}b\u{2029}c\u{85}d\x0be\x7f", "a?b?c?d?e?", "a?b?c?d?e?"),
            ("a\u{202e}b\u{2066}c\u{2069}d\u{200f}e\u{61c}", "a?b?c?d?e?", "a?b?c?d?e?"),
            ("\u{202a}\u{2010}\u{200d}\u{206a}", "?\u{2010}\u{200d}\u{206a}", "?\u{2010}\u{200d}\u{206a}"),
        ] {
            assert_eq!(one_line(text), one);
            assert_eq!(lines(text), many);
        }
    }
}
