//! `render-user-config`: prints what a manager's template makes of a submitter's options. Starts nothing and asks nobody.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use manager::schema;
use manager::template::{self, Account, Inputs, RenderError, mapped_identity};
use nix::unistd::{Gid, User, getgrouplist, getuid};
use serde_json::Value;
use wire::json::Object;

use crate::config::{Configuration, ManagerConfig};
use crate::console::{note, say};
use crate::directory::{Base, EndpointDir};
use crate::exit::{CommandResult, Failure};
use crate::{environment, version};

/// Bytes read from standard input.
const STDIN: u64 = 1 << 20;
/// The identity of a submitter who is nobody.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

#[derive(Debug, Args)]
#[command(after_help = "A file `-` is standard input; one option may read from it.\n\n\
    Examples:\n  \
    globus-compute-endpoint render-user-config -t my_template.yaml.j2 -s user_config_schema.json -o user_options.json\n  \
    cat user_options.json | globus-compute-endpoint render-user-config -e my_endpoint -o -")]
pub(super) struct Options {
    /// The endpoint whose template, schema and configuration are used where no other option names a file
    #[arg(short, long, value_name = "NAME_OR_UUID")]
    endpoint: Option<String>,
    /// The template to render
    #[arg(short, long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// The user's options, as JSON
    #[arg(short = 'o', long, value_name = "FILE")]
    user_options: Option<PathBuf>,
    /// The JSON schema that options must satisfy
    #[arg(short = 's', long, value_name = "FILE")]
    user_schema: Option<PathBuf>,
    /// The variable `parent_config`, as YAML
    #[arg(long, value_name = "FILE", help_heading = "Variables that users can't set")]
    parent_config: Option<PathBuf>,
    /// The variable `user_runtime`, as JSON [default: what this machine's python3 says of itself]
    #[arg(long, value_name = "FILE", help_heading = "Variables that users can't set")]
    user_runtime: Option<PathBuf>,
    /// The variable `mapped_identity`, as JSON: {"local": {"uname": …}, "globus": {"id": …}} [default: your account]
    #[arg(long, value_name = "FILE", help_heading = "Variables that users can't set")]
    mapped_identity: Option<PathBuf>,
}

/// A text, and the name that messages give to where it came from.
struct Input {
    name: String,
    text: String,
}

pub(super) fn run(base: &Base, options: &Options) -> CommandResult {
    let files = [
        &options.template,
        &options.user_options,
        &options.user_schema,
        &options.parent_config,
        &options.user_runtime,
        &options.mapped_identity,
    ];
    if files.iter().filter(|file| file.as_deref().is_some_and(is_stdin)).count() > 1 {
        return Err(Failure::error("At most one input may be read from stdin across all options."));
    }
    let endpoint = options.endpoint.as_deref().map(|name| base.find(name)).transpose()?;
    let manager = endpoint.as_ref().map(Manager::of).transpose()?;

    let (template_path, template_text) = match (&options.template, &manager) {
        (Some(file), _) => (file.clone(), read("--template' / '-t", file)?.text),
        (None, Some(manager)) => {
            (manager.template.clone(), template::read(&manager.template).map_err(failed)?)
        }
        (None, None) => return Err(Failure::error("Must provide at least one of --endpoint or --template.")),
    };
    let schema = match (&options.user_schema, &manager) {
        (Some(file), _) => Some(Value::Object(object(&read("--user-schema' / '-s", file)?, "user schema")?)),
        (None, Some(manager)) => schema::read(&manager.schema).map_err(failed)?,
        (None, None) => None,
    };
    let parent_config = match (&options.parent_config, &manager) {
        (Some(file), _) => parent_config(&read("--parent-config", file)?)?,
        (None, Some(manager)) => manager.config.clone(),
        (None, None) => ManagerConfig::read("config.yaml", "")?.resolved(),
    };
    let user_options = match &options.user_options {
        Some(file) => object(&read("--user-options' / '-o", file)?, "user options")?,
        None => Object::new(),
    };
    let user_runtime = match &options.user_runtime {
        Some(file) => Value::Object(object(&read("--user-runtime", file)?, "user runtime")?),
        None => own_runtime(),
    };
    let mapped_identity = match &options.mapped_identity {
        Some(file) => Value::Object(object(&read("--mapped-identity", file)?, "mapped identity")?),
        None => mapped_identity(&own_account()?, Some(NOBODY)),
    };
    let variables: BTreeMap<_, _> = environment::variables().into_iter().collect();
    let rendered = template::render(&Inputs {
        template_path: &template_path,
        template_text: &template_text,
        schema: schema.as_ref(),
        user_options: &user_options,
        user_runtime: Some(&user_runtime),
        parent_config: &parent_config,
        mapped_identity: &mapped_identity,
        environment: &variables,
    })
    .map_err(failed)?;
    note("Rendered user config:");
    say(rendered);
    Ok(())
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Reads what an option names.
fn read(option: &str, file: &Path) -> Result<Input, Failure> {
    let name = if is_stdin(file) { "<stdin>".to_owned() } else { file.display().to_string() };
    let mut text = String::new();
    let outcome = if is_stdin(file) {
        std::io::stdin().lock().take(STDIN).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(STDIN).read_to_string(&mut text))
    };
    match outcome {
        Ok(_) => Ok(Input { name, text }),
        Err(error) => {
            let reason = match error.kind() {
                std::io::ErrorKind::NotFound => "No such file or directory".to_owned(),
                std::io::ErrorKind::PermissionDenied => "Permission denied".to_owned(),
                _ => error.to_string(),
            };
            Err(Failure::new(
                2,
                format!(
                    "Usage: globus-compute-endpoint render-user-config [OPTIONS]\n\
                     Try 'globus-compute-endpoint render-user-config --help' for help.\n\n\
                     Error: Invalid value for '{option}': '{name}': {reason}"
                ),
            ))
        }
    }
}

