//! What becomes of launches.

use super::*;

#[test]
fn a_launch_that_fails_is_told_in_the_words_of_the_launcher() {
    let text = "Unable to start user endpoint process for harper [exit code: 71; (PermissionError) see your system administrator]";
    let private = "(error code: 7 [PAM_AUTH_ERR]) Authentication failure\x1b[2K\nBegin";
    let shown = "Authentication failure?[2K\n  Begin";
    let failure = LaunchFailure { status: 71, notice: text.to_owned(), private: private.to_owned() };
    for (end, notice, log) in [
        (LaunchEnd::Failed(failure), text, shown),
        (LaunchEnd::Lost, "General or unknown failure starting user endpoint", "ended without a report"),
    ] {
        let mut scene = Scene::new(settings());
        let asked = scene.command(2, "one", 10);
        scene.map(&asked, "harper");
        scene.apply(Event::Spawned { name: &name(2), serial: serial(5), pid: 5 });
        scene.apply(Event::LaunchEnded { serial: serial(5), end });
        let ended = scene.apply(Event::Exited { serial: serial(5), status: ExitStatus::Code(71) });
        assert_eq!(notices(&ended), [notice]);
        assert!(texts(&ended)[0].starts_with("Command return code: 71 (5)"));
        assert!(texts(&ended)[1].contains(log), "the reason is for the log");
    }
}

#[test]
fn the_number_of_a_process_that_is_used_again_means_another_launch() {
    let mut scene = Scene::new(Settings { starts_at_a_time: 8, ..settings() });
    for (user_endpoint, launch) in [(2, 1), (3, 2)] {
        let asked = scene.command(user_endpoint, "one", 10);
        scene.map(&asked, "harper");
        scene.apply(Event::Spawned { name: &name(user_endpoint), serial: Serial(launch), pid: 5 });
    }
    let failure = LaunchFailure { status: 71, notice: "no".to_owned(), private: String::new() };
    scene.apply(Event::LaunchEnded { serial: Serial(1), end: LaunchEnd::Failed(failure) });
    let ended = scene.apply(Event::Exited { serial: Serial(1), status: ExitStatus::Code(71) });
    assert_eq!(notices(&ended), ["no"]);
    assert_eq!(scene.core.children().iter().map(|it| it.name.clone()).collect::<Vec<_>>(), [name(3)]);
    assert_eq!(scene.apply(Event::Exited { serial: Serial(1), status: ExitStatus::Code(0) }), []);
    scene.apply(Event::LaunchEnded { serial: Serial(2), end: LaunchEnd::Started });
    assert!(scene.core.is_settled());
}

#[test]
fn a_process_that_cannot_be_started_is_told() {
    let mut scene = Scene::new(settings());
    let asked = scene.command(2, "one", 10);
    scene.map(&asked, "harper");
    let failed = scene.apply(Event::NotSpawned { name: &name(2), problem: "EAGAIN".to_owned() });
    assert!(notices(&failed)[0].contains("could not start a process"));
    assert!(scene.core.children().is_empty());
}

#[test]
fn with_pam_the_user_endpoint_has_its_own_process() {
    let mut settings = settings();
    settings.launch.pam_service = Some("gce".to_owned());
    let mut scene = Scene::new(settings);
    let asked = scene.command(2, "one", 10);
    scene.map(&asked, "harper");
    scene.apply(Event::Spawned { name: &name(2), serial: serial(5), pid: 5 });
    let found = LaunchReport::UserFound { uid: 1, gid: 1 };
    assert_eq!(scene.apply(Event::Reported { serial: serial(5), report: found }), []);
    let running =
        scene.apply(Event::Reported { serial: serial(5), report: LaunchReport::Running { pid: 6 } });
    assert!(texts(&running)[0].starts_with("Creating new user endpoint (pid: 6)"));
    scene.apply(started(5));
    let stopping = scene.apply(Event::Stop);
    assert!(stopping.contains(&Action::Signal(Signalled::Terminate(serial(5)))));
    let hurried = scene.apply(Event::Stop);
    assert!(
        hurried.contains(&Action::Signal(Signalled::KillHeld(serial(5)))),
        "its holder closes the session"
    );
    let ended = scene.apply(Event::Exited { serial: serial(5), status: ExitStatus::Code(0) });
    assert!(texts(&ended)[0].starts_with("Command stopped normally (6)"));
}
