//! Tracks which endpoints are online, from their last heartbeats.
//!
//! Kept in memory only: after a restart of the service, endpoints count as offline until their next heartbeat.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Number;
use wire::EndpointId;
use wire::json::FreeForm;
use wire::message::{Liveness, StatusReport};

use crate::limits::Limits;

/// An endpoint is offline after this many of its heartbeat periods, plus [`GRACE`], without a heartbeat.
const PERIODS: f64 = 2.0;
const GRACE: SignedDuration = SignedDuration::from_secs(5);
/// The longest an endpoint counts as online without a heartbeat, whatever period it reports.
const LONGEST_WITHOUT_HEARTBEAT: SignedDuration = SignedDuration::from_hours(1);
/// The largest state document of an endpoint that is kept, in bytes.
const LARGEST_STATE: usize = 64 << 10;

/// The last heartbeat of an endpoint.
#[derive(Clone, Debug, PartialEq)]
struct LastHeartbeat {
    received: Timestamp,
    /// It is offline after this time without another heartbeat. Absent: it reported that it stops.
    until: Option<Timestamp>,
    state: FreeForm,
    /// The first of the latest heartbeats in a row during which it consumed no queue.
    idle_since: Option<Timestamp>,
}

impl LastHeartbeat {
    fn new(report: &StatusReport, idle_since: Option<Timestamp>, now: Timestamp) -> LastHeartbeat {
        let until = match report.liveness() {
            Liveness::Online { period } | Liveness::SettingUp { period, .. } => {
                let margin =
                    SignedDuration::try_from_secs_f64(period * PERIODS).unwrap_or(LONGEST_WITHOUT_HEARTBEAT);
                Some(now + margin.clamp(SignedDuration::ZERO, LONGEST_WITHOUT_HEARTBEAT) + GRACE)
            }
            Liveness::Offline | Liveness::FailedToStart(_) => None,
        };
        // Stock endpoints report some kilobytes.
        let said = Some(&report.global_state).filter(|state| state.as_json().len() <= LARGEST_STATE);
        LastHeartbeat { received: now, until, state: said.cloned().unwrap_or_default(), idle_since }
    }

