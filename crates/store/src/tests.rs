//! The store under any order of what may happen: counters, states and outboxes always agree.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;
use wire::{ClientId, EndpointId, FunctionId, IdentityId, RequestId, TaskGroupId, TaskId};

use sqlx::migrate::MigrateError;
use sqlx::{Connection as _, SqliteConnection};

use super::*;
use crate::database::query;
use crate::migrations::{SQLITE, migrator};
use crate::secret::Hash;
use crate::tasks::state::{Outcome, State, TaskHolder};
use crate::test_database::{TestDatabase, registration};

pub(crate) const OWNER: IdentityId = IdentityId::from_uuid(Uuid::from_u128(1));
pub(crate) const GROUP: TaskGroupId = TaskGroupId::from_uuid(Uuid::from_u128(2));
pub(crate) const FUNCTION: FunctionId = FunctionId::from_uuid(Uuid::from_u128(3));

pub(crate) fn endpoint(number: u8) -> EndpointId {
    EndpointId::from_uuid(Uuid::from_u128(100 + u128::from(number)))
}

/// Answers that are in flight, as a test says.
#[derive(Debug, Default)]
struct InFlight(Mutex<HashSet<RequestId>>);

impl InFlight {
    fn begin(&self, request: RequestId) {
        self.0.lock().unwrap().insert(request);
    }

    fn end(&self, request: RequestId) {
        self.0.lock().unwrap().remove(&request);
    }
}

