//! Runs administrative commands, through `admin.sock` while the service runs, else on its store, and prints the answers.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use comfy_table::Table;
use serde::Serialize;

use super::DataDirectory;
use super::console::say;
use crate::operate::administration::request::{
    AddedClient, ClientDetails, EndpointDetails, GroupDetails, KeyDetails, Reply, Request, UserDetails,
};
use crate::operate::administration::{self, Administration};
use crate::operate::config::{Config, StoreSettings, from_environment};
use crate::operate::data_directory::{Directory, DirectoryError};
use crate::operate::database;
use identity::Identity;
use identity::audit::Initiator;

/// The flags of every administrative command.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    #[command(flatten)]
    directory: DataDirectory,
    /// For people or for programs.
    #[arg(long, value_enum, default_value_t = Output::Human)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Human,
    Json,
}

impl AdminArgs {
    /// Fails if the directory holds no service's data: before a password is asked for, for example.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let directory = Directory::open(&self.directory.data_dir)?;
        if !Directory::is_held(directory.root()) {
            store_settings(&directory)?;
        }
        Ok(())
    }

    /// Performs `request` and prints the answer.
    pub(super) fn administer(self, request: Request) -> anyhow::Result<()> {
        let directory = Directory::open(&self.directory.data_dir)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        match runtime.block_on(perform(&directory, request))? {
            Reply::Failed(why) => bail!(why),
            Reply::Added(client) => self.print(&client, || added(&client)),
            Reply::Client(client) => self.print(&client, || client_sheet(&client)),
            Reply::Clients(clients) => self.print(&clients, || client_table(&clients)),
            Reply::User(user) => self.print(&user, || user_sheet(&user)),
            Reply::Users(users) => self.print(&users, || user_table(&users)),
            Reply::Group(group) => self.print(&group, || group_sheet(&group)),
            Reply::Groups(groups) => self.print(&groups, || group_table(&groups)),
            Reply::Keys(keys) => self.print(&keys, || key_table(&keys)),
            Reply::Endpoint(endpoint) => self.print(&endpoint, || endpoint_sheet(&endpoint)),
            Reply::Endpoints(endpoints) => self.print(&endpoints, || endpoint_table(&endpoints)),
            Reply::Dropped(dropped) => self.print(&dropped, || {
                format!("{} waiting tasks of {} were dropped.", dropped.dropped, dropped.endpoint)
            }),
            Reply::Removed(removed) => {
                self.print(&removed, || format!("{} ({}) was removed.", removed.name, removed.id))
            }
        }
    }

    fn print(&self, value: &impl Serialize, human: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self.output {
            Output::Human => say(human())?,
            Output::Json => say(serde_json::to_string(value)?)?,
        }
        Ok(())
    }
}

/// Which database is `directory`'s, which must exist.
fn store_settings(directory: &Directory) -> anyhow::Result<StoreSettings> {
    let settings = from_environment(std::env::vars());
    let settings = Config::load(&directory.configuration(), settings)?.config.store;
    database::check_exists(directory, &settings)?;
    Ok(settings)
}

/// Performs `request` through the service that holds the directory, else on the store itself.
async fn perform(directory: &Directory, request: Request) -> anyhow::Result<Reply> {
    match directory.lock() {
        Ok(_lock) => {
            let store = database::open(directory, &store_settings(directory)?).await?;
            let identity = Identity::new(store.clone(), directory.keys());
            let by = Initiator::Operator { uid: nix::unistd::getuid().as_raw() };
            let reply = Administration { identity, dispatch: None, by }.perform(request).await;
            store.close().await;
            Ok(reply)
        }
        Err(DirectoryError::InUse(_)) => administration::ask(&directory.admin_socket(), &request)
            .await
            .context("the service holds the data directory, and its admin.sock does not answer"),
        Err(error) => Err(error.into()),
    }
}

fn added(client: &AddedClient) -> String {
    format!(
        "This is client {name}. Its secret is not shown again.\n\n\
         export GLOBUS_COMPUTE_CLIENT_ID={id}\nexport GLOBUS_COMPUTE_CLIENT_SECRET={secret}",
        name = client.name,
        id = client.client_id,
        secret = client.client_secret,
    )
}

fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.set_header(head);
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

/// A line for each name with a value.
fn sheet<const N: usize>(rows: [(&str, Option<String>); N]) -> String {
    let lines = rows.into_iter().filter_map(|(name, value)| Some(format!("{name:<16}{}", value?)));
    lines.collect::<Vec<_>>().join("\n")
}

