//! Plays a person with a browser: cookies, forms, redirects.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{Answer, COMPUTE, Client, Farcall, send};

pub const NATIVE: &str = wire::rest::auth::NATIVE_CLIENT;
pub const PASSWORD: &str = "correct-horse-not-for-logs";
/// The pair of RFC 7636.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

#[derive(Clone)]
pub struct Visitor {
    web: reqwest::Client,
    http: String,
    pub cookies: BTreeMap<String, String>,
}

/// What a visitor is shown, or where it is sent.
#[derive(Debug)]
pub struct Shown {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Shown {
    #[track_caller]
    pub fn sent_to(&self) -> &str {
        assert_eq!(self.status, 303, "{}", self.body);
        self.headers["location"].to_str().unwrap()
    }

    /// A parameter of where the browser is sent.
    #[track_caller]
    pub fn parameter(&self, name: &str) -> String {
        let at = reqwest::Url::parse(self.sent_to()).unwrap();
        let found = at.query_pairs().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no {name} in {at}")).1.into_owned()
    }

    /// Address and proof of the form on the page that posts to `path`.
    #[track_caller]
    pub fn form(&self, path: &str) -> (String, String) {
        let start = self.body.find(&format!("action=\"{path}")).unwrap_or_else(|| panic!("{}", self.body));
        let rest = &self.body[start + 8..];
        let action = rest[..rest.find('"').unwrap()].replace("&amp;", "&");
        let rest = &rest[rest.find("name=\"proof\" value=\"").unwrap() + 20..];
        (action, rest[..rest.find('"').unwrap()].to_owned())
    }
}

/// The stock SDK's request, with changes: a value of `None` takes a parameter away.
pub fn authorize(service: &Farcall, changes: &[(&str, Option<&str>)]) -> String {
    let page = code_page(service);
    let scope = format!("openid {COMPUTE}");
    let mut pairs = vec![
        ("client_id", NATIVE),
        ("redirect_uri", &page),
        ("scope", &scope),
        ("state", "_default"),
        ("response_type", "code"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("access_type", "offline"),
    ];
    for (name, value) in changes {
        pairs.retain(|(known, _)| known != name);
        pairs.extend(value.map(|value| (*name, value)));
    }
    let url = reqwest::Url::parse_with_params("http://x/v2/oauth2/authorize", pairs).unwrap();
    format!("{}?{}", url.path(), url.query().unwrap())
}

pub fn code_page(service: &Farcall) -> String {
    format!("{}/v2/web/auth-code", service.http)
}

impl Visitor {
    pub fn new(service: &Farcall) -> Visitor {
        let web = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none());
        Visitor { web: web.build().unwrap(), http: service.http.clone(), cookies: BTreeMap::new() }
    }

    /// A request with this visitor's cookies; `path` may be a whole address of ours.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let path = path.strip_prefix(&self.http).unwrap_or(path);
        let request = self.web.request(method, format!("{}{path}", self.http));
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if cookies.is_empty() { request } else { request.header("cookie", cookies.join("; ")) }
    }

    pub fn posting(&self, path: &str, pairs: &[(&str, &str)]) -> reqwest::RequestBuilder {
        self.request(Method::POST, path).form(pairs)
    }

    pub async fn get(&mut self, path: &str) -> Shown {
        let request = self.request(Method::GET, path);
        self.see(request).await
    }

    pub async fn post(&mut self, path: &str, pairs: &[(&str, &str)]) -> Shown {
        let request = self.posting(path, pairs);
        self.see(request).await
    }

    pub async fn see(&mut self, request: reqwest::RequestBuilder) -> Shown {
        let Answer { status, body, headers } = send(request).await;
        for cookie in headers.get_all("set-cookie") {
            let (pair, rest) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if rest.contains("Max-Age=0;") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let body = if let Value::String(text) = body { text } else { body.to_string() };
        Shown { status, headers, body }
    }

    /// Types username and password into the sign-in page; what comes then.
    pub async fn sign_in(&mut self, authorize: &str, username: &str, password: &str) -> Shown {
        let page = self.get(authorize).await;
        let (action, proof) = page.form("/v2/web/sign-in");
        self.post(&action, &[("proof", &proof), ("username", username), ("password", password)]).await
    }

    /// Consents on the page at `authorize`; the code.
    pub async fn allow(&mut self, authorize: &str) -> String {
        let page = self.get(authorize).await;
        let (action, proof) = page.form("/v2/web/consent");
        let sent = self.post(&action, &[("proof", &proof), ("answer", "allow")]).await;
        sent.parameter("code")
    }

    /// Signs in and consents; the code.
    pub async fn code(&mut self, authorize: &str, username: &str) -> String {
        let sent = self.sign_in(authorize, username, PASSWORD).await;
        let on = sent.sent_to().to_owned();
        self.allow(&on).await
    }
}

/// Exchanges a code as the stock client does.
pub async fn exchange(service: &Farcall, code: &str, changes: &[(&str, &str)]) -> Answer {
    token(service, &exchange_form(service, code, changes)).await
}

pub fn exchange_form(service: &Farcall, code: &str, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let page = code_page(service);
    let mut pairs = vec![
        ("grant_type", "authorization_code"),
        ("client_id", NATIVE),
        ("code", code),
        ("code_verifier", VERIFIER),
        ("redirect_uri", &page),
    ];
    for (name, value) in changes {
        pairs.retain(|(known, _)| known != name);
        pairs.push((name, value));
    }
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Signs in and exchanges the code, with changes to the stock SDK's request.
pub async fn log_in(service: &Farcall, username: &str, changes: &[(&str, Option<&str>)]) -> Answer {
    let code = Visitor::new(service).code(&authorize(service, changes), username).await;
    exchange(service, &code, &[]).await
}

/// `username` at the compute routes, through the SDK's application. `any` is a client of the same service.
pub async fn client_of_person(service: &Farcall, any: &Client, username: &str) -> Client {
    any.with_token(&log_in(service, username, &[("scope", Some(COMPUTE))]).await.ok()["access_token"])
}

pub async fn refresh(service: &Farcall, refresh_token: &str) -> Answer {
    let pairs = [("grant_type", "refresh_token"), ("client_id", NATIVE), ("refresh_token", refresh_token)];
    token(service, &pairs).await
}

async fn token(service: &Farcall, form: &impl serde::Serialize) -> Answer {
    send(service.request(Method::POST, "/v2/oauth2/token").form(form)).await
}

/// A new person with the one password of these tests; their id.
pub fn person(service: &Farcall, username: &str) -> String {
    let added = service.administer(&["user", "add", username, "--name", "Somebody"], PASSWORD);
    added["id"].as_str().unwrap().to_owned()
}
