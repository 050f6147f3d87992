//! `farcall doctor`: checks an installation, from its data directory, and says how to repair what is wrong.
//!
//! It changes nothing, and works whether the service runs or not. Each check says what it found. A check that could not be
//! done says so, instead of "ok".

mod certificate;
mod chain;
mod clients;
mod listening;

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access, geteuid};

use self::clients::Running;
use crate::clock;
use crate::http::listeners::Protocols;
use crate::operate::config::Config;
use crate::operate::data_directory::Directory;
use crate::operate::database::{self, DatabaseProblem};
use crate::operate::listen_plan;
use crate::operate::serve::certificate_files;
use crate::operate::start_problems::{self, StartProblem};
use store::{Schema, Store};

/// With less free space the next result may not fit.
const DISK_LOW: u64 = 256 << 20;
/// With fewer free inodes, large payloads soon can't be stored.
const FILES_LOW: u64 = 1_000;
/// With less free space, the operator is warned.
const DISK_SHORT: u64 = 4 << 30;
/// 2025, in seconds since 1970. A clock that shows an earlier time is wrong.
const WRITTEN: i64 = 1_735_689_600;
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckResult {
    Passed,
    /// It works, but may fail soon; or it could not be checked.
    Warning,
    Failed,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub of: &'static str,
    pub result: CheckResult,
    pub seen: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = match self.result {
            CheckResult::Passed => "ok     ",
            CheckResult::Warning => "warning",
            CheckResult::Failed => "FAIL   ",
        };
        write!(f, "{result}  {}: {}", self.of, self.seen)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n         -> {remedy}"),
            None => Ok(()),
        }
    }
}

fn passed(of: &'static str, seen: impl Into<String>) -> Finding {
    Finding { of, result: CheckResult::Passed, seen: seen.into(), remedy: None }
}

fn warning(of: &'static str, seen: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { of, result: CheckResult::Warning, seen: seen.into(), remedy: Some(remedy.into()) }
}

fn failed(of: &'static str, seen: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { of, result: CheckResult::Failed, seen: seen.into(), remedy: Some(remedy.into()) }
}

/// Checks the data directory `root` with the configuration `config`. `authority` is the file whose certificates clients are
/// told to trust, if any. `log` is the value of FARCALL_LOG.
pub async fn examine(
    root: &Path,
    config: &Config,
    authority: Option<&Path>,
    log: Option<&str>,
) -> Vec<Finding> {
    let running = Directory::is_held(root).then(|| running(root));
    let problems = start_problems::find(config, root, log, running.is_some());
    let mut findings = Vec::new();
    if problems.is_empty() {
        findings.push(passed("configuration", "it is right"));
    }
    findings.extend(problems.iter().map(blocked));
    findings.extend([directory(root), disk(root), clock()]);
    findings.extend(match &config.store.url {
        None => vec![database(root).await],
        Some(url) => database_on_server(url, running.is_some()).await,
    });
    let files = certificate_files(&config.tls, root);
    let chain = files.as_ref().and_then(|files| files.read().ok()).map(|read| read.cert).unwrap_or_default();
    match &running {
        Some(running) => {
            findings.push(passed("service", "it runs on this data directory"));
            let (listeners, other) = listeners(config, running);
            findings.extend(other);
            for (address, spoken) in listeners {
                findings.extend(listening::ask(address, spoken, chain.first()).await);
            }
        }
        None => {
            findings.push(passed("service", "it does not run; its ports were tried instead of asked"));
            let taken = |address: &SocketAddr| {
                problems.iter().any(|it| matches!(it, StartProblem::Port(other, _) if other == address))
            };
            let addresses = listen_plan::plan(config).into_iter().map(|(address, _)| address);
            let free = addresses.filter(|address| address.port() != 0 && !taken(address));
            findings.extend(free.map(|address| passed("port", format!("{address} is free"))));
        }
    }
    let mut refused = false;
    if let Some(files) = files {
        let of_certificate = certificate::examine(&files, &names(config), authority, clock::now());
        refused =
            of_certificate.iter().any(|finding| finding.result == CheckResult::Failed) || chain.is_empty();
        findings.extend(of_certificate);
    }
    findings.push(clients::outside(config, running.as_ref(), refused));
    findings
}

fn blocked(problem: &StartProblem) -> Finding {
    let of = match problem {
        StartProblem::Certificate(_) => "certificate",
        StartProblem::Secret(_) => "identity",
        StartProblem::Port(..) => "port",
        StartProblem::Database(_) | StartProblem::DatabaseElsewhere(_) => "database",
        StartProblem::LogVariable(_) => "log",
    };
    failed(of, problem.to_string(), problem.remedy())
}

