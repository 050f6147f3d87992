//! Hides the passwords of database URLs in texts for people.

/// What stands for a password.
const HIDDEN: &str = "***";

/// `text` without the passwords of the `postgres://` URLs in it. Of a URL with an odd form rather too much is hidden.
pub(super) fn hide(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, scheme)) =
        ["postgres://", "postgresql://"].into_iter().filter_map(|it| Some((rest.find(it)?, it))).min()
    {
        let begin = before + scheme.len();
        shown.push_str(&rest[..begin]);
        rest = &rest[begin..];
        let end = rest.find(['"', '\'', '`', ' ', '\n', '\t']).unwrap_or(rest.len());
        hide_in(&rest[..end], &mut shown);
        rest = &rest[end..];
    }
    shown.push_str(rest);
    shown
}

/// Whether the URL holds a password.
pub(super) fn has_password(url: &str) -> bool {
    hide(url) != url
}

/// Adds what follows the scheme of a URL.
fn hide_in(url: &str, shown: &mut String) {
    let (hosts, parameters) = match url.rsplit_once('@') {
        Some((user, rest)) => {
            match user.split_once(':') {
                Some((name, _)) => shown.extend([name, ":", HIDDEN]),
                None => shown.push_str(user),
            }
            shown.push('@');
            rest.split_once('?').unwrap_or((rest, ""))
        }
        None => url.split_once('?').unwrap_or((url, "")),
    };
    shown.push_str(hosts);
    for (at, pair) in parameters.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        shown.push(if at == 0 { '?' } else { '&' });
        match pair.strip_prefix("password=") {
            Some(_) => shown.extend(["password=", HIDDEN]),
            None => shown.push_str(pair),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_and_nothing_else() {
        for (text, expected) in [
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://u:secret@h:1,i:2/d?sslmode=require", "postgres://u:***@h:1,i:2/d?sslmode=require"),
            ("postgresql://u:se@cr/e?t@h/d", "postgresql://u:***@h/d"),
            ("postgres://h/d?user=u&password=secret", "postgres://h/d?user=u&password=***"),
            (
                "bad: \"postgres://u:secret@h\" and postgres://v:x@i",
                "bad: \"postgres://u:***@h\" and postgres://v:***@i",
            ),
            ("nothing", "nothing"),
        ] {
            assert_eq!(hide(text), expected);
            assert_eq!(has_password(text), text != expected);
        }
    }
}
