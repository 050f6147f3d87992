//! What the stock SDK needs in its environment to use what is up: the SDK of the user, and that of tasks. Pure.
//!
//! Tasks get the same as COMMAND. The SDK asks `localhost:5000` unless a proxy leads it elsewhere, and there may listen another
//! user's program: on 127.0.0.1 if the service has another port, on ::1 if it has not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wire::EndpointId;

use super::service::ServiceAddresses;
use super::{ClientIdentity, UpDirectory};
use crate::client_side::environment::{NotAService, ServiceUrl, Variables};

/// The variable with the service's database, and perhaps its password. It is the service's alone.
const DATABASE_URL: &str = "FARCALL_STORE__URL";

/// The variables and their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment(Variables);

impl Environment {
    pub(super) fn new(
        mut variables: Variables,
        addresses: ServiceAddresses,
        identity: &ClientIdentity,
        up_directory: &UpDirectory,
    ) -> Environment {
        // `up` has a directory of its own for it.
        variables.below_home.clear();
        variables.set.extend([
            ("FARCALL_AMQP_PORT", addresses.amqp.port().to_string()),
            ("GLOBUS_COMPUTE_CLIENT_ID", identity.client_id.clone()),
            ("GLOBUS_COMPUTE_CLIENT_SECRET", identity.client_secret.clone()),
            ("GLOBUS_COMPUTE_USER_DIR", up_directory.endpoints().display().to_string()),
        ]);
        Environment(variables)
    }

    pub(super) fn endpoint(&mut self, id: EndpointId) {
        self.0.set.push(("FARCALL_ENDPOINT_ID", id.to_string()));
    }

    /// The shell setup.
    pub fn script(&self) -> String {
        self.0.script()
    }

    /// For COMMAND or the endpoint.
    pub fn apply(&self, command: &mut tokio::process::Command) {
        self.0.apply(command, None);
        // Whatever runs tasks hands its environment down to them.
        command.env_remove(DATABASE_URL);
    }
}

/// How clients on this machine reach the service.
pub(super) fn reach(addresses: ServiceAddresses) -> Result<ServiceUrl, NotAService> {
    ServiceUrl::parse(&format!("http://{}", reachable(addresses.http)))
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
    use crate::client_side::environment::Proxies;

    fn environment(http: &str) -> Environment {
        let addresses =
            ServiceAddresses { http: http.parse().unwrap(), amqp: "127.0.0.1:5672".parse().unwrap() };
        let identity = ClientIdentity {
            client_id: "the-id".into(),
            client_secret: "the-secret".into(),
            person: "me@localhost".into(),
        };
        let up_directory = UpDirectory { root: "/data of o'brien/up".into() };
        let proxy = "http://farcall:secret@127.0.0.1:41000".to_owned();
        let variables = reach(addresses).unwrap().through(proxy, &Proxies::default());
        let mut environment = Environment::new(variables, addresses, &identity, &up_directory);
        environment.endpoint("e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap());
        environment
    }

    #[test]
    fn what_a_shell_evaluates() {
        insta::assert_snapshot!(environment("127.0.0.1:5000").script(), @r"
        export GLOBUS_SDK_ENVIRONMENT='local'
        export GLOBUS_SDK_SERVICE_URL_AUTH='http://127.0.0.1:5000/'
        export FARCALL_SERVICE_URL='http://127.0.0.1:5000'
        export http_proxy='http://farcall:secret@127.0.0.1:41000'
        export FARCALL_AMQP_PORT='5672'
        export GLOBUS_COMPUTE_CLIENT_ID='the-id'
        export GLOBUS_COMPUTE_CLIENT_SECRET='the-secret'
        export GLOBUS_COMPUTE_USER_DIR='/data of o'\''brien/up/endpoints'
        export FARCALL_ENDPOINT_ID='e58b2276-b397-4246-b1a2-607d8e3b5838'
        unset HTTP_PROXY NO_PROXY no_proxy
        ");
    }

    #[test]
    fn the_database_is_not_handed_down() {
        let mut command = tokio::process::Command::new("true");
        command.env(DATABASE_URL, "postgres://farcall:secret@db/farcall");
        environment("127.0.0.1:5000").apply(&mut command);
        let variables: Vec<_> = command.as_std().get_envs().collect();
        assert!(variables.contains(&(DATABASE_URL.as_ref(), None)), "{variables:?}");
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
            let script = environment(listening).script();
            assert!(script.contains(&format!("export FARCALL_SERVICE_URL='{url}'\n")), "{script}");
        }
    }
}
