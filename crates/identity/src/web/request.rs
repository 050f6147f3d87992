//! Parses and checks the request of a client at `GET /v2/oauth2/authorize`. Pure.
//!
//! Until client and redirect URI are known to belong together, nothing is sent to that URI, and errors are shown on a page.
//! Later errors go to the client by a redirect, in OAuth's form.

use uuid::Uuid;
use wire::ClientId;

use super::redirect;
use crate::applications::Application;
use crate::http::host_names::Origin;
use crate::scope::{self, Grant};
use crate::sign_in_requirements::RequestedSignIn;

/// The longest query, re-encoded. The pages pass it on, once in a cookie.
pub const QUERY_LIMIT: usize = 3000;
/// The most parameters.
const MOST: usize = 40;
/// The longest `state` and `nonce`: they are stored with the code.
const ECHO_LIMIT: usize = 1024;
/// How many characters of the application's message are shown.
const SHOWN: usize = 300;
/// The service's own parameter: when the person was sent here, with a proof that the service gave it to this browser.
pub const BEGAN: &str = "farcall_began";

/// The parameters of the query, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizeQuery {
    pairs: Vec<(String, String)>,
    /// Names that occurred more than once.
    twice: Vec<String>,
    /// The value of [`BEGAN`].
    pub began: Option<String>,
}

/// An error shown on a page, because the client is not verified yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    #[error("The address of this page is too long.")]
    TooLong,
    #[error("The address of this page cannot be read.")]
    Unreadable,
    #[error("The address of this page does not say which application asks.")]
    NoClient,
    #[error("The application that asks is not known here, or is disabled.")]
    UnknownClient,
    #[error("This application cannot sign people in.")]
    NotForPeople,
    #[error("The address to return to is missing or is not one of this application's.")]
    Redirect,
    #[error("The address of this page says one thing twice.")]
    Twice,
}

/// The errors sent to the client, by the standard's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizeError {
    InvalidRequest,
    AccessDenied,
    UnsupportedResponseType,
    InvalidScope,
    LoginRequired,
    ConsentRequired,
    RequestNotSupported,
    RequestUriNotSupported,
}

impl AuthorizeError {
    pub fn name(self) -> &'static str {
        match self {
            AuthorizeError::InvalidRequest => "invalid_request",
            AuthorizeError::AccessDenied => "access_denied",
            AuthorizeError::UnsupportedResponseType => "unsupported_response_type",
            AuthorizeError::InvalidScope => "invalid_scope",
            AuthorizeError::LoginRequired => "login_required",
            AuthorizeError::ConsentRequired => "consent_required",
            AuthorizeError::RequestNotSupported => "request_not_supported",
            AuthorizeError::RequestUriNotSupported => "request_uri_not_supported",
        }
    }
}

/// Where the browser returns to, and the client's `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return {
    pub redirect_uri: String,
    pub state: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorRedirect {
    pub to: Return,
    pub error: AuthorizeError,
    pub description: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Page(Untrusted),
    Redirect(Box<ErrorRedirect>),
}

impl From<Untrusted> for Fault {
    fn from(fault: Untrusted) -> Fault {
        Fault::Page(fault)
    }
}

/// A valid request, which the person may grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub client: ClientId,
    pub to: Return,
    pub grants: Vec<Grant>,
    /// Refresh tokens are requested.
    pub offline: bool,
    pub challenge: String,
    pub nonce: Option<String>,
    /// The application's name for itself: `app on host`.
    pub label: Option<String>,
    /// A message of the application to the person.
    pub message: Option<String>,
    /// The username to fill in.
    pub hint: Option<String>,
    /// No page may be shown (`prompt=none`).
    pub silent: bool,
    pub demands: RequestedSignIn,
    /// The query, re-encoded; the pages pass it on.
    pub query: String,
}

