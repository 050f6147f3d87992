//! `node`: runs one node of a block. The engine implements it; this file sets up the process.

use std::path::PathBuf;

use clap::Args;
use daemon::logging::{self, BackgroundWriter, Destination, Form, Logging};

use crate::exit::{CommandResult, Failure};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The file that the engine wrote for the nodes of this run
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The number of the block this node belongs to
    #[arg(long, value_name = "N")]
    block: u32,
}

pub(super) fn run(options: &Options) -> CommandResult {
    let config = engine::node::Config::read(&options.config).map_err(Failure::error)?;
    let directives = if config.debug() { "debug" } else { "info" };
    // Its standard error is a file, usually on a shared file system.
    let lines = BackgroundWriter::start(std::io::stderr());
    logging::start(Logging { form: Form::Text, directives, destination: Destination::Background(&lines) })
        .map_err(Failure::error)?;
    let raised = daemon::open_files::raise();
    let open_files = raised.inherited().map(|inherited| inherited.soft());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::error)?;
    runtime.block_on(async {
        let (_trigger, stop) = daemon::stop::on_signals().map_err(Failure::error)?;
        engine::node::run(config, options.block, open_files, async move { stop.begun().await })
            .await
            .map_err(Failure::error)
    })
}
