//! `login`, `logout`, `whoami`: the stored login for a service.

use clap::Args;
use serde_json::json;

use super::list::terminal_width;
use super::{Form, table};
use crate::account::AccountSettings;
use crate::console::{note, say};
use crate::directory::Base;
use crate::exit::{CommandResult, Failure, block_on};
use crate::login::log_in;
use crate::pid::{self, ProcessState};

#[derive(Debug, Args)]
pub(super) struct LoginOptions {
    /// Log in even if already logged in
    #[arg(long)]
    force: bool,
    /// The service to log in to, if neither the environment nor the site names one
    #[arg(long, value_name = "URL")]
    service_url: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct LogoutOptions {
    /// Revoke tokens even with currently running endpoints
    #[arg(long)]
    force: bool,
    /// The service to log out of, if neither the environment nor the site names one
    #[arg(long, value_name = "URL")]
    service_url: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct WhoamiOptions {
    /// Also show identities linked to the currently logged-in primary identity
    #[arg(long)]
    linked_identities: bool,
    #[command(flatten)]
    form: Form,
    /// The service to ask, if neither the environment nor the site names one
    #[arg(long, value_name = "URL")]
    service_url: Option<String>,
}

fn settings<'a>(base: &'a Base, service_url: Option<&'a str>) -> AccountSettings<'a> {
    AccountSettings { service_url, ..AccountSettings::of(base) }
}

pub(super) fn login(base: &Base, options: &LoginOptions) -> CommandResult {
    block_on(async {
        let account = settings(base, options.service_url.as_deref()).account().await?;
        if !account.personal {
            note(format_args!("No login is needed: {} is used", account.identity));
            return Ok(());
        }
        let logged_in = account.service.logged_in().await.map_err(|error| account.failed(error))?;
        if logged_in && !options.force {
            note("Already logged in. Use --force to run login flow anyway");
            return Ok(());
        }
        log_in(&account).await
    })
}

pub(super) fn logout(base: &Base, options: &LogoutOptions) -> CommandResult {
    let endpoints = base.endpoints().map_err(Failure::error)?;
    let running: Vec<String> = endpoints
        .iter()
        .filter(|endpoint| {
            matches!(pid::process_state(endpoint), ProcessState::Alive(_) | ProcessState::Elsewhere(_))
        })
        .map(|endpoint| endpoint.name())
        .collect();
    if !running.is_empty() && !options.force {
        note(format_args!(
            "The following endpoints are currently running: {}\nPlease use logout --force to proceed",
            running.join(", ")
        ));
        return Ok(());
    }
    block_on(async {
        let account = settings(base, options.service_url.as_deref()).account().await?;
        account.service.log_out().await.map_err(|error| account.failed(error))?;
        note("Logout succeeded and all cached credentials were revoked");
        if !account.personal {
            note(format_args!("The environment still names {}", account.identity));
        }
        Ok(())
    })
}

const NOT_LOGGED_IN: &str = "Unable to retrieve user information. Please log in again.";

pub(super) fn whoami(base: &Base, options: &WhoamiOptions) -> CommandResult {
    let rows = block_on(async {
        let account = settings(base, options.service_url.as_deref()).account().await?;
        if !account.service.logged_in().await.map_err(|error| account.failed(error))? {
            return Err(Failure::error(NOT_LOGGED_IN));
        }
        let refused = |error: client::Error| match error {
            client::Error::Unreachable { .. } | client::Error::TokenStore(_) => account.failed(error),
            _ => Failure::error(NOT_LOGGED_IN),
        };
        let token = account.service.auth_token().await.map_err(refused)?;
        let auth = account.service.auth();
        let user = auth.user_info(&token).await.map_err(refused)?;
        let mut ids = vec![user.sub.clone()];
        if options.linked_identities {
            if user.identity_set.is_empty() {
                return Err(Failure::error(
                    "Your current login does not have the consents required to view your full identity set. Please \
                     log in again to agree to the required consents.",
                ));
            }
            ids = user.identity_set.iter().map(|linked| linked.sub.clone()).collect();
        }
        let mut rows = Vec::new();
        for id in ids {
            let found = auth.identity_of(&token, &id).await.map_err(refused)?;
            let found = found.ok_or_else(|| Failure::error(NOT_LOGGED_IN))?;
            let text = |part: Option<String>| part.unwrap_or_else(|| "None".to_owned());
            rows.push([text(found.username), text(found.name), id, text(found.email)]);
        }
        Ok(rows)
    })?;
    if options.form.json() {
        let all: Vec<_> = rows
            .iter()
            .map(|[username, name, id, email]| json!({"username": username, "name": name, "id": id, "email": email}))
            .collect();
        return super::say_json(&all);
    }
    say(table::draw([("Username", 0), ("Name", 0), ("ID", 0), ("Email", 0)], &rows, terminal_width()));
    Ok(())
}
