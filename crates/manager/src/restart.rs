//! What a manager hands over to itself when it executes its program again in place: the user endpoints, which stay its
//! children, and the descriptors that stay open.
//!
//! The state is one JSON document in memory that only the manager reads. A program that does not know its version refuses
//! it, and the manager that runs goes on.

use std::collections::HashSet;
use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

use crate::children::{Child, Start};

/// The version that this program writes. One that reads another refuses.
pub const VERSION: u32 = 1;

/// Everything that the next program needs to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub version: u32,
    pub children: Vec<HandedOver>,
    /// Starts without a command that the broker would deliver again: of user endpoints that are to be revived.
    pub revivals: Vec<Start>,
}

/// A user endpoint, and the manager's descriptors for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandedOver {
    pub child: Child,
    /// The memory file of its renewed credentials, and the key that they are encrypted with.
    pub renewed_credentials: Option<(RawFd, String)>,
    /// The read end of its audit pipe.
    pub audit_pipe: Option<RawFd>,
}

/// Why a state can't be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("the state has version {found}, and this program reads version {VERSION}")]
    Version { found: u32 },
    #[error("user endpoint {0} has no process")]
    NoProcess(String),
    #[error("user endpoint {0} shares its name or its process with another")]
    Twice(String),
}

impl State {
    pub fn new(children: Vec<HandedOver>, revivals: Vec<Start>) -> Self {
        Self { version: VERSION, children, revivals }
    }

    /// The processes of the children.
    pub fn processes(&self) -> Vec<i32> {
        self.children.iter().filter_map(|it| it.child.pid).collect()
    }

    /// Whether this program can go on from the state.
    pub fn check(&self) -> Result<(), Unusable> {
        if self.version != VERSION {
            return Err(Unusable::Version { found: self.version });
        }
        let (mut names, mut pids) = (HashSet::new(), HashSet::new());
        for HandedOver { child, .. } in &self.children {
            // Numbers below 2 are no child's, and mean many processes to who signals them.
            let Some(pid) = child.pid.filter(|pid| *pid > 1) else {
                return Err(Unusable::NoProcess(child.name.clone()));
            };
            if !names.insert(&child.name) || !pids.insert(pid) {
                return Err(Unusable::Twice(child.name.clone()));
            }
        }
        Ok(())
    }
}
