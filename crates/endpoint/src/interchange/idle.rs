//! Decides when an idle endpoint stops by itself.

/// After how many heartbeats without work the endpoint stops.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// The limit once it has had a task; 0 is never, and disables `hard` too.
    pub(crate) soft: u64,
    /// The limit otherwise.
    pub(crate) hard: u64,
}

/// Counts tasks and results, and heartbeats without any.
#[derive(Debug, Default)]
pub(super) struct IdleCounter {
    /// There was a task once.
    had_task: bool,
    /// Since the last heartbeat.
    pub(super) received: u64,
    pub(super) delivered: u64,
    soft: u64,
    hard: u64,
}

impl IdleCounter {
    /// Counts one heartbeat. True: the endpoint has been idle for the limit. `empty`: it has no task.
    pub(super) fn count_heartbeat(&mut self, Idle { soft, hard }: Idle, empty: bool) -> bool {
        let (received, delivered) = (std::mem::take(&mut self.received), std::mem::take(&mut self.delivered));
        if soft == 0 {
            return false;
        }
        if received > 0 || delivered > 0 {
            self.had_task = true;
            (self.soft, self.hard) = (0, 0);
            return false;
        }
        self.hard += 1;
        if self.had_task && empty {
            self.soft += 1;
            return self.soft >= soft;
        }
        self.hard > hard
    }
}