impl AnswersInFlight for InFlight {
    fn contains(&self, request: RequestId) -> bool {
        self.0.lock().unwrap().contains(&request)
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Submit {
        endpoint: u8,
        tasks: usize,
    },
    /// Of the tasks so far, these; whoever they belong to and however often.
    AcknowledgeAssignments {
        endpoint: u8,
        seqs: Vec<i64>,
    },
    Results {
        endpoint: u8,
        tasks: Vec<usize>,
        outcome: Outcome,
    },
    Expire {
        after_seconds: i64,
    },
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let which = || 0..2_u8;
    let some = || prop::collection::vec(0..12_usize, 1..6);
    let outcome = prop_oneof![Just(Outcome::Succeeded), Just(Outcome::Failed)];
    let operation = prop_oneof![
        (which(), 1..4_usize).prop_map(|(endpoint, tasks)| Operation::Submit { endpoint, tasks }),
        (which(), prop::collection::vec(1..12_i64, 1..6))
            .prop_map(|(endpoint, seqs)| Operation::AcknowledgeAssignments { endpoint, seqs }),
        (which(), some(), outcome).prop_map(|(endpoint, tasks, outcome)| Operation::Results {
            endpoint,
            tasks,
            outcome
        }),
        (0..20_i64).prop_map(|after_seconds| Operation::Expire { after_seconds }),
    ];
    prop::collection::vec(operation, 1..25)
}

pub(crate) async fn opened() -> (TestDatabase, Store) {
    let database = TestDatabase::new().await;
    let store = database.open().await;
    let store = prepared(store).await;
    (database, store)
}

/// A store in a SQLite file, for what is measured there.
pub(crate) async fn opened_with(
    further: fn(SqliteConnectOptions) -> SqliteConnectOptions,
) -> (TestDatabase, Store) {
    let database = TestDatabase::sqlite();
    let store = Store::open_with(&database.path().join("farcall.db"), further).await.unwrap();
    let store = prepared(store).await;
    (database, store)
}

pub(crate) async fn prepared(store: Store) -> Store {
    let store = store.with_files_from(4);
    let client = Client {
        id: OWNER,
        username: "owner@example.edu".into(),
        name: "owner".into(),
        secret: Hash::of("s"),
        disabled: false,
        resource_server: None,
        generation: 0,
        created: Timestamp::UNIX_EPOCH,
    };
    store.write(AddClient(client)).await.unwrap();
    for number in 0..2 {
        let register = RegisterEndpoint { most: 2, ..registration(endpoint(number), OWNER) };
        assert_eq!(store.write(register).await.unwrap(), RegistrationResult::Credential(1));
    }
    store
}

/// What the tests know of the store by themselves.
#[derive(Default)]
struct Model {
    tasks: Vec<(TaskId, u8)>,
    late: HashMap<u8, i64>,
    requests: u128,
}

pub(crate) fn fingerprint(number: u128, now: Timestamp) -> SubmitFingerprint {
    let before = now - SignedDuration::from_secs(120);
    SubmitFingerprint {
        body: Hash::of_parts(&[&number.to_be_bytes()]),
        key: None,
        not_before: before,
        keys_not_before: before,
    }
}

pub(crate) fn task(n: usize) -> TaskId {
    TaskId::from_uuid(Uuid::from_u128(1000 + n as u128))
}

/// A submit of `tasks` with the body `request`.
pub(crate) async fn submission(
    store: &Store,
    request: u128,
    endpoint_number: u8,
    tasks: &[TaskId],
    now: Timestamp,
) -> Submit {
    // Every other payload is large enough for a file.
    let payloads = tasks.iter().enumerate().map(|(index, _)| vec![b'1'; 1 + index % 2 * 7].into()).collect();
    let payloads = store.store_contents(payloads).await.unwrap();
    let new = |(&id, payload)| NewTask { id, function: FUNCTION, payload };
    Submit {
        request: RequestId::from_uuid(Uuid::from_u128(request)),
        group: GROUP,
        owner: OWNER,
        queue: true,
        endpoint: endpoint(endpoint_number),
        resource_specification: "null".into(),
        result_serializers: Vec::new(),
        tasks: tasks.iter().zip(payloads).map(new).collect(),
        now,
        fingerprint: fingerprint(request, now),
        in_flight: Arc::new(InFlight::default()),
    }
}

async fn perform(store: &Store, model: &mut Model, operation: Operation, now: Timestamp) {
    match operation {
        Operation::Submit { endpoint: number, tasks } => {
            let first = model.tasks.len() as u128;
            let tasks: Vec<_> =
                (0..tasks as u128).map(|n| TaskId::from_uuid(Uuid::from_u128(1000 + first + n))).collect();
            model.requests += 1;
            let submit = submission(store, model.requests, number, &tasks, now).await;
            let done = store.submit(submit).await.unwrap();
            assert!(matches!(done, SubmitResult::New(_)));
            model.tasks.extend(tasks.into_iter().map(|task| (task, number)));
        }
        Operation::AcknowledgeAssignments { endpoint: number, seqs } => {
            // The post only ever acknowledges what it has fed from this endpoint's outbox.
            let page = store.unacknowledged_assignments(endpoint(number), 0, 100, usize::MAX).await.unwrap();
            let own: Vec<_> = page.rows.iter().map(|row| row.seq).filter(|seq| seqs.contains(seq)).collect();
            for _ in 0..2 {
                let command =
                    AcknowledgeAssignments { endpoint: endpoint(number), seqs: own.clone(), credential: 1 };
                let freed = store.write(command).await.unwrap();
                store.remove_files(freed).await;
            }
        }
        Operation::Results { endpoint: number, tasks, outcome } => {
            let messages = tasks.iter().map(|index| vec![b'r'; index % 2 * 7 + 1].into()).collect();
            let messages = store.store_contents(messages).await.unwrap();
            let results = tasks.iter().zip(messages).map(|(index, message)| {
                let task = TaskId::from_uuid(Uuid::from_u128(1000 + *index as u128));
                ReportedResult { task, endpoint: endpoint(number), outcome, message }
            });
            let done = store.write(RecordResults { results: results.collect(), now }).await.unwrap();
            store.remove_files(done.freed).await;
            for (index, recorded) in tasks.iter().zip(done.recorded) {
                let known = model.tasks.get(*index).is_some_and(|(_, owner)| *owner == number);
                assert_eq!(recorded == Recorded::Refused, !known, "task {index} of endpoint {number}");
                if recorded == Recorded::Late {
                    *model.late.entry(number).or_default() += 1;
                }
            }
        }
        Operation::Expire { after_seconds } => {
            let before = now - SignedDuration::from_secs(after_seconds);
            let (_, freed) = store.write(ExpireResults { before, count: 100 }).await.unwrap();
            store.remove_files(freed).await;
        }
    }
}

async fn check(store: &Store, model: &Model, directory: &Path) {
    let ids: Vec<_> = model.tasks.iter().map(|(task, _)| *task).collect();
    let rows: HashMap<_, _> = store.tasks(&ids).await.unwrap().into_iter().map(|row| (row.id, row)).collect();
    assert_eq!(rows.len(), ids.len(), "no task is lost");
    let results = store.results(&ids).await.unwrap();
    let mut files = 0;
    for number in 0..2 {
        let mut counted =
            Counters { late: model.late.get(&number).copied().unwrap_or(0), ..Counters::default() };
        let mut expired = 0;
        for (task, _) in model.tasks.iter().filter(|(_, owner)| *owner == number) {
            match &rows[task].state {
                State::Open { holder: TaskHolder::Waiting, .. } => counted.waiting += 1,
                State::Open { holder: TaskHolder::Taken, .. } => counted.taken += 1,
                State::Ended { outcome: Outcome::Succeeded, .. } => counted.succeeded += 1,
                State::Ended { outcome: Outcome::Failed, .. } => counted.failed += 1,
                State::Expired { .. } => expired += 1,
            }
            let ended = matches!(rows[task].state, State::Ended { .. });
            assert_eq!(results.contains_key(task), ended, "a result is there exactly while it is kept");
        }
        let kept = store.counters(endpoint(number)).await.unwrap();
        // What has expired had ended, in one of two ways.
        let ended = counted.succeeded + counted.failed + expired;
        assert_eq!(kept.succeeded + kept.failed, ended);
        assert!(kept.succeeded >= counted.succeeded && kept.failed >= counted.failed);
        assert_eq!((kept.waiting, kept.taken, kept.late), (counted.waiting, counted.taken, counted.late));
        let page = store.unacknowledged_assignments(endpoint(number), 0, 1000, usize::MAX).await.unwrap();
        assert_eq!(page.rows.len() as i64, counted.waiting, "the outbox holds what waits");
        files += page.rows.iter().filter(|row| row.payload.len() >= 4).count();
    }
    files += results.values().filter(|message| message.len() >= 4).count();
    let there = std::fs::read_dir(directory.join("payloads")).unwrap().count();
    assert_eq!(there, files, "as many files as rows name");
    let undelivered = store.undelivered(OWNER, GROUP, 0, 1000, usize::MAX).await.unwrap();
    assert_eq!(undelivered.rows.len(), results.len(), "every kept result waits for its client");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn counters_states_outboxes_and_files_agree(operations in operations()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (directory, store) = opened().await;
            let mut model = Model::default();
            for (second, operation) in (0_i64..).zip(operations) {
                let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1000 + second);
                perform(&store, &mut model, operation, now).await;
                check(&store, &model, directory.path()).await;
            }
            store.close().await;
        });
    }
}

