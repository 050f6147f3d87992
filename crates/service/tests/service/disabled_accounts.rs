//! Tests that a disabled, reset or removed account loses every connection and credential, also those of its endpoints, gets
//! the reason, and can register its endpoints again once it is enabled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use lapin::{Connection, ConnectionProperties, Event};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{COMPUTE, Client, FakeEndpoint, Farcall, Registration, endpoint_body, open};
use crate::visitor::{PASSWORD, Visitor, authorize, client_of_person, exchange, log_in, person};

const TASK: &str = "/v2/tasks/00000000-0000-4000-8000-000000000000";
const ALICE: &str = "alice@example.edu";
/// Five times what is promised.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Waits for the end of each of these connections.
async fn end(connections: &[&Connection]) {
    let since = Instant::now();
    while connections.iter().any(|it| it.status().connected()) {
        assert!(since.elapsed() < AT_ONCE, "a connection lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the broker says as it ends a connection.
async fn last_words(events: impl Stream<Item = Event>) -> String {
    let said = events.filter_map(async |event| match event {
        Event::Error(error) => Some(error.to_string()),
        _ => None,
    });
    tokio::time::timeout(AT_ONCE, Box::pin(said).next()).await.unwrap().unwrap()
}

/// Why a connection URL opens nothing.
async fn refused(url: &str) -> String {
    let opened = Connection::connect(url, ConnectionProperties::default()).await;
    opened.err().map(|error| error.to_string()).unwrap_or_else(|| panic!("{url} opens a connection"))
}

/// A service, Alice, and a client that is linked with her.
async fn with_linked_client() -> (Farcall, Client, Client) {
    let service = Farcall::start();
    let client = service.client().await;
    person(&service, ALICE);
    let alice = client_of_person(&service, &client, ALICE).await;
    service.administer(&["user", "link", &client.id, ALICE], "");
    let linked = client.with_token(&client.grant(COMPUTE).await.ok()["access_token"]);
    (service, alice, linked)
}

/// Makes `child` a user endpoint of `manager` in the database.
async fn make_user_endpoint(service: &Farcall, manager: &Registration, child: &Registration) {
    let mut database = service.database().await;
    let ids = [manager, child].map(|it| uuid::Uuid::parse_str(it.id()).unwrap().into());
    database.execute("UPDATE endpoints SET manager_id = $1 WHERE id = $2", ids).await;
}

fn by_me() -> String {
    format!("by=operator with uid {}", nix::unistd::getuid())
}

#[tokio::test]
async fn a_disabled_client_loses_its_endpoints_until_it_is_enabled_again() {
    let mut service = Farcall::start();
    let client = service.client().await;
    let registration = client.register().await;
    let (id, function) = (registration.id().to_owned(), client.function().await);
    let (connection, _channel) = open(registration.url()).await;
    let results = client.get("/v2/get_amqp_result_connection_url").await.ok();
    let results = results["connection_url"].as_str().unwrap();
    let (collecting, _channel) = open(results).await;
    let waiting = client.submit(&id, &function, 1).await;

    let events = connection.events_listener();
    service.administer(&["client", "disable", &client.id], "");
    end(&[&connection, &collecting]).await;
    let log = service.read_log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(&by_me())).collect();
    for said in ["client disable", &format!("holder=\"{id}\" connections=1")] {
        assert!(lines.iter().any(|line| line.contains(said)), "{said}: {log}");
    }
    let told = format!(
        "The account {}@clients.auth.globus.org is disabled: ask who administers this service",
        client.id
    );
    let why = last_words(events).await;
    assert!(why.contains("CONNECTION_FORCED") && why.contains(&told), "{why}");
    for (url, restarted) in [(registration.url(), false), (results, false), (registration.url(), true)] {
        if restarted {
            service.stop();
            service.start_again();
        }
        let why = refused(url).await;
        assert!(why.contains(&told), "{why}");
    }
    let answer = client.put(&format!("/v3/endpoints/{id}"), endpoint_body()).await;
    assert_eq!(answer.refused(401, "INVALID_AUTH_TOKEN")["message"], told);
    let answer = client.grant(COMPUTE).await;
    assert_eq!(
        (&answer.body["error"], &answer.body["error_description"]),
        (&json!("invalid_client"), &json!(told))
    );
    // A stranger learns nothing.
    let mut stranger = client.clone();
    stranger.secret = "wrong".into();
    let answer = stranger.grant(COMPUTE).await;
    assert_eq!(answer.body["error_description"], "unknown client or wrong secret");
    assert!(!refused(&registration.url().replace("://ep.", "://ep.x")).await.contains("disabled"));

    service.administer(&["client", "enable", &client.id], "");
    assert!(refused(registration.url()).await.contains("This login was ended by who administers"));
    let answer = client.get(TASK).await.refused(401, "INVALID_AUTH_TOKEN");
    assert_eq!(answer["message"], "This login was ended by who administers the service: log in again");
    let client = client.with_token(&client.grant(COMPUTE).await.ok()["access_token"]);
    let mut endpoint = FakeEndpoint::connect(&client.register_again(&id).await).await;
    assert_eq!(endpoint.take().await, waiting.tasks[0]);
}

#[tokio::test]
async fn what_a_person_runs_ends_when_they_are_disabled_reset_or_removed() {
    let service = Farcall::start();
    let (any, other) = (service.client().await, service.client().await);
    let bystander = FakeEndpoint::connect(&other.register().await).await;
    for command in ["disable", "reset", "remove"] {
        let id = person(&service, ALICE);
        let alice = client_of_person(&service, &any, ALICE).await;
        let plain = alice.register().await;
        // Her manager, and a user endpoint of somebody else's that runs on her machine.
        let template = json!({"endpoint_name": "m", "metadata": {"user_config_template": "engine: {}"}});
        let manager = Registration(alice.post("/v3/endpoints", template).await.ok());
        let child = other.register().await;
        make_user_endpoint(&service, &manager, &child).await;
        let (first, _channel) = open(plain.url()).await;
        let (second, _channel) = open(manager.url()).await;
        let (third, _channel) = open(child.url()).await;
        service.administer(&["user", command, ALICE], "another password");
        end(&[&first, &second, &third]).await;
        for registration in [&plain, &manager, &child] {
            refused(registration.url()).await;
        }
        alice.get(TASK).await.refused(401, "INVALID_AUTH_TOKEN");
        if command == "disable" {
            service.administer(&["user", "enable", ALICE], "");
            let alice = client_of_person(&service, &any, ALICE).await;
            open(alice.register_again(plain.id()).await.url()).await;
        }
        if command != "remove" {
            service.administer(&["user", "remove", ALICE], "");
        }
        let told = alice.get(TASK).await.refused(401, "INVALID_AUTH_TOKEN");
        assert_eq!(told["message"], "The account was removed: ask who administers this service");
        assert!(service.read_log().contains(&id));
    }
    assert!(bystander.is_connected().await, "others' endpoints live on");
}

#[tokio::test]
async fn with_a_linked_client_end_the_endpoints_that_it_registered_and_no_others() {
    let (service, alice, client) = with_linked_client().await;
    let hers = FakeEndpoint::connect(&alice.register().await).await;
    let its = client.register().await;
    let (connection, _channel) = open(its.url()).await;
    service.administer(&["client", "disable", &client.id], "");
    end(&[&connection]).await;
    assert!(refused(its.url()).await.contains("is disabled"));
    assert!(hers.is_connected().await);
    alice.register_again(its.id()).await;
}

#[tokio::test]
async fn a_locked_manager_is_cut_off_with_its_user_endpoints() {
    let service = Farcall::start();
    let client = service.client().await;
    let (manager, child) = (client.register().await, client.register().await);
    make_user_endpoint(&service, &manager, &child).await;
    let (first, _channel) = open(manager.url()).await;
    let (second, _channel) = open(child.url()).await;
    let events = second.events_listener();
    client.post(&format!("/v3/endpoints/{}/lock", manager.id()), Value::Null).await.ok();
    end(&[&first, &second]).await;
    let why = last_words(events).await;
    assert!(
        why.contains(&format!("Endpoint {} was stopped from afar and is locked until", manager.id())),
        "{why}"
    );
    refused(manager.url()).await;
    refused(child.url()).await;
    client.delete(&format!("/v2/endpoints/{}", manager.id())).await.ok();
    let log = service.read_log();
    for act in ["endpoint lock", "endpoint delete"] {
        let line = log.lines().find(|line| line.contains(act)).unwrap_or_else(|| panic!("{act}: {log}"));
        assert!(line.contains(manager.id()) && line.contains(&format!("by={}", client.id)), "{line}");
    }
}

/// A function that is shared with a group, by its owner; the path under which members see it.
async fn shared(owner: &Client, group: &str) -> String {
    let body = json!({"function_name": "f", "function_code": crate::support::CODE, "serialized": true,
        "group": group});
    let function = owner.post("/v3/functions", body).await.ok()["function_uuid"].as_str().unwrap().to_owned();
    format!("/v2/functions/{function}")
}

#[tokio::test]
async fn who_is_taken_out_of_a_group_loses_all_that_they_hold_and_logs_in_again_without_it() {
    let service = Farcall::start();
    let (owner, member, other) = (service.client().await, service.client().await, service.client().await);
    let group = service.administer(&["group", "add", "climate"], "")["id"].as_str().unwrap().to_owned();
    for username in [&owner.id, &member.id] {
        service.administer(&["group", "members", &group, "--add", username], "");
    }
    let path = shared(&owner, &group).await;
    member.get(&path).await.ok();
    let registration = member.register().await;
    let (connection, _channel) = open(registration.url()).await;
    let results = member.get("/v2/get_amqp_result_connection_url").await.ok();
    let (collecting, _channel) = open(results["connection_url"].as_str().unwrap()).await;
    let (owners, others) = (owner.register().await, other.register().await);
    let (staying, _channel) = open(owners.url()).await;
    let bystander = FakeEndpoint::connect(&others).await;

    // Whoever is no member loses nothing.
    service.administer(&["group", "members", &group, "--remove", &other.id], "");
    let events = connection.events_listener();
    service.administer(&["group", "members", &group, "--remove", &member.id], "");
    end(&[&connection, &collecting]).await;
    let told = "This login was ended by who administers the service: log in again";
    let why = last_words(events).await;
    assert!(why.contains("CONNECTION_FORCED") && why.contains(told), "{why}");
    assert!(refused(registration.url()).await.contains(told));
    assert_eq!(member.get(&path).await.refused(401, "INVALID_AUTH_TOKEN")["message"], told);
    let log = service.read_log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(&by_me())).collect();
    for said in [
        format!("group members remove\" subject=\"{group} {}", member.id),
        format!("holder=\"{}\" connections=1", registration.id()),
        format!("holder=\"client.{}\" connections=1", member.id),
    ] {
        assert!(lines.iter().any(|line| line.contains(&said)), "{said}: {log}");
    }
    let member = member.with_token(&member.grant(COMPUTE).await.ok()["access_token"]);
    member.get(&path).await.refused(404, "FUNCTION_NOT_FOUND");
    open(member.register_again(registration.id()).await.url()).await;
    assert!(staying.status().connected() && bystander.is_connected().await);

    // With the whole group.
    service.administer(&["group", "remove", &group], "");
    end(&[&staying]).await;
    owner.get(&path).await.refused(401, "INVALID_AUTH_TOKEN");
    assert!(bystander.is_connected().await);
}

#[tokio::test]
async fn a_group_gave_to_all_of_a_set_what_it_gave_to_one() {
    let (service, alice, client) = with_linked_client().await;
    let group = service.administer(&["group", "add", "climate"], "")["id"].as_str().unwrap().to_owned();
    service.administer(&["group", "members", &group, "--add", &client.id], "");
    let path = shared(&client, &group).await;
    for by in [&alice, &client] {
        by.get(&path).await.ok();
    }
    let (connection, _channel) = open(alice.register().await.url()).await;
    service.administer(&["group", "members", &group, "--remove", &client.id], "");
    end(&[&connection]).await;
    for by in [&alice, &client] {
        by.get(&path).await.refused(401, "INVALID_AUTH_TOKEN");
    }
}

/// A request that had shown its token before, and whose body is complete only when everything has ended.
#[tokio::test]
async fn a_request_that_was_under_way_gets_nothing_that_outlives_the_end_of_its_login() {
    let service = Farcall::start();
    let any = service.client().await;
    person(&service, ALICE);
    let alice = client_of_person(&service, &any, ALICE).await;
    let body = endpoint_body().to_string();
    let (first, rest) = body.split_at(10);
    let head = format!(
        "POST /v3/endpoints HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{first}",
        alice.token,
        body.len()
    );
    let address = service.http.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // Its token has been looked at once another request of hers, which came later, is answered.
    alice.get(TASK).await;
    service.administer(&["user", "reset", ALICE], "another password");
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("log in again") && !answer.contains("connection_url"), "{answer}");
}

