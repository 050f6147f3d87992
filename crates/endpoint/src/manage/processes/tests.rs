//! Real processes, as launchers and user endpoints.

use std::process::Stdio;

use super::*;

/// A child that was launched a while ago.
fn child(processes: &mut Processes, script: &str) -> i32 {
    child_writing_to(processes, script, Stdio::inherit())
}

#[expect(clippy::zombie_processes, reason = "this module reaps it")]
fn child_writing_to(processes: &mut Processes, script: &str, output: Stdio) -> i32 {
    let child = std::process::Command::new("sh").args(["-c", script]).stdout(output).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let name = "uep".to_owned();
    let process = Process {
        name,
        renewed: None,
        audit_pipe: None,
        recorded: false,
        launching: false,
        executing: None,
        report_pipe: None,
        user_endpoint: None,
    };
    processes.children.insert(pid, process);
    pid
}

#[tokio::test]
async fn a_child_that_a_real_time_signal_killed_has_ended() {
    for (script, expected) in [
        ("kill -34 $$", ExitStatus::Signal(34)),
        ("kill -64 $$", ExitStatus::Signal(64)),
        ("exit 3", ExitStatus::Code(3)),
    ] {
        let mut processes = Processes::default();
        let ended = child(&mut processes, script);
        while !processes.children.is_empty() {
            processes.reap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let event = processes.event().await;
        assert!(
            matches!(event, ProcessEvent::Exited { pid, status } if pid == ended && status == expected),
            "{event:?}"
        );
        // Its number may be another's now.
        processes.signal(Signalled::Kill { group: ended, child: ended });
    }
}

#[tokio::test]
async fn only_the_user_endpoint_of_a_session_is_killed_and_no_number_that_was_reported() {
    let mut processes = Processes::default();
    let holder = child(&mut processes, "sleep 60 & wait $!; exit 5");
    let mut bystander = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let other = i32::try_from(bystander.id()).unwrap();
    let told = |pid| ProcessEvent::Reported { pid: holder, report: LaunchReport::Running { pid } };
    for false_number in [other, 0, 1, -1] {
        processes.outbox.send(told(false_number)).unwrap();
        processes.event().await;
        processes.signal(Signalled::Kill { group: false_number, child: holder });
    }
    assert!(bystander.try_wait().unwrap().is_none(), "it lives");
    let children = format!("/proc/{holder}/task/{holder}/children");
    let own = loop {
        let text = std::fs::read_to_string(&children).unwrap();
        if let Some(number) = text.split_ascii_whitespace().next() {
            break number.parse().unwrap();
        }
    };
    processes.outbox.send(told(own)).unwrap();
    processes.event().await;
    processes.signal(Signalled::Kill { group: own, child: holder });
    while !processes.children.is_empty() {
        processes.reap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let event = processes.event().await;
    assert!(
        matches!(event, ProcessEvent::Exited { status: ExitStatus::Code(5), .. }),
        "the holder ends by itself: {event:?}"
    );
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test]
async fn a_user_endpoint_whose_report_pipe_stays_open_runs() {
    for runs in [true, false] {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut processes = Processes::default();
        // One that has the pipe itself has not executed the user endpoint.
        let output = if runs { Stdio::null() } else { writer.try_clone().unwrap().into() };
        let pid = child_writing_to(&mut processes, "exec sleep 60", output);
        let process = processes.children.get_mut(&pid).unwrap();
        process.launching = true;
        process.report_pipe = Some(fstat(&reader).unwrap().st_ino);
        processes.outbox.send(ProcessEvent::Reported { pid, report: LaunchReport::Executing }).unwrap();
        processes.event().await;
        processes.give_up_on_reports();
        assert!(processes.inbox.try_recv().is_err(), "the pipe has some time");
        let long_ago = Instant::now().checked_sub(EXECUTING_PATIENCE);
        processes.children.get_mut(&pid).unwrap().executing = long_ago;
        processes.give_up_on_reports();
        assert_eq!(processes.inbox.try_recv().is_ok(), runs);
        processes.signal(Signalled::Kill { group: pid, child: pid });
    }
}

#[tokio::test]
async fn what_a_short_user_endpoint_wrote_is_recorded_after_its_end() {
    // Whether its launcher's reports have ended by then, or end later, or never.
    for launching in [false, true] {
        let mut processes = Processes::default();
        let (ours, theirs) = audit_log::pipe().unwrap();
        let pid = child_writing_to(&mut processes, "printf record", theirs.into());
        let process = processes.children.get_mut(&pid).unwrap();
        (process.audit_pipe, process.launching) = (Some(ours), launching);
        while !processes.children.is_empty() {
            processes.reap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if launching {
            let end = LaunchEnd::Started;
            processes.outbox.send(ProcessEvent::LaunchEnded { pid, end }).unwrap();
            assert!(matches!(processes.event().await, ProcessEvent::LaunchEnded { .. }));
        } else {
            assert!(matches!(processes.event().await, ProcessEvent::Exited { .. }));
        }
        let pipe = processes.audit_pipe(pid).unwrap().unwrap();
        let mut packet = [0; 16];
        let length = nix::unistd::read(&pipe, &mut packet).unwrap();
        assert_eq!(&packet[..length], b"record");
        assert!(processes.audit_pipe(pid).is_none(), "once");
    }
}

#[tokio::test]
async fn a_pipe_that_somebody_reads_is_not_read_twice() {
    let mut processes = Processes::default();
    let pid = child(&mut processes, "exec sleep 60");
    let (ours, _theirs) = audit_log::pipe().unwrap();
    processes.children.get_mut(&pid).unwrap().audit_pipe = Some(ours);
    assert!(processes.audit_pipe(pid).unwrap().is_ok());
    processes.signal(Signalled::Kill { group: pid, child: pid });
    while !processes.children.is_empty() {
        processes.reap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(processes.audit_pipe(pid).is_none());
}
