//! The engine with real processes: this program is both the test and the node that the engine's blocks run.
//!
//! Under nextest each case is a process of its own; without it they run one after another.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)] // a test program

mod blocks;
mod cancelling;
mod cases;
mod granted;
mod loss;
mod many;
mod misbehaving;
mod pools;
mod proxy;
mod rig;
mod starting;

use std::process::ExitCode;

use engine::node::{Config, ConfigError};

fn all() -> impl Iterator<Item = &'static (&'static str, cases::Case)> {
    [
        cases::ALL,
        pools::ALL,
        blocks::ALL,
        misbehaving::ALL,
        cancelling::ALL,
        loss::ALL,
        starting::ALL,
        many::ALL,
        granted::ALL,
    ]
    .into_iter()
    .flatten()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["node", "--block", block, "--config", file] => node(Config::read(file.as_ref()), block),
        ["node-through", proxy, "--block", block, "--config", file] => {
            node(with_engine_address(proxy, file), block)
        }
        ["node-of-engine-version", version, "--block", block, "--config", file] => {
            node(with_engine_version(version, file), block)
        }
        ["simulate", nodes, slots, "--block", block, "--config", file] => {
            let config = Config::read(file.as_ref()).unwrap();
            let (block, nodes, slots) =
                (block.parse().unwrap(), nodes.parse().unwrap(), slots.parse().unwrap());
            runtime().block_on(engine::node::simulate(config, block, nodes, slots)).unwrap();
            ExitCode::SUCCESS
        }
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
        let raised = daemon::open_files::raise();
        let open_files = raised.inherited().map(|inherited| inherited.soft());
        let node = engine::node::run(config, block.parse().unwrap(), open_files, terminated());
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

/// Ready when this process gets SIGTERM.
async fn terminated() {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap().recv().await;
}

/// A node's configuration with another address of the engine.
fn with_engine_address(proxy: &str, file: &str) -> Result<Config, ConfigError> {
    with_changed(file, "engines", serde_json::json!([proxy]))
}

/// The configuration that an engine of another version would write.
fn with_engine_version(version: &str, file: &str) -> Result<Config, ConfigError> {
    with_changed(file, "version", serde_json::json!(version))
}

fn with_changed(file: &str, key: &str, value: serde_json::Value) -> Result<Config, ConfigError> {
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    config[key] = value;
    let own = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(own.path(), config.to_string()).unwrap();
    Config::read(own.path())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
