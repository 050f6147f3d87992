//! Tests of administering people, clients and groups, and of what ends when an account is disabled.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{COMPUTE, Farcall, connection_ends, send};
use crate::visitor::{client_of_person, log_in, person};

const PASSWORD: &str = "correct horse battery";
const TASK: &str = "/v2/tasks/00000000-0000-4000-8000-000000000000";

/// Why a command was refused.
#[track_caller]
fn refused(service: &Farcall, arguments: &[&str], input: &str) -> String {
    let done = service.try_administer(arguments, input);
    assert_eq!(done.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&done.stdout));
    assert!(done.stdout.is_empty());
    String::from_utf8(done.stderr).unwrap()
}

fn human(service: &Farcall, arguments: &[&str]) -> String {
    String::from_utf8(service.command(arguments).stdout).unwrap()
}

#[tokio::test]
async fn people_are_administered_while_it_runs_and_when_it_does_not() {
    let mut service = Farcall::start();
    let alice = service.administer(
        &[
            "user",
            "add",
            " Alice@Example.EDU ",
            "--name",
            "Alice Ö",
            "--email",
            "a@example.edu",
            "--administrator",
        ],
        PASSWORD,
    );
    assert_eq!(alice["username"], "alice@example.edu");
    assert_eq!(alice["name"], "Alice Ö");
    assert_eq!((&alice["administrator"], &alice["password"]), (&json!(true), &json!(true)));
    assert_eq!(alice["status"], "enabled");
    service.stop();

    let lab = service.administer(&["user", "add", "alice@lab.example.org", "--no-password"], "");
    assert_eq!((&lab["name"], &lab["password"]), (&lab["username"], &json!(false)));
    let linked = service.administer(&["user", "link", "alice@lab.example.org", "alice@example.edu"], "");
    assert_eq!(linked["linked_to"], "alice@example.edu");
    assert_eq!(linked["identity_set"], json!(["alice@example.edu", "alice@lab.example.org"]));
    service.start_again();

    let edited = service.administer(
        &["user", "edit", alice["id"].as_str().unwrap(), "--organization", "Lab", "--administrator", "false"],
        "",
    );
    assert_eq!((&edited["organization"], &edited["administrator"]), (&json!("Lab"), &json!(false)));
    assert_eq!((&edited["name"], &edited["email"]), (&alice["name"], &alice["email"]), "the rest stays");
    let disabled = service.administer(&["user", "disable", "alice@example.edu"], "");
    assert_eq!(disabled["status"], "disabled");
    assert_eq!(service.administer(&["user", "enable", "alice@example.edu"], "")["status"], "enabled");
    service.administer(&["user", "reset", "alice@lab.example.org"], "another password\r\n");
    let list = service.administer(&["user", "list"], "");
    let usernames: Vec<_> = list.as_array().unwrap().iter().map(|it| &it["username"]).collect();
    assert_eq!(usernames, ["alice@example.edu", "alice@lab.example.org"]);
    assert_eq!(list[1]["password"], true);

    for (arguments, input, why) in [
        (
            ["user", "add", "ALICE@example.edu"].as_slice(),
            PASSWORD,
            "the user alice@example.edu exists already",
        ),
        (&["user", "add", "alice"], PASSWORD, "has the form name@domain"),
        (&["user", "add", "bob@example.edu"], "short\n", "a password has 8 to 1024 bytes"),
        (&["user", "add", "bob@example.edu"], "BOB@example.edu\n", "must not be the username"),
        (&["user", "add", "bob@example.edu"], "", "no password on standard input"),
        (&["user", "add", "bob@example.edu", "--name", "a\nb"], PASSWORD, "is not one line"),
        (&["user", "show", "bob@example.edu"], "", "there is no user bob@example.edu"),
        (&["user", "disable", "00000000-0000-4000-8000-000000000000"], "", "there is no user"),
        (&["user", "link", "alice@lab.example.org", "alice@example.edu"], "", "are linked already"),
        (&["user", "unlink", "alice@example.edu"], "", "is not linked to another"),
        (&["user", "remove", "alice@example.edu"], "", "others are linked to"),
    ] {
        let said = refused(&service, arguments, input);
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
    assert_eq!(service.administer(&["user", "list"], ""), list, "refused commands change nothing");

    let alone = service.administer(&["user", "unlink", "alice@lab.example.org"], "");
    assert_eq!(
        (&alone["linked_to"], &alone["identity_set"]),
        (&Value::Null, &json!(["alice@lab.example.org"]))
    );
    let removed = service.administer(&["user", "remove", "alice@lab.example.org"], "");
    assert_eq!(removed["name"], "alice@lab.example.org");
    let table = human(&service, &["user", "list"]);
    assert!(table.contains("alice@example.edu") && !table.contains("lab.example.org"), "{table}");
    let sheet = human(&service, &["user", "show", "alice@example.edu"]);
    assert!(sheet.contains("Organization    Lab\n"), "{sheet}");

    let log = service.read_log();
    assert!(!log.contains(PASSWORD) && !log.contains("another password"), "no password is logged");
    assert!(log.contains("what=\"user disable\""), "but what was done is");
}

#[test]
fn a_password_is_asked_for_without_showing_it() {
    let service = Farcall::start();
    let run = |typed: &str| {
        let pty = nix::pty::openpty(None, None).unwrap();
        let slave = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let mut command = service.program();
        command.args(["user", "add", "bob@example.edu", "--data-dir"]).arg(service.data());
        command.stdin(slave(&pty.slave)).stderr(slave(&pty.slave)).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        drop((command, pty.slave));
        let mut master = std::fs::File::from(pty.master);
        let mut shown = String::new();
        // What is typed before a prompt is thrown away, as people expect: type when asked.
        for (prompt, line) in ["New password of bob@example.edu: ", "Again: "].into_iter().zip(typed.lines())
        {
            let mut byte = [0];
            while !shown.ends_with(prompt) && master.read(&mut byte).is_ok_and(|read| read == 1) {
                shown.push(char::from(byte[0]));
            }
            master.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        // The terminal is gone when the process is: reading fails then.
        let mut rest = Vec::new();
        let _ = master.read_to_end(&mut rest);
        shown.push_str(&String::from_utf8_lossy(&rest));
        (process.wait().unwrap().success(), shown)
    };
    let (done, shown) = run("first password\nsecond password\n");
    assert!(!done && shown.contains("the two are not the same"), "{shown}");
    let (done, shown) = run(&format!("{PASSWORD}\n{PASSWORD}\n"));
    assert!(done, "{shown}");
    assert!(shown.contains("Again: ") && !shown.contains("correct"), "{shown}");
}

#[tokio::test]
async fn a_fresh_service_says_what_to_do_next() {
    let mut service = Farcall::start();
    let data = service.data().display().to_string();
    let log = service.read_log();
    for command in
        ["farcall user add NAME@DOMAIN --administrator --data-dir", "farcall client add NAME --data-dir"]
    {
        assert!(log.contains(&format!("{command} {data}")), "{log}");
    }
    service.administer(&["client", "add", "x"], "");
    service.stop();
    service.start_again();
    assert_eq!(service.read_log().matches("nobody can log in yet").count(), 1, "only as long as it is fresh");
}

#[tokio::test]
async fn who_is_disabled_reset_or_removed_loses_everything_at_once() {
    let service = Farcall::start();
    let client = service.client().await;
    let other = service.client().await;
    let openid = client.with_token(&client.grant("openid").await.ok()["access_token"]);
    let url = client.get("/v2/get_amqp_result_connection_url").await.ok();
    let (connection, _channel) = crate::support::open(url["connection_url"].as_str().unwrap()).await;
    // Both tokens are remembered now.
    client.get(TASK).await.refused(404, "TASK_NOT_FOUND");
    openid.get("/v2/oauth2/userinfo").await.ok();

    assert_eq!(service.administer(&["client", "disable", &client.id], "")["status"], "disabled");
    client.get(TASK).await.refused(401, "INVALID_AUTH_TOKEN");
    assert_eq!(openid.get("/v2/oauth2/userinfo").await.status, 401);
    let refused = client.grant(COMPUTE).await;
    assert_eq!((refused.status.as_u16(), &refused.body["error"]), (401, &json!("invalid_client")));
    connection_ends(&connection).await;
    let again = lapin::Connection::connect(
        url["connection_url"].as_str().unwrap(),
        lapin::ConnectionProperties::default(),
    );
    assert!(again.await.is_err(), "its credentials are gone as well");
    other.get(TASK).await.refused(404, "TASK_NOT_FOUND");

    assert_eq!(service.administer(&["client", "enable", &client.id], "")["status"], "enabled");
    client.get(TASK).await.refused(401, "INVALID_AUTH_TOKEN");
    let token = client.grant(COMPUTE).await.ok()["access_token"].clone();
    let client = client.with_token(&token);
    client.get(TASK).await.refused(404, "TASK_NOT_FOUND");

    let reset = service.administer(&["client", "reset", &client.id], "");
    assert_eq!(reset["client_id"], client.id.as_str());
    assert_ne!(reset["client_secret"], client.secret.as_str());
    client.get(TASK).await.refused(401, "INVALID_AUTH_TOKEN");
    assert_eq!(client.grant(COMPUTE).await.status, 401, "the old secret");
    let form = [("grant_type", "client_credentials"), ("scope", COMPUTE)];
    let request = service.request(Method::POST, "/v2/oauth2/token").form(&form);
    let token = send(request.basic_auth(&client.id, reset["client_secret"].as_str())).await.ok();
    let client = client.with_token(&token["access_token"]);
    client.get(TASK).await.refused(404, "TASK_NOT_FOUND");

    assert_eq!(service.administer(&["client", "remove", &client.id], "")["id"], client.id.as_str());
    client.get(TASK).await.refused(401, "INVALID_AUTH_TOKEN");
    let gone = refused_client(&service, &client.id);
    assert!(gone.contains("there is no client"), "{gone}");
}

#[tokio::test]
async fn a_linked_client_acts_for_the_person() {
    let service = Farcall::start();
    let client = service.client().await;
    let alice = person(&service, "alice@example.edu");
    let before = client.get(TASK).await;
    before.refused(404, "TASK_NOT_FOUND");
    let linked = service.administer(&["user", "link", &client.id, "alice@example.edu"], "");
    assert_eq!(linked["linked_to"], "alice@example.edu");
    client.get(TASK).await.refused(401, "INVALID_AUTH_TOKEN");

    let token = client.grant(COMPUTE).await.ok()["access_token"].clone();
    let openid = client.with_token(&client.grant("openid").await.ok()["access_token"]);
    let client = client.with_token(&token);
    assert_eq!(openid.get("/v2/oauth2/userinfo").await.ok()["sub"], alice.as_str());
    let endpoint = client.register().await;
    let herself = client_of_person(&service, &client, "alice@example.edu").await;
    let owned = herself.get("/v2/endpoints").await.ok();
    assert_eq!(owned[0]["uuid"], endpoint.id(), "what it makes is hers: {owned}");

    // The client is disabled: what it opened for her is closed, and she stays.
    let url = client.get("/v2/get_amqp_result_connection_url").await.ok();
    let (connection, _channel) = crate::support::open(url["connection_url"].as_str().unwrap()).await;
    service.administer(&["client", "disable", &client.id], "");
    client.get(TASK).await.refused(401, "INVALID_AUTH_TOKEN");
    connection_ends(&connection).await;
    herself.get(TASK).await.refused(404, "TASK_NOT_FOUND");
    service.administer(&["client", "enable", &client.id], "");

    // She is disabled: so is the client.
    let token = client.grant(COMPUTE).await.ok()["access_token"].clone();
    let client = client.with_token(&token);
    service.administer(&["user", "disable", "alice@example.edu"], "");
    client.get(TASK).await.refused(401, "INVALID_AUTH_TOKEN");
    assert_eq!(client.grant(COMPUTE).await.body["error"], "invalid_client");

    // By itself again.
    service.administer(&["user", "unlink", &client.id], "");
    let openid = client.with_token(&client.grant("openid").await.ok()["access_token"]);
    assert_eq!(openid.get("/v2/oauth2/userinfo").await.ok()["sub"], client.id.as_str());
    let said = refused(&service, &["user", "link", "alice@example.edu", &client.id], "");
    assert!(said.contains("is a client"), "{said}");
}

#[track_caller]
fn refused_client(service: &Farcall, id: &str) -> String {
    refused(service, &["client", "show", id], "")
}

#[tokio::test]
async fn clients_of_every_kind() {
    let service = Farcall::start();
    let native = wire::rest::auth::NATIVE_CLIENT;
    let built_in = service.administer(&["client", "show", native], "");
    assert_eq!((&built_in["kind"], &built_in["status"]), (&json!("native"), &json!("enabled")));
    let app = service.administer(
        &["client", "add", "notebook", "--native", "--redirect-uri", "http://localhost:9999/back"],
        "",
    );
    assert_eq!(
        (&app["kind"], &app["redirect_uris"]),
        (&json!("native"), &json!(["http://localhost:9999/back"]))
    );
    assert!(app.get("client_secret").is_none());
    let id = app["client_id"].as_str().unwrap();
    assert_eq!(service.administer(&["client", "disable", id], "")["status"], "disabled");
    let table = human(&service, &["client", "list"]);
    assert!(table.contains("notebook") && table.contains("disabled") && table.contains(native), "{table}");
    service.administer(&["client", "remove", id], "");
    for (arguments, why) in [
        (["client", "remove", native].as_slice(), "is built into the SDK"),
        (&["client", "reset", native], "keeps no secret"),
        (&["client", "show", id], "there is no client"),
        (&["client", "show", "notebook"], "there is no client"),
        (&["client", "add", "x", "--resource-server", "auth.globus.org"], "is not a resource server"),
        (
            &["client", "add", "x", "--native", "--redirect-uri", "http://example.org/"],
            "can't be a redirect URI",
        ),
        (&["client", "add", " "], "is not one line"),
    ] {
        let said = refused(&service, arguments, "");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn groups_have_members() {
    let service = Farcall::start();
    let client = service.client().await;
    service.administer(&["user", "add", "alice@example.edu"], PASSWORD);
    let group = service.administer(&["group", "add", "climate", "--description", "who models it"], "");
    assert_eq!((&group["name"], &group["members"]), (&json!("climate"), &json!([])));
    let members = service.administer(
        &[
            "group",
            "members",
            "climate",
            "--add",
            "alice@example.edu",
            "--add",
            &client.id,
            "--add",
            &client.id,
        ],
        "",
    );
    let username = format!("{}@clients.auth.globus.org", client.id);
    let mut expected = vec![username.clone(), "alice@example.edu".to_owned()];
    expected.sort();
    assert_eq!(members["members"], json!(expected));
    let alice = service.administer(&["user", "show", "alice@example.edu"], "");
    assert_eq!(alice["groups"], json!(["climate"]));
    let id = group["id"].as_str().unwrap();
    let members = service.administer(&["group", "members", id, "--remove", "alice@example.edu"], "");
    assert_eq!(members["members"], json!([username]));
    let list = service.administer(&["group", "list"], "");
    assert_eq!(list.as_array().unwrap().len(), 1);
    for (arguments, why) in [
        (["group", "add", "climate"].as_slice(), "the group climate exists already"),
        (&["group", "add", id], "looks like an id"),
        (&["group", "members", "weather"], "there is no group weather"),
        (
            &["group", "members", "climate", "--add", &client.id, "--add", "bob@example.edu"],
            "there is no user bob",
        ),
    ] {
        let said = refused(&service, arguments, "");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }

    // A resource server sees them with a token that it was given for one of compute.
    let server = service.resource_server("funcx_service").await;
    let form = [
        ("grant_type", "urn:globus:auth:grant_type:dependent_token"),
        ("token", client.token.as_str()),
        ("scope", "urn:globus:auth:scope:groups.api.globus.org:view_my_groups_and_memberships"),
    ];
    let request = service.request(Method::POST, "/v2/oauth2/token").form(&form);
    let dependent = send(request.basic_auth(&server.id, Some(&server.secret))).await.ok();
    let seen = client.with_token(&dependent[0]["access_token"]).get("/v2/groups/my_groups").await.ok();
    assert_eq!((&seen[0]["id"], &seen[0]["name"]), (&group["id"], &json!("climate")));
    assert_eq!(seen[0]["my_memberships"][0]["identity_id"], client.id.as_str());
    assert_eq!(client.get("/v2/groups/my_groups").await.status, 403);
    assert_eq!(service.get("/v2/groups/my_groups").await.status, 401);

    service.administer(&["group", "remove", "climate"], "");
    assert_eq!(service.administer(&["group", "list"], ""), json!([]));
}

#[tokio::test]
async fn administrators_of_the_service_stop_any_endpoint_and_see_every_project() {
    let service = Farcall::start();
    let client = service.client().await;
    let endpoint = client.register().await.id().to_owned();
    let manage = "urn:globus:auth:scope:auth.globus.org:manage_projects";
    let projects = client.with_token(&client.grant(manage).await.ok()["access_token"]);
    let project = json!({"project": {"display_name": "P", "contact_email": "p@example.edu"}});
    projects.post("/v2/api/projects", project).await.ok();
    let mut tokens = Vec::new();
    for username in ["alice@example.edu", "bob@example.edu"] {
        person(&service, username);
        let scope = format!("openid {manage} {COMPUTE}");
        let answer = log_in(&service, username, &[("scope", Some(&scope))]).await.ok();
        tokens.push((answer["access_token"].clone(), answer["other_tokens"][0]["access_token"].clone()));
    }
    service.administer(&["user", "edit", "alice@example.edu", "--administrator", "true"], "");
    let seen =
        async |token: &Value| client.with_token(token).get("/v2/api/projects").await.ok()["projects"].clone();
    let [(alice_auth, alice), (bob_auth, bob)] = &tokens[..] else { panic!() };
    assert_eq!(seen(alice_auth).await[0]["display_name"], "P");
    assert_eq!(seen(bob_auth).await, json!([]));
    let lock = format!("/v3/endpoints/{endpoint}/lock");
    let post = async |token: &Value| send(client.with_token(token).request(Method::POST, &lock)).await;
    post(bob).await.refused(404, "ENDPOINT_NOT_FOUND");
    post(alice).await.ok();
    let endpoint = format!("/v2/endpoints/{endpoint}");
    client.with_token(bob).delete(&endpoint).await.refused(404, "ENDPOINT_NOT_FOUND");
    client.with_token(alice).delete(&endpoint).await.ok();

    // What a person holds ends with a new password, and with being disabled.
    service.administer(&["user", "reset", "bob@example.edu"], PASSWORD);
    assert_eq!(client.with_token(bob_auth).get("/v2/oauth2/userinfo").await.status, 401);
    service.administer(&["user", "disable", "alice@example.edu"], "");
    client.with_token(alice).get(TASK).await.refused(401, "INVALID_AUTH_TOKEN");
}
