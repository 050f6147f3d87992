//! The REST interface of a service: requests with a token, repeated as [`crate::retry`] says.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use wire::EndpointId;
use wire::queue::Registration;

use crate::ambient;
use crate::error::{Error, Refusal};
use crate::place::Place;
use crate::retry::{self, Outcome};
use crate::token::{Credentials, Granted, SCOPE, Token};

/// As long as upstream waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
const CONNECTING: Duration = Duration::from_secs(15);

/// The longest answer we read.
const LONGEST_ANSWER: usize = 16 << 20;
/// As much of a refusal is kept.
const LONGEST_TEXT: usize = 4096;

/// A service, asked on somebody's behalf.
#[derive(Debug)]
pub struct Service {
    http: reqwest::Client,
    place: Place,
    credentials: Credentials,
    token: Mutex<Option<Token>>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Service {
    /// `agent` is the User-Agent header. Nothing is sent yet.
    pub fn new(place: Place, credentials: Credentials, agent: &str) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .user_agent(agent)
            .timeout(TIMEOUT)
            .connect_timeout(CONNECTING)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::Unusable(error.to_string()))?;
        Ok(Self { http, place, credentials, token: Mutex::new(None) })
    }

    /// What versions the service speaks and requires: `GET /v2/version?service=all`.
    pub async fn versions<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.ask(&Method::GET, "v2/version?service=all", None::<&()>).await
    }

    /// Registers an endpoint: a new one, or one with this id again.
    pub async fn register<B: Serialize>(
        &self,
        id: Option<EndpointId>,
        body: &B,
    ) -> Result<Registration, Error> {
        match id {
            None => self.ask(&Method::POST, "v3/endpoints", Some(body)).await,
            Some(id) => self.ask(&Method::PUT, &format!("v3/endpoints/{id}"), Some(body)).await,
        }
    }

    /// Whether an endpoint is online, and its last report.
    pub async fn endpoint_status<T: DeserializeOwned>(&self, id: EndpointId) -> Result<T, Error> {
        self.ask(&Method::GET, &format!("v2/endpoints/{id}/status"), None::<&()>).await
    }

    /// Deletes an endpoint at the service.
    pub async fn delete_endpoint(&self, id: EndpointId) -> Result<(), Error> {
        let _: serde_json::Value =
            self.ask(&Method::DELETE, &format!("v2/endpoints/{id}"), None::<&()>).await?;
        Ok(())
    }

    /// One request with a token; a token the service no longer takes is replaced once.
    async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Error> {
        let url = join(&self.place.service, path)?;
        let request = |token: String| {
            let request = self.http.request(method.clone(), url.clone()).bearer_auth(token);
            match body {
                Some(body) => request.json(body),
                None => request,
            }
        };
        let token = self.token().await?;
        match repeat(&url, || request(token.clone())).await? {
            Answer::Good(body) => read(&url, &body),
            Answer::Refused(refusal) if refusal.status == StatusCode::UNAUTHORIZED.as_u16() => {
                self.token.lock().await.take();
                let token = self.token().await?;
                match repeat(&url, || request(token.clone())).await? {
                    Answer::Good(body) => read(&url, &body),
                    Answer::Refused(refusal) => Err(Error::Refused(refusal)),
                }
            }
            Answer::Refused(refusal) => Err(Error::Refused(refusal)),
        }
    }

    /// The token in use, or a new one.
    async fn token(&self) -> Result<String, Error> {
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref().and_then(|token| token.good(ambient::now())) {
            return Ok(token.to_owned());
        }
        let url = join(&self.place.identity, "v2/oauth2/token")?;
        let form = [("grant_type", "client_credentials"), ("scope", SCOPE)];
        let Credentials { client_id, client_secret } = &self.credentials;
        let request = || self.http.post(url.clone()).basic_auth(client_id, Some(client_secret)).form(&form);
        let granted: Granted = match repeat(&url, request).await? {
            Answer::Good(body) => read(&url, &body)?,
            Answer::Refused(refusal) => return Err(Error::Unauthenticated(refusal)),
        };
        let text = granted.access_token.clone();
        *held = Some(Token::new(granted, ambient::now()));
        Ok(text)
    }
}

/// What a request ended in.
enum Answer {
    Good(Vec<u8>),
    Refused(Refusal),
}

fn join(base: &Url, path: &str) -> Result<Url, Error> {
    base.join(path).map_err(|error| Error::Unusable(format!("{base}{path}: {error}")))
}

fn read<T: DeserializeOwned>(url: &Url, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body)
        .map_err(|error| Error::Unreadable { url: url.to_string(), reason: error.to_string() })
}

/// Sends a request until its outcome stands.
async fn repeat(url: &Url, request: impl Fn() -> RequestBuilder) -> Result<Answer, Error> {
    for attempt in 0.. {
        let (outcome, ended) = match request().send().await {
            Ok(response) => {
                let outcome = Outcome::Status {
                    status: response.status().as_u16(),
                    retry_after: retry_after(&response),
                };
                (outcome, finish(url, response).await)
            }
            Err(error) => (Outcome::NoAnswer, Err(unreachable(url, &error))),
        };
        // An answer that broke off is as good as none.
        let outcome = if ended.is_err() { Outcome::NoAnswer } else { outcome };
        match retry::pause(outcome, attempt, ambient::fraction()) {
            None => return ended,
            Some(pause) => {
                tracing::debug!(%url, ?outcome, ?pause, "asking again");
                tokio::time::sleep(pause).await;
            }
        }
    }
    Err(Error::Unreachable {
        url: url.to_string(),
        reason: "asked as often as a number can count".to_owned(),
    })
}

fn retry_after(response: &Response) -> Option<u64> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

async fn finish(url: &Url, mut response: Response) -> Result<Answer, Error> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error))? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return Err(Error::Unreadable {
                url: url.to_string(),
                reason: "the answer is too long".to_owned(),
            });
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return Ok(Answer::Good(body));
    }
    Ok(Answer::Refused(refusal(status.as_u16(), &body)))
}

/// Reads an error body of any generation.
fn refusal(status: u16, body: &[u8]) -> Refusal {
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| parsed.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    Refusal {
        status,
        code: text("code").or_else(|| text("error")),
        message: text("message").or_else(|| text("reason")).or_else(|| text("error_description")),
        text: String::from_utf8_lossy(body).chars().take(LONGEST_TEXT).collect(),
    }
}

/// The innermost reason: the outer ones only say that a request failed.
fn unreachable(url: &Url, error: &reqwest::Error) -> Error {
    let mut reason: &dyn std::error::Error = error;
    while let Some(inner) = reason.source() {
        reason = inner;
    }
    Error::Unreachable { url: url.to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_every_generation_are_read() {
        let body =
            br#"{"status":"Failed","code":"RESOURCE_LOCKED","message":"locked","http_status_code":423}"#;
        let refused = refusal(423, body);
        assert_eq!(
            (refused.code.as_deref(), refused.message.as_deref()),
            (Some("RESOURCE_LOCKED"), Some("locked"))
        );
        assert_eq!(refused.text.as_bytes(), body);
        let refused = refusal(400, br#"{"error":"invalid_grant"}"#);
        assert_eq!(refused.code.as_deref(), Some("invalid_grant"));
        let refused = refusal(502, b"<html>bad gateway</html>");
        assert_eq!(
            (refused.code, refused.message, refused.text.as_str()),
            (None, None, "<html>bad gateway</html>")
        );
        let refused = refusal(500, br#"{"code": 18, "reason": "old"}"#);
        assert_eq!((refused.code, refused.message.as_deref()), (None, Some("old")));
    }
}
