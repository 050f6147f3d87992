//! Bad codes, verifiers, redirect URIs and refresh tokens: wrong, late, swapped, cut, doubled. What a second use ends is in
//! `sign_in.rs`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use sha2::Digest as _;

use super::Said::OAuth;
use super::{Case, NOT_FOR_LOGS, by, form, play};
use crate::database::Value;
use crate::support::{COMPUTE, Farcall};
use crate::visitor::{
    CHALLENGE, NATIVE, VERIFIER, Visitor, authorize, code_page, exchange, exchange_form, person,
};

const TOKEN: &str = "/v2/oauth2/token";
const GRANT: OAuthCase = OAuth(400, "invalid_grant");
const REQUEST: OAuthCase = OAuth(400, "invalid_request");
const CLIENT: OAuthCase = OAuth(401, "invalid_client");
type OAuthCase = super::Said;

fn hashed(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(text))
}

fn encoded(pairs: &[(String, String)]) -> String {
    let url = reqwest::Url::parse_with_params("http://x/", pairs).unwrap();
    url.query().unwrap().to_owned()
}

#[tokio::test]
async fn bad_codes() {
    let service = Farcall::start();
    person(&service, "alice@example.org");
    person(&service, "bob@example.org");
    let other = service.client().await;
    let app = service.administer(&["client", "add", "viewer", "--native"], "");
    let app = app["client_id"].as_str().unwrap();
    let (mut alice, mut bob) = (Visitor::new(&service), Visitor::new(&service));
    let code = alice.code(&authorize(&service, &[]), "alice@example.org").await;
    let late = alice.allow(&authorize(&service, &[])).await;
    let bobs_challenge = hashed(&"b".repeat(43));
    let bobs =
        bob.code(&authorize(&service, &[("code_challenge", Some(&bobs_challenge))]), "bob@example.org").await;
    let given = bob.allow(&authorize(&service, &[])).await;
    let given = exchange(&service, &given, &[]).await.ok();
    let (access, refresh) =
        (given["access_token"].as_str().unwrap(), given["refresh_token"].as_str().unwrap());
    end_code(&service, &late).await;

    let page = code_page(&service);
    let with = |changes: &[(&str, &str)]| exchange_form(&service, &code, changes);
    let asks = |changes: &[(&str, &str)]| form(&service, TOKEN, encoded(&with(changes)));
    let without = |name: &str| {
        let pairs: Vec<_> = with(&[]).into_iter().filter(|(known, _)| known != name).collect();
        form(&service, TOKEN, encoded(&pairs))
    };
    let twice =
        |name: &str, value: &str| form(&service, TOKEN, format!("{}&{name}={value}", encoded(&with(&[]))));
    let wrong = format!("{NOT_FOR_LOGS}{}", "x".repeat(31));
    let mut cases = Vec::new();
    for (what, changes, said) in [
        ("a made-up code", vec![("code", &*wrong)], GRANT),
        ("an empty code", vec![("code", "")], REQUEST),
        ("a code cut short", vec![("code", &code[..42])], GRANT),
        ("a code with something behind it", vec![("code", &*format!("{code}x"))], GRANT),
        ("a code in other letters", vec![("code", &*swapped_case(&code))], GRANT),
        ("the hash of a code", vec![("code", &*hashed(&code))], GRANT),
        ("a statement for a code", vec![("code", "' OR '1'='1 not-for-logs")], GRANT),
        ("a very long code", vec![("code", &*NOT_FOR_LOGS.repeat(4000))], GRANT),
        ("a code with a zero in it", vec![("code", "not-for-logs\0")], OAuth(400, "invalid_request")),
        ("a code that has ended", vec![("code", &*late)], GRANT),
        ("an access token for a code", vec![("code", access)], GRANT),
        ("a refresh token for a code", vec![("code", refresh)], GRANT),
        ("somebody else's code", vec![("code", &*bobs)], GRANT),
        ("no verifier in it", vec![("code_verifier", "")], REQUEST),
        ("another verifier", vec![("code_verifier", &*wrong)], GRANT),
        ("the challenge for a verifier", vec![("code_verifier", CHALLENGE)], GRANT),
        ("a verifier cut short", vec![("code_verifier", &VERIFIER[..42])], REQUEST),
        ("a verifier that is too long", vec![("code_verifier", &*NOT_FOR_LOGS.repeat(11))], REQUEST),
        (
            "a verifier of strange characters",
            vec![("code_verifier", &*format!("{}+/=", &wrong[..42]))],
            REQUEST,
        ),
        ("another's verifier", vec![("code_verifier", &*"b".repeat(43))], GRANT),
        ("no redirect URI in it", vec![("redirect_uri", "")], REQUEST),
        ("another redirect URI", vec![("redirect_uri", "https://evil.example/")], GRANT),
        ("nearly the redirect URI", vec![("redirect_uri", &*format!("{page}/"))], GRANT),
        ("the redirect URI in capitals", vec![("redirect_uri", &*page.to_uppercase())], GRANT),
        ("the redirect URI and a query", vec![("redirect_uri", &*format!("{page}?x"))], GRANT),
        ("another application", vec![("client_id", app)], GRANT),
        (
            "an application that isn't there",
            vec![("client_id", "00000000-0000-4000-8000-000000000000")],
            CLIENT,
        ),
        ("an application that is none", vec![("client_id", "me")], CLIENT),
        ("a client that has a secret, without it", vec![("client_id", &*other.id)], CLIENT),
        ("no application", vec![("client_id", "")], CLIENT),
        ("a made-up secret of the application", vec![("client_secret", NOT_FOR_LOGS)], CLIENT),
        ("another grant with a code", vec![("grant_type", "refresh_token")], REQUEST),
        ("a grant that is none", vec![("grant_type", "password")], OAuth(400, "unsupported_grant_type")),
        ("implicit", vec![("grant_type", "implicit")], OAuth(400, "unsupported_grant_type")),
    ] {
        cases.push(Case { what, request: asks(&changes), said });
    }
    for (what, request, said) in [
        ("no code", without("code"), REQUEST),
        ("no verifier", without("code_verifier"), REQUEST),
        ("no redirect URI", without("redirect_uri"), REQUEST),
        ("no grant", without("grant_type"), REQUEST),
        ("two codes", twice("code", NOT_FOR_LOGS), REQUEST),
        ("two verifiers", twice("code_verifier", NOT_FOR_LOGS), REQUEST),
        ("two redirect URIs", twice("redirect_uri", "x"), REQUEST),
        ("two applications", twice("client_id", app), REQUEST),
        ("two grants", twice("grant_type", "client_credentials"), REQUEST),
        ("an oversized form", twice("x", &NOT_FOR_LOGS.repeat(9000)), REQUEST),
        ("parameters in the URL", form(&service, &format!("{TOKEN}?{}", encoded(&with(&[]))), ""), REQUEST),
        (
            "a client with a secret takes the code",
            {
                let pairs: Vec<_> = with(&[]).into_iter().filter(|(name, _)| name != "client_id").collect();
                by(form(&service, TOKEN, encoded(&pairs)), &other)
            },
            GRANT,
        ),
        ("JSON", service.request(Method::POST, TOKEN).json(&with(&[])), REQUEST),
        ("a form of another kind", service.request(Method::POST, TOKEN).body(encoded(&with(&[]))), REQUEST),
    ] {
        cases.push(Case { what, request, said });
    }
    assert!(cases.len() >= 48);
    play(&service, cases, &[&code, &late, &bobs, access, refresh, VERIFIER]).await;
    exchange(&service, &code, &[]).await.ok();
}

