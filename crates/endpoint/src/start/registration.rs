//! Registering an endpoint, and what each refusal means to whoever started it.

use client::place::{Hints, NoPlace};
use client::{Credentials, Error, Refusal, Service};
use wire::EndpointId;
use wire::control::Ability;
use wire::queue::Registration;
use wire::rest::endpoint::{Metadata, Register};
use wire::rest::version::Versions;

use crate::ambient::variable;
use crate::cli::VERSION;
use crate::config::Config;
use crate::directory::EndpointDir;
use crate::exit::{Failure, status};
use crate::heartbeat;

/// Registers with the service the configuration or the environment names.
pub(super) fn register(
    endpoint: &EndpointDir,
    config: &Config,
    text: &str,
    known: Option<EndpointId>,
) -> Result<Registration, Failure> {
    let place = hints(config).place().map_err(|error| nowhere(&error))?;
    let service =
        Service::new(place, credentials()?, &format!("farcall-endpoint/{}", env!("CARGO_PKG_VERSION")))
            .map_err(failed)?;
    let body = body(endpoint, config, text);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::error)?;
    runtime.block_on(async {
        let versions: Versions = service.versions().await.map_err(failed)?;
        if older(VERSION, &versions.min_ep_version) {
            return Err(Failure::error(format!(
                "VersionMismatch: the service wants endpoints of version {} or later, and this one is {VERSION}",
                versions.min_ep_version
            )));
        }
        service.register(known, &body).await.map_err(failed)
    })
}

/// What a registration must hold for an endpoint that runs tasks.
pub(super) fn check(registration: &Registration, known: Option<EndpointId>) -> Result<(), Failure> {
    let Registration { endpoint_id, task_queue_info, result_queue_info, heartbeat_queue_info, .. } =
        registration;
    if let Some(known) = known
        && known != *endpoint_id
    {
        return Err(Failure::new(
            status::SOFTWARE,
            format!(
                "Unexpected response from server: mismatched endpoint id.\n  Expected: {known}\n  Received: {endpoint_id}"
            ),
        ));
    }
    if task_queue_info.is_none() || result_queue_info.is_none() || heartbeat_queue_info.is_none() {
        return Err(Failure::new(status::DATAERR, "Invalid credential structure"));
    }
    Ok(())
}

fn hints(config: &Config) -> Hints {
    Hints {
        service_url: config.service_url.clone(),
        environment: config.environment.clone(),
        farcall_service_url: variable("FARCALL_SERVICE_URL"),
        globus_sdk_environment: variable("GLOBUS_SDK_ENVIRONMENT"),
        globus_sdk_service_url_auth: variable("GLOBUS_SDK_SERVICE_URL_AUTH"),
    }
}

fn nowhere(error: &NoPlace) -> Failure {
    Failure::new(
        status::CONFIG,
        format!(
            "Error: {error}\n  Say where your service is by one of\n    \
             service_url: https://...     in config.yaml (`configure --service-url` writes it)\n    \
             FARCALL_SERVICE_URL=...      in the environment\n    \
             GLOBUS_SDK_ENVIRONMENT=local in the environment, for a service on this machine"
        ),
    )
}

fn credentials() -> Result<Credentials, Failure> {
    let either = |ours: &str, older: &str| variable(ours).or_else(|| variable(older));
    let id = either("GLOBUS_COMPUTE_CLIENT_ID", "FUNCX_SDK_CLIENT_ID");
    let secret = either("GLOBUS_COMPUTE_CLIENT_SECRET", "FUNCX_SDK_CLIENT_SECRET");
    match (id, secret) {
        (Some(client_id), Some(client_secret)) => Ok(Credentials { client_id, client_secret }),
        (None, Some(_)) => Err(Failure::error(
            "GLOBUS_COMPUTE_CLIENT_SECRET is set and GLOBUS_COMPUTE_CLIENT_ID is not; both are needed",
        )),
        (_, None) => Err(Failure::new(
            status::NOPERM,
            "Error: no identity to register with. Logging in with a browser is not part of this version yet; \
             meanwhile set GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET to those of a client identity \
             (`farcall client add` makes one).",
        )),
    }
}

