//! The commands `farcall backup` and `farcall restore`.

use std::path::PathBuf;

use clap::Args;

use super::DataDirectory;
use super::console::say;
use crate::operate::backup::{self, Copied};
use crate::operate::data_directory::Directory;

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// Where to put it: a directory that does not exist yet.
    to: PathBuf,
    #[command(flatten)]
    directory: DataDirectory,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// What `farcall backup` has made.
    from: PathBuf,
    #[command(flatten)]
    directory: DataDirectory,
}

impl Backup {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let directory = Directory::open(&self.directory.data_dir)?;
        let copied = runtime()?.block_on(backup::make(&directory, &self.to))?;
        say(format_args!("{} holds {}.", self.to.display(), describe(copied)))?;
        Ok(())
    }
}

impl Restore {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let root = &self.directory.data_dir;
        let copied = runtime()?.block_on(backup::restore(&self.from, root))?;
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
