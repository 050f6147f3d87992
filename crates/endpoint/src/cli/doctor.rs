//! `doctor`: finds out why an endpoint would not start. Checks everything that a start needs, and changes nothing.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use client::amqp::{self, Address};
use serde::Serialize;
use serde_json::Value;

use super::Form;
use crate::account::AccountSettings;
use crate::clock;
use crate::config::{Config, Configuration};
use crate::console::say;
use crate::directory::{Base, EndpointDir};
use crate::exit::{CommandResult, Failure, block_on};
use crate::host::{changes_user, user_name};
use crate::pid::{self, ProcessState};

/// The largest tolerable difference of clocks, in seconds: tokens and time stamps depend on it.
const MAX_SKEW: i64 = 60;
/// With less free space the next results may find no room.
const MIN_FREE_BYTES: u64 = 64 << 20;
const CONNECTING: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The endpoint's name, or the ID it is registered under
    #[arg(default_value = "default", value_name = "NAME_OR_UUID")]
    name: String,
    #[command(flatten)]
    form: Form,
}

/// The result of one check.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    good: bool,
    text: String,
}

pub(super) fn run(base: &Base, options: &Options) -> CommandResult {
    let mut findings = Vec::new();
    check(base, &options.name, &mut findings);
    let bad = findings.iter().filter(|finding| !finding.good).count();
    if options.form.json() {
        super::say_json(&findings)?;
    } else {
        for Finding { what, good, text } in &findings {
            let mark = if *good { "ok  " } else { "FAIL" };
            say(format_args!("{mark} {what:13} {}", text.trim_end().replace('\n', "\n                   ")));
        }
    }
    match bad {
        0 => Ok(()),
        1 => Err(Failure::new(1, "1 problem found")),
        _ => Err(Failure::new(1, format!("{bad} problems found"))),
    }
}

fn check(base: &Base, name: &str, findings: &mut Vec<Finding>) {
    let mut find = |what, result: Result<String, String>| {
        let good = result.is_ok();
        findings.push(Finding { what, good, text: result.unwrap_or_else(|text| text) });
        good
    };
    let endpoint = match base.find(name) {
        Ok(endpoint) => endpoint,
        Err(missing) => {
            find("directory", Err(text_of(&missing)));
            return;
        }
    };
    find("directory", disk(&endpoint));
    find(
        "process",
        match pid::process_state(&endpoint) {
            ProcessState::Absent => Ok("it does not run".to_owned()),
            ProcessState::Alive(process) => Ok(format!("it runs (process {})", process.pid())),
            ProcessState::Elsewhere(host) => Err(format!("it runs on {host}; stop it there first")),
            ProcessState::Silent(host) => {
                Ok(format!("it ran on {host}, which has not been heard of for long; a start here takes over"))
            }
            ProcessState::Dead => Ok("it ended unexpectedly; the next start cleans up".to_owned()),
        },
    );
    let configuration = match Configuration::load(&endpoint) {
        Ok((configuration, _)) => configuration,
        Err(bad) => {
            find("configuration", Err(text_of(&bad)));
            return;
        }
    };
    let problems = configuration.problems(&endpoint);
    for problem in &problems {
        find("configuration", Err(problem.to_string()));
    }
    if problems.is_empty() {
        find("configuration", Ok(endpoint.config().display().to_string()));
    }
    let amqp_port = match &configuration {
        Configuration::Tasks(config) => {
            let own = config.engine.runnable().ok().and_then(|options| options.python);
            let init = worker_init(config);
            find("interpreter", interpreter(own.as_deref().unwrap_or("python3"), &init));
            config.common.amqp_port
        }
        Configuration::Manager(config) => {
            find("users", Ok(users(&configuration.warnings(&endpoint))));
            config.common.amqp_port
        }
    };
    let settings =
        AccountSettings { endpoint: Some((&endpoint, configuration.service())), ..AccountSettings::of(base) };
    let address = settings.address();
    let manages = matches!(configuration, Configuration::Manager(_));
    let there = find(
        "service",
        address
            .as_ref()
            .map(|address| format!("{}, by {}", address.service, address.named_by))
            .map_err(text_of),
    );
    if there {
        block_on(async {
            check_service(&settings, amqp_port, manages, &mut find).await;
            Ok(())
        })
        .unwrap_or_else(|failure| {
            find("service", Err(text_of(&failure)));
        });
    }
}