#[tokio::test]
async fn when_a_submit_is_known_again() {
    let (_directory, store) = opened().await;
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1000);
    let later = |seconds| now + SignedDuration::from_secs(seconds);
    let task = |n| TaskId::from_uuid(Uuid::from_u128(n));
    let in_flight = Arc::new(InFlight::default());
    let again = async |request: u128, id: u128, fingerprint: SubmitFingerprint, at: Timestamp| {
        let payload = store.store_contents(vec![b"1".to_vec().into()]).await.unwrap().remove(0);
        let command = Submit {
            request: RequestId::from_uuid(Uuid::from_u128(request)),
            group: GROUP,
            owner: OWNER,
            queue: false,
            endpoint: endpoint(0),
            resource_specification: "null".into(),
            result_serializers: Vec::new(),
            tasks: vec![NewTask { id: task(id), function: FUNCTION, payload }],
            now: at,
            fingerprint,
            in_flight: in_flight.clone(),
        };
        match store.submit(command).await.unwrap() {
            SubmitResult::New(accepted) => ("new", accepted.tasks),
            SubmitResult::Again(accepted) => ("again", accepted.tasks),
            SubmitResult::KeyOfAnother => ("key of another", Vec::new()),
            SubmitResult::NoEndpoint => ("no endpoint", Vec::new()),
            SubmitResult::GroupOfAnother => ("group of another", Vec::new()),
        }
    };
    let forget = async |before, keys_before| {
        while store.write(DeleteSubmitRecords { before, keys_before, count: 1 }).await.unwrap() {}
    };
    let body = |at| fingerprint(7, at);
    in_flight.begin(RequestId::from_uuid(Uuid::from_u128(1)));
    assert_eq!(again(1, 1001, body(now), now).await.0, "new");
    assert_eq!(again(2, 1002, body(now), now).await.0, "new", "the first is being answered");
    store.write(Garble(1)).await.unwrap();
    in_flight.begin(RequestId::from_uuid(Uuid::from_u128(2)));
    assert_eq!(again(20, 1020, body(now), now).await.0, "new", "what is being answered is not looked at");
    store.write(DeleteAnsweredSubmits(vec![RequestId::from_uuid(Uuid::from_u128(20))])).await.unwrap();
    in_flight.end(RequestId::from_uuid(Uuid::from_u128(2)));
    store.write(Garble(16)).await.unwrap();
    in_flight.end(RequestId::from_uuid(Uuid::from_u128(1)));
    assert_eq!(again(3, 1003, body(later(120)), later(120)).await, ("again", vec![task(1001)]));
    assert_eq!(again(4, 1004, body(later(121)), later(121)).await.0, "new", "too late");
    let answered = [1, 2, 4].map(|id| RequestId::from_uuid(Uuid::from_u128(id)));
    store.write(DeleteAnsweredSubmits(answered.to_vec())).await.unwrap();
    assert_eq!(again(5, 1005, body(now), now).await.0, "new", "they were answered");
    let keyed = |number, at| SubmitFingerprint { key: Some(Hash::of("key")), ..fingerprint(number, at) };
    assert_eq!(again(6, 1006, keyed(7, now), now).await.0, "new", "a key is a name of its own");
    store.write(DeleteAnsweredSubmits(vec![RequestId::from_uuid(Uuid::from_u128(6))])).await.unwrap();
    assert_eq!(again(7, 1007, keyed(7, now), now).await, ("again", vec![task(1006)]));
    assert_eq!(again(8, 1008, keyed(8, now), now).await.0, "key of another");
    forget(later(1), now).await;
    assert_eq!(again(9, 1009, keyed(7, now), now).await, ("again", vec![task(1006)]));
    assert_eq!(again(10, 1010, body(now), now).await.0, "new", "5 is forgotten");
    forget(later(1), later(1)).await;
    assert_eq!(again(11, 1011, keyed(8, now), now).await.0, "new");
    store.write(DeleteEndpoint(endpoint(0))).await.unwrap();
    assert_eq!(again(12, 1012, fingerprint(9, now), now).await.0, "no endpoint");
}

