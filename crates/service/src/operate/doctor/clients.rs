//! Checks the addresses that clients and endpoints get, and names the command by which clients reach the service. Pure
//! functions.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Finding, passed, warning};
use crate::client_side::environment::ServiceUrl;
use crate::operate::config::Config;

const OF: &str = "clients";

/// Where the service listens while it runs, by protocol: what `addresses.json` says.
pub(super) type Running = BTreeMap<String, String>;

/// `refused`: clients refuse the certificate.
pub(super) fn outside(config: &Config, running: Option<&Running>, refused: bool) -> Finding {
    let reachable = |address: &SocketAddr| !address.ip().is_loopback();
    let open = |list: &[SocketAddr]| list.iter().any(reachable);
    let http = open(&config.http.listen.0) || open(&config.http.tls_listen.0);
    let amqp = open(&config.amqp.listen.0) || open(&config.amqp.tls_listen.0);
    let named = config.http.public_names.first();
    let url = named.map(|name| url(config, name));
    match (&config.amqp.public_host, http, amqp, url) {
        (None, false, false, None) => here(config, running),
        (None, true, false, _) => warning(
            OF,
            "others reach HTTP, but not the broker",
            "set amqp.listen or amqp.tls_listen; behind a proxy or tunnel amqp.public_host and amqp.public_port",
        ),
        (None, ..) => warning(
            OF,
            "the addresses of the broker follow from how each request arrives",
            "set amqp.public_host to the name by which others reach this machine",
        ),
        (Some(host), .., Some(url)) if refused && url.starts_with("https:") => {
            let seen = format!("they go to {url}, and refuse its certificate; the broker is at {host}");
            warning(OF, seen, "repair what the checks certificate and trust report")
        }
        (Some(host), .., Some(url)) => match leading(&url) {
            Some(command) => {
                let seen =
                    format!("they go to {url} (`farcall {command} {url}` says how); the broker is at {host}");
                passed(OF, seen)
            }
            None => warning(
                OF,
                format!("they go to {url}, without TLS: anybody in between can take their tokens"),
                "listen at http.tls_listen and amqp.tls_listen, with a certificate; or serve this machine only",
            ),
        },
        (Some(host), true, _, None) => warning(
            OF,
            format!("they find the broker at {host}; pages to sign in are shown under localhost only"),
            format!("add {host} with its port for HTTP to http.public_names"),
        ),
        (Some(host), false, _, None) => warning(
            OF,
            format!("they find the broker at {host}, and nothing says where they reach HTTP"),
            "set http.public_names to the name and port of the proxy or tunnel, or listen where others reach it",
        ),
    }
}

/// The command by which clients reach `url`. None if no command does so safely.
fn leading(url: &str) -> Option<&'static str> {
    let reach = ServiceUrl::parse(url).ok()?;
    match (reach.is_safe_without_a_forwarder(), reach.tls()) {
        (true, _) => Some("env"),
        (false, true) => Some("connect"),
        (false, false) => None,
    }
}

/// For clients on this machine.
fn here(config: &Config, running: Option<&Running>) -> Finding {
    let listening = |name: &str, addresses: &[SocketAddr]| match running {
        Some(running) => running.get(name).cloned(),
        None => addresses.first().map(|address| format!("{name}://{address}")),
    };
    let url = listening("http", &config.http.listen.0).or(listening("https", &config.http.tls_listen.0));
    let url = url.unwrap_or_default();
    // The one address that the stock SDK knows by itself.
    let url = if url == "http://127.0.0.1:5000" { "http://localhost:5000".to_owned() } else { url };
    match url.ends_with(":0") || url.is_empty() {
        true => passed(
            OF,
            "only this machine is served, at another port after each start; `farcall env --data-dir DIR` says which",
        ),
        false if leading(&url) == Some("connect") => passed(
            OF,
            format!("only this machine is served; clients run their programs by `farcall connect {url}`"),
        ),
        false => {
            passed(OF, format!("only this machine is served; clients set what `farcall env {url}` prints"))
        }
    }
}