#[tokio::test]
async fn bad_refresh_tokens() {
    let service = Farcall::start();
    person(&service, "alice@example.org");
    let other = service.client().await;
    let app = service.administer(&["client", "add", "viewer", "--native"], "");
    let app = app["client_id"].as_str().unwrap();
    let mut alice = Visitor::new(&service);
    let code = alice.code(&authorize(&service, &[]), "alice@example.org").await;
    let given = exchange(&service, &code, &[]).await.ok();
    let pending = alice.allow(&authorize(&service, &[])).await;
    let late = exchange(&service, &alice.allow(&authorize(&service, &[])).await, &[]).await.ok();
    let (access, token) = (given["access_token"].as_str().unwrap(), given["refresh_token"].as_str().unwrap());
    let late = late["refresh_token"].as_str().unwrap();
    end_refresh_token(&service, late).await;

    let asks = |changes: &[(&str, &str)]| {
        let mut pairs =
            vec![("grant_type", "refresh_token"), ("client_id", NATIVE), ("refresh_token", token)];
        for (name, value) in changes {
            pairs.retain(|(known, _)| known != name);
            pairs.push((name, value));
        }
        service.request(Method::POST, TOKEN).form(&pairs)
    };
    let scope = OAuth(400, "invalid_scope");
    let both = format!("openid {COMPUTE}");
    let mut cases = Vec::new();
    for (what, changes, said) in [
        ("a made-up token", vec![("refresh_token", NOT_FOR_LOGS)], GRANT),
        ("an empty token", vec![("refresh_token", "")], REQUEST),
        ("a token cut short", vec![("refresh_token", &token[..42])], GRANT),
        ("a token in other letters", vec![("refresh_token", &*swapped_case(token))], GRANT),
        ("the hash of a token", vec![("refresh_token", &*hashed(token))], GRANT),
        ("a token that has ended", vec![("refresh_token", late)], GRANT),
        ("an access token", vec![("refresh_token", access)], GRANT),
        ("a code", vec![("refresh_token", &*pending)], GRANT),
        ("another application", vec![("client_id", app)], GRANT),
        (
            "an application that isn't there",
            vec![("client_id", "00000000-0000-4000-8000-000000000000")],
            CLIENT,
        ),
        ("no application", vec![("client_id", "")], CLIENT),
        ("more than it reaches", vec![("scope", &*both)], scope),
        ("something that is no scope", vec![("scope", "everything")], scope),
        ("a blank for a scope", vec![("scope", " ")], scope),
    ] {
        cases.push(Case { what, request: asks(&changes), said });
    }
    cases.push(Case {
        what: "a client with a secret takes the token",
        request: by(form(&service, TOKEN, format!("grant_type=refresh_token&refresh_token={token}")), &other),
        said: GRANT,
    });
    cases.push(Case {
        what: "two tokens",
        request: form(
            &service,
            TOKEN,
            format!("grant_type=refresh_token&client_id={NATIVE}&refresh_token={token}&refresh_token={late}"),
        ),
        said: REQUEST,
    });
    cases.push(Case {
        what: "no token",
        request: form(&service, TOKEN, format!("grant_type=refresh_token&client_id={NATIVE}")),
        said: REQUEST,
    });
    cases.push(Case {
        what: "somebody else revokes it",
        request: form(&service, "/v2/oauth2/token/revoke", format!("client_id={app}&token={token}")),
        said: super::Said::Ignored,
    });
    play(&service, cases, &[token, late, access, &pending]).await;
    crate::visitor::refresh(&service, token).await.ok();
}

fn swapped_case(text: &str) -> String {
    let swap = |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    text.chars().map(swap).collect()
}

async fn end_code(service: &Farcall, code: &str) {
    write(service, "UPDATE codes SET expires_us = 1 WHERE hash = $1", code).await;
}

async fn end_refresh_token(service: &Farcall, token: &str) {
    write(service, "UPDATE refresh_tokens SET expires_us = 1 WHERE hash = $1", token).await;
}

/// Time can't be waited for.
async fn write(service: &Farcall, sql: &'static str, secret: &str) {
    let mut database = service.database().await;
    let hash = sha2::Sha256::digest(secret).to_vec();
    assert_eq!(database.execute(sql, [Value::Bytes(hash)]).await, 1);
    database.close().await;
}
