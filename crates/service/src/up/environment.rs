//! What the stock SDK and our endpoint need in their environment to use what is up. Pure.
//!
//! The proxy by which the SDK reaches the service is the client's only: the endpoint and its workers keep the proxies that
//! the user had, or none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wire::EndpointId;

use super::service::Local;
use super::{ClientIdentity, Place};
use crate::client_side::environment::{NotAService, Proxies, Reach, Variables};

/// What [`Reach::variables`] says of proxies.
const PROXIES: [&str; 2] = ["http_proxy", "no_proxy"];

/// Variables, and their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment(Variables);

impl Environment {
    pub(super) fn new(
        addresses: Local,
        identity: &ClientIdentity,
        place: &Place,
        proxies: &Proxies,
    ) -> Result<Environment, NotAService> {
        let mut variables =
            Reach::parse(&format!("http://{}", reachable(addresses.http)))?.variables(proxies);
        // Some shells take no comments where they evaluate.
        variables.notes.clear();
        // `up` has a directory of its own for it.
        variables.below_home.clear();
        variables.set.extend([
            ("FARCALL_AMQP_PORT", addresses.amqp.port().to_string()),
            ("GLOBUS_COMPUTE_CLIENT_ID", identity.client_id.clone()),
            ("GLOBUS_COMPUTE_CLIENT_SECRET", identity.client_secret.clone()),
            ("GLOBUS_COMPUTE_USER_DIR", place.endpoints().display().to_string()),
        ]);
        Ok(Environment(variables))
    }

    pub(super) fn endpoint(&mut self, id: EndpointId) {
        self.0.set.push(("FARCALL_ENDPOINT_ID", id.to_string()));
    }

    /// What a shell evaluates.
    pub fn script(&self) -> String {
        self.0.script()
    }

    /// For a client.
    pub fn apply(&self, command: &mut tokio::process::Command) {
        self.0.apply(command, None);
    }

    /// For the endpoint.
    pub(super) fn apply_to_endpoint(&self, command: &mut tokio::process::Command) {
        command.envs(self.without_proxies());
    }

    fn without_proxies(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.0.set.iter().map(|(name, value)| (*name, value.as_str()));
        all.filter(|(name, _)| !PROXIES.contains(name))
    }
}

/// An address of this machine at which a socket that listens on `address` is reached.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(http: &str) -> Environment {
        let addresses = Local { http: http.parse().unwrap(), amqp: "127.0.0.1:5672".parse().unwrap() };
        let identity = ClientIdentity {
            client_id: "the-id".into(),
            client_secret: "the-secret".into(),
            person: "me@localhost".into(),
        };
        let place = Place { root: "/data of o'brien/up".into() };
        let mut environment = Environment::new(addresses, &identity, &place, &Proxies::default()).unwrap();
        environment.endpoint("e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap());
        environment
    }

    fn script(http: &str) -> String {
        environment(http).script()
    }

    #[test]
    fn the_endpoint_gets_no_proxy() {
        let environment = environment("127.0.0.1:5999");
        let names: Vec<_> = environment.without_proxies().map(|(name, _)| name).collect();
        assert!(names.contains(&"FARCALL_SERVICE_URL"), "{names:?}");
        assert!(!names.iter().any(|name| name.ends_with("_proxy")), "{names:?}");
    }

    #[test]
    fn at_the_port_that_the_sdk_knows() {
        insta::assert_snapshot!(script("127.0.0.1:5000"), @r"
        export GLOBUS_SDK_ENVIRONMENT='local'
        export GLOBUS_SDK_SERVICE_URL_AUTH='http://localhost:5000/'
        export FARCALL_SERVICE_URL='http://127.0.0.1:5000'
        export FARCALL_AMQP_PORT='5672'
        export GLOBUS_COMPUTE_CLIENT_ID='the-id'
        export GLOBUS_COMPUTE_CLIENT_SECRET='the-secret'
        export GLOBUS_COMPUTE_USER_DIR='/data of o'\''brien/up/endpoints'
        export FARCALL_ENDPOINT_ID='e58b2276-b397-4246-b1a2-607d8e3b5838'
        ");
    }

    #[test]
    fn the_client_is_led_to_the_address_that_the_service_listens_on() {
        let table = [
            ("127.0.0.2:5000", "http://127.0.0.2:5000"),
            ("192.0.2.7:5000", "http://192.0.2.7:5000"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("0.0.0.0:5000", "http://127.0.0.1:5000"),
            ("[::]:5999", "http://[::1]:5999"),
        ];
        for (listening, url) in table {
            let script = script(listening);
            assert!(script.contains(&format!("export FARCALL_SERVICE_URL='{url}'\n")), "{script}");
        }
    }

    #[test]
    fn at_another_port() {
        let script = script("127.0.0.1:5999");
        assert!(script.contains("export http_proxy='http://127.0.0.1:5999'\n"), "{script}");
        assert!(script.ends_with("unset HTTP_PROXY NO_PROXY no_proxy\n"), "{script}");
    }
}
