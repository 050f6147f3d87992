//! Builds heartbeats: the engine's report, the host, user and process of this endpoint, and the period.

use jiff::Zoned;
use nix::unistd::{getgid, getgroups, getpid, getppid, getsid, getuid};
use serde_json::{Map, Value};
use wire::extensions::{End, RunState};
use wire::message::StatusReport;
use wire::{EndpointId, RunId};

use crate::host::user_name;

/// The part of a heartbeat that stays the same during a run.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    endpoint: EndpointId,
    run: RunId,
    state: Map<String, Value>,
}

impl Heartbeat {
    /// `ep_info` is what a manager sends about a user endpoint; `config` is the text of the configuration.
    pub(crate) fn new(
        endpoint: EndpointId,
        run: RunId,
        ep_info: Map<String, Value>,
        config: &str,
        period: u64,
        start: &Zoned,
    ) -> Self {
        let mut state = Map::new();
        let mut put = |name: &str, value: Value| {
            state.insert(name.to_owned(), value);
        };
        put("posix_ppid", getppid().as_raw().into());
        for (name, value) in ep_info {
            put(&name, value);
        }
        put("posix_username", user_name().into());
        put("posix_uid", getuid().as_raw().into());
        put("posix_gid", getgid().as_raw().into());
        let groups = getgroups().unwrap_or_default();
        put("posix_groups", groups.into_iter().map(|group| Value::from(group.as_raw())).collect());
        put("posix_pid", getpid().as_raw().into());
        put("posix_sid", getsid(None).map_or(Value::Null, |session| session.as_raw().into()));
        put("config_raw", config.into());
        put("start_iso", start.strftime("%Y-%m-%dT%H:%M:%S.%6f%:z").to_string().into());
        let micros = start.timestamp().as_microsecond();
        #[allow(clippy::cast_precision_loss, reason = "moments of our time keep their microseconds")]
        put("start_unix", (micros as f64 / 1e6).into());
        put("heartbeat_period", period.into());
        Self { endpoint, run, state }
    }

    /// Encodes one heartbeat. `end`: why the run ends; with it, this is the last. `leftovers_reported`: the service has all
    /// results of earlier runs, so that it may count their other tasks as lost.
    pub(crate) fn encode(
        &self,
        engine: &engine::Report,
        end: Option<&str>,
        leftovers_reported: bool,
    ) -> Vec<u8> {
        let mut state = match serde_json::to_value(engine) {
            Ok(Value::Object(report)) => report,
            _ => Map::new(),
        };
        state.extend(self.state.clone());
        state.insert("active".to_owned(), end.is_none().into());
        RunState { run: self.run, ready: leftovers_reported }.insert_into(&mut state);
        if let Some(reason) = end {
            End { reason: reason.to_owned() }.insert_into(&mut state);
        }
        let global_state = state.into();
        StatusReport { endpoint_id: self.endpoint, global_state, task_statuses: Default::default() }.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::message::Liveness;

    #[test]
    fn a_heartbeat_contains_what_the_contract_lists() {
        let endpoint: EndpointId = "e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap();
        let run: RunId = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        let start: Zoned = "2026-11-20T23:25:09.100051+00:00[UTC]".parse().unwrap();
        let info = Map::from_iter([("posix_ppid".to_owned(), 7.into())]);
        let heartbeat = Heartbeat::new(endpoint, run, info, "engine: {}\n", 30, &start);
        let read =
            |told| StatusReport::decode(&heartbeat.encode(&engine::Report::default(), None, told)).unwrap();
        let report = read(true);
        assert_eq!(report.endpoint_id, endpoint);
        assert_eq!(report.liveness(), Liveness::Online { period: 30.0 });
        assert_eq!(RunState::of(&report.global_state), Some(RunState { run, ready: true }));
        assert_eq!(RunState::of(&read(false).global_state), Some(RunState { run, ready: false }));
        let state = report.global_state.to_object();
        assert_eq!(state["posix_ppid"], 7, "the manager's word goes before ours");
        assert_eq!(state["start_iso"], "2026-11-20T23:25:09.100051+00:00");
        assert_eq!(state["start_unix"], 1_795_217_109.100_051);
        assert_eq!(state["config_raw"], "engine: {}\n");
        for name in [
            "managers",
            "total_workers",
            "idle_workers",
            "pending_tasks",
            "outstanding_tasks",
            "node_info",
            "engine_type",
            "provider_type",
            "posix_username",
            "posix_uid",
            "posix_gid",
            "posix_groups",
            "posix_pid",
            "posix_sid",
            "heartbeat_period",
            "active",
        ] {
            assert!(state.contains_key(name), "{name}");
        }
        let last =
            StatusReport::decode(&heartbeat.encode(&engine::Report::default(), Some("It was idle"), true))
                .unwrap();
        assert_eq!(last.liveness(), Liveness::Offline);
        assert_eq!(End::of(&last.global_state), Some(End { reason: "It was idle".to_owned() }));
        assert_eq!(RunState::of(&last.global_state), Some(RunState { run, ready: true }));
        assert_eq!(End::of(&report.global_state), None);
    }
}
