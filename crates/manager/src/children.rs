//! The user endpoints that run or are being started, each under its name. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::IdentityId;
use wire::json::FreeForm;

use crate::command::{StartCommand, Submitter};
use crate::launch::{LaunchEnd, LaunchFailure};

/// The serial number of a launch, and of the process that comes of it. Unlike the number of a process, it is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub u64);

/// The local user that an identity was mapped to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mapped {
    pub identity: IdentityId,
    pub local_user: String,
    /// What each mapper offered.
    pub candidates: Value,
}

/// A start command whose submitter may be started as this local user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Among commands for the same user endpoint, the one with the highest number counts.
    pub order: Order,
    pub command: StartCommand,
    /// `None`: the manager's own user.
    pub mapped: Option<Mapped>,
}

/// When a command was sent, and which number it has among those of the same second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Order {
    pub timestamp: u64,
    pub number: u64,
}

impl Start {
    pub fn local_user(&self) -> Option<&str> {
        self.mapped.as_ref().map(|mapped| mapped.local_user.as_str())
    }
}

/// How far a child has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    /// The shell was told to start it.
    Spawning,
    /// The launcher runs as this process.
    Launching,
    /// The launcher has reported that it can't start the user endpoint, and is about to end.
    Failed(LaunchFailure),
    /// The launcher took too long and was killed. It keeps no place of a start, whether or not its process has ended.
    Overdue,
    /// The user endpoint's program took over.
    Running,
}

/// One user endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Child {
    pub name: String,
    /// `None`: the manager's own user.
    pub local_user: Option<String>,
    pub submitter: Submitter,
    pub order: Order,
    /// The credentials that it has now.
    pub credentials: FreeForm,
    pub arguments: Vec<String>,
    pub stage: Stage,
    /// Of its launch, once there is a process. It is this program's own: the next one counts anew.
    #[serde(skip)]
    pub serial: Option<Serial>,
    /// The direct child of the manager: the user endpoint itself, or with PAM the launcher that holds its session.
    pub pid: Option<i32>,
    /// The user endpoint's own process, if it is another one.
    pub user_endpoint_pid: Option<i32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Until when the launcher may be at work, then when it is killed again.
    pub deadline: Option<Duration>,
    /// A start command that came while it ran. It is carried out if the user endpoint stops in an orderly way soon after.
    pub again: Option<Again>,
}

/// A command of the grace-period cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Again {
    pub start: Start,
    pub until: Duration,
}

impl Child {
    pub(crate) fn new(start: &Start, deadline: Duration) -> Self {
        let command = &start.command;
        Self {
            name: command.name.clone(),
            local_user: start.local_user().map(str::to_owned),
            submitter: command.submitter.clone(),
            order: start.order,
            credentials: command.credentials.clone(),
            arguments: command.arguments.clone(),
            stage: Stage::Spawning,
            serial: None,
            pid: None,
            user_endpoint_pid: None,
            uid: None,
            gid: None,
            deadline: Some(deadline),
            again: None,
        }
    }

    /// The user endpoint's process.
    pub fn own_pid(&self) -> Option<i32> {
        self.user_endpoint_pid.or(self.pid)
    }

    /// Whether the launcher is still at work.
    pub fn is_starting(&self) -> bool {
        !matches!(self.stage, Stage::Running | Stage::Overdue)
    }

    /// The local user and the command line, for the log.
    pub(crate) fn description(&self, own_user: &str) -> String {
        let user = self.local_user.as_deref().unwrap_or(own_user);
        let mut text = format!(
            "({user}, {name}) globus-compute-endpoint start {name} --die-with-parent",
            name = self.name
        );
        for argument in &self.arguments {
            text.push(' ');
            text.extend(argument.chars().map(|letter| if letter.is_control() { ' ' } else { letter }));
        }
        text
    }
}

/// How many children a local user has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count {
    all: usize,
    starting: usize,
}

/// All children.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Children {
    by_name: BTreeMap<String, Child>,
    names: HashMap<Serial, String>,
    counts: HashMap<Option<String>, Count>,
    starting: usize,
}

impl Children {
    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Child> {
        self.by_name.get_mut(name)
    }

