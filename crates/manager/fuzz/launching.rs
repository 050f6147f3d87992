//! What must hold of launch requests, of launchers' reports and of the state of a hot restart for any bytes. The fuzzer looks
//! for bytes for which it does not hold; the tests replay its seeds.

use manager::launch::{LaunchEnd, LaunchReport, LaunchRequest, Reports};
use manager::restart::State;

/// A request, and after a NUL what a launcher reports. Reports mean the same in one piece and in several, and name no
/// process that may not be signalled.
pub(crate) fn launch(bytes: &[u8]) {
    let (request, reports) = match bytes.iter().position(|&byte| byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, bytes),
    };
    if let Ok(request) = serde_json::from_slice::<LaunchRequest>(request) {
        let text = serde_json::to_vec(&request).expect("a request serializes");
        let again: LaunchRequest = serde_json::from_slice(&text).expect("what is written can be read");
        assert!(again == request);
    }
    let (mut whole, mut parts) = (Reports::default(), Reports::default());
    let told = whole.push(reports);
    let mut told_in_parts = Vec::new();
    for part in reports.chunks(7) {
        told_in_parts.extend(parts.push(part));
    }
    assert_eq!(told, told_in_parts);
    let running: Vec<i32> = told
        .iter()
        .filter_map(|it| if let LaunchReport::Running { pid } = it { Some(*pid) } else { None })
        .collect();
    assert!(running.len() <= 1 && running.iter().all(|pid| *pid > 1), "{running:?}");
    let end = whole.end();
    assert_eq!(end, parts.end());
    if end == LaunchEnd::Started {
        assert!(told.contains(&LaunchReport::Executing));
    }
}

/// The state that a manager hands to its next program. One that is accepted can be handed on, and each of its user endpoints
/// has one name and one process.
pub(crate) fn restart(bytes: &[u8]) {
    let Ok(state) = serde_json::from_slice::<State>(bytes) else { return };
    let accepted = state.check();
    let text = serde_json::to_vec(&state).expect("a state serializes");
    let again: State = serde_json::from_slice(&text).expect("what is written can be read");
    assert!(again == state);
    assert_eq!(accepted, again.check());
    if accepted.is_ok() {
        let mut pids: Vec<i32> = state.children.iter().filter_map(|it| it.child.pid).collect();
        let mut names: Vec<&String> = state.children.iter().map(|it| &it.child.name).collect();
        assert_eq!(pids.len(), state.children.len());
        assert!(pids.iter().all(|pid| *pid > 1), "{pids:?}");
        pids.sort_unstable();
        names.sort_unstable();
        pids.dedup();
        names.dedup();
        assert_eq!((pids.len(), names.len()), (state.children.len(), state.children.len()));
    }
}
