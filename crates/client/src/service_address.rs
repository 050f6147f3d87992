//! Finds a service's addresses: that of its REST interface and that of its identity service.
//!
//! Upstream's names keep working (`GLOBUS_SDK_ENVIRONMENT`, `GLOBUS_SDK_SERVICE_URL_AUTH`); ours take precedence. When
//! nothing is configured there is no address: no request goes to the hosted service unless it is named.

use std::net::IpAddr;

use reqwest::Url;
use thiserror::Error;

/// The two addresses of a service. Both end with a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    pub service: Url,
    pub identity: Url,
    /// Upstream's name of the environment, when it was chosen by name.
    pub environment: Option<String>,
    /// The setting that named the address, for people.
    pub named_by: &'static str,
}

impl ServiceAddress {
    /// Whether both addresses are loopback addresses, which no proxy can reach for us. The environment called `local` does not
    /// count: the stock SDK reaches it through `http_proxy`, if that is set.
    pub fn is_local(&self) -> bool {
        self.environment.is_none()
            && [&self.service, &self.identity]
                .iter()
                .all(|url| is_loopback(url.host_str().unwrap_or_default()))
    }

    /// Where the login for this service is stored. `sdk` is the stock SDK's environment by name, `shell` the value of
    /// `FARCALL_SERVICE_URL`; `chosen` says that the directory of endpoints was chosen explicitly.
    pub fn token_location(&self, sdk: Option<&str>, shell: Option<&str>, chosen: bool) -> TokenLocation {
        if let Some(name) = &self.environment {
            return TokenLocation::EndpointsDirectory(name.clone());
        }
        let same =
            shell.and_then(|value| url("FARCALL_SERVICE_URL", value).ok()) == Some(self.service.clone());
        match sdk {
            // The SDK in this shell uses the same service, and keeps its tokens there.
            Some(name) if same => TokenLocation::EndpointsDirectory(name.to_owned()),
            _ if chosen => {
                TokenLocation::EndpointsDirectory(self.service.as_str().trim_end_matches('/').to_owned())
            }
            _ => TokenLocation::ServiceDirectory {
                directory: user_directory(self.service.host_str().unwrap_or_default(), self.service.port()),
                name: SDK.to_owned(),
            },
        }
    }
}

/// Where the tokens of a login are stored. The name is the part of the store's namespace that upstream calls the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenLocation {
    /// In the token store of the directory of endpoints.
    EndpointsDirectory(String),
    /// In the token store of the service's user directory, below the home directory. The stock SDK keeps them there too, when
    /// `farcall env` or `farcall connect` set it up.
    ServiceDirectory { directory: String, name: String },
}

/// The name of the environment that `farcall env` and `farcall connect` set for the SDK.
const SDK: &str = "local";

/// The directory, below the home directory, that `farcall env` and `farcall connect` set as the stock SDK's user directory
/// (`GLOBUS_COMPUTE_USER_DIR`) for the service at this host. Each service has its own, so that no token is sent to another
/// service. `port` is absent if it is the default of the scheme.
pub fn user_directory(host: &str, port: Option<u16>) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let name = if is_loopback(&bare) { "localhost".to_owned() } else { bare.replace(':', "-") };
    match port {
        Some(port) => format!(".farcall/{name}_{port}"),
        None => format!(".farcall/{name}"),
    }
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    #[error("no service is configured")]
    Unset,
    #[error("{name} is not a URL of the form http(s)://host[:port]/: {value}")]
    NotAUrl { name: &'static str, value: String },
    #[error(
        "the environment {0} is known by name, but its identity service is not: set GLOBUS_SDK_SERVICE_URL_AUTH"
    )]
    NoIdentity(String),
}

/// The settings that may name the service, in the order in which they take precedence.
#[derive(Clone, Debug, Default)]
pub struct AddressSources {
    /// `service_url` of the endpoint's configuration.
    pub service_url: Option<String>,
    /// `environment` of the configuration (or `local`, for `local_compute_services`).
    pub environment: Option<String>,
    /// `FARCALL_SERVICE_URL`.
    pub farcall_service_url: Option<String>,
    /// `GLOBUS_SDK_ENVIRONMENT`.
    pub globus_sdk_environment: Option<String>,
    /// `GLOBUS_SDK_SERVICE_URL_AUTH`.
    pub globus_sdk_service_url_auth: Option<String>,
    /// The address that the endpoint registered at last.
    pub remembered: Option<String>,
    /// `service_url` of this machine's site file.
    pub site: Option<String>,
}

