//! Tests of bad requests to the identity service, as tables.
//!
//! Each case is a request and what is said to it. For every one of them the tables also hold that nothing in the store
//! has changed, and that nothing secret came into the log: all that is made up as a secret contains [`NOT_FOR_LOGS`].

mod codes;
mod pages;
mod projects;
mod tokens;

use std::fmt::Write as _;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::support::{Answer, Client, Farcall, send};

/// Part of every secret that a case makes up.
pub const NOT_FOR_LOGS: &str = "not-for-logs";

pub struct Case {
    pub what: &'static str,
    pub request: RequestBuilder,
    pub said: Said,
}

/// Cases that are refused alike.
pub fn each<const N: usize>(said: Said, cases: [(&'static str, RequestBuilder); N]) -> Vec<Case> {
    cases.into_iter().map(|(what, request)| Case { what, request, said }).collect()
}

/// How a case is refused.
#[derive(Clone, Copy, Debug)]
pub enum Said {
    /// In OAuth's form: the status and `error`.
    OAuth(u16, &'static str),
    /// On the identity service's other routes: the status and the code of the first problem.
    Problem(u16, &'static str),
    /// On the compute routes: the status and `code`.
    Compute(u16, &'static str),
    /// Introspection: it is not active, and nothing else.
    Inactive,
    /// A page: the status. Nobody is sent anywhere.
    Page(u16),
    /// The client is told by a redirect: the `error`.
    Sent(&'static str),
    /// Revocation: answered like everything else, and nothing is done.
    Ignored,
}

impl Said {
    fn fits(self, answer: &Answer) -> bool {
        let status = answer.status.as_u16();
        let body = &answer.body;
        let secretive = body.get("access_token").is_none() && body.get("id_token").is_none();
        secretive
            && match self {
                Said::OAuth(expected, error) => {
                    status == expected && body["error"] == error && body["error_description"].is_string()
                }
                Said::Problem(expected, code) => status == expected && body["errors"][0]["code"] == code,
                Said::Compute(expected, code) => status == expected && body["code"] == code,
                Said::Inactive => status == 200 && *body == serde_json::json!({"active": false}),
                Said::Page(expected) => {
                    let text = body.as_str().unwrap_or_default();
                    status == expected && !answer.headers.contains_key("location") && text.contains("<main>")
                }
                Said::Sent(error) => {
                    let to =
                        answer.headers.get("location").and_then(|to| to.to_str().ok()).unwrap_or_default();
                    status == 303 && to.contains(&format!("?error={error}&")) && !to.contains("code=")
                }
                Said::Ignored => status == 200 && *body == serde_json::json!({"active": false}),
            }
    }
}

/// Plays `cases` one after another; fails with the list of those that went otherwise. `secrets` are real ones.
pub async fn play(service: &Farcall, cases: Vec<Case>, secrets: &[&str]) {
    let mut wrong = String::new();
    let mut before = everything(service).await;
    for case in cases {
        let answer = send(case.request).await;
        if !case.said.fits(&answer) {
            let _ = writeln!(
                wrong,
                "{}: {} {} instead of {:?}",
                case.what, answer.status, answer.body, case.said
            );
        }
        let after = everything(service).await;
        if before != after {
            let _ = writeln!(wrong, "{}: the store has changed", case.what);
            before = after;
        }
    }
    let log = service.read_log();
    for secret in secrets.iter().chain([&NOT_FOR_LOGS]) {
        if let Some(line) = log.lines().find(|line| line.contains(secret)) {
            let _ = writeln!(wrong, "a secret was logged: {line}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// All rows of all tables, as text.
pub async fn everything(service: &Farcall) -> String {
    let mut database = service.database().await;
    let whole = database.everything().await;
    database.close().await;
    whole
}

/// A form, posted.
pub fn form(service: &Farcall, path: &str, body: impl Into<String>) -> RequestBuilder {
    let request = service.request(Method::POST, path);
    request.header("content-type", "application/x-www-form-urlencoded").body(body.into())
}

/// The access token of an answer.
pub fn access_token(answer: &Value) -> String {
    answer["access_token"].as_str().unwrap().to_owned()
}

/// `client`'s Basic header on a request.
pub fn by(request: RequestBuilder, client: &Client) -> RequestBuilder {
    request.basic_auth(&client.id, Some(&client.secret))
}

#[tokio::test]
async fn the_look_at_the_store_sees_changes() {
    let service = Farcall::start();
    let client = service.client().await;
    let before = everything(&service).await;
    assert!(before.contains("identities: ") && before.contains("tokens: "), "{before}");
    client.grant("openid").await.ok();
    assert_ne!(before, everything(&service).await);
}
