//! Decides what the holder of a PAM session does to the user endpoint, and when. No clock, no processes: a table.
//!
//! ```text
//!            SIGTERM: pass it on               10 s
//!  Running ──────────────────────► Ending ──────────────► SIGKILL to the process group
//!     └─── the manager is gone: SIGTERM ──┘  1.5 s, or asked to kill
//! ```
//! Asked to kill, it does so at once, whether it has passed on a SIGTERM or not.

use std::time::Duration;

/// How long a user endpoint has to end after a SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// How long it has when its manager is gone: all must be gone within two seconds.
const ORPHAN_GRACE: Duration = Duration::from_millis(1500);

/// What the holder learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Somebody asked the holder to end: SIGTERM, SIGINT, SIGQUIT or SIGHUP.
    AskedToEnd,
    /// The manager has waited long enough.
    AskedToKill,
    ManagerGone,
    /// Time has passed.
    Tick,
}

/// What the holder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// SIGTERM to the user endpoint alone: its own children end by its orderly stop.
    Terminate,
    /// SIGKILL to its process group.
    Kill,
}

/// How far the end of the user endpoint has come. Times are counted from any fixed moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Holding {
    #[default]
    Running,
    Ending {
        kill_at: Duration,
        orphaned: bool,
    },
    Killed {
        orphaned: bool,
    },
}

impl Holding {
    pub(super) fn apply(&mut self, event: Event, now: Duration) -> Option<Action> {
        match (event, *self) {
            (Event::AskedToEnd, Self::Running) => {
                *self = Self::Ending { kill_at: now + GRACE, orphaned: false };
                Some(Action::Terminate)
            }
            (Event::ManagerGone, Self::Running) => {
                *self = Self::Ending { kill_at: now + ORPHAN_GRACE, orphaned: true };
                Some(Action::Terminate)
            }
            (Event::ManagerGone, Self::Ending { kill_at, orphaned: false }) => {
                *self = Self::Ending { kill_at: kill_at.min(now + ORPHAN_GRACE), orphaned: true };
                None
            }
            (Event::ManagerGone, Self::Killed { .. }) => {
                *self = Self::Killed { orphaned: true };
                None
            }
            (Event::AskedToKill, Self::Running | Self::Ending { .. }) => {
                *self = Self::Killed { orphaned: self.orphaned() };
                Some(Action::Kill)
            }
            (_, Self::Ending { kill_at, orphaned }) if now >= kill_at => {
                *self = Self::Killed { orphaned };
                Some(Action::Kill)
            }
            // A second signal hurries nobody, and a killed group needs no more.
            _ => None,
        }
    }

    /// How long the holder may wait for news.
    pub(super) fn wait(&self, now: Duration) -> Option<Duration> {
        match self {
            Self::Ending { kill_at, .. } => Some(kill_at.saturating_sub(now)),
            Self::Running | Self::Killed { .. } => None,
        }
    }

    /// Whether the rest of the process group ends with its leader.
    pub(super) fn ends_the_group(&self) -> bool {
        matches!(self, Self::Ending { orphaned: true, .. } | Self::Killed { .. })
    }

    pub(super) fn orphaned(&self) -> bool {
        matches!(self, Self::Ending { orphaned: true, .. } | Self::Killed { orphaned: true })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn play(events: &[(u64, Event)]) -> (Vec<(u64, Action)>, Holding) {
        let mut holding = Holding::default();
        let actions =
            events.iter().filter_map(|(at, event)| Some((*at, holding.apply(*event, ms(*at))?))).collect();
        (actions, holding)
    }

    #[test]
    fn table() {
        use Action::{Kill, Terminate};
        use Event::{AskedToEnd, AskedToKill, ManagerGone, Tick};
        for (events, actions, ends_the_group) in [
            (vec![(0, Tick), (99_999, Tick)], vec![], false),
            (vec![(5, AskedToEnd), (6, AskedToEnd), (9_000, Tick)], vec![(5, Terminate)], false),
            (
                vec![(5, AskedToEnd), (10_005, Tick), (10_006, Tick)],
                vec![(5, Terminate), (10_005, Kill)],
                true,
            ),
            (vec![(5, AskedToKill), (6, AskedToEnd), (7, AskedToKill)], vec![(5, Kill)], true),
            (vec![(5, AskedToEnd), (6, AskedToKill), (10_005, Tick)], vec![(5, Terminate), (6, Kill)], true),
            (vec![(5, ManagerGone), (6, AskedToKill), (1_505, Tick)], vec![(5, Terminate), (6, Kill)], true),
            (vec![(5, ManagerGone), (1_504, Tick)], vec![(5, Terminate)], true),
            (
                vec![(5, ManagerGone), (1_505, Tick), (1_506, AskedToEnd)],
                vec![(5, Terminate), (1_505, Kill)],
                true,
            ),
            // The manager goes while the user endpoint ends: the shorter time holds.
            (
                vec![(0, AskedToEnd), (3_000, ManagerGone), (4_500, Tick)],
                vec![(0, Terminate), (4_500, Kill)],
                true,
            ),
            (
                vec![(0, AskedToEnd), (9_500, ManagerGone), (10_000, Tick)],
                vec![(0, Terminate), (10_000, Kill)],
                true,
            ),
            (
                vec![(0, ManagerGone), (1_000, AskedToEnd), (1_500, AskedToEnd)],
                vec![(0, Terminate), (1_500, Kill)],
                true,
            ),
        ] {
            let (done, holding) = play(&events);
            assert_eq!(done, actions, "{events:?}");
            assert_eq!(holding.ends_the_group(), ends_the_group, "{events:?}");
        }
    }

    #[test]
    fn waits_until_the_kill() {
        let mut holding = Holding::default();
        assert_eq!(holding.wait(ms(7)), None);
        holding.apply(Event::AskedToEnd, ms(100));
        assert_eq!(holding.wait(ms(600)), Some(ms(9_500)));
        assert_eq!(holding.wait(ms(60_000)), Some(ms(0)));
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::AskedToEnd),
            Just(Event::AskedToKill),
            Just(Event::ManagerGone),
            Just(Event::Tick)
        ]
    }

    proptest! {
        #[test]
        fn terminates_once_then_kills_once_in_time(events in proptest::collection::vec((0_u64..20_000, event()), 0..40)) {
            let mut events = events;
            events.sort_by_key(|(at, _)| *at);
            let (actions, _) = play(&events);
            let done: Vec<Action> = actions.iter().map(|(_, action)| *action).collect();
            let possible: [&[Action]; 4] =
                [&[], &[Action::Terminate], &[Action::Kill], &[Action::Terminate, Action::Kill]];
            prop_assert!(possible.contains(&&done[..]), "{:?}", done);
            // Killed no earlier than the shorter time after the first request, unless asked to.
            if let [(asked, _), (killed, _)] = actions[..] {
                let at_once = events.contains(&(killed, Event::AskedToKill));
                prop_assert!(at_once || killed >= asked + 1_500);
            }
            // And no later than the longer one, if anything happened then.
            if let [(asked, Action::Terminate)] = actions[..] {
                prop_assert!(events.iter().all(|(at, event)| *at < asked + 10_000 || *event != Event::Tick));
            }
        }
    }
}
