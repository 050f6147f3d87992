//! Keeps one session after the other alive, with pauses between them.

use std::time::Duration;

use tokio::sync::mpsc;

use super::session::{self, Broken, Lost, Opening};
use super::{Command, End, Event, Plan};
use crate::ambient;
use crate::backoff::Backoff;

/// As upstream's endpoint pauses: never below half a second, never above ten.
const PAUSES: Backoff = Backoff { least: Duration::from_millis(500), most: Duration::from_secs(10) };
/// As upstream's: so many failures in a row, and nobody is there any more.
const ATTEMPTS: u32 = 7200;
/// A session that lived so long was a good one: failures are counted anew.
const GOOD: Duration = Duration::from_secs(60);

/// Runs a link until it ends for good or nobody listens any more.
pub(super) async fn run(
    plan: Plan,
    mut commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::Sender<Event>,
) {
    let mut failures = 0;
    let mut consume = true;
    for session in plan.first_session.. {
        let opened = tokio::select! {
            opened = session::open(&plan) => opened,
            () = closed(&mut commands, &mut consume) => {
                let _ = events.send(Event::Ended(End::Closed)).await;
                return;
            }
        };
        let Broken { reason, taken } = match opened {
            Ok(channels) => {
                let since = ambient::now();
                let lost = session::run(&plan, session, channels, &mut consume, &mut commands, &events).await;
                if ambient::now().duration_since(since) >= GOOD {
                    failures = 0;
                }
                match lost {
                    Lost::Closed => {
                        let _ = events.send(Event::Ended(End::Closed)).await;
                        return;
                    }
                    Lost::Broken(broken) => broken,
                }
            }
            Err(Opening::AuthenticationRefused(reason)) => {
                let _ = events.send(Event::Ended(End::AuthenticationRefused(reason))).await;
                return;
            }
            Err(Opening::Failed(reason)) => Broken { reason, taken: false },
        };
        if failures >= ATTEMPTS {
            let _ = events.send(Event::Ended(End::GaveUp(reason))).await;
            return;
        }
        let pause = PAUSES.pause(failures, ambient::fraction());
        failures += 1;
        if events.send(Event::Down { reason, taken, pause }).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = closed(&mut commands, &mut consume) => {
                let _ = events.send(Event::Ended(End::Closed)).await;
                return;
            }
        }
    }
}

/// Waits, without a session, for the wish to close. Other commands belong to sessions that are over.
async fn closed(commands: &mut mpsc::UnboundedReceiver<Command>, consume: &mut bool) {
    loop {
        match commands.recv().await {
            Some(Command::Close) | None => return,
            Some(Command::Consume(take)) => *consume = take,
            Some(
                Command::Publish { .. } | Command::Acknowledge(_) | Command::GiveBack(_) | Command::Reject(_),
            ) => {}
        }
    }
}
