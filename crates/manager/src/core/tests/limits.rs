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
    let mut scene = Scene::new(settings());
    assert_eq!(flood(&mut scene, 100, 4, 10, "harper"), (2, vec![]));
    assert_eq!(flood(&mut scene, 200, 1, 11, "tory"), (0, vec![]), "two launchers are at work");
    for (pid, user_endpoint) in [(5, 100), (6, 101)] {
        scene.apply(Event::Spawned { name: &name(user_endpoint), pid });
    }
    let next = |actions: Vec<Action>| match &actions[..] {
        [Action::Launch { request }, Action::Acknowledge(_)] => request.name.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(next(scene.apply(started(5))), name(200), "tory has no place yet");
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
fn a_newer_command_takes_the_place_of_one_that_waits() {
    let mut scene = Scene::new(settings());
    flood(&mut scene, 100, 2, 10, "harper");
    for (password, expected) in [("one", vec![]), ("two", vec![3])] {
        let asked = scene.command(102, password, 10);
        let waits = scene.map(&asked, "harper");
        assert_eq!(acknowledged(&waits), expected);
    }
    scene.apply(Event::Spawned { name: &name(100), pid: 5 });
    let launched = scene.apply(started(5));
    let Action::Launch { request } = &launched[0] else { panic!("{launched:?}") };
    assert!(request.credentials.to_string().contains("u:two@"));
    assert_eq!(acknowledged(&launched), [4]);
}
