//! Real processes, as launchers and user endpoints.

use std::process::Stdio;

use super::*;

/// A child that was launched a while ago.
fn child(processes: &mut Processes, script: &str) -> (Serial, i32) {
    child_writing_to(processes, script, Stdio::inherit())
}

#[expect(clippy::zombie_processes, reason = "this module reaps it")]
fn child_writing_to(processes: &mut Processes, script: &str, output: Stdio) -> (Serial, i32) {
    let child = std::process::Command::new("sh").args(["-c", script]).stdout(output).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    (processes.add(Process::new("uep".to_owned(), pid)), pid)
}

/// A reader of reports that never end.
fn launching(processes: &mut Processes, serial: Serial) -> &mut Process {
    let process = processes.children.get_mut(&serial).unwrap();
    process.launching = true;
    process.reader = Some(tokio::spawn(std::future::pending::<()>()).abort_handle());
    process
}

/// Whether a process has this signal in one of its sets.
fn has_signal(pid: i32, set: &str, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix(set)).unwrap().trim();
    u64::from_str_radix(mask, 16).unwrap() & (1 << (signal as u32 - 1)) != 0
}

async fn until_reaped(processes: &mut Processes, serial: Serial) {
    while processes.children[&serial].ended.is_none() {
        processes.reap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_child_that_a_real_time_signal_killed_has_ended() {
    for (script, expected) in [
        ("kill -34 $$", ExitStatus::Signal(34)),
        ("kill -64 $$", ExitStatus::Signal(64)),
        ("exit 3", ExitStatus::Code(3)),
    ] {
        let mut processes = Processes::default();
        let (ended, _) = child(&mut processes, script);
        until_reaped(&mut processes, ended).await;
        assert!(processes.has_news(), "it is not told yet");
        // Its number may be another's now.
        processes.signal(Signalled::Kill(ended));
        let event = processes.event().await;
        assert!(
            matches!(event, ProcessEvent::Exited { serial, status } if serial == ended && status == expected),
            "{event:?}"
        );
        assert!(!processes.has_news(), "it is told");
    }
}

#[tokio::test]
async fn the_end_is_told_after_the_last_report_and_within_some_time() {
    for reports_end in [true, false] {
        let mut processes = Processes::default();
        let (ours, _) = child(&mut processes, "exit 0");
        launching(&mut processes, ours);
        until_reaped(&mut processes, ours).await;
        processes.give_up_on_reports();
        assert!(processes.inbox.is_empty() && processes.has_news(), "the pipe has some time");
        if reports_end {
            let end = ProcessEvent::LaunchEnded { serial: ours, end: LaunchEnd::Started };
            processes.outbox.send(end).unwrap();
            let first = processes.event().await;
            assert!(matches!(first, ProcessEvent::LaunchEnded { .. }), "{first:?}");
            assert!(processes.children.contains_key(&ours), "what it wrote can still be recorded");
        } else {
            let (status, since) = processes.children[&ours].ended.unwrap();
            let before = since.checked_sub(REPORTS_PATIENCE).unwrap();
            processes.children.get_mut(&ours).unwrap().ended = Some((status, before));
            processes.give_up_on_reports();
        }
        let last = processes.event().await;
        assert!(matches!(last, ProcessEvent::Exited { serial, .. } if serial == ours), "{last:?}");
        // Late reports are of nobody, and the next launch of the name is another one, which ends once.
        let (next, _) = child(&mut processes, "exec sleep 60");
        assert_ne!(next, ours);
        launching(&mut processes, next);
        for serial in [ours, next, next] {
            let end = ProcessEvent::LaunchEnded { serial, end: LaunchEnd::Started };
            processes.outbox.send(end).unwrap();
        }
        processes.outbox.send(ProcessEvent::Exited { serial: next, status: ExitStatus::Unknown }).unwrap();
        processes.signal(Signalled::Kill(next));
        let told = [processes.event().await, processes.event().await];
        assert!(
            matches!(told, [ProcessEvent::LaunchEnded { serial, .. }, ProcessEvent::Exited { .. }] if serial == next),
            "{told:?}"
        );
    }
}

#[tokio::test]
async fn the_holder_of_a_session_is_told_to_kill_and_no_number_that_was_reported_is_signalled() {
    let mut processes = Processes::default();
    let (holder, pid) = child(&mut processes, "trap 'exit 5' USR1; while :; do sleep 0.02; done");
    let mut bystander = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let other = i32::try_from(bystander.id()).unwrap();
    while !has_signal(pid, "SigCgt:", Signal::SIGUSR1) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for reported in [other, 0, 1, -1] {
        let report = LaunchReport::Running { pid: reported };
        processes.outbox.send(ProcessEvent::Reported { serial: holder, report }).unwrap();
        processes.event().await;
    }
    processes.signal(Signalled::KillHeld(holder));
    until_reaped(&mut processes, holder).await;
    let event = processes.event().await;
    assert!(
        matches!(event, ProcessEvent::Exited { status: ExitStatus::Code(5), .. }),
        "the holder ends by itself: {event:?}"
    );
    assert!(bystander.try_wait().unwrap().is_none(), "it lives");
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
        let (serial, _) = child_writing_to(&mut processes, "exec sleep 60", output);
        launching(&mut processes, serial).report_pipe = Some(fstat(&reader).unwrap().st_ino);
        processes.outbox.send(ProcessEvent::Reported { serial, report: LaunchReport::Executing }).unwrap();
        processes.event().await;
        processes.give_up_on_reports();
        assert!(processes.inbox.is_empty(), "the pipe has some time");
        let long_ago = Instant::now().checked_sub(EXECUTING_PATIENCE);
        processes.children.get_mut(&serial).unwrap().executing = long_ago;
        processes.give_up_on_reports();
        assert_eq!(!processes.inbox.is_empty(), runs);
        assert_eq!(processes.children[&serial].reader.is_none(), runs);
        processes.signal(Signalled::Kill(serial));
    }
}

#[tokio::test]
async fn what_a_short_user_endpoint_wrote_is_recorded_after_its_end() {
    // Whether its launcher's reports have ended by then, or end later, or never.
    for is_launching in [false, true] {
        let mut processes = Processes::default();
        let (ours, theirs) = audit_log::pipe().unwrap();
        let (serial, _) = child_writing_to(&mut processes, "printf record", theirs.into());
        if is_launching {
            launching(&mut processes, serial);
        }
        processes.children.get_mut(&serial).unwrap().audit_pipe = Some(ours);
        until_reaped(&mut processes, serial).await;
        if is_launching {
            processes.outbox.send(ProcessEvent::LaunchEnded { serial, end: LaunchEnd::Started }).unwrap();
            assert!(matches!(processes.event().await, ProcessEvent::LaunchEnded { .. }));
        } else {
            assert!(matches!(processes.event().await, ProcessEvent::Exited { .. }));
        }
        let pipe = processes.audit_pipe(serial).unwrap().unwrap();
        let mut packet = [0; 16];
        let length = nix::unistd::read(&pipe, &mut packet).unwrap();
        assert_eq!(&packet[..length], b"record");
        assert!(processes.audit_pipe(serial).is_none(), "once");
    }
}

#[tokio::test]
async fn a_pipe_that_somebody_reads_is_not_read_twice() {
    let mut processes = Processes::default();
    let (serial, pid) = child(&mut processes, "exec sleep 60");
    let (ours, _theirs) = audit_log::pipe().unwrap();
    processes.children.get_mut(&serial).unwrap().audit_pipe = Some(ours);
    assert!(processes.is_child(pid));
    assert!(processes.audit_pipe(serial).unwrap().is_ok());
    processes.signal(Signalled::Kill(serial));
    until_reaped(&mut processes, serial).await;
    assert!(!processes.is_child(pid));
    processes.event().await;
    assert!(processes.audit_pipe(serial).is_none());
}

#[tokio::test]
async fn the_next_program_gets_no_descriptor_of_a_child_that_has_ended() {
    let mut processes = Processes::default();
    let credentials = FreeForm::default();
    let mut with_file = |script| {
        let (serial, _) = child(&mut processes, script);
        let content = Content { amqp_creds: &credentials, allowed_functions: None };
        let (renewed, _) = RenewedCredentials::create(content, 1).unwrap();
        let number = renewed.descriptor().as_raw_fd();
        processes.children.get_mut(&serial).unwrap().renewed = Some(renewed);
        (serial, number)
    };
    let ((ended, of_ended), (running, of_running)) = (with_file("exit 0"), with_file("exec sleep 60"));
    until_reaped(&mut processes, ended).await;
    processes.event().await;
    processes.leave_open().unwrap();
    let is_closed_at_exec = |number: i32| {
        // SAFETY: it reads the flags of a descriptor that is open.
        unsafe { libc::fcntl(number, libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
    };
    assert!(is_closed_at_exec(of_ended) && !is_closed_at_exec(of_running));
    processes.signal(Signalled::Kill(running));
}
