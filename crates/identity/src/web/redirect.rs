//! Checks where codes may be sent: the service's own page that shows them, and what an application has registered.
//!
//! Bytes are compared. One exception, from RFC 8252: a program on the person's own machine listens on any free port, so a
//! registered loopback address permits the same one with another port.

use wire::rest::auth::CODE_PAGE;

use crate::http::host_names::Origin;

/// Whether a code may be sent to `uri`. `own` is the service's name in the browser.
pub fn permitted(uri: &str, registered: &[String], own: &Origin) -> bool {
    is_code_page(uri, own)
        || registered.iter().any(|known| known == uri)
        || loopback(uri).is_some_and(|asked| {
            registered.iter().filter_map(|known| loopback(known)).any(|known| known == asked)
        })
}

/// Whether `uri` is the service's own page that shows a code, under its name in the browser.
pub fn is_code_page(uri: &str, own: &Origin) -> bool {
    let own = own.to_string();
    let bare = |text: &str| {
        text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).map(str::to_ascii_lowercase)
    };
    match (bare(uri), bare(&own)) {
        (Some(uri), Some(own)) => uri == format!("{own}/{CODE_PAGE}"),
        _ => false,
    }
}

/// Where a form may lead, besides the service's own pages.
pub fn form_target(redirect_uri: &str, own: &Origin) -> Option<String> {
    let target = target(redirect_uri);
    // It becomes part of a header.
    let safe = target.bytes().all(|c| c.is_ascii_alphanumeric() || b":/.-[]+".contains(&c));
    (safe && !is_code_page(redirect_uri, own)).then_some(target)
}

/// The origin of a redirect URI, or its scheme when it has no host.
pub fn target(redirect_uri: &str) -> String {
    match redirect_uri.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            format!("{scheme}://{host}")
        }
        None => format!("{}:", redirect_uri.split(':').next().unwrap_or_default()),
    }
}

/// Host and path of a loopback address, if it has only these and a port.
fn loopback(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.strip_prefix('[') {
        Some(_) => authority.split_at(authority.find(']')? + 1),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => !port.is_empty() && port.len() <= 5 && port.bytes().all(|c| c.is_ascii_digit()),
        None => port.is_empty(),
    };
    let plain = !path.contains(['?', '#', '\\', '%']) && !path.contains("//") && !path.contains("..");
    (["127.0.0.1", "[::1]", "localhost"].contains(&host) && port && plain).then_some((host, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_or_registered() {
        let own = Origin::at("http://Farcall.example:5000");
        let registered =
            ["https://app.example/cb?x=1", "http://127.0.0.1/cb", "http://[::1]:1/", "org.example.app:/cb"];
        let registered = registered.map(str::to_owned);
        for (uri, fits) in [
            ("http://farcall.example:5000/v2/web/auth-code", true),
            ("https://farcall.example:5000/v2/web/auth-code", true),
            ("http://farcall.example:5001/v2/web/auth-code", false),
            ("http://farcall.example:5000/v2/web/auth-code/", false),
            ("http://farcall.example:5000/v2/web/auth-code?x=1", false),
            ("http://farcall.example:5000/v2/web/auth-code#x", false),
            ("http://x@farcall.example:5000/v2/web/auth-code", false),
            ("http://evil.example/v2/web/auth-code", false),
            ("//farcall.example:5000/v2/web/auth-code", false),
            ("https://app.example/cb?x=1", true),
            ("https://app.example/cb?x=1&y=2", false),
            ("https://app.example/cb", false),
            ("https://APP.example/cb?x=1", false),
            ("org.example.app:/cb", true),
            ("http://127.0.0.1/cb", true),
            ("http://127.0.0.1:8123/cb", true),
            ("http://127.0.0.1:8123/cb/../x", false),
            ("http://127.0.0.1:8123/cb?x", false),
            ("http://127.0.0.1:/cb", false),
            ("http://127.0.0.1:99999999/cb", false),
            ("http://127.0.0.1:80@evil.example/cb", false),
            ("http://127.0.0.1.evil.example/cb", false),
            ("https://127.0.0.1/cb", false),
            ("http://127.0.0.2/cb", false),
            ("http://localhost:8123/cb", false),
            ("http://[::1]:8123/", true),
            ("http://[::1]:8123", false),
            ("http://[::1", false),
            ("javascript:alert(1)", false),
            ("", false),
        ] {
            assert_eq!(permitted(uri, &registered, &own), fits, "{uri}");
        }
    }

    #[test]
    fn where_a_form_may_lead() {
        for (uri, at) in [
            ("http://127.0.0.1:81/a?b", "http://127.0.0.1:81"),
            ("https://app.example?x", "https://app.example"),
            ("org.example.app:/cb", "org.example.app:"),
        ] {
            assert_eq!(target(uri), at);
        }
    }
}
