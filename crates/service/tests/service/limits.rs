//! Limits: configured, told, and never in the way of honest work.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{CODE, Farcall, PAYLOAD};

#[tokio::test]
async fn one_identity_is_asked_to_come_later_and_others_are_not() {
    let service = Farcall::configured("limits:\n  requests_per_second: 1\n  requests_at_once: 5\n");
    let (eager, other) = (service.client().await, service.client().await);
    let mut refused = None;
    for _ in 0..100 {
        let answer = eager.get("/v2/endpoints").await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        answer.ok();
    }
    let refused = refused.unwrap();
    let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(seconds, 1);
    refused.refused(429, "MAX_REQUESTS_EXCEEDED");
    other.get("/v2/endpoints").await.ok();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    eager.get("/v2/endpoints").await.ok();
}

#[tokio::test]
async fn the_operator_sets_them() {
    let yaml = "limits:\n  payload_bytes: 100\n  body_bytes: 1000\n  tasks_per_submit: 3\n  functions_per_submit: 2\n  \
                tasks_per_status: 2\n";
    let service = Farcall::configured(yaml);
    let client = service.client().await;
    let functions = [client.function().await, client.function().await, client.function().await];
    let endpoint = client.register().await;
    let path = format!("/v3/endpoints/{}/submit", endpoint.id());
    let [a, b, c] = &functions;
    client.post(&path, json!({"tasks": {a: ["1", "2"], b: ["3"]}})).await.ok();
    let four = json!({"tasks": {a: ["1", "2"], b: ["3", "4"]}});
    client.post(&path, four).await.refused(413, "BATCH_RUN_TOO_LARGE");
    let three = json!({"tasks": {a: ["1"], b: ["2"], c: ["3"]}});
    client.post(&path, three).await.refused(413, "BATCH_RUN_TOO_LARGE");
    let long = json!({"tasks": {a: ["x".repeat(101)]}});
    let refused = client.post(&path, long).await.refused(413, "TASK_PAYLOAD_TOO_LARGE");
    let text = refused["message"].as_str().unwrap();
    assert!(text.contains(a.as_str()), "{refused}");
    assert!(
        text.contains("takes 101 bytes, and the service takes 100 bytes (limits.payload_bytes)"),
        "{refused}"
    );
    let id = "00000000-0000-4000-8000-000000000000";
    let many = json!({"task_ids": [id, id, id]});
    client.post("/v2/batch_status", many).await.refused(413, "BATCH_RUN_TOO_LARGE");
    let body = json!({"function_name": "f", "function_code": CODE, "description": "x".repeat(1000)});
    let refused = client.post("/v3/functions", body).await.refused(413, "TASK_PAYLOAD_TOO_LARGE");
    assert!(refused["message"].as_str().unwrap().contains("more than 1000 bytes (limits."), "{refused}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let service = Farcall::configured("limits:\n  body_seconds: 1\n");
    let client = service.client().await;
    let mut stream = TcpStream::connect(service.http.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "POST /v3/functions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 100000\r\n\r\n[",
        client.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let began = Instant::now();
    let mut answer = [0; 12];
    let (mut reader, mut writer) = stream.split();
    let dripping = async {
        while writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        read = reader.read_exact(&mut answer) => drop(read.unwrap()),
        () = dripping => panic!("no answer"),
    }
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert!(began.elapsed() < Duration::from_secs(30));
    client.function().await;
}

/// Four gigabytes of zeros, as gzip: refused for what it says it is.
#[tokio::test]
async fn a_gzip_bomb_is_not_unpacked() {
    let service = Farcall::start();
    let client = service.client().await;
    for encoding in ["gzip", "deflate", "br", "gzip, gzip"] {
        let request = client.request(reqwest::Method::POST, "/v3/functions");
        let request = request.header("Content-Encoding", encoding).body(vec![0x1f; 4 << 20]);
        let refused = crate::support::send(request).await.refused(415, "REQUEST_MALFORMED");
        assert!(refused["message"].as_str().unwrap().contains("Content-Encoding"), "{refused}");
    }
    assert!(service.resident_megabytes() < 150, "{} MB", service.resident_megabytes());
}

/// Results of 6 MB each, many times over what a process may hold: the answer is written as it is read.
#[tokio::test]
async fn a_large_answer_takes_little_memory() {
    let service = Farcall::start();
    let client = service.client().await;
    let function = client.function().await;
    let registration = client.register().await;
    let submitted = client.submit(registration.id(), &function, 12).await;
    let mut endpoint = crate::support::FakeEndpoint::connect(&registration).await;
    let result = "r".repeat(6 << 20);
    for _ in &submitted.tasks {
        let task = endpoint.take().await;
        endpoint.finish(&task, &result, false).await;
    }
    let before = service.resident_megabytes();
    let batch = client.post("/v2/batch_status", json!({"task_ids": submitted.tasks})).await.ok();
    for task in &submitted.tasks {
        assert_eq!(batch["results"][task]["result"].as_str().map(str::len), Some(6 << 20));
    }
    let peak = service.resident_megabytes();
    assert!(peak < before + 50, "{before} MB before, {peak} MB after 72 MB of results");
}

#[tokio::test]
async fn a_group_of_many_tasks_is_told_whole() {
    let service = Farcall::start();
    let client = service.client().await;
    let function = client.function().await;
    let registration = client.register().await;
    let mut submitted = client.submit(registration.id(), &function, 1000).await;
    for more in [1000, 1] {
        let again = client.submit_to_group(registration.id(), &function, more, Some(&submitted.group)).await;
        submitted.tasks.extend(again.tasks);
        let group = client.get(&format!("/v2/taskgroup/{}", submitted.group)).await.ok();
        let ids: Vec<_> = group["tasks"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
        assert_eq!(ids, submitted.tasks.iter().collect::<Vec<_>>());
    }
    let empty = json!({"create_queue": true, "tasks": {&function: [PAYLOAD]}});
    client.post(&format!("/v3/endpoints/{}/submit", registration.id()), empty).await.ok();
}

/// Six bodies of 30 MB that arrive at the same time: they lie in files, one or two at a time in memory.
#[tokio::test]
async fn many_large_bodies_at_once_take_little_memory() {
    let service = Farcall::start();
    let client = service.client().await;
    let function = client.function().await;
    let endpoint = client.register().await;
    let path = format!("/v3/endpoints/{}/submit", endpoint.id());
    let body = json!({"tasks": {&function: ["x\n".repeat(10 << 20)]}}).to_string();
    let (most, last) = body.split_at(body.len() - 1);
    let before = service.resident_megabytes();
    let mut streams = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(service.http.strip_prefix("http://").unwrap()).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            client.token,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(most.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    let arriving = service.resident_megabytes();
    assert!(arriving < before + 50, "{before} MB before, {arriving} MB with 180 MB on their way");
    // Two are finished at once, the others leave.
    let mut others = streams.split_off(2);
    for stream in &mut streams {
        stream.write_all(last.as_bytes()).await.unwrap();
    }
    for stream in &mut streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let most = service.most_resident_megabytes();
    assert!(most < before + 150, "{before} MB before, at most {most} MB");
    others.clear();
    assert_eq!(service.files().len(), 2, "the payloads of those two");
}
