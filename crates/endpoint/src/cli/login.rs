//! `login`, `logout`, `whoami`: who we are towards a service.

use std::io::{BufRead as _, Write as _};

use clap::Args;
use serde_json::json;

use super::list::terminal_width;
use super::{Form, note, table};
use crate::account::{About, Account};
use crate::console::say;
use crate::directory::Base;
use crate::exit::{Failure, Outcome, block_on};
use crate::heartbeat::host_name;
use crate::pid::{self, Standing};

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

fn about<'a>(base: &'a Base, service_url: Option<&'a str>) -> About<'a> {
    About { service_url, ..About::of(base) }
}

pub(super) fn login(base: &Base, options: &LoginOptions) -> Outcome {
    block_on(async {
        let account = about(base, options.service_url.as_deref()).account().await?;
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

/// The long link, and the code that is pasted back.
pub(crate) async fn log_in(account: &Account) -> Outcome {
    let login = account.service.auth().begin(&host_name()).map_err(|error| account.failed(error))?;
    let prompt = "Please authenticate with Globus here:";
    let rule = "-".repeat(prompt.len());
    say(format_args!("{prompt}\n{rule}\n{}\n{rule}\n", login.url));
    let code = ask("Enter the resulting Authorization Code here: ")?;
    let tokens = account.service.auth().finish(&login, &code).await.map_err(|error| account.failed(error))?;
    account.service.keep(&tokens).await.map_err(|error| account.failed(error))
}

/// Asks the person; the end of the input is a refusal to answer.
pub(super) fn ask(prompt: &str) -> Result<String, Failure> {
    let mut out = std::io::stdout().lock();
    // Whoever can't see the question can't answer it either.
    let _ = write!(out, "{prompt}").and_then(|()| out.flush());
    drop(out);
    let mut answer = String::new();
    match std::io::stdin().lock().read_line(&mut answer) {
        Ok(0) | Err(_) => Err(Failure::new(1, "Aborted!")),
        Ok(_) => Ok(answer.trim().to_owned()),
    }
}

pub(super) fn logout(base: &Base, options: &LogoutOptions) -> Outcome {
    let endpoints = base.endpoints().map_err(Failure::error)?;
    let running: Vec<String> = endpoints
        .iter()
        .filter(|endpoint| matches!(pid::standing(endpoint), Standing::Alive(_) | Standing::Elsewhere(_)))
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
        let account = about(base, options.service_url.as_deref()).account().await?;
        account.service.log_out().await.map_err(|error| account.failed(error))?;
        note("Logout succeeded and all cached credentials were revoked");
        if !account.personal {
            note(format_args!("The environment still names {}", account.identity));
        }
        Ok(())
    })
}

const NOT_LOGGED_IN: &str = "Unable to retrieve user information. Please log in again.";

pub(super) fn whoami(base: &Base, options: &WhoamiOptions) -> Outcome {
    let rows = block_on(async {
        let account = about(base, options.service_url.as_deref()).account().await?;
        if !account.service.logged_in().await.map_err(|error| account.failed(error))? {
            return Err(Failure::error(NOT_LOGGED_IN));
        }
        let refused = |error: client::Error| match error {
            client::Error::Unreachable { .. } | client::Error::Storage(_) => account.failed(error),
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
