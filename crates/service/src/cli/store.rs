//! The command `farcall store copy`: copies a service's data from SQLite to PostgreSQL, or back.

use std::str::FromStr;

use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table};

use super::console::say;
use super::{DataDirectory, Settings};
use crate::operate::config::{Loaded, Source, passwords};
use crate::operate::data_directory::Directory;
use crate::operate::store_copy::{self, Destination, StoreCopy};
use store::{DatabaseAddress, UrlError};

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
    to: To,
    #[command(flatten)]
    directory: DataDirectory,
    #[command(flatten)]
    settings: Settings,
}

/// The value of `--to`.
#[derive(Clone, Debug)]
enum To {
    Database(Destination),
    /// It is refused. Not while arguments are parsed: that error would show it.
    WithPassword,
}

impl FromStr for To {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<To, UrlError> {
        match passwords::has_password(text) {
            true => Ok(To::WithPassword),
            false => Ok(To::Database(text.parse()?)),
        }
    }
}

impl StoreCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let StoreCommand::Copy(Copy { to, directory, settings }) = self;
        let To::Database(to) = to else {
            anyhow::bail!(
                "--to: it holds a password, which every user of this machine could see: leave it out and have it in ~/.pgpass of \
                 the user who runs this, in the file that PGPASSFILE names, or in the variable PGPASSWORD"
            )
        };
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: StoreCommand,
    }

    #[test]
    fn a_password_on_the_command_line_is_refused_and_not_shown() {
        let run = |to: &str| {
            let line = Line::try_parse_from(["store", "copy", "--data-dir", "none", "--to", to]);
            line.map_err(anyhow::Error::from).and_then(|line| line.command.run()).unwrap_err().to_string()
        };
        for to in
            ["postgres://u:hunter2@h/d", "postgres://u@h/d?password=hunter2", "postgres://u:hunter2@h/?x=y"]
        {
            let refused = run(to);
            assert!(refused.contains("it holds a password") && refused.contains("PGPASSFILE"), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        assert!(!run("postgres://u@h/d").contains("password"));
    }
}
