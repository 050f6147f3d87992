//! Where a service is: the address of its REST interface and that of its identity service.
//!
//! Upstream's names keep working (`GLOBUS_SDK_ENVIRONMENT`, `GLOBUS_SDK_SERVICE_URL_AUTH`); ours come before them.
//! Nothing configured means nowhere: no request is ever sent to the hosted service unasked.

use std::net::IpAddr;

use reqwest::Url;
use thiserror::Error;

/// The two addresses. Both end with a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub service: Url,
    pub identity: Url,
    /// Upstream's name of the environment, when it was chosen by name.
    pub environment: Option<String>,
    /// What named the place, for people.
    pub named_by: &'static str,
}

impl Place {
    /// Whether both are at addresses of this machine, where no proxy can reach them for us. What goes by the name `local`
    /// is where the stock SDK finds it: through `http_proxy`, if that is set.
    pub fn is_local(&self) -> bool {
        self.environment.is_none()
            && [&self.service, &self.identity]
                .iter()
                .all(|url| is_loopback(url.host_str().unwrap_or_default()))
    }

    /// The login that is meant here. `sdk` is what the environment tells the stock SDK, and `shell` the address that it
    /// tells us; `chosen` says that somebody chose the directory of endpoints.
    pub fn login(&self, sdk: Option<&str>, shell: Option<&str>, chosen: bool) -> Login {
        if let Some(name) = &self.environment {
            return Login::InTheBase(name.clone());
        }
        let same =
            shell.and_then(|value| url("FARCALL_SERVICE_URL", value).ok()) == Some(self.service.clone());
        match sdk {
            // The SDK in this shell means the same service, and keeps its tokens there.
            Some(name) if same => Login::InTheBase(name.to_owned()),
            _ if chosen => Login::InTheBase(self.service.as_str().trim_end_matches('/').to_owned()),
            _ => Login::OfTheService {
                directory: user_directory(self.service.host_str().unwrap_or_default(), self.service.port()),
                name: SDK.to_owned(),
            },
        }
    }
}

/// Where the tokens of a login lie. The name is the part of the token store's namespace that upstream calls the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// In the store of the directory of endpoints.
    InTheBase(String),
    /// In the store of the service's user directory, below the home directory: where the stock SDK keeps them that was led
    /// to the service by `farcall env` or `farcall connect`.
    OfTheService { directory: String, name: String },
}

/// What `farcall env` and `farcall connect` tell the SDK as its environment.
const SDK: &str = "local";

/// Below the home directory: the directory that `farcall env` and `farcall connect` make the stock SDK's own
/// (`GLOBUS_COMPUTE_USER_DIR`) for the service at this host. Each service has one, so that no token of one is sent to
/// another. `port` is absent if it is the usual one.
pub fn user_directory(host: &str, port: Option<u16>) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let name = if is_loopback(&bare) { "localhost".to_owned() } else { bare.replace(':', "-") };
    match port {
        Some(port) => format!(".farcall/{name}_{port}"),
        None => format!(".farcall/{name}"),
    }
}

/// Why no place could be told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoPlace {
    #[error("no service is configured")]
    Unset,
    #[error("{name} is not a URL of the form http(s)://host[:port]/: {value}")]
    NotAUrl { name: &'static str, value: String },
    #[error(
        "the environment {0} is known by name, but its identity service is not: set GLOBUS_SDK_SERVICE_URL_AUTH"
    )]
    NoIdentity(String),
}

/// What may say where the service is; the first that says so wins.
#[derive(Clone, Debug, Default)]
pub struct Hints {
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
    /// Where the endpoint registered last.
    pub remembered: Option<String>,
    /// What the administrator of this machine says.
    pub site: Option<String>,
}

