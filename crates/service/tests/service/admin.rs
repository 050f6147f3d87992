//! Tests of administration: the data directory, its lock, `farcall client`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Farcall, farcall};

#[tokio::test]
async fn clients_are_made_and_listed_while_it_runs_and_when_it_does_not() {
    let mut service = Farcall::start();
    let added = service.command(&["client", "add", "while it runs", "--output", "json"]);
    let running: Value = serde_json::from_slice(&added.stdout).unwrap();
    service.stop();

    let added = service.command(&["client", "add", "while it rests", "--output", "json"]);
    let resting: Value = serde_json::from_slice(&added.stdout).unwrap();
    let list = service.command(&["client", "list", "--output", "json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let ids: Vec<_> = list.as_array().unwrap().iter().map(|it| &it["client_id"]).collect();
    let built_in = Value::from(wire::rest::auth::NATIVE_CLIENT);
    assert_eq!(ids, [&running["client_id"], &resting["client_id"], &built_in]);
    assert!(!list.to_string().contains(running["client_secret"].as_str().unwrap()));

    service.start_again();
    let human = service.command(&["client", "add", "for people"]);
    let human = String::from_utf8(human.stdout).unwrap();
    assert!(human.contains("export GLOBUS_COMPUTE_CLIENT_ID="), "{human}");
    let table = String::from_utf8(service.command(&["client", "list"]).stdout).unwrap();
    assert!(table.contains("while it rests") && table.contains("for people"), "{table}");
}

#[tokio::test]
async fn one_process_serves_a_directory_and_nobody_else_reads_it() {
    let service = Farcall::start();
    let second =
        farcall(&service.data(), &["serve", "--http-listen", "127.0.0.1:0", "--amqp-listen", "127.0.0.1:0"]);
    assert!(!second.status.success());
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("is in use by another farcall"), "{said}");

    let mode =
        |path: &str| std::fs::metadata(service.data().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    assert_eq!(mode("admin.sock"), 0o600);
    let addresses = std::fs::read(service.data().join("addresses.json")).unwrap();
    let addresses: Value = serde_json::from_slice(&addresses).unwrap();
    assert_eq!(addresses["http"], service.http);
    assert_eq!(addresses["amqp"], service.amqp);
}

/// Everything that the service keeps is its owner's only, whoever may look into the directory; what an older version left
/// open is closed at the next start, and what was copied from it, too. With SQLite, the database is among it.
#[tokio::test]
async fn no_file_is_open_to_others() {
    let mut service = Farcall::on_sqlite().configure("limits: {file_from_bytes: 16}\n");
    let client = service.client().await;
    let endpoint = client.register().await;
    client.submit(endpoint.id(), &client.function().await, 1).await;
    while !service.data().join("keys/id-token.pem").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let (before, backup, restored) =
        (service.file("before"), service.file("backup"), service.file("restored"));
    assert!(service.command(&["backup", before.to_str().unwrap()]).status.success());
    let open = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    for name in ["farcall.db", "farcall.db-wal", "farcall.db-shm"] {
        open(&service.data().join(name));
    }
    open(&before.join("farcall.db"));
    service.kill();
    service.start_again();
    assert!(service.command(&["backup", backup.to_str().unwrap()]).status.success());
    assert!(farcall(&restored, &["restore", before.to_str().unwrap()]).status.success());
    for root in [service.data(), backup, restored] {
        let found = files(&root);
        for name in ["farcall.db", "keys/id-token.pem"] {
            assert!(found.contains(&root.join(name)), "{name}: {found:?}");
        }
        assert!(found.iter().any(|path| path.starts_with(root.join("payloads"))), "{found:?}");
        for path in found.iter().filter(|path| !path.ends_with("farcall.yaml")) {
            // What is being written has another name at the next moment.
            let mode = std::fs::metadata(path).map_or(0, |known| known.permissions().mode());
            assert_eq!(mode & 0o077, 0, "{} {mode:o}", path.display());
        }
    }
    let logs = ["farcall.db-wal", "farcall.db-shm"].map(|name| service.data().join(name));
    assert!(logs.iter().all(|path| path.exists()), "they were looked at");
}

fn files(below: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn it_stops_in_order_at_the_first_signal_and_starts_again() {
    let mut service = Farcall::start();
    let client = service.client().await;
    assert!(service.stop().success());
    for left in ["addresses.json", "admin.sock", "farcall.db-wal"] {
        assert!(!service.data().join(left).exists(), "{left}");
    }
    service.start_again();
    client
        .get("/v2/taskgroup/00000000-0000-4000-8000-000000000000")
        .await
        .refused(404, "TASK_GROUP_NOT_FOUND");
    service.signal(Signal::SIGTERM);
    service.signal(Signal::SIGTERM);
    assert!(service.stop_status().success());
}

#[tokio::test]
async fn a_configuration_with_an_unknown_key_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("farcall.yaml"), "http:\n  lisen: 127.0.0.1:0\n").unwrap();
    let refused = farcall(directory.path(), &["serve"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8(refused.stderr).unwrap().contains("lisen"));
}
