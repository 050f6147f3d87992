//! Finds the service that an endpoint or a command uses, and the identity to use there.
//!
//! Upstream's environment variables keep working. When nothing is configured there is no service: every command says how to
//! name one, and sends nothing to the hosted service.

use std::path::{Path, PathBuf};

use client::login::NATIVE_CLIENT;
use client::service_address::{AddressError, AddressSources};
use client::token_store::TokenStore;
use client::{Credentials, Error, Refusal, Service, ServiceAddress, TokenSource, Trust};
use serde::{Deserialize, Serialize};

use crate::certificates::read_authorities;
use crate::config::{ServiceSettings, Site};
use crate::directory::{Base, EndpointDir, write_private};
use crate::environment::variable;
use crate::exit::{Failure, status};

/// The site's file, unless the environment names another.
const SITE: &str = "/etc/farcall/endpoint.yaml";

/// The settings that decide which service and which identity are used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccountSettings<'a> {
    pub(crate) base: &'a Base,
    /// The endpoint, for commands about one.
    pub(crate) endpoint: Option<(&'a EndpointDir, ServiceSettings<'a>)>,
    /// The URL on the command line.
    pub(crate) service_url: Option<&'a str>,
    /// A client identity that takes precedence over the environment, which no longer contains it.
    pub(crate) client: Option<&'a Credentials>,
}

/// A service and the identity used there.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) service: Service,
    /// Who it is, and where that was found, for people.
    pub(crate) identity: String,
    /// The identity is a person's, who must log in.
    pub(crate) personal: bool,
}

/// `service.json`: where the endpoint registered last.
#[derive(Serialize, Deserialize)]
struct Remembered {
    service_url: String,
}

impl<'a> AccountSettings<'a> {
    /// For commands that concern no endpoint.
    pub(crate) fn of(base: &'a Base) -> Self {
        Self { base, endpoint: None, service_url: None, client: None }
    }

    /// The address that the configuration, the environment, the last registration or the site file names.
    pub(crate) fn address(&self) -> Result<ServiceAddress, Failure> {
        let config = self.endpoint.map(|(_, settings)| settings).unwrap_or_default();
        let site = site()?;
        let sources = AddressSources {
            service_url: self.service_url.or(config.service_url).map(str::to_owned),
            environment: config.environment.map(str::to_owned),
            farcall_service_url: variable("FARCALL_SERVICE_URL"),
            globus_sdk_environment: sdk_environment(),
            globus_sdk_service_url_auth: variable("GLOBUS_SDK_SERVICE_URL_AUTH"),
            remembered: self.endpoint.and_then(|(endpoint, _)| remembered(endpoint)),
            site: site.service_url,
        };
        sources.resolve().map_err(|error| no_address(&error))
    }

    /// The authorities to trust in addition to the system's.
    pub(crate) fn trust(&self) -> Result<Trust, Failure> {
        let config = self.endpoint.and_then(|(_, settings)| settings.ca_certificates.map(Path::to_owned));
        let verify = variable("GLOBUS_SDK_VERIFY_SSL");
        let switch = verify.as_deref().map(str::to_lowercase);
        let anybody = matches!(switch.as_deref(), Some("n" | "no" | "f" | "false" | "off" | "0"));
        let everybody = matches!(switch.as_deref(), Some("y" | "yes" | "t" | "true" | "on" | "1"));
        let named = verify.filter(|_| !anybody && !everybody).map(PathBuf::from);
        let path = match config.or(named) {
            Some(path) => Some(path),
            None => site()?.ca_certificates,
        };
        let pem = match path {
            Some(path) => Some(read_authorities(&path)?),
            None => None,
        };
        Ok(Trust { pem, anybody })
    }

