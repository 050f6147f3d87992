//! Tests of sign-in: sessions, codes, their tokens, and how they end.

use serde_json::{Value, json};

use crate::support::{Answer, Farcall};
use crate::visitor::{PASSWORD, Visitor, authorize, exchange, log_in, person, refresh};

const ALICE: &str = "alice@example.org";
const ENDED: &str = "Your session has ended: sign in again.";

/// Changes the stopped or running service's store behind its back: time can't be waited for.
async fn change(service: &Farcall, sql: &'static str) {
    let mut database = service.database().await;
    database.execute(sql, []).await;
    database.close().await;
}

/// A service, Alice at a browser, and the stock SDK's request.
fn alice_at_browser() -> (Farcall, Visitor, String) {
    let service = Farcall::start();
    person(&service, ALICE);
    let (visitor, asked) = (Visitor::new(&service), authorize(&service, &[]));
    (service, visitor, asked)
}

async fn user_info(service: &Farcall, token: &Value) -> Answer {
    let request = service.request(reqwest::Method::GET, "/v2/oauth2/userinfo");
    crate::support::send(request.bearer_auth(token.as_str().unwrap())).await
}

#[tokio::test]
async fn a_code_becomes_tokens_and_an_id_token() {
    let service = Farcall::start();
    let alice = person(&service, ALICE);
    let answer = log_in(&service, ALICE, &[("nonce", Some("n1"))]).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    let answer = answer.ok();
    assert_eq!(answer["resource_server"], "auth.globus.org");
    assert_eq!(answer["other_tokens"][0]["resource_server"], "funcx_service");
    assert_eq!(answer["state"], "_default");
    for token in [&answer, &answer["other_tokens"][0]] {
        assert!(token["refresh_token"].is_string() && token["expires_in"] == 172_800);
    }
    let info = user_info(&service, &answer["access_token"]).await.ok();
    assert_eq!((info["sub"].as_str(), info["preferred_username"].as_str()), (Some(&*alice), Some(ALICE)));
    let claims = answer["id_token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((claims["sub"].as_str(), &claims["nonce"]), (Some(&*alice), &json!("n1")));
    assert!(claims["auth_time"].is_i64());
}

#[tokio::test]
async fn without_offline_there_is_nothing_to_refresh() {
    let service = Farcall::start();
    person(&service, ALICE);
    let answer = log_in(&service, ALICE, &[("access_type", None)]).await.ok();
    assert!(answer.get("refresh_token").is_none());
    assert!(answer["other_tokens"][0].get("refresh_token").is_none());
}

#[tokio::test]
async fn a_code_used_twice_ends_what_it_gave() {
    let (service, mut visitor, asked) = alice_at_browser();
    let code = visitor.code(&asked, ALICE).await;
    let given = exchange(&service, &code, &[]).await.ok();
    let other = visitor.allow(&asked).await;
    let other = exchange(&service, &other, &[]).await.ok();
    user_info(&service, &given["access_token"]).await.ok();
    // Whoever can't show the verifier ends nothing.
    let wrong = "x".repeat(43);
    exchange(&service, &code, &[("code_verifier", &wrong)]).await.oauth(400, "invalid_grant");
    user_info(&service, &given["access_token"]).await.ok();
    exchange(&service, &code, &[]).await.oauth(400, "invalid_grant");
    assert_eq!(user_info(&service, &given["access_token"]).await.status, 401);
    refresh(&service, given["refresh_token"].as_str().unwrap()).await.oauth(400, "invalid_grant");
    let compute = given["other_tokens"][0]["refresh_token"].as_str().unwrap();
    refresh(&service, compute).await.oauth(400, "invalid_grant");
    user_info(&service, &other["access_token"]).await.ok();
    assert!(service.read_log().contains("code reused"));
}

#[tokio::test]
async fn one_of_many_exchanges_at_once_wins_and_then_nobody() {
    let service = Farcall::start();
    person(&service, ALICE);
    let code = Visitor::new(&service).code(&authorize(&service, &[]), ALICE).await;
    let all = futures_util::future::join_all((0..8).map(|_| exchange(&service, &code, &[]))).await;
    let given: Vec<_> = all.into_iter().filter(|answer| answer.status == 200).collect();
    assert!(given.len() <= 1, "a code is good for one exchange");
    for answer in given {
        let token = answer.ok()["access_token"].clone();
        assert_eq!(user_info(&service, &token).await.status, 401, "and what it gave has ended");
    }
}

#[tokio::test]
async fn refresh_tokens_rotate_and_a_lost_answer_locks_nobody_out() {
    let service = Farcall::start();
    person(&service, ALICE);
    let given = log_in(&service, ALICE, &[]).await.ok();
    let first = given["refresh_token"].as_str().unwrap();
    let next = refresh(&service, first).await.ok();
    assert_eq!(next["other_tokens"], json!([]));
    assert_eq!(next["scope"], given["scope"]);
    let second = next["refresh_token"].as_str().unwrap();
    assert_ne!(first, second);
    // The answer was lost: asked again, the same successor is given, and both access tokens are good.
    let again = refresh(&service, first).await.ok();
    assert_eq!(again["refresh_token"], next["refresh_token"]);
    user_info(&service, &next["access_token"]).await.ok();
    user_info(&service, &again["access_token"]).await.ok();
    // Once the successor is used, the old one is a copy in somebody's hands.
    let third = refresh(&service, second).await.ok();
    refresh(&service, first).await.oauth(400, "invalid_grant");
    refresh(&service, third["refresh_token"].as_str().unwrap()).await.oauth(400, "invalid_grant");
    for ended in [&given, &next, &again, &third, &given["other_tokens"][0]] {
        let status = user_info(&service, &ended["access_token"]).await.status.as_u16();
        assert_eq!(status, 401, "all from the same sign-in has ended");
    }
    assert!(service.read_log().contains("refresh token reused"));
}

#[tokio::test]
async fn the_grace_for_a_lost_answer_is_short() {
    let service = Farcall::start();
    person(&service, ALICE);
    let given = log_in(&service, ALICE, &[]).await.ok();
    let first = given["refresh_token"].as_str().unwrap();
    let next = refresh(&service, first).await.ok();
    change(
        &service,
        "UPDATE refresh_tokens SET used_us = used_us - 11 * 60 * 1000000 WHERE used_us IS NOT NULL",
    )
    .await;
    refresh(&service, first).await.oauth(400, "invalid_grant");
    refresh(&service, next["refresh_token"].as_str().unwrap()).await.oauth(400, "invalid_grant");
}

#[tokio::test]
async fn who_is_disabled_is_out_everywhere_and_comes_back_with_nothing() {
    let (service, mut visitor, asked) = alice_at_browser();
    let code = visitor.code(&asked, ALICE).await;
    let given = exchange(&service, &code, &[]).await.ok();
    let pending = visitor.allow(&asked).await;
    service.administer(&["user", "disable", ALICE], "");
    let told = user_info(&service, &given["access_token"]).await;
    assert_eq!(told.status, 401);
    let text = format!("The account {ALICE} is disabled: ask who administers this service");
    assert_eq!(told.body["errors"][0]["detail"], text);
    let told = refresh(&service, given["refresh_token"].as_str().unwrap()).await;
    assert_eq!(told.body["error_description"], text);
    told.oauth(400, "invalid_grant");
    refresh(&service, "unknown").await.oauth(400, "invalid_grant");
    exchange(&service, &pending, &[]).await.oauth(400, "invalid_grant");
    assert!(visitor.get(&asked).await.body.contains("Sign in to go on."));
    // Who has the password is told; a stranger sees what he sees of an account that isn't there.
    let told = visitor.sign_in(&asked, ALICE, crate::visitor::PASSWORD).await;
    assert_eq!(told.status, 403);
    let text = format!("The account {ALICE} is disabled: ask who administers this service.");
    assert!(told.body.contains(&text), "{}", told.body);
    let refused = visitor.sign_in(&asked, ALICE, "a wrong password").await;
    assert_eq!(refused.status, 401);
    let nobody = visitor.sign_in(&asked, "nobody@example.org", crate::visitor::PASSWORD).await;
    let plain = |shown: &crate::visitor::Shown, name: &str| {
        let start = shown.body.find("role=\"alert\"").unwrap();
        shown.body[start..].split("<form").next().unwrap().replace(name, "")
    };
    assert_eq!(plain(&refused, ALICE), plain(&nobody, "nobody@example.org"), "said alike");
    service.administer(&["user", "enable", ALICE], "");
    assert_eq!(user_info(&service, &given["access_token"]).await.status, 401);
    visitor.code(&asked, ALICE).await;
}

/// All of a campus comes from one address.
#[tokio::test]
async fn who_guesses_slows_their_address_and_closes_nobody_out_of_a_browser_that_was_there_before() {
    let service = Farcall::start();
    let (bob, carol) = ("bob@example.edu", "carol@example.edu");
    for username in [ALICE, bob, carol] {
        person(&service, username);
    }
    let asked = authorize(&service, &[]);
    let mut known = Visitor::new(&service);
    known.code(&asked, ALICE).await;
    let page = known.get("/v2/web/logout").await;
    let (action, proof) = page.form("/v2/web/logout");
    known.post(&action, &[("proof", &proof)]).await;

    let mut stranger = Visitor::new(&service);
    let page = stranger.get(&asked).await;
    let (action, proof) = page.form("/v2/web/sign-in");
    let mut refused = 0;
    for n in 0..60 {
        // At Alice's account, too, until that is closed for browsers that she never used.
        let username = if n < 6 { ALICE.to_owned() } else { format!("nobody{n}@example.edu") };
        let pairs = [("proof", proof.as_str()), ("username", &username), ("password", "wrong")];
        let shown = stranger.post(&action, &pairs).await;
        refused += u32::from(shown.status == 429);
    }
    assert!(refused >= 9, "{refused}");
    // Her own browser lets her in.
    known.code(&asked, ALICE).await;
    // A browser that never was there waits, and not for long.
    let shown = Visitor::new(&service).sign_in(&asked, bob, crate::visitor::PASSWORD).await;
    assert_eq!(shown.status, 429);
    let wait: u32 = shown.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    let shown = Visitor::new(&service).sign_in(&asked, ALICE, crate::visitor::PASSWORD).await;
    assert_eq!(shown.status, 429, "a stranger's browser with her password");
    tokio::time::sleep(std::time::Duration::from_secs(wait.into())).await;
    Visitor::new(&service).code(&asked, bob).await;
}

#[tokio::test]
async fn a_session_lasts_through_a_restart_and_ends_with_the_sign_out() {
    let (mut service, mut visitor, asked) = alice_at_browser();
    let planted = "a".repeat(43);
    visitor.cookies.insert("farcall_session".to_owned(), planted.clone());
    visitor.code(&asked, ALICE).await;
    assert_ne!(visitor.cookies["farcall_session"], planted, "a planted session is worth nothing");
    service.stop();
    service.start_again();
    visitor.allow(&asked).await;
    let old = visitor.cookies["farcall_session"].clone();
    let page = visitor.get("/v2/web/logout").await;
    let (action, proof) = page.form("/v2/web/logout");
    visitor.post(&action, &[("proof", &proof)]).await;
    assert!(!visitor.cookies.contains_key("farcall_session"));
    visitor.cookies.insert("farcall_session".to_owned(), old);
    let body = visitor.get(&asked).await.body;
    assert!(body.contains("Sign in to go on."), "the old cookie opens nothing: {body}");
    assert!(body.contains(ENDED), "{body}");
    assert!(!Visitor::new(&service).get(&asked).await.body.contains(ENDED), "who comes new had none");
}

#[tokio::test]
async fn a_browser_keeps_its_cookie_longer_than_the_session_lives_and_is_told_that_it_has_ended() {
    let (service, mut visitor, asked) = alice_at_browser();
    let sent = visitor.sign_in(&asked, ALICE, PASSWORD).await;
    let cookie =
        sent.headers.get_all("set-cookie").iter().find(|it| it.to_str().unwrap().contains("_session="));
    let (_, age) = cookie.unwrap().to_str().unwrap().split_once("Max-Age=").unwrap();
    let age: i64 = age.split(';').next().unwrap().parse().unwrap();
    assert!(age > identity::sessions::SESSION_LIFE.as_secs(), "{age}");
    assert!(!visitor.get(&asked).await.body.contains(ENDED));
    change(&service, "UPDATE sessions SET expires_us = 0").await;
    let page = visitor.get(&asked).await;
    assert!(page.body.contains(ENDED), "{}", page.body);
    // It is said once: what is wrong with the next attempt is another thing.
    assert!(!visitor.sign_in(&asked, ALICE, "wrong").await.body.contains(ENDED));
}

#[tokio::test]
async fn what_an_application_demands_of_the_session_is_asked_for() {
    let service = Farcall::start();
    let alice = person(&service, ALICE);
    let linked = "alice.liddell@example.edu";
    person(&service, linked);
    service.administer(&["user", "link", linked, ALICE], "");
    let mut visitor = Visitor::new(&service);
    let plain = authorize(&service, &[]);
    visitor.code(&plain, ALICE).await;
    let asks = "Sign in to go on.";
    for (what, demand, asked) in [
        ("her id", ("session_required_identities", alice.as_str()), false),
        ("her other name", ("session_required_identities", linked), true),
        ("her domain", ("session_required_single_domain", "example.com,example.org"), false),
        ("another domain", ("session_required_single_domain", "example.edu"), true),
        ("a second factor", ("session_required_mfa", "True"), true),
        ("no second factor", ("session_required_mfa", "False"), false),
        ("a policy that isn't there", ("session_required_policies", alice.as_str()), true),
        ("now", ("prompt", "login"), true),
    ] {
        let page = visitor.get(&authorize(&service, &[(demand.0, Some(demand.1))])).await;
        assert_eq!(page.body.contains(asks), asked, "{what}");
    }
    // Signing in as the other identity of the same person adds to the session.
    let both = format!("{alice},{linked}");
    let both = authorize(&service, &[("session_required_identities", Some(&both))]);
    let sent = visitor.sign_in(&both, linked, crate::visitor::PASSWORD).await;
    let on = sent.sent_to().to_owned();
    let code = visitor.allow(&on).await;
    let given = exchange(&service, &code, &[]).await.ok();
    let info = user_info(&service, &given["access_token"]).await.ok();
    assert_eq!(info["sub"], alice, "the person acts as the first of the set");
    // A sign-in of now is done once.
    let fresh = authorize(&service, &[("prompt", Some("login"))]);
    let sent = visitor.sign_in(&fresh, ALICE, crate::visitor::PASSWORD).await;
    let on = sent.sent_to().to_owned();
    assert!(!visitor.get(&on).await.body.contains(asks));
    assert!(visitor.get(&fresh).await.body.contains(asks), "and asked for again the next time");
}

#[tokio::test]
async fn a_policy_is_asked_at_the_sign_in() {
    let service = Farcall::start();
    let alice = person(&service, ALICE);
    let mut visitor = Visitor::new(&service);
    let scope = "openid urn:globus:auth:scope:auth.globus.org:manage_projects";
    let code = visitor.code(&authorize(&service, &[("scope", Some(scope))]), ALICE).await;
    let token = exchange(&service, &code, &[]).await.ok()["access_token"].as_str().unwrap().to_owned();
    let post = |path: &str, body: Value| {
        crate::support::send(service.request(reqwest::Method::POST, path).bearer_auth(&token).json(&body))
    };
    let project =
        json!({"display_name": "P", "contact_email": ALICE, "admin_ids": [alice], "admin_group_ids": []});
    let project = post("/v2/api/projects", json!({"project": project})).await.ok()["project"]["id"].clone();
    let mut policies = Vec::new();
    for terms in [
        json!({"domain_constraints_include": ["example.org"]}),
        json!({"domain_constraints_include": ["example.edu"]}),
        json!({"domain_constraints_exclude": ["example.org"]}),
        json!({"high_assurance": true, "authentication_assurance_timeout": 1800}),
        json!({"high_assurance": true, "authentication_assurance_timeout": 1800, "required_mfa": true}),
    ] {
        let mut policy = json!({"project_id": project, "display_name": "p", "description": "d"});
        policy.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
        let made = post("/v2/api/policies", json!({"policy": policy})).await.ok();
        policies.push(made["policy"]["id"].as_str().unwrap().to_owned());
    }
    let words = |at: usize| {
        let asked = authorize(&service, &[("session_required_policies", Some(&policies[at]))]);
        let (visitor, asked) = (&visitor, asked);
        async move {
            let page = crate::support::send(visitor.request(reqwest::Method::GET, &asked)).await;
            page.body.as_str().unwrap().to_owned()
        }
    };
    assert!(words(0).await.contains("It may"));
    assert!(words(1).await.contains("a username that ends in @example.edu"));
    assert!(words(2).await.contains("cannot be done with a username that ends in @example.org"));
    assert!(words(3).await.contains("It may"));
    assert!(words(4).await.contains("a sign-in with a second factor"));
    change(&service, "UPDATE authentications SET at_us = at_us - 1801 * 1000000").await;
    assert!(words(3).await.contains("not older than 30 minutes"));
}

#[tokio::test]
async fn a_code_goes_to_a_program_that_listens_if_it_is_registered() {
    let service = Farcall::start();
    person(&service, ALICE);
    let app = service
        .administer(&["client", "add", "viewer", "--native", "--redirect-uri", "http://127.0.0.1/done"], "");
    let app = app["client_id"].as_str().unwrap();
    let uri = "http://127.0.0.1:61234/done";
    let asked = authorize(&service, &[("client_id", Some(app)), ("redirect_uri", Some(uri))]);
    let mut visitor = Visitor::new(&service);
    let page = visitor.get(&asked).await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("form-action 'self' http://127.0.0.1:61234;"), "{policy}");
    let code = visitor.code(&asked, ALICE).await;
    exchange(&service, &code, &[("client_id", app), ("redirect_uri", uri)]).await.ok();
    let denied = visitor.get(&asked).await;
    let (action, proof) = denied.form("/v2/web/consent");
    let sent = visitor.post(&action, &[("proof", &proof), ("answer", "deny")]).await;
    assert_eq!(sent.parameter("error"), "access_denied");
    assert!(sent.sent_to().starts_with(uri));
}