#[tokio::test]
async fn who_is_disabled_while_the_service_does_not_run_finds_nothing_open() {
    let mut service = Farcall::start();
    let client = service.client().await;
    let registration = client.register().await;
    open(registration.url()).await;
    service.stop();
    service.administer(&["client", "disable", &client.id], "");
    service.start_again();
    assert!(refused(registration.url()).await.contains("is disabled"));
    client.get(TASK).await.refused(401, "INVALID_AUTH_TOKEN");
}

#[tokio::test]
async fn what_has_expired_says_so() {
    let mut service = Farcall::start();
    let client = service.client().await;
    person(&service, ALICE);
    let given = log_in(&service, ALICE, &[]).await.ok();
    let late = Visitor::new(&service).code(&authorize(&service, &[]), ALICE).await;
    let url = client.get("/v2/get_amqp_result_connection_url").await.ok();
    service.stop();
    let mut database = service.database().await;
    for table in ["tokens", "refresh_tokens", "credentials", "codes"] {
        database.execute(format!("UPDATE {table} SET expires_us = 1767225600000000"), []).await;
    }
    service.start_again();
    let told = "The login expired at 2026-01-01T00:00:00Z: log in again";
    assert_eq!(client.get(TASK).await.refused(401, "INVALID_AUTH_TOKEN")["message"], told);
    let answer = crate::visitor::refresh(&service, given["refresh_token"].as_str().unwrap()).await;
    assert_eq!(
        (&answer.body["error"], &answer.body["error_description"]),
        (&json!("invalid_grant"), &json!(told))
    );
    let answer = exchange(&service, &late, &[]).await;
    let said = answer.body["error_description"].as_str().unwrap();
    assert!(said.starts_with("the code expired at 2026-01-01"), "{said}");
    let why = refused(url["connection_url"].as_str().unwrap()).await;
    assert!(why.contains("expired at 2026-01-01") && why.contains("get a new one"), "{why}");
}

