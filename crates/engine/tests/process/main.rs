//! The engine with real processes: this program is both the test and the node that the engine's blocks run.
//!
//! Every case is a process of its own under nextest; run directly, they run one after another.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)] // a test program

mod blocks;
mod cases;
mod misbehaving;
mod pools;
mod rig;

use std::process::ExitCode;

use engine::node::{Config, ConfigError};

fn all() -> impl Iterator<Item = &'static (&'static str, cases::Case)> {
    [cases::ALL, pools::ALL, blocks::ALL, misbehaving::ALL].into_iter().flatten()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["node", "--block", block, "--config", file] => node(Config::read(file.as_ref()), block),
        ["node", "--block", block] => node(Config::from_environment(), block),
        arguments if arguments.contains(&"--list") => {
            if !arguments.contains(&"--ignored") {
                all().for_each(|(name, _)| println!("{name}: test"));
            }
            ExitCode::SUCCESS
        }
        arguments => {
            let wanted: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
            for (name, case) in all().filter(|(name, _)| wanted.is_empty() || wanted.contains(&name)) {
                println!("test {name}");
                runtime().block_on(case());
            }
            ExitCode::SUCCESS
        }
    }
}

fn node(config: Result<Config, ConfigError>, block: &str) -> ExitCode {
    let outcome = config.map_err(|error| error.to_string()).and_then(|config| {
        let node = engine::node::run(config, block.parse().unwrap(), terminated());
        runtime().block_on(node).map_err(|error| error.to_string())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Ready when somebody asks this process to end.
async fn terminated() {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap().recv().await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
