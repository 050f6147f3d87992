//! Parses the headers `Authorization` (Bearer and Basic) and `Proxy-Authorization`.

use axum::http::{HeaderMap, HeaderName, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The token of `Authorization: Bearer …`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    credentials(headers, &header::AUTHORIZATION, "bearer").filter(|token| !token.is_empty())
}

/// The user and password of `Authorization: Basic …`.
pub fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    user_and_password(headers, &header::AUTHORIZATION)
}

/// The same of `Proxy-Authorization`.
pub fn proxy_basic(headers: &HeaderMap) -> Option<(String, String)> {
    user_and_password(headers, &header::PROXY_AUTHORIZATION)
}

fn user_and_password(headers: &HeaderMap, name: &HeaderName) -> Option<(String, String)> {
    let decoded = STANDARD.decode(credentials(headers, name, "basic")?).ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn credentials<'h>(headers: &'h HeaderMap, name: &HeaderName, scheme: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    // Two headers could mean two senders: accept neither.
    if values.next().is_some() {
        return None;
    }
    let (given, rest) = value.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn both_forms() {
        assert_eq!(bearer(&with(&["Bearer abc"])), Some("abc"));
        assert_eq!(bearer(&with(&["bearer  abc "])), Some("abc"));
        assert_eq!(basic(&with(&["Basic dTpwOnE="])), Some(("u".into(), "p:q".into())));
    }

    #[test]
    fn anything_else_is_nobody() {
        for value in ["", "Bearer", "Bearer ", "abc", "Basic abc", "Basic !!!", "Basic dQ==", "Digest x"] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!((bearer(&headers), basic(&headers)), (None, None), "{value:?}");
        }
        assert_eq!(bearer(&with(&["Bearer a", "Bearer b"])), None);
    }
}