impl AddressSources {
    /// The address that these settings name.
    pub fn resolve(&self) -> Result<ServiceAddress, AddressError> {
        let identity = match &self.globus_sdk_service_url_auth {
            Some(value) => Some(url("GLOBUS_SDK_SERVICE_URL_AUTH", value)?),
            None => None,
        };
        let at = |name, value: &str, named_by| {
            let service = url(name, value)?;
            Ok(ServiceAddress {
                identity: identity.clone().unwrap_or_else(|| service.clone()),
                service,
                environment: None,
                named_by,
            })
        };
        if let Some(value) = &self.service_url {
            return at("service_url", value, "service_url in the configuration");
        }
        if let Some(name) = &self.environment {
            return named(name, identity, "environment in the configuration");
        }
        if let Some(value) = &self.farcall_service_url {
            return at("FARCALL_SERVICE_URL", value, "FARCALL_SERVICE_URL in the environment");
        }
        if let Some(name) = &self.globus_sdk_environment {
            return named(name, identity, "GLOBUS_SDK_ENVIRONMENT in the environment");
        }
        if let Some(value) = &self.remembered {
            return at("the remembered address", value, "the endpoint's last start");
        }
        match &self.site {
            Some(value) => at("service_url of the site", value, "the site's file"),
            None => Err(AddressError::Unset),
        }
    }
}

