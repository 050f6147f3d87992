use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;
use wire::queue::Registration;
use wire::start_document::user_endpoint_name;

use super::*;
use crate::children::{Mapped, Serial};
use crate::launch::{LaunchEnd, LaunchFailure, LaunchReport};

mod hand_over;
mod launches;
mod limits;
mod model;
mod places;

const MANAGER: EndpointId = EndpointId::from_uuid(Uuid::from_u128(1));
const SENT: u64 = 1_713_545_787;
const LINES: &str =
    "\n  Globus effective identity: 00000000-0000-0000-0000-00000000000a\n  Globus username: u10@example.edu";

fn identity(number: u128) -> IdentityId {
    IdentityId::from_uuid(Uuid::from_u128(number))
}

fn name(user_endpoint: u128) -> String {
    user_endpoint_name(MANAGER, EndpointId::from_uuid(Uuid::from_u128(user_endpoint)))
}

fn settings() -> Settings {
    Settings {
        manager: MANAGER,
        own_user: "root".to_owned(),
        owners: None,
        grace_period: Duration::from_secs(30),
        starts_at_a_time: 2,
        launch_time: Duration::from_secs(120),
        most_user_endpoints: 10,
        launch: LaunchSettings {
            files: ManagerFiles {
                template: "/m/user_config_template.yaml.j2".into(),
                schema: "/m/user_config_schema.json".into(),
                environment: "/m/user_environment.yaml".into(),
                program_directory: "/opt/bin".into(),
            },
            parent_config: json!({"multi_user": true}),
            allowed_functions: None,
            high_assurance: false,
            pam_service: None,
            inherited_environment: Vec::new(),
        },
    }
}

/// A core, its clock, and what it had done.
struct Scene {
    core: Core,
    seconds: u64,
    tags: u64,
}

impl Scene {
    fn new(settings: Settings) -> Self {
        Self { core: Core::new(settings, Vec::new(), Vec::new()), seconds: 0, tags: 0 }
    }

    fn apply(&mut self, event: Event<'_>) -> Vec<Action> {
        let wall: Zoned = "2024-04-19T16:56:27+00:00[UTC]".parse().unwrap();
        let now = Now { wall, monotonic: Duration::from_secs(self.seconds) };
        self.core.apply(event, &now)
    }

    fn restart(&mut self) {
        let wall: Zoned = "2024-04-19T16:56:27+00:00[UTC]".parse().unwrap();
        self.core.begin_restart(&Now { wall, monotonic: Duration::from_secs(self.seconds) });
    }

    /// A command for this user endpoint, with this password, from this person.
    fn command(&mut self, user_endpoint: u128, password: &str, person: u128) -> Vec<Action> {
        self.large_command(user_endpoint, password, person, 0)
    }

    /// The same, with options of this size.
    fn large_command(
        &mut self,
        user_endpoint: u128,
        password: &str,
        person: u128,
        size: usize,
    ) -> Vec<Action> {
        let id = EndpointId::from_uuid(Uuid::from_u128(user_endpoint));
        let body = json!({
            "command": "cmd_start_endpoint",
            "globus_username": format!("u{person}@example.edu"),
            "globus_effective_identity": identity(person),
            "globus_identity_set": [{"sub": identity(person)}],
            "kwargs": {
                "name": name(user_endpoint),
                "user_opts": if size == 0 { json!({}) } else { json!({"x": "x".repeat(size)}) },
                "amqp_creds": Registration::new(id, &format!("amqp://u:{password}@h/")),
            },
        })
        .to_string();
        self.tags += 1;
        self.apply(Event::Received(Received {
            tag: Tag { session: 1, number: self.tags },
            content_type: Some("application/json"),
            timestamp: Some(SENT),
            body: body.as_bytes(),
        }))
    }

    /// The number of the mapping that was asked for, which is answered with this user.
    fn map(&mut self, actions: &[Action], local_user: &str) -> Vec<Action> {
        let number = mapping(actions);
        self.apply(Event::Mapped { number, outcome: to(local_user) })
    }

    /// Starts a user endpoint up to its running program.
    fn run(&mut self, user_endpoint: u128, pid: i32) {
        let actions = self.command(user_endpoint, "one", 10);
        let launched = self.map(&actions, "harper");
        assert!(matches!(launched[0], Action::Launch { .. }), "{launched:?}");
        self.apply(Event::Spawned { name: &name(user_endpoint), serial: serial(pid), pid });
        self.apply(Event::Reported {
            serial: serial(pid),
            report: LaunchReport::UserFound { uid: 1001, gid: 1002 },
        });
        self.apply(started(pid));
    }
}

/// Launches have the numbers of their processes here.
fn serial(pid: i32) -> Serial {
    Serial(pid.unsigned_abs().into())
}

fn to(local_user: &str) -> MappingOutcome {
    let local_user = local_user.to_owned();
    MappingOutcome::To(Mapped { identity: identity(10), local_user, candidates: json!([]) })
}

