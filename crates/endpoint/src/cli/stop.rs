//! `stop`: stops an endpoint on this machine or, with `--remote`, on any host.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use nix::sys::signal::Signal;

use crate::account::AccountSettings;
use crate::clock;
use crate::config::Configuration;
use crate::console::note;
use crate::directory::{Base, EndpointDir};
use crate::exit::{CommandResult, Failure, block_on, status};
use crate::pid::{self, Process, ProcessState};

/// How long an orderly stop may take beyond the tasks' grace.
const BEYOND_GRACE: Duration = Duration::from_secs(8);
/// How long the orderly stop of a manager may take: it ends its user endpoints within 20 seconds.
const MANAGERS: Duration = Duration::from_secs(22);
/// How long to wait after the second and the last signal.
const HURRIED: Duration = Duration::from_secs(5);
/// How often to check whether the process has ended: it is no child of this process.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The endpoint's name, or the ID it is registered under
    #[arg(default_value = "default", value_name = "NAME_OR_UUID")]
    name: String,
    /// Stop all endpoints with this ID, wherever they run: the service locks it for a while
    #[arg(long)]
    remote: bool,
}

pub(super) fn run(base: &Base, options: &Options) -> CommandResult {
    let endpoint = base.find(&options.name)?;
    if options.remote {
        remotely(base, &endpoint)?;
    }
    local(&endpoint)
}

fn remotely(base: &Base, endpoint: &EndpointDir) -> CommandResult {
    let (configuration, _) = Configuration::load(endpoint)?;
    let id = endpoint
        .registered_id()
        .ok_or_else(|| Failure::error(format!("Endpoint <{}> could not be located", endpoint.name())))?;
    block_on(async {
        let settings = AccountSettings {
            endpoint: Some((endpoint, configuration.service())),
            ..AccountSettings::of(base)
        };
        let account = settings.account().await?;
        account.service.lock_endpoint(id).await.map_err(|error| account.failed(error))
    })
}

/// Stops the endpoint on this machine.
pub(super) fn local(endpoint: &EndpointDir) -> CommandResult {
    let name = endpoint.name();
    match pid::process_state(endpoint) {
        ProcessState::Absent => {
            note(format_args!("Endpoint <{name}> is not active."));
            Ok(())
        }
        ProcessState::Dead => {
            clean_up(endpoint)?;
            note(format_args!("Endpoint <{name}> has been cleaned up."));
            Ok(())
        }
        ProcessState::Elsewhere(host) => Err(Failure::error(format!(
            "Endpoint <{name}> runs on {host}: stop it there, or wherever it is with `stop --remote {name}`"
        ))),
        ProcessState::Silent(host) => Err(Failure::error(format!(
            "Endpoint <{name}> ran on {host}, which has not been heard of for long: stop it there. If {host} is gone \
             for good, `start {name}` here takes over"
        ))),
        ProcessState::Alive(process) => end(endpoint, &name, process),
    }
}

/// Sends SIGTERM for an orderly stop, SIGTERM again to hurry it, and SIGKILL at last.
fn end(endpoint: &EndpointDir, name: &str, process: Process) -> CommandResult {
    let patience = match Configuration::load(endpoint) {
        Ok((Configuration::Tasks(config), _)) => Duration::from_secs(config.shutdown_grace) + BEYOND_GRACE,
        Ok((Configuration::Manager(_), _)) => MANAGERS,
        Err(_) => Duration::from_secs(5) + BEYOND_GRACE,
    };
    for (signal, wait) in
        [(Signal::SIGTERM, patience), (Signal::SIGTERM, HURRIED), (Signal::SIGKILL, HURRIED)]
    {
        if let Err(error) = process.signal(signal) {
            return Err(Failure::new(
                status::NOPERM,
                format!("Error: process {} can't be ended: {error}", process.pid()),
            ));
        }
        if ends_within(process, wait) {
            let orderly = signal == Signal::SIGTERM;
            clean_up(endpoint)?;
            if !orderly {
                note(format_args!("Endpoint <{name}> did not gracefully shutdown"));
            }
            note(format_args!("Endpoint <{name}> is now stopped"));
            return Ok(());
        }
    }
    Err(Failure::new(
        status::ALREADY_ACTIVE,
        format!("Endpoint <{name}> could not be terminated (process {})", process.pid()),
    ))
}

fn ends_within(process: Process, wait: Duration) -> bool {
    let since = clock::now();
    loop {
        if !process.lives() {
            return true;
        }
        if clock::now().duration_since(since) >= wait {
            return false;
        }
        sleep(CHECK_INTERVAL);
    }
}

fn clean_up(endpoint: &EndpointDir) -> CommandResult {
    pid::clean_up(endpoint)
        .map_err(|error| Failure::error(format!("{}: {error}", endpoint.pid_file().display())))
}
