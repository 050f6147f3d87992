//! Access tokens for a service: those of a client identity, or of a person's login from the token store.

use tokio::sync::Mutex;

use crate::clock;
use crate::credentials::{Credentials, SCOPE};
use crate::error::Error;
use crate::login::{AUTH, AUTH_SCOPES, Auth, COMPUTE};
use crate::token_store::{Token, TokenStore};

/// Tokens are renewed this many seconds before they expire, as in the SDK.
const RENEWED_BEFORE_EXPIRY_SECONDS: i64 = 60;

/// Where access tokens come from.
#[derive(Debug)]
pub enum TokenSource {
    /// The credentials of a client identity. Its tokens are kept in memory only.
    ClientIdentity(Credentials),
    /// The login of a person.
    StoredLogin(Box<TokenStore>),
}

/// Hands out access tokens, and renews them before they expire.
#[derive(Debug)]
pub(crate) struct AccessTokens {
    pub(crate) auth: Auth,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    source: TokenSource,
    cached: Vec<Token>,
}

impl AccessTokens {
    pub(crate) fn new(auth: Auth, source: TokenSource) -> Self {
        Self { auth, state: Mutex::new(State { source, cached: Vec::new() }) }
    }

    /// An access token for a resource server.
    pub(crate) async fn access(&self, server: &str) -> Result<String, Error> {
        let mut state = self.state.lock().await;
        let now = clock::since_epoch();
        if let Some(token) = state.cached.iter().find(|token| token.resource_server == server)
            && is_fresh(token, now)
        {
            return Ok(token.access_token.clone());
        }
        let State { source, cached } = &mut *state;
        let token = match source {
            TokenSource::ClientIdentity(credentials) => {
                let scope = if server == COMPUTE { SCOPE } else { AUTH_SCOPES };
                self.auth.client(credentials, scope).await?
            }
            TokenSource::StoredLogin(store) => {
                let stored = store.tokens().await?;
                let identity = self.auth.identity().as_str();
                let token = stored
                    .into_iter()
                    .find(|token| token.resource_server == server && token.belongs_to(identity))
                    .ok_or(Error::NotLoggedIn)?;
                if is_fresh(&token, now) {
                    token
                } else if token.refresh_token.is_some() {
                    let renewed = self.auth.refresh(&token).await?;
                    store.store(std::slice::from_ref(&renewed)).await?;
                    renewed
                } else {
                    return Err(Error::NotLoggedIn);
                }
            }
        };
        let text = token.access_token.clone();
        cached.retain(|token| token.resource_server != server);
        cached.push(token);
        Ok(text)
    }

    /// Drops the token of a resource server, which rejects it: the next one is new.
    pub(crate) async fn reject(&self, server: &str) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        state.cached.retain(|token| token.resource_server != server);
        if let TokenSource::StoredLogin(store) = &mut state.source {
            let mut stale: Vec<_> =
                store.tokens().await?.into_iter().filter(|token| token.resource_server == server).collect();
            for token in &mut stale {
                token.expires_at_seconds = 0;
            }
            store.store(&stale).await?;
        }
        Ok(())
    }

    /// Whether tokens can be had without a login.
    pub(crate) async fn logged_in(&self) -> Result<bool, Error> {
        let mut state = self.state.lock().await;
        let TokenSource::StoredLogin(store) = &mut state.source else { return Ok(true) };
        let identity = self.auth.identity().as_str();
        let tokens = store.tokens().await?;
        let now = clock::since_epoch();
        let usable = |server: &str, scopes: &str| {
            tokens.iter().any(|token| {
                let scope: Vec<_> = token.scope.split(' ').collect();
                token.resource_server == server
                    && token.belongs_to(identity)
                    && (token.refresh_token.is_some() || is_fresh(token, now))
                    && scopes.split(' ').all(|wanted| scope.contains(&wanted))
            })
        };
        Ok(usable(COMPUTE, SCOPE) && usable(AUTH, AUTH_SCOPES))
    }

    /// Stores the tokens of a login.
    pub(crate) async fn store(&self, tokens: &[Token]) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        state.cached.clear();
        if let TokenSource::StoredLogin(store) = &mut state.source {
            store.store(tokens).await?;
        }
        Ok(())
    }

    /// Revokes every token of the store and removes them.
    pub(crate) async fn forget(&self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        state.cached.clear();
        if let TokenSource::StoredLogin(store) = &mut state.source {
            for token in store.tokens().await? {
                if token.belongs_to(self.auth.identity().as_str()) {
                    self.auth.revoke(&token.access_token).await?;
                    if let Some(refresh) = &token.refresh_token {
                        self.auth.revoke(refresh).await?;
                    }
                }
            }
            store.clear().await?;
        }
        Ok(())
    }
}

fn is_fresh(token: &Token, now: i64) -> bool {
    now < token.expires_at_seconds.saturating_sub(RENEWED_BEFORE_EXPIRY_SECONDS)
}
