//! `delete`: deletes an endpoint's registration and its directory.

use std::fs;

use clap::Args;
use serde_json::Value;
use wire::EndpointId;

use super::stop;
use crate::account::AccountSettings;
use crate::config::Configuration;
use crate::console::{ask, note, say};
use crate::directory::{Base, EndpointDir, unwritable};
use crate::exit::{CommandResult, Failure, block_on, status};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The endpoint's name, or the ID it is registered under
    #[arg(default_value = "default", value_name = "NAME_OR_UUID")]
    name: String,
    /// Ignore any errors encountered while deleting the endpoint locally and remotely
    #[arg(long)]
    force: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(base: &Base, options: &Options) -> CommandResult {
    let given: Option<EndpointId> = options.name.parse().ok();
    let endpoint = match base.find(&options.name) {
        Ok(endpoint) => Some(endpoint),
        // Only the service may know the id.
        Err(_) if given.is_some() => None,
        Err(missing) => return Err(missing),
    };
    let id = given.or_else(|| endpoint.as_ref().and_then(EndpointDir::registered_id));
    if !options.yes && !confirmed(endpoint.as_ref(), given)? {
        return Err(Failure::new(1, "Aborted!"));
    }
    let config = match &endpoint {
        Some(endpoint) => Configuration::load(endpoint)
            .map(|(config, _)| config)
            .map_err(|_| format!("Failed to read configuration from {}/ ", endpoint.path().display())),
        None => Err(format!("No local endpoint configuration available for {}", options.name)),
    };
    let config = match config {
        Ok(config) => Some(config),
        Err(why) if options.force => {
            note(format_args!("{why}, proceeding to remote deletion by --force ..."));
            None
        }
        Err(why) => {
            return Err(Failure::error(format!(
                "{why}\n\nPlease add the --force flag if you wish to proceed with attempting to delete the endpoint \
                 both locally and from the Globus Compute web services."
            )));
        }
    };
    if let Some(id) = id {
        remotely(base, endpoint.as_ref(), config.as_ref(), id, options.force)?;
    }
    if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.path().exists()) {
        fs::remove_dir_all(endpoint.path()).map_err(|error| unwritable(endpoint.path(), &error))?;
        let path = endpoint.path().display();
        note(format_args!("Endpoint {path} has been deleted from {path}"));
    }
    Ok(())
}

fn confirmed(endpoint: Option<&EndpointDir>, given: Option<EndpointId>) -> Result<bool, Failure> {
    let mut which = endpoint.map(|endpoint| format!("< {} >", endpoint.name())).unwrap_or_default();
    if let Some(id) = given {
        which += &format!(" ( {id} )");
    }
    loop {
        match ask(&format!("Are you sure you want to delete endpoint {which}? [y/N]: "))?
            .to_lowercase()
            .as_str()
        {
            "y" | "yes" => return Ok(true),
            "" | "n" | "no" => return Ok(false),
            _ => say("Error: invalid input"),
        }
    }
}

fn remotely(
    base: &Base,
    endpoint: Option<&EndpointDir>,
    config: Option<&Configuration>,
    id: EndpointId,
    force: bool,
) -> CommandResult {
    let settings = AccountSettings {
        endpoint: endpoint.zip(config.map(Configuration::service)),
        ..AccountSettings::of(base)
    };
    let deleted = block_on(async {
        let account = settings.account().await?;
        match account.service.endpoint_status::<Value>(id).await {
            Ok(status) if status["status"] == "online" && !force => {
                return Err(Failure::new(
                    status::ALREADY_ACTIVE,
                    format!(
                        "Endpoint {id} is currently running.  To proceed with deletion, first stop the endpoint, or \
                         ignore the current status with `delete --force`"
                    ),
                ));
            }
            Ok(_) => {}
            Err(error) => return Ok(Err((account.identity.clone(), error))),
        }
        if force && let Some(endpoint) = endpoint {
            stop::local(endpoint)?;
        }
        Ok(account.service.delete_endpoint(id).await.map_err(|error| (account.identity.clone(), error)))
    });
    let refused = match deleted {
        Ok(Ok(())) => {
            note(format_args!("Endpoint {id} has been deleted from the web service"));
            return Ok(());
        }
        Ok(Err(refused)) => refused,
        Err(failure) if force && failure.status != status::ALREADY_ACTIVE => {
            note(format_args!("Endpoint {id} could not be deleted from the web service: {}", failure.text));
            return Ok(());
        }
        Err(failure) => return Err(failure),
    };
    let (identity, error) = refused;
    match &error {
        client::Error::Refused(refusal) => {
            note(format_args!(
                "Endpoint {id} could not be deleted from the web service: [{}]\n\
                 The identity in use is {identity}.",
                refusal.text
            ));
            if endpoint.is_some() && !force {
                note("Exiting without deleting the local endpoint");
                return Err(Failure::new(status::UNAVAILABLE, ""));
            }
            Ok(())
        }
        client::Error::Unreachable { .. } => {
            note(format_args!("Endpoint {id} could not be deleted from the web service:   [{error}]"));
            if force {
                return Ok(());
            }
            Err(Failure::new(
                status::TEMPFAIL,
                "globus-compute-endpoint is unable to reach the Globus Compute service due to a network error.\n\
                 Please ensure the Globus Compute service address is reachable, then attempt to delete the endpoint \
                 again.",
            ))
        }
        _ if force => Ok(()),
        _ => Err(crate::account::failed(error, &identity)),
    }
}
