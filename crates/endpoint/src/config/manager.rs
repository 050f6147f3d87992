//! A manager's configuration: which template, as which local users, with which limits.
//!
//! The keys are those of 3.8 and of 4.x in one; what both refuse gets the error of 3.8.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::common::{self, Common};
use super::fields::{Fields, NOT_A_BOOLEAN, NOT_A_SWITCH, NOT_TEXT};
use super::scalar::{boolean, text};
use super::yaml::{Entry, Node, Value};
use super::{BadConfig, keys};
use crate::directory::EndpointDir;

/// The PAM service that is asked unless another is named.
const PAM_SERVICE: &str = "globus-compute-endpoint";
/// The length of the longest name of a file.
const LONGEST_NAME: usize = 255;
/// The longest grace period: start commands are not kept for ever.
const LONGEST_GRACE_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// The settings of a manager, with defaults filled in. Relative paths are below the directory of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ManagerConfig {
    pub(crate) common: Common,
    /// Whether everybody sees it in lists. It gives no permission.
    pub(crate) public: bool,
    pub(crate) high_assurance: bool,
    /// Whom users may ask. It is written by 4.x and sent nowhere.
    pub(crate) email: Option<String>,
    user_config_template_path: Option<PathBuf>,
    user_config_schema_path: Option<PathBuf>,
    /// Required of a manager that may become other users, and ignored otherwise.
    pub(crate) identity_mapping_config_path: Option<PathBuf>,
    pub(crate) audit_log_path: Option<PathBuf>,
    /// The PAM service that is asked before a user endpoint starts. `None`: PAM is not asked, and all privileges are
    /// dropped for good.
    pub(crate) pam_service: Option<String>,
    /// How long the newest start command of a running user endpoint is kept, in case the user endpoint is about to end.
    pub(crate) grace_period: Duration,
    /// Whether user endpoints may run as the manager's own privileged user.
    pub(crate) allow_same_user: bool,
    /// Not upstream's: starts that run side by side.
    pub(crate) max_concurrent_starts: u32,
    /// Not upstream's: user endpoints that live at a time.
    pub(crate) max_user_endpoints: u32,
}

impl ManagerConfig {
    /// Upstream's name of the configuration of a manager.
    pub(super) const MODEL: &str = "ManagerEndpointConfigModel";

    /// Reads a configuration; errors name it `file`. An empty one is a manager's, as in 4.x.
    pub(crate) fn read(file: &str, text: &str) -> Result<Self, BadConfig> {
        let node = super::parsed(text)?;
        Self::read_node(file, text, &node)
    }

    pub(super) fn read_node(file: &str, text: &str, node: &Node) -> Result<Self, BadConfig> {
        let empty = Node { at: node.at, value: Value::Map(Vec::new()) };
        let mut fields = Fields::of(if node.value == Value::Null { &empty } else { node })?;
        let directory = Path::new(file).parent().unwrap_or(Path::new(""));

        if let Some(entry) = fields.given("multi_user")
            && entry.node.value != Value::Bool(true)
        {
            let what = match entry.node.value {
                Value::Bool(_) => "a manager has it true, or not at all (type=value_error)",
                _ => NOT_A_SWITCH,
            };
            fields.refuse("multi_user", what, Some(entry.at));
        }
        let common = common::read(&mut fields);
        let high_assurance = fields.boolean("high_assurance").unwrap_or(false);
        if high_assurance && (common.subscription_id.is_none() || common.authentication_policy.is_none()) {
            let what = "High Assurance(HA) endpoints require both a HA policy and a HA subscription id (type=value_error)";
            fields.refuse("high_assurance", what, None);
        }
        let public = fields.boolean("public").unwrap_or(false);
        let email = fields.text("email");
        let user_config_template_path = fields.path("user_config_template_path", directory);
        let user_config_schema_path = fields.path("user_config_schema_path", directory);
        let identity_mapping_config_path = fields.path("identity_mapping_config_path", directory);
        let audit_log_path = fields.path("audit_log_path", directory);
        if audit_log_path.is_some() && !high_assurance {
            fields.refuse("audit_log_path", "it needs high_assurance: true (type=value_error)", None);
        }
        let allow_same_user = fields.boolean("force_mu_allow_same_user").unwrap_or(false);
        let grace_period = fields.number("mu_child_ep_grace_period_s").unwrap_or(30.0);
        let pam_service = fields.given("pam").and_then(|entry| pam(&mut fields, entry));
        let max_concurrent_starts = limit(&mut fields, "max_concurrent_starts", 32);
        let max_user_endpoints = limit(&mut fields, "max_user_endpoints", 1_000);

        fields.finish(
            Self::MODEL,
            file,
            text,
            &[&keys::EVERY_ENDPOINT[..], &keys::MANAGER].concat(),
            elsewhere,
        )?;
        Ok(Self {
            common,
            public,
            high_assurance,
            email,
            user_config_template_path,
            user_config_schema_path,
            identity_mapping_config_path,
            audit_log_path,
            pam_service,
            grace_period: bounded(grace_period),
            allow_same_user,
            max_concurrent_starts,
            max_user_endpoints,
        })
    }

    /// The template of its user endpoints' configuration.
    pub(crate) fn template(&self, endpoint: &EndpointDir) -> PathBuf {
        self.user_config_template_path.clone().unwrap_or_else(|| endpoint.user_config_template())
    }

