//! Edits the text of a configuration by its top-level keys. Everything else stays as it was written, comments included.

use super::yaml::{self, Entry, Node, Value};

/// Sets a key to `value`, which is YAML in one line.
pub(crate) fn with(text: &str, key: &str, value: &str) -> String {
    let line = format!("{key}: {value}");
    let own = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'));
    if text.lines().any(own) {
        let lines: Vec<_> = text.lines().map(|old| if own(old) { line.as_str() } else { old }).collect();
        lines.join("\n") + "\n"
    } else {
        format!("{line}\n{text}")
    }
}

/// A text as a YAML value: plain if every reader takes it for a text, else in quotes.
pub(crate) fn scalar(text: &str) -> String {
    let harmless = |letter: char| letter.is_ascii_alphanumeric() || "/._-+@ ".contains(letter);
    let begins = text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '/');
    let plain = (begins || text.parse::<uuid::Uuid>().is_ok())
        && text.chars().all(harmless)
        && text.trim() == text
        && matches!(yaml::read(text), Ok(Node { value: Value::Text(read), .. }) if read == text);
    // A JSON string is a YAML string.
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// The text with only those keys for which `keep` holds. Comments above a key go with it. `None`: it is no mapping.
pub(crate) fn only(text: &str, keep: impl Fn(&str) -> bool) -> Option<String> {
    let node = yaml::read(text).ok()?;
    let Value::Map(entries) = &node.value else { return None };
    let kept: Vec<&Entry> = entries.iter().filter(|entry| keep(&entry.key)).collect();
    let cut = by_lines(text, entries, &keep).filter(|cut| means(cut, &kept));
    // Keys that share a line, or refer to each other.
    Some(cut.unwrap_or_else(|| {
        kept.iter().map(|entry| format!("{}: {}\n", scalar(&entry.key), entry.node.to_json())).collect()
    }))
}

/// Cuts the text between its lines. `None`: a key does not begin its line.
fn by_lines(text: &str, entries: &[Entry], keep: impl Fn(&str) -> bool) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let comment = |line: &str| line.is_empty() || line.starts_with('#');
    // Where each key's lines begin: with the comments above it.
    let mut begins = Vec::new();
    for entry in entries {
        let mut first = usize::try_from(entry.at.line).ok()?.checked_sub(1)?;
        if entry.at.column != 1 {
            return None;
        }
        while first > 0 && comment(lines.get(first - 1)?) {
            first -= 1;
        }
        begins.push(first);
    }
    let mut kept = String::new();
    for (index, _) in entries.iter().enumerate().filter(|(_, entry)| keep(&entry.key)) {
        let end = begins.get(index + 1).copied().unwrap_or(lines.len());
        for line in lines.get(*begins.get(index)?..end)? {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    Some(kept)
}

/// Whether a text has exactly these keys and values.
fn means(text: &str, entries: &[&Entry]) -> bool {
    let read = match yaml::read(text) {
        Ok(Node { value: Value::Map(read), .. }) => read,
        Ok(Node { value: Value::Null, .. }) => Vec::new(),
        Ok(_) | Err(_) => return false,
    };
    let same =
        |(one, other): (&Entry, &&Entry)| one.key == other.key && one.node.to_json() == other.node.to_json();
    read.len() == entries.len() && read.iter().zip(entries).all(same)
}

#[cfg(test)]
mod tests {
    use super::super::INITIAL;
    use super::*;

    #[test]
    fn a_key_is_replaced_in_its_place() {
        let set = with(INITIAL, "display_name", &scalar("My \"box\""));
        assert!(set.starts_with("display_name: \"My \\\"box\\\"\"\nengine:\n"), "{set}");
        let set = with(INITIAL, "service_url", &scalar("http://h:1/"));
        assert!(set.starts_with("service_url: \"http://h:1/\"\ndisplay_name: null\n"), "{set}");
    }

    #[test]
    fn texts_stay_texts() {
        for (text, written) in [
            ("/root/.globus_compute/mep_debug/x.json", "/root/.globus_compute/mep_debug/x.json"),
            ("2340174a-1a0e-46d8-a958-7c3ddf2c834a", "2340174a-1a0e-46d8-a958-7c3ddf2c834a"),
            ("My box", "My box"),
            ("yes", "\"yes\""),
            ("null", "\"null\""),
            ("2026-01-01", "\"2026-01-01\""),
            ("5", "\"5\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("", "\"\""),
            ("~", "\"~\""),
            ("{{ x }}", "\"{{ x }}\""),
        ] {
            assert_eq!(scalar(text), written);
            let read = yaml::read(&format!("k: {written}\n")).unwrap().to_json();
            assert_eq!(read["k"], text);
        }
    }

    #[test]
    fn keys_are_cut_out_with_their_comments() {
        let text = "# A site.\n\n# Its name.\ndisplay_name: x # short\nengine:\n  type: E\n\n  # inside\n  worker_init: |\n    a\n\
                    # Both.\ndebug: true\n";
        let cut = |keep: &[&str]| only(text, |key| keep.contains(&key)).unwrap();
        assert_eq!(
            cut(&["display_name", "debug"]),
            "# A site.\n\n# Its name.\ndisplay_name: x # short\n# Both.\ndebug: true\n"
        );
        assert_eq!(cut(&["engine"]), "engine:\n  type: E\n\n  # inside\n  worker_init: |\n    a\n");
        assert_eq!(cut(&[]), "");
        assert_eq!(only("- a\n", |_| true), None);
    }

    #[test]
    fn keys_that_share_a_line_or_a_value_are_written_anew() {
        let flow = only("{display_name: x, engine: {a: [1, 'b: c']}}\n", |key| key == "engine").unwrap();
        assert_eq!(flow, "engine: {\"a\":[1,\"b: c\"]}\n");
        let alias = only("debug: &d {a: 1}\nengine: *d\n", |key| key == "engine").unwrap();
        assert_eq!(alias, "engine: {\"a\":1}\n");
    }
}
