//! Makes a manager: its configuration, and the files that its user endpoints are configured with.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::directory::{self, private, readable};
use super::{Options, read, say_how_to_start};
use crate::config::{ENVIRONMENT, IDENTITY_MAPPING, ManagerConfig, SCHEMA, TEMPLATE, top_level};
use crate::console::{note, say};
use crate::directory::{Base, EndpointDir};
use crate::exit::{CommandResult, Failure};

/// Whose configuration and output to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    Three,
    /// `maps`: with an identity mapping; without one it serves only its owner.
    Four {
        maps: bool,
    },
}

pub(super) fn make(
    base: &Base,
    endpoint: &EndpointDir,
    options: &Options,
    release: Release,
) -> CommandResult {
    let given = &options.manager;
    let maps = release != Release::Four { maps: false };
    if release == (Release::Four { maps: true }) && given.contact_email.is_none() {
        return Err(Failure::error("Email must be specified via --contact-email for multi-user endpoints"));
    }
    if given.id_mapping_config.is_some() && !maps {
        return Err(Failure::error(
            "--id-mapping-config requires multi user support (hint: --multi-user true)",
        ));
    }
    let mapping_name = match given.id_mapping_config {
        Some(_) => "identity_mapping_config.json",
        None => "example_identity_mapping_config.json",
    };
    let mapping = endpoint.path().join(mapping_name);
    let text = configuration(endpoint, options, release, maps.then_some(&mapping))?;
    ManagerConfig::read(&endpoint.config().display().to_string(), &text)?;

    let template = copied(given.template_config.as_deref(), TEMPLATE)?;
    let schema = copied(given.schema_config.as_deref(), SCHEMA)?;
    json(given.schema_config.as_deref(), &schema, |_| true)?;
    let environment = copied(given.user_env_config.as_deref(), ENVIRONMENT)?;
    // The names of new files: an older template is no choice here.
    let (template_path, schema_path) = (new_template(endpoint), endpoint.user_config_schema());
    let environment_path = endpoint.user_environment();
    let mut files = vec![
        private(&endpoint.config(), &text),
        readable(&template_path, &template),
        readable(&schema_path, &schema),
        readable(&environment_path, &environment),
    ];
    if maps {
        let text = copied(given.id_mapping_config.as_deref(), IDENTITY_MAPPING)?;
        json(given.id_mapping_config.as_deref(), &text, Value::is_array)?;
        files.push(private(&mapping, &text));
    }
    directory::make(base, endpoint, if maps { directory::REACHABLE } else { directory::PRIVATE }, &files)?;

    let (kind, example) = match release {
        Release::Three => ("multi-user profile", "Example identity mapping configuration"),
        Release::Four { .. } => ("profile", "Identity mapping configuration"),
    };
    say(format_args!(
        "Created {kind} for endpoint named <{}>\n\n\tConfiguration file: {}\n",
        endpoint.name(),
        endpoint.config().display()
    ));
    if maps {
        say(format_args!("\t{example}: {}\n", mapping.display()));
    }
    say(format_args!("\tUser endpoint configuration template: {}", template_path.display()));
    say(format_args!("\tUser endpoint configuration schema: {}", schema_path.display()));
    say(format_args!("\tUser endpoint environment variables: {}", environment_path.display()));
    say_how_to_start(&endpoint.name());
    Ok(())
}

fn new_template(endpoint: &EndpointDir) -> PathBuf {
    endpoint.path().join("user_config_template.yaml.j2")
}

/// The text of `config.yaml`: a copied one with the settings of the options, or those alone, in the order of their names.
fn configuration(
    endpoint: &EndpointDir,
    options: &Options,
    release: Release,
    mapping: Option<&PathBuf>,
) -> Result<String, Failure> {
    let given = &options.manager;
    let mut settings = options.settings();
    if options.policy.high_assurance {
        let path = endpoint.path().join("audit.log").display().to_string();
        settings.push(("audit_log_path", top_level::scalar(&path)));
    }
    if let Some(email) = &given.contact_email {
        settings.push(("email", top_level::scalar(email)));
    }
    if let Some(mapping) = mapping {
        let path = mapping.display().to_string();
        settings.push(("identity_mapping_config_path", top_level::scalar(&path)));
    }
    if release == Release::Three {
        settings.push(("multi_user", "true".to_owned()));
    }
    if given.core_config.is_some() && given.manager_config.is_some() {
        note(
            "Both --manager-config and --core-config were provided; --manager-config is deprecated and will be ignored.",
        );
    }
    let base = [&given.core_config, &given.manager_config, &options.endpoint_config];
    let Some(base) = base.into_iter().find_map(Option::as_ref) else {
        if release == (Release::Four { maps: true }) {
            settings.push(("public", "true".to_owned()));
        }
        if options.display_name.is_none() {
            settings.push(("display_name", "null".to_owned()));
        }
        settings.sort();
        return Ok(settings.into_iter().map(|(key, value)| format!("{key}: {value}\n")).collect());
    };
    let text = read(base)?;
    // 4.x leaves the engine of a copied configuration out; it belongs into the template.
    let kept = |key: &str| release == Release::Three || key != "engine";
    let mut text = top_level::only(&text, kept).ok_or_else(|| {
        Failure::error(format!("Source config file ({}) must be a valid YAML mapping", base.display()))
    })?;
    if release == (Release::Four { maps: true }) && !text.lines().any(|line| line.starts_with("public:")) {
        settings.push(("public", "true".to_owned()));
    }
    for (key, value) in settings {
        text = top_level::with(&text, key, &value);
    }
    Ok(text)
}

/// The file that an option names, else the initial text.
fn copied(path: Option<&Path>, initial: &str) -> Result<String, Failure> {
    path.map_or_else(|| Ok(initial.to_owned()), read)
}

/// Refuses a file of an option that is not the JSON it must be.
fn json(path: Option<&Path>, text: &str, fits: impl Fn(&Value) -> bool) -> CommandResult {
    let Some(path) = path else { return Ok(()) };
    match serde_json::from_str::<Value>(text) {
        Ok(value) if fits(&value) => Ok(()),
        Ok(_) => Err(Failure::error(format!("{}: a list of mappings is expected", path.display()))),
        Err(error) => Err(Failure::error(format!("{}: {error}", path.display()))),
    }
}
