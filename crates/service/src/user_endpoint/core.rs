//! Which user endpoints are being started, as a pure state machine over what has been heard.
//!
//! ```text
//! wanted --> manager away --connected--> command --published--> heartbeat awaited --> ready
//!    |            |                                                  |        |
//!    |            +--(its time is over)--> manager away              |        +--> refused, with the manager's text
//!    +--(the manager is connected)-------^                           +--> silent
//! ```
//!
//! However many ask for the same user endpoint at a time, it is started once and each gets the outcome. Nothing here
//! knows sockets, the store or the clock.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use wire::EndpointId;

/// How long a manager that is not connected is waited for: after a restart of the service it comes back by itself.
pub const MANAGER: SignedDuration = SignedDuration::from_secs(15);
/// How long all of it may take: clients give up after 60 seconds and submit again.
pub const WHOLE: SignedDuration = SignedDuration::from_secs(50);

/// How a start ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ready,
    /// The manager or the user endpoint says why it cannot be.
    Refused(String),
    /// The manager is not connected.
    Away,
    /// The manager got the command, and nothing was heard since.
    Silent,
    /// Whoever wants it has as many user endpoints as one may have.
    TooMany,
    /// We failed ourselves.
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants this user endpoint, which does not consume tasks at this moment.
    Wanted { manager: EndpointId, connected: bool },
    /// The command has its credential and is about to be published.
    Commanded { credential: i64 },
    /// The command could not be made or published.
    Failed,
    /// Whoever wants it may have no more user endpoints.
    TooMany,
    /// The user endpoint says that it is alive.
    Alive,
    /// A report of failure, sent with this credential.
    Reported { credential: i64, text: String },
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Somebody has to watch over this start from now on.
    Begin,
    /// Make the credential and publish the command.
    Command,
    /// Tell all who wait.
    Finish(Outcome),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    ManagerAway,
    Commanding,
    AwaitingHeartbeat { credential: i64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Start {
    manager: EndpointId,
    began: Timestamp,
    phase: Phase,
}

/// The starts that are under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts(HashMap<EndpointId, Start>);

impl Starts {
    pub fn apply(&mut self, user_endpoint: EndpointId, event: Event, now: Timestamp) -> Vec<Action> {
        match event {
            Event::Wanted { manager, connected } => {
                if self.0.contains_key(&user_endpoint) {
                    return Vec::new();
                }
                let phase = if connected { Phase::Commanding } else { Phase::ManagerAway };
                self.0.insert(user_endpoint, Start { manager, began: now, phase });
                if connected { vec![Action::Begin, Action::Command] } else { vec![Action::Begin] }
            }
            Event::Commanded { credential } => {
                if let Some(start) = self.0.get_mut(&user_endpoint) {
                    start.phase = Phase::AwaitingHeartbeat { credential };
                }
                Vec::new()
            }
            Event::Failed => self.finish(user_endpoint, Outcome::Broken),
            Event::TooMany => self.finish(user_endpoint, Outcome::TooMany),
            Event::Alive => self.finish(user_endpoint, Outcome::Ready),
            Event::Reported { credential, text } => {
                // A report about an earlier attempt may come late.
                let awaited = Phase::AwaitingHeartbeat { credential };
                match self.0.get(&user_endpoint) {
                    Some(start) if start.phase == awaited => {
                        self.finish(user_endpoint, Outcome::Refused(text))
                    }
                    _ => Vec::new(),
                }
            }
        }
    }

    /// `manager` is there: those of its user endpoints that wait for it can be commanded.
    pub fn connected(&mut self, manager: EndpointId) -> Vec<EndpointId> {
        let mut commanded = Vec::new();
        for (&user_endpoint, start) in &mut self.0 {
            if start.manager == manager && start.phase == Phase::ManagerAway {
                start.phase = Phase::Commanding;
                commanded.push(user_endpoint);
            }
        }
        commanded
    }

    /// What the clock says of this start.
    pub fn tick(&mut self, user_endpoint: EndpointId, now: Timestamp) -> Vec<Action> {
        let Some(due) = self.due(user_endpoint).filter(|due| *due <= now) else { return Vec::new() };
        tracing::debug!(%user_endpoint, %due, "a start has run out of time");
        let away = self.0.get(&user_endpoint).is_some_and(|it| it.phase == Phase::ManagerAway);
        self.finish(user_endpoint, if away { Outcome::Away } else { Outcome::Silent })
    }

    /// When the clock has something to say of this start.
    pub fn due(&self, user_endpoint: EndpointId) -> Option<Timestamp> {
        let start = self.0.get(&user_endpoint)?;
        Some(start.began + if start.phase == Phase::ManagerAway { MANAGER } else { WHOLE })
    }

    fn finish(&mut self, user_endpoint: EndpointId, outcome: Outcome) -> Vec<Action> {
        match self.0.remove(&user_endpoint) {
            Some(_) => vec![Action::Finish(outcome)],
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const MANAGER_ID: EndpointId = EndpointId::from_uuid(Uuid::from_u128(1));
    const ONE: EndpointId = EndpointId::from_uuid(Uuid::from_u128(2));
    const TWO: EndpointId = EndpointId::from_uuid(Uuid::from_u128(3));

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn wanted(connected: bool) -> Event {
        Event::Wanted { manager: MANAGER_ID, connected }
    }

    fn reported(credential: i64) -> Event {
        Event::Reported { credential, text: "no such user".into() }
    }

    /// One step of a table: what happens when, and what must be done.
    enum Step {
        Is(Event, i64, Vec<Action>),
        Connected(Vec<EndpointId>),
        Tick(i64, Vec<Action>),
    }
    use Step::{Connected, Is, Tick};

    fn play(steps: Vec<Step>) {
        let mut starts = Starts::default();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Is(event, time, expected) => {
                    assert_eq!(starts.apply(ONE, event.clone(), at(time)), expected, "{number}: {event:?}");
                }
                Connected(expected) => assert_eq!(starts.connected(MANAGER_ID), expected, "{number}"),
                Tick(time, expected) => assert_eq!(starts.tick(ONE, at(time)), expected, "{number}"),
            }
        }
        assert_eq!(starts, Starts::default(), "nothing is left");
    }

    #[test]
    fn every_way_a_start_can_go() {
        let finish = |outcome| vec![Action::Finish(outcome)];
        let begun = || vec![Action::Begin, Action::Command];
        let refused = || Outcome::Refused("no such user".into());
        let commanded = || Is(Event::Commanded { credential: 7 }, 1, vec![]);
        let table = [
            // As it should be, and others who want the same share the start.
            vec![
                Is(wanted(true), 0, begun()),
                Is(wanted(true), 1, vec![]),
                commanded(),
                Is(wanted(true), 2, vec![]),
                Is(Event::Alive, 5, finish(Outcome::Ready)),
            ],
            // The heartbeat may overtake our own note of the command.
            vec![Is(wanted(true), 0, begun()), Is(Event::Alive, 1, finish(Outcome::Ready)), commanded()],
            // The manager refuses; a report of an earlier attempt says nothing.
            vec![
                Is(wanted(true), 0, begun()),
                Is(reported(7), 0, vec![]),
                commanded(),
                Is(reported(6), 2, vec![]),
                Is(reported(7), 3, finish(refused())),
                Is(reported(7), 4, vec![]),
            ],
            // The manager comes back in time.
            vec![
                Is(wanted(false), 0, vec![Action::Begin]),
                Tick(14, vec![]),
                Connected(vec![ONE]),
                Connected(vec![]),
                commanded(),
                Tick(16, vec![]),
                Is(Event::Alive, 20, finish(Outcome::Ready)),
            ],
            // It does not.
            vec![
                Is(wanted(false), 0, vec![Action::Begin]),
                Tick(15, finish(Outcome::Away)),
                Connected(vec![]),
            ],
            // Nothing is heard.
            vec![
                Is(wanted(true), 0, begun()),
                commanded(),
                Tick(49, vec![]),
                Tick(50, finish(Outcome::Silent)),
                Is(Event::Alive, 51, vec![]),
            ],
            // The command could not be published; the next submit tries again.
            vec![
                Is(wanted(true), 0, begun()),
                Is(Event::Failed, 1, finish(Outcome::Broken)),
                Is(wanted(true), 2, begun()),
                Is(Event::Alive, 3, finish(Outcome::Ready)),
            ],
            // What nobody wants changes nothing.
            vec![Is(Event::Alive, 0, vec![]), Is(reported(1), 0, vec![]), Is(Event::Failed, 0, vec![])],
        ];
        for steps in table {
            play(steps);
        }
    }

    #[test]
    fn one_start_says_nothing_of_another() {
        let mut starts = Starts::default();
        starts.apply(ONE, wanted(true), at(0));
        starts.apply(TWO, wanted(true), at(3));
        assert_eq!(starts.apply(ONE, Event::Alive, at(4)), [Action::Finish(Outcome::Ready)]);
        assert_eq!(starts.due(TWO), Some(at(53)));
        assert_eq!(starts.due(ONE), None);
    }

    #[test]
    fn clients_hear_before_they_give_up() {
        assert!(WHOLE < SignedDuration::from_secs(55) && MANAGER < WHOLE);
    }
}
