//! Bad requests to the pages of signing in: of clients that can't be trusted, of other sites, of other browsers.

use reqwest::Method;

use super::Said::{Page, Sent};
use super::{Case, NOT_FOR_LOGS, play};
use crate::support::Farcall;
use crate::visitor::{PASSWORD, Visitor, authorize, code_page, person};

#[tokio::test]
async fn bad_requests_for_codes() {
    let service = Farcall::start();
    let other = service.client().await;
    let visitor = Visitor::new(&service);
    let page = code_page(&service);
    let get = |path: String| visitor.request(Method::GET, &path);
    let asks = |changes: &[(&str, Option<&str>)]| get(authorize(&service, changes));
    let twice = |name: &str| get(format!("{}&{name}=x", authorize(&service, &[])));
    let long = NOT_FOR_LOGS.repeat(100);
    let stranger = "00000000-0000-4000-8000-000000000000";
    let host = service.http.strip_prefix("http://").unwrap();
    let mut cases = Vec::new();
    for (what, name, value, said) in [
        ("no client", "client_id", None, Page(400)),
        ("a client that isn't there", "client_id", Some(stranger), Page(400)),
        ("a client that is none", "client_id", Some("me"), Page(400)),
        ("a client with a secret", "client_id", Some(&*other.id), Page(400)),
        ("no redirect URI", "redirect_uri", None, Page(400)),
        ("another site's", "redirect_uri", Some("https://evil.example/"), Page(400)),
        ("ours on another site", "redirect_uri", Some("https://evil.example/v2/web/auth-code"), Page(400)),
        (
            "ours at another user",
            "redirect_uri",
            Some(&*format!("http://{host}@evil.example/v2/web/auth-code")),
            Page(400),
        ),
        ("ours and more", "redirect_uri", Some(&*format!("{page}/../..")), Page(400)),
        ("a script", "redirect_uri", Some("javascript:alert(1)"), Page(400)),
        ("a loopback address nobody registered", "redirect_uri", Some("http://127.0.0.1:9/"), Page(400)),
        ("a path", "redirect_uri", Some("/v2/web/auth-code"), Page(400)),
        ("a header in the URI", "redirect_uri", Some(&*format!("{page}\r\nset-cookie: a=b")), Page(400)),
        ("no type", "response_type", None, Sent("invalid_request")),
        ("implicit", "response_type", Some("token"), Sent("unsupported_response_type")),
        ("hybrid", "response_type", Some("code id_token"), Sent("unsupported_response_type")),
        ("no challenge", "code_challenge", None, Sent("invalid_request")),
        ("plain", "code_challenge_method", Some("plain"), Sent("invalid_request")),
        ("no method", "code_challenge_method", None, Sent("invalid_request")),
        ("no scope", "scope", None, Sent("invalid_scope")),
        ("an unknown scope", "scope", Some("openid everything"), Sent("invalid_scope")),
        ("silent", "prompt", Some("none"), Sent("login_required")),
        ("a strange prompt", "prompt", Some("sing"), Sent("invalid_request")),
        ("a request object", "request", Some("eyJhbGciOiJub25lIn0.e30."), Sent("request_not_supported")),
        (
            "a request elsewhere",
            "request_uri",
            Some("http://127.0.0.1:1/"),
            Sent("request_uri_not_supported"),
        ),
        ("another mode", "response_mode", Some("form_post"), Sent("invalid_request")),
        ("a long state", "state", Some(&*long), Sent("invalid_request")),
        ("a very long state", "state", Some(&*long.repeat(9)), Page(400)),
    ] {
        cases.push(Case { what, request: asks(&[(name, value)]), said });
    }
    for (what, request, said) in [
        ("two clients", twice("client_id"), Page(400)),
        ("two redirect URIs", twice("redirect_uri"), Page(400)),
        ("two scopes", twice("scope"), Sent("invalid_request")),
        ("two challenges", twice("code_challenge"), Sent("invalid_request")),
        ("another host's name", get(authorize(&service, &[])).header("host", "evil.example"), Page(421)),
        ("a text for a code", get("/v2/web/auth-code?code=call+555".into()), Page(400)),
        ("two codes", get(format!("/v2/web/auth-code?code={0}&code={0}", "a".repeat(43))), Page(400)),
        ("an upstream that isn't there", get("/v2/web/upstream/none".into()), Page(404)),
    ] {
        cases.push(Case { what, request, said });
    }
    play(&service, cases, &[]).await;
}