    fn online(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// The last heartbeats of all endpoints. Clones share them.
#[derive(Clone, Debug)]
pub struct Presence {
    endpoints: Arc<Mutex<HashMap<EndpointId, LastHeartbeat>>>,
    /// After this time without consuming its queues an online endpoint is shown as not taking tasks.
    idle: SignedDuration,
}

impl Presence {
    pub fn new(limits: &Limits) -> Presence {
        Presence { endpoints: Arc::default(), idle: limits.idle() }
    }

    /// Records a heartbeat. `consumes`: the endpoint consumes its queue of tasks or commands at this moment.
    pub fn record(&self, report: &StatusReport, consumes: bool, now: Timestamp) {
        let mut endpoints = self.endpoints();
        let before = endpoints.get(&report.endpoint_id).filter(|heard| heard.online(now));
        let idle_since = (!consumes).then(|| before.and_then(|heard| heard.idle_since).unwrap_or(now));
        endpoints.insert(report.endpoint_id, LastHeartbeat::new(report, idle_since, now));
    }

    /// Since when an online endpoint has not consumed its queues, if that is too long.
    pub fn idle(&self, endpoint: EndpointId, now: Timestamp) -> Option<Timestamp> {
        let endpoints = self.endpoints();
        let heard = endpoints.get(&endpoint).filter(|heard| heard.online(now))?;
        heard.idle_since.filter(|since| now.duration_since(*since) >= self.idle)
    }

    pub fn forget(&self, endpoint: EndpointId) {
        self.endpoints().remove(&endpoint);
    }

    pub fn online(&self, endpoint: EndpointId, now: Timestamp) -> bool {
        self.endpoints().get(&endpoint).is_some_and(|heard| heard.online(now))
    }

    /// When its last heartbeat came; absent if none came since this service started.
    pub fn last_seen(&self, endpoint: EndpointId) -> Option<Timestamp> {
        self.endpoints().get(&endpoint).map(|heard| heard.received)
    }

    /// The state document of the endpoint's last heartbeat; empty without one.
    pub fn state(&self, endpoint: EndpointId) -> FreeForm {
        self.endpoints().get(&endpoint).map(|heard| heard.state.clone()).unwrap_or_default()
    }

    #[cfg(test)]
    pub fn remembers(&self, endpoint: EndpointId) -> bool {
        self.endpoints().contains_key(&endpoint)
    }

    fn endpoints(&self) -> std::sync::MutexGuard<'_, HashMap<EndpointId, LastHeartbeat>> {
        // A panic while it was held cannot have left it half changed.
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which life of the endpoint's process speaks: ours names it, upstream's is known by its start and its process. Ours is
/// silent about it here until it has told all it knows of the tasks that earlier ones took.
pub fn run_name(state: &FreeForm) -> Option<String> {
    if let Some(run) = wire::extensions::RunState::of(state) {
        return run.ready.then(|| run.run.to_string());
    }
    #[derive(Deserialize)]
    struct Process {
        start_unix: Number,
        posix_pid: Number,
    }
    let Process { start_unix, posix_pid } = state.read().ok()?;
    Some(format!("{start_unix}/{posix_pid}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    const ID: EndpointId = EndpointId::from_uuid(Uuid::from_u128(1));
    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn presence() -> Presence {
        Presence::new(&Limits::default())
    }

    fn free(state: Value) -> FreeForm {
        FreeForm::from(state.as_object().unwrap())
    }

    fn report(state: Value) -> StatusReport {
        let global_state = free(state);
        StatusReport { endpoint_id: ID, global_state, task_statuses: Default::default() }
    }

    fn online_after(state: Value, seconds: i64) -> bool {
        let presence = presence();
        presence.record(&report(state), true, NOW);
        presence.online(ID, NOW + SignedDuration::from_secs(seconds))
    }

    #[test]
    fn online_until_it_is_overdue_or_leaves() {
        assert!(!presence().online(ID, NOW), "never heard of");
        assert!(online_after(json!({"heartbeat_period": 30, "active": true}), 64));
        assert!(!online_after(json!({"heartbeat_period": 30, "active": true}), 65));
        assert!(online_after(json!({"heartbeat_period": 5.0}), 14));
        assert!(!online_after(json!({"heartbeat_period": 5.0}), 15));
        assert!(online_after(json!({}), 64), "the default period");
        assert!(!online_after(json!({"heartbeat_period": 30, "active": false}), 0), "a clean stop");
        assert!(!online_after(json!({"heartbeat_period": 0}), 0), "a manager's clean stop");
        assert!(!online_after(json!({"heartbeat_period": 3, "error": "no"}), 0), "it never started");
        assert!(online_after(json!({"heartbeat_period": 1e300}), 3600));
        assert!(!online_after(json!({"heartbeat_period": 1e300}), 3606), "nobody is believed for ever");
    }

    #[test]
    fn a_later_word_replaces_the_earlier() {
        let presence = presence();
        presence.record(&report(json!({"heartbeat_period": 30})), true, NOW);
        presence.record(&report(json!({"heartbeat_period": 30, "active": false})), true, NOW);
        assert!(!presence.online(ID, NOW));
        assert_eq!(presence.state(ID).to_object()["active"], json!(false));
        assert_eq!(presence.last_seen(ID), Some(NOW));
        presence.forget(ID);
        assert_eq!(presence.last_seen(ID), None);
        assert!(presence.state(ID).to_object().is_empty());
    }

    #[test]
    fn words_that_are_too_long_are_not_kept() {
        let presence = presence();
        let long = "x".repeat(LARGEST_STATE);
        presence.record(&report(json!({"heartbeat_period": 30, "long": long})), true, NOW);
        assert!(presence.online(ID, NOW));
        assert!(presence.state(ID).to_object().is_empty());
    }

    #[test]
    fn one_that_takes_nothing_is_known_after_a_minute() {
        let after = |seconds| NOW + SignedDuration::from_secs(seconds);
        let beats = |beats: &[(i64, bool)]| {
            let presence = presence();
            for &(at, consumes) in beats {
                presence.record(&report(json!({"heartbeat_period": 30})), consumes, after(at));
            }
            presence
        };
        assert_eq!(beats(&[(0, false), (30, false)]).idle(ID, after(59)), None, "not yet a minute");
        assert_eq!(beats(&[(0, false), (30, false)]).idle(ID, after(60)), Some(NOW));
        assert_eq!(
            beats(&[(0, false), (30, true), (60, false)]).idle(ID, after(119)),
            None,
            "it did in between"
        );
        assert_eq!(beats(&[(0, false), (60, true)]).idle(ID, after(60)), None, "it does now");
        assert_eq!(beats(&[(0, false)]).idle(ID, after(66)), None, "it is offline");
        assert_eq!(
            beats(&[(0, false), (100, false)]).idle(ID, after(101)),
            None,
            "it was offline in between"
        );
        assert_eq!(beats(&[]).idle(ID, NOW), None);
    }

    #[test]
    fn runs_have_names() {
        let ours = json!({"farcall": {"run": "00000000-0000-4000-8000-000000000001"}, "start_unix": 1.5, "posix_pid": 7});
        assert_eq!(run_name(&free(ours)).as_deref(), Some("00000000-0000-4000-8000-000000000001"));
        let telling = json!({"farcall": {"run": "00000000-0000-4000-8000-000000000001", "ready": false},
            "start_unix": 1.5, "posix_pid": 7});
        assert_eq!(run_name(&free(telling)), None, "it still sends what an earlier run left");
        let upstream = json!({"start_unix": 1795217109.100051, "posix_pid": 28607});
        assert_eq!(run_name(&free(upstream)).as_deref(), Some("1795217109.100051/28607"));
        let manager = json!({"heartbeat_period": 30});
        assert_eq!(run_name(&free(manager)), None);
    }
}
