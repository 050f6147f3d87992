//! The command `farcall store copy`: copies a service's data from SQLite to PostgreSQL, or back.

use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table};

use super::console::say;
use super::{DataDirectory, Settings};
use crate::operate::config::{Loaded, Source};
use crate::operate::data_directory::Directory;
use crate::operate::store_copy::{self, Destination, StoreCopy};
use store::DatabaseAddress;

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Copy everything in the database to another one, which must be empty, while no service runs.
    ///
    /// The configuration names the database to copy from. It stays as it was, and so do the payload files. The copy is compared
    /// with it, and is complete or not there at all. The service uses it once the configuration names it.
    Copy(Copy),
}

#[derive(Debug, Args)]
pub(super) struct Copy {
    /// `postgres://USER@HOST:PORT/DATABASE`, or `sqlite` for farcall.db in the data directory.
    #[arg(long, value_name = "DATABASE")]
    to: Destination,
    #[command(flatten)]
    directory: DataDirectory,
    #[command(flatten)]
    settings: Settings,
}

impl StoreCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let StoreCommand::Copy(Copy { to, directory, settings }) = self;
        let directory = Directory::open(&directory.data_dir)?;
        let loaded = settings.load(&directory.configuration())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let copied = runtime.block_on(store_copy::copy(&directory, &loaded.config.store, &to))?;
        say(table(&copied))?;
        say(next_step(&copied, &directory, &loaded))?;
        Ok(())
    }
}

fn table(copied: &StoreCopy) -> Table {
    let mut table = Table::new();
    table.set_header(["Table", "Rows"]);
    for copied in &copied.tables {
        table.add_row([copied.name.clone(), copied.rows.to_string()]);
    }
    if let Some(rows) = table.column_mut(1) {
        rows.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// What to change so that the service uses the copy.
fn next_step(copied: &StoreCopy, directory: &Directory, loaded: &Loaded) -> String {
    let file = directory.configuration();
    let change = match &copied.to {
        DatabaseAddress::Postgres(_) => format!(
            "set url in the section store of {} to what you gave as --to:\n\nstore:\n  url: postgres://…",
            file.display()
        ),
        DatabaseAddress::Sqlite(_) => match url_source(loaded) {
            Source::Variable(name) => format!("remove {name} from the service's environment"),
            Source::Flag(flag) => format!("start the service without {flag}"),
            Source::File(_) | Source::Default => {
                format!("remove the line url from the section store of {}", file.display())
            }
        },
    };
    format!(
        "All rows are in {to} as well, with the same checksums. The service still uses {from}. To change that, {change}",
        to = copied.to.shown(),
        from = copied.from.shown(),
    )
}

fn url_source(loaded: &Loaded) -> Source {
    let mut values = loaded.values().into_iter();
    let url = values.find(|(section, key, ..)| (*section, *key) == ("store", "url"));
    url.map_or(Source::Default, |(.., source)| source)
}