fn started(pid: i32) -> Event<'static> {
    Event::LaunchEnded { serial: serial(pid), end: LaunchEnd::Started }
}

fn mapping(actions: &[Action]) -> u64 {
    match actions {
        [Action::Map { number, .. }] => *number,
        other => panic!("no mapping in {other:?}"),
    }
}

fn texts(actions: &[Action]) -> Vec<&str> {
    actions
        .iter()
        .filter_map(|action| if let Action::Log(_, text) = action { Some(text.as_str()) } else { None })
        .collect()
}

fn notices(actions: &[Action]) -> Vec<&str> {
    actions
        .iter()
        .filter_map(
            |action| if let Action::Notice { text, .. } = action { Some(text.as_str()) } else { None },
        )
        .collect()
}

fn acknowledged(actions: &[Action]) -> Vec<u64> {
    actions
        .iter()
        .filter_map(|action| if let Action::Acknowledge(tag) = action { Some(tag.number) } else { None })
        .collect()
}

#[test]
fn a_start_is_logged_in_upstreams_words() {
    let mut scene = Scene::new(settings());
    let asked = scene.command(2, "one", 10);
    assert!(acknowledged(&asked).is_empty(), "it is not decided yet");
    let launched = scene.map(&asked, "harper");
    let [Action::Launch { request }, Action::Acknowledge(Tag { number: 1, .. })] = &launched[..] else {
        panic!("{launched:?}")
    };
    assert_eq!(request.local_user.as_deref(), Some("harper"));
    assert_eq!(request.credentials["endpoint_id"], "00000000-0000-0000-0000-000000000002");
    let uep = name(2);
    assert_eq!(scene.apply(Event::Spawned { name: &uep, serial: serial(77), pid: 77 }), []);
    let found = scene.apply(Event::Reported {
        serial: serial(77),
        report: LaunchReport::UserFound { uid: 1001, gid: 1002 },
    });
    let command = format!("[(harper, {uep}) globus-compute-endpoint start {uep} --die-with-parent]");
    assert_eq!(
        texts(&found),
        [
            format!("Creating new user endpoint (pid: 77) {command}"),
            "Command process successfully forked for 'harper' (Globus effective identity: \
             00000000-0000-0000-0000-00000000000a)."
                .to_owned(),
        ]
    );
    assert!(!scene.core.is_settled());
    assert_eq!(scene.apply(started(77)), []);
    assert!(scene.core.is_settled());
    let ended = scene.apply(Event::Exited { serial: serial(77), status: ExitStatus::Code(0) });
    assert_eq!(texts(&ended), [format!("Command stopped normally (77) {command}")]);
    assert!(scene.core.children().is_empty());
}

#[test]
fn each_way_to_end_has_its_words_and_only_a_killed_user_endpoint_is_reported() {
    for (status, text, notice) in [
        (ExitStatus::Code(78), "Command return code: 78 (5)", false),
        (ExitStatus::Signal(9), "Command terminated by signal: 9 (5)", true),
        (ExitStatus::Code(101), "Command return code: 101 (5)", true),
        (ExitStatus::Unknown, "Command unknown return code: (5)", false),
    ] {
        let mut scene = Scene::new(settings());
        scene.run(2, 5);
        let ended = scene.apply(Event::Exited { serial: serial(5), status });
        assert!(texts(&ended)[0].starts_with(text), "{ended:?}");
        assert_eq!(notices(&ended).len(), usize::from(notice), "{ended:?}");
    }
}

#[test]
fn who_maps_to_nobody_is_told() {
    for (outcome, expected) in [
        (
            MappingOutcome::Nobody,
            format!("Identity failed to map to a local user name.  (LookupError) {LINES}"),
        ),
        (
            MappingOutcome::Failed("boom".to_owned()),
            format!("Unhandled error attempting to map to a local user name.{LINES}"),
        ),
        (MappingOutcome::Forbidden("root".to_owned()), unexpected("InvalidUserError")),
    ] {
        let mut scene = Scene::new(settings());
        let asked = scene.command(2, "one", 10);
        let number = mapping(&asked);
        let refused = scene.apply(Event::Mapped { number, outcome });
        assert_eq!(notices(&refused), [expected.as_str()]);
        assert_eq!(acknowledged(&refused), [1]);
        assert!(scene.core.children().is_empty());
    }
}

