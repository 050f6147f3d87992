//! `check` finds problems of a configuration, `render` prints it with every default. Neither starts anything.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::Config;
use crate::console::say;
use crate::directory::Base;
use crate::exit::{CommandResult, Failure, status};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The endpoint's name, the ID it is registered under, or the path of a configuration
    #[arg(default_value = "default", value_name = "NAME_OR_UUID_OR_FILE")]
    name: String,
}

/// Reads what the argument names: a file, or an endpoint's configuration.
fn read(base: &Base, name: &str) -> Result<(PathBuf, Config), Failure> {
    let path = Path::new(name);
    if name.contains('/')
        || path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
    {
        let text =
            std::fs::read_to_string(path).map_err(|error| Failure::error(format!("{name}: {error}")))?;
        return Ok((path.to_owned(), Config::read(name, &text)?));
    }
    let endpoint = base.find(name)?;
    let (config, _) = Config::load(&endpoint)?;
    Ok((endpoint.config(), config))
}

pub(super) fn check(base: &Base, options: &Options) -> CommandResult {
    let (path, config) = read(base, &options.name)?;
    let problems = config.problems();
    if !problems.is_empty() {
        let lines = problems.iter().map(|problem| format!("Error: {}: {problem}", path.display()));
        return Err(Failure::new(status::CONFIG, lines.collect::<Vec<_>>().join("\n")));
    }
    say(format_args!("{}: good", path.display()));
    Ok(())
}

pub(super) fn render(base: &Base, options: &Options) -> CommandResult {
    let (_, config) = read(base, &options.name)?;
    super::say_json(&config.resolved())
}
