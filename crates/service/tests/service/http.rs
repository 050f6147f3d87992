//! Tests of HTTP before any route: host names, sizes and forms of requests.

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Farcall, send};

/// Sends `text` as it stands and reads until the connection ends.
async fn raw(service: &Farcall, text: &str) -> String {
    let mut stream = TcpStream::connect(service.http.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn absolute_targets_are_answered_for_our_own_names_only() {
    let service = Farcall::start();
    let get = |target: &str, host: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    let own = raw(&service, &get("http://localhost:5000/v2/version?service=all", "localhost:5000")).await;
    assert!(own.starts_with("HTTP/1.1 200 OK") && own.contains("min_ep_version"), "{own}");
    let discovery = get("http://localhost:5000/.well-known/openid-configuration", "localhost:5000");
    assert!(raw(&service, &discovery).await.contains(r#""jwks_uri":"http://localhost:5000/jwk.json""#));
    for target in
        ["http://example.com/v2/version", "http://localhost:5000@example.com/", "http://169.254.169.254/"]
    {
        let foreign = raw(&service, &get(target, "localhost:5000")).await;
        assert!(foreign.starts_with("HTTP/1.1 421 "), "{target}: {foreign}");
    }
    let connect = "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nConnection: close\r\n\r\n";
    assert!(raw(&service, connect).await.starts_with("HTTP/1.1 421 "));
}

#[tokio::test]
async fn what_is_not_served_has_no_route() {
    let service = Farcall::start();
    let answer = service.get("/v2/nowhere").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.body["http_status_code"], 404);
    assert_eq!(send(service.request(Method::PATCH, "/v2/version")).await.status, 405);
}

#[tokio::test]
async fn bodies_are_held_to_their_limits() {
    let service = Farcall::start();
    let client = service.client().await;
    let large = "x".repeat(17 << 20);
    let body = json!({"function_name": "f", "function_code": large});
    client.post("/v3/functions", body).await.refused(413, "TASK_PAYLOAD_TOO_LARGE");
    // One that says nothing of its length beforehand.
    let mut stream = TcpStream::connect(service.http.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "POST /v3/functions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        client.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(0x10_0000));
    for _ in 0..18 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_long_path_is_cut_in_the_log() {
    let service = Farcall::start();
    let path = format!("/{}{}", "a".repeat(199), "é".repeat(10_000));
    let answer = raw(&service, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let log = service.read_log();
    let line = log.lines().find(|line| line.contains("/aaa")).unwrap();
    assert!(line.contains(&path[..200]) && line.len() < 600, "{line}");
}

#[tokio::test]
async fn a_forwarder_names_a_port_of_the_clients_machine_and_nothing_else() {
    let service = Farcall::start();
    let client = service.client().await;
    let ask = async |port: &str| {
        let request = service.request(Method::GET, "/v2/get_amqp_result_connection_url");
        let answer = send(request.bearer_auth(&client.token).header("farcall-amqp-port", port)).await;
        let url = answer.body["connection_url"].as_str().unwrap_or_default();
        let place = url.rsplit('@').next().unwrap_or_default().to_owned();
        (place, answer.headers.get("farcall-amqp").map(|at| at.to_str().unwrap().to_owned()))
    };
    let really = service.amqp.strip_prefix("amqp://").unwrap();
    let (place, broker) = ask("41000").await;
    assert_eq!((place.as_str(), broker), ("127.0.0.1:41000/%2F", Some(format!("amqp://{really}"))));
    for wrong in ["0", "65536", "-1", "evil.example:5672", "41000@evil.example", "41000/", ""] {
        assert_eq!(ask(wrong).await, (format!("{really}/%2F"), None), "{wrong:?}");
    }
}
