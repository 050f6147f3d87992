//! The service's cookies, and the proofs in forms that the service made them for this browser.
//!
//! ```text
//! farcall_browser    random, for a year: the key of the proofs; reveals nothing about the person
//! farcall_session    random: opens the session
//! farcall_upstream   where to go on after the sign-in at an identity provider; for 15 minutes
//! ```
//! Scripts cannot read them, and browsers send none with another site's requests (except top-level navigation). Under https they
//! are `Secure` and named `__Host-…`, so that no neighbouring host can plant one.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::http::host_names::Origin;
use store::secret::{self, Hash};

const BROWSER: &str = "farcall_browser";
const SESSION: &str = "farcall_session";
const UPSTREAM: &str = "farcall_upstream";
/// Seconds.
const YEAR: u32 = 365 * 24 * 3600;
/// The cookie of a session outlives it, so that the sign-in page can say that the session has ended.
const SESSION_COOKIE: u32 = 7 * 24 * 3600;
const QUARTER: u32 = 15 * 60;

/// The browser that sent a request, and the cookies to set.
#[derive(Debug)]
pub struct Browser {
    secure: bool,
    secret: String,
    session: Option<String>,
    upstream: Option<String>,
    set: Vec<HeaderValue>,
}

impl Browser {
    pub fn of(headers: &HeaderMap, origin: &Origin) -> Browser {
        let secure = origin.to_string().starts_with("https://");
        let read = |name: &str| cookie(headers, &named(name, secure));
        let known = read(BROWSER).filter(|secret| secret.len() == 43);
        let mut browser = Browser {
            secure,
            secret: known.clone().unwrap_or_else(secret::fresh),
            session: read(SESSION),
            upstream: read(UPSTREAM),
            set: Vec::new(),
        };
        if known.is_none() {
            let secret = browser.secret.clone();
            browser.keep(BROWSER, &secret, YEAR);
        }
        browser
    }

    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    pub fn upstream(&self) -> Option<&str> {
        self.upstream.as_deref()
    }

    /// The hash by which the browser is known.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.secret)
    }

    pub fn keep_session(&mut self, cookie: &str) {
        self.keep(SESSION, cookie, SESSION_COOKIE);
    }

    pub fn drop_session(&mut self) {
        self.keep(SESSION, "", 0);
    }

    pub fn keep_upstream(&mut self, value: &str) {
        self.keep(UPSTREAM, value, QUARTER);
    }

    pub fn drop_upstream(&mut self) {
        self.keep(UPSTREAM, "", 0);
    }

    fn keep(&mut self, name: &str, value: &str, seconds: u32) {
        let secure = if self.secure { "; Secure" } else { "" };
        let name = named(name, self.secure);
        let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        self.set.extend(HeaderValue::from_str(&cookie));
    }

    /// A proof that the service gave `parts` to this browser. It cannot be made without the browser's cookie.
    pub fn proof(&self, parts: &[&str]) -> String {
        URL_SAFE_NO_PAD.encode(self.derive(parts))
    }

    pub fn proves(&self, parts: &[&str], proof: &str) -> bool {
        self.proof(parts).as_bytes().ct_eq(proof.as_bytes()).into()
    }

    fn derive(&self, parts: &[&str]) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&["farcall page", self.secret.as_str()], parts].concat() {
            digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(part.as_bytes());
        }
        digest.finalize().into()
    }

    /// The time when the person was sent here, with a proof, as the browser passes it on.
    pub fn since(&self, began: Timestamp) -> String {
        let text = began.as_microsecond().to_string();
        let proof = self.proof(&["began", &text]);
        format!("{text}.{proof}")
    }

    /// Parses what [`Browser::since`] wrote.
    pub fn began(&self, since: &str) -> Option<Timestamp> {
        let (text, proof) = since.split_once('.')?;
        if !self.proves(&["began", text], proof) {
            return None;
        }
        Timestamp::from_microsecond(text.parse().ok()?).ok()
    }

    /// The cookies to set.
    pub fn into_cookies(self) -> Vec<HeaderValue> {
        self.set
    }
}

fn named(name: &str, secure: bool) -> String {
    if secure { format!("__Host-{name}") } else { name.to_owned() }
}

/// A cookie's value. Of two with the same name one could be planted: neither is accepted.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut found = pairs
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(known, value)| *known == name && !value.is_empty());
    let (_, value) = found.next()?;
    found.next().is_none().then(|| value.to_owned())
}

/// Whether the browser reports that one of the service's own pages sent the form.
pub fn from_own_page(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin" || site == "none",
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browser(cookies: &[&str], scheme: &str) -> Browser {
        let headers = cookies.iter().map(|text| (header::COOKIE, text.parse().unwrap())).collect();
        Browser::of(&headers, &Origin::at(&format!("{scheme}://farcall.example")))
    }

    #[test]
    fn a_new_browser_is_given_a_secret_and_a_known_one_keeps_it() {
        let new = browser(&[], "http");
        let secret = new.secret.clone();
        let cookies = new.into_cookies();
        let text = cookies[0].to_str().unwrap();
        assert!(text.starts_with(&format!("farcall_browser={secret}; Path=/;")), "{text}");
        assert!(text.ends_with("HttpOnly; SameSite=Lax"), "{text}");
        let known = browser(&[&format!("a=b; farcall_browser={secret}")], "http");
        assert_eq!(known.secret, secret);
        assert!(known.into_cookies().is_empty());
        let planted = browser(&[&format!("farcall_browser={secret}; farcall_browser={secret}")], "http");
        assert_ne!(planted.secret, secret, "two of a name are none");
    }

    #[test]
    fn under_https_cookies_are_the_hosts_alone() {
        let mut browser = browser(&[], "https");
        browser.keep_session("x");
        let cookies = browser.into_cookies();
        let text = cookies.last().unwrap().to_str().unwrap();
        assert_eq!(text, "__Host-farcall_session=x; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax; Secure");
    }

    #[test]
    fn a_proof_is_for_one_browser_and_one_thing() {
        let (one, other) = (browser(&[], "http"), browser(&[], "http"));
        let proof = one.proof(&["sign-in", "a"]);
        assert!(one.proves(&["sign-in", "a"], &proof));
        assert!(!one.proves(&["sign-ina", ""], &proof));
        assert!(!one.proves(&["consent", "a"], &proof));
        assert!(!other.proves(&["sign-in", "a"], &proof));
        let now = Timestamp::from_microsecond(1_234_567).unwrap();
        assert_eq!(one.began(&one.since(now)), Some(now));
        assert_eq!(other.began(&one.since(now)), None);
        assert_eq!(one.began(&one.since(now).replacen('1', "9", 1)), None);
    }

    #[test]
    fn forms_of_other_sites_are_told_apart() {
        for (site, own) in [
            (None, true),
            (Some("same-origin"), true),
            (Some("none"), true),
            (Some("same-site"), false),
            (Some("cross-site"), false),
        ] {
            let name = axum::http::HeaderName::from_static("sec-fetch-site");
            let headers = site.map(|site| (name, HeaderValue::from_static(site))).into_iter().collect();
            assert_eq!(from_own_page(&headers), own, "{site:?}");
        }
    }
}
