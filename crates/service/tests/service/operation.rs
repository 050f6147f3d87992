//! Tests of what operators rely on: health, metrics, the log, signals.

use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::Text;
use wire::message::{Actor, TaskResult, TaskState, TaskTransition};

use crate::support::{FakeEndpoint, Farcall};

/// The value of a metric on the page.
fn metric(page: &str, name: &str) -> f64 {
    let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
    let line = line.unwrap_or_else(|| panic!("{name} is not on the page:\n{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn text(service: &Farcall, path: &str) -> (u16, String) {
    let answer = service.request(Method::GET, path).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// A result as endpoints send it, of a task that waited and ran for so long.
fn timed_result(task: &str, waited: Duration, ran: Duration) -> Vec<u8> {
    let task_id: wire::TaskId = task.parse().unwrap();
    let (seconds, nanos) = task_id.as_uuid().get_timestamp().unwrap().to_unix();
    let begun = Duration::new(seconds, nanos) + waited;
    let at = |state, time: Duration| TaskTransition {
        timestamp: time.as_nanos().try_into().unwrap(),
        state,
        actor: Actor::Worker,
    };
    let transitions = vec![at(TaskState::ExecutionStart, begun), at(TaskState::ExecutionEnd, begun + ran)];
    TaskResult {
        task_id,
        data: Text::plain("done"),
        details: None,
        error_details: None,
        task_statuses: Some(transitions),
    }
    .encode()
}

#[tokio::test]
async fn health_and_metrics() {
    let mut service = Farcall::prepared();
    service.start_with(&["--set", "metrics.listen=127.0.0.1:0"], &[]);
    assert_eq!(text(&service, "/healthz").await, (200, "alive\n".to_owned()));
    assert_eq!(text(&service, "/readyz").await, (200, "ready\n".to_owned()));
    let client = service.client().await;
    let registration = client.register().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    endpoint.heartbeat(serde_json::json!({"heartbeat_period": 30})).await;
    let function = client.function().await;
    client.submit(registration.id(), &function, 3).await;
    let first = endpoint.take().await;
    let done = timed_result(&first, Duration::from_secs(2), Duration::from_secs(40));
    endpoint.publish("results", &format!("{}.results", registration.id()), &done).await.unwrap();
    endpoint.finish(&first, "again", false).await;
    let second = endpoint.take().await;
    endpoint.finish(&second, "wrong", true).await;

    let (status, page) = text(&service, "/metrics").await;
    assert_eq!(status, 200);
    let up = format!("farcall_endpoint_up{{endpoint=\"{}\"}}", registration.id());
    for (name, expected) in [
        ("farcall_submits_total", 1.0),
        ("farcall_tasks_submitted_total", 3.0),
        ("farcall_tasks_ended_total{outcome=\"success\"}", 1.0),
        ("farcall_tasks_ended_total{outcome=\"failed\"}", 1.0),
        ("farcall_results_late_total", 1.0),
        ("farcall_endpoints", 1.0),
        ("farcall_endpoints_online", 1.0),
        (up.as_str(), 1.0),
        ("farcall_broker_connections", 1.0),
        ("farcall_http_requests_total{status=\"5xx\"}", 0.0),
        ("farcall_task_queue_seconds_count", 1.0),
        ("farcall_task_queue_seconds_bucket{le=\"1\"}", 0.0),
        ("farcall_task_queue_seconds_bucket{le=\"3\"}", 1.0),
        ("farcall_task_run_seconds_sum", 40.0),
        ("farcall_task_run_seconds_bucket{le=\"10\"}", 0.0),
        ("farcall_task_run_seconds_bucket{le=\"60\"}", 1.0),
    ] {
        assert_eq!(metric(&page, name), expected, "{name}");
    }
    let open = metric(&page, "farcall_tasks_open{state=\"waiting\"}")
        + metric(&page, "farcall_tasks_open{state=\"taken\"}");
    assert_eq!(open, 1.0);
    assert!(metric(&page, "farcall_http_request_seconds_count") >= 5.0);
    assert!(!page.contains(&client.id), "nobody is named");

    // A request that a proxy passed on is nobody's of this machine.
    let passed_on = service.request(Method::GET, "/metrics").header("X-Forwarded-For", "192.0.2.1");
    assert_eq!(passed_on.send().await.unwrap().status(), 404);
    // At a door of its own it is told, and nothing else is.
    let inside = service.others[0].strip_prefix("metrics://").unwrap().to_owned();
    let get = |path: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {inside}\r\nForwarded: for=x\r\nConnection: close\r\n\r\n");
        let inside = inside.clone();
        async move {
            let mut stream = TcpStream::connect(inside).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }
    };
    assert!(get("/metrics").await.contains("farcall_submits_total 1"));
    assert!(get("/v2/version").await.starts_with("HTTP/1.1 404"));
}

/// What is logged while a request is worked on carries the id that its answer tells, in either form of the log.
#[tokio::test]
async fn a_request_is_found_in_the_log_by_its_id() {
    for form in ["text", "json"] {
        let service = Farcall::configured(&format!("log:\n  form: {form}\n"));
        let client = service.client().await;
        let function = client.function().await;
        let registration = client.register().await;
        let submitted = client.submit(registration.id(), &function, 1).await;
        let mut endpoint = FakeEndpoint::connect(&registration).await;
        let task = endpoint.take().await;
        endpoint.finish(&task, &"r".repeat(100_000), false).await;
        // Somebody takes a file away.
        service.files().iter().for_each(|file| std::fs::remove_file(file).unwrap());
        let refused = client.get(&format!("/v2/tasks/{}", submitted.tasks[0])).await;
        let id = refused.refused(503, "SERVICE_UNAVAILABLE")["request_id"].as_str().unwrap().to_owned();
        let log = service.read_log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&id)).collect();
        assert!(lines.iter().any(|line| line.contains("a request failed because the store failed")), "{log}");
        assert!(lines.iter().any(|line| line.contains("503") && line.contains("/v2/tasks/")), "{log}");
        // Another request's lines are its own.
        let other = client.get("/v2/endpoints").await.headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(!service.read_log().lines().any(|line| line.contains(&id) && line.contains(&other)));
    }
}

