//! Tests of what operators rely on: health, metrics, listeners, certificates, signals.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener as Bound};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use reqwest::Method;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wire::Text;
use wire::message::{Actor, TaskResult, TaskState, TaskTransition};

use crate::support::{FakeEndpoint, Farcall, farcall, until};

/// The number of a figure on the page.
fn figure(page: &str, name: &str) -> f64 {
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
async fn health_and_figures() {
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
        assert_eq!(figure(&page, name), expected, "{name}");
    }
    let open = figure(&page, "farcall_tasks_open{state=\"waiting\"}")
        + figure(&page, "farcall_tasks_open{state=\"taken\"}");
    assert_eq!(open, 1.0);
    assert!(figure(&page, "farcall_http_request_seconds_count") >= 5.0);
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

/// Authorities and certificates for a test.
struct Pki {
    authority: Issuer<'static, KeyPair>,
    root: rcgen::Certificate,
}

impl Pki {
    fn new() -> Pki {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = parameters.self_signed(&key).unwrap();
        Pki { authority: Issuer::new(parameters, key), root }
    }

    /// Writes a certificate for `localhost` and its key; the certificate.
    fn issue(&self, certificate: &Path, key: &Path) -> CertificateDer<'static> {
        self.issue_until(certificate, key, 4000)
    }

    /// The authority's certificate.
    fn pem(&self) -> String {
        self.root.pem()
    }

    /// The same, good until the beginning of that year.
    fn issue_until(&self, certificate: &Path, key: &Path, year: i32) -> CertificateDer<'static> {
        let pair = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        parameters.use_authority_key_identifier_extension = true;
        let made = parameters.signed_by(&pair, &self.authority).unwrap();
        std::fs::write(key, pair.serialize_pem()).unwrap();
        std::fs::write(certificate, made.pem()).unwrap();
        made.der().clone()
    }

    /// A connection that trusts this authority only.
    async fn connect(&self, address: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    async fn shown(&self, address: SocketAddr) -> CertificateDer<'static> {
        let stream = self.connect(address).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

/// A service whose one port speaks everything.
fn one_port() -> (Farcall, Pki, SocketAddr) {
    let mut service = Farcall::prepared();
    let pki = Pki::new();
    pki.issue(&service.file("certificate.pem"), &service.file("key.pem"));
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
    (service, pki, address)
}

#[tokio::test]
async fn one_port_speaks_everything() {
    let (service, pki, address) = one_port();
    // Plain HTTP and plain AMQP.
    let client = service.client().await;
    let registration = client.register().await;
    assert!(registration.url().starts_with("amqp://"), "as the request came");
    FakeEndpoint::connect(&registration).await.leave().await;
    // HTTP inside TLS, where the broker is told to be found inside TLS, too.
    let mut stream = pki.connect(address).await;
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
    let mut stream = pki.connect(address).await;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.unwrap();
    let mut frame = [0; 11];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!((frame[0], &frame[7..11]), (1, &[0, 10, 0, 10][..]));
}

#[tokio::test]
async fn certificates_are_read_anew() {
    let (service, pki, address) = one_port();
    let (certificate, key) = (service.file("certificate.pem"), service.file("key.pem"));
    let first = pki.shown(address).await;
    // As a file that changes, at once whole.
    let (new_certificate, new_key) = (service.file("new-certificate"), service.file("new-key"));
    let second = pki.issue(&new_certificate, &new_key);
    std::fs::rename(&new_key, &key).unwrap();
    std::fs::rename(&new_certificate, &certificate).unwrap();
    until("the new certificate", async || (pki.shown(address).await == second).then_some(())).await;
    assert_ne!(first, second);
    // A bad one is told of, and the old one stays; SIGHUP asks at once.
    std::fs::write(&certificate, "nothing").unwrap();
    service.signal(Signal::SIGHUP);
    let refused = "the new certificate can't be used: keeping the old one";
    until(refused, async || service.read_log().contains(refused).then_some(())).await;
    assert_eq!(pki.shown(address).await, second);
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

#[test]
fn the_configuration_is_checked_and_printed() {
    let service = Farcall::prepared();
    std::fs::create_dir(service.data()).unwrap();
    let file = service.data().join("farcall.yaml");
    std::fs::write(&file, "amqp:\n  public_host: compute.example.org\n").unwrap();
    let free = ["config", "check", "--set", "http.listen=127.0.0.1:0", "--set", "amqp.listen=127.0.0.1:0"];
    assert!(farcall(&service.data(), &free).status.success());
    let printed = farcall(&service.data(), &["config", "print", "--set", "http.listen=127.0.0.1:8080"]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("  listen: [\"127.0.0.1:8080\"]  # --set http.listen\n"), "{printed}");
    assert!(
        printed.contains(&format!("  public_host: \"compute.example.org\"  # {}\n", file.display())),
        "{printed}"
    );
    assert!(printed.contains("  public_port: null  # default\n"), "{printed}");

    std::fs::write(&file, "amqp:\n  public_hots: compute.example.org\n").unwrap();
    let refused = farcall(&service.data(), &["config", "check"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("there is no amqp.public_hots; did you mean amqp.public_host?"), "{said}");

    // Everything that is wrong, at once.
    let taken = Bound::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = Bound::bind(taken).unwrap();
    for (yaml, expected) in [
        (
            "http: {public_names: ['https://c.example']}\nlimits: {payload_bytes: 0}\nlog: {filter: inof}\n"
                .to_owned(),
            vec![
                "3 problems were found:\n".to_owned(),
                "http.public_names: \"https://c.example\" is not a name and a port: write c.example:443\n"
                    .to_owned(),
                "limits.payload_bytes: 0 means nothing here: ".to_owned(),
                "log.filter: \"inof\" is no level: ".to_owned(),
            ],
        ),
        (
            format!("http: {{listen: '{taken}'}}\ntls: {{certificate: c.pem, key: k.pem}}\n"),
            vec![
                "2 problems were found:\n".to_owned(),
                format!("cannot read {}", service.data().join("c.pem").display()),
                format!("{taken} is in use\n    -> stop what listens there"),
            ],
        ),
    ] {
        std::fs::write(&file, yaml).unwrap();
        let refused = farcall(&service.data(), &["config", "check", "--set", "amqp.listen=127.0.0.1:0"]);
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8(refused.stderr).unwrap();
        expected.iter().for_each(|line| assert!(said.contains(line), "{line}\n{said}"));
    }
    drop(holder);
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_how_to_mend_it() {
    use std::os::unix::fs::PermissionsExt;
    let mut service = Farcall::start();
    let place = |url: &str| url.split("://").nth(1).unwrap().to_owned();
    let (http, amqp) = (place(&service.http), place(&service.amqp));
    let listen = [format!("http.listen={http}"), format!("amqp.listen={amqp}")];
    let examine = |service: &Farcall, more: &[&str]| {
        let mut arguments = vec!["doctor", "--set", &listen[0], "--set", &listen[1]];
        arguments.extend(more);
        let done = service.command(&arguments);
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (status, said) = examine(&service, &[]);
    assert_eq!(status, Some(0), "{said}");
    for expected in [
        format!("ok       http: {http} is ready"),
        format!("ok       broker: {amqp} greets"),
        "ok       database: ".to_owned(),
        "ok       data directory: ".to_owned(),
        format!("only this machine is served; clients set what `farcall env http://{http}` prints"),
    ] {
        assert!(said.contains(&expected), "{expected}\n{said}");
    }
    assert!(service.stop().success());

    // Somebody else has the port, the directory is open, and there is no certificate.
    let _taken = Bound::bind(&http).unwrap();
    std::fs::set_permissions(service.data(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (status, said) = examine(&service, &["--set", "tls.certificate=c.pem", "--set", "tls.key=k.pem"]);
    assert_eq!(status, Some(1), "{said}");
    for expected in [
        format!("FAIL     port: {http} is in use\n         -> stop what listens there"),
        format!("ok       port: {amqp} is free"),
        "is open to others\n         -> chmod 700".to_owned(),
        "FAIL     certificate: cannot read".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected}\n{said}");
    }

    // A file that is no database.
    if service.database_url().is_none() {
        let text = "not a database, and long enough to have a header".repeat(100);
        std::fs::write(service.data().join("farcall.db"), text).unwrap();
        let (status, said) = examine(&service, &[]);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("FAIL     database: "), "{said}");
    }

    let refused = service.command(&["doctor", "--set", "http.lisen=x"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stdout).unwrap().contains("did you mean http.listen?"));
}

/// What the doctor says of a certificate, from the command line: its end, its names, and whether clients trust it.
#[test]
fn the_doctor_looks_at_the_certificate_as_clients_do() {
    let service = Farcall::prepared();
    std::fs::create_dir(service.data()).unwrap();
    let pki = Pki::new();
    let (certificate, key) = (service.file("certificate.pem"), service.file("key.pem"));
    let authority = service.file("authority.pem");
    std::fs::write(&authority, pki.pem()).unwrap();
    let set = [
        format!("tls.certificate={}", certificate.display()),
        format!("tls.key={}", key.display()),
        "http.listen=127.0.0.1:0".to_owned(),
        "amqp.listen=127.0.0.1:0".to_owned(),
    ];
    let examine = |host: &str, ca: Option<&Path>| {
        let host = format!("amqp.public_host={host}");
        let mut arguments = vec!["doctor", "--set", &host];
        arguments.extend(set.iter().flat_map(|it| ["--set", it.as_str()]));
        let ca = ca.map(|path| path.display().to_string());
        arguments.extend(ca.iter().flat_map(|ca| ["--ca", ca.as_str()]));
        let done = farcall(&service.data(), &arguments);
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let says = |(status, said): (Option<i32>, String), wanted: Option<i32>, lines: &[&str]| {
        assert_eq!(status, wanted, "{said}");
        lines.iter().for_each(|line| assert!(said.contains(line), "{line}\n{said}"));
    };
    pki.issue(&certificate, &key);
    let trusted =
        format!("ok       trust: clients that trust the authority in {} trust it", authority.display());
    let good = ["ok       certificate: it is for localhost", trusted.as_str()];
    std::fs::set_permissions(service.data(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    says(examine("localhost", Some(&authority)), Some(0), &good);
    // Nobody trusts it who is not told to; that may be meant so.
    says(examine("localhost", None), Some(0), &["warning  trust: "]);
    // The right authority's name, and another's key.
    let other = service.file("other.pem");
    std::fs::write(&other, Pki::new().pem()).unwrap();
    says(examine("localhost", Some(&other)), Some(1), &["FAIL     trust: ", "do not trust it"]);
    let wrong =
        ["FAIL     certificate: it is not for compute.example.org\n         -> have it issued for it, too"];
    says(examine("compute.example.org", Some(&authority)), Some(1), &wrong);
    // One that has ended.
    pki.issue_until(&certificate, &key, 2020);
    let ended = ["has ended, on 2020-01-01", "-> renew it", "FAIL     trust: "];
    says(examine("localhost", Some(&authority)), Some(1), &ended);
    // The key of another.
    pki.issue(&service.file("unused.pem"), &key);
    says(
        examine("localhost", Some(&authority)),
        Some(1),
        &["FAIL     certificate: ", "cannot be used together"],
    );
}

/// The service runs, and not with the settings that the doctor is given; or somebody else has its broker's port.
#[test]
fn the_doctor_asks_who_answers() {
    let service = Farcall::start();
    let stranger = Bound::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in stranger.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let http = format!("http.listen={}", service.http.split("://").nth(1).unwrap());
    let amqp = format!("amqp.listen={address}");
    let examine = || {
        let done = service.command(&["doctor", "--set", &http, "--set", &amqp]);
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (status, said) = examine();
    assert_eq!(status, Some(0), "{said}");
    let listens = service.amqp.split("://").nth(1).unwrap();
    let other =
        format!("warning  settings: the service runs with other settings than these: amqp at {listens}");
    assert!(said.contains(&other) && said.contains(&format!("ok       broker: {listens} greets")), "{said}");

    let addresses = format!("{{\"http\": \"{}\", \"amqp\": \"amqp://{address}\"}}", service.http);
    std::fs::write(service.data().join("addresses.json"), addresses).unwrap();
    let (status, said) = examine();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&format!("FAIL     broker: {address} answers, and is no broker")), "{said}");
    assert!(said.contains(" is ready\n"), "{said}");
}