/// Keeps so many bytes of the id of the first submit's task: fewer than all can't be read.
#[derive(Clone, Debug)]
struct Garble(i64);

impl Command for Garble {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let tasks = columns::key(Uuid::from_u128(1001));
        query("UPDATE submissions SET task_ids = $2 WHERE id = $1")
            .bind(columns::key(Uuid::from_u128(1)))
            .bind(&tasks[16 - usize::try_from(self.0).unwrap_or(16)..])
            .execute(tx)
            .await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_database_of_each_earlier_version_is_opened_and_a_later_one_refused() {
    let newest = SQLITE.len();
    for known in 1..=newest {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("farcall.db");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        migrator(&SQLITE[..known]).run_direct(None, &mut connection, false).await.unwrap();
        connection.close().await.unwrap();
        let store = Store::open(&file).await.unwrap();
        assert!(!store.has_accounts().await.unwrap(), "{known}");
        store.close().await;
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let earlier = migrator(&SQLITE[..newest - 1]).run_direct(None, &mut connection, false).await;
        assert!(matches!(earlier, Err(MigrateError::VersionMissing(_))), "{earlier:?}");
    }
}

/// Tokens for which no secret was shown.
fn add(tokens: Vec<(Hash, Token)>) -> AddTokens {
    AddTokens { tokens, shown_by: None }
}

/// Nothing is issued to an identity after it was disabled: the two come one after the other.
#[tokio::test]
async fn nothing_is_handed_out_to_who_is_shut_out() {
    let (_directory, store) = opened().await;
    let now = Timestamp::UNIX_EPOCH;
    let client = ClientId::from_uuid(*OWNER.as_uuid());
    let token = Token {
        identity: OWNER,
        client,
        scope: "openid".into(),
        resource_server: "auth.globus.org".into(),
        issued: now,
        expires: now + SignedDuration::from_hours(1),
        session: None,
        grant: None,
        parent: None,
    };
    let url = |token: &str, secret: &str| NewClientCredential {
        identity: OWNER,
        token: Some(Hash::of(token)),
        secret: Hash::of(secret),
        now,
        expires: now + SignedDuration::from_hours(1),
    };
    let register = async |by, token: &str| {
        let endpoint = store.endpoint(endpoint(0)).await.unwrap().unwrap();
        let client = Some(by);
        let metadata = Default::default();
        let secret = Hash::of("e");
        let token = Some(Hash::of(token));
        let command =
            RegisterEndpoint { endpoint, metadata, choices: None, client, token, most: 2, secret, now };
        store.write(command).await.unwrap()
    };
    assert!(store.write(add(vec![(Hash::of("t"), token.clone())])).await.unwrap());
    assert_eq!(store.write(url("t", "u")).await.unwrap(), Some(1));
    assert_eq!(register(client, "t").await, RegistrationResult::Credential(2));

    store.write(SetDisabled { identity: OWNER, disabled: true }).await.unwrap();
    let ended = store.write(EndEverything { identity: OWNER, now }).await.unwrap();
    assert_eq!(ended.holders, [OWNER]);
    assert_eq!(ended.endpoints.len(), 2, "{ended:?}");
    for secret in ["t", "u", "e", "s"] {
        assert_eq!(store.owner_of_ended_secret(Hash::of(secret)).await.unwrap(), Some(OWNER), "{secret}");
    }
    assert_eq!(store.owner_of_ended_secret(Hash::of("another")).await.unwrap(), None);
    assert!(!store.write(add(vec![(Hash::of("t2"), token.clone())])).await.unwrap());
    assert_eq!(store.write(url("t", "u2")).await.unwrap(), None);
    assert_eq!(register(client, "t").await, RegistrationResult::Inactive);

    store.write(SetDisabled { identity: OWNER, disabled: false }).await.unwrap();
    let unknown = ClientId::from_uuid(Uuid::from_u128(77));
    // A request that was under way all the time, and had shown a token that was good when it began.
    assert_eq!(store.write(url("t", "u2")).await.unwrap(), None);
    assert_eq!(register(client, "t").await, RegistrationResult::Inactive);
    let dependent = Token { parent: Some(Hash::of("t")), ..token.clone() };
    assert!(!store.write(add(vec![(Hash::of("t3"), dependent)])).await.unwrap());
    assert!(store.write(add(vec![(Hash::of("t4"), token)])).await.unwrap());
    assert_eq!(register(unknown, "t4").await, RegistrationResult::Inactive, "the application counts, too");
    assert_eq!(register(client, "t4").await, RegistrationResult::Credential(3));
    // What is remembered is forgotten in time.
    let later = now + SignedDuration::from_hours(24 * 365);
    store.write(EndEverything { identity: OWNER, now: later }).await.unwrap();
    assert_eq!(store.owner_of_ended_secret(Hash::of("s")).await.unwrap(), None);
}

/// Who showed a password or a secret before everything ended gets neither a session nor a token for it afterwards.
#[tokio::test]
async fn a_secret_that_was_read_before_everything_ended_gives_nothing() {
    let (_directory, store) = opened().await;
    let now = Timestamp::UNIX_EPOCH;
    let sign_in = |session, continues, generation| SignIn {
        session: Uuid::from_u128(session),
        continues,
        ends: None,
        cookie: Hash::of(&session.to_string()),
        browser: Hash::of("b"),
        authentication: Authentication { identity: OWNER, method: Method::Password, mfa: false, at: now },
        generation,
        now,
        expires: now + SignedDuration::from_hours(12),
        forget_browsers: now,
    };
    let tokens = |text: &str, account| AddTokens {
        tokens: vec![(
            Hash::of(text),
            Token {
                identity: OWNER,
                client: ClientId::from_uuid(*OWNER.as_uuid()),
                scope: "openid".into(),
                resource_server: "auth.globus.org".into(),
                issued: now,
                expires: now + SignedDuration::from_hours(1),
                session: None,
                grant: None,
                parent: None,
            },
        )],
        shown_by: Some(account),
    };
    let client = store.client(OWNER).await.unwrap().unwrap();
    let profile = store.profile(OWNER).await.unwrap().unwrap();
    assert_eq!(client.version(), profile.version());
    let before = profile.version();
    let first = store.write(sign_in(1, None, before.generation)).await.unwrap();
    assert_eq!(first, Some(Uuid::from_u128(1)));
    assert!(store.write(tokens("t1", before)).await.unwrap());

    store.write(EndEverything { identity: OWNER, now }).await.unwrap();
    assert_eq!(store.write(sign_in(2, first, before.generation)).await.unwrap(), None);
    assert!(!store.write(tokens("t2", before)).await.unwrap());
    let after = store.profile(OWNER).await.unwrap().unwrap().version();
    let second = store.write(sign_in(3, first, after.generation)).await.unwrap();
    assert_eq!(second, Some(Uuid::from_u128(3)), "a session that has ended does not go on");
    assert!(store.write(tokens("t3", after)).await.unwrap());

    // A consent is as good as the session in which it is given.
    let code = |cookie: &str, application: ClientId| AddCode {
        hash: Hash::of(cookie),
        code: Code {
            client: application,
            identity: OWNER,
            session: Uuid::from_u128(3),
            grant: Uuid::from_u128(1),
            redirect_uri: "r".into(),
            challenge: "c".into(),
            scope: "openid".into(),
            state: None,
            nonce: None,
            offline: true,
            expires: now + SignedDuration::from_mins(10),
        },
        cookie: Hash::of(cookie),
        forget: now,
    };
    let client = client.client_id();
    assert!(store.write(code("3", client)).await.unwrap());
    assert!(!store.write(code("2", client)).await.unwrap(), "the cookie of another session");
    assert!(!store.write(code("3", ClientId::from_uuid(Uuid::from_u128(77)))).await.unwrap());
    store.write(EndEverything { identity: OWNER, now }).await.unwrap();
    assert!(!store.write(code("3", client)).await.unwrap(), "the session has ended since");
    let after = store.profile(OWNER).await.unwrap().unwrap().version();

    // Disabled meanwhile, it or the first of its set.
    let first = IdentityId::from_uuid(Uuid::from_u128(900));
    let person = Profile { id: first, username: "first@example.edu".into(), kind: Kind::Person, ..profile };
    store.write(AddPerson { profile: person, password: None }).await.unwrap().unwrap();
    store.write(Link { identity: OWNER, primary: Some(first) }).await.unwrap();
    assert!(!store.write(tokens("t4", after)).await.unwrap(), "it acts as somebody else since");
    let linked = store.profile(OWNER).await.unwrap().unwrap().version();
    for identity in [OWNER, first] {
        store.write(SetDisabled { identity, disabled: true }).await.unwrap();
        assert_eq!(store.write(sign_in(4, None, linked.generation)).await.unwrap(), None);
        assert!(!store.write(tokens("t5", linked)).await.unwrap());
        store.write(SetDisabled { identity, disabled: false }).await.unwrap();
    }
    assert!(store.write(tokens("t5", linked)).await.unwrap());
    // Gone, or never there.
    store.write(RemoveIdentity(OWNER)).await.unwrap();
    assert_eq!(store.write(sign_in(5, None, linked.generation)).await.unwrap(), None);
}

/// What was in the row before lies beside it afterwards, and says the same.
#[tokio::test]
async fn endpoints_made_before_metadata_lay_apart_keep_theirs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("farcall.db");
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let before = SQLITE.iter().position(|(version, ..)| *version == 9).unwrap();
    migrator(&SQLITE[..before]).run_direct(None, &mut connection, false).await.unwrap();
    let admin = IdentityId::from_uuid(Uuid::from_u128(0xabcdef << 40));
    let rows = [
        (0, "[]".to_owned(), r#"{"hostname": "h", "other": [1]}"#),
        (1, format!("[\"{admin}\", \"{OWNER}\", \"{admin}\"]"), r#"{"user_config_template": "engine: {}"}"#),
    ];
    for (number, admins, metadata) in rows {
        sqlx::query(
            "INSERT INTO endpoints (id, owner_id, name, multi_user, public, admins_json, metadata_json, created_us, \
             credential) VALUES ($1, $2, 'ep', FALSE, FALSE, $3, $4, 0, 1)",
        )
        .bind(columns::key(endpoint(number).as_uuid()))
        .bind(columns::key(OWNER.as_uuid()))
        .bind(admins)
        .bind(metadata)
        .execute(&mut connection)
        .await
        .unwrap();
    }
    connection.close().await.unwrap();
    let store = Store::open(&file).await.unwrap();
    let plain = store.endpoint(endpoint(0)).await.unwrap().unwrap();
    assert_eq!((plain.is_manager, plain.admins), (false, Vec::new()));
    let metadata = store.endpoint_metadata(endpoint(0)).await.unwrap();
    assert_eq!(serde_json::to_value(metadata).unwrap(), serde_json::json!({"hostname": "h", "other": [1]}));
    let manager = store.endpoint(endpoint(1)).await.unwrap().unwrap();
    assert!(manager.is_manager);
    assert_eq!(
        manager.admins.iter().collect::<std::collections::HashSet<_>>(),
        [admin, OWNER].iter().collect()
    );
    assert!(store.endpoint_metadata(endpoint(1)).await.unwrap().user_config_template.is_some());
    let listed = store.listed_endpoints(admin, VisibleAs::Administered, None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|it| it.id).collect::<Vec<_>>(), [endpoint(1)]);
}

/// However many endpoints others have, and however much they say of themselves, a list goes along an index.
#[tokio::test]
async fn lists_of_endpoints_scan_no_table() {
    let (_directory, store) = opened_with(|options| options).await;
    for seen in [VisibleAs::Owned, VisibleAs::Administered, VisibleAs::Public] {
        let rows = query(format!("EXPLAIN QUERY PLAN {}", seen.sql()))
            .bind(columns::key(OWNER.as_uuid()))
            .bind("ep")
            .bind(columns::key(OWNER.as_uuid()))
            .bind(10_i64)
            .fetch_all(&store.readers)
            .await
            .unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.try_get("detail").unwrap()).collect();
        assert!(plan.iter().any(|step| step.contains("USING")), "{seen:?}: {plan:?}");
        assert!(!plan.iter().any(|step| step.starts_with("SCAN")), "{seen:?}: {plan:?}");
    }
    store.close().await;
}

