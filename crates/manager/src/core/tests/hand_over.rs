//! What a hot restart hands over.

use super::*;
use crate::restart::{State, Unusable, VERSION};

#[test]
fn what_is_handed_over_goes_on() {
    let mut scene = Scene::new(settings());
    scene.run(2, 5);
    let asked = scene.command(2, "two", 10);
    scene.map(&asked, "harper");
    scene.core.hold(true);
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
fn a_state_of_another_version_is_refused() {
    let state = State { version: VERSION + 1, ..State::new(Vec::new(), Vec::new()) };
    assert_eq!(state.check(), Err(Unusable::Version { found: VERSION + 1 }));
    assert_eq!(State::new(Vec::new(), Vec::new()).check(), Ok(()));
}
