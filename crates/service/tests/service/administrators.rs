//! Tests that administrators of the service see and manage every endpoint, over REST and by `farcall endpoint`.

use serde_json::{Value, json};

use crate::support::{Client, FakeEndpoint, Farcall, send, service_with_endpoint};
use crate::visitor::{client_of_person, person};

const ADMIN: &str = "admin@example.edu";
const BOB: &str = "bob@example.edu";

async fn listed(client: &Client, query: &str) -> Vec<String> {
    let listed = client.get(&format!("/v2/endpoints{query}")).await.ok();
    let ids = listed.as_array().unwrap().iter().map(|it| it["uuid"].as_str().unwrap().to_owned());
    ids.collect()
}

#[tokio::test]
async fn over_rest() {
    let service = Farcall::start();
    let owner = service.client().await;
    for username in [ADMIN, BOB] {
        person(&service, username);
    }
    service.administer(&["user", "edit", ADMIN, "--administrator", "true"], "");
    let (admin, bob) =
        (client_of_person(&service, &owner, ADMIN).await, client_of_person(&service, &owner, BOB).await);
    let registration = owner.register().await;
    let id = registration.id();
    let endpoint = FakeEndpoint::connect(&registration).await;
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": true, "total_workers": 2})).await;

    assert_eq!(listed(&admin, "?role=any").await, [id]);
    assert!(listed(&admin, "").await.is_empty() && listed(&bob, "?role=any").await.is_empty());
    let (path, status) = (format!("/v2/endpoints/{id}"), format!("/v2/endpoints/{id}/status"));
    let (lock, tasks) = (format!("/v3/endpoints/{id}/lock"), format!("/v3/endpoints/{id}/tasks"));
    let allowed = format!("/v3/endpoints/{id}/allowed_functions");
    assert_eq!(admin.get(&path).await.ok()["endpoint_config"], "engine: {}");
    assert_eq!(admin.get(&status).await.ok()["details"]["total_workers"], 2);
    assert_eq!(admin.get(&allowed).await.ok()["restricted"], false);
    let unlock = async |client: &Client| send(client.request(reqwest::Method::DELETE, &lock)).await;
    for answer in [
        bob.get(&path).await,
        bob.get(&status).await,
        bob.get(&allowed).await,
        bob.post(&lock, json!({})).await,
        unlock(&bob).await,
        bob.delete(&tasks).await,
        bob.delete(&path).await,
    ] {
        answer.refused(404, "ENDPOINT_NOT_FOUND");
    }
    // It runs as its owner: administering it is not using it.
    let function = owner.function().await;
    let submit = format!("/v3/endpoints/{id}/submit");
    admin.post(&submit, json!({"tasks": {&function: ["x"]}})).await.refused(404, "ENDPOINT_NOT_FOUND");
    admin
        .put(&format!("/v3/endpoints/{id}"), json!({"display_name": "x"}))
        .await
        .refused(404, "ENDPOINT_NOT_FOUND");

    admin.post(&lock, json!({})).await.ok();
    assert!(!endpoint.is_connected_after_a_while().await);
    owner
        .put(&format!("/v3/endpoints/{id}"), crate::support::endpoint_body())
        .await
        .refused(423, "RESOURCE_LOCKED");
    unlock(&owner).await.refused(403, "ENDPOINT_ACCESS_FORBIDDEN");
    assert_eq!(unlock(&admin).await.ok(), json!({"endpoint_id": id}));
    owner.register_again(id).await;

    let submitted = owner.submit(id, &function, 3).await;
    assert_eq!(admin.delete(&tasks).await.ok(), json!({"endpoint_id": id, "dropped": 3}));
    for task in &submitted.tasks {
        let told = owner.task(task).await;
        let exception = told["exception"].as_str().unwrap();
        let text =
            format!("The task was dropped by {ADMIN} while it waited for endpoint {id}: it has not run.");
        assert!(told["status"] == "failed" && exception.contains(&text), "{told}");
    }
    assert_eq!(owner.results(&submitted.group).await.take(3).await.len(), 3);
    assert_eq!(admin.delete(&tasks).await.ok()["dropped"], 0);
    admin.delete(&path).await.ok();
    owner.get(&path).await.refused(404, "ENDPOINT_NOT_FOUND");
    let log = service.read_log();
    for act in ["endpoint lock", "endpoint unlock", "endpoint drop", "endpoint delete"] {
        assert!(
            log.lines().any(|line| line.contains(act) && line.contains(id) && line.contains("by=")),
            "{act}"
        );
    }
}

#[tokio::test]
async fn by_the_command_while_it_runs_and_when_it_does_not() {
    let (mut service, client, function, registration) = service_with_endpoint().await;
    let id = registration.id();
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": true})).await;
    let username = format!("{}@clients.auth.globus.org", client.id);
    let shown = service.administer(&["endpoint", "show", id], "");
    assert_eq!(
        (&shown["name"], &shown["owner"], &shown["status"]),
        (&json!("ep"), &json!(username), &json!("online"))
    );
    let locked = service.administer(&["endpoint", "lock", id, "--minutes", "10"], "");
    assert_eq!(locked["status"], "locked");
    assert!(locked["locked_until"].is_string());
    assert!(!endpoint.is_connected_after_a_while().await);
    assert_eq!(service.administer(&["endpoint", "unlock", id], "")["status"], "offline");
    endpoint = FakeEndpoint::connect(&client.register_again(id).await).await;
    let taken = client.submit(id, &function, 1).await;
    assert_eq!(endpoint.take().await, taken.tasks[0]);
    endpoint.leave().await;

    for running in [true, false] {
        if !running {
            service.stop();
        }
        let waiting = if running { client.submit(id, &function, 2).await.tasks } else { Vec::new() };
        if running {
            let dropped = service.administer(&["endpoint", "drop", id], "");
            assert_eq!(dropped, json!({"endpoint": id, "dropped": 2}));
            for task in &waiting {
                let told = client.task(task).await["exception"].as_str().unwrap().to_owned();
                let who = format!("the operator of the service (uid {})", nix::unistd::getuid());
                assert!(told.contains(&who), "{told}");
            }
            client.submit(id, &function, 600).await;
        } else {
            let listed = service.administer(&["endpoint", "list"], "");
            let line = &listed[0];
            assert_eq!(
                (&line["id"], &line["status"], &line["waiting"], &line["taken"]),
                (&json!(id), &json!("unknown"), &json!(600), &json!(1))
            );
            assert_eq!(service.administer(&["endpoint", "lock", id], "")["status"], "locked");
            assert_eq!(service.administer(&["endpoint", "unlock", id], "")["status"], "unknown");
            assert_eq!(service.administer(&["endpoint", "drop", id], "")["dropped"], 600);
            assert_eq!(service.administer(&["endpoint", "show", id], "")["waiting"], 0);
        }
    }
    let table = String::from_utf8(service.command(&["endpoint", "list"]).stdout).unwrap();
    assert!(table.contains(id) && table.contains(&username), "{table}");
    assert_eq!(service.administer(&["endpoint", "delete", id], "")["id"], *id);
    for arguments in [["endpoint", "show", id], ["endpoint", "delete", id], ["endpoint", "lock", "ep"]] {
        let refused = service.try_administer(&arguments, "");
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.contains("there is no endpoint"), "{said}");
    }
    service.start_again();
    let ended = client.task_until(&taken.tasks[0], |it| it["status"] == "failed").await;
    assert!(ended["exception"].as_str().unwrap().contains("was deleted"), "{ended}");
    assert_eq!(client.get("/v2/endpoints").await.ok(), Value::Array(Vec::new()));
}
