//! `configure`: creates an endpoint's directory with a configuration.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

use clap::Args;

use crate::config::{Config, INITIAL};
use crate::console::say;
use crate::directory::{Base, check_name, unwritable};
use crate::exit::{CommandResult, Failure};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The endpoint's name: a directory of this name is made
    #[arg(default_value = "default")]
    name: String,
    /// A configuration to copy
    #[arg(long, value_name = "FILE")]
    endpoint_config: Option<PathBuf>,
    /// How the service's lists show the endpoint
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// Where the service is that the endpoint works for
    #[arg(long, value_name = "URL")]
    service_url: Option<String>,
    /// Certificates of a private authority that the service is known by, as a PEM file
    #[arg(long, value_name = "FILE")]
    ca_certificates: Option<PathBuf>,
    // Options of upstream's that are not supported yet; the error names them.
    #[arg(long, hide = true)]
    multi_user: bool,
    #[arg(long, hide = true)]
    high_assurance: bool,
    #[arg(long, hide = true)]
    auth_policy: Option<String>,
    #[arg(long, hide = true)]
    auth_policy_project_id: Option<String>,
    #[arg(long, hide = true)]
    auth_policy_display_name: Option<String>,
    #[arg(long, hide = true)]
    auth_policy_mfa_required: bool,
    #[arg(long, hide = true)]
    auth_policy_description: Option<String>,
    #[arg(long, hide = true)]
    allowed_domains: Option<String>,
    #[arg(long, hide = true)]
    excluded_domains: Option<String>,
    #[arg(long, hide = true)]
    auth_timeout: Option<u64>,
    #[arg(long, hide = true)]
    subscription_id: Option<String>,
}

pub(super) fn run(base: &Base, options: &Options) -> CommandResult {
    check_name(&options.name)?;
    refuse_unsupported(options)?;
    let text = match &options.endpoint_config {
        Some(path) => fs::read_to_string(path)
            .map_err(|error| Failure::error(format!("{}: {error}", path.display())))?,
        None => INITIAL.to_owned(),
    };
    let text = with(text, "display_name", options.display_name.as_deref());
    let text = with(text, "service_url", options.service_url.as_deref());
    let authorities = options.ca_certificates.as_ref().map(|path| path.display().to_string());
    let text = with(text, "ca_certificates", authorities.as_deref());
    let endpoint = base.named(&options.name);
    let path = endpoint.config();
    Config::read(&path.display().to_string(), &text)?;
    base.create().map_err(|error| unwritable(endpoint.path(), &error))?;
    if !endpoint.create().map_err(|error| unwritable(endpoint.path(), &error))? {
        say(format_args!("{}", endpoint.path().display()));
        say(format_args!("config dir <{}> already exists", options.name));
        return Err(Failure::error("ConfigExists"));
    }
    // The permissions must not depend on the umask.
    fs::set_permissions(endpoint.path(), fs::Permissions::from_mode(0o700))
        .map_err(|error| unwritable(endpoint.path(), &error))?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| unwritable(&path, &error))?;
    file.write_all(text.as_bytes()).map_err(|error| unwritable(&path, &error))?;
    say(format_args!("Created profile for endpoint named <{}>", options.name));
    say("");
    say(format_args!("\tConfiguration file: {}", path.display()));
    say("");
    say("Use the `start` subcommand to run it:");
    say("");
    say(format_args!("\t$ globus-compute-endpoint start {}", options.name));
    Ok(())
}

/// Refuses options that this version does not support yet.
fn refuse_unsupported(options: &Options) -> CommandResult {
    let policy = "let the service's own rules decide who may use the endpoint";
    let unsupported = [
        (options.multi_user, "--multi-user", "configure single-user endpoints, one per user"),
        (options.high_assurance, "--high-assurance", "configure a plain endpoint"),
        (options.auth_policy.is_some(), "--auth-policy", policy),
        (options.auth_policy_project_id.is_some(), "--auth-policy-project-id", policy),
        (options.auth_policy_display_name.is_some(), "--auth-policy-display-name", policy),
        (options.auth_policy_mfa_required, "--auth-policy-mfa-required", policy),
        (options.auth_policy_description.is_some(), "--auth-policy-description", policy),
        (options.allowed_domains.is_some(), "--allowed-domains", policy),
        (options.excluded_domains.is_some(), "--excluded-domains", policy),
        (options.auth_timeout.is_some(), "--auth-timeout", policy),
        (options.subscription_id.is_some(), "--subscription-id", "write subscription_id into config.yaml"),
    ];
    match unsupported.into_iter().find(|(used, ..)| *used) {
        Some((_, option, meanwhile)) => {
            Err(Failure::error(format!("{option} is not part of this version yet; meanwhile {meanwhile}")))
        }
        None => Ok(()),
    }
}

/// Sets a top-level key in the text; leaves everything else as it is, comments included.
fn with(text: String, key: &str, value: Option<&str>) -> String {
    let Some(value) = value else { return text };
    // JSON strings are YAML strings.
    let line = format!("{key}: {}", serde_json::Value::from(value));
    let own = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'));
    if text.lines().any(own) {
        let lines: Vec<_> = text.lines().map(|old| if own(old) { line.as_str() } else { old }).collect();
        lines.join("\n") + "\n"
    } else {
        format!("{line}\n{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_replaced_in_its_place() {
        let set = with(INITIAL.to_owned(), "display_name", Some("My \"box\""));
        assert!(set.starts_with("display_name: \"My \\\"box\\\"\"\nengine:\n"), "{set}");
        let set = with(INITIAL.to_owned(), "service_url", Some("http://h:1/"));
        assert!(set.starts_with("service_url: \"http://h:1/\"\ndisplay_name: null\n"), "{set}");
        assert_eq!(with(INITIAL.to_owned(), "display_name", None), INITIAL);
    }
}
