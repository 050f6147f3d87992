//! The state machine of user endpoints that are being started. Pure.
//!
//! ```text
//! wanted --> manager away --connected--> command --published--> heartbeat awaited --> ready
//!    |            |                                                  |     ^  |
//!    |            +------(timeout)-------> manager away              |     |  +--> refused, with the manager's text
//!    +--(the manager is connected)-------^                           |     +--> setting up, as long as it reports that
//!                                                                    +--> silent
//! ```
//!
//! If several submits need the same user endpoint at a time, it is started once and each of them gets the result. A set-up may
//! take longer than a submit can wait: the start goes on, and later submits join it. Nothing here knows sockets, the store or
//! the clock.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use wire::EndpointId;
use wire::extensions::SetUp;

/// How long a start waits for a manager that is not connected: managers reconnect after a restart of the service.
pub const MANAGER_TIMEOUT: SignedDuration = SignedDuration::from_secs(15);
/// How long a start may take without a report, and a submit waits for it: clients give up after 60 seconds and submit again.
pub const START_TIMEOUT: SignedDuration = SignedDuration::from_secs(50);
/// How long a set-up may last without another report of it. User endpoints send one every few seconds.
pub const SET_UP_TIMEOUT: SignedDuration = SignedDuration::from_secs(40);

/// How a start ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartResult {
    Ready,
    /// The manager or the user endpoint reported this reason.
    Refused(String),
    /// The manager is not connected.
    Away,
    /// The manager got the command, and no heartbeat or report came since.
    Silent,
    /// Its set-up still runs. Only a submit ends so; the start goes on.
    SettingUp(SetUp),
    /// The submitter has the most user endpoints allowed.
    TooMany,
    /// The service failed.
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A submit needs this user endpoint, which does not consume tasks at this moment.
    Wanted { manager: EndpointId, connected: bool },
    /// The command has its credential and is about to be published.
    Commanded { credential: i64 },
    /// The command could not be built or published.
    Failed,
    /// The submitter may have no more user endpoints.
    TooMany,
    /// The user endpoint sent a heartbeat.
    Alive,
    /// The user endpoint, which has this credential, reported that its set-up still runs.
    SettingUp { credential: i64, set_up: SetUp },
    /// A report of failure, sent with this credential.
    Reported { credential: i64, text: String },
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the task that drives this start.
    Begin,
    /// Issue the credential and publish the command.
    Command,
    /// Send the result to all who wait.
    Finish(StartResult),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    ManagerAway,
    Commanding,
    AwaitingHeartbeat { credential: i64 },
    SettingUp { credential: i64, heard: Timestamp, set_up: SetUp },
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
                // One that is being set up may belong to an earlier command, of which the service has forgotten before its restart.
                if let Some(start) = self.0.get_mut(&user_endpoint)
                    && !matches!(start.phase, Phase::SettingUp { .. })
                {
                    start.phase = Phase::AwaitingHeartbeat { credential };
                }
                Vec::new()
            }
            Event::SettingUp { credential, set_up } => {
                if let Some(start) = self.0.get_mut(&user_endpoint) {
                    start.phase = Phase::SettingUp { credential, heard: now, set_up };
                }
                Vec::new()
            }
            Event::Failed => self.finish(user_endpoint, StartResult::Broken),
            Event::TooMany => self.finish(user_endpoint, StartResult::TooMany),
            Event::Alive => self.finish(user_endpoint, StartResult::Ready),
            Event::Reported { credential, text } => {
                // A report about an earlier attempt may come late.
                let awaited = match self.0.get(&user_endpoint).map(|start| &start.phase) {
                    Some(Phase::AwaitingHeartbeat { credential: awaited }) => credential == *awaited,
                    Some(Phase::SettingUp { credential: reporting, .. }) => credential >= *reporting,
                    Some(Phase::ManagerAway | Phase::Commanding) | None => false,
                };
                match awaited {
                    true => self.finish(user_endpoint, StartResult::Refused(text)),
                    false => Vec::new(),
                }
            }
        }
    }

    /// Records that `manager` connected. Returns its user endpoints that waited for it; their commands can be sent.
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

    /// Ends this start if its time is over.
    pub fn tick(&mut self, user_endpoint: EndpointId, now: Timestamp) -> Vec<Action> {
        let Some(due) = self.due(user_endpoint).filter(|due| *due <= now) else { return Vec::new() };
        tracing::debug!(%user_endpoint, %due, "the start of a user endpoint timed out");
        let away = self.0.get(&user_endpoint).is_some_and(|it| it.phase == Phase::ManagerAway);
        self.finish(user_endpoint, if away { StartResult::Away } else { StartResult::Silent })
    }

    /// When the time of this start is over.
    pub fn due(&self, user_endpoint: EndpointId) -> Option<Timestamp> {
        let start = self.0.get(&user_endpoint)?;
        Some(match start.phase {
            Phase::ManagerAway => start.began + MANAGER_TIMEOUT,
            Phase::Commanding | Phase::AwaitingHeartbeat { .. } => start.began + START_TIMEOUT,
            Phase::SettingUp { heard, .. } => heard + SET_UP_TIMEOUT,
        })
    }

    /// How far its set-up is, if that runs.
    pub fn set_up(&self, user_endpoint: EndpointId) -> Option<&SetUp> {
        match &self.0.get(&user_endpoint)?.phase {
            Phase::SettingUp { set_up, .. } => Some(set_up),
            _ => None,
        }
    }

    fn finish(&mut self, user_endpoint: EndpointId, result: StartResult) -> Vec<Action> {
        match self.0.remove(&user_endpoint) {
            Some(_) => vec![Action::Finish(result)],
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

    fn setting_up(credential: i64, seconds: u64) -> Event {
        Event::SettingUp { credential, set_up: SetUp { seconds, output: "solving".into() } }
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
        let finish = |result| vec![Action::Finish(result)];
        let begun = || vec![Action::Begin, Action::Command];
        let refused = || StartResult::Refused("no such user".into());
        let commanded = || Is(Event::Commanded { credential: 7 }, 1, vec![]);
        let table = [
            // As it should be, and others who want the same share the start.
            vec![
                Is(wanted(true), 0, begun()),
                Is(wanted(true), 1, vec![]),
                commanded(),
                Is(wanted(true), 2, vec![]),
                Is(Event::Alive, 5, finish(StartResult::Ready)),
            ],
            // The heartbeat may overtake our own note of the command.
            vec![Is(wanted(true), 0, begun()), Is(Event::Alive, 1, finish(StartResult::Ready)), commanded()],
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
                Is(Event::Alive, 20, finish(StartResult::Ready)),
            ],
            // It does not.
            vec![
                Is(wanted(false), 0, vec![Action::Begin]),
                Tick(15, finish(StartResult::Away)),
                Connected(vec![]),
            ],
            // Nothing is heard.
            vec![
                Is(wanted(true), 0, begun()),
                commanded(),
                Tick(49, vec![]),
                Tick(50, finish(StartResult::Silent)),
                Is(Event::Alive, 51, vec![]),
            ],
            // Its set-up takes long: the start goes on as long as it is heard of, and those who come later join it.
            vec![
                Is(wanted(true), 0, begun()),
                commanded(),
                Is(setting_up(7, 5), 5, vec![]),
                Is(setting_up(7, 40), 40, vec![]),
                Tick(50, vec![]),
                Is(wanted(true), 60, vec![]),
                Is(setting_up(7, 70), 70, vec![]),
                Is(Event::Alive, 100, finish(StartResult::Ready)),
            ],
            // It fails, or is not heard of any more.
            vec![
                Is(wanted(true), 0, begun()),
                commanded(),
                Is(setting_up(7, 5), 5, vec![]),
                Is(reported(6), 9, vec![]),
                Is(reported(7), 55, finish(refused())),
            ],
            vec![
                Is(wanted(true), 0, begun()),
                commanded(),
                Is(setting_up(7, 30), 30, vec![]),
                Tick(69, vec![]),
                Tick(70, finish(StartResult::Silent)),
            ],
            // It was begun before the service was started again: its credential is older than that of the new command.
            vec![
                Is(setting_up(6, 5), 0, vec![]),
                Is(wanted(true), 1, begun()),
                Is(setting_up(6, 10), 2, vec![]),
                commanded(),
                Is(reported(6), 9, finish(refused())),
            ],
            // The command could not be published; the next submit tries again.
            vec![
                Is(wanted(true), 0, begun()),
                Is(Event::Failed, 1, finish(StartResult::Broken)),
                Is(wanted(true), 2, begun()),
                Is(Event::Alive, 3, finish(StartResult::Ready)),
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
        assert_eq!(starts.apply(ONE, Event::Alive, at(4)), [Action::Finish(StartResult::Ready)]);
        assert_eq!(starts.due(TWO), Some(at(53)));
        assert_eq!(starts.due(ONE), None);
    }

    #[test]
    fn clients_hear_before_they_give_up() {
        assert!(START_TIMEOUT < SignedDuration::from_secs(55) && MANAGER_TIMEOUT < START_TIMEOUT);
    }
}
