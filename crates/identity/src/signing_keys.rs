//! The keys that sign id tokens: RSA, in `keys/` of the data directory.
//!
//! ```text
//! id-token.pem       the key in use, made at the first start
//! id-token.old.json  public halves of earlier keys, until the tokens that they signed have expired
//! ```
//!
//! Rotating makes a new key, deletes the private half of the old one, and keeps its public half published as long as an id
//! token is valid.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use jiff::Timestamp;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pem::{EncodeConfig, LineEnding, Pem};
use serde::{Deserialize, Serialize};
use tokio::sync::RwLock;

use super::tokens::TOKEN_LIFE;
use store::private_file;

/// The algorithm of id tokens, also in the discovery document.
pub const ALGORITHM: Algorithm = Algorithm::RS512;
const CURRENT: &str = "id-token.pem";
const OLD: &str = "id-token.old.json";

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot use {path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("{path} is not what this program wrote: {error}")]
    Old { path: PathBuf, error: serde_json::Error },
    #[error("cannot make a signing key")]
    Generate,
    #[error("the signing key cannot be used: {0}")]
    Key(#[from] jsonwebtoken::errors::Error),
    #[error("the signing key's thread was lost")]
    Lost,
}

/// The keys of the service. Clones share them.
#[derive(Clone, Debug)]
pub struct Keys {
    directory: PathBuf,
    ring: Arc<RwLock<Option<Arc<Ring>>>>,
}

impl Keys {
    pub(super) fn new(directory: PathBuf) -> Keys {
        Keys { directory, ring: Arc::default() }
    }

    /// The keys; the first call reads or makes them.
    pub async fn ring(&self) -> Result<Arc<Ring>, KeyError> {
        if let Some(ring) = &*self.ring.read().await {
            return Ok(ring.clone());
        }
        let mut known = self.ring.write().await;
        if let Some(ring) = &*known {
            return Ok(ring.clone());
        }
        let directory = self.directory.clone();
        let ring = blocking(move || Ring::load_or_make(&directory)).await?;
        Ok(known.insert(Arc::new(ring)).clone())
    }

    /// Makes a new key, which signs from now on. Returns the new ring.
    pub async fn rotate(&self, now: Timestamp) -> Result<Arc<Ring>, KeyError> {
        self.ring().await?;
        let mut known = self.ring.write().await;
        let directory = self.directory.clone();
        let ring = blocking(move || Ring::load_or_make(&directory)?.rotate(&directory, now)).await?;
        Ok(known.insert(Arc::new(ring)).clone())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| KeyError::Lost)?
}

/// The key in use, and earlier ones that clients may still need to verify tokens.
pub struct Ring {
    key: EncodingKey,
    public: Jwk,
    old: Vec<Old>,
}

/// A key that no longer signs.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Old {
    key: Jwk,
    until: Timestamp,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("kid", &self.public.common.key_id).finish_non_exhaustive()
    }
}

