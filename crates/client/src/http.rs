//! Sends HTTP requests: time limits, retries, and the bodies of refusals.

use std::time::Duration;

use reqwest::header::{DATE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use crate::error::{Error, Refusal};
use crate::random;
use crate::retry::{self, Attempt};
use crate::trust::Trust;

/// How long upstream waits for an answer, too.
const TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Longer answers are refused.
const ANSWER_LIMIT: usize = 16 << 20;
/// How much of a refusal's body is kept, in characters.
const REFUSAL_LIMIT: usize = 4096;

/// Sends requests and retries them as [`crate::retry`] decides.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
}

impl Http {
    /// `direct`: ignores the proxies that the environment names.
    pub(crate) fn new(agent: &str, trust: &Trust, direct: bool) -> Result<Self, Error> {
        let unusable = |error: reqwest::Error| Error::Unusable(error.to_string());
        let mut builder = reqwest::Client::builder()
            .user_agent(agent)
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
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

    /// Sends a request until it succeeds, is refused for good, or has been retried often enough.
    pub(crate) async fn send(
        &self,
        url: &Url,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Reply, Error> {
        for attempt in 0.. {
            let (ended, reply) = match request(&self.client).send().await {
                Ok(response) => {
                    let ended = Attempt::Answered {
                        status: response.status().as_u16(),
                        retry_after: retry_after(&response),
                    };
                    (ended, read_reply(url, response).await)
                }
                Err(error) => (Attempt::NoAnswer, Err(unreachable(url, &error))),
            };
            // An answer that broke off is as good as none.
            let ended = if reply.is_err() { Attempt::NoAnswer } else { ended };
            match retry::pause(ended, attempt, random::fraction()) {
                None => return reply,
                Some(pause) => {
                    tracing::debug!(%url, outcome = ?ended, pause_s = pause.as_secs_f64(), "retrying the request");
                    tokio::time::sleep(pause).await;
                }
            }
        }
        Err(Error::Unreachable {
            url: url.to_string(),
            reason: "asked as often as a number can count".to_owned(),
        })
    }

    /// The `Date` header of one answer, without retries and without a token.
    pub(crate) async fn date(&self, url: &Url) -> Result<Option<String>, Error> {
        let response = self.client.get(url.clone()).send().await.map_err(|error| unreachable(url, &error))?;
        Ok(response.headers().get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned))
    }
}

/// The body of a successful answer, or a refusal.
pub(crate) enum Reply {
    Success(Vec<u8>),
    Refused(Refusal),
}

/// The URL of `path` below `base`.
pub(crate) fn join(base: &Url, path: &str) -> Result<Url, Error> {
    base.join(path).map_err(|error| Error::Unusable(format!("{base}{path}: {error}")))
}

/// Decodes a JSON body.
pub(crate) fn decode<T: DeserializeOwned>(url: &Url, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body)
        .map_err(|error| Error::Unreadable { url: url.to_string(), reason: error.to_string() })
}

fn retry_after(response: &Response) -> Option<u64> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

async fn read_reply(url: &Url, mut response: Response) -> Result<Reply, Error> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error))? {
        if body.len() + chunk.len() > ANSWER_LIMIT {
            return Err(Error::Unreadable {
                url: url.to_string(),
                reason: "the answer is too long".to_owned(),
            });
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return Ok(Reply::Success(body));
    }
    Ok(Reply::Refused(refusal(status.as_u16(), &body)))
}

/// Reads an error body of any generation of the REST interface.
fn refusal(status: u16, body: &[u8]) -> Refusal {
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| parsed.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    Refusal {
        status,
        code: text("code").or_else(|| text("error")),
        message: text("message").or_else(|| text("reason")).or_else(|| text("error_description")),
        text: String::from_utf8_lossy(body).chars().take(REFUSAL_LIMIT).collect(),
    }
}

/// Keeps the innermost cause: the outer ones only say that a request failed.
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
