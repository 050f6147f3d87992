//! `configure`: creates an endpoint's directory with a configuration.
//!
//! It takes the options of 3.8 and those of 4.x. In 3.8 `--multi-user` is a switch; in 4.x it has a value, and without it
//! privileges decide. What 4.x writes and prints is chosen by an option that only 4.x has.

mod directory;
mod manager;
mod policy;

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;

use crate::config::{Config, INITIAL, top_level};
use crate::console::say;
use crate::directory::{Base, EndpointDir, check_name};
use crate::exit::{CommandResult, Failure};
use crate::host::changes_user;

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
    #[command(flatten, next_help_heading = "Managers")]
    manager: ManagerOptions,
    #[command(flatten)]
    policy: policy::PolicyOptions,
}

#[derive(Debug, Args)]
struct ManagerOptions {
    /// Make a manager: it runs no tasks itself, and starts a user endpoint for each person and configuration
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "", value_name = "BOOLEAN")]
    multi_user: Option<MultiUser>,
    /// A manager's configuration to copy
    #[arg(long, value_name = "FILE")]
    core_config: Option<PathBuf>,
    /// The former name of --core-config
    #[arg(long, value_name = "FILE", hide = true)]
    manager_config: Option<PathBuf>,
    /// A template of user endpoints' configuration to copy
    #[arg(long, value_name = "FILE")]
    template_config: Option<PathBuf>,
    /// A schema of the template's options to copy
    #[arg(long, value_name = "FILE")]
    schema_config: Option<PathBuf>,
    /// A file of user endpoints' environment variables to copy
    #[arg(long, value_name = "FILE")]
    user_env_config: Option<PathBuf>,
    /// An identity mapping to copy
    #[arg(long, value_name = "FILE")]
    id_mapping_config: Option<PathBuf>,
    /// Whom users may ask about the endpoint
    #[arg(long, value_name = "EMAIL")]
    contact_email: Option<String>,
}

/// The value of `--multi-user`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MultiUser {
    /// Without a value, as in 3.8.
    Switch,
    Yes,
    No,
}

impl FromStr for MultiUser {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_lowercase().as_str() {
            "" => Ok(Self::Switch),
            "true" | "t" | "yes" | "y" | "on" | "1" => Ok(Self::Yes),
            "false" | "f" | "no" | "n" | "off" | "0" => Ok(Self::No),
            _ => Err(format!("'{text}' is not a valid boolean")),
        }
    }
}

/// Joins `--multi-user` and a value that follows it: 4.x takes `--multi-user true NAME`, 3.8 `--multi-user NAME`.
pub(super) fn join_multi_user(words: Vec<std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let is_value = |word: &std::ffi::OsString| {
        word.to_str()
            .is_some_and(|word| ["true", "false", "yes", "no"].contains(&word.to_lowercase().as_str()))
    };
    let mut joined: Vec<std::ffi::OsString> = Vec::new();
    let configures = words.iter().any(|word| word == "configure");
    for word in words {
        match joined.last_mut().filter(|last| configures && *last == "--multi-user" && is_value(&word)) {
            Some(last) => {
                last.push("=");
                last.push(word);
            }
            None => joined.push(word),
        }
    }
    joined
}

impl ManagerOptions {
    /// Whether an option is given that only 4.x has.
    fn newer(&self) -> bool {
        let files = [
            &self.core_config,
            &self.manager_config,
            &self.template_config,
            &self.schema_config,
            &self.user_env_config,
            &self.id_mapping_config,
        ];
        matches!(self.multi_user, Some(MultiUser::Yes | MultiUser::No))
            || files.into_iter().any(Option::is_some)
            || self.contact_email.is_some()
    }

