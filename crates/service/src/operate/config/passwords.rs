//! Hides the passwords of database URLs in texts for people.

/// What stands for a password.
const HIDDEN: &str = "***";

/// `text` without the password of the `postgres://` URL in it. The URL is taken to go on to the end of `text`, since a password
/// may hold quotes and blanks: rather too much is hidden.
pub(super) fn hide(text: &str) -> String {
    let begins =
        ["postgres://", "postgresql://"].into_iter().filter_map(|it| Some(text.find(it)? + it.len()));
    let Some((scheme, url)) = begins.min().map(|begin| text.split_at(begin)) else {
        return text.to_owned();
    };
    let parameter = ["?password=", "&password="].into_iter().filter_map(|it| url.find(it)).min();
    let (rest, parameters) = url.split_at(parameter.unwrap_or(url.len()));
    let mut shown = scheme.to_owned();
    match (rest.rsplit_once('@'), rest.split_once(':')) {
        (Some((user, hosts)), _) => {
            match user.split_once(':') {
                Some((name, _)) => shown.extend([name, ":", HIDDEN]),
                None => shown.push_str(user),
            }
            shown.extend(["@", hosts]);
        }
        // What looks like a parameter is a part of a password with a question mark in it.
        (None, Some((name, _))) if parameters.contains('@') => shown.extend([name, ":", HIDDEN]),
        (None, _) => shown.push_str(rest),
    }
    hide_parameters(parameters, &mut shown);
    shown
}

/// `text` without the passwords of the `postgres://` URLs in its lines.
pub(super) fn hide_in_lines(text: &str) -> String {
    text.split('\n').map(hide).collect::<Vec<_>>().join("\n")
}

/// Whether the URL holds a password.
pub(crate) fn has_password(url: &str) -> bool {
    hide(url) != url
}

/// Adds the parameters of a URL, each after its `?` or `&`. What has no name is a part of a password with an ampersand in it.
fn hide_parameters(parameters: &str, shown: &mut String) {
    for (at, pair) in parameters.split_inclusive(['?', '&']).enumerate() {
        let (pair, separator) = match pair.strip_suffix(['?', '&']) {
            Some(before) => pair.split_at(before.len()),
            None => (pair, ""),
        };
        match pair.split_once('=') {
            Some(("password", _)) => shown.extend(["password=", HIDDEN]),
            Some((name, _)) if name.bytes().all(|it| it.is_ascii_lowercase()) => shown.push_str(pair),
            _ if at == 0 => {}
            _ => shown.push_str(HIDDEN),
        }
        shown.push_str(separator);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_and_nothing_else() {
        for (text, expected) in [
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://[::1]:5432/d?sslmode=require", "postgres://[::1]:5432/d?sslmode=require"),
            ("postgres://u:secret@h:1,i:2/d?sslmode=require", "postgres://u:***@h:1,i:2/d?sslmode=require"),
            ("postgresql://u:se@cr/e?t@h/d", "postgresql://u:***@h/d"),
            ("postgres://u:it's@h/d", "postgres://u:***@h/d"),
            ("postgres://u:a\"b`c d\te\nf@h/d", "postgres://u:***@h/d"),
            ("postgres://h/d?user=u&password=secret", "postgres://h/d?user=u&password=***"),
            ("postgres://h/d?password=p@ss", "postgres://h/d?password=***"),
            (
                "postgres://h:1/d?password=it's&sslmode=require",
                "postgres://h:1/d?password=***&sslmode=require",
            ),
            ("postgres://u:secret@h/d?password=p@ss", "postgres://u:***@h/d?password=***"),
            ("postgres://h/d?password=one&two three", "postgres://h/d?password=***&***"),
            ("postgres://u:one?password=two@h/d", "postgres://u:***?password=***"),
            ("bad: \"postgres://u:secret@h\" and postgres://v:x@i", "bad: \"postgres://u:***@i"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(hide(text), expected);
            assert_eq!(has_password(text), text != expected);
        }
    }

    #[test]
    fn each_line_of_a_text_is_a_text_of_its_own() {
        let text = "one: postgres://u:it's@h\ntwo\nthree: postgres://h/d?password=a b, not @\nfour@five\n";
        let expected = "one: postgres://u:***@h\ntwo\nthree: postgres://h/d?password=***\nfour@five\n";
        assert_eq!(hide_in_lines(text), expected);
    }
}
