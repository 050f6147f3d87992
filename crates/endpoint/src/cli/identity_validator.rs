//! `globus-idm-validator`: tries a mapping file with identities, before a manager uses it.
//!
//! This program under that name. Reads two files and prints; [`manager::mapping::validate`] does the rest.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use clap::Parser;
use manager::mapping::FILE_LIMIT;
use manager::mapping::validate::{self, IDENTITIES_FILE_LIMIT, Report, validate};

use crate::console::{complain, say};
use crate::exit::{CommandResult, Failure};

/// Loads the specified identity mapping configuration and attempts to map the passed in identity (stdin or --identities)
///
/// The exit status is 2 if a file can't be found, and 1 for other failures.
#[derive(Debug, Parser)]
#[command(
    name = "globus-idm-validator",
    arg_required_else_help = true,
    after_help = "Example invocations:\n  \
        globus-idm-validator -c ./new_config.json -i ./test_identity_list.json\n  \
        globus-idm-validator --config ./another_config.json < /another/identity_list.json\n  \
        globus get-identities user@host -F json | globus-idm-validator --config ./some_config.json"
)]
struct Options {
    /// Path to a JSON identity mapping configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Path to a JSON formatted identities list, or from stdin if not provided
    #[arg(short, long, value_name = "FILE")]
    identities: Option<PathBuf>,
    /// Display verbose validation output
    #[arg(short, long, overrides_with = "verbose")]
    verbose: bool,
    /// Return the first matched identity
    #[arg(short, long, overrides_with_all = ["first", "all"])]
    first: bool,
    /// Return all matched identities (default)
    #[arg(short, long, overrides_with_all = ["first", "all"])]
    all: bool,
}

/// Runs the command line of this process.
pub(super) fn main() -> CommandResult {
    let options = Options::parse();
    let report = match read_mapping(&options.config) {
        Ok(mapping) => {
            let what = validate::Options { first: options.first, verbose: options.verbose };
            let path = options.identities.as_deref();
            let source = path.map_or("stdin".to_owned(), |path| path.display().to_string());
            validate(&mapping, || read_identities(path), &source, what)
        }
        Err(report) => report,
    };
    if report.status != 0 {
        return Err(Failure::new(report.status, report.messages.join("\n")));
    }
    report.messages.iter().for_each(complain);
    say(report.output);
    Ok(())
}

fn read_mapping(path: &Path) -> Result<Vec<u8>, Report> {
    read_file(path, FILE_LIMIT).map_err(|error| {
        unreadable(&error, path, "Failed to read config:", || {
            format!("Failed to read mapping configuration from ({}): ", path.display())
        })
    })
}

fn read_identities(path: Option<&Path>) -> Result<Vec<u8>, Report> {
    let Some(path) = path else {
        if io::stdin().is_terminal() {
            complain("Awaiting JSON list of identities; Ctrl+D on empty line when done.");
        }
        return read(io::stdin().lock(), IDENTITIES_FILE_LIMIT).map_err(|error| {
            Report::failed(1, format!("Failed to read identities from (stdin): ({}) {error}", name(&error)))
        });
    };
    read_file(path, IDENTITIES_FILE_LIMIT).map_err(|error| {
        unreadable(&error, path, "Failed to parse identities:", || {
            format!("Failed to read identities from ({}):", path.display())
        })
    })
}

/// Reads a file; of one that is too large, so much that its size is refused.
fn read_file(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read(File::open(path)?, limit)
}

fn read(source: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    source.take(limit).read_to_end(&mut text)?;
    Ok(text)
}

/// Says why a file can't be read, in upstream's words: a path that leads to no file has others.
fn unreadable(error: &io::Error, path: &Path, no_file: &str, other: impl FnOnce() -> String) -> Report {
    let no_such_file = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory);
    let (status, what) = if no_such_file { (2, no_file.to_owned()) } else { (1, other()) };
    let text = error.to_string();
    let text = match error.raw_os_error() {
        Some(code) => {
            let text = text.strip_suffix(&format!(" (os error {code})")).unwrap_or(&text);
            format!("[Errno {code}] {text}: '{}'", path.display())
        }
        None => text,
    };
    Report::failed(status, format!("{what} ({}) {text}", name(error)))
}

/// The name of Python's exception for an error.
fn name(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "FileNotFoundError",
        io::ErrorKind::IsADirectory => "IsADirectoryError",
        io::ErrorKind::PermissionDenied => "PermissionError",
        _ => "OSError",
    }
}
