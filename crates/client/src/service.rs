//! The REST interface of a service: typed requests, each with an access token.

use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::EndpointId;
use wire::queue::{Registration, ResultConnection};

use crate::access_tokens::{AccessTokens, TokenSource};
use crate::error::Error;
use crate::http::{Http, Reply, decode, join};
use crate::login::{AUTH, Auth, COMPUTE};
use crate::service_address::ServiceAddress;
use crate::token_store::Token;
use crate::trust::Trust;

/// A service, and the identity that its requests are made with.
#[derive(Debug)]
pub struct Service {
    http: Http,
    address: ServiceAddress,
    tokens: AccessTokens,
}

impl Service {
    /// `client_id` is that of the client that people log in with; `agent` is the User-Agent header. Sends nothing.
    pub fn new(
        address: ServiceAddress,
        source: TokenSource,
        client_id: &str,
        trust: &Trust,
        agent: &str,
    ) -> Result<Self, Error> {
        let http = Http::new(agent, trust, address.is_local())?;
        let auth = Auth::new(http.clone(), address.identity.clone(), client_id.to_owned());
        Ok(Self { http, address, tokens: AccessTokens::new(auth, source) })
    }

    /// The identity service.
    pub fn auth(&self) -> &Auth {
        &self.tokens.auth
    }

    pub fn address(&self) -> &ServiceAddress {
        &self.address
    }

    /// Whether access tokens can be had without a login.
    pub async fn logged_in(&self) -> Result<bool, Error> {
        self.tokens.logged_in().await
    }

    /// Stores the tokens of a login.
    pub async fn store_tokens(&self, tokens: &[Token]) -> Result<(), Error> {
        self.tokens.store(tokens).await
    }

    /// Logs out: revokes the tokens and forgets them.
    pub async fn log_out(&self) -> Result<(), Error> {
        self.tokens.forget().await
    }

    /// A token for the identity service itself.
    pub async fn auth_token(&self) -> Result<String, Error> {
        self.tokens.access(AUTH).await
    }

    /// The service's version, and the oldest clients it accepts: `GET /v2/version?service=all`.
    pub async fn versions<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.request(&Method::GET, "v2/version?service=all", None::<&()>).await
    }

    /// Registers an endpoint: a new one, or the one with this id again.
    pub async fn register<B: Serialize>(
        &self,
        id: Option<EndpointId>,
        body: &B,
    ) -> Result<Registration, Error> {
        match id {
            None => self.request(&Method::POST, "v3/endpoints", Some(body)).await,
            Some(id) => self.request(&Method::PUT, &format!("v3/endpoints/{id}"), Some(body)).await,
        }
    }

    /// Whether an endpoint is online, and its last report.
    pub async fn endpoint_status<T: DeserializeOwned>(&self, id: EndpointId) -> Result<T, Error> {
        self.request(&Method::GET, &format!("v2/endpoints/{id}/status"), None::<&()>).await
    }

    /// Deletes an endpoint at the service.
    pub async fn delete_endpoint(&self, id: EndpointId) -> Result<(), Error> {
        let _: serde_json::Value =
            self.request(&Method::DELETE, &format!("v2/endpoints/{id}"), None::<&()>).await?;
        Ok(())
    }

    /// The broker's address, from which clients get results.
    pub async fn results_address(&self) -> Result<String, Error> {
        let answer: ResultConnection =
            self.request(&Method::GET, "v2/get_amqp_result_connection_url", None::<&()>).await?;
        Ok(answer.connection_url)
    }

    /// Stops an endpoint on whatever host it runs: the service locks it for a while.
    pub async fn lock_endpoint(&self, id: EndpointId) -> Result<(), Error> {
        let _: serde_json::Value =
            self.request(&Method::POST, &format!("v3/endpoints/{id}/lock"), None::<&()>).await?;
        Ok(())
    }

    /// The service's clock: the `Date` header of an answer, an HTTP date. Needs no token.
    pub async fn date(&self) -> Result<Option<String>, Error> {
        self.http.date(&join(&self.address.service, "v2/version")?).await
    }

    /// Sends a request with an access token. A token that the service rejects is replaced once.
    async fn request<B: Serialize, T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Error> {
        let url = join(&self.address.service, path)?;
        for attempt in 0.. {
            let token = self.tokens.access(COMPUTE).await?;
            let request = |http: &reqwest::Client| {
                let request = http.request(method.clone(), url.clone()).bearer_auth(&token);
                match body {
                    Some(body) => request.json(body),
                    None => request,
                }
            };
            match self.http.send(&url, request).await? {
                Reply::Success(body) => return decode(&url, &body),
                Reply::Refused(refusal)
                    if refusal.status == StatusCode::UNAUTHORIZED.as_u16() && attempt == 0 =>
                {
                    self.tokens.reject(COMPUTE).await?;
                }
                Reply::Refused(refusal) => return Err(Error::Refused(refusal)),
            }
        }
        Err(Error::NotLoggedIn)
    }
}
