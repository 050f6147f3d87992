//! Tests with data directories of earlier versions: their waiting tasks are run.

use std::path::Path;

use lapin::options::BasicAckOptions;

use crate::support::{FakeEndpoint, Farcall, result};

/// Made by the version 57ed211 with these ids, and stopped with SIGTERM while three tasks waited. The payload of the
/// third is a file.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/57ed211");
const CLIENT: (&str, &str) =
    ("6ef88fc9-332e-4b4d-97cc-efba0ad241cf", "RHrjbjfyTFIADSitBSB1WVeQmB30MC0CCEzHszLLIgM");
const ENDPOINT: &str = "5efbeb14-65d6-494f-8cf5-3206a524208b";
const GROUP: &str = "01a22ac6-18a3-71a2-9dff-daaf4f2fe49e";
const TASKS: [&str; 3] = [
    "01a22ac6-18a4-77b8-b104-468173afa30a",
    "01a22ac6-18a4-77b8-b104-46822737aa0d",
    "01a22ac6-18a4-77b8-b104-4683cf4bc08b",
];

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn tasks_that_waited_in_one_are_run() {
    let mut service = Farcall::on_sqlite();
    copy(Path::new(DIRECTORY), &service.data());
    // Tasks may wait for ever: this directory grows old.
    std::fs::write(service.data().join("farcall.yaml"), "limits:\n  task_days: 36500\n").unwrap();
    service.start_again();

    let client = service.client_known_as(CLIENT.0, CLIENT.1).await;
    for task in TASKS {
        assert_eq!(client.task(task).await["status"], "waiting-for-ep");
    }
    let mut results = client.results(GROUP).await;
    let mut endpoint = FakeEndpoint::connect(&client.register_again(ENDPOINT).await).await;
    for (task, bytes) in TASKS.into_iter().zip([20, 20, 100_000]) {
        let (delivery, message) = endpoint.next().await;
        assert_eq!(message["data"]["task_id"], task);
        assert!(message["data"]["task_buffer"].as_str().unwrap().len() > bytes);
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        let sent = result(task, "5\n00\nab", false);
        endpoint.publish("results", &format!("{ENDPOINT}.results"), &sent).await.unwrap();
    }
    let mut delivered = results.take(TASKS.len()).await;
    delivered.sort();
    assert_eq!(delivered, TASKS);
}
