//! Who asks: client identities, their tokens, and the part of Globus Auth that clients call.
//!
//! Tokens are opaque and random; the store holds their hashes. Checking one costs a look-up in memory, which is read
//! again from the store after a few seconds; a token revoked here leaves it at once. An id token is signed, and only
//! ever handed out.
//!
//! This module may never log a secret, and knows nothing of tasks.

pub mod groups;
pub mod key;
pub mod password;
pub mod people;
pub mod routes;
pub mod scope;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::OnceCell;
use wire::{ClientId, IdentityId};

use crate::ambient;
use crate::secret::{self, Hash};
use crate::store::{AddClient, AddToken, Client, RevokeToken, Store, StoreError, Token};
use key::{KeyError, SigningKey};
use scope::Grant;

/// How long an access token lives.
pub const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(48);
/// Tokens remembered; past that the memory starts again.
const REMEMBERED: usize = 10_000;
/// How long a remembered token is believed without looking at the store again.
const BELIEVED: SignedDuration = SignedDuration::from_secs(5);
/// What a client identity's username ends in.
const CLIENT_DOMAIN: &str = "clients.auth.globus.org";

/// The identity part of the service. Clones share it.
#[derive(Clone, Debug)]
pub struct Identity {
    store: Store,
    passwords: password::Hasher,
    keys: PathBuf,
    key: Arc<OnceCell<SigningKey>>,
    tokens: Arc<Mutex<HashMap<Hash, Remembered>>>,
}

#[derive(Clone, Debug)]
struct Remembered {
    token: Arc<Token>,
    read: Timestamp,
}

/// A token as it is handed out.
#[derive(Debug)]
pub struct Issued {
    pub access_token: String,
    pub token: Token,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the signing key's thread was lost")]
    KeyLost,
}

impl Identity {
    /// `keys` is the directory of the signing key.
    pub fn new(store: Store, keys: PathBuf) -> Identity {
        Identity {
            store,
            passwords: password::Hasher::default(),
            keys,
            key: Arc::default(),
            tokens: Arc::default(),
        }
    }

    /// The signing key; the first call reads or makes it.
    pub async fn key(&self) -> Result<&SigningKey, IdentityError> {
        self.key
            .get_or_try_init(|| async {
                let keys = self.keys.clone();
                let key = tokio::task::spawn_blocking(move || SigningKey::load_or_make(&keys)).await;
                Ok(key.map_err(|_| IdentityError::KeyLost)??)
            })
            .await
    }

    /// The client whose id and secret these are.
    pub async fn client(&self, id: &str, secret: &str) -> Result<Option<Client>, StoreError> {
        let Ok(id) = id.parse::<IdentityId>() else { return Ok(None) };
        Ok(self.store.client(id).await?.filter(|client| client.secret.admits(secret)))
    }

    /// The identity with this id.
    pub async fn known(&self, id: IdentityId) -> Result<Option<Client>, StoreError> {
        self.store.client(id).await
    }

    /// Makes the tokens of `grants` for a client acting for itself.
    pub async fn issue(
        &self,
        client: &Client,
        grants: &[Grant],
        now: Timestamp,
    ) -> Result<Vec<Issued>, StoreError> {
        let mut issued = Vec::with_capacity(grants.len());
        for grant in grants {
            let access_token = secret::fresh();
            let token = Token {
                identity: client.id,
                client: client.client_id(),
                scope: grant.scopes.join(" "),
                resource_server: grant.resource_server.name().to_owned(),
                issued: now,
                expires: now + TOKEN_LIFE,
            };
            self.store.write(AddToken { hash: Hash::of(&access_token), token: token.clone() }).await?;
            issued.push(Issued { access_token, token });
        }
        Ok(issued)
    }

    /// What `access_token` stands for, unless it is unknown or has ended.
    pub async fn check(&self, access_token: &str, now: Timestamp) -> Result<Option<Arc<Token>>, StoreError> {
        let hash = Hash::of(access_token);
        let remembered = self.remembered().get(&hash).cloned();
        let token = match remembered {
            Some(known) if now.duration_since(known.read) < BELIEVED => Some(known.token),
            _ => self.read(hash, now).await?,
        };
        Ok(token.filter(|token| token.expires > now))
    }

    async fn read(&self, hash: Hash, now: Timestamp) -> Result<Option<Arc<Token>>, StoreError> {
        let found = self.store.token(hash).await?.map(Arc::new);
        let mut tokens = self.remembered();
        match &found {
            Some(token) => {
                if tokens.len() >= REMEMBERED {
                    tokens.clear();
                }
                tokens.insert(hash, Remembered { token: token.clone(), read: now });
            }
            None => {
                tokens.remove(&hash);
            }
        }
        Ok(found)
    }

    /// Ends `access_token` if it is one of `client`'s.
    pub async fn revoke(&self, access_token: &str, client: ClientId) -> Result<(), StoreError> {
        let hash = Hash::of(access_token);
        self.store.write(RevokeToken { hash, client }).await?;
        let mut tokens = self.remembered();
        if tokens.get(&hash).is_some_and(|known| known.token.client == client) {
            tokens.remove(&hash);
        }
        Ok(())
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<Hash, Remembered>> {
        // A panic while it was held cannot have left it half changed.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a client identity. Answers it with its secret, which nobody can read again.
pub async fn add_client(store: &Store, name: String) -> Result<(Client, String), StoreError> {
    let id = IdentityId::from_uuid(ambient::random_id());
    let secret = secret::fresh();
    let client =
        Client { id, username: username(id), name, secret: Hash::of(&secret), created: ambient::now() };
    store.write(AddClient(client.clone())).await?;
    Ok((client, secret))
}

/// The username of a client identity.
pub fn username(client: IdentityId) -> String {
    format!("{client}@{CLIENT_DOMAIN}")
}
