//! `self-diagnostic` (also called `globus-compute-diagnostic`): collects information for support in one file.
//!
//! The format is that of the tool in upstream's SDK: sections in a compressed file that is named by the time. No file with
//! secrets is read, and passwords in addresses are masked.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use crate::console::{note, say};
use crate::directory::{Base, EndpointDir};
use crate::exit::{CommandResult, Failure};
use crate::{clock, environment, version};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Print the output instead of writing a file
    #[arg(short, long)]
    print_only: bool,
    /// How much of each log to take, in KB
    #[arg(short = 'k', long, default_value_t = 1024, value_name = "KB")]
    log_kb: u64,
    /// Also say what is being collected
    #[arg(short, long)]
    verbose: bool,
    /// Compress the file (it always is)
    #[arg(short = 'z', long, hide = true)]
    gzip: bool,
    /// Only this endpoint
    #[arg(short, long, value_name = "UUID")]
    endpoint_uuid: Option<String>,
}

/// The extensions of an endpoint's files that are collected; none of these files contains credentials.
const ENDINGS: [&str; 5] = ["yaml", "log", "py", "j2", "json"];

pub(super) fn run(base: &Base, options: &Options) -> CommandResult {
    let mut text = String::new();
    let mut section = |name: &str, body: String| {
        if options.verbose {
            note(format_args!("collected: {name}"));
        }
        // Writing to a string can't fail.
        let _ = writeln!(text, "== Diagnostic: {name} ==\n{}\n", masked(body.trim_end()));
    };
    section(
        "Version",
        format!(
            "Globus Compute endpoint version: {}\nFarcall {}",
            version::UPSTREAM,
            env!("CARGO_PKG_VERSION")
        ),
    );
    section("Hardware", command("lscpu", &[]));
    section("Memory", read_text(Path::new("/proc/meminfo"), 2));
    section("Kernel", command("uname", &["-a"]));
    section("Operating system", read_text(Path::new("/etc/os-release"), 8));
    section("Python", command("python3", &["-c", "import sys; print(sys.version)"]));
    section("Packages", command("python3", &["-m", "pip", "freeze"]));
    section("Environment", environment());
    section("Disk", command("df", &["-h", &base.path().display().to_string()]));
    let endpoints = match &options.endpoint_uuid {
        Some(id) => vec![base.find(id)?],
        None => base.endpoints().map_err(Failure::error)?,
    };
    section(
        "Endpoints",
        endpoints.iter().map(|it| format!("{}\n", super::list::row(it).join("  "))).collect(),
    );
    for endpoint in &endpoints {
        for path in files(endpoint) {
            section(&path.display().to_string(), read_text(&path, options.log_kb));
        }
    }
    if options.print_only {
        say(text.trim_end());
        return Ok(());
    }
    let name =
        format!("globus_compute_diagnostic_{}.txt.gz", clock::utc_time().strftime("%Y-%m-%d-%H-%M-%SZ"));
    let file = fs::File::create(&name).map_err(|error| Failure::error(format!("{name}: {error}")))?;
    let mut packer = Command::new("gzip")
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(file)
        .spawn()
        .map_err(|error| Failure::error(format!("gzip: {error}; --print-only needs none")))?;
    if let Some(mut input) = packer.stdin.take() {
        input.write_all(text.as_bytes()).map_err(Failure::error)?;
    }
    let packed = packer.wait().map_err(Failure::error)?;
    if !packed.success() {
        return Err(Failure::error(format!("gzip: {packed}")));
    }
    say(format_args!("Compressed diagnostic output to {name}"));
    Ok(())
}

fn files(endpoint: &EndpointDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(endpoint.path()).into_iter().flatten().flatten();
    let wanted = |path: &PathBuf| {
        path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| ENDINGS.contains(&ending))
    };
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(wanted).collect();
    found.sort();
    found
}

fn command(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) => String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        Err(error) => format!("{program}: {error}"),
    }
}

/// The last `kilobytes` of a file.
fn read_text(path: &Path, kilobytes: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(kilobytes.saturating_mul(1024))))?;
        let mut bytes = Vec::new();
        file.take(kilobytes.saturating_mul(1024).max(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("{}: {error}", path.display()),
    }
}

/// The environment variables that affect an endpoint; of a secret only that it is set.
fn environment() -> String {
    let named = ["GLOBUS_", "FUNCX_", "FARCALL_", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE"];
    let mut text = String::new();
    for (name, value) in environment::variables() {
        if named.iter().any(|start| name.starts_with(start)) {
            let value = if name.contains("SECRET") { "(set)" } else { &value };
            let _ = writeln!(text, "{name}={value}");
        }
    }
    text
}

/// Masks user and password in every address.
fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|letter: char| letter.is_whitespace() || "/\"'".contains(letter))
            .unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(sign) => {
                out.push_str("***:***");
                &after[sign..]
            }
            None => after,
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_passwords() {
        assert_eq!(
            masked("x amqp://u:p@h:1/ and \"https://a/b@c\" amqps://u:p@h"),
            "x amqp://***:***@h:1/ and \"https://a/b@c\" amqps://***:***@h"
        );
    }
}
