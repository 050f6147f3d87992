//! The settings that every endpoint has, whether it runs tasks or manages user endpoints.

use std::path::{Path, PathBuf};

use serde_json::json;
use wire::{FunctionId, IdentityId, PolicyId, SubscriptionId};

use super::fields::Fields;

/// A shorter period is raised to this many seconds.
pub(crate) const LEAST_HEARTBEAT_PERIOD: u64 = 5;

/// The settings of every endpoint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Common {
    pub(crate) display_name: Option<String>,
    /// `None` allows every function, an empty list none.
    pub(crate) allowed_functions: Option<Vec<FunctionId>>,
    pub(crate) admins: Option<Vec<IdentityId>>,
    pub(crate) authentication_policy: Option<PolicyId>,
    pub(crate) subscription_id: Option<SubscriptionId>,
    pub(crate) amqp_port: Option<u16>,
    /// In seconds, at least [`LEAST_HEARTBEAT_PERIOD`].
    pub(crate) heartbeat_period: u64,
    /// Upstream's name of an environment.
    pub(crate) environment: Option<String>,
    pub(crate) debug: bool,
    /// Not upstream's.
    pub(crate) service_url: Option<String>,
    /// Not upstream's: a PEM file of a private authority's certificates.
    pub(crate) ca_certificates: Option<PathBuf>,
    /// Not upstream's: the size in bytes at which the log file is rotated.
    pub(crate) log_size_limit: u64,
}

/// The settings that say where the service is and how it is recognised.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServiceSettings<'a> {
    pub(crate) service_url: Option<&'a str>,
    pub(crate) environment: Option<&'a str>,
    pub(crate) ca_certificates: Option<&'a Path>,
}

/// Takes the settings out of `fields`, which keeps the errors.
pub(super) fn read(fields: &mut Fields<'_>) -> Common {
    let display_name = fields.text("display_name").filter(|name| name != "None");
    let allowed_functions = fields.ids("allowed_functions");
    let admins = fields.ids("admins");
    let authentication_policy = fields.id("authentication_policy");
    let subscription_id = fields.id("subscription_id");
    let amqp_port = fields.integer("amqp_port");
    let heartbeat_period = fields.integer("heartbeat_period").unwrap_or(30_u64);
    let environment = fields.text("environment");
    let local = fields.boolean("local_compute_services").unwrap_or(false);
    Common {
        display_name,
        allowed_functions,
        admins,
        authentication_policy,
        subscription_id,
        amqp_port,
        heartbeat_period: heartbeat_period.max(LEAST_HEARTBEAT_PERIOD),
        environment: if local { Some("local".to_owned()) } else { environment },
        debug: fields.boolean("debug").unwrap_or(false),
        service_url: fields.text("service_url"),
        ca_certificates: fields.text("ca_certificates").map(PathBuf::from),
        log_size_limit: fields.integer("log_size_limit").unwrap_or(100 << 20),
    }
}

impl Common {
    /// The settings as JSON.
    pub(super) fn resolved(&self) -> serde_json::Map<String, serde_json::Value> {
        let named = |name: &str, value: serde_json::Value| (name.to_owned(), value);
        serde_json::Map::from_iter([
            named("display_name", json!(self.display_name)),
            named("allowed_functions", json!(self.allowed_functions)),
            named("admins", json!(self.admins)),
            named("authentication_policy", json!(self.authentication_policy)),
            named("subscription_id", json!(self.subscription_id)),
            named("amqp_port", json!(self.amqp_port)),
            named("heartbeat_period", json!(self.heartbeat_period)),
            named("environment", json!(self.environment)),
            named("debug", json!(self.debug)),
            named("service_url", json!(self.service_url)),
            named("ca_certificates", json!(self.ca_certificates)),
            named("log_size_limit", json!(self.log_size_limit)),
        ])
    }

    pub(crate) fn service(&self) -> ServiceSettings<'_> {
        ServiceSettings {
            service_url: self.service_url.as_deref(),
            environment: self.environment.as_deref(),
            ca_certificates: self.ca_certificates.as_deref(),
        }
    }
}
