//! Requests to the identity service: the link that a person opens to log in, tokens for the code that they paste, renewal of
//! tokens, identities.
//!
//! The flow is the stock SDK's: authorization code with PKCE, no listening port, no device grant. This module neither prints
//! nor prompts; its callers do.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::credentials::{Credentials, SCOPE};
use crate::error::Error;
use crate::http::{Http, Reply, decode, join};
use crate::token_store::{Extra, Token};
use crate::{clock, random};

/// The OAuth client that people log in with, unless their environment names another.
pub const NATIVE_CLIENT: &str = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c";
/// The resource server of tokens for the compute service.
pub const COMPUTE: &str = "funcx_service";
/// The resource server of tokens for the identity service itself.
pub const AUTH: &str = "auth.globus.org";
/// The scopes that the command line asks the identity service for.
pub const AUTH_SCOPES: &str = "openid urn:globus:auth:scope:auth.globus.org:manage_projects";

/// A login that waits for its code.
pub struct PendingLogin {
    /// The link to open.
    pub url: Url,
    verifier: String,
    redirect_uri: String,
}

/// An identity service.
#[derive(Clone, Debug)]
pub struct Auth {
    http: Http,
    identity: Url,
    client_id: String,
}

/// The answer to a request for tokens.
#[derive(Deserialize)]
struct Granted {
    #[serde(flatten)]
    token: GrantedToken,
    #[serde(default)]
    id_token: Option<String>,
    #[serde(default)]
    other_tokens: Vec<GrantedToken>,
}

#[derive(Deserialize)]
struct GrantedToken {
    access_token: String,
    #[serde(default)]
    scope: String,
    resource_server: String,
    #[serde(default)]
    expires_in: i64,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    token_type: Option<String>,
}

/// One identity, as `whoami` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Identity {
    pub id: String,
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub email: Option<String>,
}

/// The identity that a token belongs to.
#[derive(Clone, Debug, Deserialize)]
pub struct UserInfo {
    pub sub: String,
    #[serde(default)]
    pub preferred_username: Option<String>,
    #[serde(default)]
    pub identity_set: Vec<Linked>,
}

/// An identity that is linked to another.
#[derive(Clone, Debug, Deserialize)]
pub struct Linked {
    pub sub: String,
}

#[derive(Deserialize)]
struct Identities {
    identities: Vec<Identity>,
}

impl Auth {
    pub(crate) fn new(http: Http, identity: Url, client_id: String) -> Self {
        Self { http, identity, client_id }
    }

    pub(crate) fn identity(&self) -> &Url {
        &self.identity
    }

    /// Begins a login; `label` shows the person which program asks.
    pub fn begin(&self, label: &str) -> Result<PendingLogin, Error> {
        let verifier = URL_SAFE_NO_PAD.encode(random::secret());
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let redirect_uri = join(&self.identity, "v2/web/auth-code")?.to_string();
        let mut url = join(&self.identity, "v2/oauth2/authorize")?;
        url.query_pairs_mut()
            .append_pair("client_id", &self.client_id)
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("scope", &format!("{SCOPE} {AUTH_SCOPES}"))
            .append_pair("state", "_default")
            .append_pair("response_type", "code")
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("access_type", "offline")
            .append_pair("prefill_named_grant", label);
        Ok(PendingLogin { url, verifier, redirect_uri })
    }

    /// Exchanges the pasted code for tokens.
    pub async fn finish(&self, login: &PendingLogin, code: &str) -> Result<Vec<Token>, Error> {
        let form = [
            ("client_id", self.client_id.as_str()),
            ("grant_type", "authorization_code"),
            ("code", code.trim()),
            ("code_verifier", &login.verifier),
            ("redirect_uri", &login.redirect_uri),
        ];
        Ok(self.tokens(self.grant(&form, None).await?, None))
    }

    /// Renews a token.
    pub async fn refresh(&self, token: &Token) -> Result<Token, Error> {
        let refresh_token = token.refresh_token.as_deref().unwrap_or_default();
        let form = [
            ("client_id", self.client_id.as_str()),
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
        ];
        let granted = self.grant(&form, None).await?;
        let mut renewed = self.tokens(granted, token.identity_id.clone()).remove(0);
        // A service that does not rotate refresh tokens may leave it out.
        renewed.refresh_token = renewed.refresh_token.or_else(|| token.refresh_token.clone());
        Ok(renewed)
    }

    /// Gets a token for a client identity.
    pub(crate) async fn client(&self, credentials: &Credentials, scope: &str) -> Result<Token, Error> {
        let form = [("grant_type", "client_credentials"), ("scope", scope)];
        let granted = self.grant(&form, Some(credentials)).await?;
        Ok(self.tokens(granted, Some(credentials.client_id.clone())).remove(0))
    }

