//! The reading of pipes, and the file.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const ID: &str = "00000000-0000-4000-8000-000000000002";

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    // Without the time.
    text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[tokio::test]
async fn packets_become_lines_in_the_name_of_their_writer_also_over_a_restart() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("audit.log");
    let id: EndpointId = ID.parse().unwrap();
    let writer = Writer { uid: 1001, pid: 77, user_endpoint: id };
    let (ours, theirs) = pipe().unwrap();
    let again = ours.try_clone().unwrap();
    let mut log = AuditLog::open(&path, id).unwrap();
    log.record(Serial(0), ours, writer).unwrap();
    for packet in ["one RECEIVED", "one\nforged"] {
        nix::unistd::write(&theirs, packet.as_bytes()).unwrap();
    }
    while lines(&path).len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    log.finish(Session::Restarts).await;
    nix::unistd::write(&theirs, b"between").unwrap();
    let mut next = AuditLog::open(&path, id).unwrap();
    next.record(Serial(0), again, writer).unwrap();
    drop(theirs);
    next.finish(Session::Ends).await;
    let (uid, pid) = (nix::unistd::getuid(), std::process::id());
    let own = |words: &str| format!("uid={uid} pid={pid} eid={ID} {words}");
    let theirs = |words: &str| format!("uid=1001 pid=77 uep={ID} {words}");
    assert_eq!(
        lines(&path),
        [
            own("Begin MEP session ====="),
            theirs("one RECEIVED"),
            theirs("one forged"),
            own("End MEP session [hot restart] ....."),
            own("Begin MEP session ====="),
            theirs("between"),
            own("End MEP session -----"),
        ]
    );
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_session_begins_on_a_line_of_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("audit.log");
    for (before, lines) in [("", 1), ("whole line\n", 2), ("whole line\nhalf a li", 3)] {
        std::fs::write(&path, before).unwrap();
        let log = AuditLog::open(&path, ID.parse().unwrap()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), lines);
        assert!(text.lines().last().unwrap().ends_with("Begin MEP session ====="));
        log.finish(Session::Ends).await;
    }
}

#[tokio::test]
async fn a_full_disk_is_told() {
    let id: EndpointId = ID.parse().unwrap();
    assert!(AuditLog::open(Path::new("/dev/full"), id).is_err());
    // The first line fits, and then the disk is full.
    let mut log = AuditLog::of_thread(id, |lines, troubles| {
        lines.blocking_recv();
        troubles.blocking_send(Trouble::Unwritable("No space left on device".to_owned())).unwrap();
    });
    log.lines.send(Vec::new()).await.unwrap();
    assert_eq!(log.trouble().await, Trouble::Unwritable("No space left on device".to_owned()));
}

impl AuditLog {
    /// A log that this thread writes.
    fn of_thread(
        manager: EndpointId,
        writes: impl FnOnce(&mut mpsc::Receiver<Vec<u8>>, mpsc::Sender<Trouble>) + Send + 'static,
    ) -> Self {
        let (lines, mut inbox) = mpsc::channel::<Vec<u8>>(1);
        let (outbox, troubles) = mpsc::channel(MOST_TROUBLES);
        let reporter = outbox.clone();
        let written = std::thread::spawn(move || writes(&mut inbox, reporter));
        let stop = watch::channel(Stop::No).0;
        let budgets = HashMap::new();
        Self {
            manager,
            lines,
            troubles,
            outbox,
            readers: JoinSet::new(),
            ends: HashMap::new(),
            budgets,
            stop,
            written,
            patience: Duration::from_millis(50),
        }
    }
}

#[tokio::test]
async fn a_log_that_hangs_does_not_keep_the_manager_from_ending() {
    let id: EndpointId = ID.parse().unwrap();
    for session in [Session::Restarts, Session::Ends] {
        let (_hangs, released) = std::sync::mpsc::channel::<()>();
        let mut log = AuditLog::of_thread(id, move |_, _| {
            let _ = released.recv();
        });
        log.lines.send(Vec::new()).await.unwrap();
        let (ours, theirs) = pipe().unwrap();
        log.record(Serial(0), ours, Writer { uid: 1001, pid: 77, user_endpoint: id }).unwrap();
        nix::unistd::write(&theirs, b"it waits for the log").unwrap();
        log.finish(session).await;
    }
}

#[tokio::test]
async fn a_restart_leaves_in_the_pipe_what_it_does_not_record_and_loses_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("audit.log");
    let id: EndpointId = ID.parse().unwrap();
    let writer = Writer { uid: 1001, pid: 77, user_endpoint: id };
    let (ours, theirs) = pipe().unwrap();
    let again = ours.try_clone().unwrap();
    let mut log = AuditLog::open(&path, id).unwrap();
    log.record(Serial(0), ours, writer).unwrap();
    // A user that writes without end.
    let writes = std::thread::spawn(move || {
        for number in 0..5_000 {
            nix::unistd::write(&theirs, format!("packet {number}").as_bytes()).unwrap();
        }
    });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(3)).await;
        log.finish(Session::Restarts).await;
        log = AuditLog::open(&path, id).unwrap();
        log.record(Serial(0), again.try_clone().unwrap(), writer).unwrap();
    }
    drop(again);
    tokio::task::spawn_blocking(|| writes.join().unwrap()).await.unwrap();
    log.finish(Session::Ends).await;
    let packets: Vec<String> =
        lines(&path).iter().filter_map(|line| line.split_once("packet ").map(|it| it.1.to_owned())).collect();
    let expected: Vec<String> = (0..5_000).map(|number| number.to_string()).collect();
    assert_eq!(packets, expected);
}

