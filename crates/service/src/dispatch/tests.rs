//! What dispatch remembers of endpoints, and how it ends many tasks.

use std::time::Duration;

use broker::{ConsumeOptions, Consumer};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;
use wire::message::StatusReport;
use wire::{FunctionId, IdentityId, RequestId, TaskGroupId, TaskId};

use super::*;
use crate::limits::Limits;
use crate::tasks::ending::Ending;
use crate::user_endpoint::Starts;
use store::secret::Hash;
use store::test_database::{TestDatabase, registration};
use store::{
    AddClient, AddFunction, AnswersInFlight, Client, DeleteEndpoint, ExpireResults, Function, NewTask,
    RecordResults, RegistrationResult, Report, ReportedResult, Submit, SubmitFingerprint, SubmitResult,
};

const OWNER: IdentityId = IdentityId::from_uuid(Uuid::from_u128(1));
const ENDPOINT: EndpointId = EndpointId::from_uuid(Uuid::from_u128(2));
const FUNCTION: FunctionId = FunctionId::from_uuid(Uuid::from_u128(3));
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// No answer is in flight.
#[derive(Debug)]
struct NoneInFlight;

impl AnswersInFlight for NoneInFlight {
    fn contains(&self, _request: RequestId) -> bool {
        false
    }
}

struct Scene {
    _database: TestDatabase,
    store: Store,
    presence: Presence,
    starts: Starts,
    dispatch: Dispatch,
}

impl Scene {
    /// With one endpoint.
    async fn new() -> Scene {
        let database = TestDatabase::new().await;
        let store = database.open().await;
        let presence = Presence::new(&Limits::default());
        let starts = Starts::default();
        let (dispatch, broker) = Dispatch::open(
            store.clone(),
            presence.clone(),
            Arc::new(starts.clone()),
            Metrics::default(),
            &Limits::default(),
        )
        .await
        .unwrap();
        tokio::spawn(broker.run(Vec::new(), std::future::pending()));
        let client = Client {
            id: OWNER,
            username: "owner@example.edu".into(),
            name: "owner".into(),
            secret: Hash::of("s"),
            disabled: false,
            resource_server: None,
            generation: 0,
            created: NOW,
        };
        store.write(AddClient(client)).await.unwrap();
        let scene = Scene { _database: database, store, presence, starts, dispatch };
        scene.register().await;
        scene
    }

    async fn register(&self) {
        let register = registration(ENDPOINT, OWNER);
        let RegistrationResult::Credential(number) = self.store.write(register).await.unwrap() else {
            panic!("refused")
        };
        self.dispatch.endpoint_registered(ENDPOINT, number).unwrap();
    }

    /// Submits `count` tasks of a function that exists.
    async fn submit(&self, count: usize) -> Vec<TaskId> {
        let function = Function {
            id: FUNCTION,
            owner: OWNER,
            name: "f".into(),
            code: "7\n01\ngASV".into(),
            description: None,
            public: false,
            group: None,
            metadata: Default::default(),
            python: None,
            created: NOW,
        };
        self.store.write(AddFunction(function)).await.unwrap();
        let tasks: Vec<_> = (0..count).map(|_| TaskId::from_uuid(crate::random::ordered_id())).collect();
        let mut new = Vec::new();
        for &id in &tasks {
            let payload =
                self.store.store_contents(vec![b"\"5\\n00\\nab\"".to_vec().into()]).await.unwrap().remove(0);
            new.push(NewTask { id, function: FUNCTION, payload });
        }
        let submit = Submit {
            request: RequestId::from_uuid(crate::random::ordered_id()),
            group: TaskGroupId::from_uuid(Uuid::from_u128(4)),
            owner: OWNER,
            queue: true,
            endpoint: ENDPOINT,
            resource_specification: "null".into(),
            result_serializers: Vec::new(),
            tasks: new,
            now: NOW,
            fingerprint: SubmitFingerprint {
                body: Hash::of("b"),
                key: None,
                not_before: NOW,
                keys_not_before: NOW,
            },
            in_flight: Arc::new(NoneInFlight),
        };
        assert!(matches!(self.store.submit(submit).await.unwrap(), SubmitResult::New(_)));
        self.dispatch.submitted(ENDPOINT);
        tasks
    }

    /// The endpoint speaks in its run `number`.
    fn record(&self, number: u32) {
        let state = json!({"heartbeat_period": 30, "start_unix": 1.5, "posix_pid": number});
        let said = StatusReport {
            endpoint_id: ENDPOINT,
            global_state: state.as_object().unwrap().into(),
            task_statuses: Default::default(),
        };
        let user = User { holder: Holder::Endpoint(ENDPOINT), number: 1 };
        self.dispatch.heartbeats.record(user, said, &mut Report::default(), crate::clock::now());
    }