    fn shape(&self) -> Shape {
        match self.multi_user {
            Some(MultiUser::Switch) => Shape::ManagerOf3,
            _ if self.newer() => {
                let maps = self.multi_user.map_or_else(changes_user, |value| value == MultiUser::Yes);
                Shape::ManagerOf4 { maps }
            }
            _ => Shape::Tasks,
        }
    }
}

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// An endpoint that runs tasks.
    Tasks,
    /// A manager, as 3.8 makes it.
    ManagerOf3,
    /// A manager, as 4.x makes it. `maps`: with an identity mapping.
    ManagerOf4 { maps: bool },
}

pub(super) fn run(base: &Base, options: &Options) -> CommandResult {
    check_name(&options.name)?;
    options.policy.check()?;
    let endpoint = base.named(&options.name);
    match options.manager.shape() {
        Shape::Tasks => tasks(base, &endpoint, options),
        Shape::ManagerOf3 => manager::make(base, &endpoint, options, manager::Release::Three),
        Shape::ManagerOf4 { maps } => {
            manager::make(base, &endpoint, options, manager::Release::Four { maps })
        }
    }
}

/// Makes an endpoint that runs tasks.
fn tasks(base: &Base, endpoint: &EndpointDir, options: &Options) -> CommandResult {
    let mut text = match &options.endpoint_config {
        Some(path) => read(path)?,
        None => INITIAL.to_owned(),
    };
    for (key, value) in options.settings() {
        text = top_level::with(&text, key, &value);
    }
    let path = endpoint.config();
    Config::read(&path.display().to_string(), &text)?;
    directory::make(base, endpoint, directory::PRIVATE, &[directory::private(&path, &text)])?;
    say(format_args!("Created profile for endpoint named <{}>", options.name));
    say("");
    say(format_args!("\tConfiguration file: {}", path.display()));
    say_how_to_start(&options.name);
    Ok(())
}

fn say_how_to_start(name: &str) {
    say(format_args!("\nUse the `start` subcommand to run it:\n\n\t$ globus-compute-endpoint start {name}"));
}

/// A file that an option names.
fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::error(format!("{}: {error}", path.display())))
}

impl Options {
    /// The settings that options give, as YAML.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let text =
            |key, value: &Option<String>| value.as_deref().map(|value| (key, top_level::scalar(value)));
        let authorities = self.ca_certificates.as_ref().map(|path| path.display().to_string());
        let mut settings: Vec<_> = [
            text("authentication_policy", &self.policy.auth_policy),
            text("ca_certificates", &authorities),
            text("display_name", &self.display_name),
            text("service_url", &self.service_url),
            text("subscription_id", &self.policy.subscription_id),
        ]
        .into_iter()
        .flatten()
        .collect();
        if self.policy.high_assurance {
            settings.push(("high_assurance", "true".to_owned()));
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn shape(words: &str) -> (String, Shape) {
        let words = ["configure"].into_iter().chain(words.split_whitespace()).map(Into::into).collect();
        let line = Line::parse_from(join_multi_user(words));
        (line.options.name.clone(), line.options.manager.shape())
    }

    #[test]
    fn the_options_decide_what_is_made() {
        let four = |maps| Shape::ManagerOf4 { maps };
        for (words, name, made) in [
            ("", "default", Shape::Tasks),
            ("ep --display-name x", "ep", Shape::Tasks),
            ("--multi-user mep", "mep", Shape::ManagerOf3),
            ("mep --multi-user", "mep", Shape::ManagerOf3),
            ("--multi-user", "default", Shape::ManagerOf3),
            ("--multi-user --contact-email a@b.c mep", "mep", Shape::ManagerOf3),
            ("--multi-user true mep", "mep", four(true)),
            ("mep --multi-user True", "mep", four(true)),
            ("--multi-user=1 mep", "mep", four(true)),
            ("--multi-user false mep", "mep", four(false)),
            ("--multi-user 1", "1", Shape::ManagerOf3),
            ("--contact-email a@b.c mep", "mep", four(changes_user())),
            ("--template-config t.j2 mep", "mep", four(changes_user())),
        ] {
            assert_eq!(shape(words), (name.to_owned(), made), "{words}");
        }
    }
}
