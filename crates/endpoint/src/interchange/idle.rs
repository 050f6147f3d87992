//! Decides when an idle endpoint stops by itself.

/// After how many heartbeats without work the endpoint stops.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// The limit once it has had a task; 0 is never, and disables `hard` too.
    pub(crate) soft: u64,
    /// The limit otherwise.
    pub(crate) hard: u64,
}

/// How idle the endpoint is, with the heartbeats until it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idleness {
    Busy,
    Idle {
        left: u64,
    },
    /// It never had a task, or a task lasts long.
    PossiblyIdle {
        left: u64,
    },
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
    /// The limit is reached: the endpoint stops.
    pub(super) is_over: bool,
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

    /// How idle the endpoint is since the last heartbeat.
    pub(super) fn idleness(&self, Idle { soft, hard }: Idle) -> Idleness {
        if soft == 0 {
            Idleness::Busy
        } else if self.soft > 0 {
            Idleness::Idle { left: soft.saturating_sub(self.soft) }
        } else if self.hard > soft {
            Idleness::PossiblyIdle { left: hard.saturating_sub(self.hard) }
        } else {
            Idleness::Busy
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_countdown_before_an_idle_endpoint_stops() {
        let limits = Idle { soft: 2, hard: 4 };
        let mut counter = IdleCounter::default();
        let beat = |counter: &mut IdleCounter| {
            let stops = counter.count_heartbeat(limits, true);
            (stops, counter.idleness(limits))
        };
        assert_eq!(beat(&mut counter), (false, Idleness::Busy));
        assert_eq!(beat(&mut counter), (false, Idleness::Busy));
        assert_eq!(beat(&mut counter), (false, Idleness::PossiblyIdle { left: 1 }));
        counter.received = 1;
        assert_eq!(beat(&mut counter), (false, Idleness::Busy));
        assert_eq!(beat(&mut counter), (false, Idleness::Idle { left: 1 }));
        assert_eq!(beat(&mut counter), (true, Idleness::Idle { left: 0 }));
        assert_eq!(IdleCounter::default().idleness(Idle { soft: 0, hard: 4 }), Idleness::Busy);
    }
}
