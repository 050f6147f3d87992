//! Environment variables with which the stock SDK reaches a service at any URL. Pure.
//!
//! The stock SDK knows one address of a self-hosted service, `http://localhost:5000`, and accepts no other. A service at
//! another address is reached through `http_proxy`: through a forwarder on the client's own machine
//! ([`connect`](crate::client_side::connect)), or, without verification, through the service itself, for it answers requests in the form
//! that proxies get. Only the addresses of identity and broker may be any.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use axum::http::Uri;
use client::service_address::user_directory;

/// The port of that address.
const KNOWN_PORT: u16 = 5000;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not the URL of a service, such as http://localhost:5000 or https://compute.example.org")]
pub struct NotAService(String);

/// The URL of a service, and how it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl {
    tls: bool,
    host: String,
    port: u16,
    /// The file with the root of a private authority, on the client's machine.
    pub authority: Option<PathBuf>,
}

/// Variables to set and to unset, and notes for the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    pub set: Vec<(&'static str, String)>,
    /// Variables to set to this path below the home directory.
    pub below_home: Vec<(&'static str, String)>,
    pub unset: Vec<&'static str>,
    pub notes: Vec<&'static str>,
}

/// The proxy variables in a client's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The URL of the one for plain HTTP.
    http: Option<String>,
    /// Which hosts are asked without a proxy.
    exempt: Option<String>,
}

impl Proxies {
    /// Reads them from an environment.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let one =
            |names: &[&str]| names.iter().find_map(|name| variable(name)).filter(|value| !value.is_empty());
        Proxies {
            http: one(&["http_proxy", "HTTP_PROXY"]).or_else(|| one(&["all_proxy", "ALL_PROXY"])),
            exempt: one(&["no_proxy", "NO_PROXY"]),
        }
    }

    /// Reads them from this process's environment.
    pub fn here() -> Proxies {
        Proxies::of(|name| std::env::var(name).ok())
    }

    /// The proxy by which hosts are asked without TLS.
    pub fn for_plain_http(&self) -> Option<&str> {
        self.http.as_deref().filter(|_| !self.exempts_everything())
    }

    fn exempt(&self) -> impl Iterator<Item = &str> {
        self.exempt.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty())
    }

    fn exempts_everything(&self) -> bool {
        self.exempt().any(|entry| entry == "*")
    }

    /// `no_proxy` without what exempts the address at which the SDK looks for a service; libraries compare the end of the name.
    fn exempt_for_the_sdk(&self) -> Option<String> {
        let exempts_it = |entry: &str| {
            let end = entry.trim_start_matches('.').to_ascii_lowercase();
            entry == "*" || "localhost".ends_with(&end) || "localhost:5000".ends_with(&end)
        };
        let kept: Vec<_> = self.exempt().filter(|entry| !exempts_it(entry)).collect();
        (!kept.is_empty()).then(|| kept.join(","))
    }
}