impl Hints {
    /// The place these hints name.
    pub fn place(&self) -> Result<Place, NoPlace> {
        let identity = match &self.globus_sdk_service_url_auth {
            Some(value) => Some(url("GLOBUS_SDK_SERVICE_URL_AUTH", value)?),
            None => None,
        };
        let at = |name, value: &str, named_by| {
            let service = url(name, value)?;
            Ok(Place {
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
            None => Err(NoPlace::Unset),
        }
    }
}

/// Upstream's table of environments. Only a service on this machine is its own identity service.
fn named(name: &str, identity: Option<Url>, named_by: &'static str) -> Result<Place, NoPlace> {
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
        (None, _) => return Err(NoPlace::NoIdentity(name.to_owned())),
    };
    Ok(Place { service, identity, environment: Some(name.to_owned()), named_by })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn url(name: &'static str, value: &str) -> Result<Url, NoPlace> {
    let refused = || NoPlace::NotAUrl { name, value: value.to_owned() };
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

    fn shown(hints: &Hints) -> (String, String) {
        let place = hints.place().unwrap();
        (place.service.to_string(), place.identity.to_string())
    }

    #[test]
    fn nothing_configured_is_nowhere() {
        assert_eq!(Hints::default().place(), Err(NoPlace::Unset));
        let only_identity =
            Hints { globus_sdk_service_url_auth: some("http://localhost:5000/"), ..Hints::default() };
        assert_eq!(only_identity.place(), Err(NoPlace::Unset));
    }

    #[test]
    fn our_service_is_its_own_identity_service() {
        let hints = Hints { farcall_service_url: some("http://127.0.0.1:8080"), ..Hints::default() };
        assert_eq!(shown(&hints), ("http://127.0.0.1:8080/".into(), "http://127.0.0.1:8080/".into()));
        let hints = Hints { service_url: some("https://site.example/compute"), ..Hints::default() };
        assert_eq!(
            shown(&hints),
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
    fn no_proxy_stands_before_this_machine() {
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
            let hints = Hints { farcall_service_url: some(url), ..Hints::default() };
            assert_eq!(hints.place().unwrap().is_local(), local, "{url}");
        }
        let elsewhere = Hints {
            farcall_service_url: some("http://localhost"),
            globus_sdk_service_url_auth: some("https://auth.example.org"),
            ..Hints::default()
        };
        assert!(!elsewhere.place().unwrap().is_local());
        let named = Hints { globus_sdk_environment: some("local"), ..Hints::default() };
        assert!(!named.place().unwrap().is_local());
    }

    #[test]
    fn the_configuration_goes_before_the_environment() {
        let hints = Hints {
            service_url: some("http://a/"),
            environment: some("local"),
            farcall_service_url: some("http://b/"),
            globus_sdk_environment: some("production"),
            globus_sdk_service_url_auth: some("http://c/"),
            remembered: some("http://r/"),
            site: some("http://s/"),
        };
        assert_eq!(shown(&hints), ("http://a/".into(), "http://c/".into()));
        let hints = Hints { service_url: None, ..hints };
        assert_eq!(shown(&hints), ("http://localhost:5000/".into(), "http://c/".into()));
        let hints = Hints { environment: None, ..hints };
        assert_eq!(shown(&hints), ("http://b/".into(), "http://c/".into()));
        let hints = Hints { farcall_service_url: None, ..hints };
        assert_eq!(shown(&hints), ("https://compute.api.globus.org/".into(), "http://c/".into()));
        let hints = Hints { globus_sdk_environment: None, ..hints };
        assert_eq!(shown(&hints).0, "http://r/");
        let hints = Hints { remembered: None, ..hints };
        assert_eq!(shown(&hints).0, "http://s/");
    }

    #[test]
    fn the_login_is_the_stock_sdks_where_both_mean_one_service() {
        let at = |url| Hints { service_url: some(url), ..Hints::default() }.place().unwrap();
        let in_the_base = |name: &str| Login::InTheBase(name.into());
        let own = Login::OfTheService { directory: ".farcall/h_1".into(), name: "local".into() };
        let local = Some("local");
        // service, the SDK's environment, the shell's service, a chosen directory
        let table = [
            ("http://h:1/", None, None, false, own.clone()),
            ("http://h:1/", None, Some("http://h:1"), false, own.clone()),
            ("http://h:1/", local, Some("http://h:1"), true, in_the_base("local")),
            ("http://h:1/", local, Some("http://h:1/"), false, in_the_base("local")),
            ("http://h:1/", local, Some("http://h:2"), false, own.clone()),
            ("http://h:1/", local, Some("http://h:2"), true, in_the_base("http://h:1")),
            ("http://h:1/", local, None, false, own.clone()),
            ("http://h:1/", None, None, true, in_the_base("http://h:1")),
        ];
        for (service, sdk, shell, chosen, expected) in table {
            assert_eq!(
                at(service).login(sdk, shell, chosen),
                expected,
                "{service} {sdk:?} {shell:?} {chosen}"
            );
        }
        let named = Hints { globus_sdk_environment: some("local"), ..Hints::default() };
        assert_eq!(named.place().unwrap().login(local, None, false), in_the_base("local"));
    }

    #[test]
    fn upstreams_environments_keep_their_names() {
        let named = |name| Hints { globus_sdk_environment: some(name), ..Hints::default() };
        assert_eq!(
            shown(&named("local")),
            ("http://localhost:5000/".into(), "http://localhost:5000/".into())
        );
        assert_eq!(shown(&named("production")).1, "https://auth.globus.org/");
        assert_eq!(named("staging").place(), Err(NoPlace::NoIdentity("staging".into())));
    }

    #[test]
    fn what_is_no_web_address_is_refused_by_name() {
        for value in ["", "localhost:5000", "ftp://x/", "/path"] {
            let hints = Hints { farcall_service_url: some(value), ..Hints::default() };
            let refused = NoPlace::NotAUrl { name: "FARCALL_SERVICE_URL", value: value.into() };
            assert_eq!(hints.place(), Err(refused), "{value:?}");
        }
    }
}
