//! Registers an endpoint with the service.

use wire::EndpointId;
use wire::extensions::Capabilities;
use wire::queue::Registration;
use wire::rest::endpoint::{Metadata, Register};
use wire::rest::version::Versions;

use crate::account::Account;
use crate::config::Config;
use crate::directory::EndpointDir;
use crate::exit::{Failure, status};
use crate::{host, version};

/// Registers the endpoint; checks first whether the service accepts endpoints of this version.
pub(crate) async fn register(
    account: &Account,
    body: &Register,
    known: Option<EndpointId>,
) -> Result<Registration, Failure> {
    let failed = |error| account.failed(error);
    let versions: Versions = account.service.versions().await.map_err(failed)?;
    if older(version::UPSTREAM, &versions.min_ep_version) {
        return Err(Failure::error(format!(
            "VersionMismatch: the service wants endpoints of version {} or later, and this one is {}",
            versions.min_ep_version,
            version::UPSTREAM
        )));
    }
    account.service.register(known, body).await.map_err(failed)
}

/// Checks that a registration has everything that an endpoint for tasks needs.
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

/// The body of the registration of an endpoint that runs tasks.
pub(crate) fn body(endpoint: &EndpointDir, config: &Config, text: &str) -> Register {
    Register {
        endpoint_name: endpoint.name(),
        display_name: config.common.display_name.clone(),
        multi_user: None,
        metadata: Metadata {
            endpoint_version: Some(version::UPSTREAM.to_owned()),
            hostname: Some(host::host_name()),
            local_user: Some(host::user_name()),
            endpoint_config: Some(text.to_owned()),
            farcall: Some(Capabilities { version: env!("CARGO_PKG_VERSION").to_owned(), cancel: true }),
            ..Metadata::default()
        },
        // An empty list is one: nothing is allowed.
        allowed_functions: config.common.allowed_functions.clone(),
        authentication_policy: config.common.authentication_policy,
        subscription_uuid: config.common.subscription_id,
        public: None,
        high_assurance: Some(false),
        admins: config.common.admins.clone().filter(|admins| !admins.is_empty()),
    }
}

/// Whether a version is older than the minimum. The comparison ends at the first part that is no number.
fn older(version: &str, least: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> { text.split('.').map_while(|part| part.parse().ok()).collect() };
    numbers(version) < numbers(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registration_must_contain() {
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
