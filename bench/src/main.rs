//! Benchmarks of whole programs: service, endpoint, engine, broker. Each part of `bench/README.md` is a command here.
//!
//! It plays the side that is not measured, natively and with messages prepared beforehand, so that no Python client is
//! measured by mistake. Beside the real endpoint it measures an *echo endpoint* that does no work: what the
//! connections alone cost. Never for production: its broker lets everybody in.

mod amqp;
mod broker;
mod children;
mod clock;
mod contender;
mod echo;
mod engine;
mod first_tasks;
mod history;
mod identity;
mod link;
mod load;
mod measurements;
mod nodes;
mod path;
mod payload;
mod random;
mod reporter;
mod service;
mod transport;

use clap::Parser;
use tokio::runtime::{self, Runtime};

/// Load generator for Farcall.
#[derive(Parser)]
enum Command {
    /// Measures endpoints behind a bare broker: task queue, endpoint, result queue.
    Amqp(amqp::Options),
    /// Measures the whole path: submit over REST, endpoint, the client's own result queue.
    Path(path::Options),
    /// Measures the service alone: submits, results, latency, memory, many endpoints.
    Service(load::Options),
    /// Measures the identity service: token checks, introspection, and both beside passwords.
    Identity(identity::Options),
    /// Measures the engine alone: handed over in process, node, worker, and back.
    Engine(engine::Options),
    /// Plays the clients of `manager`: each sends its first task.
    #[command(hide = true)]
    FirstTasks(first_tasks::Options),
    /// Measures one engine with very many nodes, whose workers are stubs.
    Nodes(nodes::Options),
    /// Plays the node program of `nodes`.
    #[command(hide = true)]
    Simulate(nodes::SimulateOptions),
    /// Plays the node program of `engine`.
    #[command(hide = true)]
    Node(engine::NodeOptions),
    /// Plays the bare relay that `engine` is compared with.
    #[command(hide = true)]
    Relay(engine::RelayOptions),
    /// Plays an endpoint that does no work. Reads the start document of a user endpoint from standard input.
    Echo,
    /// Serves our broker alone, letting everybody do everything, and prints its URL.
    Broker,
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Amqp(options) => many_threads()?.block_on(amqp::run(options)),
        Command::Path(options) => many_threads()?.block_on(path::run(options)),
        Command::Service(options) => many_threads()?.block_on(load::run(options)),
        Command::Identity(options) => many_threads()?.block_on(identity::run(options)),
        Command::FirstTasks(options) => many_threads()?.block_on(first_tasks::run(options)),
        Command::Echo => many_threads()?.block_on(echo::run()),
        Command::Broker => many_threads()?.block_on(broker::run()),
        // As the endpoint and the node run them.
        Command::Engine(options) => one_thread()?.block_on(engine::run(options)),
        Command::Nodes(options) => one_thread()?.block_on(nodes::run(options)),
        Command::Simulate(options) => one_thread()?.block_on(nodes::simulate(options)),
        Command::Node(options) => one_thread()?.block_on(engine::node(options)),
        Command::Relay(options) => one_thread()?.block_on(engine::relay(options)),
    }
}

fn many_threads() -> std::io::Result<Runtime> {
    runtime::Builder::new_multi_thread().enable_all().build()
}

fn one_thread() -> std::io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}