/// A request that had shown a token before its owner was disabled is not shown the credential that they asked for later.
#[tokio::test]
async fn a_credential_is_shown_only_with_a_token_that_still_exists() {
    let (_directory, store) = opened().await;
    let now = Timestamp::UNIX_EPOCH;
    let hour = SignedDuration::from_hours(1);
    let token = Token {
        identity: OWNER,
        client: ClientId::from_uuid(*OWNER.as_uuid()),
        scope: "openid".into(),
        resource_server: "auth.globus.org".into(),
        issued: now,
        expires: now + hour,
        session: None,
        grant: None,
        parent: None,
    };
    let [before, after] = ["before", "after"].map(Hash::of);
    assert!(store.write(add(vec![(before, token.clone())])).await.unwrap());
    store.write(EndEverything { identity: OWNER, now }).await.unwrap();
    assert!(store.write(add(vec![(after, token)])).await.unwrap());
    let secret = Hash::of("secret");
    let command =
        NewClientCredential { identity: OWNER, token: Some(after), secret, now, expires: now + hour };
    let number = store.write(command).await.unwrap().unwrap();
    let shown = async |token| store.client_credential(OWNER, number, token).await.unwrap();
    assert!(shown(after).await.is_some_and(|secret| secret.admits("secret")));
    assert!(shown(before).await.is_none());
}

