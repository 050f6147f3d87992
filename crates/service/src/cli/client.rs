//! `farcall client …`: works through `admin.sock` while the service runs, and on the store when it does not.

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::DataDirectory;
use crate::admin::{self, AddedClient, KnownClient, Reply, Request};
use crate::directory::{Directory, DirectoryError};
use crate::identity::Identity;
use crate::store::Store;

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Make a client identity; prints its id and secret, the secret this once.
    Add(Add),
    /// List client identities.
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// What people call it.
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    directory: DataDirectory,
    #[arg(long, value_enum, default_value_t = Output::Human)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Human,
    Json,
}

impl ClientCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (request, common) = match self {
            ClientCommand::Add(add) => (Request::AddClient { name: add.name }, add.common),
            ClientCommand::List(list) => (Request::ListClients, list.common),
        };
        let directory = Directory::prepare(&common.directory.data_dir)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match runtime.block_on(perform(&directory, request))? {
            Reply::Added(client) => print(&client, common.output, || human_added(&client)),
            Reply::Clients(clients) => print(&clients, common.output, || human_list(&clients)),
            Reply::Failed(why) => bail!(why),
        }
    }
}

/// Through the service that holds the directory, else on the store itself.
async fn perform(directory: &Directory, request: Request) -> anyhow::Result<Reply> {
    match directory.lock() {
        Ok(_lock) => {
            let store = Store::open(&directory.database()).await?;
            let identity = Identity::new(store.clone(), directory.keys());
            let reply = admin::perform(&identity, request).await;
            store.close().await;
            Ok(reply)
        }
        Err(DirectoryError::InUse(_)) => admin::ask(&directory.admin_socket(), &request)
            .await
            .context("the service holds the data directory, and its admin.sock does not answer"),
        Err(error) => Err(error.into()),
    }
}

fn print(value: &impl Serialize, output: Output, human: impl FnOnce() -> String) -> anyhow::Result<()> {
    match output {
        Output::Human => println!("{}", human()),
        Output::Json => println!("{}", serde_json::to_string(value)?),
    }
    Ok(())
}

fn human_added(client: &AddedClient) -> String {
    format!(
        "Client identity {name} was made. Its secret is not shown again.\n\n\
         export GLOBUS_COMPUTE_CLIENT_ID={id}\nexport GLOBUS_COMPUTE_CLIENT_SECRET={secret}",
        name = client.name,
        id = client.client_id,
        secret = client.client_secret,
    )
}

fn human_list(clients: &[KnownClient]) -> String {
    let mut table = comfy_table::Table::new();
    table.set_header(["Client ID", "Name", "Username", "Made"]);
    for client in clients {
        table.add_row([&client.client_id, &client.name, &client.username, &client.created]);
    }
    table.to_string()
}
