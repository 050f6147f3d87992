//! What a hot restart hands over.

use super::*;
use crate::restart::{State, Unusable, VERSION};

#[test]
fn what_is_handed_over_goes_on() {
    let mut scene = Scene::new(settings());
    scene.run(2, 5);
    let asked = scene.command(2, "two", 10);
    scene.map(&asked, "harper");
    scene.restart();
    assert!(acknowledged(&scene.command(3, "one", 10)).is_empty(), "it will be delivered again");
    let ended = scene.apply(Event::Exited { serial: serial(5), status: ExitStatus::Code(0) });
    assert!(!ended.iter().any(|action| matches!(action, Action::Launch { .. })));
    let revivals = scene.core.revivals();
    assert_eq!(revivals.len(), 1);
    let mut next = Scene::new(settings());
    next.core = Core::new(settings(), Vec::new(), revivals);
    let revived = next.apply(Event::Tick);
    assert!(matches!(&revived[..], [Action::Launch { request }] if request.name == name(2)), "{revived:?}");
}

#[test]
fn a_restart_waits_for_launches_while_commands_are_handled() {
    let mut scene = Scene::new(Settings { starts_at_a_time: 8, ..settings() });
    let asked = scene.command(2, "one", 10);
    scene.map(&asked, "harper");
    scene.apply(Event::Spawned { name: &name(2), serial: serial(5), pid: 5 });
    scene.restart();
    assert!(!scene.core.may_restart());
    scene.seconds = 19;
    let asked = scene.command(3, "one", 10);
    assert!(!scene.core.may_restart());
    assert!(matches!(scene.map(&asked, "harper")[..], [Action::Launch { .. }, ..]), "everything goes on");
    scene.apply(Event::Spawned { name: &name(3), serial: serial(6), pid: 6 });
    // Then nothing new begins, so that it comes to an end.
    scene.seconds = 20;
    assert_eq!(scene.command(4, "one", 10), []);
    scene.apply(started(5));
    assert!(!scene.core.may_restart());
    scene.apply(started(6));
    assert!(scene.core.may_restart());
    scene.core.end_restart();
    assert!(matches!(scene.apply(Event::Tick)[..], [Action::Map { .. }]), "what waited goes on");
}

#[test]
fn what_is_stuck_delays_a_restart_and_does_not_prevent_it() {
    let mut scene = Scene::new(Settings { starts_at_a_time: 4, ..settings() });
    let asked = scene.command(2, "one", 10);
    scene.map(&asked, "harper");
    scene.apply(Event::Spawned { name: &name(2), serial: serial(5), pid: 5 });
    scene.seconds = 10;
    scene.restart();
    scene.seconds = 25;
    let asked = scene.command(3, "one", 10);
    scene.map(&asked, "harper");
    scene.apply(Event::Spawned { name: &name(3), serial: serial(6), pid: 6 });
    let hanging = mapping(&scene.command(4, "one", 11));
    scene.seconds = 30;
    let held = scene.apply(Event::Tick);
    let expected = format!(
        "The hot restart waits for these, and nothing new begins:\n  launcher pid 5 [(harper, {}) globus",
        name(2)
    );
    assert!(texts(&held)[0].starts_with(&expected), "{held:?}");
    assert!(texts(&held)[0].ends_with("\n  1 identity mappings"), "{held:?}");
    // Asking again does not make it wait longer.
    scene.restart();
    scene.seconds = 39;
    assert_eq!(scene.apply(Event::Tick), []);
    scene.seconds = 40;
    let late = scene.apply(Event::Tick);
    assert!(late.contains(&Action::Signal(Signalled::Kill(serial(5)))), "{late:?}");
    assert!(notices(&late)[0].contains("within 30 s and was stopped"), "{late:?}");
    assert!(acknowledged(&late).is_empty(), "the broker delivers the command that was not mapped again");
    assert_eq!(scene.apply(Event::Mapped { number: hanging, outcome: to("tory") }), [], "too late");
    assert!(!scene.core.may_restart(), "the other launcher is younger");
    scene.seconds = 55;
    let late = scene.apply(Event::Tick);
    assert!(late.contains(&Action::Signal(Signalled::Kill(serial(6)))), "{late:?}");
    assert!(scene.core.may_restart());
    scene.core.end_restart();
    assert!(
        matches!(scene.apply(Event::Tick)[..], [Action::Map { .. }]),
        "if there is none, it is mapped again"
    );
}

#[test]
fn commands_of_the_next_program_have_numbers_of_their_own() {
    let mut scene = Scene::new(settings());
    scene.run(2, 5);
    let asked = scene.command(2, "two", 10);
    let kept = mapping(&asked);
    scene.map(&asked, "harper");
    let children = scene.core.children().iter().cloned().collect();
    let mut next = Scene::new(settings());
    next.core = Core::new(settings(), children, Vec::new());
    assert!(mapping(&next.command(3, "one", 10)) > kept);
}

#[test]
fn a_state_of_another_version_is_refused() {
    let state = State { version: VERSION + 1, ..State::new(Vec::new(), Vec::new()) };
    assert_eq!(state.check(), Err(Unusable::Version { found: VERSION + 1 }));
    assert_eq!(State::new(Vec::new(), Vec::new()).check(), Ok(()));
}