impl AuthorizeQuery {
    pub fn read(query: &str) -> Result<AuthorizeQuery, Untrusted> {
        if query.len() > 4 * QUERY_LIMIT {
            return Err(Untrusted::TooLong);
        }
        let all: Vec<(String, String)> =
            serde_urlencoded::from_str(query).map_err(|_| Untrusted::Unreadable)?;
        if all.len() > MOST {
            return Err(Untrusted::TooLong);
        }
        let mut asked =
            AuthorizeQuery { pairs: Vec::with_capacity(all.len()), twice: Vec::new(), began: None };
        for (name, value) in all {
            if name == BEGAN {
                asked.began = Some(value);
            } else if asked.pairs.iter().any(|(known, _)| *known == name) {
                asked.twice.push(name);
            } else {
                asked.pairs.push((name, value));
            }
        }
        // Client and redirect URI must be unambiguous.
        if asked.twice.iter().any(|name| name == "client_id" || name == "redirect_uri") {
            return Err(Untrusted::Twice);
        }
        if asked.query().len() > QUERY_LIMIT {
            return Err(Untrusted::TooLong);
        }
        Ok(asked)
    }

    fn query(&self) -> String {
        serde_urlencoded::to_string(&self.pairs).unwrap_or_default()
    }

    /// A parameter; an empty one counts as absent.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    /// The id of the requesting application.
    pub fn client(&self) -> Result<ClientId, Untrusted> {
        self.get("client_id").ok_or(Untrusted::NoClient)?.parse().map_err(|_| Untrusted::UnknownClient)
    }

    /// Judges the request of `application`, whose id is [`AuthorizeQuery::client`]. `own` is the name the browser knows us by.
    pub fn judge(&self, application: &Application, own: &Origin) -> Result<Request, Fault> {
        let Application::Native(app) = application else { return Err(Untrusted::NotForPeople.into()) };
        let redirect_uri = self.get("redirect_uri").ok_or(Untrusted::Redirect)?;
        if !redirect::permitted(redirect_uri, &app.redirect_uris, own) {
            return Err(Untrusted::Redirect.into());
        }
        let echo = |name: &str| self.get(name).filter(|text| text.len() <= ECHO_LIMIT).map(str::to_owned);
        let to = Return { redirect_uri: redirect_uri.to_owned(), state: echo("state") };
        let error_redirect = |error, description: &str| {
            Fault::Redirect(Box::new(ErrorRedirect {
                to: to.clone(),
                error,
                description: description.to_owned(),
            }))
        };
        let invalid = |description: &str| error_redirect(AuthorizeError::InvalidRequest, description);
        if let Some(name) = self.twice.first() {
            return Err(invalid(&format!("the parameter {} is there twice", shown(name, 50))));
        }
        if let Some((name, _)) = self.pairs.iter().find(|(_, value)| value.contains('\0')) {
            return Err(invalid(&format!("the parameter {} holds the character NUL", shown(name, 50))));
        }
        if ["state", "nonce"].iter().any(|name| self.get(name).is_some_and(|text| text.len() > ECHO_LIMIT)) {
            return Err(invalid("state or nonce is too long"));
        }
        if self.get("request").is_some() {
            return Err(error_redirect(
                AuthorizeError::RequestNotSupported,
                "request objects are not served",
            ));
        }
        if self.get("request_uri").is_some() {
            return Err(error_redirect(
                AuthorizeError::RequestUriNotSupported,
                "request objects are not served",
            ));
        }
        match self.get("response_type") {
            Some("code") => {}
            Some(_) => {
                return Err(error_redirect(AuthorizeError::UnsupportedResponseType, "only code is served"));
            }
            None => return Err(invalid("response_type is missing")),
        }
        if self.get("response_mode").is_some_and(|mode| mode != "query") {
            return Err(invalid("response_mode can only be query"));
        }
        // Without it, the code alone would be enough to get the tokens.
        let challenge = self.get("code_challenge").ok_or_else(|| invalid("code_challenge is missing"))?;
        if self.get("code_challenge_method") != Some("S256") {
            return Err(invalid("code_challenge_method has to be S256"));
        }
        if !is_challenge(challenge) {
            return Err(invalid("code_challenge is not the S256 of anything"));
        }
        let grants = scope::grants(self.get("scope").unwrap_or_default())
            .map_err(|error| error_redirect(AuthorizeError::InvalidScope, &error.to_string()))?;
        let offline = match self.get("access_type") {
            Some("offline") => true,
            Some("online") | None => false,
            Some(_) => return Err(invalid("access_type is offline or online")),
        };
        let prompts: Vec<&str> = self.get("prompt").unwrap_or_default().split_whitespace().collect();
        let known = ["login", "none", "consent", "select_account"];
        if prompts.iter().any(|prompt| !known.contains(prompt)) {
            return Err(invalid("prompt is login, none, consent or select_account"));
        }
        let silent = prompts.contains(&"none");
        if silent && prompts.len() > 1 {
            return Err(invalid("prompt says none and something else"));
        }
        let list = |name: &str| -> Vec<String> {
            let all = self.get(name).unwrap_or_default().split(',').map(str::trim);
            all.filter(|item| !item.is_empty()).map(str::to_owned).collect()
        };
        let policies: Result<Vec<Uuid>, _> =
            list("session_required_policies").iter().map(|id| id.parse::<Uuid>()).collect();
        let demands = RequestedSignIn {
            fresh: prompts.contains(&"login") || prompts.contains(&"select_account"),
            identities: list("session_required_identities"),
            domains: list("session_required_single_domain"),
            mfa: self
                .get("session_required_mfa")
                .is_some_and(|text| text.eq_ignore_ascii_case("true") || text == "1"),
            policies: policies.map_err(|_| invalid("session_required_policies is no list of ids"))?,
        };
        Ok(Request {
            client: app.id,
            nonce: echo("nonce"),
            offline,
            challenge: challenge.to_owned(),
            label: self.get("prefill_named_grant").map(|label| shown(label, 100)),
            message: self.get("session_message").map(|message| shown(message, SHOWN)),
            hint: self.get("login_hint").map(|hint| shown(hint, 254)),
            silent,
            demands,
            query: self.query(),
            grants,
            to,
        })
    }
}

