//! Decides what start commands lead to: which are mapped, started, kept for later or refused, and what the end of a user
//! endpoint means.
//!
//! ```text
//! Received ──► command read ──► Map ──► Mapped ──► waiting (fair between local users) ──► Launch ──► Spawned ──► Running
//!                  │                      │           │ the same user endpoint runs:                    │           │
//!                  │                      │           └► kept for the grace period, Renew              │           │
//!                  └──────► Notice ◄──────┴─────────────────────────────────────────────────────────────┘         Exited
//! ```
//!
//! No IO, no clock, no channel: [`Core::apply`] takes an event and returns actions, and the shell performs them in order. A
//! command is acknowledged once it is decided, so that one that was not handled is delivered again.

mod action;
mod exits;
mod limits;
mod places;
mod settling;
mod stop;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::Zoned;
use serde_json::Value;
use wire::{EndpointId, FunctionId, IdentityId};

use crate::children::{Again, Child, Children, Order, Stage, Start};
use crate::command::{Message, Refused, StartCommand, unexpected};
use crate::fair_queue::FairQueue;
use crate::launch::{LaunchRequest, ManagerFiles, MappedIdentity};
pub use action::{Action, Event, ExitStatus, Level, MappingOutcome, Now, Received, Signalled, Tag};
use limits::has_room;
use settling::Settling;
use stop::Phase;
pub use stop::kill;

/// How many mappings may be evaluated at a time: each may run an external program.
pub const MAPPINGS_AT_A_TIME: usize = 32;
/// How long a mapping may take: several external programs, one after the other.
const MAPPING_TIME: Duration = Duration::from_secs(60);
/// How long no launcher is started after one could not be: the machine may have no processes left for a moment.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The settings of a manager.
#[derive(Clone, Debug)]
pub struct Settings {
    pub manager: EndpointId,
    /// The name of the manager's own user.
    pub own_user: String,
    /// A manager that can't change users serves these identities, as its own user. `None`: identities are mapped.
    pub owners: Option<HashSet<IdentityId>>,
    /// How long a start command for a running user endpoint is kept.
    pub grace_period: Duration,
    /// How many launchers may work at a time.
    pub starts_at_a_time: usize,
    /// How long a launcher may take.
    pub launch_time: Duration,
    /// How many user endpoints may run.
    pub most_user_endpoints: usize,
    pub launch: LaunchSettings,
}

/// What is the same in every launch.
#[derive(Clone, Debug)]
pub struct LaunchSettings {
    pub files: ManagerFiles,
    pub parent_config: Value,
    pub allowed_functions: Option<Vec<FunctionId>>,
    pub high_assurance: bool,
    pub pam_service: Option<String>,
    pub inherited_environment: Vec<(String, String)>,
}

/// A command whose identities are being mapped, or wait for it.
#[derive(Debug)]
struct Unmapped {
    order: Order,
    tag: Tag,
    command: StartCommand,
    /// Until when its mapping may take.
    deadline: Duration,
}

/// A start that waits until fewer launchers work. `tag`: of a command that is not acknowledged yet.
#[derive(Debug)]
struct Waiting {
    tag: Option<Tag>,
    start: Start,
}

/// The state.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    children: Children,
    /// Waiting for a mapping, fair between submitters.
    unmapped: FairQueue<IdentityId, Unmapped>,
    /// Being mapped, by the number of the command.
    mapping: BTreeMap<u64, Unmapped>,
    waiting: FairQueue<Option<String>, Waiting>,
    next_number: u64,
    /// From when on launchers are started.
    launches_from: Duration,
    restart: Option<Settling>,
    phase: Phase,
}

