//! Tests of large payloads and results: they are files beside the database, and none is left over.

use serde_json::json;

use crate::support::{FakeEndpoint, Farcall, service_with_endpoint};

fn large(letter: &str) -> String {
    letter.repeat(100_000)
}

async fn submit(
    client: &crate::support::Client,
    endpoint: &str,
    function: &str,
    payloads: &[String],
) -> Vec<String> {
    let body = json!({"create_queue": true, "tasks": {function: payloads}});
    let answer = client.post(&format!("/v3/endpoints/{endpoint}/submit"), body).await.ok();
    answer["tasks"][function].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_large_payload_and_a_large_result_travel_through_files() {
    let (mut service, client, function, registration) = service_with_endpoint().await;
    let payloads = ["small".to_owned(), large("ü"), large("\"")];
    let tasks = submit(&client, registration.id(), &function, &payloads).await;
    assert_eq!(service.files().len(), 2);
    // They are on disk: another process finds them.
    service.kill();
    service.start_again();
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    for (task, payload) in tasks.iter().zip(&payloads) {
        let (delivery, message) = endpoint.next().await;
        assert_eq!(message["data"]["task_id"], json!(task));
        assert!(message["data"]["task_buffer"].as_str().unwrap().ends_with(payload.as_str()));
        delivery.ack(lapin::options::BasicAckOptions::default()).await.unwrap();
    }
    // What the endpoint has acknowledged is its own business.
    service.files_until(0).await;

    let results = [large("r"), "small".to_owned(), large("✓")];
    for (task, result) in tasks.iter().zip(&results) {
        endpoint.finish(task, result, false).await;
    }
    assert_eq!(service.files().len(), 2);
    let group = client.get(&format!("/v2/tasks/{}", tasks[0])).await.ok();
    assert_eq!(group["result"], json!(results[0]));
    let batch = client.post("/v2/batch_status", json!({"task_ids": tasks})).await.ok();
    for (task, result) in tasks.iter().zip(&results) {
        assert_eq!(batch["results"][task]["result"], json!(result));
    }
}

#[tokio::test]
async fn a_late_or_foreign_result_leaves_no_file() {
    let (service, client, function, registration) = service_with_endpoint().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let thief = FakeEndpoint::connect(&client.register().await).await;
    let submitted = client.submit(registration.id(), &function, 1).await;
    let task = endpoint.take().await;
    thief.finish(&task, &large("t"), false).await;
    endpoint.finish(&task, &large("r"), false).await;
    endpoint.finish(&task, &large("l"), false).await;
    service.files_until(1).await;
    assert_eq!(client.results(&submitted.group).await.take(1).await, [task]);
}

#[tokio::test]
async fn a_result_that_overtakes_the_acknowledgement_frees_the_payload() {
    let (service, client, function, registration) = service_with_endpoint().await;
    let tasks = submit(&client, registration.id(), &function, &[large("p")]).await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let (delivery, _) = endpoint.next().await;
    endpoint.finish(&tasks[0], "5\n00\nab", false).await;
    service.files_until(0).await;
    delivery.ack(lapin::options::BasicAckOptions::default()).await.unwrap();
    assert_eq!(client.task(&tasks[0]).await["status"], "success");
}

/// A crash between a file and its row leaves the file; so does one between a row's end and the file's.
#[tokio::test]
async fn what_a_crash_leaves_behind_is_collected_at_the_next_start() {
    let (mut service, client, function, registration) = service_with_endpoint().await;
    submit(&client, registration.id(), &function, &[large("p")]).await;
    let [kept] = &service.files()[..] else { panic!("one file") };
    service.kill();
    let left = service.data().join("payloads/01a1fc8dd5967120990000000000000a");
    std::fs::write(&left, b"never named").unwrap();
    let foreign = service.data().join("payloads/notes of the operator");
    std::fs::write(&foreign, b"no payload").unwrap();
    service.start_again();
    service.files_until(2).await;
    assert!(kept.exists() && foreign.exists() && !left.exists());
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    assert!(endpoint.next().await.1["data"]["task_buffer"].as_str().unwrap().ends_with(&large("p")));
}

#[tokio::test]
async fn the_size_from_which_there_are_files_is_the_operators() {
    let service = Farcall::configured("limits:\n  file_from_bytes: 8\n");
    let client = service.client().await;
    let function = client.function().await;
    let registration = client.register().await;
    submit(&client, registration.id(), &function, &["123456".to_owned(), "12345".to_owned()]).await;
    assert_eq!(service.files().len(), 1, "with its quotes one of them has 8 bytes");
}

#[tokio::test]
async fn code_is_stored_once() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let functions = [client.function().await, client.function().await, other.function().await];
    let mut database = service.database().await;
    let mut codes = async || database.read("SELECT count(*) FROM function_code").await.unwrap();
    assert_eq!(codes().await, 1);
    client.delete(&format!("/v2/functions/{}", functions[0])).await.ok();
    other.delete(&format!("/v2/functions/{}", functions[2])).await.ok();
    assert_eq!(codes().await, 1, "one function is left");
    client.get(&format!("/v2/functions/{}", functions[1])).await.ok();
    client.delete(&format!("/v2/functions/{}", functions[1])).await.ok();
    assert_eq!(codes().await, 0);
}