    /// The service, with the client identity of the environment, or else the stored login.
    pub(crate) async fn account(&self) -> Result<Account, Failure> {
        let address = self.address()?;
        let trust = self.trust()?;
        let login = address.token_location(
            sdk_environment().as_deref(),
            variable("FARCALL_SERVICE_URL").as_deref(),
            !self.base.is_default(),
        );
        let given = match self.client {
            Some(client) => Some((client.clone(), "the environment")),
            None => credentials()?,
        };
        let (source, identity, client_id) = match given {
            Some((credentials, origin)) => {
                let identity = format!("the client identity {}, from {origin}", credentials.client_id);
                (TokenSource::ClientIdentity(credentials), identity, NATIVE_CLIENT.to_owned())
            }
            None => {
                let (path, name) = self.base.token_store(&login)?;
                let mut store =
                    TokenStore::open(&path, format!("user/{name}")).await.map_err(Failure::error)?;
                let tokens = store.tokens().await.map_err(Failure::error)?;
                let id = tokens.iter().find_map(|token| token.identity_id.clone());
                let identity = format!(
                    "{}, from the login stored in {}",
                    id.map_or_else(|| "nobody".to_owned(), |id| format!("the identity {id}")),
                    path.display()
                );
                let client_id =
                    variable("GLOBUS_COMPUTE_CLIENT_ID").unwrap_or_else(|| NATIVE_CLIENT.to_owned());
                (TokenSource::StoredLogin(Box::new(store)), identity, client_id)
            }
        };
        let personal = matches!(source, TokenSource::StoredLogin(_));
        let agent = format!("farcall-endpoint/{}", env!("CARGO_PKG_VERSION"));
        let service = Service::new(address, source, &client_id, &trust, &agent)
            .map_err(|error| failed(error, &identity))?;
        Ok(Account { service, identity, personal })
    }
}

impl Account {
    /// The failure of a command whose request failed.
    pub(crate) fn failed(&self, error: Error) -> Failure {
        failed(error, &self.identity)
    }
}

/// The environment variables of a client identity.
pub(crate) const CLIENT_IDENTITY: [&str; 4] = [
    "GLOBUS_COMPUTE_CLIENT_ID",
    "GLOBUS_COMPUTE_CLIENT_SECRET",
    "FUNCX_SDK_CLIENT_ID",
    "FUNCX_SDK_CLIENT_SECRET",
];

/// The credentials of a client identity in the environment, and the variable that named it.
pub(crate) fn credentials() -> Result<Option<(Credentials, &'static str)>, Failure> {
    const IDS: [(&str, &str); 2] = [
        ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_ID in the environment"),
        ("FUNCX_SDK_CLIENT_ID", "FUNCX_SDK_CLIENT_ID in the environment"),
    ];
    let id = IDS.iter().find_map(|(name, origin)| Some((variable(name)?, *origin)));
    let secret = variable("GLOBUS_COMPUTE_CLIENT_SECRET").or_else(|| variable("FUNCX_SDK_CLIENT_SECRET"));
    match (id, secret) {
        (Some((client_id, origin)), Some(client_secret)) => {
            Ok(Some((Credentials { client_id, client_secret }, origin)))
        }
        (None, Some(_)) => Err(Failure::error(
            "Both GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET must be set to use a client identity. \
             Either set both environment variables, or unset them to use a normal login.",
        )),
        (_, None) => Ok(None),
    }
}

/// The environment that the stock SDK is told to use.
pub(crate) fn sdk_environment() -> Option<String> {
    variable("GLOBUS_SDK_ENVIRONMENT").or_else(|| variable("FUNCX_SDK_ENVIRONMENT"))
}

/// The path of the site file.
pub(crate) fn site_file() -> PathBuf {
    variable("FARCALL_SITE_FILE").map_or_else(|| PathBuf::from(SITE), PathBuf::from)
}

fn site() -> Result<Site, Failure> {
    Site::load(&site_file()).map_err(|bad| Failure::new(status::CONFIG, format!("Error: {bad}")))
}

fn memory(endpoint: &EndpointDir) -> PathBuf {
    endpoint.path().join("service.json")
}

fn remembered(endpoint: &EndpointDir) -> Option<String> {
    let text = std::fs::read(memory(endpoint)).ok()?;
    serde_json::from_slice::<Remembered>(&text).ok().map(|remembered| remembered.service_url)
}

/// Records where an endpoint is registered, so that its next start finds the service.
pub(crate) fn remember(endpoint: &EndpointDir, address: &ServiceAddress) -> std::io::Result<()> {
    if remembered(endpoint).as_deref() == Some(address.service.as_str()) {
        return Ok(());
    }
    let remembered = Remembered { service_url: address.service.to_string() };
    let path: &Path = &memory(endpoint);
    write_private(path, &serde_json::to_vec(&remembered).map_err(std::io::Error::other)?)
}

fn no_address(error: &AddressError) -> Failure {
    Failure::new(
        status::CONFIG,
        format!(
            "Error: {error}\n  Say where your service is by one of\n    \
             service_url: https://...     in config.yaml (`configure --service-url` writes it)\n    \
             FARCALL_SERVICE_URL=...      in the environment\n    \
             GLOBUS_SDK_ENVIRONMENT=local in the environment, for a service on this machine\n    \
             service_url: https://...     in {}, for everybody on this machine",
            site_file().display()
        ),
    )
}

