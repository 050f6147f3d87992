//! What the stock SDK and our endpoint need in their environment to find a service on this machine. Pure.

use std::fmt::Write as _;

use wire::EndpointId;

use super::service::Local;
use super::{ClientIdentity, Place};

/// The SDK knows one address of a service of one's own by heart.
const KNOWN_PORT: u16 = 5000;

/// Variables, and their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    set: Vec<(&'static str, String)>,
    unset: &'static [&'static str],
}

impl Environment {
    pub(super) fn new(addresses: Local, identity: &ClientIdentity, place: &Place) -> Environment {
        let port = addresses.http.port();
        let origin = format!("http://127.0.0.1:{port}");
        let mut set = vec![
            ("FARCALL_SERVICE_URL", origin.clone()),
            ("FARCALL_AMQP_PORT", addresses.amqp.port().to_string()),
            ("GLOBUS_SDK_ENVIRONMENT", "local".to_owned()),
            ("GLOBUS_SDK_SERVICE_URL_AUTH", format!("http://localhost:{port}/")),
            ("GLOBUS_COMPUTE_CLIENT_ID", identity.client_id.clone()),
            ("GLOBUS_COMPUTE_CLIENT_SECRET", identity.client_secret.clone()),
            ("GLOBUS_COMPUTE_USER_DIR", place.endpoints().display().to_string()),
        ];
        let mut unset: &[&str] = &[];
        if port != KNOWN_PORT {
            // At any other port we are reached as a proxy to the one it knows, so no exemption may stand.
            set.push(("http_proxy", origin));
            unset = &["no_proxy", "NO_PROXY", "HTTP_PROXY"];
        }
        Environment { set, unset }
    }

    pub(super) fn endpoint(&mut self, id: EndpointId) {
        self.set.push(("FARCALL_ENDPOINT_ID", id.to_string()));
    }

    /// What a shell evaluates.
    pub fn script(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.set {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "export {name}={}", quoted(value));
        }
        if !self.unset.is_empty() {
            let _ = writeln!(text, "unset {}", self.unset.join(" "));
        }
        text
    }

    pub fn apply(&self, command: &mut tokio::process::Command) {
        for name in self.unset {
            command.env_remove(name);
        }
        command.envs(self.set.iter().map(|(name, value)| (name, value)));
    }
}

/// One word of a shell, whatever it holds.
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(http: &str) -> String {
        let addresses = Local { http: http.parse().unwrap(), amqp: "127.0.0.1:5672".parse().unwrap() };
        let identity = ClientIdentity { client_id: "the-id".into(), client_secret: "the-secret".into() };
        let place = Place { root: "/data of o'brien/up".into() };
        let mut environment = Environment::new(addresses, &identity, &place);
        environment.endpoint("e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap());
        environment.script()
    }

    #[test]
    fn at_the_port_that_the_sdk_knows() {
        insta::assert_snapshot!(script("127.0.0.1:5000"), @r"
        export FARCALL_SERVICE_URL='http://127.0.0.1:5000'
        export FARCALL_AMQP_PORT='5672'
        export GLOBUS_SDK_ENVIRONMENT='local'
        export GLOBUS_SDK_SERVICE_URL_AUTH='http://localhost:5000/'
        export GLOBUS_COMPUTE_CLIENT_ID='the-id'
        export GLOBUS_COMPUTE_CLIENT_SECRET='the-secret'
        export GLOBUS_COMPUTE_USER_DIR='/data of o'\''brien/up/endpoints'
        export FARCALL_ENDPOINT_ID='e58b2276-b397-4246-b1a2-607d8e3b5838'
        ");
    }

    #[test]
    fn at_another_port() {
        let script = script("127.0.0.1:5999");
        assert!(script.contains("export http_proxy='http://127.0.0.1:5999'\n"), "{script}");
        assert!(script.ends_with("unset no_proxy NO_PROXY HTTP_PROXY\n"), "{script}");
    }
}