    /// Revokes a token.
    pub async fn revoke(&self, token: &str) -> Result<(), Error> {
        let url = join(&self.identity, "v2/oauth2/token/revoke")?;
        let form = [("client_id", self.client_id.as_str()), ("token", token)];
        match self.http.send(&url, |http| http.post(url.clone()).form(&form)).await? {
            Reply::Success(_) => Ok(()),
            Reply::Refused(refusal) => Err(Error::Unauthenticated(refusal)),
        }
    }

    /// The identity that a token belongs to.
    pub async fn user_info(&self, access_token: &str) -> Result<UserInfo, Error> {
        self.get("v2/oauth2/userinfo", access_token).await
    }

    /// Looks an identity up by its id.
    pub async fn identity_of(&self, access_token: &str, id: &str) -> Result<Option<Identity>, Error> {
        let mut url = join(&self.identity, "v2/api/identities")?;
        url.query_pairs_mut().append_pair("ids", id);
        let found: Identities = self.get(url.as_str(), access_token).await?;
        Ok(found.identities.into_iter().next())
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str, access_token: &str) -> Result<T, Error> {
        let url = join(&self.identity, path)?;
        match self.http.send(&url, |http| http.get(url.clone()).bearer_auth(access_token)).await? {
            Reply::Success(body) => decode(&url, &body),
            Reply::Refused(refusal) => Err(Error::Unauthenticated(refusal)),
        }
    }

    async fn grant(&self, form: &[(&str, &str)], by: Option<&Credentials>) -> Result<Granted, Error> {
        let url = join(&self.identity, "v2/oauth2/token")?;
        let request = |http: &reqwest::Client| {
            let request = http.post(url.clone()).form(form);
            match by {
                Some(by) => request.basic_auth(&by.client_id, Some(&by.client_secret)),
                None => request,
            }
        };
        match self.http.send(&url, request).await? {
            Reply::Success(body) => decode(&url, &body),
            Reply::Refused(refusal) => Err(Error::Unauthenticated(refusal)),
        }
    }

    /// The tokens of an answer; at least one.
    fn tokens(&self, granted: Granted, identity: Option<String>) -> Vec<Token> {
        let now = clock::since_epoch();
        let identity = granted.id_token.as_deref().and_then(subject).or(identity);
        let token = |granted: GrantedToken| Token {
            resource_server: granted.resource_server,
            identity_id: identity.clone(),
            scope: granted.scope,
            access_token: granted.access_token,
            refresh_token: granted.refresh_token,
            expires_at_seconds: now.saturating_add(granted.expires_in),
            token_type: granted.token_type,
            extra: Some(Extra { farcall_identity_service: Some(self.identity.to_string()) }),
        };
        std::iter::once(granted.token).chain(granted.other_tokens).map(token).collect()
    }
}

/// The `sub` of an ID token. Its signature is not checked: the token came in the identity service's answer to our request.
fn subject(id_token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let payload = id_token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload).ok()?;
    Some(serde_json::from_slice::<Claims>(&bytes).ok()?.sub)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_that_of_the_stock_sdk() {
        let http = Http::new("test", &crate::trust::Trust::default(), false).unwrap();
        let auth = Auth::new(http, Url::parse("http://localhost:5000/").unwrap(), NATIVE_CLIENT.to_owned());
        let login = auth.begin("host").unwrap();
        let pairs: std::collections::BTreeMap<_, _> = login.url.query_pairs().into_owned().collect();
        assert_eq!(login.url.path(), "/v2/oauth2/authorize");
        assert_eq!(pairs["client_id"], NATIVE_CLIENT);
        assert_eq!(pairs["redirect_uri"], "http://localhost:5000/v2/web/auth-code");
        assert_eq!(pairs["access_type"], "offline");
        assert_eq!(pairs["code_challenge_method"], "S256");
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(login.verifier.as_bytes()));
        assert_eq!(pairs["code_challenge"], challenge);
        assert_eq!(login.verifier.len(), 43);
        assert!(pairs["scope"].split(' ').any(|scope| scope == "openid"));
        assert_ne!(auth.begin("host").unwrap().verifier, login.verifier);
    }

    #[test]
    fn the_subject_of_an_id_token() {
        let payload = URL_SAFE_NO_PAD.encode(br#"{"sub": "me", "aud": "x"}"#);
        assert_eq!(subject(&format!("h.{payload}.s")).as_deref(), Some("me"));
        for wrong in ["", "a.b.c", "a"] {
            assert_eq!(subject(wrong), None);
        }
    }
}