#[test]
fn the_service_manager_hears_how_we_are() {
    let mut service = Farcall::prepared();
    let path = service.file("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let hear = || {
        let mut text = [0; 4096];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    };
    let socket = path.display().to_string();
    service.start_with(&[], &[("NOTIFY_SOCKET", socket.as_str()), ("WATCHDOG_USEC", "300000")]);
    assert_eq!(hear().trim(), "READY=1");
    assert_eq!(hear().trim(), "WATCHDOG=1");
    assert_eq!(hear().trim(), "WATCHDOG=1");
    service.signal(Signal::SIGTERM);
    while hear().trim() != "STOPPING=1" {}
    assert!(service.stop_status().success());
}

/// Of each request the log says who sent it, from where, and how long it took, in the unit of its name.
#[tokio::test]
async fn the_log_says_who_asks_and_from_where() {
    let mut service = Farcall::prepared();
    service.start_with(&["--log-json"], &[]);
    let client = service.client().await;
    client.function().await;
    client.with_token(&"nobody's".into()).get("/v2/endpoints").await;
    service.administer(&["user", "add", "alice@example.org"], "correct horse battery\n");
    assert!(service.stop().success());
    let log = service.read_log();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let requests: Vec<_> = lines.filter(|line| line["fields"]["message"] == "http").collect();
    let of = |path: &str| {
        let found = requests.iter().find(|line| line["fields"]["path"] == path);
        found.unwrap_or_else(|| panic!("{path} is not in the log:\n{log}"))
    };
    let id = serde_json::Value::from(client.id.as_str());
    let nobody = serde_json::Value::Null;
    for (path, identity, application) in [
        ("/v2/oauth2/token", &nobody, &id),
        ("/v3/functions", &id, &nobody),
        ("/v2/endpoints", &nobody, &nobody),
    ] {
        let line = of(path);
        let span = &line["span"];
        assert_eq!((&span["identity"], &span["client"]), (identity, application), "{line}");
        assert_eq!(span["peer"], "127.0.0.1", "{line}");
        assert!(span["id"].as_str().is_some_and(|id| id.len() == 36), "{line}");
        assert!(line["fields"]["took_ms"].as_f64().is_some_and(|took| took > 0.0), "{line}");
    }
}

#[test]
fn a_second_signal_hurries() {
    let mut service = Farcall::start();
    // A request that never ends keeps an orderly stop waiting.
    let mut stream = std::net::TcpStream::connect(service.http.strip_prefix("http://").unwrap()).unwrap();
    let head = "POST /v2/oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    // Told to go on, it is at work.
    let mut answer = [0; 21];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue");
    // Signals that come before the last was heard of are one.
    let began = std::time::Instant::now();
    let status = loop {
        service.signal(Signal::SIGTERM);
        std::thread::sleep(Duration::from_millis(50));
        if let Some(status) = service.ended() {
            break status;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{}", service.read_log());
    };
    assert!(status.success());
    assert!(service.read_log().contains("second stop signal"), "{}", service.read_log());
}