/// Waits until `tasks` have ended; what they answered.
async fn all<T: 'static>(tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

/// Many sign-ins have read the old password, and wait for their turn to be checked, when the new one is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sign_in_with_the_old_password_outlives_a_reset() {
    let service = Farcall::start();
    person(&service, ALICE);
    let asked = authorize(&service, &[]);
    let mut sign_ins = Vec::new();
    for _ in 0..3 {
        let mut browser = Visitor::new(&service);
        browser.sign_in(&asked, ALICE, PASSWORD).await.sent_to();
        // It is known to have been hers, and has no session.
        browser.cookies.remove("farcall_session");
        let page = browser.get(&asked).await;
        let (action, proof) = page.form("/v2/web/sign-in");
        for _ in 0..9 {
            let mut browser = browser.clone();
            let (action, proof) = (action.clone(), proof.clone());
            sign_ins.push(tokio::spawn(async move {
                let pairs = [("proof", proof.as_str()), ("username", ALICE), ("password", PASSWORD)];
                let mut sessions = Vec::new();
                while browser.post(&action, &pairs).await.status == 303 {
                    sessions.push(browser.clone());
                    browser.cookies.remove("farcall_session");
                }
                sessions
            }));
        }
    }
    service.administer(&["user", "reset", ALICE], "another password");
    let (mut living, sessions) = (0, all(sign_ins).await.concat());
    for mut browser in sessions.iter().cloned() {
        living += u32::from(browser.get(&asked).await.body.contains("/v2/web/consent"));
    }
    assert_eq!(living, 0, "of {} sessions that began with the old password", sessions.len());
    let shown = Visitor::new(&service).sign_in(&asked, ALICE, "another password").await;
    shown.sent_to();
}