/// The message and the exit status of upstream's endpoint for each error.
pub(crate) fn failed(error: Error, identity: &str) -> Failure {
    let may_pass = match &error {
        Error::Refused(refusal) => refusal.status == 429 || refusal.status >= 500,
        Error::Unreachable { .. }
        | Error::Unreadable { .. }
        | Error::Unauthenticated(_)
        | Error::NotLoggedIn
        | Error::TokenStore(_) => true,
        Error::Unusable(_) => false,
    };
    Failure { may_pass, ..told(error, identity) }
}

fn told(error: Error, identity: &str) -> Failure {
    let whose = format!("\nThe identity in use is {identity}.");
    match error {
        Error::Refused(Refusal { status: code @ (404 | 409 | 423), text, .. }) => {
            // A lock does not depend on the identity.
            let whose = if code == 423 { "" } else { &whose };
            blocked(status::UNAVAILABLE, &text, whose)
        }
        Error::Refused(Refusal { status: 400 | 422, text, .. }) => blocked(status::DATAERR, &text, ""),
        Error::Refused(Refusal { status: 403, .. }) => Failure::error(format!("{error}{whose}")),
        Error::Unauthenticated(refusal) => {
            let mut text = format!(
                "Compute CLI Error: An Auth API error occurred.\nHTTP status: {}\nError code: {}\nError message: {}",
                refusal.status,
                refusal.code.as_deref().unwrap_or("none"),
                refusal.message.as_deref().unwrap_or(&refusal.text)
            );
            if refusal.status == 400 && refusal.code.as_deref() == Some("invalid_grant") {
                text += "\nYour credentials may have expired. Please login again with\n\n    \
                         $ globus-compute-endpoint login --force";
            }
            Failure::new(status::NOPERM, text + &whose)
        }
        Error::NotLoggedIn => Failure::new(
            status::NOPERM,
            "Error: nobody is logged in. Run\n\n    $ globus-compute-endpoint login\n\n\
             or set GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET to those of a client identity.",
        ),
        Error::Unreachable { .. } => Failure::new(
            status::TEMPFAIL,
            format!(
                "Network failure; unable to reach the service: {error}\nPlease check the connection and try again."
            ),
        ),
        Error::Unreadable { .. } => Failure::new(status::SOFTWARE, format!("Error: {error}")),
        Error::TokenStore(_) | Error::Unusable(_) | Error::Refused(_) => Failure::error(error),
    }
}

fn blocked(status: u8, text: &str, whose: &str) -> Failure {
    Failure::new(status, format!("Endpoint registration blocked.  [{text}]{whose}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_without_a_new_start() {
        let refused =
            |status| Error::Refused(Refusal { status, code: None, message: None, text: String::new() });
        for (http, passes) in [
            (400, false),
            (403, false),
            (404, false),
            (409, false),
            (423, false),
            (429, true),
            (500, true),
            (503, true),
        ] {
            assert_eq!(failed(refused(http), "me").may_pass, passes, "{http}");
        }
        assert!(failed(Error::NotLoggedIn, "me").may_pass, "somebody may log in again");
        assert!(failed(Error::Unreachable { url: String::new(), reason: String::new() }, "me").may_pass);
    }

    #[test]
    fn each_refusal_has_its_status() {
        let refused =
            |status| Error::Refused(Refusal { status, code: None, message: None, text: "why".into() });
        for (http, exit) in [(404, 69), (409, 69), (423, 69), (400, 65), (422, 65)] {
            let failure = failed(refused(http), "me, from there");
            assert_eq!(failure.status, exit, "{http}");
            assert!(failure.text.starts_with("Endpoint registration blocked.  [why]"), "{http}: {failure:?}");
            assert_eq!(failure.text.contains("me, from there"), [404, 409].contains(&http), "{http}");
        }
        let forbidden = failed(refused(403), "me, from there");
        assert_eq!(forbidden.status, 1);
        assert!(forbidden.text.contains("me, from there"));
        assert_eq!(failed(Error::Unreachable { url: "u".into(), reason: "r".into() }, "").status, 75);
        let refusal =
            Refusal { status: 400, code: Some("invalid_grant".into()), message: None, text: String::new() };
        let failure = failed(Error::Unauthenticated(refusal), "me");
        assert_eq!(failure.status, 77);
        assert!(failure.text.starts_with("Compute CLI Error: An Auth API error occurred."));
        assert!(failure.text.contains("expired"));
    }
}
