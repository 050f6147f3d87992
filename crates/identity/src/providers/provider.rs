//! Requests to an identity provider: its discovery document, its keys, its token endpoint.
//!
//! Answers are read with limits of size and time, without following redirects, and cached. Keys are read again when a token
//! is signed with an unknown one, at most once a second.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::JwkSet;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::claims::{self, Claims, ClaimsError, Expected};
use super::settings::{self, UpstreamSettings};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer, in bytes.
const LARGEST: usize = 256 << 10;
/// How long a discovery document and keys are cached.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(1);
/// How soon keys may be read again.
const RETRY_AFTER: SignedDuration = SignedDuration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("it does not answer: {0}")]
    Unreachable(String),
    #[error("its answer is too large")]
    TooLarge,
    #[error("its answer is not understood")]
    Form,
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("it calls itself by another name than the configuration does")]
    Issuer,
    #[error("one of its addresses is not https")]
    Address,
    #[error("it refused the code ({0})")]
    Refused(String),
    #[error("it gave no id token")]
    NoToken,
    #[error("its id token is refused: {0}")]
    Claims(#[from] ClaimsError),
}

/// The fields of a discovery document that the service needs.
#[derive(Clone, Debug, Deserialize)]
pub struct Discovered {
    issuer: String,
    pub authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

#[derive(Debug)]
pub struct Provider {
    pub settings: UpstreamSettings,
    secret: Option<String>,
    web: reqwest::Client,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    discovered: Option<(Arc<Discovered>, Timestamp)>,
    keys: Option<(Arc<JwkSet>, Timestamp)>,
}

/// The parameters of a code exchange.
#[derive(Clone, Copy)]
pub struct Exchange<'a> {
    pub code: &'a str,
    pub verifier: &'a str,
    pub redirect_uri: &'a str,
    pub nonce: &'a str,
}

#[derive(Deserialize)]
struct TokenResponse {
    #[serde(default)]
    id_token: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

impl Provider {
    pub fn new(settings: UpstreamSettings) -> Result<Provider, settings::SettingsError> {
        let secret = settings.secret()?;
        let web = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent("farcall")
            .build()
            .unwrap_or_default();
        Ok(Provider { settings, secret, web, cache: Mutex::default() })
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        // A panic while it was held cannot have left it half changed.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its discovery document.
    pub async fn discovered(&self, now: Timestamp) -> Result<Arc<Discovered>, ProviderError> {
        if let Some((cached, read)) = &self.cache().discovered
            && now.duration_since(*read) < KEPT_FOR
        {
            return Ok(cached.clone());
        }
        let issuer = &self.settings.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let found: Discovered = self.read(self.web.get(url)).await?;
        if found.issuer != *issuer {
            return Err(ProviderError::Issuer);
        }
        let addresses = [&found.authorization_endpoint, &found.token_endpoint, &found.jwks_uri];
        if !addresses.into_iter().all(|address| settings::is_safe(address)) {
            return Err(ProviderError::Address);
        }
        let found = Arc::new(found);
        self.cache().discovered = Some((found.clone(), now));
        Ok(found)
    }

    async fn keys(&self, at_least: Timestamp, now: Timestamp) -> Result<Arc<JwkSet>, ProviderError> {
        if let Some((cached, read)) = &self.cache().keys
            && *read > at_least
        {
            return Ok(cached.clone());
        }
        let url = self.discovered(now).await?.jwks_uri.clone();
        let document: serde_json::Value = self.read(self.web.get(url)).await?;
        // A key of an unknown kind must not make the others unusable.
        let keys = document.get("keys").and_then(serde_json::Value::as_array).ok_or(ProviderError::Form)?;
        let keys = keys.iter().filter_map(|key| serde_json::from_value(key.clone()).ok()).collect();
        let keys = Arc::new(JwkSet { keys });
        self.cache().keys = Some((keys.clone(), now));
        Ok(keys)
    }

    /// Exchanges the code for the claims about the person.
    pub async fn exchange(&self, with: Exchange<'_>, now: Timestamp) -> Result<Claims, ProviderError> {
        let discovered = self.discovered(now).await?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", with.code),
            ("code_verifier", with.verifier),
            ("redirect_uri", with.redirect_uri),
        ];
        let mut request = self.web.post(&discovered.token_endpoint);
        let methods = discovered.token_endpoint_auth_methods_supported.as_deref();
        let basic = methods.is_none_or(|methods| methods.iter().any(|name| name == "client_secret_basic"));
        match &self.secret {
            Some(secret) if basic => {
                let part = |text: &str| {
                    let pair = serde_urlencoded::to_string([("", text)]).unwrap_or_default();
                    pair.trim_start_matches('=').to_owned()
                };
                request = request.basic_auth(part(&self.settings.client_id), Some(part(secret)));
            }
            Some(secret) => {
                form.extend([("client_id", self.settings.client_id.as_str()), ("client_secret", secret)]);
            }
            None => form.push(("client_id", &self.settings.client_id)),
        }
        let answer: TokenResponse = match self.read(request.form(&form)).await {
            Ok(answer) => answer,
            Err(error) => return Err(error),
        };
        if let Some(error) = answer.error {
            let name = error.chars().filter(|c| c.is_ascii_graphic()).take(60).collect();
            return Err(ProviderError::Refused(name));
        }
        let token = answer.id_token.ok_or(ProviderError::NoToken)?;
        let expected = Expected {
            issuer: &self.settings.issuer,
            client: &self.settings.client_id,
            nonce: with.nonce,
            now,
        };
        let keys = self.keys(now - KEPT_FOR, now).await?;
        if let Some((key, algorithm)) = claims::key_of(&token, &keys)? {
            return Ok(claims::verify(&token, key, algorithm, expected)?);
        }
        // Signed with an unknown key: read the keys again.
        let keys = self.keys(now - RETRY_AFTER, now).await?;
        let (key, algorithm) = claims::key_of(&token, &keys)?.ok_or(ClaimsError::UnknownKey)?;
        Ok(claims::verify(&token, key, algorithm, expected)?)
    }

    /// Reads a JSON answer within the limits. OAuth's errors have status 400 or 401 and a body, too.
    async fn read<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, ProviderError> {
        // Without its URL, which can contain secrets.
        let unreachable = |error: reqwest::Error| ProviderError::Unreachable(error.without_url().to_string());
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        if !matches!(status, 200 | 400 | 401) {
            return Err(ProviderError::Status(status));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > LARGEST {
                return Err(ProviderError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| ProviderError::Form)
    }
}