/// Asks for tokens over and over, until it is refused or `stop` is set; all that it got.
fn flood(client: &Client, stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<Vec<Value>>> {
    let asks = |_| {
        let (client, stop) = (client.clone(), stop.clone());
        tokio::spawn(async move {
            let mut tokens = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                tokens.push(client.grant("openid").await.body["access_token"].clone());
            }
            tokens.retain(|token| !token.is_null());
            tokens
        })
    };
    (0..12).map(asks).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_for_an_old_secret_or_an_undone_link_outlives_its_end() {
    let service = Farcall::start();
    let alice = person(&service, ALICE);
    for command in ["unlink", "unlink", "unlink", "reset", "disable", "reset", "disable"] {
        let client = service.client().await;
        if command == "unlink" {
            service.administer(&["user", "link", &client.id, ALICE], "");
        }
        let stop = Arc::default();
        let asking = flood(&client, &stop);
        tokio::time::sleep(Duration::from_millis(100)).await;
        match command {
            "unlink" => service.administer(&["user", "unlink", &client.id], ""),
            _ => service.administer(&["client", command, &client.id], ""),
        };
        stop.store(true, Ordering::Relaxed);
        let tokens = all(asking).await.concat();
        assert!(!tokens.is_empty());
        if command == "disable" {
            service.administer(&["client", "enable", &client.id], "");
        }
        let mut living = 0;
        for token in &tokens {
            let answer = client.with_token(token).get("/v2/oauth2/userinfo").await;
            living += u32::from(answer.status == 200 && (command != "unlink" || answer.body["sub"] == alice));
        }
        assert_eq!(living, 0, "{command}: of {} tokens", tokens.len());
    }
}
