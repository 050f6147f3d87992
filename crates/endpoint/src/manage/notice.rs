//! Sends notices: tells the service, with a user endpoint's credentials, why that user endpoint does not run.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use wire::queue::Registration;

use crate::start::send_notice;

/// How many notices are sent at a time; each has a connection.
const AT_A_TIME: usize = 16;
/// How many may wait. Further ones are dropped: the service's own wait ends, too.
const MOST_WAITING: usize = 2_000;

/// The notices that are being sent.
#[derive(Debug)]
pub(super) struct Notices {
    port: Option<u16>,
    authorities: Option<String>,
    turns: Arc<Semaphore>,
    sending: JoinSet<()>,
}

impl Notices {
    pub(super) fn new(port: Option<u16>, authorities: Option<String>) -> Self {
        Self { port, authorities, turns: Arc::new(Semaphore::new(AT_A_TIME)), sending: JoinSet::new() }
    }

    /// Sends a notice, soon. It gives up by itself when the broker does not answer.
    pub(super) fn send(&mut self, credentials: Registration, text: String) {
        while self.sending.try_join_next().is_some() {}
        if self.sending.len() >= MOST_WAITING {
            tracing::warn!(user_endpoint = %credentials.endpoint_id, "too many failures to report; this one is not");
            return;
        }
        let (turns, port, authorities) = (Arc::clone(&self.turns), self.port, self.authorities.clone());
        self.sending.spawn(async move {
            let _turn = turns.acquire().await;
            let user_endpoint = credentials.endpoint_id;
            if let Err(problem) = send_notice(credentials, port, authorities, text).await {
                tracing::warn!(%user_endpoint, problem, "Unable to send user endpoint start up failure");
            }
        });
    }

    /// Waits until all are sent, for at most this long.
    pub(super) async fn finish(&mut self, patience: Duration) {
        let all = async { while self.sending.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(patience, all).await;
    }
}