impl Core {
    /// A manager with the children and revivals that were handed over.
    pub fn new(settings: Settings, children: Vec<Child>, revivals: Vec<Start>) -> Self {
        let mut known = Children::default();
        let of_child = |child: &Child| {
            [Some(child.order), child.again.as_ref().map(|again| again.start.order)].into_iter().flatten()
        };
        let of_children = children.iter().flat_map(of_child);
        let orders = of_children.chain(revivals.iter().map(|start| start.order));
        let next_number = orders.map(|order| order.number.saturating_add(1)).max().unwrap_or_default();
        children.into_iter().for_each(|child| known.insert(child));
        let mut waiting = FairQueue::default();
        for start in revivals {
            waiting.push(start.local_user().map(str::to_owned), Waiting { tag: None, start });
        }
        Self {
            settings,
            children: known,
            unmapped: FairQueue::default(),
            mapping: BTreeMap::new(),
            waiting,
            next_number,
            launches_from: Duration::ZERO,
            restart: None,
            phase: Phase::Running,
        }
    }

    pub fn children(&self) -> &Children {
        &self.children
    }

    /// The starts that wait and have no command that the broker would deliver again.
    pub fn revivals(&self) -> Vec<Start> {
        self.waiting.iter().filter(|it| it.tag.is_none()).map(|it| it.start.clone()).collect()
    }