/// However many credentials somebody asks for, the newest are alive, and making one costs the same.
#[tokio::test]
async fn a_holder_has_the_newest_credentials() {
    let (_directory, store) = opened().await;
    let now = Timestamp::UNIX_EPOCH;
    let client = Holder::Client(OWNER);
    for number in 1..=40 {
        let expires = now + SignedDuration::from_hours(24);
        let command = NewClientCredential {
            identity: OWNER,
            token: None,
            secret: Hash::of(&number.to_string()),
            now,
            expires,
        };
        assert_eq!(store.write(command).await.unwrap(), Some(number));
    }
    for number in 2..=40 {
        let register = RegisterEndpoint { most: 2, ..registration(endpoint(0), OWNER) };
        assert_eq!(store.write(register).await.unwrap(), RegistrationResult::Credential(number));
    }
    for holder in [client, Holder::Endpoint(endpoint(0))] {
        let mut alive = Vec::new();
        for number in 1..=40 {
            if store.credential(holder, number).await.unwrap().is_some() {
                alive.push(number);
            }
        }
        assert_eq!(alive, (25..=40).collect::<Vec<_>>(), "{holder:?}");
    }
}

async fn count(store: &Store, table: &str) -> i64 {
    let row =
        query(format!("SELECT count(*) AS number FROM {table}")).fetch_one(&store.readers).await.unwrap();
    row.try_get("number").unwrap()
}