    pub(crate) fn by_serial(&mut self, serial: Serial) -> Option<&mut Child> {
        self.by_name.get_mut(self.names.get(&serial)?)
    }

    /// The child of this launch.
    pub fn of_launch(&self, serial: Serial) -> Option<&Child> {
        self.by_name.get(self.names.get(&serial)?)
    }

    /// Adds a child under a name that no other has.
    pub(crate) fn insert(&mut self, child: Child) {
        if let Some(serial) = child.serial {
            self.names.insert(serial, child.name.clone());
        }
        let starting = usize::from(child.is_starting());
        let count = self.counts.entry(child.local_user.clone()).or_default();
        count.all += 1;
        count.starting += starting;
        self.starting += starting;
        self.by_name.insert(child.name.clone(), child);
    }

    /// Records the process of a child.
    pub(crate) fn spawned(&mut self, name: &str, serial: Serial, pid: i32) {
        if let Some(child) = self.by_name.get_mut(name) {
            child.serial = Some(serial);
            child.pid = Some(pid);
            child.stage = Stage::Launching;
            self.names.insert(serial, name.to_owned());
        }
    }

    /// Records how the launch of a child ended.
    pub(crate) fn launch_ended(&mut self, serial: Serial, end: LaunchEnd) {
        let Some(child) = self.names.get(&serial).and_then(|name| self.by_name.get_mut(name)) else { return };
        if child.stage != Stage::Launching {
            return;
        }
        match end {
            LaunchEnd::Started => {
                child.stage = Stage::Running;
                child.deadline = None;
                let user = child.local_user.clone();
                self.leave_place(&user);
            }
            LaunchEnd::Failed(failure) => child.stage = Stage::Failed(failure),
            // The end of the process says more.
            LaunchEnd::Lost => {}
        }
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Child> {
        let child = self.by_name.remove(name)?;
        if let Some(serial) = child.serial {
            self.names.remove(&serial);
        }
        if child.is_starting() {
            self.leave_place(&child.local_user);
        }
        if let Some(count) = self.counts.get_mut(&child.local_user) {
            count.all -= 1;
            if count.all == 0 {
                self.counts.remove(&child.local_user);
            }
        }
        Some(child)
    }

    fn leave_place(&mut self, local_user: &Option<String>) {
        self.starting -= 1;
        if let Some(count) = self.counts.get_mut(local_user) {
            count.starting -= 1;
        }
    }

    /// The launchers whose time is up, with the stage that they were in. They leave their places, and are overdue from now
    /// on; once more after `again`. Those at work have less time by `early`.
    pub(crate) fn overdue(
        &mut self,
        now: Duration,
        early: Duration,
        again: Duration,
    ) -> Vec<(String, Stage)> {
        let is_overdue = |child: &&mut Child| {
            let early = if child.is_starting() { early } else { Duration::ZERO };
            child.pid.is_some() && child.deadline.is_some_and(|deadline| deadline <= now + early)
        };
        let mut found = Vec::new();
        let mut left = Vec::new();
        for child in self.by_name.values_mut().filter(is_overdue) {
            let was_starting = child.is_starting();
            let stage = std::mem::replace(&mut child.stage, Stage::Overdue);
            child.deadline = was_starting.then(|| now + again);
            if was_starting {
                left.push(child.local_user.clone());
            }
            found.push((child.name.clone(), stage));
        }
        left.iter().for_each(|user| self.leave_place(user));
        found
    }

    pub(crate) fn remove_launch(&mut self, serial: Serial) -> Option<Child> {
        let name = self.names.get(&serial)?.clone();
        self.remove(&name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Child> {
        self.by_name.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Child> {
        self.by_name.values_mut()
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many are being started.
    pub(crate) fn starting(&self) -> usize {
        self.starting
    }

    pub(crate) fn of_user(&self, local_user: Option<&str>) -> usize {
        self.counts.get(&local_user.map(str::to_owned)).map_or(0, |count| count.all)
    }

    /// How many of this user's are being started.
    pub(crate) fn starting_of(&self, local_user: &Option<String>) -> usize {
        self.counts.get(local_user).map_or(0, |count| count.starting)
    }
}
