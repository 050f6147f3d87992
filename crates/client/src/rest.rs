//! The REST interface of a service: requests with a token, repeated as [`crate::retry`] says.

use std::time::Duration;

use reqwest::header::{DATE, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::EndpointId;
use wire::queue::{Registration, ResultConnection};

use crate::ambient;
use crate::error::{Error, Refusal};
use crate::login::{AUTH, Auth, COMPUTE};
use crate::place::Place;
use crate::retry::{self, Outcome};
use crate::session::{Session, Who};
use crate::storage::Token;
use crate::tls::Trust;

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
    http: Http,
    place: Place,
    session: Session,
}

impl Service {
    /// `agent` is the User-Agent header; `client_id` that of the client people log in by. Nothing is sent yet.
    pub fn new(place: Place, who: Who, client_id: &str, trust: &Trust, agent: &str) -> Result<Self, Error> {
        let http = Http::new(agent, trust, place.is_local())?;
        let auth = Auth::new(http.clone(), place.identity.clone(), client_id.to_owned());
        Ok(Self { http, place, session: Session::new(auth, who) })
    }

    /// The identity service.
    pub fn auth(&self) -> &Auth {
        &self.session.auth
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether nobody has to log in first.
    pub async fn logged_in(&self) -> Result<bool, Error> {
        self.session.logged_in().await
    }

    /// Keeps the tokens of a login.
    pub async fn keep(&self, tokens: &[Token]) -> Result<(), Error> {
        self.session.keep(tokens).await
    }

    /// Logs out: revokes the tokens and forgets them.
    pub async fn log_out(&self) -> Result<(), Error> {
        self.session.forget().await
    }

    /// A token for the identity service itself.
    pub async fn auth_token(&self) -> Result<String, Error> {
        self.session.access(AUTH).await
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

    /// Where clients get results from: the broker's address.
    pub async fn results_address(&self) -> Result<String, Error> {
        let answer: ResultConnection =
            self.ask(&Method::GET, "v2/get_amqp_result_connection_url", None::<&()>).await?;
        Ok(answer.connection_url)
    }

    /// Stops an endpoint wherever it runs: the service locks it for a while.
    pub async fn lock_endpoint(&self, id: EndpointId) -> Result<(), Error> {
        let _: serde_json::Value =
            self.ask(&Method::POST, &format!("v3/endpoints/{id}/lock"), None::<&()>).await?;
        Ok(())
    }

    /// The service's clock as its answers tell it (`Date`, an HTTP date), without saying who asks.
    pub async fn date(&self) -> Result<Option<String>, Error> {
        let url = join(&self.place.service, "v2/version")?;
        let answer =
            self.http.client.get(url.clone()).send().await.map_err(|error| unreachable(&url, &error))?;
        Ok(answer.headers().get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned))
    }

    /// One request with a token; a token the service no longer takes is replaced once.
    async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Error> {
        let url = join(&self.place.service, path)?;
        for attempt in 0.. {
            let token = self.session.access(COMPUTE).await?;
            let request = |http: &reqwest::Client| {
                let request = http.request(method.clone(), url.clone()).bearer_auth(&token);
                match body {
                    Some(body) => request.json(body),
                    None => request,
                }
            };
            match self.http.repeat(&url, request).await? {
                Answer::Good(body) => return read(&url, &body),
                Answer::Refused(refusal)
                    if refusal.status == StatusCode::UNAUTHORIZED.as_u16() && attempt == 0 =>
                {
                    self.session.refused(COMPUTE).await?;
                }
                Answer::Refused(refusal) => return Err(Error::Refused(refusal)),
            }
        }
        Err(Error::NotLoggedIn)
    }
}

/// Sends requests, again and again while that may help.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
}

impl Http {
    /// With `direct`, through no proxy that the environment names.
    pub(crate) fn new(agent: &str, trust: &Trust, direct: bool) -> Result<Self, Error> {
        let unusable = |error: reqwest::Error| Error::Unusable(error.to_string());
        let mut builder = reqwest::Client::builder()
            .user_agent(agent)
            .timeout(TIMEOUT)
            .connect_timeout(CONNECTING)
            .redirect(reqwest::redirect::Policy::none())
            .tls_danger_accept_invalid_certs(trust.anybody);
        if direct {
            builder = builder.no_proxy();
        }
        if let Some(pem) = &trust.pem {
            builder = builder
                .tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(unusable)?);
        }
        Ok(Self { client: builder.build().map_err(unusable)? })
    }

    /// Sends a request until its outcome stands.
    pub(crate) async fn repeat(
        &self,
        url: &Url,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Answer, Error> {
        repeat(url, || request(&self.client)).await
    }
}

/// What a request ended in.
pub(crate) enum Answer {
    Good(Vec<u8>),
    Refused(Refusal),
}

pub(crate) fn join(base: &Url, path: &str) -> Result<Url, Error> {
    base.join(path).map_err(|error| Error::Unusable(format!("{base}{path}: {error}")))
}

pub(crate) fn read<T: DeserializeOwned>(url: &Url, body: &[u8]) -> Result<T, Error> {
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
                tracing::debug!(%url, ?outcome, pause_s = pause.as_secs_f64(), "asking again");
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
