//! How much may wait: how many commands, and of how many bytes. A command may have a megabyte, and the manager's memory is
//! everybody's.

use super::Core;
use crate::children::Child;
use crate::command::StartCommand;

/// How many commands may wait for their mapping or for their start, and their bytes together.
const MOST_WAITING: usize = 1_000;
const MOST_BYTES_WAITING: usize = 64 << 20;
/// The bytes of all commands that are kept in case their user endpoint is about to stop.
const MOST_BYTES_KEPT: usize = 64 << 20;

impl Core {
    /// Whether one more command of its submitter may wait.
    pub(super) fn may_wait(&self, command: &StartCommand) -> bool {
        let submitter = command.submitter.effective;
        let all = self.unmapped.len() + self.mapping.len() + self.waiting.len();
        if !has_room(self.unmapped.owned_by(&submitter), all, MOST_WAITING) {
            return false;
        }
        let waiting = self
            .unmapped
            .iter()
            .chain(self.mapping.values())
            .map(|it| &it.command)
            .chain(self.waiting.iter().map(|it| &it.start.command));
        has_room_for(command, waiting, MOST_BYTES_WAITING)
    }

    /// Whether a command may be kept for the time when its user endpoint stops.
    pub(super) fn may_keep(&self, command: &StartCommand) -> bool {
        let others = self.children.iter().filter(|child| child.name != command.name);
        has_room_for(command, others.filter_map(kept), MOST_BYTES_KEPT)
    }
}

/// The command that a child would be started with again.
fn kept(child: &Child) -> Option<&StartCommand> {
    child.again.as_ref().map(|again| &again.start.command)
}

fn has_room_for<'a>(
    command: &StartCommand,
    others: impl Iterator<Item = &'a StartCommand>,
    limit: usize,
) -> bool {
    let (mut own, mut all) = (0, 0);
    for other in others {
        all += other.bytes;
        own += if other.submitter.effective == command.submitter.effective { other.bytes } else { 0 };
    }
    has_room(own + command.bytes, all, limit)
}

/// Whether an owner may add one more: all others together must be able to add as many as this owner has.
pub(super) fn has_room(own: usize, all: usize, limit: usize) -> bool {
    own < limit.saturating_sub(all)
}
