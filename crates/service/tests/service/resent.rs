//! Tests of retried submits: the stock SDK sends a submit again when the reply was lost, without marking it as a retry.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Answer, Client, FakeEndpoint, Farcall, PAYLOAD, send, until};

struct Scene {
    service: Farcall,
    client: Client,
    function: String,
    endpoint: crate::support::Registration,
    group: String,
}

impl Scene {
    async fn new() -> Scene {
        let service = Farcall::start();
        let client = service.client().await;
        let function = client.function().await;
        let endpoint = client.register().await;
        let group = client.submit(endpoint.id(), &function, 1).await.group;
        Scene { service, client, function, endpoint, group }
    }

    fn path(&self) -> String {
        format!("/v3/endpoints/{}/submit", self.endpoint.id())
    }

    fn body(&self, payload: &str) -> String {
        json!({"create_queue": true, "task_group_id": self.group, "tasks": {&self.function: [payload, payload]}})
            .to_string()
    }

    async fn send(&self, body: &str, key: Option<&str>) -> Answer {
        let mut request = self.client.request(Method::POST, &self.path()).body(body.to_owned());
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        send(request).await
    }

    async fn ids(&self, body: &str) -> Vec<String> {
        ids(&self.send(body, None).await.ok(), &self.function)
    }

    /// The group's tasks but the first, which was there before.
    async fn submitted(&self) -> Vec<String> {
        let group = self.client.get(&format!("/v2/taskgroup/{}", self.group)).await.ok();
        let tasks = group["tasks"].as_array().unwrap().iter().skip(1);
        tasks.map(|task| task["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Sends `body` and leaves before the answer: the database is held until then.
    async fn send_and_leave(&self, body: &str) -> Vec<String> {
        let before = self.submitted().await.len();
        let mut database = self.service.database().await;
        database.hold().await;
        let mut stream =
            TcpStream::connect(self.service.http.strip_prefix("http://").unwrap()).await.unwrap();
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.path(),
            self.client.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        // It is with the writer now, which waits for us.
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(stream);
        tokio::time::sleep(Duration::from_millis(200)).await;
        database.release().await;
        database.close().await;
        until("tasks of the submit whose sender left", async || {
            Some(self.submitted().await.split_off(before)).filter(|tasks| !tasks.is_empty())
        })
        .await
    }
}

fn ids(answer: &Value, function: &str) -> Vec<String> {
    answer["tasks"][function].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn one_whose_answer_was_lost_gets_the_ids_it_had() {
    let scene = Scene::new().await;
    let body = scene.body(PAYLOAD);
    let lost = scene.send_and_leave(&body).await;
    assert_eq!(lost.len(), 2);
    assert_ne!(scene.ids(&scene.body("other")).await, lost, "another body is another submit");
    assert_eq!(scene.ids(&body).await, lost);
    assert_ne!(scene.ids(&body).await, lost, "that answer has arrived");
    assert_eq!(scene.submitted().await.len(), 6);
}

#[tokio::test]
async fn also_when_the_service_died_in_between() {
    let mut scene = Scene::new().await;
    let body = scene.body(PAYLOAD);
    let lost = scene.send_and_leave(&body).await;
    scene.service.kill();
    scene.service.start_again();
    assert_eq!(scene.ids(&body).await, lost);
    assert_eq!(scene.submitted().await, lost);
}

#[tokio::test]
async fn somebody_elses_twin_and_a_late_one_are_others() {
    let scene = Scene::new().await;
    let body = scene.body(PAYLOAD);
    let lost = scene.send_and_leave(&body).await;
    let mut database = scene.service.database().await;
    let older = "UPDATE submissions SET created_us = created_us - 121000000";
    assert_eq!(database.execute(older, []).await, 1);
    assert_ne!(scene.ids(&body).await, lost);
}

#[tokio::test]
async fn one_whose_result_the_client_has_taken_is_known_to_it() {
    let scene = Scene::new().await;
    let body = scene.body(PAYLOAD);
    let lost = scene.send_and_leave(&body).await;
    let mut endpoint = FakeEndpoint::connect(&scene.endpoint).await;
    for _ in 0..3 {
        let task = endpoint.take().await;
        endpoint.finish(&task, "5\n00\nab", false).await;
    }
    scene.client.results(&scene.group).await.take(3).await;
    let mut database = scene.service.database().await;
    while database.read("SELECT count(*) FROM deliveries").await != Some(0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_ne!(scene.ids(&body).await, lost);
}

#[tokio::test]
async fn equal_submits_that_are_answered_are_as_many() {
    let scene = Scene::new().await;
    let body = scene.body(PAYLOAD);
    let one_by_one = [scene.ids(&body).await, scene.ids(&body).await];
    assert_ne!(one_by_one[0], one_by_one[1]);
    let at_once = futures_util::future::join_all((0..8).map(|_| scene.ids(&body))).await;
    let mut all: Vec<_> = one_by_one.into_iter().chain(at_once).flatten().collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 20);
    assert_eq!(scene.submitted().await.len(), 20);
}

#[tokio::test]
async fn a_key_decides_when_there_is_one() {
    let mut scene = Scene::new().await;
    let body = scene.body(PAYLOAD);
    let first = scene.send(&body, Some("a")).await.ok();
    assert_eq!(scene.send(&body, Some("a")).await.ok(), first, "however often it was answered");
    scene.service.kill();
    scene.service.start_again();
    assert_eq!(scene.send(&body, Some("a")).await.ok(), first);
    assert_ne!(scene.send(&body, Some("b")).await.ok(), first);
    assert_ne!(scene.ids(&body).await, ids(&first, &scene.function));
    scene.send(&scene.body("other"), Some("a")).await.refused(422, "SEMANTICALLY_INVALID");
    for key in ["", &"k".repeat(256)] {
        scene.send(&body, Some(key)).await.refused(400, "REQUEST_MALFORMED");
    }
    let at_once = futures_util::future::join_all((0..8).map(|_| scene.send(&body, Some("c")))).await;
    let mut answers: Vec<_> = at_once.into_iter().map(|answer| answer.ok().to_string()).collect();
    answers.dedup();
    assert_eq!(answers.len(), 1);
    assert_eq!(scene.submitted().await.len(), 8);
}
