//! Bounds, and fairness between people.

use super::*;

/// Commands for user endpoints `first..` of a person who maps to this user; returns what was launched and refused.
fn flood(scene: &mut Scene, first: u128, count: u128, person: u128, user: &str) -> (usize, Vec<String>) {
    let (mut launched, mut refused) = (0, Vec::new());
    for user_endpoint in first..first + count {
        let asked = scene.command(user_endpoint, "one", person);
        let actions = scene.map(&asked, user);
        launched += actions.iter().filter(|action| matches!(action, Action::Launch { .. })).count();
        refused.extend(notices(&actions).into_iter().map(str::to_owned));
    }
    (launched, refused)
}

#[test]
fn starts_are_bounded_and_taken_in_turn() {
    let mut scene = Scene::new(Settings { starts_at_a_time: 3, ..settings() });
    assert_eq!(flood(&mut scene, 100, 4, 10, "harper"), (2, vec![]));
    assert_eq!(flood(&mut scene, 200, 2, 11, "tory"), (1, vec![]), "a place is kept for others");
    for (pid, user_endpoint) in [(5, 100), (6, 101), (7, 200)] {
        scene.apply(Event::Spawned { name: &name(user_endpoint), serial: serial(pid), pid });
    }
    let next = |actions: Vec<Action>| match &actions[..] {
        [Action::Launch { request }, Action::Acknowledge(_)] => request.name.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(scene.apply(started(5)), [], "now it is kept for a third");
    assert_eq!(next(scene.apply(started(7))), name(201), "tory has no place any more");
    assert_eq!(next(scene.apply(started(6))), name(102), "harper's turn");
}

#[test]
fn one_user_leaves_room_for_others() {
    let mut settings = settings();
    settings.starts_at_a_time = 100;
    let mut scene = Scene::new(settings.clone());
    let (launched, refused) = flood(&mut scene, 100, 20, 10, "harper");
    assert_eq!((launched, refused.len()), (5, 15), "half of ten");
    assert!(refused[0].contains("too many user endpoints run (5 of harper, 5 in all)"), "{}", refused[0]);
    assert_eq!(flood(&mut scene, 200, 20, 11, "tory").0, 3);
    assert_eq!(flood(&mut scene, 300, 20, 12, "jess").0, 1);
    settings.owners = Some(HashSet::from([identity(10)]));
    let mut own = Scene::new(settings);
    let launched =
        (100..120).filter(|uep| matches!(own.command(*uep, "one", 10)[0], Action::Launch { .. })).count();
    assert_eq!(launched, 10, "a personal manager has one user");
}

#[test]
fn commands_that_wait_are_bounded_too() {
    let mut scene = Scene::new(settings());
    let mut refused = 0;
    for user_endpoint in 0..1_500_u128 {
        refused += notices(&scene.command(1_000 + user_endpoint, "one", 10)).len();
    }
    assert!(refused > 900, "{refused}");
    assert_eq!(notices(&scene.command(9_000, "one", 11)).len(), 0, "another person is served");
}

#[test]
fn commands_that_wait_are_bounded_in_bytes() {
    let mut scene = Scene::new(settings());
    let refused = |scene: &mut Scene, first: u128, person: u128, size: usize| {
        (first..first + 100)
            .map(|user_endpoint| notices(&scene.large_command(user_endpoint, "one", person, size)).len())
            .sum::<usize>()
    };
    let large = 1 << 20;
    assert_eq!(refused(&mut scene, 1_000, 10, large - 2_000), 68, "half of 64 MiB");
    assert_eq!(refused(&mut scene, 2_000, 11, large - 2_000), 84, "half of the rest");
    assert_eq!(refused(&mut scene, 3_000, 12, 1_000), 0, "usual commands are accepted");
    // Each that is mapped and launched makes room.
    let told = scene.large_command(4_000, "one", 10, large - 2_000);
    assert!(notices(&told)[0].contains("more start commands than it can handle"), "{told:?}");
}

#[test]
fn commands_that_are_kept_are_bounded_in_bytes() {
    let mut scene = Scene::new(Settings { starts_at_a_time: 100, most_user_endpoints: 1_000, ..settings() });
    for (user_endpoint, pid) in (100..180).zip(1_000..) {
        scene.run(user_endpoint, pid);
    }
    let mut kept = 0;
    for user_endpoint in 100..180 {
        let again = scene.large_command(user_endpoint, "two", 10, 1_000_000);
        let actions = scene.map(&again, "harper");
        assert!(actions.iter().any(|action| matches!(action, Action::Renew { .. })), "always");
        kept += texts(&actions).iter().filter(|text| text.contains("caching arguments")).count();
    }
    assert_eq!(kept, 34, "half of 64 MiB");
    // A newer command takes the place of its own older one.
    let again = scene.large_command(100, "three", 10, 1_000_000);
    let actions = scene.map(&again, "harper");
    assert!(texts(&actions)[0].contains("caching arguments"), "{actions:?}");
    // What is not kept is not started again, and older commands do not count either.
    let older = scene.large_command(179, "two", 10, 1);
    assert_eq!(acknowledged(&scene.map(&older, "harper")).len(), 1);
    let ended = scene.apply(Event::Exited { serial: serial(1_079), status: ExitStatus::Code(0) });
    assert!(!ended.iter().any(|action| matches!(action, Action::Launch { .. })), "{ended:?}");
}

#[test]
fn after_a_launcher_that_could_not_be_started_the_next_waits_a_second() {
    let mut scene = Scene::new(Settings { starts_at_a_time: 2, most_user_endpoints: 1_000, ..settings() });
    assert_eq!(flood(&mut scene, 100, 10, 10, "harper").0, 1);
    let launched =
        |actions: &[Action]| actions.iter().filter(|action| matches!(action, Action::Launch { .. })).count();
    for seconds in 1..5 {
        let name = name(99 + u128::from(seconds));
        let failed = scene.apply(Event::NotSpawned { name: &name, problem: "EAGAIN".to_owned() });
        assert_eq!((notices(&failed).len(), launched(&failed)), (1, 0));
        assert_eq!(launched(&scene.apply(Event::Tick)), 0, "within a second");
        scene.seconds = seconds;
        assert_eq!(launched(&scene.apply(Event::Tick)), 1, "one more");
    }
}

#[test]
fn a_newer_command_takes_the_place_of_one_that_waits() {
    let mut scene = Scene::new(settings());
    flood(&mut scene, 100, 1, 10, "harper");
    for (password, expected) in [("one", vec![]), ("two", vec![2])] {
        let asked = scene.command(102, password, 10);
        let waits = scene.map(&asked, "harper");
        assert_eq!(acknowledged(&waits), expected);
    }
    scene.apply(Event::Spawned { name: &name(100), serial: serial(5), pid: 5 });
    let launched = scene.apply(started(5));
    let Action::Launch { request } = &launched[0] else { panic!("{launched:?}") };
    assert!(request.credentials.to_string().contains("u:two@"));
    assert_eq!(acknowledged(&launched), [3]);
}