fn list(names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| names.join(", "))
}

fn client_sheet(client: &ClientDetails) -> String {
    sheet([
        ("Client ID", Some(client.client_id.clone())),
        ("Name", Some(client.name.clone())),
        ("Kind", Some(client.kind.clone())),
        ("Username", client.username.clone()),
        ("Resource server", client.resource_server.clone()),
        ("Redirect URIs", list(&client.redirect_uris)),
        ("Status", Some(client.status.clone())),
        ("Made", Some(client.created.clone())),
    ])
}

fn client_table(clients: &[ClientDetails]) -> String {
    let row = |it: &ClientDetails| {
        [&it.client_id, &it.name, &it.kind, &it.status, &it.created].map(|text| text.to_owned())
    };
    table(["Client ID", "Name", "Kind", "Status", "Made"], clients.iter().map(row))
}

fn user_sheet(user: &UserDetails) -> String {
    let others: Vec<String> =
        user.identity_set.iter().filter(|username| **username != user.username).cloned().collect();
    let yes = |is: bool| Some(if is { "yes" } else { "no" }.to_owned());
    sheet([
        ("Username", Some(user.username.clone())),
        ("ID", Some(user.id.clone())),
        ("Name", Some(user.name.clone())),
        ("E-mail", user.email.clone()),
        ("Organization", user.organization.clone()),
        ("Status", Some(user.status.clone())),
        ("Administrator", yes(user.administrator)),
        ("Password", yes(user.password)),
        ("Linked with", list(&others)),
        ("Acts as", user.linked_to.clone()),
        ("Groups", list(&user.groups)),
        ("Last sign-in", user.last_authentication.clone()),
        ("Made", Some(user.created.clone())),
    ])
}

fn user_table(users: &[UserDetails]) -> String {
    let row = |it: &UserDetails| {
        let role = if it.administrator { "administrator" } else { "" };
        let linked = it.linked_to.clone().unwrap_or_default();
        [it.username.clone(), it.name.clone(), it.status.clone(), role.to_owned(), linked, it.id.clone()]
    };
    table(["Username", "Name", "Status", "Role", "Acts as", "ID"], users.iter().map(row))
}

fn group_sheet(group: &GroupDetails) -> String {
    sheet([
        ("Group", Some(group.name.clone())),
        ("ID", Some(group.id.clone())),
        ("Description", group.description.clone()),
        ("Members", list(&group.members)),
        ("Made", Some(group.created.clone())),
    ])
}

fn group_table(groups: &[GroupDetails]) -> String {
    let row = |it: &GroupDetails| {
        let description = it.description.clone().unwrap_or_default();
        [it.name.clone(), description, it.members.len().to_string(), it.id.clone()]
    };
    table(["Group", "Description", "Members", "ID"], groups.iter().map(row))
}

fn endpoint_sheet(endpoint: &EndpointDetails) -> String {
    sheet([
        ("Endpoint", Some(endpoint.name.clone())),
        ("ID", Some(endpoint.id.clone())),
        ("Display name", endpoint.display_name.clone()),
        ("Owner", Some(endpoint.owner.clone())),
        ("Manager", endpoint.manager.clone()),
        ("Status", Some(endpoint.status.clone())),
        ("Locked until", endpoint.locked_until.clone()),
        ("Waiting tasks", Some(endpoint.waiting.to_string())),
        ("Taken tasks", Some(endpoint.taken.to_string())),
        ("Made", Some(endpoint.created.clone())),
    ])
}

fn endpoint_table(endpoints: &[EndpointDetails]) -> String {
    let row = |it: &EndpointDetails| {
        let (waiting, taken) = (it.waiting.to_string(), it.taken.to_string());
        [it.name.clone(), it.owner.clone(), it.status.clone(), waiting, taken, it.id.clone()]
    };
    table(["Endpoint", "Owner", "Status", "Waiting", "Taken", "ID"], endpoints.iter().map(row))
}

fn key_table(keys: &[KeyDetails]) -> String {
    let row = |it: &KeyDetails| {
        let state = match &it.published_until {
            None => "signs".to_owned(),
            Some(until) => format!("published until {until}"),
        };
        [it.kid.clone(), state]
    };
    table(["Key", "State"], keys.iter().map(row))
}