impl ServiceUrl {
    pub fn parse(url: &str) -> Result<ServiceUrl, NotAService> {
        let bad = || NotAService(url.to_owned());
        let parsed: Uri = url.parse().map_err(|_| bad())?;
        let tls = match parsed.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad()),
        };
        let authority = parsed.authority().ok_or_else(bad)?;
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() || authority.as_str().contains('@')
        {
            return Err(bad());
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(ServiceUrl { tls, host: authority.host().to_ascii_lowercase(), port, authority: None })
    }

    /// Whether it is on the client's own machine, or at the near end of a tunnel.
    fn local(&self) -> bool {
        let bare = self.host.trim_matches(['[', ']']);
        bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether this is the address at which the SDK looks for a service of one's own: it asks `localhost`, so another loopback
    /// address is another address.
    fn is_where_the_sdk_looks(&self) -> bool {
        !self.tls && self.port == KNOWN_PORT && ["localhost", "127.0.0.1"].contains(&self.host.as_str())
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The port, unless it is the scheme's default.
    fn unusual_port(&self) -> Option<u16> {
        let usual = if self.tls { 443 } else { 80 };
        (self.port != usual).then_some(self.port)
    }

    /// The URL, without a slash at the end.
    pub fn base(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        match self.unusual_port() {
            None => format!("{scheme}://{}", self.host),
            Some(port) => format!("{scheme}://{}:{port}", self.host),
        }
    }

    /// The SDK's directory for this service, below the home directory.
    pub fn user_directory(&self) -> String {
        user_directory(&self.host, self.unusual_port())
    }

    /// Whether requests and tokens stay on this machine, as far as the URL tells.
    pub fn is_safe_without_a_forwarder(&self) -> bool {
        self.local() && !self.tls
    }

    /// For a client that reaches the service by a forwarder on its own machine, whose URL `proxy` is, in an environment that
    /// names these proxies.
    pub fn through(&self, proxy: String, proxies: &Proxies) -> Variables {
        let base = self.base();
        let mut it = Variables::default();
        it.set.push(("GLOBUS_SDK_ENVIRONMENT", "local".to_owned()));
        // Logins go directly to the service, with verification: a browser must reach it at this address, too.
        it.set.push(("GLOBUS_SDK_SERVICE_URL_AUTH", format!("{base}/")));
        it.set.push(("FARCALL_SERVICE_URL", base));
        it.set.push(("http_proxy", proxy));
        it.below_home.push(("GLOBUS_COMPUTE_USER_DIR", self.user_directory()));
        it.unset.extend(["HTTP_PROXY", "NO_PROXY"]);
        match proxies.exempt_for_the_sdk() {
            Some(exempt) => it.set.push(("no_proxy", exempt)),
            None => it.unset.push("no_proxy"),
        }
        if proxies.exempts_everything() {
            // `no_proxy=*` is gone, and they would be used.
            it.unset.extend(["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]);
        }
        if let Some(authority) = &self.authority {
            it.set.push(("GLOBUS_SDK_VERIFY_SSL", authority.display().to_string()));
        }
        it
    }

    /// The variables for a client without a forwarder, in an environment with these proxies.
    pub fn variables(&self, proxies: &Proxies) -> Variables {
        let mut it = Variables::default();
        let base = self.base();
        let known = self.is_where_the_sdk_looks();
        it.set.push(("GLOBUS_SDK_ENVIRONMENT", "local".to_owned()));
        let auth = if known { "http://localhost:5000".to_owned() } else { base.clone() };
        // Clients append paths to it unchanged.
        it.set.push(("GLOBUS_SDK_SERVICE_URL_AUTH", format!("{auth}/")));
        it.set.push(("FARCALL_SERVICE_URL", base.clone()));
        it.below_home.push(("GLOBUS_COMPUTE_USER_DIR", self.user_directory()));
        if known {
            it.notes.push("The service is where the SDK looks for it.");
            if proxies.http.is_some() {
                // The other proxy would receive requests for localhost, and with them the token.
                let exempt = ["localhost", "127.0.0.1"].into_iter().chain(proxies.exempt.as_deref());
                it.set.push(("no_proxy", exempt.collect::<Vec<_>>().join(",")));
                it.unset.push("NO_PROXY");
            }
            return it;
        }
        it.notes.push("The SDK reaches the service as a proxy for http://localhost:5000.");
        it.set.push(("http_proxy", base));
        // Another spelling would take precedence, or exempt localhost.
        it.unset.extend(["HTTP_PROXY", "NO_PROXY"]);
        if self.tls || self.local() {
            it.unset.push("no_proxy");
        } else {
            // Requests to the identity service go directly to it.
            it.set.push(("no_proxy", self.host.clone()));
        }
        if self.tls {
            it.notes.push(
                "INSECURE: the SDK's HTTP library does not verify the certificate of a proxy. Use `farcall connect` instead.",
            );
        }
        if let Some(authority) = &self.authority {
            let authority = authority.display().to_string();
            it.notes
                .push("The private authority: for HTTPS, and for AMQPS and everything else in this shell.");
            it.set.push(("GLOBUS_SDK_VERIFY_SSL", authority.clone()));
            it.set.push(("SSL_CERT_FILE", authority));
        }
        it
    }
}

impl Variables {
    /// The shell setup.
    pub fn script(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        for note in &self.notes {
            let _ = writeln!(text, "# {note}");
        }
        for (name, value) in &self.set {
            let _ = writeln!(text, "export {name}={}", quoted(value));
        }
        for (name, path) in &self.below_home {
            let _ = writeln!(text, "export {name}=\"$HOME\"/{}", quoted(path));
        }
        if !self.unset.is_empty() {
            let _ = writeln!(text, "unset {}", self.unset.join(" "));
        }
        text
    }

    /// Sets the variables for a program to be started, by a user with this home directory.
    pub fn apply(&self, command: &mut tokio::process::Command, home: Option<&Path>) {
        for name in &self.unset {
            command.env_remove(name);
        }
        command.envs(self.set.iter().map(|(name, value)| (name, value)));
        if let Some(home) = home {
            command.envs(self.below_home.iter().map(|(name, path)| (name, home.join(path))));
        }
    }
}

/// Quotes any text as one word of a shell.
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
        variables.set.iter().find(|(of, _)| *of == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn every_case() {
        // URL, auth base, proxy, exemption
        let table = [
            ("http://localhost:5000", "http://localhost:5000/", None, None),
            ("http://127.0.0.1:5000/", "http://localhost:5000/", None, None),
            ("http://localhost:5001", "http://localhost:5001/", Some("http://localhost:5001"), None),
            // The SDK looks at localhost, where somebody else may listen.
            ("http://127.0.0.2:5000", "http://127.0.0.2:5000/", Some("http://127.0.0.2:5000"), None),
            ("http://[::1]:5000", "http://[::1]:5000/", Some("http://[::1]:5000"), None),
            ("https://localhost:5000", "https://localhost:5000/", Some("https://localhost:5000"), None),
            (
                "http://compute.example.org:5000",
                "http://compute.example.org:5000/",
                Some("http://compute.example.org:5000"),
                Some("compute.example.org"),
            ),
            (
                "https://Compute.example.org:443",
                "https://compute.example.org/",
                Some("https://compute.example.org"),
                None,
            ),
            (
                "http://[2001:db8::1]",
                "http://[2001:db8::1]/",
                Some("http://[2001:db8::1]"),
                Some("[2001:db8::1]"),
            ),
        ];
        for (url, auth, proxy, exempt) in table {
            let variables = ServiceUrl::parse(url).unwrap().variables(&Proxies::default());
            assert_eq!(value(&variables, "GLOBUS_SDK_ENVIRONMENT"), Some("local"));
            assert_eq!(value(&variables, "GLOBUS_SDK_SERVICE_URL_AUTH"), Some(auth), "{url}");
            assert_eq!(value(&variables, "http_proxy"), proxy, "{url}");
            assert_eq!(value(&variables, "no_proxy"), exempt, "{url}");
            assert_eq!(value(&variables, "SSL_CERT_FILE"), None, "{url}");
        }
    }

    #[test]
    fn a_proxy_that_is_there_does_not_stand_before_this_machine() {
        let of = |held: &[(&str, &str)]| {
            let held = |name: &str| Some(held.iter().find(|(of, _)| *of == name)?.1.to_owned());
            ServiceUrl::parse("http://localhost:5000").unwrap().variables(&Proxies::of(held))
        };
        type Held = [(&'static str, &'static str)];
        let table: [(&Held, Option<&str>); 5] = [
            (&[], None),
            (&[("no_proxy", "a")], None),
            (&[("http_proxy", "http://p")], Some("localhost,127.0.0.1")),
            (
                &[("HTTP_PROXY", "http://p"), ("NO_PROXY", ".example.org")],
                Some("localhost,127.0.0.1,.example.org"),
            ),
            (
                &[("all_proxy", "http://p"), ("no_proxy", "a,b"), ("NO_PROXY", "c")],
                Some("localhost,127.0.0.1,a,b"),
            ),
        ];
        for (held, exempt) in table {
            let variables = of(held);
            assert_eq!(value(&variables, "no_proxy"), exempt, "{held:?}");
            assert_eq!(value(&variables, "http_proxy"), None, "{held:?}");
            assert_eq!(variables.unset.contains(&"NO_PROXY"), exempt.is_some(), "{held:?}");
        }
    }

    #[test]
    fn a_private_authority() {
        let mut reach = ServiceUrl::parse("https://compute.example.org").unwrap();
        reach.authority = Some("/etc/it's/ca.pem".into());
        let variables = reach.variables(&Proxies::default());
        assert_eq!(value(&variables, "GLOBUS_SDK_VERIFY_SSL"), Some("/etc/it's/ca.pem"));
        let script = variables.script();
        assert!(script.contains(r"export SSL_CERT_FILE='/etc/it'\''s/ca.pem'"), "{script}");
        assert!(script.ends_with("unset HTTP_PROXY NO_PROXY no_proxy\n"), "{script}");
    }

    #[test]
    fn by_a_forwarder() {
        let mut reach = ServiceUrl::parse("https://Compute.example.org:8443/").unwrap();
        reach.authority = Some("/etc/ca.pem".into());
        let proxy = "http://farcall:secret@127.0.0.1:41000";
        insta::assert_snapshot!(reach.through(proxy.into(), &Proxies::default()).script(), @r#"
        export GLOBUS_SDK_ENVIRONMENT='local'
        export GLOBUS_SDK_SERVICE_URL_AUTH='https://compute.example.org:8443/'
        export FARCALL_SERVICE_URL='https://compute.example.org:8443'
        export http_proxy='http://farcall:secret@127.0.0.1:41000'
        export GLOBUS_SDK_VERIFY_SSL='/etc/ca.pem'
        export GLOBUS_COMPUTE_USER_DIR="$HOME"/'.farcall/compute.example.org_8443'
        unset HTTP_PROXY NO_PROXY no_proxy
        "#);
    }

    #[test]
    fn the_forwarder_is_asked_for_the_service_and_not_for_exempt_hosts() {
        // no_proxy outside and inside, and whether other proxies go
        let table = [
            ("localhost", None, false),
            ("localhost,127.0.0.1, .example.org ,", Some("127.0.0.1,.example.org"), false),
            (".localhost,localhost:5000,HOST,10.0.0.0/8", Some("10.0.0.0/8"), false),
            ("*", None, true),
        ];
        for (outside, inside, others_go) in table {
            let proxies = Proxies::of(|name| (name == "no_proxy").then(|| outside.to_owned()));
            let reach = ServiceUrl::parse("http://127.0.0.1:5001").unwrap();
            let variables = reach.through("http://p".into(), &proxies);
            assert_eq!(value(&variables, "no_proxy"), inside, "{outside}");
            assert_eq!(variables.unset.contains(&"no_proxy"), inside.is_none(), "{outside}");
            assert_eq!(variables.unset.contains(&"https_proxy"), others_go, "{outside}");
        }
    }

    #[test]
    fn what_needs_a_forwarder() {
        let table = [
            ("http://localhost:5000", true),
            ("http://127.0.0.1:5001", true),
            ("http://[::1]:5001", true),
            ("https://localhost:5000", false),
            ("http://compute.example.org:5000", false),
            ("https://compute.example.org", false),
        ];
        for (url, safe) in table {
            assert_eq!(ServiceUrl::parse(url).unwrap().is_safe_without_a_forwarder(), safe, "{url}");
        }
    }

    #[test]
    fn what_is_no_service() {
        for url in [
            "",
            "localhost:5000",
            "ftp://a",
            "http://",
            "http://a/b",
            "http://a?b",
            "http://me@a",
            "amqp://a",
        ] {
            assert!(ServiceUrl::parse(url).is_err(), "{url}");
        }
    }
}
