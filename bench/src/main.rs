//! Benchmarks of whole parties: every figure of `bench/README.md` comes from a command of this program.
//!
//! It plays the side that is not measured, natively and with bodies prepared beforehand, so that the figures are
//! those of the measured party and not of a Python client. Beside the real endpoint it measures an *echo endpoint*
//! that does no work: the floor that the hops themselves cost. It may never be used as a product: its broker lets
//! everybody in.

mod ambient;
mod amqp;
mod broker;
mod children;
mod contender;
mod echo;
mod figures;
mod link;
mod path;
mod payload;
mod road;

use clap::Parser;

/// Load generator for Farcall.
#[derive(Parser)]
enum Command {
    /// Measures endpoints behind a bare broker: task queue, endpoint, result queue.
    Amqp(amqp::Options),
    /// Measures the whole path: submit over REST, endpoint, the client's own result queue.
    Path(path::Options),
    /// Plays an endpoint that does no work. Reads the start document of a user endpoint from standard input.
    Echo,
    /// Serves our broker alone, letting everybody do everything, and prints its URL.
    Broker,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Amqp(options) => amqp::run(options).await,
        Command::Path(options) => path::run(options).await,
        Command::Echo => echo::run().await,
        Command::Broker => broker::run().await,
    }
}