impl Ring {
    /// Reads the keys from `directory`, or makes them and writes them there. Slow: not for async threads.
    fn load_or_make(directory: &Path) -> Result<Ring, KeyError> {
        let path = directory.join(CURRENT);
        let pem = match std::fs::read(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(&path)?,
            Err(error) => return Err(KeyError::File { path, error }),
        };
        let path = directory.join(OLD);
        let old = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| KeyError::Old { path, error })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(KeyError::File { path, error }),
        };
        let key = EncodingKey::from_rsa_pem(&pem)?;
        let mut public = Jwk::from_encoding_key(&key, ALGORITHM)?;
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        public.common.key_id = Some(public.thumbprint(ThumbprintHash::SHA256)?);
        Ok(Ring { key, public, old })
    }

    /// The old public half is written before the new key: after a crash between the two it is published twice, which is
    /// harmless.
    fn rotate(self, directory: &Path, now: Timestamp) -> Result<Ring, KeyError> {
        let mut old: Vec<Old> = self.old.into_iter().filter(|old| old.until > now).collect();
        old.retain(|old| old.key.common.key_id != self.public.common.key_id);
        old.insert(0, Old { key: self.public, until: now + TOKEN_LIFE });
        let path = directory.join(OLD);
        let text = serde_json::to_vec(&old).map_err(|error| KeyError::Old { path: path.clone(), error })?;
        keep(&path, &text)?;
        make(&directory.join(CURRENT))?;
        Ring::load_or_make(directory)
    }

    /// The name of the key in use.
    pub fn kid(&self) -> &str {
        self.public.common.key_id.as_deref().unwrap_or_default()
    }

    /// Earlier keys that are still published, and until when.
    pub fn old(&self, now: Timestamp) -> impl Iterator<Item = (&str, Timestamp)> {
        let old = self.old.iter().filter(move |old| old.until > now);
        old.map(|old| (old.key.common.key_id.as_deref().unwrap_or_default(), old.until))
    }

    /// The key in use.
    pub fn public(&self) -> &Jwk {
        &self.public
    }

    /// The published keys: the key in use first, because stock clients read only the first.
    pub fn published(&self, now: Timestamp) -> Vec<&Jwk> {
        let old = self.old.iter().filter(|old| old.until > now).map(|old| &old.key);
        let old = old.filter(|old| old.common.key_id != self.public.common.key_id);
        std::iter::once(&self.public).chain(old).collect()
    }

    /// A signed token with these claims. An RSA signature takes about a millisecond.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, KeyError> {
        let mut header = Header::new(ALGORITHM);
        header.kid.clone_from(&self.public.common.key_id);
        Ok(jsonwebtoken::encode(&header, claims, &self.key)?)
    }
}

/// Makes a key and writes it to `path`, complete or not at all.
fn make(path: &Path) -> Result<Vec<u8>, KeyError> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Generate)?;
    let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let pem = pem::encode_config(&Pem::new("PRIVATE KEY", der.as_ref()), lines);
    keep(path, pem.as_bytes())?;
    Ok(pem.into_bytes())
}

fn keep(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    private_file::write(path, content).map_err(|error| KeyError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn verifies(token: &str, key: &Jwk) -> bool {
        let mut checks = jsonwebtoken::Validation::new(ALGORITHM);
        checks.set_audience(&["you"]);
        checks.required_spec_claims.clear();
        let key = jsonwebtoken::DecodingKey::from_jwk(key).unwrap();
        jsonwebtoken::decode::<serde_json::Value>(token, &key, &checks).is_ok()
    }

    #[test]
    fn the_key_stays_and_its_public_half_verifies() {
        let directory = tempfile::tempdir().unwrap();
        let made = Ring::load_or_make(directory.path()).unwrap();
        let loaded = Ring::load_or_make(directory.path()).unwrap();
        assert_eq!(made.public(), loaded.public());
        let mode = std::fs::metadata(directory.path().join(CURRENT)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let token = made.sign(&serde_json::json!({"sub": "me", "aud": "you"})).unwrap();
        assert!(verifies(&token, loaded.public()));
    }

    #[tokio::test]
    async fn an_old_key_is_published_until_what_it_signed_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::new(directory.path().to_owned());
        let first = keys.ring().await.unwrap();
        let token = first.sign(&serde_json::json!({"sub": "me", "aud": "you"})).unwrap();
        let second = keys.rotate(NOW).await.unwrap();
        assert_eq!(keys.ring().await.unwrap().public(), second.public());
        assert_eq!(second.published(NOW), [second.public(), first.public()], "the one in use is the first");
        assert!(verifies(&token, second.published(NOW)[1]) && !verifies(&token, second.public()));

        let later = NOW + TOKEN_LIFE;
        assert_eq!(second.published(later), [second.public()]);
        let third = keys.rotate(later).await.unwrap();
        assert_eq!(third.published(later), [third.public(), second.public()], "the first is forgotten");
        let loaded = Ring::load_or_make(directory.path()).unwrap();
        assert_eq!(loaded.published(later), third.published(later), "as after a restart");
        let private = std::fs::read_to_string(directory.path().join(OLD)).unwrap();
        assert!(!private.contains("\"d\""), "only public halves are kept");
    }
}