    /// The schema of the options that the template takes. It need not exist.
    pub(crate) fn schema(&self, endpoint: &EndpointDir) -> PathBuf {
        self.user_config_schema_path.clone().unwrap_or_else(|| endpoint.user_config_schema())
    }

    /// The files that the configuration names, each with its key.
    pub(super) fn named_files(&self) -> [(&'static str, Option<&Path>); 3] {
        [
            ("user_config_template_path", self.user_config_template_path.as_deref()),
            ("user_config_schema_path", self.user_config_schema_path.as_deref()),
            ("identity_mapping_config_path", self.identity_mapping_config_path.as_deref()),
        ]
    }

    /// Programs on this machine that need privileges of their own, which user endpoints can't gain without PAM.
    pub(super) fn programs_without_privileges(&self) -> Vec<&'static str> {
        const NEED_PRIVILEGES: [&str; 6] = [
            // podman without root
            "/usr/bin/newuidmap",
            "/usr/bin/newgidmap",
            // file systems of users, such as images of apptainer
            "/usr/bin/fusermount3",
            "/usr/libexec/apptainer/bin/starter-suid",
            // PBS's commands, to prove who calls
            "/opt/pbs/sbin/pbs_iff",
            "/usr/sbin/pbs_iff",
        ];
        if self.pam_service.is_some() {
            return Vec::new();
        }
        NEED_PRIVILEGES.into_iter().filter(|program| Path::new(program).exists()).collect()
    }

    /// All settings as JSON, with every default filled in.
    pub(crate) fn resolved(&self) -> Json {
        let mut all = self.common.resolved();
        all.extend([
            ("multi_user".to_owned(), true.into()),
            ("public".to_owned(), self.public.into()),
            ("high_assurance".to_owned(), self.high_assurance.into()),
            ("email".to_owned(), json!(self.email)),
            ("user_config_template_path".to_owned(), json!(self.user_config_template_path)),
            ("user_config_schema_path".to_owned(), json!(self.user_config_schema_path)),
            ("identity_mapping_config_path".to_owned(), json!(self.identity_mapping_config_path)),
            ("audit_log_path".to_owned(), json!(self.audit_log_path)),
            (
                "pam".to_owned(),
                json!({
                    "enable": self.pam_service.is_some(),
                    "service_name": self.pam_service.as_deref().unwrap_or(PAM_SERVICE),
                }),
            ),
            ("mu_child_ep_grace_period_s".to_owned(), self.grace_period.as_secs_f64().into()),
            ("force_mu_allow_same_user".to_owned(), self.allow_same_user.into()),
            ("max_concurrent_starts".to_owned(), self.max_concurrent_starts.into()),
            ("max_user_endpoints".to_owned(), self.max_user_endpoints.into()),
        ]);
        all.into()
    }
}

/// Where a setting belongs that a manager does not have.
fn elsewhere(name: &str) -> Option<&'static str> {
    match name {
        "engine" => Some("a manager runs no tasks: write the engine into the user endpoints' template"),
        "detach_endpoint" => Some("`start --detach` runs a manager in the background"),
        "paths" => Some("it is a setting of user endpoints: write it into their template"),
        name if keys::TASKS.contains(&name) => {
            Some("it is a setting of user endpoints: write it into their template")
        }
        _ => None,
    }
}

/// A number of seconds as a grace period. One below zero, or that is no number, is none.
fn bounded(seconds: f64) -> Duration {
    match Duration::try_from_secs_f64(seconds) {
        Ok(period) => period.min(LONGEST_GRACE_PERIOD),
        Err(_) if seconds > 0.0 => LONGEST_GRACE_PERIOD,
        Err(_) => Duration::ZERO,
    }
}

/// A number that must be 1 or more.
fn limit(fields: &mut Fields<'_>, name: &str, usual: u32) -> u32 {
    let number = fields.integer(name).unwrap_or(usual);
    if number == 0 {
        fields.refuse(name, "value must be 1 or more (type=value_error)", None);
    }
    number
}

/// Reads `pam: {enable, service_name}`; the service, if PAM is enabled.
fn pam(fields: &mut Fields<'_>, entry: &Entry) -> Option<String> {
    let Value::Map(entries) = &entry.node.value else {
        let what = "instance of PamConfiguration, tuple or dict expected (type=type_error.dataclass; \
                    class_name=PamConfiguration)";
        fields.refuse("pam", what, Some(entry.at));
        return None;
    };
    let (mut enable, mut service) = (true, PAM_SERVICE.to_owned());
    for Entry { at, key, node } in entries {
        match key.as_str() {
            "enable" => match boolean(&node.value) {
                Some(value) => enable = value,
                None => fields.refuse("pam -> enable", NOT_A_BOOLEAN, Some(*at)),
            },
            "service_name" => match text(&node.value) {
                Some(name) if is_a_file_name(&name) => service = name,
                Some(_) => fields.refuse(
                    "pam -> service_name",
                    "it is no name of a file in /etc/pam.d (type=value_error)",
                    Some(*at),
                ),
                None => fields.refuse("pam -> service_name", NOT_TEXT, Some(*at)),
            },
            other => fields.refuse(
                "pam",
                &format!(
                    "PamConfiguration.__init__() got an unexpected keyword argument '{other}' (type=type_error)"
                ),
                Some(*at),
            ),
        }
    }
    enable.then_some(service)
}

fn is_a_file_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-+@".contains(letter);
    (1..=LONGEST_NAME).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

#[cfg(test)]
mod tests;
