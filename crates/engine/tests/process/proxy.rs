//! A link between node and engine that can be cut in every way a network cuts one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of the connections that are open now; later ones are well again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both sides are reset.
    Reset,
    /// Nothing crosses any more, and nobody is told.
    Blackhole,
    /// The node sees its connection closed, the engine does not.
    HalfOpen,
}

/// Forwards connections to the engine whose files lie in a directory.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cuts: watch::Sender<Option<Cut>>,
}

impl Proxy {
    pub(crate) async fn start(node_file: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, mut cut) = watch::channel(None);
        tokio::spawn(async move {
            while let Ok((node, _)) = listener.accept().await {
                let config: serde_json::Value =
                    serde_json::from_slice(&std::fs::read(&node_file).unwrap()).unwrap();
                let engine: SocketAddr = config["engines"][0].as_str().unwrap().parse().unwrap();
                let Ok(engine) = TcpStream::connect(engine).await else { continue };
                cut.mark_unchanged();
                tokio::spawn(forward(node, engine, cut.clone()));
            }
        });
        Self { address, cuts }
    }

    pub(crate) fn cut(&self, how: Cut) {
        self.cuts.send_replace(Some(how));
    }
}

async fn forward(mut node: TcpStream, mut engine: TcpStream, mut cut: watch::Receiver<Option<Cut>>) {
    let how = tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut node, &mut engine) => return,
        changed = cut.changed() => match changed {
            Ok(()) => *cut.borrow(),
            Err(_) => return,
        },
    };
    match how {
        Some(Cut::Reset) => {
            for stream in [node, engine] {
                stream.set_zero_linger().unwrap();
            }
        }
        Some(Cut::Blackhole) => {
            let _kept = (node, engine);
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        Some(Cut::HalfOpen) => {
            let _ = node.shutdown().await; // closed already is as good
            drop(node);
            // What the engine sends is taken, as by a host that has gone without a word; and nothing comes back.
            let mut nothing = [0; 4096];
            while engine.read(&mut nothing).await.is_ok_and(|count| count > 0) {}
        }
        None => {}
    }
}
