//! Colours a line of the log for a terminal, as upstream does with `--log-to-console --debug`: the time underlined, the level
//! and the message by the level, ids bright. What is no line of the log gets bright ids only. It never changes a letter.

const RESET: &str = "\x1b[m";
const UNDERLINED: &str = "\x1b[4m";
const ITALIC: &str = "\x1b[3m";
const BRIGHT: &str = "\x1b[93m";
/// The length of an id, and where it has its hyphens.
const ID: usize = 36;
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The line with colours.
pub(crate) fn coloured(line: &str) -> String {
    let text = line.trim_end_matches('\n');
    let end = &line[text.len()..];
    let Some((time, level, rest)) = parts(text) else {
        return bright_ids(text, RESET) + end;
    };
    let colour = colour_of(level.trim()).unwrap_or(RESET);
    let rest = bright_ids(rest, &format!("{RESET}{colour}"));
    format!("{UNDERLINED}{time}{RESET} {ITALIC}{colour}{level}{RESET} {colour}{rest}{RESET}{end}")
}

/// The time, the level with the blanks before it, and what follows.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let (time, rest) = text.split_once(' ')?;
    let word = rest.trim_start();
    let (level, _) = word.split_once(' ')?;
    colour_of(level)?;
    let (level, rest) = rest.split_at(rest.len() - word.len() + level.len());
    time.ends_with('Z').then_some((time, level, rest.get(1..)?))
}

fn colour_of(level: &str) -> Option<&'static str> {
    Some(match level {
        "ERROR" => "\x1b[91;40m",
        "WARN" => "\x1b[33;40m",
        "INFO" => "\x1b[37m",
        "DEBUG" | "TRACE" => "\x1b[2;37;40m",
        _ => return None,
    })
}

/// The text with each id bright; `after` brings back the colour of before.
fn bright_ids(text: &str, after: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = (0..rest.len()).find(|at| begins_with_id(&rest.as_bytes()[*at..])) {
        let (before, from) = rest.split_at(at);
        let (id, behind) = from.split_at(ID);
        shown += before;
        shown += BRIGHT;
        shown += id;
        shown += after;
        rest = behind;
    }
    shown + rest
}

fn begins_with_id(bytes: &[u8]) -> bool {
    let fits = |(at, byte): (usize, &u8)| match HYPHENS.contains(&at) {
        true => *byte == b'-',
        false => byte.is_ascii_hexdigit(),
    };
    bytes.len() >= ID && bytes.iter().take(ID).enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_colours_and_every_letter_that_they_had() {
        let id = "e58b2276-b397-4246-b1a2-607d8e3b5838";
        let time = "2026-11-30T18:26:01.628071Z";
        for (line, expected) in [
            (
                format!("{time}  INFO endpoint::run: é {id}, {id}\n"),
                format!(
                    "\x1b[4m{time}\x1b[m \x1b[3m\x1b[37m INFO\x1b[m \x1b[37mendpoint::run: é \x1b[93m{id}\x1b[m\x1b[37m, \
                     \x1b[93m{id}\x1b[m\x1b[37m\x1b[m\n"
                ),
            ),
            (
                format!("{time} ERROR a: b\n"),
                format!("\x1b[4m{time}\x1b[m \x1b[3m\x1b[91;40mERROR\x1b[m \x1b[91;40ma: b\x1b[m\n"),
            ),
            (
                format!("\n========== Endpoint Manager begins: {id}\n"),
                format!("\n========== Endpoint Manager begins: \x1b[93m{id}\x1b[m\n"),
            ),
        ] {
            assert_eq!(coloured(&line), expected);
        }
        for line in ["", "\n", "é", "INFO", "a INFO b", "  ", "Z  WARN", "0Z  WARN ", "0Z NOTE x", &id[1..]]
        {
            let shown = coloured(line);
            let mut plain = shown.clone();
            for colour in [RESET, UNDERLINED, ITALIC, BRIGHT, "\x1b[33;40m"] {
                plain = plain.replace(colour, "");
            }
            assert_eq!(plain, line, "{shown:?}");
        }
    }
}
