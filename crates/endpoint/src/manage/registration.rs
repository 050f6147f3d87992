//! What a manager registers, and what it needs of the service's answer.

use client::amqp::LinkConfig;
use manager::template::RenderError;
use manager::{schema, template};
use serde_json::Value;
use wire::EndpointId;
use wire::extensions::Capabilities;
use wire::queue::Registration;
use wire::rest::endpoint::{Metadata, Register};

use crate::config::ManagerConfig;
use crate::directory::EndpointDir;
use crate::exit::{Failure, status};
use crate::{host, version};

/// How many commands may be unacknowledged: more than the core lets wait, so that it can refuse what is too much.
const PREFETCH: u16 = 2_000;

/// The body of a manager's registration. Reads template and schema.
pub(super) fn body(endpoint: &EndpointDir, config: &ManagerConfig, text: &str) -> Result<Register, Failure> {
    let common = &config.common;
    // As the launcher reads them: root follows nobody else's links, and waits for no FIFO.
    let unusable = |error: RenderError| {
        Failure::new(status::CONFIG, format!("Error: ({}) {}", error.exception, error.text))
    };
    let template = template::read(&config.template(endpoint)).map_err(unusable)?;
    let schema = schema::read(&config.schema(endpoint)).map_err(unusable)?;
    let changes_user = host::changes_user();
    Ok(Register {
        endpoint_name: endpoint.name(),
        display_name: common.display_name.clone(),
        // As since 3.12: whether it can run as other users.
        multi_user: changes_user.then_some(true),
        metadata: Metadata {
            endpoint_version: Some(version::UPSTREAM.to_owned()),
            hostname: Some(host::host_name()),
            local_user: Some(host::user_name()),
            endpoint_config: Some(text.to_owned()),
            user_config_template: Some(template),
            user_config_schema: Some(schema.unwrap_or(Value::Null)),
            farcall: Some(Capabilities { version: env!("CARGO_PKG_VERSION").to_owned(), cancel: false }),
            ..Metadata::default()
        },
        // An empty list is one: nothing is allowed.
        allowed_functions: common.allowed_functions.clone(),
        authentication_policy: common.authentication_policy,
        subscription_uuid: common.subscription_id,
        public: Some(config.public),
        high_assurance: Some(config.high_assurance),
        admins: common.admins.clone().filter(|admins| !admins.is_empty()),
    })
}

/// Checks that an answer has all that a manager needs.
pub(super) fn check(registration: &Registration, known: Option<EndpointId>) -> Result<(), Failure> {
    if let Some(known) = known
        && known != registration.endpoint_id
    {
        return Err(Failure::new(
            status::SOFTWARE,
            format!(
                "Unexpected response from server: mismatched endpoint id.\n  Expected: {known}, received: {}",
                registration.endpoint_id
            ),
        ));
    }
    for (name, present) in [
        ("command_queue_info", registration.command_queue_info.is_some()),
        ("heartbeat_queue_info", registration.heartbeat_queue_info.is_some()),
    ] {
        if !present {
            return Err(Failure::new(
                status::DATAERR,
                format!("Invalid or unexpected registration data structure: (KeyError) '{name}'"),
            ));
        }
    }
    Ok(())
}

/// How to connect to the broker that the service's answer names.
pub(super) fn link_config(
    registration: &Registration,
    config: &ManagerConfig,
    authorities: Option<String>,
) -> Result<LinkConfig, Failure> {
    let name = format!("manager {}", registration.endpoint_id);
    LinkConfig::of_manager(registration, config.common.amqp_port, authorities, PREFETCH, name).map_err(
        |error| {
            Failure::new(
                status::DATAERR,
                format!("Invalid or unexpected registration data structure: {error}"),
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_must_contain() {
        let id: EndpointId = "e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap();
        let other: EndpointId = "e58b2276-b397-4246-b1a2-607d8e3b5839".parse().unwrap();
        let whole = Registration::new(id, "amqp://h/");
        assert_eq!(check(&whole, None), Ok(()));
        assert_eq!(check(&whole, Some(other)).unwrap_err().status, 70);
        let part = Registration { command_queue_info: None, ..whole };
        assert_eq!(
            check(&part, Some(id)),
            Err(Failure::new(
                65,
                "Invalid or unexpected registration data structure: (KeyError) 'command_queue_info'"
            ))
        );
    }
}
