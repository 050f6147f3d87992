//! Tests of retention. The test moves the times in the database back while the service is stopped.

use serde_json::json;

use crate::support::{FakeEndpoint, Farcall, service_with_endpoint, until};

const DAY: i64 = 86_400_000_000;

#[tokio::test]
async fn a_result_expires_after_its_time_and_its_task_says_so() {
    let mut service = Farcall::configured("limits:\n  result_days: 3\n");
    let client = service.client().await;
    let function = client.function().await;
    let registration = client.register().await;
    let submitted = client.submit(registration.id(), &function, 3).await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    for _ in 0..2 {
        let task = endpoint.take().await;
        endpoint.finish(&task, &"r".repeat(100_000), false).await;
    }
    service.stop();
    let mut database = service.database().await;
    let older = "UPDATE results SET ended_us = ended_us - $1 WHERE task_id = (SELECT task_id FROM results ORDER BY task_id LIMIT 1)";
    database.execute(older, [(3 * DAY + 1).into()]).await;
    database.close().await;
    service.start_again();

    let [old, young, open] = &submitted.tasks[..] else { panic!("three tasks") };
    let document = client.task_until(old, |it| it["status"] == "failed").await;
    assert!(
        document["exception"].as_str().unwrap().contains("expired: it was kept for 3 days"),
        "{document}"
    );
    assert!(document["completion_t"].is_string() && document.get("result").is_none());
    assert_eq!(client.task(young).await["status"], "success");
    assert_eq!(client.task(open).await["status"], "waiting-for-ep");
    service.files_until(1).await;
    // What is gone is not delivered, what is there is.
    assert_eq!(&client.results(&submitted.group).await.take(1).await[0], young);
    let batch = client.post("/v2/batch_status", json!({"task_ids": submitted.tasks})).await.ok();
    assert_eq!(batch["results"][old], document);
}

#[tokio::test]
async fn a_task_that_nobody_takes_in_time_ends_with_an_error() {
    let (mut service, client, function, registration) = service_with_endpoint().await;
    let submitted = client.submit(registration.id(), &function, 3).await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let taken = endpoint.take().await;
    client.task_until(&taken, |it| it["status"] == "running").await;
    drop(endpoint);
    service.stop();
    // A task's id says when it was submitted: give two of them older ones.
    let mut database = service.database().await;
    let mut older = Vec::new();
    for task in &submitted.tasks[..2] {
        let id: uuid::Uuid = task.parse().unwrap();
        let old = uuid::Uuid::from_u128(id.as_u128() - ((15 * 86_400_000_u128) << 80));
        for table in ["tasks SET id", "assignments SET task_id"] {
            let column = table.rsplit(' ').next().unwrap();
            let change = format!("UPDATE {table} = $1 WHERE {column} = $2");
            assert_eq!(database.execute(change, [old.into(), id.into()]).await, 1);
        }
        older.push(old.to_string());
    }
    drop(database);
    service.start_again();
    for (task, why) in older.iter().zip(["took the task, brought no result in 14 days", "waited 14 days"]) {
        let document = client.task_until(task, |it| it["status"] == "failed").await;
        assert!(document["exception"].as_str().unwrap().contains(why), "{document}");
    }
    assert_eq!(client.task(&submitted.tasks[2]).await["status"], "waiting-for-ep");
    let status = client.get(&format!("/v2/endpoints/{}/status", registration.id())).await.ok();
    let expected = json!({"waiting": 1, "taken": 0, "succeeded": 0, "failed": 2, "late": 0});
    assert_eq!(status["farcall"]["tasks"], expected);
}

#[tokio::test]
async fn an_expired_task_is_known_for_its_time_and_then_forgotten() {
    let mut service = Farcall::configured("limits:\n  result_days: 3\n  expired_days: 10\n");
    let client = service.client().await;
    let function = client.function().await;
    let registration = client.register().await;
    // Two groups of one task, which end; and one that is long open.
    let (young, old) = (
        client.submit(registration.id(), &function, 1).await,
        client.submit(registration.id(), &function, 1).await,
    );
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    for _ in 0..2 {
        let task = endpoint.take().await;
        endpoint.finish(&task, "5\n00\nab", false).await;
    }
    let open = client.submit(registration.id(), &function, 1).await;
    drop(endpoint);
    service.stop();
    let mut database = service.database().await;
    // By so many days, submit and end.
    let mut age = async |task: &str, days: i64| {
        let id: uuid::Uuid = task.parse().unwrap();
        let aged = uuid::Uuid::from_u128(id.as_u128() - ((u128::try_from(days).unwrap() * 86_400_000) << 80));
        for change in [
            "UPDATE tasks SET id = $1, ended_us = ended_us - $3 WHERE id = $2",
            "UPDATE results SET task_id = $1, ended_us = ended_us - $3 WHERE task_id = $2",
            "UPDATE assignments SET task_id = $1 WHERE task_id = $2 AND $3 > 0",
        ] {
            database.execute(change, [aged.into(), id.into(), (days * DAY).into()]).await;
        }
        aged.to_string()
    };
    let young_task = age(&young.tasks[0], 12).await;
    let old_task = age(&old.tasks[0], 14).await;
    let open_task = age(&open.tasks[0], 13).await;
    drop(database);
    service.start_again();
    let gone = async || client.get(&format!("/v2/tasks/{old_task}")).await.status == 404;
    until("the end of a task's retention", async || gone().await.then_some(())).await;
    client.get(&format!("/v2/taskgroup/{}", old.group)).await.refused(404, "TASK_GROUP_NOT_FOUND");
    let document = client.task_until(&young_task, |it| it["status"] == "failed").await;
    assert!(document["exception"].as_str().unwrap().contains("expired"), "{document}");
    client.get(&format!("/v2/taskgroup/{}", young.group)).await.ok();
    assert_eq!(client.task(&open_task).await["status"], "waiting-for-ep");
    let status = client.get(&format!("/v2/endpoints/{}/status", registration.id())).await.ok();
    let expected = json!({"waiting": 1, "taken": 0, "succeeded": 2, "failed": 0, "late": 0});
    assert_eq!(status["farcall"]["tasks"], expected, "what is counted stays");
}
