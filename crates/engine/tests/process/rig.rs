//! An engine in a directory of its own, and how its tasks end.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::{Engine, EngineConfig, Event, Events, Handle, Options, Provider, Submission};
use uuid::Uuid;
use wire::message::{TaskResult, decode};
use wire::{EndpointId, TaskId};

use crate::proxy::Proxy;

/// Longer than any step takes on a busy machine: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) handle: Handle,
    pub(crate) events: Events,
    pub(crate) dir: tempfile::TempDir,
    /// Whether the rig answers `Assigned` at once, like an endpoint with a fast disk.
    pub(crate) confirms_begun: bool,
    ended: HashMap<TaskId, Outcome>,
    next: u128,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// What the function returned, as JSON.
    Returned(serde_json::Value),
    Raised {
        code: String,
        text: String,
    },
    /// It was handed back and has not begun.
    HandedBack,
}

impl Outcome {
    pub(crate) fn value(&self) -> &serde_json::Value {
        match self {
            Self::Returned(value) => value,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Raised { text, .. } => text,
            other => panic!("{other:?}"),
        }
    }
}

/// Options as a user writes them, with two workers unless they say otherwise.
pub(crate) fn options(user: serde_json::Value) -> Options {
    let mut options = if user.get("type").is_some() {
        serde_json::json!({"max_workers": 2, "python": python()})
    } else {
        serde_json::json!({"max_workers_per_node": 2, "cores_per_worker": 0.5, "python": python()})
    };
    options.as_object_mut().unwrap().extend(user.as_object().unwrap().clone());
    Options::from_value(options).unwrap()
}

