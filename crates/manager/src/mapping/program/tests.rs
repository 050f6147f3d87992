//! Programs that behave badly.

use std::path::Path;

use super::*;

fn shell(script: &str, input: &[u8], limit: Duration) -> Result<Vec<u8>, ProgramError> {
    let command = ["/bin/sh", "-c", script].map(str::to_owned);
    run(&command, input, Instant::now() + limit)
}

/// The id that a script wrote to a file.
fn written_pid(file: &Path) -> Pid {
    Pid::from_raw(std::fs::read_to_string(file).unwrap().trim().parse().unwrap())
}

/// Whether a process runs; a zombie does not.
fn lives(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn ends_soon(pid: Pid) -> bool {
    let limit = Instant::now() + Duration::from_secs(2);
    while lives(pid) && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(10));
    }
    !lives(pid)
}

#[test]
fn input_and_output_larger_than_a_pipe_pass() {
    let input = vec![b'x'; 900_000];
    assert_eq!(shell("cat", &input, Duration::from_secs(30)).unwrap(), input);
}

#[test]
fn a_program_need_not_read_its_input() {
    assert_eq!(
        shell("exec <&-; echo done", &vec![b'x'; 900_000], Duration::from_secs(30)).unwrap(),
        b"done\n"
    );
}

#[test]
fn standard_error_is_shortened() {
    let error = shell("head -c 500000 /dev/zero >&2; exit 1", b"", Duration::from_secs(30)).unwrap_err();
    let ProgramError::Failed { stderr, .. } = &error else { panic!("{error:?}") };
    assert_eq!(stderr.len(), COMPLAINT_LIMIT);
    assert!(error.to_string().len() < 2000, "{error}");
    assert!(!error.to_string().contains('\0'));
}

#[test]
fn endless_output_is_cut_off() {
    let error = shell("yes", b"", Duration::from_secs(60)).unwrap_err();
    assert!(matches!(error, ProgramError::TooMuchOutput { .. }), "{error:?}");
    let error = shell("yes >&2", b"", Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, ProgramError::TimedOut { .. }), "{error:?}");
}

/// Fails when a grandchild survives the end of the time.
#[test]
fn the_whole_group_is_killed_when_the_time_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let script = format!("trap '' TERM HUP; sleep 1000 & echo $! > {}; wait", file.display());
    let error = shell(&script, b"", Duration::from_millis(500)).unwrap_err();
    assert_eq!(
        (error.exception(), error.to_string().contains("did not end within 0.5 s")),
        ("TimeoutExpired", true)
    );
    assert!(ends_soon(written_pid(&file)));
}

/// Fails when a process that keeps the pipes open makes the program's answer wait, or stays.
#[test]
fn a_process_left_behind_is_killed_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let started = Instant::now();
    let script = format!("sleep 1000 & echo $! > {}; echo answer", file.display());
    assert_eq!(shell(&script, b"", Duration::from_secs(60)).unwrap(), b"answer\n");
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(ends_soon(written_pid(&file)));
}

/// Fails when the program inherits a blocked signal, or the manager's terminal.
#[test]
fn signals_reach_the_program_and_it_leads_its_session() {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTERM);
    blocked.thread_block().unwrap();
    let error = shell("kill -TERM $$; sleep 5", b"", Duration::from_secs(30)).unwrap_err();
    blocked.thread_unblock().unwrap();
    assert_eq!(error.to_string(), "/bin/sh: signal: 15 (SIGTERM)");
    let leads = r#"read -r _ _ _ _ group session _ < /proc/$$/stat; test "$group $session" = "$$ $$""#;
    assert!(shell(leads, b"", Duration::from_secs(30)).is_ok());
}

/// Fails when a file server that does not answer makes the manager start processes and threads without end.
#[test]
fn none_is_started_while_many_that_were_killed_have_not_ended() {
    UNENDED.store(MOST_UNENDED, Ordering::Relaxed);
    let error = shell("true", b"", Duration::from_secs(30)).unwrap_err();
    assert_eq!(error.to_string(), "/bin/sh: not started, because 64 killed programs have not ended");
    UNENDED.store(0, Ordering::Relaxed);
    assert!(shell("true", b"", Duration::from_secs(30)).is_ok());
}