/// The checks that need answers of the service.
async fn check_service(
    settings: &AccountSettings<'_>,
    port: Option<u16>,
    manages: bool,
    find: &mut impl FnMut(&'static str, Result<String, String>) -> bool,
) {
    let account = match settings.account().await {
        Ok(account) => account,
        Err(failure) => {
            find("identity", Err(text_of(&failure)));
            return;
        }
    };
    match account.service.date().await {
        Ok(date) => {
            find("reachability", Ok(format!("{} answers", account.service.address().service)));
            if let Some(date) = date {
                find("clock", clock(&date));
            }
        }
        Err(error) => {
            find("reachability", Err(error.to_string()));
            return;
        }
    }
    let logged_in = account.service.logged_in().await;
    if !find(
        "identity",
        match logged_in {
            Ok(true) => Ok(account.identity.clone()),
            Ok(false) => Err("nobody is logged in: run `globus-compute-endpoint login`".to_owned()),
            Err(error) => Err(error.to_string()),
        },
    ) {
        return;
    }
    match account.service.results_address().await {
        Ok(url) => {
            let authorities = settings.trust().ok().and_then(|trust| trust.pem);
            find("broker", broker(&url, port, authorities).await);
        }
        Err(error) => {
            find("broker", Err(text_of(&account.failed(error))));
        }
    }
    let known = settings.endpoint.and_then(|(endpoint, _)| endpoint.registered_id());
    let Some(id) = known.filter(|_| !manages) else { return };
    match account.service.endpoint_status::<Value>(id).await {
        Ok(status) if status["status"] == "online" => {
            find("nodes", nodes(&status["details"]));
        }
        // The service does not know the endpoint any more: its next start registers it again.
        Ok(_) | Err(client::Error::Refused(client::Refusal { status: 404, .. })) => {}
        Err(error) => {
            find("nodes", Err(text_of(&account.failed(error))));
        }
    }
}

/// What an endpoint that is online reports of its nodes and workers, and what keeps them from working.
fn nodes(report: &Value) -> Result<String, String> {
    let count = |name: &str| report[name].as_u64().unwrap_or(0);
    let (nodes, starting) = (count("managers"), count("starting_managers"));
    let mut text = format!("nodes: {nodes}, workers: {}", count("total_workers"));
    if starting > 0 {
        text += &format!("; nodes that are still starting their workers: {starting}");
    }
    let missing = report["slots_missing"].as_str().map(|why| ("workers are missing", why));
    let failed = report["last_block_failure"].as_str().map(|why| ("the last block failed", why));
    match missing.or(failed) {
        Some((what, why)) => Err(format!("{text}; {what}: {}", why.trim())),
        None => Ok(text),
    }
}

/// As whom a manager's user endpoints run, and what may surprise there.
fn users(warnings: &[String]) -> String {
    let mut text = match changes_user() {
        true => "user endpoints run as the local users that the identity mapping names".to_owned(),
        false => format!("user endpoints run as {}, for its owner only", user_name()),
    };
    for warning in warnings {
        text += "\nwarning: ";
        text += warning;
    }
    text
}

fn text_of(failure: &Failure) -> String {
    failure.bare().to_owned()
}

/// Whether the endpoint's directory can be written and has free space.
fn disk(endpoint: &EndpointDir) -> Result<String, String> {
    let path = endpoint.path();
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let probe = path.join(".doctor");
    let written = fs::File::create(&probe).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_all()
    });
    // What could not be made need not be removed.
    let _ = fs::remove_file(&probe);
    written.map_err(failed)?;
    let room = nix::sys::statvfs::statvfs(path).map_err(|error| failed(error.into()))?;
    let free = room.blocks_available().saturating_mul(room.fragment_size());
    if free < MIN_FREE_BYTES {
        return Err(format!("{}: only {} MB are free", path.display(), free >> 20));
    }
    Ok(format!("{} can be written, {} MB are free", path.display(), free >> 20))
}

/// The provider's `worker_init`.
fn worker_init(config: &Config) -> String {
    let engine = config.engine.resolved();
    let init = engine.get("provider").and_then(|provider| provider.get("worker_init")?.as_str());
    init.unwrap_or_default().to_owned()
}

/// Checks that the workers' interpreter exists and is new enough, and whether it has dill.
fn interpreter(python: &str, init: &str) -> Result<String, String> {
    let script = "import sys\ntry:\n import dill\n d = 'dill ' + dill.__version__\nexcept ImportError:\n d = 'no dill'\n\
                  print('%d.%d.%d' % sys.version_info[:3], sys.executable, d, sep='|')";
    let output = Command::new("/bin/bash")
        .arg("-c")
        .arg(format!("{init}\nexec \"$0\" -c \"$1\""))
        .args([python, script])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("/bin/bash: {error}"))?;
    let out = String::from_utf8_lossy(&output.stdout);
    let line = out.lines().last().unwrap_or_default();
    let parts: Vec<_> = line.split('|').collect();
    let [version, path, dill] = parts[..] else {
        return Err(format!("{python} can't be run: {}", String::from_utf8_lossy(&output.stderr).trim()));
    };
    let number = |index| version.split('.').nth(index).and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    if (number(0), number(1)) < (3, 8) {
        return Err(format!("{path} is Python {version}; workers need 3.8 or later"));
    }
    Ok(format!("Python {version} at {path}, {dill}"))
}

