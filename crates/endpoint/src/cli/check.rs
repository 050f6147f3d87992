//! `check` finds problems of a configuration, `render` prints it with every default. Neither starts anything.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::Configuration;
use crate::console::{note, say};
use crate::directory::{Base, EndpointDir};
use crate::exit::{CommandResult, Failure};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The endpoint's name, the ID it is registered under, or the path of a configuration
    #[arg(default_value = "default", value_name = "NAME_OR_UUID_OR_FILE")]
    name: String,
}

/// Reads what the argument names: a file, or an endpoint's configuration.
fn read(base: &Base, name: &str) -> Result<(PathBuf, EndpointDir, Configuration), Failure> {
    let path = Path::new(name);
    if name.contains('/')
        || path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
    {
        let text =
            std::fs::read_to_string(path).map_err(|error| Failure::error(format!("{name}: {error}")))?;
        // The files of a manager lie beside it.
        let endpoint = EndpointDir::at(path.parent().unwrap_or(Path::new("")).to_owned());
        let configuration = Configuration::read(name, &text, endpoint.has_template())?;
        return Ok((path.to_owned(), endpoint, configuration));
    }
    let endpoint = base.find(name)?;
    let (configuration, _) = Configuration::load(&endpoint)?;
    Ok((endpoint.config(), endpoint, configuration))
}

pub(super) fn check(base: &Base, options: &Options) -> CommandResult {
    let (path, endpoint, configuration) = read(base, &options.name)?;
    let problems = configuration.problems(&endpoint);
    if let Some(first) = problems.first() {
        let lines = problems.iter().map(|problem| format!("Error: {}: {problem}", path.display()));
        return Err(Failure::new(first.status(), lines.collect::<Vec<_>>().join("\n")));
    }
    say(format_args!("{}: good", path.display()));
    for warning in configuration.warnings(&endpoint) {
        note(warning);
    }
    Ok(())
}

pub(super) fn render(base: &Base, options: &Options) -> CommandResult {
    let (_, _, configuration) = read(base, &options.name)?;
    super::say_json(&configuration.resolved())
}