fn body(endpoint: &EndpointDir, config: &Config, text: &str) -> Register {
    Register {
        endpoint_name: endpoint.name(),
        display_name: config.display_name.clone(),
        multi_user: None,
        metadata: Metadata {
            endpoint_version: Some(VERSION.to_owned()),
            hostname: Some(heartbeat::host_name()),
            local_user: Some(heartbeat::user_name()),
            endpoint_config: Some(text.to_owned()),
            farcall: Some(Ability { version: env!("CARGO_PKG_VERSION").to_owned(), cancel: false }),
            ..Metadata::default()
        },
        allowed_functions: config.allowed_functions.clone().filter(|functions| !functions.is_empty()),
        authentication_policy: config.authentication_policy,
        subscription_uuid: config.subscription_id,
        public: None,
        high_assurance: Some(false),
        admins: config.admins.clone().filter(|admins| !admins.is_empty()),
    }
}

/// What upstream's endpoint prints and the status it leaves with, for each failure.
fn failed(error: Error) -> Failure {
    match error {
        Error::Refused(Refusal { status: 404 | 409 | 423, text, .. }) => blocked(status::UNAVAILABLE, &text),
        Error::Refused(Refusal { status: 400 | 422, text, .. }) => blocked(status::DATAERR, &text),
        Error::Unauthenticated(refusal) => {
            let mut text = format!(
                "Compute CLI Error: An Auth API error occurred.\nHTTP status: {}\nError code: {}\nError message: {}",
                refusal.status,
                refusal.code.as_deref().unwrap_or("none"),
                refusal.message.as_deref().unwrap_or(&refusal.text)
            );
            if refusal.status == 400 && refusal.code.as_deref() == Some("invalid_grant") {
                text += "\nYour credentials may have expired.";
            }
            Failure::new(status::NOPERM, text)
        }
        Error::Unreachable { .. } => Failure::new(
            status::TEMPFAIL,
            format!(
                "Network failure; unable to register endpoint: {error}\nPlease check the connection and try again."
            ),
        ),
        Error::Refused(_) | Error::Unreadable { .. } | Error::Unusable(_) => Failure::error(error),
    }
}

fn blocked(status: u8, text: &str) -> Failure {
    Failure::new(status, format!("Endpoint registration blocked.  [{text}]"))
}

/// Whether a version is older than the least one asked for; parts that are no numbers end the comparison.
fn older(version: &str, least: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> { text.split('.').map_while(|part| part.parse().ok()).collect() };
    numbers(version) < numbers(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_status() {
        let refused =
            |status| Error::Refused(Refusal { status, code: None, message: None, text: "why".into() });
        for (http, exit) in [(404, 69), (409, 69), (423, 69), (400, 65), (422, 65)] {
            let failure = failed(refused(http));
            assert_eq!(
                (failure.status, failure.text.as_str()),
                (exit, "Endpoint registration blocked.  [why]"),
                "{http}"
            );
        }
        assert_eq!(failed(refused(403)).status, 1);
        assert_eq!(failed(Error::Unreachable { url: "u".into(), reason: "r".into() }).status, 75);
        let refusal =
            Refusal { status: 400, code: Some("invalid_grant".into()), message: None, text: String::new() };
        let failure = failed(Error::Unauthenticated(refusal));
        assert_eq!(failure.status, 77);
        assert!(failure.text.starts_with("Compute CLI Error: An Auth API error occurred."));
        assert!(failure.text.contains("expired"));
    }

    #[test]
    fn what_a_registration_must_hold() {
        let id: EndpointId = "e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap();
        let other: EndpointId = "e58b2276-b397-4246-b1a2-607d8e3b5839".parse().unwrap();
        let whole = Registration::new(id, "amqp://h/");
        assert_eq!(check(&whole, None), Ok(()));
        assert_eq!(check(&whole, Some(id)), Ok(()));
        let mismatch = check(&whole, Some(other)).unwrap_err();
        assert_eq!(mismatch.status, 70);
        assert!(mismatch.text.starts_with("Unexpected response from server: mismatched endpoint id."));
        let part = Registration { heartbeat_queue_info: None, ..whole };
        assert_eq!(check(&part, None), Err(Failure::new(65, "Invalid credential structure")));
    }

    #[test]
    fn versions_compare_by_number() {
        for (version, least, expected) in [
            ("3.8.0", "1.0.0a0", false),
            ("3.8.0", "3.8.0", false),
            ("3.8.0", "3.10.0", true),
            ("3.8.0", "4", true),
            ("3.8.0", "nonsense", false),
        ] {
            assert_eq!(older(version, least), expected, "{version} {least}");
        }
    }
}
