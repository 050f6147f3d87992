//! Logs a person in at the terminal: prints the link, asks for the code, stores the tokens.

use crate::account::Account;
use crate::console::{ask, say};
use crate::exit::CommandResult;
use crate::host::host_name;

pub(crate) async fn log_in(account: &Account) -> CommandResult {
    let login = account.service.auth().begin(&host_name()).map_err(|error| account.failed(error))?;
    let prompt = "Please authenticate with Globus here:";
    let rule = "-".repeat(prompt.len());
    say(format_args!("{prompt}\n{rule}\n{}\n{rule}\n", login.url));
    let code = ask("Enter the resulting Authorization Code here: ")?;
    let tokens = account.service.auth().finish(&login, &code).await.map_err(|error| account.failed(error))?;
    account.service.store_tokens(&tokens).await.map_err(|error| account.failed(error))
}
