//! Who we are towards a service, and the tokens that show it: a client identity's, or a person's from the store.

use tokio::sync::Mutex;

use crate::ambient;
use crate::error::Error;
use crate::login::{AUTH, AUTH_SCOPES, Auth, COMPUTE};
use crate::storage::{Token, TokenStore};
use crate::token::{Credentials, SCOPE};

/// A token is renewed so many seconds before it runs out, as the SDK does.
const EARLY: i64 = 60;

/// Who asks.
#[derive(Debug)]
pub enum Who {
    /// A client identity; its tokens are kept in memory.
    Client(Credentials),
    /// A person who logged in.
    Person(Box<TokenStore>),
}

/// Gives tokens, renewed when it is time.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) auth: Auth,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    who: Who,
    held: Vec<Token>,
}

impl Session {
    pub(crate) fn new(auth: Auth, who: Who) -> Self {
        Self { auth, state: Mutex::new(State { who, held: Vec::new() }) }
    }

    /// An access token for a resource server.
    pub(crate) async fn access(&self, server: &str) -> Result<String, Error> {
        let mut state = self.state.lock().await;
        let now = ambient::since_epoch();
        if let Some(token) = held(&state.held, server)
            && good(token, now)
        {
            return Ok(token.access_token.clone());
        }
        let State { who, held: known } = &mut *state;
        let token = match who {
            Who::Client(credentials) => {
                let scope = if server == COMPUTE { SCOPE } else { AUTH_SCOPES };
                self.auth.client(credentials, scope).await?
            }
            Who::Person(store) => {
                let stored = store.tokens().await?;
                let identity = self.auth.identity().as_str();
                let token = stored
                    .into_iter()
                    .find(|token| token.resource_server == server && token.belongs_to(identity))
                    .ok_or(Error::NotLoggedIn)?;
                if good(&token, now) {
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
        known.retain(|token| token.resource_server != server);
        known.push(token);
        Ok(text)
    }

    /// The service does not take the token any more: the next one is new.
    pub(crate) async fn refused(&self, server: &str) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        state.held.retain(|token| token.resource_server != server);
        if let Who::Person(store) = &mut state.who {
            let mut stale: Vec<_> =
                store.tokens().await?.into_iter().filter(|token| token.resource_server == server).collect();
            for token in &mut stale {
                token.expires_at_seconds = 0;
            }
            store.store(&stale).await?;
        }
        Ok(())
    }

    /// Whether nobody has to log in before tokens can be given.
    pub(crate) async fn logged_in(&self) -> Result<bool, Error> {
        let mut state = self.state.lock().await;
        let Who::Person(store) = &mut state.who else { return Ok(true) };
        let identity = self.auth.identity().as_str();
        let tokens = store.tokens().await?;
        let now = ambient::since_epoch();
        let usable = |server: &str, scopes: &str| {
            tokens.iter().any(|token| {
                let scope: Vec<_> = token.scope.split(' ').collect();
                token.resource_server == server
                    && token.belongs_to(identity)
                    && (token.refresh_token.is_some() || good(token, now))
                    && scopes.split(' ').all(|wanted| scope.contains(&wanted))
            })
        };
        Ok(usable(COMPUTE, SCOPE) && usable(AUTH, AUTH_SCOPES))
    }

    /// Keeps the tokens of a login.
    pub(crate) async fn keep(&self, tokens: &[Token]) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        state.held.clear();
        if let Who::Person(store) = &mut state.who {
            store.store(tokens).await?;
        }
        Ok(())
    }

    /// Revokes and forgets every token of the store.
    pub(crate) async fn forget(&self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        state.held.clear();
        if let Who::Person(store) = &mut state.who {
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

fn held<'a>(tokens: &'a [Token], server: &str) -> Option<&'a Token> {
    tokens.iter().find(|token| token.resource_server == server)
}

fn good(token: &Token, now: i64) -> bool {
    now < token.expires_at_seconds.saturating_sub(EARLY)
}