/// Where the service says that it listens.
fn running(root: &Path) -> Running {
    let text = std::fs::read(root.join("addresses.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Where to ask the service that runs. It may have been started with other settings than ours: then it is asked where it
/// listens, and the difference is told.
fn listeners(config: &Config, running: &Running) -> (Vec<(SocketAddr, Protocols)>, Option<Finding>) {
    type Kind = (&'static str, fn(Protocols) -> bool, fn(&mut Protocols));
    let kinds: [Kind; 5] = [
        ("http", |it| it.http, |it| it.http = true),
        ("amqp", |it| it.amqp, |it| it.amqp = true),
        ("https", |it| it.https, |it| it.https = true),
        ("amqps", |it| it.amqps, |it| it.amqps = true),
        ("metrics", |it| it.metrics, |it| it.metrics = true),
    ];
    let plan = listen_plan::plan(config);
    let mut open = Vec::new();
    let mut differ = Vec::new();
    for (name, speaks, set) in kinds {
        let wanted = plan.iter().find(|(_, spoken)| speaks(*spoken)).map(|(address, _)| *address);
        let found =
            running.get(name).and_then(|url| url.rsplit_once('/')).and_then(|(_, it)| it.parse().ok());
        if let Some(address) = found {
            let mut spoken = Protocols::default();
            set(&mut spoken);
            open.push((address, spoken));
        }
        let same = found == wanted || found.zip(wanted).is_some_and(|(_, wanted)| wanted.port() == 0);
        if !same {
            let shown = |it: Option<SocketAddr>| it.map_or("nowhere".to_owned(), |it| it.to_string());
            differ.push(format!("{name} at {} (here: {})", shown(found), shown(wanted)));
        }
    }
    if differ.is_empty() {
        let plan = plan.into_iter().filter(|(address, _)| address.port() != 0);
        let free = open
            .into_iter()
            .filter(|(address, _)| !listen_plan::plan(config).iter().any(|(it, _)| it == address));
        return (plan.chain(free).collect(), None);
    }
    let seen = format!("the service runs with other settings than these: {}", differ.join(", "));
    let remedy = "give `doctor` what `serve` was given (--set, FARCALL_…), or restart the service";
    (open, Some(warning("settings", seen, remedy)))
}

fn directory(root: &Path) -> Finding {
    const OF: &str = "data directory";
    let shown = root.display();
    let known = match std::fs::metadata(root) {
        Ok(known) => known,
        Err(error) => return failed(OF, format!("{shown}: {error}"), "run this as the service's user"),
    };
    if access(root, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let remedy = format!("chown -R it to the service's user, who is now {}", geteuid());
        return failed(OF, format!("{shown} cannot be written by this user"), remedy);
    }
    match known.mode() & 0o077 {
        0 => passed(OF, format!("{shown}, for its owner only")),
        _ => failed(OF, format!("{shown} is open to others"), format!("chmod 700 {shown}")),
    }
}

fn disk(root: &Path) -> Finding {
    const OF: &str = "disk";
    let there = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let Ok(known) = statvfs(there) else {
        return warning(OF, format!("{} could not be asked", there.display()), "look with `df`");
    };
    let free = known.blocks_available().saturating_mul(known.fragment_size());
    let files = (known.files() > 0).then(|| known.files_available());
    room(free, files, there)
}

/// Whether so many bytes, and so many files if those are limited, are enough.
fn room(free: u64, files: Option<u64>, there: &Path) -> Finding {
    const OF: &str = "disk";
    let shown = format!("{:.1} GB free below {}", free as f64 / 1e9, there.display());
    let remedy = "make room, or shorten limits.result_days";
    if let Some(files) = files.filter(|files| *files < FILES_LOW) {
        return failed(OF, format!("{files} files may still be made below {}", there.display()), remedy);
    }
    match free {
        free if free < DISK_LOW => failed(OF, shown, remedy),
        free if free < DISK_SHORT => warning(OF, shown, remedy),
        _ => passed(OF, shown),
    }
}

/// Tokens, commands to managers and certificates all go by it.
fn clock() -> Finding {
    let keepers = [
        "/run/systemd/timesync/synchronized",
        "/run/chrony/chronyd.pid",
        "/run/chronyd.pid",
        "/run/ntpd.pid",
    ];
    time(clock::now(), keepers.iter().any(|path| Path::new(path).exists()))
}

fn time(now: Timestamp, kept: bool) -> Finding {
    const OF: &str = "clock";
    let remedy = "run a time service, such as chrony or systemd-timesyncd";
    // No copy of this program is older than itself.
    if now.as_second() < WRITTEN {
        return failed(OF, format!("it says {now:.0}"), remedy);
    }
    match kept {
        true => passed(OF, format!("{now:.0}, kept by a time service")),
        false => warning(OF, format!("{now:.0}; no time service was found that keeps it"), remedy),
    }
}

async fn database(root: &Path) -> Finding {
    const OF: &str = "database";
    let path = root.join("farcall.db");
    if !path.exists() {
        return passed(OF, "there is none yet; the first start makes it");
    }
    match Store::check_integrity(&path).await {
        Ok(said) if said == "ok" => passed(OF, format!("{} is whole", path.display())),
        Ok(said) => {
            let remedy = "stop the service, keep a copy of the files, and restore the last backup";
            failed(OF, format!("{}: {said}", path.display()), remedy)
        }
        Err(error) => {
            failed(OF, error.to_string(), "run this as the service's user, on the service's machine")
        }
    }
}

/// Looks at a PostgreSQL database.
async fn database_on_server(url: &str, runs: bool) -> Vec<Finding> {
    const OF: &str = "database";
    let (found, problems) = match database::inspect(url, runs).await {
        Ok(found) => found,
        Err(problem) => return vec![failed(OF, problem.to_string(), problem.remedy())],
    };
    let schema = match found.schema {
        Schema::Missing => "has no tables yet; the first start makes them".to_owned(),
        Schema::Older { version, known } => {
            format!(
                "has the tables of an earlier version (change {version} of {known}); the next start changes them"
            )
        }
        Schema::Later { version, known } => format!(
            "has the tables of a later version (change {version}, this version knows {known}), which this one can use"
        ),
        Schema::Current => "has the tables of this version".to_owned(),
    };
    let seen = format!("PostgreSQL {} at {} takes writes, and {schema}", found.version, found.at);
    let finding = |problem: &DatabaseProblem| match problem.is_warning() {
        true => warning(OF, problem.to_string(), problem.remedy()),
        false => failed(OF, problem.to_string(), problem.remedy()),
    };
    let works = problems.iter().all(DatabaseProblem::is_warning).then(|| passed(OF, seen));
    works.into_iter().chain(problems.iter().map(finding)).collect()
}

/// The names under which clients will look for the certificate.
fn names(config: &Config) -> Vec<String> {
    let public =
        config.http.public_names.iter().map(|name| name.rsplit_once(':').map_or(name.as_str(), |it| it.0));
    let mut names: Vec<String> =
        config.amqp.public_host.iter().map(String::as_str).chain(public).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_and_clocks() {
        use CheckResult::{Failed, Passed, Warning};
        let room = |free, files| room(free, files, Path::new("/srv")).result;
        assert_eq!(room(100 << 30, None), Passed);
        assert_eq!(room(100 << 30, Some(1 << 20)), Passed);
        assert_eq!(room(100 << 30, Some(10)), Failed, "files can run out before bytes do");
        assert_eq!(room(1 << 30, None), Warning);
        assert_eq!(room(1 << 20, None), Failed);
        let now = Timestamp::from_second(WRITTEN).unwrap();
        assert_eq!(time(now, true).result, Passed);
        assert_eq!(time(now, false).result, Warning);
        assert_eq!(time(Timestamp::UNIX_EPOCH, true).result, Failed);
    }

    #[test]
    fn a_service_with_other_settings_is_asked_where_it_listens() {
        let running = |pairs: &[(&str, &str)]| -> Running {
            pairs.iter().map(|(name, url)| ((*name).to_owned(), (*url).to_owned())).collect()
        };
        let config = Config::default();
        let (http, amqp) = (("http", "http://127.0.0.1:5000"), ("amqp", "amqp://127.0.0.1:5672"));
        let (open, other) = listeners(&config, &running(&[http, amqp]));
        assert!(open == listen_plan::plan(&config) && other.is_none(), "{open:?} {other:?}");
        let (open, other) = listeners(&config, &running(&[("http", "http://127.0.0.1:5001"), amqp]));
        assert_eq!(open.iter().map(|it| it.0.port()).collect::<Vec<_>>(), [5001, 5672]);
        let other = other.unwrap();
        assert!(other.seen.ends_with("http at 127.0.0.1:5001 (here: 127.0.0.1:5000)"), "{other}");
    }

    #[test]
    fn the_names_of_a_certificate() {
        let mut config = Config::default();
        config.amqp.public_host = Some("compute.example.org".into());
        config.http.public_names = vec!["compute.example.org:443".into(), "[2001:db8::1]:443".into()];
        assert_eq!(names(&config), ["[2001:db8::1]", "compute.example.org"]);
    }
}