#[tokio::test]
async fn forms_that_are_not_ours() {
    let service = Farcall::start();
    person(&service, "alice@example.org");
    let (mut alice, mut other) = (Visitor::new(&service), Visitor::new(&service));
    let asked = authorize(&service, &[]);
    alice.code(&asked, "alice@example.org").await;
    let page = alice.get(&asked).await;
    let (consent, proof) = page.form("/v2/web/consent");
    let (leave, leave_proof) = page.form("/v2/web/logout");
    let elsewhere = other.get(&asked).await;
    let (sign_in, others_proof) = elsewhere.form("/v2/web/sign-in");
    let (_, cancel_proof) = elsewhere.form("/v2/web/cancel");
    let wider = consent.replace("scope=openid", "scope=email");
    assert_ne!(wider, consent);
    let allow = |path: &str, proof: &str| alice.posting(path, &[("proof", proof), ("answer", "allow")]);
    let named = [("username", "alice@example.org"), ("password", PASSWORD)];
    let signing = |proof: &str| {
        let pairs = [named[0], named[1], ("proof", proof)];
        other.posting(&sign_in, &pairs)
    };
    let oversized = NOT_FOR_LOGS.repeat(9000);
    let cases = vec![
        Case { what: "consent without a proof", request: allow(&consent, ""), said: Page(400) },
        Case {
            what: "consent with a made-up proof",
            request: allow(&consent, NOT_FOR_LOGS),
            said: Page(400),
        },
        Case {
            what: "consent with another browser's",
            request: allow(&consent, &others_proof),
            said: Page(400),
        },
        Case { what: "consent with the sign-out's", request: allow(&consent, &leave_proof), said: Page(400) },
        Case { what: "consent to more than was shown", request: allow(&wider, &proof), said: Page(400) },
        Case {
            what: "consent from another site",
            request: allow(&consent, &proof).header("sec-fetch-site", "cross-site"),
            said: Page(400),
        },
        Case {
            what: "consent from a neighbouring site",
            request: allow(&consent, &proof).header("sec-fetch-site", "same-site"),
            said: Page(400),
        },
        Case {
            what: "two answers",
            request: alice
                .request(Method::POST, &consent)
                .body(format!("proof={proof}&answer=deny&answer=allow"))
                .header("content-type", "application/x-www-form-urlencoded"),
            said: Page(400),
        },
        Case {
            what: "two browsers in one",
            request: allow(&consent, &proof).header("cookie", "farcall_browser=planted"),
            said: Page(400),
        },
        Case { what: "sign-out without a proof", request: alice.posting(&leave, &[]), said: Page(400) },
        Case { what: "sign-in without a proof", request: signing(""), said: Page(400) },
        Case { what: "sign-in with the cancel's", request: signing(&cancel_proof), said: Page(400) },
        Case {
            what: "sign-in from another site",
            request: signing(&others_proof).header("sec-fetch-site", "cross-site"),
            said: Page(400),
        },
        Case {
            what: "an oversized form",
            request: other.posting(&sign_in, &[("x", &oversized)]),
            said: Page(400),
        },
        Case {
            what: "JSON for a form",
            request: other.request(Method::POST, &sign_in).json(&serde_json::json!({"proof": others_proof})),
            said: Page(400),
        },
        Case {
            what: "a sign-in under another host's name",
            request: signing(&others_proof).header("host", "evil.example"),
            said: Page(421),
        },
        Case {
            what: "an upstream's answer that nobody waits for",
            request: other.request(Method::GET, "/v2/web/upstream/campus/callback?code=not-for-logs&state=x"),
            said: Page(404),
        },
    ];
    let cookies: Vec<String> = alice.cookies.values().chain(other.cookies.values()).cloned().collect();
    let mut secrets: Vec<&str> = cookies.iter().map(String::as_str).collect();
    secrets.extend([PASSWORD, proof.as_str()]);
    play(&service, cases, &secrets).await;
    alice.allow(&asked).await;
    // Without a session a good form leads back to where somebody has to sign in.
    other.cookies.remove("farcall_session");
    let stale = alice.cookies.remove("farcall_session").unwrap();
    alice.cookies.insert("farcall_session".into(), format!("{}x", &stale[..42]));
    let sent = alice.post(&consent, &[("proof", &proof), ("answer", "allow")]).await;
    assert!(sent.sent_to().starts_with("/v2/oauth2/authorize?"));
}
