//! Connects to the engine: tries all its addresses, and takes the first that answers with the right keys.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::Config;
use super::error::NodeError;
use crate::link::keys;

/// The delay between the first attempts of two addresses; the first usually answers within it.
const STAGGER: Duration = Duration::from_millis(100);

pub(super) async fn to_engine(config: &Config) -> Result<TlsStream<TcpStream>, NodeError> {
    let keys = config.keys.client().map_err(|error| NodeError::Keys(error.to_string()))?;
    let connector = TlsConnector::from(Arc::new(keys));
    let mut attempts: FuturesUnordered<_> = (0u32..)
        .zip(&config.engines)
        .map(|(number, &address)| {
            let connector = &connector;
            async move {
                sleep(STAGGER * number).await;
                connect(address, connector).await.map_err(|error| format!("{address}: {error}"))
            }
        })
        .collect();
    let mut failures = Vec::new();
    let answer = async {
        while let Some(attempt) = attempts.next().await {
            match attempt {
                Ok(stream) => return Some(stream),
                Err(failure) => failures.push(failure),
            }
        }
        None
    };
    match timeout(config.probe, answer).await {
        Ok(Some(stream)) => return Ok(stream),
        Ok(None) => {}
        Err(_) => failures.push(format!("no other answer within {} s", config.probe.as_secs())),
    }
    Err(NodeError::Unreachable(failures.join("; ")))
}

async fn connect(address: SocketAddr, connector: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    connector.connect(keys::server_name(), stream).await
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Listens with some keys, and accepts who has their counterpart.
    async fn listen(side: keys::LinkKeys) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(side.server().unwrap()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let _stream = acceptor.accept(stream).await;
                    std::future::pending::<()>().await;
                });
            }
        });
        address
    }

    async fn silent() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn the_first_address_that_has_the_keys_is_taken_whatever_the_others_do() {
        let (engine, node) = keys::generate().unwrap();
        let (stranger, _) = keys::generate().unwrap();
        let closed = silent().await.1;
        let (_kept, mute) = silent().await;
        let right = listen(engine).await;
        let config = Config {
            engines: vec![closed, mute, listen(stranger).await, right],
            keys: node,
            ..Config::for_tests()
        };
        let stream = super::to_engine(&config).await.unwrap();
        assert_eq!(stream.get_ref().0.peer_addr().unwrap(), right);
    }

    #[tokio::test]
    async fn when_none_answers_every_address_is_told() {
        let (stranger, _) = keys::generate().unwrap();
        let (closed, strange) = (silent().await.1, listen(stranger).await);
        let (_kept, mute) = silent().await;
        let probe = Duration::from_secs(1);
        let config = Config { engines: vec![closed, strange, mute], probe, ..Config::for_tests() };
        let text = super::to_engine(&config).await.unwrap_err().to_string();
        assert!(text.starts_with("cannot reach the endpoint: "), "{text}");
        for part in [format!("{closed}: "), format!("{strange}: "), "no other answer within 1 s".to_owned()] {
            assert!(text.contains(&part), "{part} in {text}");
        }
    }
}
