//! The key that signs id tokens: RSA, made at the first start, kept in `keys/` of the data directory.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

/// How id tokens are signed; also what the discovery document says.
pub const ALGORITHM: Algorithm = Algorithm::RS512;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot use {path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("cannot make a signing key")]
    Generate,
    #[error("the signing key cannot be used: {0}")]
    Key(#[from] jsonwebtoken::errors::Error),
}

pub struct SigningKey {
    key: EncodingKey,
    public: Jwk,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.public.common.key_id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads the key from `directory`, or makes it and keeps it there. Takes a while: not for async threads.
    pub fn load_or_make(directory: &Path) -> Result<SigningKey, KeyError> {
        let path = directory.join("id-token.pem");
        let pem = match std::fs::read(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(&path)?,
            Err(error) => return Err(KeyError::File { path, error }),
        };
        let key = EncodingKey::from_rsa_pem(&pem)?;
        let mut public = Jwk::from_encoding_key(&key, ALGORITHM)?;
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        public.common.key_id = Some(public.thumbprint(ThumbprintHash::SHA256)?);
        Ok(SigningKey { key, public })
    }

    pub fn public(&self) -> &Jwk {
        &self.public
    }

    /// A signed token with these claims. An RSA signature takes about a millisecond.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, KeyError> {
        let mut header = Header::new(ALGORITHM);
        header.kid.clone_from(&self.public.common.key_id);
        Ok(jsonwebtoken::encode(&header, claims, &self.key)?)
    }
}

/// Makes a key and keeps it in `path`, complete or not at all.
fn make(path: &Path) -> Result<Vec<u8>, KeyError> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Generate)?;
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    let text = STANDARD.encode(der.as_ref());
    for start in (0..text.len()).step_by(64) {
        pem.push_str(&text[start..text.len().min(start + 64)]);
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    let unfinished = path.with_extension("new");
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    write().map_err(|error| KeyError::File { path: path.to_owned(), error })?;
    Ok(pem.into_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_stays_and_its_public_half_verifies() {
        let directory = tempfile::tempdir().unwrap();
        let made = SigningKey::load_or_make(directory.path()).unwrap();
        let loaded = SigningKey::load_or_make(directory.path()).unwrap();
        assert_eq!(made.public(), loaded.public());
        let mode = std::fs::metadata(directory.path().join("id-token.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let token = made.sign(&serde_json::json!({"sub": "me", "aud": "you"})).unwrap();
        let mut checks = jsonwebtoken::Validation::new(ALGORITHM);
        checks.set_audience(&["you"]);
        checks.required_spec_claims.clear();
        let key = jsonwebtoken::DecodingKey::from_jwk(loaded.public()).unwrap();
        let claims = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &checks).unwrap().claims;
        assert_eq!(claims["sub"], "me");
    }
}