/// A document that must be an object.
fn object(input: &Input, what: &str) -> Result<Object, Failure> {
    match serde_json::from_str(&input.text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => {
            Err(Failure::error(format!("Invalid {what} data in {}: must be a JSON dictionary.", input.name)))
        }
        Err(error) => Err(Failure::error(format!(
            "Invalid JSON in {} for {what}.\n\t(json.decoder.JSONDecodeError) {error}",
            input.name
        ))),
    }
}

/// What of a manager's directory a rendering uses.
struct Manager {
    template: PathBuf,
    schema: PathBuf,
    config: Value,
}

impl Manager {
    fn of(endpoint: &EndpointDir) -> Result<Self, Failure> {
        match Configuration::load(endpoint)? {
            (Configuration::Manager(config), _) => Ok(Self {
                template: config.template(endpoint),
                schema: config.schema(endpoint),
                config: config.resolved(),
            }),
            (Configuration::Tasks(_), _) => {
                Err(Failure::error(format!("Endpoint {} does not support templating.", endpoint.name())))
            }
        }
    }
}

/// A manager's configuration from a file that stands for itself.
fn parent_config(input: &Input) -> Result<Value, Failure> {
    match Configuration::read(&input.name, &input.text, true) {
        Ok(Configuration::Manager(config)) => Ok(config.resolved()),
        Ok(Configuration::Tasks(_)) => {
            Err(Failure::error("Provided parent config does not support templating."))
        }
        Err(error) => Err(Failure::error(format!(
            "Invalid parent config data in {}.\n\t{}",
            input.name,
            Failure::from(error).bare()
        ))),
    }
}

/// What the SDK on this machine would send of itself.
fn own_runtime() -> Value {
    const ASK: &str = "
import json, platform, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
print(json.dumps({
    'globus_compute_sdk_version': version('globus-compute-sdk'), 'globus_sdk_version': version('globus-sdk'), 'python_version': sys.version,
    'python': {
        'version': platform.python_version(), 'version_description': sys.version, 'version_tuple': sys.version_info[:3],
        'version_info': tuple(sys.version_info), 'implementation': platform.python_implementation(), 'compiler': platform.python_compiler(),
    },
    'platform': {
        'architecture': platform.architecture(), 'machine': platform.machine(), 'node': platform.node(), 'platform': platform.platform(),
        'processor': platform.processor(), 'release': platform.release(),
    },
}))
";
    let output =
        Command::new("python3").args(["-c", ASK]).output().ok().filter(|output| output.status.success());
    let said = output.and_then(|output| serde_json::from_slice::<Object>(&output.stdout).ok());
    let mut runtime = said.unwrap_or_default();
    runtime.retain(|_, value| !value.is_null());
    runtime.entry("globus_compute_sdk_version").or_insert_with(|| version::UPSTREAM.into());
    Value::Object(runtime)
}

/// The account of this process.
fn own_account() -> Result<Account, Failure> {
    let uid = getuid();
    let user = User::from_uid(uid).ok().flatten();
    let user = user.ok_or_else(|| Failure::error(format!("There is no local user with the id {uid}.")))?;
    let groups = std::ffi::CString::new(user.name.as_str()).ok();
    let groups = groups.and_then(|name| getgrouplist(&name, user.gid).ok()).unwrap_or_else(|| vec![user.gid]);
    Ok(Account {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
        gecos: user.gecos.to_string_lossy().into_owned(),
        shell: user.shell.display().to_string(),
        home: user.dir.display().to_string(),
    })
}

fn failed(error: RenderError) -> Failure {
    let module = match error.exception.as_str() {
        "ValidationError" | "SchemaError" => "jsonschema.exceptions.",
        "JSONDecodeError" => "json.decoder.",
        name if name.starts_with("Template") => "jinja2.exceptions.",
        "UndefinedError" | "SecurityError" => "jinja2.exceptions.",
        _ => "builtins.",
    };
    Failure::error(format!(
        "Failed to render user configuration template.\n\t({module}{}) {}",
        error.exception, error.text
    ))
}
