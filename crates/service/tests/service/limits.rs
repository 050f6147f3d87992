//! Tests of the service's limits: configured, named in refusals, and above ordinary work.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{CODE, Farcall, PAYLOAD, service_with_endpoint, until};

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

/// The answer to a request whose body comes in drops that never end.
async fn answer_to_endless_body(service: &Farcall, head: &str) -> String {
    let host = service.http.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head = format!("{head}\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 10000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let dripping = async {
        while writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        read = reader.read_buf(&mut answer) => assert_ne!(read.unwrap(), 0),
        () = dripping => panic!("no answer"),
    }
    // The connection may be reset for what was sent after the answer.
    let _ = reader.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let service = Farcall::configured("limits:\n  body_seconds: 1\n");
    let client = service.client().await;
    let bearer = format!("Authorization: Bearer {}", client.token);
    let form = "Content-Type: application/x-www-form-urlencoded".to_owned();
    let began = Instant::now();
    for (path, header) in [
        ("/v3/functions", bearer),
        ("/v2/oauth2/token", form.clone()),
        ("/v2/web/sign-in", form.clone()),
        ("/v2/web/logout", form),
    ] {
        let answer = answer_to_endless_body(&service, &format!("POST {path} HTTP/1.1\r\n{header}")).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{path}: {answer}");
        assert!(answer.contains("did not arrive in time: it came slower than limits."), "{path}: {answer}");
    }
    assert!(began.elapsed() < Duration::from_secs(30));
    client.function().await;
}

/// 600 MB of zeros as deflate: the zero once, and then again and again 258 more of them.
fn bomb() -> Vec<u8> {
    let mut bits = Vec::new();
    // Most significant first, as Huffman codes are written: of the fixed code, the byte 0 is 00110000, the length 258
    // is 11000101, the distance 1 is 00000.
    let code = |bits: &mut Vec<bool>, digits: &str| bits.extend(digits.bytes().map(|digit| digit == b'1'));
    // The last block, and in the fixed code: its two bits are least significant first.
    code(&mut bits, "1");
    code(&mut bits, "10");
    code(&mut bits, "00110000");
    for _ in 0..600_000_000 / 258 {
        code(&mut bits, "1100010100000");
    }
    // The end of the block.
    code(&mut bits, "0000000");
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
    bits.chunks(8).map(byte).collect()
}

/// Refused for the encoding that its header names.
#[tokio::test]
async fn a_gzip_bomb_is_not_unpacked() {
    let deflated = bomb();
    // The heads alone: whoever unpacks has all the bytes before a checksum at the end.
    let gzip = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], &deflated[..]].concat();
    let zlib = [&[0x78, 0x01], &deflated[..]].concat();
    assert!(unpacked(&gzip) >= 600_000_000 - 258, "it is no bomb: {} bytes", unpacked(&gzip));
    let service = Farcall::start();
    let client = service.client().await;
    let before = service.begin_peak();
    for (encoding, body) in [("gzip", &gzip), ("deflate", &zlib), ("br", &gzip), ("gzip, gzip", &gzip)] {
        let request = client.request(reqwest::Method::POST, "/v3/functions");
        let request = request.header("Content-Encoding", encoding).body(body.clone());
        let refused = crate::support::send(request).await.refused(415, "REQUEST_MALFORMED");
        assert!(refused["message"].as_str().unwrap().contains("Content-Encoding"), "{refused}");
    }
    let peak = service.peak_megabytes();
    assert!(peak < before + 100, "{before} MB before, at most {peak} MB");
}

/// How many bytes `gzip` makes of this.
fn unpacked(gzip: &[u8]) -> u64 {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, gzip).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let mut command = std::process::Command::new("gzip");
    let mut process =
        command.arg("-dc").stdin(file).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let count = std::io::copy(process.stdout.as_mut().unwrap(), &mut std::io::sink()).unwrap();
    process.wait().unwrap();
    count
}

/// Results of 6 MB each, many times over what a process may hold: the answer is written as it is read.
#[tokio::test]
async fn a_large_answer_takes_little_memory() {
    let (service, client, function, registration) = service_with_endpoint().await;
    let submitted = client.submit(registration.id(), &function, 12).await;
    let mut endpoint = crate::support::FakeEndpoint::connect(&registration).await;
    let result = "r".repeat(6 << 20);
    for _ in &submitted.tasks {
        let task = endpoint.take().await;
        endpoint.finish(&task, &result, false).await;
    }
    let before = service.begin_peak();
    let batch = client.post("/v2/batch_status", json!({"task_ids": submitted.tasks})).await.ok();
    for task in &submitted.tasks {
        assert_eq!(batch["results"][task]["result"].as_str().map(str::len), Some(6 << 20));
    }
    let peak = service.peak_megabytes();
    assert!(peak < before + 50, "{before} MB before, at most {peak} MB while it sent 72 MB of results");
}

#[tokio::test]
async fn a_group_of_many_tasks_is_told_whole() {
    let (_service, client, function, registration) = service_with_endpoint().await;
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
    // Room for all of them in files: by default one identity has it for two.
    let service = Farcall::configured("limits:\n  bodies_in_flight_bytes: 1073741824\n");
    let client = service.client().await;
    let function = client.function().await;
    let endpoint = client.register().await;
    let path = format!("/v3/endpoints/{}/submit", endpoint.id());
    let body = json!({"tasks": {&function: ["x\n".repeat(10 << 20)]}}).to_string();
    let (most, last) = body.split_at(body.len() - 1);
    let before = service.begin_peak();
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
    // Of each, less than 2 MB are not in its file yet.
    let arrived = 6 * (most.len() as u64 - (2 << 20));
    until("bodies in files", async || (service.nameless_bytes() >= arrived).then_some(())).await;
    let peak = service.peak_megabytes();
    assert!(peak < before + 50, "{before} MB before, at most {peak} MB while 180 MB arrived");
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
    let peak = service.peak_megabytes();
    assert!(peak < before + 150, "{before} MB before, at most {peak} MB");
    others.clear();
    assert_eq!(service.files().len(), 2, "the payloads of those two");
}
