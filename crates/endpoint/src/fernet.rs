//! Fernet tokens: the encryption of the credentials that a manager renews for its user endpoints. Upstream's user endpoints
//! of 4.16 and later read such tokens, and ours do.
//!
//! ```text
//! key    16 bytes for the signature, 16 bytes for AES-128-CBC; in URL-safe Base64
//! token  0x80, time (8 bytes), initialization vector (16), ciphertext, HMAC-SHA256 of all that (32); in URL-safe Base64
//! ```

use aws_lc_rs::cipher::{
    AES_128, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

const VERSION: u8 = 0x80;
const TIME: usize = 8;
const VECTOR: usize = 16;
const SIGNATURE: usize = 32;
const HEAD: usize = 1 + TIME + VECTOR;

/// A key that encrypts and signs.
pub(crate) struct Key {
    signing: [u8; 16],
    encryption: [u8; 16],
}

/// A token was not written with this key, or is damaged; or the system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not encrypted with this key, or damaged")
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    pub(crate) fn generate() -> Result<Self, Invalid> {
        let (mut signing, mut encryption) = ([0; 16], [0; 16]);
        rand::fill(&mut signing).map_err(|_| Invalid)?;
        rand::fill(&mut encryption).map_err(|_| Invalid)?;
        Ok(Self { signing, encryption })
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        let bytes: [u8; 32] =
            URL_SAFE.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(Invalid)?;
        let (signing, encryption) = bytes.split_at(16);
        Ok(Self {
            signing: signing.try_into().map_err(|_| Invalid)?,
            encryption: encryption.try_into().map_err(|_| Invalid)?,
        })
    }

    /// The key as others are told it.
    pub(crate) fn text(&self) -> String {
        URL_SAFE.encode([self.signing, self.encryption].concat())
    }

    /// Encrypts; `now` is in seconds since 1970.
    pub(crate) fn encrypt(&self, message: &[u8], now: u64) -> Result<String, Invalid> {
        let mut vector = [0; VECTOR];
        rand::fill(&mut vector).map_err(|_| Invalid)?;
        let key = UnboundCipherKey::new(&AES_128, &self.encryption).map_err(|_| Invalid)?;
        let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).map_err(|_| Invalid)?;
        let mut encrypted = message.to_vec();
        key.less_safe_encrypt(&mut encrypted, EncryptionContext::Iv128(FixedLength::from(vector)))
            .map_err(|_| Invalid)?;
        let mut token = vec![VERSION];
        token.extend(now.to_be_bytes());
        token.extend(vector);
        token.extend(encrypted);
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.signing), &token);
        token.extend(signature.as_ref());
        Ok(URL_SAFE.encode(token))
    }

    pub(crate) fn decrypt(&self, token: &str) -> Result<Vec<u8>, Invalid> {
        let token = URL_SAFE.decode(token.trim()).map_err(|_| Invalid)?;
        if token.len() < HEAD + SIGNATURE || token[0] != VERSION {
            return Err(Invalid);
        }
        let (signed, signature) = token.split_at(token.len() - SIGNATURE);
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &self.signing), signed, signature)
            .map_err(|_| Invalid)?;
        let vector: [u8; VECTOR] = signed[1 + TIME..HEAD].try_into().map_err(|_| Invalid)?;
        let key = UnboundCipherKey::new(&AES_128, &self.encryption).map_err(|_| Invalid)?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| Invalid)?;
        let mut message = signed[HEAD..].to_vec();
        let length = key
            .decrypt(&mut message, DecryptionContext::Iv128(FixedLength::from(vector)))
            .map_err(|_| Invalid)?
            .len();
        message.truncate(length);
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From <https://github.com/fernet/spec>, `verify.json` and `generate.json`.
    const SPECIFIED_KEY: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    const SPECIFIED_TOKEN: &str = "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";

    #[test]
    fn the_token_of_the_specification_is_read() {
        let key = Key::parse(SPECIFIED_KEY).unwrap();
        assert_eq!(key.decrypt(SPECIFIED_TOKEN).unwrap(), b"hello");
        assert_eq!(key.text(), SPECIFIED_KEY);
        assert_eq!(Key::generate().unwrap().decrypt(SPECIFIED_TOKEN), Err(Invalid));
    }

    #[test]
    fn nonsense_is_no_key_and_no_token() {
        let key = Key::parse(SPECIFIED_KEY).unwrap();
        for text in ["", "=", "gAAAAA==", "\0", &"A".repeat(200)] {
            assert!(Key::parse(text).is_err());
            assert_eq!(key.decrypt(text), Err(Invalid));
        }
        let mut damaged = URL_SAFE.decode(SPECIFIED_TOKEN).unwrap();
        for at in 0..damaged.len() {
            damaged[at] ^= 1;
            assert_eq!(key.decrypt(&URL_SAFE.encode(&damaged)), Err(Invalid));
            damaged[at] ^= 1;
        }
    }

    proptest! {
        #[test]
        fn what_is_encrypted_is_decrypted(message in prop::collection::vec(any::<u8>(), 0..200), now: u64) {
            let key = Key::generate().unwrap();
            let token = key.encrypt(&message, now).unwrap();
            prop_assert_eq!(key.decrypt(&token).unwrap(), message);
        }

        #[test]
        fn any_text(token in "\\PC{0,80}") {
            let _ = Key::parse(SPECIFIED_KEY).unwrap().decrypt(&token);
        }
    }
}
