//! Verifies id tokens of the site's identity providers. Pure: keys and time are parameters.
//!
//! The signature must be by one of the provider's keys, with a public-key algorithm: `none` and shared secrets are never
//! accepted. Then issuer, audience, times and nonce are checked.

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

/// How far the provider's clock may differ from the service's.
pub const SKEW: SignedDuration = SignedDuration::from_mins(2);
/// Maximum age of a fresh id token.
const OLDEST: SignedDuration = SignedDuration::from_mins(15);
/// The longest token that is accepted.
const LONGEST: usize = 64 << 10;
/// The longest subject, by the standard.
const SUBJECT: usize = 255;

const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    #[error("it is no signed token")]
    Form,
    #[error("it is signed with an algorithm that is not accepted")]
    Algorithm,
    #[error("it is signed with a key that the provider does not have")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is from another issuer")]
    Issuer,
    #[error("it is for another application")]
    Audience,
    #[error("it has ended, or is from another time")]
    Time,
    #[error("it belongs to another sign-in")]
    Nonce,
    #[error("it names nobody")]
    Subject,
}

/// What a token must contain.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub client: &'a str,
    pub nonce: &'a str,
    pub now: Timestamp,
}

/// The verified claims about a person.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    pub subject: String,
    /// When the person signed in at the provider, if the token tells.
    pub authenticated: Option<Timestamp>,
    /// A second factor was used at the provider.
    pub mfa: bool,
    pub all: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The key that signed `token`; `None` if it is unknown and the keys must be read again.
pub fn key_of<'k>(token: &str, keys: &'k JwkSet) -> Result<Option<(&'k Jwk, Algorithm)>, ClaimsError> {
    if token.len() > LONGEST {
        return Err(ClaimsError::Form);
    }
    let header = token.split('.').next().unwrap_or_default();
    // Checked first: the library does not know `none` and would report a malformed token.
    let header = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .ok_or(ClaimsError::Form)?;
    let algorithm: Algorithm = header
        .get("alg")
        .and_then(Value::as_str)
        .and_then(|name| name.parse().ok())
        .filter(|algorithm| ALGORITHMS.contains(algorithm))
        .ok_or(ClaimsError::Algorithm)?;
    // The token requires a header extension (`crit`) that is not supported.
    if header.get("crit").is_some() {
        return Err(ClaimsError::Form);
    }
    let signing = |key: &&Jwk| {
        matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature))
            && key
                .common
                .key_algorithm
                .is_none_or(|own| own.to_string().parse::<Algorithm>().is_ok_and(|own| own == algorithm))
    };
    let found = match header.get("kid").and_then(Value::as_str) {
        Some(id) => keys.keys.iter().filter(signing).find(|key| key.common.key_id.as_deref() == Some(id)),
        // Without a key id, the key must be unambiguous.
        None => {
            let mut all = keys.keys.iter().filter(signing);
            let first = all.next();
            if all.next().is_some() {
                return Err(ClaimsError::UnknownKey);
            }
            first
        }
    };
    Ok(found.map(|key| (key, algorithm)))
}

/// Verifies that `key` signed `token` and that it contains what is expected; returns its claims.
pub fn verify(
    token: &str,
    key: &Jwk,
    algorithm: Algorithm,
    expected: Expected<'_>,
) -> Result<Claims, ClaimsError> {
    let key = DecodingKey::from_jwk(key).map_err(|_| ClaimsError::UnknownKey)?;
    // Times are checked below, against `now`.
    let mut checks = Validation::new(algorithm);
    checks.validate_exp = false;
    checks.validate_aud = false;
    checks.required_spec_claims.clear();
    let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &checks)
        .map_err(|_| ClaimsError::Signature)?
        .claims;
    check_claims(claims, expected)
}