/// The interpreter the workers of these tests run on: not a shim, whose start costs more than the test.
fn python() -> String {
    let output =
        std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

impl Rig {
    pub(crate) async fn start(user: serde_json::Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, &["node"], user).await
    }

    /// An engine whose nodes call it through a proxy.
    pub(crate) async fn start_behind_proxy(user: serde_json::Value) -> (Self, Proxy) {
        let dir = tempfile::tempdir().unwrap();
        let node_file = dir.path().join("GlobusComputeEngine-HighThroughputExecutor/node.json");
        let proxy = Proxy::start(node_file).await;
        let address = proxy.address.to_string();
        (Self::start_in(dir, &["node-through", &address], user).await, proxy)
    }

    /// An engine whose blocks run this program with these arguments first.
    pub(crate) async fn start_in(dir: tempfile::TempDir, words: &[&str], user: serde_json::Value) -> Self {
        let mut config = Self::config_in(dir.path(), user);
        config.node_command.truncate(1);
        config.node_command.extend(words.iter().map(|word| (*word).to_owned()));
        let (handle, events) = Engine::start(config).await.unwrap();
        Self { handle, events, dir, confirms_begun: true, ended: HashMap::new(), next: 1 }
    }

    /// An engine with another provider.
    pub(crate) async fn start_on(provider: Arc<dyn Provider>, user: serde_json::Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (handle, events) = Engine::start_on(Self::config_in(dir.path(), user), provider).await.unwrap();
        Self { handle, events, dir, confirms_begun: true, ended: HashMap::new(), next: 1 }
    }

    /// The configuration of an engine in the same directory.
    pub(crate) fn config(&self) -> EngineConfig {
        Self::config_in(self.path(), serde_json::json!({}))
    }

    fn config_in(dir: &Path, user: serde_json::Value) -> EngineConfig {
        let program = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        EngineConfig {
            endpoint: EndpointId::from_uuid(Uuid::from_u128(0xe9)),
            run_dir: dir.to_owned(),
            node_command: vec![program, "node".into()],
            open_files: None,
            reports_blocks: false,
            options: options(user),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Submits a call of the function `f` in `source`, to be answered as JSON.
    pub(crate) fn call(&mut self, source: &str, args: serde_json::Value) -> TaskId {
        self.submit(source, args, |submission| {
            submission.result_serializers = vec!["globus_compute_sdk.serialize.JSONData".into()];
        })
    }

    pub(crate) fn submit(
        &mut self,
        source: &str,
        args: serde_json::Value,
        change: impl FnOnce(&mut Submission),
    ) -> TaskId {
        let function = format!("st\nf:{source}");
        let args = format!("11\n{args}");
        let buffer = wire::buffer::pack(&[&function, &args, "11\n{}"]);
        self.submit_buffer(&buffer, change)
    }

    pub(crate) fn submit_buffer(&mut self, buffer: &str, change: impl FnOnce(&mut Submission)) -> TaskId {
        let id = TaskId::from_uuid(Uuid::from_u128(self.next));
        self.next += 1;
        let task = wire::message::Task {
            task_id: id,
            container_id: None,
            container: None,
            task_buffer: buffer.into(),
        };
        let mut submission = Submission {
            id,
            body: task.encode().into(),
            resource_specification: serde_json::Map::new(),
            result_serializers: Vec::new(),
            function_python: None,
        };
        change(&mut submission);
        self.handle.submit(submission).unwrap();
        id
    }

    /// Waits for the end of a task.
    pub(crate) async fn end_of(&mut self, id: TaskId) -> Outcome {
        while !self.ended.contains_key(&id) {
            self.next_event().await.expect("the engine runs");
        }
        self.ended[&id].clone()
    }

    pub(crate) async fn run(&mut self, source: &str, args: serde_json::Value) -> Outcome {
        let id = self.call(source, args);
        self.end_of(id).await
    }

    /// Takes one event, and records how tasks have ended.
    pub(crate) async fn next_event(&mut self) -> Option<Event> {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("something happens");
        match &event {
            Some(Event::Assigned(tasks)) if self.confirms_begun => {
                let _ = self.handle.begin(tasks.clone()); // the engine may have stopped
            }
            Some(Event::Ended { task, result }) => {
                let message = TaskResult::try_from(decode(result).unwrap()).unwrap();
                assert_eq!(message.task_id, *task);
                let data = message.data.to_str();
                let outcome = match &message.error_details {
                    None => match data.strip_prefix("11\n") {
                        Some(json) => Outcome::Returned(serde_json::from_str(json).unwrap()),
                        None => Outcome::Returned(data.as_ref().into()),
                    },
                    Some(error) => {
                        Outcome::Raised { code: error.code.clone(), text: data.clone().into_owned() }
                    }
                };
                assert_eq!(self.ended.insert(*task, outcome), None, "one end for each task");
            }
            Some(Event::Returned(tasks)) => {
                for task in tasks {
                    assert_eq!(self.ended.insert(*task, Outcome::HandedBack), None, "one end for each task");
                }
            }
            Some(Event::Assigned(_) | Event::Placed { .. } | Event::BadState { .. }) | None => {}
        }
        event
    }

    /// Waits until the engine is in bad state, and returns the error text.
    pub(crate) async fn bad_state(&mut self) -> String {
        loop {
            if let Event::BadState { text } = self.next_event().await.expect("the engine runs") {
                return text;
            }
        }
    }

    /// Stops the engine and waits for its last event.
    pub(crate) async fn stop(&mut self, grace: Duration) {
        self.handle.stop(grace).unwrap();
        while self.next_event().await.is_some() {}
    }

    /// How this task ended, if it has.
    pub(crate) fn known(&self, id: TaskId) -> Option<&Outcome> {
        self.ended.get(&id)
    }
}

/// Waits until a condition is true; fails the test if that takes too long.
pub(crate) async fn until(mut so: impl FnMut() -> bool) {
    let patience = tokio::time::Instant::now() + PATIENCE;
    while !so() {
        assert!(tokio::time::Instant::now() < patience, "it never came to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process exists and is no zombie.
pub(crate) fn alive(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()).is_some_and(|state| state != 'Z')
}