/// A hash for which what need not be done each time is done.
fn due(number: u64) -> Hash {
    let mut bytes = [0; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    Hash::from_stored(&bytes).unwrap()
}

/// Whoever signs in in browser after browser, and makes code after code and token after token, leaves so many.
#[tokio::test]
async fn what_one_person_leaves_by_signing_in_is_bounded() {
    let (_directory, store) = opened().await;
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000);
    let mut last = Uuid::nil();
    for number in 0..150 {
        let at = now + SignedDuration::from_secs(number);
        let sign_in = SignIn {
            session: Uuid::from_u128(5000 + number as u128),
            continues: None,
            ends: None,
            cookie: due(number as u64),
            browser: due(number as u64),
            authentication: Authentication { identity: OWNER, method: Method::Password, mfa: false, at },
            generation: 0,
            now: at,
            expires: at + SignedDuration::from_hours(12),
            forget_browsers: Timestamp::UNIX_EPOCH,
        };
        last = store.write(sign_in).await.unwrap().unwrap();
    }
    assert!(count(&store, "sessions").await <= 101);
    assert_eq!(count(&store, "sessions WHERE cookie_hash IS NOT NULL").await, 100);
    assert_eq!(count(&store, "known_browsers").await, 100);
    assert!(store.session_by_cookie(due(149), now).await.unwrap().is_some());
    assert!(store.session_by_cookie(due(49), now).await.unwrap().is_none());
    let codes = (0..1_100).map(|number| {
        let code = Code {
            client: ClientId::from_uuid(*OWNER.as_uuid()),
            identity: OWNER,
            session: last,
            grant: Uuid::from_u128(number as u128),
            redirect_uri: "r".into(),
            challenge: "c".into(),
            scope: "s".into(),
            state: None,
            nonce: None,
            offline: false,
            expires: now + SignedDuration::from_secs(number),
        };
        let forget = Timestamp::UNIX_EPOCH;
        store.write(AddCode { hash: due(number as u64), code, cookie: due(149), forget })
    });
    for added in futures_util::future::join_all(codes).await {
        assert!(added.unwrap());
    }
    assert!(count(&store, "codes").await <= 1_001);
    let token = |number: i64| Token {
        identity: OWNER,
        client: ClientId::from_uuid(*OWNER.as_uuid()),
        scope: "s".into(),
        resource_server: "r".into(),
        issued: now + SignedDuration::from_secs(number),
        expires: now + SignedDuration::from_hours(48),
        session: None,
        grant: None,
        parent: None,
    };
    let many = (0..11_000).map(|number| (due(number as u64), token(number))).collect();
    assert!(store.write(add(many)).await.unwrap());
    assert!(store.write(add(vec![(due(20_000), token(20_000))])).await.unwrap());
    assert_eq!(count(&store, "tokens").await, 10_001);
    assert!(store.token(due(20_000)).await.unwrap().is_some());
    assert!(store.token(due(999)).await.unwrap().is_none());
}
