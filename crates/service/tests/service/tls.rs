//! Tests of TLS: one port for all protocols, and certificates that are renewed while the service runs.

use std::net::{SocketAddr, TcpListener as Bound};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Authority, FakeEndpoint, Farcall, until};

/// A service whose one port speaks everything.
fn one_port() -> (Farcall, Authority, SocketAddr) {
    let mut service = Farcall::prepared();
    let authority = Authority::new();
    authority.issue(&service.file("certificate.pem"), &service.file("key.pem"));
    // The port must be known beforehand to be the same in all lists.
    let address = Bound::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    (service.http, service.amqp) = (format!("http://{address}"), format!("amqp://{address}"));
    let file = |name: &str| service.file(name).display().to_string();
    let set = [
        format!("http.tls_listen={address}"),
        format!("amqp.tls_listen={address}"),
        format!("tls.certificate={}", file("certificate.pem")),
        format!("tls.key={}", file("key.pem")),
        "amqp.public_host=localhost".to_owned(),
    ];
    let arguments: Vec<&str> = set.iter().flat_map(|it| ["--set", it.as_str()]).collect();
    service.start_with(&arguments, &[]);
    (service, authority, address)
}

#[tokio::test]
async fn one_port_speaks_everything() {
    let (service, authority, address) = one_port();
    // Plain HTTP and plain AMQP.
    let client = service.client().await;
    let registration = client.register().await;
    assert!(registration.url().starts_with("amqp://"), "as the request came");
    FakeEndpoint::connect(&registration).await.leave().await;
    // HTTP inside TLS, where the broker is told to be found inside TLS, too.
    let mut stream = authority.connect(address).await;
    let token = &client.token;
    let request = format!(
        "GET /v2/get_amqp_result_connection_url HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\"connection_url\":\"amqps://client."), "{answer}");
    assert!(answer.contains(&format!("@localhost:{}/%2F", address.port())), "{answer}");
    // AMQP inside TLS: the first frame is Connection.Start.
    let mut stream = authority.connect(address).await;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.unwrap();
    let mut frame = [0; 11];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!((frame[0], &frame[7..11]), (1, &[0, 10, 0, 10][..]));
}

#[tokio::test]
async fn certificates_are_read_anew() {
    let (service, authority, address) = one_port();
    let (certificate, key) = (service.file("certificate.pem"), service.file("key.pem"));
    let first = authority.shown(address).await;
    // As a file that changes, at once whole.
    let (new_certificate, new_key) = (service.file("new-certificate"), service.file("new-key"));
    let second = authority.issue(&new_certificate, &new_key);
    std::fs::rename(&new_key, &key).unwrap();
    std::fs::rename(&new_certificate, &certificate).unwrap();
    until("the new certificate", async || (authority.shown(address).await == second).then_some(())).await;
    assert_ne!(first, second);
    // A bad one is told of, and the old one stays; SIGHUP asks at once.
    std::fs::write(&certificate, "nothing").unwrap();
    service.signal(Signal::SIGHUP);
    let refused = "the new certificate can't be used: keeping the old one";
    until(refused, async || service.read_log().contains(refused).then_some(())).await;
    assert_eq!(authority.shown(address).await, second);
}
