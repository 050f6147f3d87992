//! Tests of `farcall config` and `farcall doctor`: what they find, and what they say to do about it.

use std::io::Write;
use std::net::TcpListener as Bound;
use std::path::Path;

use crate::support::{Authority, Farcall, farcall};

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
    let address = |url: &str| url.split("://").nth(1).unwrap().to_owned();
    let (http, amqp) = (address(&service.http), address(&service.amqp));
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
    let authority = Authority::new();
    let (certificate, key) = (service.file("certificate.pem"), service.file("key.pem"));
    let authority_file = service.file("authority.pem");
    std::fs::write(&authority_file, authority.pem()).unwrap();
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
    authority.issue(&certificate, &key);
    let trusted =
        format!("ok       trust: clients that trust the authority in {} trust it", authority_file.display());
    let good = ["ok       certificate: it is for localhost", trusted.as_str()];
    std::fs::set_permissions(service.data(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    says(examine("localhost", Some(&authority_file)), Some(0), &good);
    // Nobody trusts it who is not told to; that may be meant so.
    says(examine("localhost", None), Some(0), &["warning  trust: "]);
    // The right authority's name, and another's key.
    let other = service.file("other.pem");
    std::fs::write(&other, Authority::new().pem()).unwrap();
    says(examine("localhost", Some(&other)), Some(1), &["FAIL     trust: ", "do not trust it"]);
    let wrong =
        ["FAIL     certificate: it is not for compute.example.org\n         -> have it issued for it, too"];
    says(examine("compute.example.org", Some(&authority_file)), Some(1), &wrong);
    // One that has ended.
    authority.issue_until(&certificate, &key, 2020);
    let ended = ["has ended, on 2020-01-01", "-> renew it", "FAIL     trust: "];
    says(examine("localhost", Some(&authority_file)), Some(1), &ended);
    // The key of another.
    authority.issue(&service.file("unused.pem"), &key);
    says(
        examine("localhost", Some(&authority_file)),
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