/// Upstream's table of environments. Only the service called `local` is its own identity service.
fn named(name: &str, identity: Option<Url>, named_by: &'static str) -> Result<ServiceAddress, AddressError> {
    let service = match name {
        "local" => "http://localhost:5000/".to_owned(),
        "preview" => "https://compute.api.preview.globus.org/".to_owned(),
        "dev" => "https://api.dev.funcx.org/".to_owned(),
        "sandbox" | "test" | "integration" | "staging" => {
            format!("https://compute.api.{name}.globuscs.info/")
        }
        _ => "https://compute.api.globus.org/".to_owned(),
    };
    let service = url("environment", &service)?;
    let identity = match (identity, name) {
        (Some(identity), _) => identity,
        (None, "local") => service.clone(),
        (None, "production") => url("environment", "https://auth.globus.org/")?,
        (None, "preview") => url("environment", "https://auth.preview.globus.org/")?,
        (None, _) => return Err(AddressError::NoIdentity(name.to_owned())),
    };
    Ok(ServiceAddress { service, identity, environment: Some(name.to_owned()), named_by })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn url(name: &'static str, value: &str) -> Result<Url, AddressError> {
    let refused = || AddressError::NotAUrl { name, value: value.to_owned() };
    let mut url = Url::parse(value).map_err(|_| refused())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(refused());
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn shown(sources: &AddressSources) -> (String, String) {
        let address = sources.resolve().unwrap();
        (address.service.to_string(), address.identity.to_string())
    }

    #[test]
    fn without_configuration_there_is_no_address() {
        assert_eq!(AddressSources::default().resolve(), Err(AddressError::Unset));
        let only_identity = AddressSources {
            globus_sdk_service_url_auth: some("http://localhost:5000/"),
            ..AddressSources::default()
        };
        assert_eq!(only_identity.resolve(), Err(AddressError::Unset));
    }

    #[test]
    fn our_service_is_its_own_identity_service() {
        let sources = AddressSources {
            farcall_service_url: some("http://127.0.0.1:8080"),
            ..AddressSources::default()
        };
        assert_eq!(shown(&sources), ("http://127.0.0.1:8080/".into(), "http://127.0.0.1:8080/".into()));
        let sources =
            AddressSources { service_url: some("https://site.example/compute"), ..AddressSources::default() };
        assert_eq!(
            shown(&sources),
            ("https://site.example/compute/".into(), "https://site.example/compute/".into())
        );
    }

    #[test]
    fn each_service_has_a_directory() {
        let table = [
            ("compute.example.org", None, ".farcall/compute.example.org"),
            ("Compute.Example.org", Some(8443), ".farcall/compute.example.org_8443"),
            ("127.0.0.1", Some(5000), ".farcall/localhost_5000"),
            ("[::1]", None, ".farcall/localhost"),
            ("[2001:db8::1]", None, ".farcall/2001-db8--1"),
        ];
        for (host, port, expected) in table {
            assert_eq!(user_directory(host, port), expected);
        }
    }

    #[test]
    fn loopback_addresses_use_no_proxy() {
        let table = [
            ("http://127.0.0.1:5000", true),
            ("http://localhost:1", true),
            ("https://LOCALHOST", true),
            ("http://[::1]:2/", true),
            ("http://127.9.9.9", true),
            ("https://localhost.example.org", false),
            ("http://10.0.0.1", false),
        ];
        for (url, local) in table {
            let sources = AddressSources { farcall_service_url: some(url), ..AddressSources::default() };
            assert_eq!(sources.resolve().unwrap().is_local(), local, "{url}");
        }
        let elsewhere = AddressSources {
            farcall_service_url: some("http://localhost"),
            globus_sdk_service_url_auth: some("https://auth.example.org"),
            ..AddressSources::default()
        };
        assert!(!elsewhere.resolve().unwrap().is_local());
        let named = AddressSources { globus_sdk_environment: some("local"), ..AddressSources::default() };
        assert!(!named.resolve().unwrap().is_local());
    }

    #[test]
    fn the_configuration_overrides_the_environment() {
        let sources = AddressSources {
            service_url: some("http://a/"),
            environment: some("local"),
            farcall_service_url: some("http://b/"),
            globus_sdk_environment: some("production"),
            globus_sdk_service_url_auth: some("http://c/"),
            remembered: some("http://r/"),
            site: some("http://s/"),
        };
        assert_eq!(shown(&sources), ("http://a/".into(), "http://c/".into()));
        let sources = AddressSources { service_url: None, ..sources };
        assert_eq!(shown(&sources), ("http://localhost:5000/".into(), "http://c/".into()));
        let sources = AddressSources { environment: None, ..sources };
        assert_eq!(shown(&sources), ("http://b/".into(), "http://c/".into()));
        let sources = AddressSources { farcall_service_url: None, ..sources };
        assert_eq!(shown(&sources), ("https://compute.api.globus.org/".into(), "http://c/".into()));
        let sources = AddressSources { globus_sdk_environment: None, ..sources };
        assert_eq!(shown(&sources).0, "http://r/");
        let sources = AddressSources { remembered: None, ..sources };
        assert_eq!(shown(&sources).0, "http://s/");
    }

    #[test]
    fn the_login_is_shared_with_the_stock_sdk_for_the_same_service() {
        let at =
            |url| AddressSources { service_url: some(url), ..AddressSources::default() }.resolve().unwrap();
        let endpoints_directory = |name: &str| TokenLocation::EndpointsDirectory(name.into());
        let own = TokenLocation::ServiceDirectory { directory: ".farcall/h_1".into(), name: "local".into() };
        let local = Some("local");
        // service, the SDK's environment, the shell's service, a chosen directory
        let table = [
            ("http://h:1/", None, None, false, own.clone()),
            ("http://h:1/", None, Some("http://h:1"), false, own.clone()),
            ("http://h:1/", local, Some("http://h:1"), true, endpoints_directory("local")),
            ("http://h:1/", local, Some("http://h:1/"), false, endpoints_directory("local")),
            ("http://h:1/", local, Some("http://h:2"), false, own.clone()),
            ("http://h:1/", local, Some("http://h:2"), true, endpoints_directory("http://h:1")),
            ("http://h:1/", local, None, false, own.clone()),
            ("http://h:1/", None, None, true, endpoints_directory("http://h:1")),
        ];
        for (service, sdk, shell, chosen, expected) in table {
            assert_eq!(
                at(service).token_location(sdk, shell, chosen),
                expected,
                "{service} {sdk:?} {shell:?} {chosen}"
            );
        }
        let named = AddressSources { globus_sdk_environment: some("local"), ..AddressSources::default() };
        assert_eq!(named.resolve().unwrap().token_location(local, None, false), endpoints_directory("local"));
    }

    #[test]
    fn upstreams_environments_keep_their_names() {
        let named = |name| AddressSources { globus_sdk_environment: some(name), ..AddressSources::default() };
        assert_eq!(
            shown(&named("local")),
            ("http://localhost:5000/".into(), "http://localhost:5000/".into())
        );
        assert_eq!(shown(&named("production")).1, "https://auth.globus.org/");
        assert_eq!(named("staging").resolve(), Err(AddressError::NoIdentity("staging".into())));
    }

    #[test]
    fn invalid_urls_are_refused_with_the_name_of_the_setting() {
        for value in ["", "localhost:5000", "ftp://x/", "/path"] {
            let sources = AddressSources { farcall_service_url: some(value), ..AddressSources::default() };
            let refused = AddressError::NotAUrl { name: "FARCALL_SERVICE_URL", value: value.into() };
            assert_eq!(sources.resolve(), Err(refused), "{value:?}");
        }
    }
}
