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
    let ended = scene.apply(Event::Exited { pid: 5, status: ExitStatus::Code(0) });
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
    scene.apply(Event::Spawned { name: &name(2), pid: 5 });
    scene.restart();
    assert!(!scene.core.may_restart());
    scene.seconds = 19;
    let asked = scene.command(3, "one", 10);
    assert!(!scene.core.may_restart());
    assert!(matches!(scene.map(&asked, "harper")[..], [Action::Launch { .. }, ..]), "everything goes on");
    scene.apply(Event::Spawned { name: &name(3), pid: 6 });
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
fn a_launch_that_is_stuck_prevents_the_restart_but_nothing_else() {
    let mut scene = Scene::new(settings());
    let asked = scene.command(2, "one", 10);
    scene.map(&asked, "harper");
    scene.apply(Event::Spawned { name: &name(2), pid: 5 });
    scene.restart();
    scene.seconds = 25;
    assert_eq!(scene.command(3, "one", 11), []);
    // Asking again does not make it wait longer.
    scene.restart();
    scene.seconds = 30;
    let given_up = scene.apply(Event::Tick);
    let expected = format!(
        "The manager is not restarted, and goes on as it was: these did not come to an end within 30 s:\n  launcher pid 5 \
         [(harper, {}) globus",
        name(2)
    );
    assert!(texts(&given_up)[0].starts_with(&expected), "{given_up:?}");
    assert!(matches!(given_up[1], Action::Map { .. }), "what waited goes on");
    scene.apply(started(5));
    assert!(!scene.core.may_restart(), "it is given up");
}

#[test]
fn a_state_of_another_version_is_refused() {
    let state = State { version: VERSION + 1, ..State::new(Vec::new(), Vec::new()) };
    assert_eq!(state.check(), Err(Unusable::Version { found: VERSION + 1 }));
    assert_eq!(State::new(Vec::new(), Vec::new()).check(), Ok(()));
}
