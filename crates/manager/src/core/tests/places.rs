//! How many places of starts one user may take, and how long a start may keep its place.

use super::*;

fn four_places() -> Settings {
    Settings { starts_at_a_time: 4, most_user_endpoints: 100, ..settings() }
}

/// Commands for user endpoints `first..`, whose launchers get the same numbers as processes. Returns those launched.
fn submit(scene: &mut Scene, first: u128, count: u128, user: &str) -> Vec<i32> {
    let mut launched = Vec::new();
    for user_endpoint in first..first + count {
        let asked = scene.command(user_endpoint, "one", 10);
        let actions = scene.map(&asked, user);
        launched.extend(spawn(scene, &actions));
    }
    launched
}

/// Tells of the processes of the launchers that were asked for.
fn spawn(scene: &mut Scene, actions: &[Action]) -> Vec<i32> {
    let requested = |action: &Action| match action {
        Action::Launch { request } => Some(request.name.clone()),
        _ => None,
    };
    let mut pids = Vec::new();
    for wanted in actions.iter().filter_map(requested) {
        let number = (1..1_000_u128).find(|number| name(*number) == wanted).unwrap();
        let pid = i32::try_from(number).unwrap();
        scene.apply(Event::Spawned { name: &wanted, serial: serial(pid), pid });
        pids.push(pid);
    }
    pids
}

fn killed(actions: &[Action]) -> Vec<Signalled> {
    let signal = |action: &Action| if let Action::Signal(it) = action { Some(*it) } else { None };
    actions.iter().filter_map(signal).collect()
}

#[test]
fn the_last_quarter_of_the_places_is_kept_for_others() {
    let mut scene = Scene::new(four_places());
    assert_eq!(submit(&mut scene, 100, 8, "harper"), [100, 101, 102]);
    assert_eq!(submit(&mut scene, 200, 2, "tory"), [200], "at once, although harper's launchers do not end");
    // Of the others, those come first who have less than their share.
    assert!(submit(&mut scene, 300, 2, "jess").is_empty());
    let next = scene.apply(started(100));
    assert_eq!(spawn(&mut scene, &next), [300]);
}

#[test]
fn one_user_who_is_alone_takes_all_of_a_personal_manager() {
    let owners = Some(HashSet::from([identity(10)]));
    let mut scene = Scene::new(Settings { owners, ..four_places() });
    let launched = (100..108)
        .filter(|it| matches!(scene.command(*it, "one", 10)[..], [Action::Launch { .. }, ..]))
        .count();
    assert_eq!(launched, 4);
}

#[test]
fn a_launcher_that_does_not_end_is_killed_and_leaves_its_place() {
    let mut scene = Scene::new(four_places());
    assert_eq!(submit(&mut scene, 100, 4, "harper"), [100, 101, 102]);
    scene.apply(Event::Reported {
        serial: serial(100),
        report: LaunchReport::UserFound { uid: 1001, gid: 1002 },
    });
    let next = scene.apply(started(101));
    assert_eq!(spawn(&mut scene, &next), [103]);
    let failure = LaunchFailure { status: 73, notice: "no home".to_owned(), private: "/h".to_owned() };
    scene.apply(Event::LaunchEnded { serial: serial(102), end: LaunchEnd::Failed(failure) });
    scene.seconds = 119;
    assert!(killed(&scene.apply(Event::Tick)).is_empty());
    assert!(!scene.core.is_settled());
    assert_eq!(scene.core.launchers().len(), 3);
    scene.seconds = 120;
    let late = scene.apply(Event::Tick);
    let kill = |pid| Signalled::Kill(serial(pid));
    assert_eq!(killed(&late), [kill(100), kill(102), kill(103)], "one that runs is left alone");
    let told = notices(&late);
    let text = "Unable to start user endpoint process for harper: the start did not come to an end within 120 s and was \
                stopped.";
    assert!(told[0].starts_with(text) && told[2].starts_with(text), "{told:?}");
    assert_eq!(told[1], "no home", "what the launcher said before");
    assert!(scene.core.is_settled(), "the processes may stay, the places are free");
    assert!(scene.core.launchers().is_empty());
    assert_eq!(submit(&mut scene, 200, 3, "harper"), [200, 201, 202]);
    // The killed launcher says that it took over, or ends: nobody is told anything again.
    assert!(scene.apply(started(100)).is_empty());
    let again = scene.command(100, "two", 10);
    let again = scene.map(&again, "harper");
    assert!(notices(&again)[0].contains("took too long and is being ended"), "{again:?}");
    let ended = scene.apply(Event::Exited { serial: serial(100), status: ExitStatus::Signal(9) });
    assert!(notices(&ended).is_empty());
    scene.seconds = 130;
    assert_eq!(killed(&scene.apply(Event::Tick)), [kill(102), kill(103)]);
    scene.seconds = 300;
    assert_eq!(killed(&scene.apply(Event::Tick)), [kill(200), kill(201), kill(202)], "twice is enough");
}

#[test]
fn the_holder_of_a_session_is_killed_only_if_it_stays() {
    for pam in [true, false] {
        let mut settings = four_places();
        settings.launch.pam_service = pam.then(|| "gce".to_owned());
        let mut scene = Scene::new(settings);
        submit(&mut scene, 100, 1, "harper");
        // Without PAM, this is not a report of ours: a user endpoint would take the holder's signal for another one.
        scene.apply(Event::Reported { serial: serial(100), report: LaunchReport::Running { pid: 7 } });
        let kill = Signalled::Kill(serial(100));
        let first = if pam { Signalled::KillHeld(serial(100)) } else { kill };
        for (seconds, expected) in [(120, first), (130, kill)] {
            scene.seconds = seconds;
            assert_eq!(killed(&scene.apply(Event::Tick)), [expected], "{pam}");
        }
    }
}

#[test]
fn a_mapping_that_does_not_end_leaves_its_place() {
    let mut scene = Scene::new(four_places());
    let numbers: Vec<u64> = (100..132).map(|it| mapping(&scene.command(it, "one", 10))).collect();
    assert_eq!(scene.command(200, "one", 11), [], "there is no place");
    scene.seconds = 60;
    let late = scene.apply(Event::Tick);
    assert_eq!(notices(&late).len(), 32);
    assert!(notices(&late)[0].starts_with("Unhandled error attempting to map to a local user name."));
    assert!(texts(&late)[0].contains("It did not come to an end within 60 s."));
    assert!(matches!(late.last(), Some(Action::Map { .. })));
    assert_eq!(scene.apply(Event::Mapped { number: numbers[0], outcome: to("harper") }), []);
}
