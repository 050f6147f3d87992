//! Tests with a full or read-only disk: clear errors, no partial changes, and recovery without a restart. On SQLite, whose
//! database lies on that disk.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use lapin::Confirmation;
use serde_json::json;

use crate::support::{FakeEndpoint, Farcall, PAYLOAD, binary, result, with_endpoint};

#[tokio::test]
async fn a_full_disk_refuses_what_cannot_be_kept_and_forgets_nothing() {
    let (service, client, function, registration) = with_endpoint(Farcall::on_sqlite().configure("")).await;
    let submitted = client.submit(registration.id(), &function, 2).await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let [first, second] = [endpoint.take().await, endpoint.take().await];
    endpoint.finish(&first, "5\n00\nab", false).await;
    client.task_until(&second, |it| it["status"] == "running").await;

    service.limit_files("0");
    let submit = format!("/v3/endpoints/{}/submit", registration.id());
    for payload in [PAYLOAD.to_owned(), "x".repeat(100_000), "x".repeat(3 << 20)] {
        let answer = client.post(&submit, json!({"tasks": {&function: [payload]}})).await;
        let retry: u32 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!(retry > 0);
        answer.refused(503, "SERVICE_UNAVAILABLE");
    }
    assert!(service.files().is_empty(), "a file that could not be written whole is not left");
    client.post("/v3/endpoints", crate::support::endpoint_body()).await.refused(503, "SERVICE_UNAVAILABLE");
    // What is there can be read.
    assert_eq!(client.task(&first).await["status"], "success");
    assert_eq!(client.task(&second).await["status"], "running");
    // A result that can't be kept stays with the endpoint.
    let key = format!("{}.results", endpoint.id);
    for text in ["5\n00\nab".to_owned(), "r".repeat(100_000)] {
        let confirmed = endpoint.publish("results", &key, &result(&second, &text, false)).await.unwrap();
        assert!(matches!(confirmed, Confirmation::Nack(_)), "{confirmed:?}");
    }

    service.limit_files("unlimited");
    endpoint.finish(&second, "5\n00\nab", false).await;
    client.submit(registration.id(), &function, 1).await;
    assert_eq!(client.task(&second).await["status"], "success");
    let mut ended = client.results(&submitted.group).await.take(2).await;
    ended.sort();
    assert_eq!(ended, submitted.tasks);
    let status = client.get(&format!("/v2/endpoints/{}/status", registration.id())).await.ok();
    let tasks = &status["farcall"]["tasks"];
    assert_eq!(tasks["waiting"].as_i64().unwrap() + tasks["taken"].as_i64().unwrap(), 1, "{status}");
    assert_eq!(tasks["succeeded"], 2, "{status}");
}

/// An acknowledgement that can't be written is written later: the task is not sent again.
#[tokio::test]
async fn what_is_acknowledged_while_the_disk_is_full_is_not_sent_again() {
    let (service, client, function, registration) = with_endpoint(Farcall::on_sqlite().configure("")).await;
    let submitted = client.submit(registration.id(), &function, 2).await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let (delivery, _) = endpoint.next().await;
    service.limit_files("0");
    delivery.ack(lapin::options::BasicAckOptions::default()).await.unwrap();
    // Long enough for it to fail. Its log lies on the same disk.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    service.limit_files("unlimited");
    // That one's line was lost; the next ones are not.
    client.submit(registration.id(), &function, 1).await;
    assert!(service.read_log().contains("/submit"));
    client.task_until(&submitted.tasks[0], |it| it["status"] == "running").await;
    endpoint.leave().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    assert_eq!(endpoint.take().await, submitted.tasks[1]);
}

#[tokio::test]
async fn a_database_that_is_read_only_is_named_at_the_start() {
    let mut service = Farcall::on_sqlite().configure("");
    service.client().await;
    service.stop();
    let database = service.data().join("farcall.db");
    let root = nix::unistd::geteuid().is_root();
    let allow = |mode| std::fs::set_permissions(&database, std::fs::Permissions::from_mode(mode)).unwrap();
    // The superuser may write everything: so it runs as another user, who owns all of it but the database, and from a
    // copy, because that user may not be able to look into the build directory.
    let program = service.file("farcall");
    std::fs::copy(binary(), &program).unwrap();
    let mut command = if root { Command::new("setpriv") } else { Command::new(&program) };
    if root {
        let data = service.data();
        std::fs::set_permissions(data.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Command::new("chown").args(["-R", "65534"]).arg(&data).status().unwrap().success());
        assert!(Command::new("chown").arg("0").arg(&database).status().unwrap().success());
        command.args(["--reuid=65534", "--clear-groups"]).arg(&program);
    }
    allow(0o444);
    let refused = command
        .args(["serve", "--http-listen", "127.0.0.1:0", "--amqp-listen", "127.0.0.1:0", "--data-dir"])
        .arg(service.data())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(said.contains("readonly") || said.contains("read-only"), "{said}");
    if root {
        assert!(Command::new("chown").args(["-R", "0"]).arg(service.data()).status().unwrap().success());
    }
    allow(0o600);
    service.start_again();
    service.client().await;
}
