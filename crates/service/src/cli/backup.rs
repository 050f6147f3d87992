//! The commands `farcall backup` and `farcall restore`.

use std::path::PathBuf;

use clap::Args;

use super::console::say;
use super::{DataDirectory, Settings};
use crate::operate::backup::{self, Copied};
use crate::operate::data_directory::Directory;
use crate::operate::database;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// Where to put it: a directory that does not exist yet.
    to: PathBuf,
    #[command(flatten)]
    directory: DataDirectory,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// What `farcall backup` has made.
    from: PathBuf,
    #[command(flatten)]
    directory: DataDirectory,
    #[command(flatten)]
    settings: Settings,
}

impl Backup {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let directory = Directory::open(&self.directory.data_dir)?;
        let store = self.settings.load(&directory.configuration())?.config.store;
        database::check_exists(&directory, &store)?;
        let copied = runtime()?.block_on(backup::make(&directory, &store, &self.to))?;
        say(format_args!("{} holds {}.", self.to.display(), describe(copied)))?;
        Ok(())
    }
}

impl Restore {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let root = &self.directory.data_dir;
        // The backup's own configuration comes with it, unless there is one.
        let kept = root.join("farcall.yaml");
        let file = if kept.exists() { kept } else { self.from.join("farcall.yaml") };
        let store = self.settings.load(&file)?.config.store;
        let copied = runtime()?.block_on(backup::restore(&self.from, root, &store))?;
        say(format_args!("{} holds {}.", root.display(), describe(copied)))?;
        Ok(())
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn describe(Copied { tasks, files }: Copied) -> String {
    let plural = |count, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    format!("{} and {}", plural(tasks, "task"), plural(files as u64, "large payload"))
}