    /// Handles one event. The actions are to be performed in order.
    pub fn apply(&mut self, event: Event<'_>, now: &Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Received(received) => self.received(received, &now.wall, &mut actions),
            Event::Mapped { number, outcome } => self.mapped(number, outcome, now, &mut actions),
            Event::Spawned { name, serial, pid } => self.children.spawned(name, serial, pid),
            Event::NotSpawned { name, problem } => {
                self.launches_from = now.monotonic + PAUSE_AFTER_FAILURE;
                self.not_spawned(name, problem, &mut actions);
            }
            Event::Reported { serial, report } => self.reported(serial, report, &mut actions),
            Event::LaunchEnded { serial, end } => self.children.launch_ended(serial, end),
            Event::Exited { serial, status } => self.exited(serial, status, now, &mut actions),
            Event::Tick => self.tick(now, &mut actions),
            Event::Stop => self.stop(now, &mut actions),
        }
        self.go_on(now, &mut actions);
        actions
    }

    fn received(&mut self, received: Received<'_>, now: &Zoned, actions: &mut Vec<Action>) {
        let Received { tag, content_type, timestamp, body } = received;
        if self.phase != Phase::Running {
            // It stays with the broker.
            return;
        }
        let command = match StartCommand::read(Message { content_type, timestamp, body }, now) {
            Ok(command) => command,
            Err(Refused { notice, log }) => {
                actions.push(Action::Log(Level::Error, log));
                actions.extend(notice.map(|(credentials, text)| Action::Notice { credentials, text }));
                actions.push(Action::Acknowledge(tag));
                return;
            }
        };
        let order = Order { timestamp: command.timestamp, number: self.next_number };
        self.next_number += 1;
        if !self.may_wait(&command) {
            let text = "The endpoint's manager has more start commands than it can handle at this moment.  Please \
                        submit again in a minute.";
            refuse(&command, text, text, actions);
            actions.push(Action::Acknowledge(tag));
            return;
        }
        self.unmapped
            .push(command.submitter.effective, Unmapped { order, tag, command, deadline: Duration::MAX });
    }

    fn mapped(&mut self, number: u64, outcome: MappingOutcome, now: &Now, actions: &mut Vec<Action>) {
        let Some(Unmapped { order, tag, command, .. }) = self.mapping.remove(&number) else { return };
        let lines = command.submitter.lines();
        let mapped = match outcome {
            MappingOutcome::To(mapped) => mapped,
            MappingOutcome::Forbidden(problem) => {
                let log = format!("(InvalidUserError) {problem}{lines}");
                refuse(&command, &unexpected("InvalidUserError"), &log, actions);
                actions.push(Action::Acknowledge(tag));
                return;
            }
            MappingOutcome::Nobody => {
                let text = format!("Identity failed to map to a local user name.  (LookupError) {lines}");
                refuse(&command, &text, &text, actions);
                actions.push(Action::Acknowledge(tag));
                return;
            }
            MappingOutcome::Failed(why) => {
                let what = "Unhandled error attempting to map to a local user name.";
                refuse(&command, &format!("{what}{lines}"), &format!("{what}  {why}{lines}"), actions);
                actions.push(Action::Acknowledge(tag));
                return;
            }
        };
        let start = Start { order, command, mapped: Some(mapped) };
        self.decide(Waiting { tag: Some(tag), start }, now, actions);
    }

    /// Gives up on mappings that do not come to an end: others need their places.
    fn end_overdue_mappings(&mut self, now: &Now, actions: &mut Vec<Action>) {
        let overdue = self.mapping.iter().filter(|(_, it)| it.deadline <= now.monotonic);
        let overdue: Vec<u64> = overdue.map(|(number, _)| *number).collect();
        for number in overdue {
            let why = format!("It did not come to an end within {} s.", MAPPING_TIME.as_secs());
            self.mapped(number, MappingOutcome::Failed(why), now, actions);
        }
    }

    /// Decides about a start whose local user is known: it waits for its launch, is kept for later, or is refused.
    fn decide(&mut self, waiting: Waiting, now: &Now, actions: &mut Vec<Action>) {
        let Waiting { tag, start } = waiting;
        let may_keep = self.may_keep(&start.command);
        if let Some(child) = self.children.get_mut(&start.command.name) {
            let until = may_keep.then(|| now.monotonic + self.settings.grace_period);
            keep_for_later(child, start, until, actions);
            actions.extend(tag.map(Action::Acknowledge));
            return;
        }
        let user = start.local_user().map(str::to_owned);
        let same = |other: &Waiting| other.start.command.name == start.command.name;
        if let Some(other) = self.waiting.find_mut(&user, same) {
            // The newer command takes the place of the older.
            let older = if other.start.order < start.order {
                std::mem::replace(other, Waiting { tag, start }).tag
            } else {
                tag
            };
            actions.extend(older.map(Action::Acknowledge));
            return;
        }
        let own = self.children.of_user(user.as_deref()) + self.waiting.owned_by(&user);
        let all = self.children.len() + self.waiting.len();
        let most = self.settings.most_user_endpoints;
        let room = if self.settings.owners.is_some() { all < most } else { has_room(own, all, most) };
        if !room {
            let who = user.as_deref().unwrap_or(&self.settings.own_user);
            let text = format!(
                "Unable to start user endpoint process for {who}: too many user endpoints run ({own} of {who}, {all} in \
                 all).  Of {most}, one user may take as many as are left free.  Please use a user_endpoint_config that \
                 runs already, or submit again when a user endpoint has ended."
            );
            refuse(&start.command, &text, &format!("{text}{}", start.command.submitter.lines()), actions);
            actions.extend(tag.map(Action::Acknowledge));
            return;
        }
        self.waiting.push(user, Waiting { tag, start });
    }

    /// Begins as many mappings and launches as the limits allow.
    fn go_on(&mut self, now: &Now, actions: &mut Vec<Action>) {
        if self.is_held(now) || self.phase != Phase::Running {
            return;
        }
        while self.mapping.len() < MAPPINGS_AT_A_TIME {
            let Some(next) = self.unmapped.pop() else { break };
            self.map(next, now, actions);
        }
        while self.launches_from <= now.monotonic
            && let Some(Waiting { tag, start }) = self.next_start()
        {
            let request = Box::new(self.request(&start));
            self.children.insert(Child::new(&start, now.monotonic + self.settings.launch_time));
            actions.push(Action::Launch { request });
            actions.extend(tag.map(Action::Acknowledge));
        }
    }

    /// Asks for the mapping of a command; a manager that can't change users only serves its owners.
    fn map(&mut self, mut next: Unmapped, now: &Now, actions: &mut Vec<Action>) {
        match &self.settings.owners {
            None => {
                let number = next.order.number;
                actions.push(Action::Map { number, identities: next.command.identities.clone() });
                next.deadline = now.monotonic + MAPPING_TIME;
                self.mapping.insert(number, next);
            }
            Some(owners) if next.command.identities.iter().any(|identity| owners.contains(&identity.sub)) => {
                let Unmapped { order, tag, command, .. } = next;
                let start = Start { order, command, mapped: None };
                self.decide(Waiting { tag: Some(tag), start }, now, actions);
            }
            Some(_) => {
                let Unmapped { tag, command, .. } = next;
                let text =
                    format!("Ignoring start request for untrusted identity.{}", command.submitter.lines());
                refuse(&command, &text, &text, actions);
                actions.push(Action::Acknowledge(tag));
            }
        }
    }

    fn request(&self, start: &Start) -> LaunchRequest {
        let Start { command, mapped, .. } = start;
        let launch = self.settings.launch.clone();
        LaunchRequest {
            local_user: mapped.as_ref().map(|mapped| mapped.local_user.clone()),
            name: command.name.clone(),
            files: launch.files,
            user_options: command.user_options.to_object(),
            user_runtime: command.user_runtime.as_ref().map(|runtime| Value::Object(runtime.to_object())),
            parent_config: launch.parent_config,
            identity: mapped.as_ref().map(|mapped| MappedIdentity {
                id: mapped.identity,
                effective: command.submitter.effective,
                username: command.submitter.username.clone(),
                candidates: mapped.candidates.clone(),
            }),
            credentials: Value::Object(command.credentials.to_object()),
            allowed_functions: launch.allowed_functions,
            high_assurance: launch.high_assurance,
            pam_service: launch.pam_service.filter(|_| mapped.is_some()),
            arguments: command.arguments.clone(),
            inherited_environment: launch.inherited_environment,
            // The shell makes them.
            audit_descriptor: None,
            renewed_credentials: None,
        }
    }
}