/// The URL of a public name, `host:port`.
fn url(config: &Config, name: &str) -> String {
    let port = name.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
    let listens = |list: &[SocketAddr]| list.iter().any(|address| address.port() == port);
    let tls = match port {
        443 => true,
        80 => false,
        _ if listens(&config.http.tls_listen.0) => true,
        _ if listens(&config.http.listen.0) => false,
        _ => !config.http.tls_listen.0.is_empty() || config.amqp.public_tls == Some(true),
    };
    match (tls, port) {
        (true, 443) => format!("https://{}", name.trim_end_matches(":443")),
        (false, 80) => format!("http://{}", name.trim_end_matches(":80")),
        (true, _) => format!("https://{name}"),
        (false, _) => format!("http://{name}"),
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::operate::config::Setting;
    use crate::operate::doctor::CheckResult::{Passed, Warning};

    #[test]
    fn where_clients_are_sent() {
        const TLS: &str = "tls.certificate=c tls.key=k";
        let table = [
            ("", Passed, "clients set what `farcall env http://localhost:5000` prints"),
            ("http.listen=127.0.0.1:5001", Passed, "`farcall env http://127.0.0.1:5001`"),
            (
                "http.listen=[] http.tls_listen=127.0.0.1:443",
                Passed,
                "by `farcall connect https://127.0.0.1:443`",
            ),
            ("http.listen=127.0.0.1:0", Passed, "another port after each start"),
            ("http.listen=0.0.0.0:5000", Warning, "others reach HTTP, but not the broker"),
            ("http.listen=0.0.0.0:5000 amqp.listen=0.0.0.0:5672", Warning, "follow from how each request"),
            (
                "http.listen=0.0.0.0:5000 amqp.listen=0.0.0.0:5672 amqp.public_host=c.example",
                Warning,
                "pages to sign in are shown under localhost only",
            ),
            ("amqp.public_host=c.example", Warning, "nothing says where they reach HTTP"),
            (
                "amqp.public_host=c.example http.public_names=[c.example:443]",
                Passed,
                "they go to https://c.example (`farcall connect https://c.example` says how)",
            ),
            (
                "amqp.public_host=c.example http.public_names=[c.example:8443] http.tls_listen=0.0.0.0:8443",
                Passed,
                "they go to https://c.example:8443 ",
            ),
            (
                "amqp.public_host=c.example http.public_names=[c.example:5000] http.listen=0.0.0.0:5000",
                Warning,
                "they go to http://c.example:5000, without TLS",
            ),
            (
                "amqp.public_host=c.example http.public_names=[c.example:80]",
                Warning,
                "they go to http://c.example, without TLS",
            ),
        ];
        let directory = tempfile::tempdir().unwrap();
        let no_file = directory.path().join("farcall.yaml");
        for (settings, result, said) in table {
            let settings = settings.split_whitespace().chain(TLS.split_whitespace());
            let laid = settings.clone().map(|text| Setting::from_flag(text).unwrap());
            let config = Config::load(&no_file, laid).unwrap().config;
            let found = outside(&config, None, false);
            let settings: Vec<_> = settings.collect();
            assert!(found.result == result && found.seen.contains(said), "{settings:?}: {found}");
        }
    }

    #[test]
    fn what_runs_and_what_is_refused() {
        let running = Running::from([("http".to_owned(), "http://127.0.0.1:41234".to_owned())]);
        let found = outside(&Config::default(), Some(&running), false);
        assert!(found.seen.contains("`farcall env http://127.0.0.1:41234`"), "{found}");
        let mut config = Config::default();
        config.amqp.public_host = Some("c.example".into());
        config.http.public_names = vec!["c.example:443".into()];
        let found = outside(&config, Some(&running), true);
        assert!(found.result == Warning && found.seen.contains("refuse its certificate"), "{found}");
    }
}