fn clock(date: &str) -> Result<String, String> {
    let theirs = jiff::fmt::rfc2822::DateTimeParser::new()
        .relaxed_weekday(true)
        .parse_timestamp(date)
        .map_err(|_| format!("the service's clock can't be read: {date}"))?;
    let ours = i64::try_from(clock::since_epoch().as_secs()).unwrap_or(i64::MAX);
    let skew = ours.saturating_sub(theirs.as_second());
    if skew.abs() > MAX_SKEW {
        let side = if skew > 0 { "ahead of" } else { "behind" };
        return Err(format!("this machine's clock is {} s {side} the service's", skew.abs()));
    }
    Ok("this machine's clock and the service's agree".to_owned())
}

/// Whether the broker accepts a TLS and AMQP connection.
async fn broker(url: &str, port: Option<u16>, authorities: Option<String>) -> Result<String, String> {
    let address = Address::parse(url, port).map_err(|error| error.to_string())?;
    let (host, port) = address.target();
    let shown = format!("{host}:{port}");
    match tokio::time::timeout(CONNECTING, amqp::check_connection(&address, authorities)).await {
        Ok(Ok(())) => Ok(format!("{shown} accepts connections")),
        Ok(Err(why)) => Err(format!("{shown}: {why}")),
        Err(_) => Err(format!("{shown} does not answer")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn different_clocks_are_reported_with_the_difference() {
        let checked = |ahead: i64| {
            let ours = i64::try_from(clock::since_epoch().as_secs()).unwrap();
            let theirs = jiff::Timestamp::from_second(ours - ahead).unwrap();
            clock(&jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&theirs).unwrap())
        };
        assert_eq!(checked(0), Ok("this machine's clock and the service's agree".to_owned()));
        assert!(checked(MAX_SKEW / 2).is_ok());
        // A second may pass meanwhile.
        for (ahead, seconds, side) in [(600, [600, 601], "ahead of"), (-600, [600, 599], "behind")] {
            let why = checked(ahead).unwrap_err();
            let near =
                |seconds: i64| why == format!("this machine's clock is {seconds} s {side} the service's");
            assert!(seconds.into_iter().any(near), "{why}");
        }
        assert!(clock("yesterday").unwrap_err().contains("can't be read"));
    }

    #[test]
    fn nodes_that_start_and_workers_that_are_missing() {
        let table = [
            (json!({"managers": 2, "total_workers": 8}), Ok("nodes: 2, workers: 8")),
            (json!({}), Ok("nodes: 0, workers: 0")),
            (
                json!({"managers": 2, "starting_managers": 1, "total_workers": 4}),
                Ok("nodes: 2, workers: 4; nodes that are still starting their workers: 1"),
            ),
            (
                json!({"managers": 1, "total_workers": 3, "slots_missing": "node 1 on vm: no module\n"}),
                Err("nodes: 1, workers: 3; workers are missing: node 1 on vm: no module"),
            ),
            (
                json!({"managers": 0, "last_block_failure": "exit code 3"}),
                Err("nodes: 0, workers: 0; the last block failed: exit code 3"),
            ),
        ];
        for (report, expected) in table {
            assert_eq!(nodes(&report).as_deref().map_err(String::as_str), expected, "{report}");
        }
    }

    #[test]
    fn the_worker_init_of_a_configuration() {
        let of = |text: &str| worker_init(&Config::read("f", text).unwrap());
        assert_eq!(of("engine: {provider: {type: LocalProvider, worker_init: echo 1}}"), "echo 1");
        assert_eq!(of("engine: {}"), "");
        assert_eq!(of("engine: {type: ThreadPoolEngine}"), "", "it has no provider");
    }

    #[test]
    fn an_unusable_interpreter() {
        let scratch = tempfile::tempdir().unwrap();
        let missing = scratch.path().join("missing/python3").display().to_string();
        let why = interpreter(&missing, "").unwrap_err();
        assert!(why.contains(&format!("{missing} can't be run")), "{why}");
        let old = scratch.path().join("python3");
        fs::write(&old, "#!/bin/sh\necho '3.7.17|/usr/bin/python3|no dill'\n").unwrap();
        let bash = format!("chmod +x {}", old.display());
        let why = interpreter(&old.display().to_string(), &bash).unwrap_err();
        assert_eq!(why, "/usr/bin/python3 is Python 3.7.17; workers need 3.8 or later");
    }

    #[test]
    fn a_directory_that_cannot_be_written() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = |name: &str| EndpointDir::at(scratch.path().join(name));
        assert!(disk(&endpoint("")).unwrap().contains("can be written"));
        assert!(disk(&endpoint("missing")).unwrap_err().contains("No such file"));
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing is left");
    }
}