/// Keeps a command for a user endpoint that runs, and has the user endpoint use its credentials. `until`: `None` if there is
/// no room to keep it.
fn keep_for_later(child: &mut Child, start: Start, until: Option<Duration>, actions: &mut Vec<Action>) {
    let newest = child.again.as_ref().map_or(child.order, |again| again.start.order);
    if start.order < newest || start.command.credentials == child.credentials {
        // It is older than what the user endpoint has, or the same command, delivered again.
        return;
    }
    let name = &child.name;
    if child.stage == Stage::Overdue {
        let text = format!(
            "An earlier start of user endpoint {name} took too long and is being ended.  Please submit again in a minute."
        );
        refuse(&start.command, &text, &format!("{text}{}", start.command.submitter.lines()), actions);
        return;
    }
    if start.local_user() != child.local_user.as_deref() {
        let text = format!(
            "User endpoint {name} still runs as the local user that you were mapped to before.  Please submit again \
             when it has ended."
        );
        let log = format!(
            "User endpoint {name} is running as {:?}, but is now mapped to {:?}{}",
            child.local_user.as_deref().unwrap_or_default(),
            start.local_user().unwrap_or_default(),
            start.command.submitter.lines()
        );
        refuse(&start.command, &text, &log, actions);
        return;
    }
    let pid = child.own_pid().unwrap_or_default();
    let (level, rest) = match until {
        Some(_) => (Level::Info, "caching arguments in case it's about to shut down"),
        None => (Level::Warning, "its arguments are not cached, because too many are"),
    };
    actions.push(Action::Log(level, format!("User endpoint {name} is already running (pid: {pid}); {rest}")));
    child.order = start.order.max(child.order);
    child.credentials = start.command.credentials.clone();
    actions.push(Action::Renew { name: name.clone(), credentials: child.credentials.clone() });
    child.again = until.map(|until| Again { start, until });
}

fn refuse(command: &StartCommand, text: &str, log: &str, actions: &mut Vec<Action>) {
    actions.push(Action::Log(Level::Error, log.to_owned()));
    actions.extend(exits::notice(&command.credentials, text.to_owned()));
}