fn check_claims(claims: Map<String, Value>, expected: Expected<'_>) -> Result<Claims, ClaimsError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let time = |name: &str| {
        let seconds =
            claims.get(name).and_then(|value| value.as_i64().or(value.as_f64().map(|it| it as i64)));
        seconds.and_then(|seconds| Timestamp::from_second(seconds).ok())
    };
    if text("iss") != Some(expected.issuer) {
        return Err(ClaimsError::Issuer);
    }
    let audience = claims.get("aud").cloned().and_then(|value| serde_json::from_value(value).ok());
    let (right, several) = match audience {
        Some(Audience::One(one)) => (one == expected.client, false),
        Some(Audience::Many(many)) => (many.iter().any(|one| one == expected.client), many.len() > 1),
        None => (false, false),
    };
    let party = text("azp");
    if !right || party.is_some_and(|party| party != expected.client) || (several && party.is_none()) {
        return Err(ClaimsError::Audience);
    }
    let (ends, made) = (time("exp").ok_or(ClaimsError::Time)?, time("iat").ok_or(ClaimsError::Time)?);
    let (latest, oldest) = (expected.now + SKEW, expected.now - OLDEST - SKEW);
    let begun = time("nbf").is_none_or(|begins| begins <= latest);
    if ends <= expected.now - SKEW || made > latest || made < oldest || !begun {
        return Err(ClaimsError::Time);
    }
    if text("nonce") != Some(expected.nonce) {
        return Err(ClaimsError::Nonce);
    }
    let subject = text("sub").filter(|subject| !subject.is_empty() && subject.len() <= SUBJECT);
    let subject = subject.ok_or(ClaimsError::Subject)?.to_owned();
    let methods = claims.get("amr").and_then(Value::as_array);
    let mfa = methods.is_some_and(|methods| methods.iter().any(|method| method == "mfa"));
    Ok(Claims { authenticated: time("auth_time"), subject, mfa, all: claims })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;

    struct Signer {
        key: EncodingKey,
        public: Jwk,
    }

    fn signer(id: &str) -> Signer {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        let mut public = Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap();
        public.common.key_id = Some(id.to_owned());
        Signer { key, public }
    }

    impl Signer {
        fn sign(&self, algorithm: Algorithm, id: Option<&str>, claims: &Value) -> String {
            let mut header = Header::new(algorithm);
            header.kid = id.map(str::to_owned);
            jsonwebtoken::encode(&header, claims, &self.key).unwrap()
        }
    }

    const NOW: i64 = 1_800_000_000;

    fn claims(changes: Value) -> Value {
        let mut claims = json!({"iss": "https://idp", "aud": "farcall", "sub": "u1", "nonce": "n",
            "iat": NOW, "exp": NOW + 300, "auth_time": NOW - 5});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    fn check(token: &str, keys: &JwkSet) -> Result<Claims, ClaimsError> {
        let now = Timestamp::from_second(NOW).unwrap();
        let expected = Expected { issuer: "https://idp", client: "farcall", nonce: "n", now };
        let (key, algorithm) = key_of(token, keys)?.ok_or(ClaimsError::UnknownKey)?;
        verify(token, key, algorithm, expected)
    }

    #[test]
    fn only_what_is_signed_right_and_says_what_is_expected_is_believed() {
        let (own, other) = (signer("k1"), signer("k1"));
        let keys = JwkSet { keys: vec![own.public.clone()] };
        let good = |changes| check(&own.sign(Algorithm::RS256, Some("k1"), &claims(changes)), &keys);
        let known = good(json!({"amr": ["pwd", "mfa"]})).unwrap();
        assert_eq!((known.subject.as_str(), known.mfa), ("u1", true));
        assert_eq!(known.authenticated.unwrap().as_second(), NOW - 5);
        assert!(!good(json!({})).unwrap().mfa);
        for (what, changes, verdict) in [
            ("issuer", json!({"iss": "https://evil"}), Some(ClaimsError::Issuer)),
            ("issuer with a slash", json!({"iss": "https://idp/"}), Some(ClaimsError::Issuer)),
            ("no issuer", json!({"iss": null}), Some(ClaimsError::Issuer)),
            ("audience", json!({"aud": "other"}), Some(ClaimsError::Audience)),
            ("no audience", json!({"aud": null}), Some(ClaimsError::Audience)),
            ("one of several, unnamed", json!({"aud": ["farcall", "b"]}), Some(ClaimsError::Audience)),
            ("one of several", json!({"aud": ["farcall", "b"], "azp": "farcall"}), None),
            ("another party", json!({"azp": "b"}), Some(ClaimsError::Audience)),
            ("ended", json!({"exp": NOW - 121}), Some(ClaimsError::Time)),
            ("ended within the skew", json!({"exp": NOW - 60}), None),
            ("never ends", json!({"exp": null}), Some(ClaimsError::Time)),
            ("from tomorrow", json!({"iat": NOW + 121}), Some(ClaimsError::Time)),
            ("from a slow clock", json!({"iat": NOW - 100}), None),
            ("from yesterday", json!({"iat": NOW - 86_400}), Some(ClaimsError::Time)),
            ("not yet", json!({"nbf": NOW + 500}), Some(ClaimsError::Time)),
            ("no time at all", json!({"iat": "now"}), Some(ClaimsError::Time)),
            ("nonce", json!({"nonce": "m"}), Some(ClaimsError::Nonce)),
            ("no nonce", json!({"nonce": null}), Some(ClaimsError::Nonce)),
            ("nobody", json!({"sub": ""}), Some(ClaimsError::Subject)),
            ("a number", json!({"sub": 7}), Some(ClaimsError::Subject)),
            ("long", json!({"sub": "x".repeat(256)}), Some(ClaimsError::Subject)),
        ] {
            assert_eq!(good(changes).err(), verdict, "{what}");
        }
        let forged = other.sign(Algorithm::RS256, Some("k1"), &claims(json!({})));
        assert_eq!(check(&forged, &keys), Err(ClaimsError::Signature));
        let rotated = own.sign(Algorithm::RS256, Some("k2"), &claims(json!({})));
        assert_eq!(key_of(&rotated, &keys).map(|found| found.is_none()), Ok(true));
        let unnamed = own.sign(Algorithm::RS256, None, &claims(json!({})));
        assert!(check(&unnamed, &keys).is_ok());
        let two = JwkSet { keys: vec![own.public.clone(), other.public] };
        assert_eq!(check(&unnamed, &two), Err(ClaimsError::UnknownKey));
    }

    #[test]
    fn none_and_shared_secrets_are_never_believed() {
        let own = signer("k1");
        let keys = JwkSet { keys: vec![own.public.clone()] };
        let part = |value: &Value| {
            base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, value.to_string())
        };
        for algorithm in ["none", "None", "nOnE", ""] {
            let token =
                format!("{}.{}.", part(&json!({"alg": algorithm, "kid": "k1"})), part(&claims(json!({}))));
            assert_eq!(check(&token, &keys), Err(ClaimsError::Algorithm), "{algorithm:?}");
        }
        // The public key taken for a shared secret.
        let secret = serde_json::to_vec(&own.public).unwrap();
        let token = jsonwebtoken::encode(
            &Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) },
            &claims(json!({})),
            &EncodingKey::from_secret(&secret),
        )
        .unwrap();
        assert_eq!(check(&token, &keys), Err(ClaimsError::Algorithm));
        let good = own.sign(Algorithm::RS256, Some("k1"), &claims(json!({})));
        let (signed, _) = good.rsplit_once('.').unwrap();
        assert_eq!(check(&format!("{signed}."), &keys), Err(ClaimsError::Signature));
        let (head, rest) = good.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let swapped = format!("{head}.{}.{signature}", part(&claims(json!({"sub": "root"}))));
        assert_eq!(check(&swapped, &keys), Err(ClaimsError::Signature));
        let critical = format!("{}.e30.", part(&json!({"alg": "RS256", "kid": "k1", "crit": ["x"]})));
        assert_eq!(check(&critical, &keys), Err(ClaimsError::Form));
        for junk in ["", ".", "..", "a.b.c", &"x".repeat(70_000)] {
            assert_eq!(check(junk, &keys).err(), Some(ClaimsError::Form), "{}", &junk[..junk.len().min(9)]);
        }
    }

    #[test]
    fn a_key_is_used_for_what_it_is_for() {
        let own = signer("k1");
        let mut encrypting = own.public.clone();
        encrypting.common.public_key_use = Some(PublicKeyUse::Encryption);
        let token = own.sign(Algorithm::RS256, Some("k1"), &claims(json!({})));
        assert_eq!(key_of(&token, &JwkSet { keys: vec![encrypting] }).map(|it| it.is_none()), Ok(true));
        let mut other = own.public.clone();
        other.common.key_algorithm = Some(jsonwebtoken::jwk::KeyAlgorithm::RS512);
        assert_eq!(key_of(&token, &JwkSet { keys: vec![other] }).map(|it| it.is_none()), Ok(true));
    }
}