    async fn consume(&self) -> Consumer {
        let options = ConsumeOptions { exclusive: true, no_ack: false, prefetch: 10 };
        let mut consumer = self.dispatch.broker.consume(&queue::task_queue(ENDPOINT), options).unwrap();
        let delivery = consumer.next().await;
        assert!(delivery.is_some());
        consumer
    }

    /// Where something of the endpoint is remembered.
    async fn remembers(&self) -> Vec<&'static str> {
        let mut places = Vec::new();
        places.extend(self.dispatch.admissions.remembers(ENDPOINT).then_some("admissions"));
        places.extend(self.dispatch.heartbeats.remembers(ENDPOINT).then_some("runs"));
        places.extend(self.presence.remembers(ENDPOINT).then_some("presence"));
        places.extend(self.starts.is_starting(ENDPOINT).then_some("starts"));
        places.extend((!self.dispatch.tasks.queues().await.is_empty()).then_some("queues"));
        places
    }
}

#[tokio::test]
async fn nothing_is_remembered_of_a_deleted_endpoint() {
    let scene = Scene::new().await;
    assert!(scene.dispatch.admissions.record_log_in(ENDPOINT, 1));
    scene.submit(3).await;
    scene.record(1);
    let consumer = scene.consume().await;
    assert_eq!(scene.remembers().await, ["admissions", "runs", "presence", "queues"]);
    scene.store.write(DeleteEndpoint(ENDPOINT)).await.unwrap();
    scene.dispatch.endpoint_deleted(ENDPOINT, Initiator::Operator { uid: 0 }).await.unwrap();
    drop(consumer);
    // What was on its way when it was deleted.
    assert!(!scene.dispatch.admissions.record_log_in(ENDPOINT, 1));
    scene.record(1);
    // The broker tells the end of the queue from a task of its own.
    for _ in 0..1000 {
        if scene.remembers().await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(scene.remembers().await, [""; 0]);
}

#[tokio::test]
async fn many_tasks_end_in_steps() {
    let scene = Scene::new().await;
    let tasks = scene.submit(600).await;
    let ended = async |scene: &Scene| {
        let rows = scene.store.tasks(&tasks).await.unwrap();
        rows.iter().filter(|row| matches!(row.state, store::tasks::state::State::Ended { .. })).count()
    };
    let before = scene.store.commands();
    let endings: Vec<_> =
        tasks[..300].iter().map(|&task| Ending { endpoint: ENDPOINT, task, why: "over".into() }).collect();
    scene.dispatch.ender.end(&endings).await.unwrap();
    assert_eq!((ended(&scene).await, scene.store.commands() - before), (300, 2));
    scene.store.write(DeleteEndpoint(ENDPOINT)).await.unwrap();
    let before = scene.store.commands();
    scene.dispatch.ender.end_orphans().await.unwrap();
    assert_eq!((ended(&scene).await, scene.store.commands() - before), (600, 2));
}

#[tokio::test]
async fn however_many_runs_an_endpoint_reports_one_task_watches_over_them() {
    let scene = Scene::new().await;
    scene.record(1);
    let metrics = tokio::runtime::Handle::current().metrics();
    let alive = metrics.num_alive_tasks();
    (2..1000).for_each(|number| scene.record(number));
    assert_eq!(metrics.num_alive_tasks(), alive);
}

/// Its row is read, and then its file, which goes with the row.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_expires_while_it_is_read_is_none() {
    let scene = Scene::new().await;
    for (number, &task) in scene.submit(30).await.iter().enumerate() {
        let message = scene.store.store_contents(vec![vec![b'r'; 100_000].into()]).await.unwrap().remove(0);
        let outcome = store::tasks::state::Outcome::Succeeded;
        let result = ReportedResult { task, endpoint: ENDPOINT, outcome, message };
        scene.store.write(RecordResults { results: vec![result], now: NOW }).await.unwrap();
        let group = TaskGroupId::from_uuid(Uuid::from_u128(4));
        let reading = (0..4).map(|reader| {
            let store = scene.store.clone();
            tokio::spawn(async move {
                loop {
                    let left = match reader % 2 {
                        0 => store.results(&[task]).await.unwrap().len(),
                        _ => store.undelivered(OWNER, group, 0, 10, 1 << 20).await.unwrap().rows.len(),
                    };
                    if left == 0 {
                        return;
                    }
                }
            })
        });
        let reading: Vec<_> = reading.collect();
        // At another moment each time.
        tokio::time::sleep(Duration::from_micros(100 * number as u64)).await;
        let before = NOW + jiff::SignedDuration::from_secs(1);
        let (expired, freed) = scene.store.write(ExpireResults { before, count: 10 }).await.unwrap();
        assert_eq!((expired, freed.len()), (1, 1));
        scene.store.remove_files(freed).await;
        for reader in reading {
            reader.await.unwrap();
        }
    }
}
