//! Tests of the whole path of a task. The test plays the endpoint and the client.

use lapin::Confirmation;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::AMQPValue;
use serde_json::json;

use crate::support::{CODE, FakeEndpoint, PAYLOAD, result, service_with_endpoint, until};

#[tokio::test]
async fn a_task_goes_out_and_its_result_comes_back() {
    let (_service, client, function, registration) = service_with_endpoint().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": true})).await;

    let body = json!({"create_queue": true, "tasks": {&function: [PAYLOAD]},
        "resource_specification": {"num_nodes": 2}, "result_serializers": ["globus_compute_sdk.serialize.JSONData"],
        "user_endpoint_config": null});
    let answer = client.post(&format!("/v3/endpoints/{}/submit", endpoint.id), body).await.ok();
    let task = answer["tasks"][&function][0].as_str().unwrap();
    assert_eq!(answer["endpoint_id"], json!(endpoint.id));
    let mut results = client.results(answer["task_group_id"].as_str().unwrap()).await;

    let (delivery, message) = endpoint.next().await;
    let expected = json!({"task_id": task, "container_id": null, "container": null,
        "task_buffer": format!("{CODE}{PAYLOAD}")});
    assert_eq!(message, json!({"message_type": "task", "data": expected}));
    assert_eq!(client.task(task).await["status"], "received");
    let headers = delivery.properties.headers().clone().unwrap();
    let header = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(header("task_uuid"), task);
    assert_eq!(header("function_uuid"), function);
    assert_eq!(header("resource_specification"), r#"{"num_nodes":2}"#);
    assert_eq!(header("function_python"), "3.11");
    let AMQPValue::FieldArray(serializers) = &headers.inner()["result_serializers"] else {
        panic!("no array")
    };
    assert_eq!(serializers.as_slice().len(), 1);
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    client.task_until(task, |it| it["status"] == "running").await;

    let sent = result(task, "5\n00\nab", false);
    let confirmed = endpoint.publish("results", &format!("{}.results", endpoint.id), &sent).await.unwrap();
    assert!(matches!(confirmed, Confirmation::Ack(None)), "{confirmed:?}");
    let document = client.task(task).await;
    assert_eq!((&document["status"], &document["result"]), (&json!("success"), &json!("5\n00\nab")));
    assert!(document["completion_t"].as_str().unwrap().parse::<f64>().unwrap() > 1e9);
    assert!(document.get("exception").is_none() && document.get("reason").is_none());

    let (delivery, _) = results.next().await;
    assert_eq!(delivery.data, sent, "the endpoint's own bytes");
    assert!(delivery.properties.timestamp().is_some());
    delivery.ack(BasicAckOptions::default()).await.unwrap();
}

#[tokio::test]
async fn an_error_reaches_both_ways_and_what_the_worker_says_is_told() {
    let (_service, client, function, registration) = service_with_endpoint().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let submitted = client.submit(registration.id(), &function, 1).await;
    let task = endpoint.take().await;
    let message = json!({"message_type": "result", "data": {"task_id": task, "data": "Traceback: no",
        "details": {"python_version": "3.11.7"}, "error_details": {"code": "RemoteExecutionError", "user_message": "x"},
        "task_statuses": [{"timestamp": 1_692_742_841_500_000_000_u64, "state": "execution-start", "actor": "worker"}]}});
    let body = [&[1], message.to_string().as_bytes()].concat();
    endpoint.publish("results", &format!("{}.results", endpoint.id), &body).await.unwrap();
    let document = client.task(&task).await;
    assert_eq!((&document["status"], &document["exception"]), (&json!("failed"), &json!("Traceback: no")));
    assert!(document.get("result").is_none());
    assert_eq!(document["details"]["python_version"], "3.11.7");
    assert_eq!(document["details"]["task_transitions"]["execution-start"], 1_692_742_841.5);
    let (_, delivered) = client.results(&submitted.group).await.next().await;
    assert_eq!(delivered, message);
}

#[tokio::test]
async fn many_tasks_come_in_order_and_each_ends_once() {
    let (_service, client, function, registration) = service_with_endpoint().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let mut submitted = client.submit(registration.id(), &function, 700).await;
    let more = client.submit_to_group(registration.id(), &function, 800, Some(&submitted.group)).await;
    submitted.tasks.extend(more.tasks);
    let mut results = client.results(&submitted.group).await;
    let mut taken = Vec::new();
    for _ in 0..submitted.tasks.len() {
        let task = endpoint.take().await;
        endpoint.finish(&task, "5\n00\nab", false).await;
        taken.push(task);
    }
    assert_eq!(taken, submitted.tasks);
    let mut ended = results.take(submitted.tasks.len()).await;
    ended.sort();
    submitted.tasks.sort();
    assert_eq!(ended, submitted.tasks);
}

#[tokio::test]
async fn the_first_result_wins() {
    let (_service, client, function, registration) = service_with_endpoint().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let submitted = client.submit(registration.id(), &function, 2).await;
    let task = endpoint.take().await;
    endpoint.finish(&task, "first", false).await;
    endpoint.finish(&task, "second", true).await;
    endpoint.finish(&task, "third", false).await;
    assert_eq!(client.task(&task).await["result"], "first");
    let mut results = client.results(&submitted.group).await;
    assert_eq!(results.next().await.1["data"]["data"], "first");
    // What comes next is the other task's: the late ones were not delivered.
    let other = endpoint.take().await;
    endpoint.finish(&other, "other", false).await;
    assert_eq!(results.next().await.1["data"]["data"], "other");
}

#[tokio::test]
async fn a_result_counts_only_from_the_endpoint_the_task_was_sent_to() {
    let (_service, client, function, registration) = service_with_endpoint().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let thief = FakeEndpoint::connect(&client.register().await).await;
    client.submit(registration.id(), &function, 1).await;
    let task = endpoint.take().await;
    thief.finish(&task, "stolen", false).await;
    assert!(client.task(&task).await.get("result").is_none());
    // Nor do messages that are no results do any harm.
    for body in [&b""[..], b"\x01", b"\x02{}", b"\x01{\"message_type\":\"result\",\"data\":{}}", b"\xff\xff"]
    {
        let confirmed = endpoint.publish("results", &format!("{}.results", endpoint.id), body).await.unwrap();
        assert!(matches!(confirmed, Confirmation::Ack(None)), "{confirmed:?}");
    }
    endpoint.finish(&task, "mine", false).await;
    assert_eq!(client.task(&task).await["result"], "mine");
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again() {
    let (_service, client, function, registration) = service_with_endpoint().await;
    let submitted = client.submit(registration.id(), &function, 3).await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let first = endpoint.take().await;
    let (_, second) = endpoint.next().await;
    assert_eq!(
        [&first, second["data"]["task_id"].as_str().unwrap()],
        [&submitted.tasks[0], submitted.tasks[1].as_str()]
    );
    endpoint.leave().await;

    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let (delivery, again) = endpoint.next().await;
    assert_eq!(again, second, "and not the one that was acknowledged");
    delivery.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await.unwrap();
    let mut left = vec![endpoint.take().await, endpoint.take().await];
    left.sort();
    assert_eq!(left, submitted.tasks[1..]);

    // The client's side keeps the same rule.
    endpoint.finish(&left[0], "5\n00\nab", false).await;
    let mut results = client.results(&submitted.group).await;
    let (_, unacknowledged) = results.next().await;
    results.leave().await;
    let mut results = client.results(&submitted.group).await;
    assert_eq!(results.next().await.1, unacknowledged);
    results.take(0).await;
}

#[tokio::test]
async fn a_task_that_the_endpoint_rejects_ends() {
    let (_service, client, function, registration) = service_with_endpoint().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let submitted = client.submit(registration.id(), &function, 1).await;
    let (delivery, _) = endpoint.next().await;
    delivery.nack(BasicNackOptions { requeue: false, ..BasicNackOptions::default() }).await.unwrap();
    let document = client.task_until(&submitted.tasks[0], |it| it.get("completion_t").is_some()).await;
    assert!(document["exception"].as_str().unwrap().contains("rejected"), "{document}");
}

#[tokio::test]
async fn a_group_gets_a_queue_when_it_is_asked_for_one() {
    let (_service, client, function, registration) = service_with_endpoint().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let body = json!({"create_queue": false, "tasks": {&function: [PAYLOAD]}});
    let answer = client.post(&format!("/v3/endpoints/{}/submit", endpoint.id), body).await.ok();
    let group = answer["task_group_id"].as_str().unwrap();
    let polled = endpoint.take().await;
    endpoint.finish(&polled, "polled", false).await;
    // From here on results are delivered too.
    client.submit_to_group(&endpoint.id, &function, 1, Some(group)).await;
    let pushed = endpoint.take().await;
    endpoint.finish(&pushed, "pushed", false).await;
    let mut results = client.results(group).await;
    assert_eq!(results.take(1).await, [pushed]);
    assert_eq!(client.task(&polled).await["result"], "polled");
}

#[tokio::test]
async fn an_endpoints_reports_feed_the_status() {
    let (_service, client, function, registration) = service_with_endpoint().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    client.submit(registration.id(), &function, 1).await;
    let task = endpoint.take().await;
    let report = json!({"message_type": "ep_status_report", "data": {"endpoint_id": endpoint.id,
        "global_state": {"heartbeat_period": 30}, "task_statuses": {&task: [
            {"timestamp": 1, "state": "waiting-for-launch", "actor": "interchange"},
            {"timestamp": 2, "state": "execution-start", "actor": "worker"}]}}});
    let body = [&[1], report.to_string().as_bytes()].concat();
    endpoint.publish("heartbeats", &format!("{}.heartbeats", endpoint.id), &body).await.unwrap();
    client.task_until(&task, |it| it["status"] == "execution-start").await;
    endpoint.finish(&task, "5\n00\nab", false).await;
    endpoint.publish("heartbeats", &format!("{}.heartbeats", endpoint.id), &body).await.unwrap();
    assert_eq!(client.task(&task).await["status"], "success", "what has ended stays so");
}

#[tokio::test]
async fn an_endpoint_counts_its_tasks_exactly() {
    let (_service, client, function, registration) = service_with_endpoint().await;
    let path = format!("/v2/endpoints/{}/status", registration.id());
    let counted = async |waiting: i64, taken: i64, succeeded: i64, failed: i64, late: i64| {
        let expected = json!({"waiting": waiting, "taken": taken, "succeeded": succeeded, "failed": failed, "late": late});
        until("exact counts", async || {
            // Acknowledgements are written in their own time; nothing else may differ meanwhile.
            let status = client.get(&path).await.ok();
            let tasks = &status["farcall"]["tasks"];
            let open = tasks["waiting"].as_i64().unwrap() + tasks["taken"].as_i64().unwrap();
            assert_eq!(open, waiting + taken, "{status}");
            (*tasks == expected).then_some(status)
        })
        .await
    };
    client.submit(registration.id(), &function, 5).await;
    let status = counted(5, 0, 0, 0, 0).await;
    assert_eq!(status["farcall"]["notice"], "Its tasks wait until it is online");
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    endpoint.heartbeat(json!({"heartbeat_period": 30})).await;
    let tasks = [endpoint.take().await, endpoint.take().await, endpoint.take().await];
    let status = counted(2, 3, 0, 0, 0).await;
    assert_eq!((&status["farcall"]["consuming"], status["farcall"].get("notice")), (&json!(true), None));
    endpoint.finish(&tasks[0], "5\n00\nab", false).await;
    endpoint.finish(&tasks[1], "no", true).await;
    counted(2, 1, 1, 1, 0).await;
    endpoint.finish(&tasks[1], "5\n00\nab", false).await;
    endpoint.finish(&tasks[0], "5\n00\nab", false).await;
    counted(2, 1, 1, 1, 2).await;
    // A result that overtakes its acknowledgement.
    let (delivery, message) = endpoint.next().await;
    endpoint.finish(message["data"]["task_id"].as_str().unwrap(), "5\n00\nab", false).await;
    counted(1, 1, 2, 1, 2).await;
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    counted(1, 1, 2, 1, 2).await;
}
