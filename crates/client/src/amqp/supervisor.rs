//! Opens one session after another, with pauses in between, until the link ends.

use std::time::Duration;

use tokio::sync::mpsc;

use super::session::{self, Disconnect, OpenError, SessionEnd};
use super::{Command, Event, LinkConfig, LinkEnd};
use crate::backoff::Backoff;
use crate::{clock, random};

/// The pauses of upstream's endpoint: between half a second and ten.
const PAUSES: Backoff = Backoff { least: Duration::from_millis(500), most: Duration::from_secs(10) };
/// After this many failures in a row the link gives up, as upstream's endpoint does.
const ATTEMPTS: u32 = 7200;
/// After a session that lasted this long, the count of failures begins anew.
const STABLE_SESSION: Duration = Duration::from_secs(60);

/// Runs a link until it ends or its owner is gone.
pub(super) async fn run(
    config: LinkConfig,
    mut commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::Sender<Event>,
) {
    let mut failures = 0;
    let mut consume = true;
    for session in config.first_session.. {
        let opened = tokio::select! {
            opened = session::open(&config) => opened,
            () = closed(&mut commands, &mut consume) => {
                let _ = events.send(Event::Ended(LinkEnd::Closed)).await;
                return;
            }
        };
        let Disconnect { reason, queue_taken } = match opened {
            Ok(channels) => {
                let since = clock::now();
                let end =
                    session::run(&config, session, channels, &mut consume, &mut commands, &events).await;
                if clock::now().duration_since(since) >= STABLE_SESSION {
                    failures = 0;
                }
                match end {
                    SessionEnd::Closed => {
                        let _ = events.send(Event::Ended(LinkEnd::Closed)).await;
                        return;
                    }
                    SessionEnd::Disconnected(disconnect) => disconnect,
                }
            }
            Err(OpenError::AuthenticationRefused(reason)) => {
                let _ = events.send(Event::Ended(LinkEnd::AuthenticationRefused(reason))).await;
                return;
            }
            Err(OpenError::Failed(reason)) => Disconnect { reason, queue_taken: false },
        };
        if failures >= ATTEMPTS {
            let _ = events.send(Event::Ended(LinkEnd::GaveUp(reason))).await;
            return;
        }
        let pause = PAUSES.pause(failures, random::fraction());
        failures += 1;
        if events.send(Event::Down { reason, queue_taken, pause }).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = closed(&mut commands, &mut consume) => {
                let _ = events.send(Event::Ended(LinkEnd::Closed)).await;
                return;
            }
        }
    }
}

/// Waits, between sessions, until the owner closes the link. Other requests belong to sessions that are over.
async fn closed(commands: &mut mpsc::UnboundedReceiver<Command>, consume: &mut bool) {
    loop {
        match commands.recv().await {
            Some(Command::Close) | None => return,
            Some(Command::Consume(take)) => *consume = take,
            Some(
                Command::Publish { .. } | Command::Acknowledge(_) | Command::Requeue(_) | Command::Reject(_),
            ) => {}
        }
    }
}
