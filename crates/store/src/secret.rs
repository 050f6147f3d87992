//! Secrets that the service makes: client secrets, tokens, broker passwords.
//!
//! Each is 32 random bytes, shown once and stored as its SHA-256. With that much entropy a slow hash would add
//! nothing. Passwords that people choose are hashed elsewhere.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::random;

/// A fresh secret, safe in URLs and headers.
pub fn fresh() -> String {
    URL_SAFE_NO_PAD.encode(random::random_bytes())
}

/// The stored hash of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    pub fn of(secret: &str) -> Hash {
        Hash(Sha256::digest(secret.as_bytes()).into())
    }

    /// Hashes several parts, each preceded by its length, so that different lists of parts never hash alike.
    pub fn of_parts(parts: &[&[u8]]) -> Hash {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Hash(hash.finalize().into())
    }

    pub fn from_stored(bytes: &[u8]) -> Option<Hash> {
        bytes.try_into().ok().map(Hash)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for one of 256 hashes: for work that need not be done each time.
    pub fn is_one_in_256(&self) -> bool {
        self.0[0] == 0
    }

    /// Whether this is the hash of `secret`. Takes constant time.
    pub fn admits(&self, secret: &str) -> bool {
        self.0.ct_eq(&Hash::of(secret).0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_is_admitted() {
        let secret = fresh();
        let stored = Hash::from_stored(Hash::of(&secret).as_bytes()).unwrap();
        assert!(stored.admits(&secret));
        assert!(!stored.admits(&secret[1..]));
        assert!(!stored.admits(""));
        assert!(Hash::from_stored(b"short").is_none());
    }

    #[test]
    fn secrets_differ_and_are_long() {
        assert_ne!(fresh(), fresh());
        assert_eq!(fresh().len(), 43);
    }
}