impl Request {
    pub fn redirect_error(&self, error: AuthorizeError, description: &str) -> ErrorRedirect {
        ErrorRedirect { to: self.to.clone(), error, description: description.to_owned() }
    }

    /// The requested scopes, each once.
    pub fn scope(&self) -> String {
        let scopes: Vec<&str> =
            self.grants.iter().flat_map(|grant| grant.scopes.iter().map(String::as_str)).collect();
        scopes.join(" ")
    }
}

impl Return {
    /// The redirect URI with these parameters and the client's `state`.
    pub fn with(&self, pairs: &[(&str, &str)]) -> String {
        let mut pairs = pairs.to_vec();
        if let Some(state) = &self.state {
            pairs.push(("state", state));
        }
        let query = serde_urlencoded::to_string(pairs).unwrap_or_default();
        let join = if self.redirect_uri.contains('?') { '&' } else { '?' };
        format!("{}{join}{query}", self.redirect_uri)
    }
}

impl ErrorRedirect {
    pub fn location(&self) -> String {
        self.to.with(&[("error", self.error.name()), ("error_description", &self.description)])
    }
}

/// Whether this has the form of a verifier's SHA-256.
fn is_challenge(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
}

/// The beginning of a text from the application, without control and direction characters.
fn shown(text: &str, most: usize) -> String {
    let plain = |c: &char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().filter(plain).take(most).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use store::NativeApp;

    const CLIENT: &str = wire::rest::auth::NATIVE_CLIENT;
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const PAGE: &str = "http://localhost:5000/v2/web/auth-code";

    fn own() -> Origin {
        Origin::at("http://localhost:5000")
    }

    fn app() -> Application {
        Application::Native(NativeApp {
            id: CLIENT.parse().unwrap(),
            name: "SDK".into(),
            redirect_uris: vec!["http://127.0.0.1/done".into()],
            disabled: false,
            created: Timestamp::UNIX_EPOCH,
        })
    }

    /// The stock SDK's request, with changes: a value of `None` takes a parameter away.
    fn query(changes: &[(&str, Option<&str>)]) -> String {
        let mut pairs = vec![
            ("client_id", CLIENT),
            ("redirect_uri", PAGE),
            ("scope", "openid openid"),
            ("state", "_default"),
            ("response_type", "code"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("access_type", "offline"),
            ("prefill_named_grant", "app on host"),
        ];
        for (name, value) in changes {
            pairs.retain(|(known, _)| known != name);
            pairs.extend(value.map(|value| (*name, value)));
        }
        serde_urlencoded::to_string(pairs).unwrap()
    }

    fn judge(query: &str) -> Result<Request, Fault> {
        let asked = AuthorizeQuery::read(query)?;
        asked.client()?;
        asked.judge(&app(), &own())
    }

    #[test]
    fn the_stock_request_is_understood() {
        let request = judge(&query(&[
            ("prompt", Some("login")),
            ("session_required_identities", Some("a@b.c,d@e.f")),
            ("session_required_mfa", Some("True")),
            ("session_message", Some("Hello\u{202e}\n<b>")),
        ]))
        .unwrap();
        assert!(request.offline && request.demands.fresh && request.demands.mfa);
        assert_eq!(request.scope(), "openid");
        assert_eq!(request.demands.identities, ["a@b.c", "d@e.f"]);
        assert_eq!(request.label.as_deref(), Some("app on host"));
        assert_eq!(request.message.as_deref(), Some("Hello<b>"));
        assert_eq!(request.to.with(&[("code", "c&d")]), format!("{PAGE}?code=c%26d&state=_default"));
        assert_eq!(judge(&request.query).unwrap(), request, "it survives the pages");
    }

    #[test]
    fn who_cannot_be_trusted_is_told_on_a_page() {
        let other = "00000000-0000-4000-8000-000000000000";
        let double = |name: &str| format!("{}&{name}=x", query(&[]));
        for (what, query, fault) in [
            ("no client", query(&[("client_id", None)]), Untrusted::NoClient),
            ("no id", query(&[("client_id", Some("me"))]), Untrusted::UnknownClient),
            ("no redirect", query(&[("redirect_uri", None)]), Untrusted::Redirect),
            ("another's", query(&[("redirect_uri", Some("https://evil.example/"))]), Untrusted::Redirect),
            ("client twice", double("client_id"), Untrusted::Twice),
            ("redirect twice", double("redirect_uri"), Untrusted::Twice),
            ("long", query(&[("state", Some(&"x".repeat(9000)))]), Untrusted::TooLong),
            ("many", format!("{}{}", query(&[]), "&a=b".repeat(99)), Untrusted::TooLong),
        ] {
            assert_eq!(judge(&query), Err(Fault::Page(fault)), "{what}");
        }
        assert!(AuthorizeQuery::read(&query(&[("client_id", Some(other))])).unwrap().client().is_ok());
    }

    #[test]
    fn what_is_wrong_otherwise_is_told_to_the_client() {
        use AuthorizeError::*;
        let long = "x".repeat(1100);
        for (what, changes, error) in [
            ("no type", ("response_type", None), InvalidRequest),
            ("token", ("response_type", Some("token")), UnsupportedResponseType),
            ("mode", ("response_mode", Some("form_post")), InvalidRequest),
            ("no challenge", ("code_challenge", None), InvalidRequest),
            ("short challenge", ("code_challenge", Some("abc")), InvalidRequest),
            ("strange challenge", ("code_challenge", Some(&"+".repeat(43))), InvalidRequest),
            ("no method", ("code_challenge_method", None), InvalidRequest),
            ("plain", ("code_challenge_method", Some("plain")), InvalidRequest),
            ("no scope", ("scope", None), InvalidScope),
            ("unknown scope", ("scope", Some("openid everything")), InvalidScope),
            ("access", ("access_type", Some("forever")), InvalidRequest),
            ("prompt", ("prompt", Some("sing")), InvalidRequest),
            ("prompts", ("prompt", Some("none login")), InvalidRequest),
            ("policies", ("session_required_policies", Some("mine")), InvalidRequest),
            ("state", ("state", Some(&*long)), InvalidRequest),
            ("request", ("request", Some("eyJ")), RequestNotSupported),
            ("request_uri", ("request_uri", Some("https://e.example")), RequestUriNotSupported),
        ] {
            match judge(&query(&[changes])) {
                Err(Fault::Redirect(error_redirect)) => {
                    assert_eq!(error_redirect.error, error, "{what}");
                    assert!(error_redirect.location().starts_with(&format!("{PAGE}?error={}", error.name())));
                }
                other => panic!("{what}: {other:?}"),
            }
        }
        let twice = format!("{}&scope=openid", query(&[]));
        assert!(
            matches!(judge(&twice), Err(Fault::Redirect(error_redirect)) if error_redirect.error == InvalidRequest)
        );
    }
}