#[test]
fn a_command_for_a_running_user_endpoint_renews_it_and_revives_it_once() {
    let mut scene = Scene::new(settings());
    scene.run(2, 5);
    for (password, at) in [("two", 0), ("three", 10)] {
        scene.seconds = at;
        let asked = scene.command(2, password, 10);
        let kept = scene.map(&asked, "harper");
        assert!(texts(&kept)[0].starts_with(&format!(
            "User endpoint {} is already running (pid: 5); caching arguments in case it's about to shut down",
            name(2)
        )));
        assert!(kept.iter().any(|action| matches!(action, Action::Renew { credentials, .. }
            if credentials.as_json().contains(&format!("u:{password}@")))));
        assert_eq!(acknowledged(&kept).len(), 1);
    }
    scene.seconds = 39;
    let ended = scene.apply(Event::Exited { serial: serial(5), status: ExitStatus::Code(0) });
    let request = ended
        .iter()
        .find_map(|action| if let Action::Launch { request } = action { Some(request) } else { None });
    assert!(request.unwrap().credentials.to_string().contains("u:three@"), "the newest counts");
    scene.apply(Event::Spawned { name: &name(2), serial: serial(6), pid: 6 });
    scene.apply(started(6));
    let ended = scene.apply(Event::Exited { serial: serial(6), status: ExitStatus::Code(0) });
    assert_eq!(ended.len(), 1, "{ended:?}");
}

#[test]
fn no_revival_too_late_after_a_failure_or_while_stopping() {
    let kept = |settings: Settings| {
        let mut scene = Scene::new(settings);
        scene.run(2, 5);
        let asked = scene.command(2, "two", 10);
        scene.map(&asked, "harper");
        scene
    };
    let launches = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Launch { .. }));
    let mut scene = kept(settings());
    scene.seconds = 31;
    scene.apply(Event::Tick);
    assert!(!launches(&scene.apply(Event::Exited { serial: serial(5), status: ExitStatus::Code(0) })));
    let mut scene = kept(settings());
    let failed = scene.apply(Event::Exited { serial: serial(5), status: ExitStatus::Code(78) });
    assert!(!launches(&failed));
    assert_eq!(notices(&failed).len(), 1, "whoever sent the second command is not left waiting");
    let mut scene = kept(settings());
    scene.apply(Event::Stop);
    let ended = scene.apply(Event::Exited { serial: serial(5), status: ExitStatus::Code(0) });
    assert!(!launches(&ended) && ended.contains(&Action::Finish));
}

#[test]
fn the_same_command_delivered_again_changes_nothing() {
    let mut scene = Scene::new(settings());
    scene.run(2, 5);
    let asked = scene.command(2, "one", 10);
    let again = scene.map(&asked, "harper");
    assert_eq!(again, [Action::Acknowledge(Tag { session: 1, number: 2 })]);
}

#[test]
fn a_running_user_endpoint_is_not_given_to_another_local_user() {
    let mut scene = Scene::new(settings());
    scene.run(2, 5);
    let asked = scene.command(2, "two", 10);
    let refused = scene.map(&asked, "tory");
    assert!(notices(&refused)[0].contains("still runs as the local user that you were mapped to before"));
    assert!(!refused.iter().any(|action| matches!(action, Action::Renew { .. })));
}

#[test]
fn a_manager_that_cannot_change_users_serves_its_owners() {
    let mut settings = settings();
    settings.owners = Some(HashSet::from([identity(10)]));
    settings.own_user = "alicia".to_owned();
    let mut scene = Scene::new(settings);
    let launched = scene.command(2, "one", 10);
    let [Action::Launch { request }, Action::Acknowledge(_)] = &launched[..] else { panic!("{launched:?}") };
    assert_eq!((&request.local_user, &request.identity), (&None, &None));
    let refused = scene.command(3, "one", 11);
    assert!(
        notices(&refused)[0]
            .starts_with("Ignoring start request for untrusted identity.\n  Globus effective")
    );
    assert_eq!(acknowledged(&refused), [2]);
}

#[test]
fn the_stop_terminates_then_kills_then_gives_up() {
    let mut scene = Scene::new(settings());
    scene.run(2, 5);
    scene.run(3, 6);
    let stopping = scene.apply(Event::Stop);
    assert_eq!(stopping[0], Action::Retire);
    assert!(
        texts(&stopping)[0]
            .starts_with("Signaling shutdown of user endpoint (PID: 5, UID: 1001, GID: 1002, User: harper)")
    );
    for pid in [5, 6] {
        assert!(stopping.contains(&Action::Signal(Signalled::Terminate(serial(pid)))));
    }
    assert_eq!(scene.command(4, "one", 10), [], "it stays with the broker");
    scene.apply(Event::Exited { serial: serial(5), status: ExitStatus::Code(0) });
    scene.seconds = 9;
    assert_eq!(scene.apply(Event::Tick), []);
    scene.seconds = 10;
    assert!(scene.apply(Event::Tick).contains(&Action::Signal(Signalled::Kill(serial(6)))));
    scene.seconds = 20;
    assert!(scene.apply(Event::Tick).contains(&Action::Finish));
    let mut hurried = Scene::new(settings());
    hurried.run(2, 5);
    hurried.apply(Event::Stop);
    assert!(hurried.apply(Event::Stop).contains(&Action::Signal(Signalled::Kill(serial(5)))));
    assert!(Scene::new(settings()).apply(Event::Stop).contains(&Action::Finish), "nothing to wait for");
}
