//! The engine with real processes: this program is both the test and the node that the engine's blocks run.
//!
//! Every case is a process of its own under nextest; run directly, they run one after another.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)] // a test program

mod cases;
mod rig;

use std::process::ExitCode;

use engine::node::{Config, ConfigError};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["node", "--block", block, "--config", file] => node(Config::read(file.as_ref()), block),
        ["node", "--block", block] => node(Config::from_environment(), block),
        arguments if arguments.contains(&"--list") => {
            if !arguments.contains(&"--ignored") {
                cases::ALL.iter().for_each(|(name, _)| println!("{name}: test"));
            }
            ExitCode::SUCCESS
        }
        arguments => {
            let wanted: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
            for (name, case) in
                cases::ALL.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(&name))
            {
                println!("test {name}");
                runtime().block_on(case());
            }
            ExitCode::SUCCESS
        }
    }
}

fn node(config: Result<Config, ConfigError>, block: &str) -> ExitCode {
    let outcome = config.map_err(|error| error.to_string()).and_then(|config| {
        let node = engine::node::run(config, block.parse().unwrap(), std::future::pending());
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

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
