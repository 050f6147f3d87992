//! Our broker alone: every client may do everything, and no message is stored.
#![allow(clippy::print_stdout, reason = "whoever started it reads the URL from standard output")]

use std::sync::Arc;

use broker::{
    AccessControl, Broker, Config, Limits, Listener, LogInFuture, LoggedIn, Login, Operation, Principal,
};
use tokio::net::TcpListener;

struct Everyone;

impl AccessControl for Everyone {
    fn log_in<'a>(&'a self, login: Login) -> LogInFuture<'a> {
        Box::pin(
            async move { Ok(LoggedIn { principal: Principal::new(login.user), limits: Limits::default() }) },
        )
    }

    fn may(&self, _: &Principal, _: &Operation<'_>) -> bool {
        true
    }
}

pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("amqp://bench:bench@{}/%2F", listener.local_addr()?);
    let (broker, _handle) = Broker::new(Config::default(), Arc::new(Everyone));
    broker.run(vec![Listener { socket: listener, tls: None }], std::future::pending()).await;
    Ok(())
}
