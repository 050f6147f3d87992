//! When an endpoint that has nothing to do stops by itself.

/// When an endpoint that has nothing to do stops; counted in heartbeats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// After at least one task; 0 is never, whatever `hard` says.
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// What moved, and how many heartbeats passed without.
#[derive(Debug, Default)]
pub(super) struct IdleCounter {
    /// Something moved once.
    moved: bool,
    /// Since the last heartbeat.
    pub(super) received: u64,
    pub(super) delivered: u64,
    soft: u64,
    hard: u64,
}

impl IdleCounter {
    /// Counts one heartbeat; whether the endpoint has been idle for as many as it may. `empty`: it holds no task.
    pub(super) fn beat(&mut self, Idle { soft, hard }: Idle, empty: bool) -> bool {
        let (received, delivered) = (std::mem::take(&mut self.received), std::mem::take(&mut self.delivered));
        if soft == 0 {
            return false;
        }
        if received > 0 || delivered > 0 {
            self.moved = true;
            (self.soft, self.hard) = (0, 0);
            return false;
        }
        self.hard += 1;
        if self.moved && empty {
            self.soft += 1;
            return self.soft >= soft;
        }
        self.hard > hard
    }
}