#[tokio::test]
async fn two_pipes_of_a_user_share_what_the_user_may_write_and_another_user_is_not_held_back() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("audit.log");
    let id: EndpointId = ID.parse().unwrap();
    let mut log = AuditLog::open(&path, id).unwrap();
    let pipes: Vec<_> = [(0, 1001), (1, 1001), (2, 1002)]
        .map(|(serial, uid)| {
            let (ours, theirs) = pipe().unwrap();
            log.record(Serial(serial), ours, Writer { uid, pid: 77, user_endpoint: id }).unwrap();
            theirs
        })
        .into();
    let uid = |uid: u32| Arc::clone(&log.budgets[&uid]);
    assert_eq!(log.budgets.len(), 2);
    for pipe in &pipes[..2] {
        for _ in 0..8 {
            // Together, what a user earns in two seconds.
            nix::unistd::write(pipe, &[b'x'; PACKET]).unwrap();
        }
    }
    while lines(&path).len() < 17 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!locked(&uid(1001)).is_unused(clock::since_boot()));
    assert!(locked(&uid(1002)).is_unused(clock::since_boot()));
    drop(pipes);
    log.finish(Session::Ends).await;
}

/// Lines that are the user endpoint's.
fn recorded(path: &Path) -> usize {
    lines(path).iter().filter(|line| line.contains(" uep=")).count()
}

/// A log in which the user 1001 has to wait before each further packet.
fn in_debt(path: &Path) -> AuditLog {
    let mut log = AuditLog::open(path, ID.parse().unwrap()).unwrap();
    let budget = Arc::new(Mutex::new(Budget::default()));
    locked(&budget).take(64 << 20, true, clock::since_boot());
    log.budgets.insert(1001, budget);
    log
}

/// A pipe with as many packets as it can hold after its user has made it larger, and their number.
fn full_pipe() -> (OwnedFd, OwnedFd, usize) {
    let (ours, theirs) = pipe().unwrap();
    fcntl(&theirs, FcntlArg::F_SETPIPE_SZ(1 << 20)).unwrap();
    for _ in 0..256 {
        nix::unistd::write(&theirs, b"x").unwrap();
    }
    (ours, theirs, 256)
}

#[tokio::test]
async fn a_reader_whose_user_endpoint_has_ended_ends_although_another_process_holds_the_pipe() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("audit.log");
    let mut log = in_debt(&path);
    let writer = Writer { uid: 1001, pid: 77, user_endpoint: ID.parse().unwrap() };
    let (ours, theirs, packets) = full_pipe();
    log.record(Serial(0), ours, writer).unwrap();
    let (ours, _kept) = pipe().unwrap();
    log.record(Serial(1), ours, writer).unwrap();
    log.ended(Serial(0));
    let one = tokio::time::timeout(Duration::from_secs(20), log.readers.join_next()).await;
    one.expect("the reader has to end").unwrap().unwrap();
    let closed = nix::unistd::write(&theirs, b"in the name of a user endpoint that is gone");
    assert_eq!(closed, Err(nix::errno::Errno::EPIPE));
    assert_eq!((log.readers.len(), log.ends.len()), (1, 1), "that of the other user endpoint");
    log.finish(Session::Ends).await;
    assert_eq!(recorded(&path), packets);
}

#[tokio::test]
async fn what_is_in_a_pipe_at_a_stop_is_recorded_although_its_user_is_held_back() {
    let scratch = tempfile::tempdir().unwrap();
    let writer = Writer { uid: 1001, pid: 77, user_endpoint: ID.parse().unwrap() };
    for (name, ended, session) in
        [("stop", false, Session::Ends), ("ended before a hot restart", true, Session::Restarts)]
    {
        let path = scratch.path().join(name);
        let mut log = in_debt(&path);
        let (ours, _kept, packets) = full_pipe();
        log.record(Serial(0), ours, writer).unwrap();
        while recorded(&path) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if ended {
            log.ended(Serial(0));
        }
        log.finish(session).await;
        assert_eq!(recorded(&path), packets, "{name}");
    }
}

#[tokio::test]
async fn readers_that_have_ended_take_no_memory() {
    let scratch = tempfile::tempdir().unwrap();
    let id: EndpointId = ID.parse().unwrap();
    let mut log = AuditLog::open(&scratch.path().join("audit.log"), id).unwrap();
    for number in 0..50 {
        let (ours, theirs) = pipe().unwrap();
        log.record(Serial(number), ours, Writer { uid: 1001, pid: 77, user_endpoint: id }).unwrap();
        drop(theirs);
        log.ended(Serial(number));
        // The reader sees that the pipe is closed.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(log.readers.len() < 10, "{} readers are kept", log.readers.len());
    log.finish(Session::Ends).await;
}
