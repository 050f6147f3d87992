//! One endpoint, two processes: the process that has the task queue owns the files, and `stop` signals no other process.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::fake_service::FakeService;
use crate::home::{Home, alive, signal, wait_until};
use crate::{ID, registration};

/// The content of a file, and when it was last written.
type FileState = (Vec<u8>, SystemTime);

/// Every file below a directory.
fn files(directory: &Path) -> BTreeMap<PathBuf, FileState> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.file_type().unwrap().is_file() {
            let modified = entry.metadata().unwrap().modified().unwrap();
            found.insert(entry.path(), (fs::read(entry.path()).unwrap(), modified));
        }
    }
    found
}

/// Makes the files of a running endpoint look like those of a process on another host that has been silent for years.
fn as_from_another_host(home: &Home, name: &str) {
    let path = home.path(name).join("daemon.host");
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    (lines[0], lines[4]) = ("login02", "another boot");
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
    for path in [path, home.path(name).join("daemon.pid")] {
        fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
}

/// The first process still has the queue, whatever its files say: the second waits, and changes no file.
#[test]
fn a_process_that_is_refused_changes_no_file() {
    let answer = registration(ID);
    let service = FakeService::start(move |_| (200, answer.clone()));
    let home = Home::new(&service);
    home.configure(
        "ep",
        "engine: {provider: {type: LocalProvider, init_blocks: 0}}\nheartbeat_period: 600\n",
    );
    assert_eq!(home.run(&["start", "ep"]).status, 0);
    let first = home.pid("ep");
    // It writes its log on a thread of its own: these are the last lines for now.
    wait_until(|| {
        fs::read_to_string(home.path("ep/endpoint.log")).unwrap().contains("connected to the broker")
    });
    as_from_another_host(&home, "ep");
    let before = files(&home.path("ep"));
    let mut second = home.command(&["start", "ep"]);
    let mut second = second.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut output = std::io::BufReader::new(second.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert!(line.contains("another process already takes this endpoint's tasks"), "{line}");
    // The background process ends when the `start` that waits for it is gone.
    signal(i32::try_from(second.id()).unwrap(), libc::SIGKILL);
    second.wait().unwrap();
    // Its output ends when it has ended.
    std::io::Read::read_to_string(&mut output, &mut line).unwrap();
    assert_eq!(files(&home.path("ep")), before);
    assert!(alive(first));
    signal(first, libc::SIGTERM);
    wait_until(|| !alive(first));
    assert_eq!(
        fs::read(home.path("ep/daemon.host")).unwrap(),
        before[&home.path("ep/daemon.host")].0,
        "not its own"
    );
}

/// A second start of the endpoint succeeds while the first still runs `endpoint_setup`. The first must not register: that
/// would invalidate the credentials of the running process.
#[test]
fn a_start_after_another_start_does_not_register() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    // Only the first start creates the directory, and then waits for the file `go_on`.
    let setup = "if mkdir first; then while [ ! -e go_on ]; do sleep 0.05; done; fi; true";
    home.configure(
        "ep",
        &format!(
            "endpoint_setup: '{setup}'\nengine: {{provider: {{type: LocalProvider, init_blocks: 0}}}}\n"
        ),
    );
    let start = || {
        let mut command = home.command(&["start", "ep"]);
        command.current_dir(home.path(""));
        command
    };
    let first = start().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(|| home.path("first").exists());
    assert!(start().output().unwrap().status.success());
    fs::write(home.path("go_on"), "").unwrap();
    let refused = first.wait_with_output().unwrap();
    let err = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), &*err), (Some(255), "Endpoint 'ep' is already active\n"));
    let registrations =
        service.requests().iter().filter(|request| request.line.contains("/v3/endpoints")).count();
    assert_eq!(registrations, 1, "only the second start registered");
    assert_eq!(home.run(&["stop", "ep"]).status, 0);
}

/// The PID in the file may belong to another process by now: to another endpoint, or to a program with such a title.
#[test]
fn stop_signals_no_other_process() {
    let service = FakeService::start(|_| (200, registration(ID)));
    let home = Home::new(&service);
    let other = "7b4a1a3e-3f55-4c7e-9d1a-0f4f0b6f8c12";
    home.configure("ep", "engine: {}\n");
    fs::write(home.path("ep/endpoint.json"), format!("{{\"endpoint_id\": \"{ID}\"}}")).unwrap();
    let titles = [
        format!("less Globus Compute Endpoint ({ID}, ep)"),
        format!("Globus Compute Endpoint ({other}, other) [start]"),
        "globus-compute-endpoint".to_owned(),
    ];
    for title in titles {
        let mut bystander = Command::new("sleep").arg0(&title).arg("600").spawn().unwrap();
        let pid = i32::try_from(bystander.id()).unwrap();
        wait_until(|| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(title.as_bytes()))
        });
        fs::write(home.path("ep/daemon.pid"), format!("{pid}\n")).unwrap();
        let stopped = home.run(&["stop", "ep"]);
        assert_eq!((stopped.status, &*stopped.err), (0, "> Endpoint <ep> has been cleaned up.\n"), "{title}");
        assert_eq!(bystander.try_wait().unwrap(), None, "{title}");
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }
    // Another endpoint has the PID of one that was killed.
    home.configure("other", "engine: {provider: {type: LocalProvider, init_blocks: 0}}\n");
    assert_eq!(home.run(&["start", "other"]).status, 0);
    let pid = home.pid("other");
    let record = fs::read_to_string(home.path("other/daemon.host")).unwrap();
    let mut lines: Vec<_> = record.lines().map(str::to_owned).collect();
    lines[3] = (lines[3].parse::<u64>().unwrap() - 1).to_string();
    fs::write(home.path("ep/daemon.host"), lines.join("\n") + "\n").unwrap();
    fs::write(home.path("ep/daemon.pid"), format!("{pid}\n")).unwrap();
    assert_eq!(home.run(&["stop", "ep"]).err, "> Endpoint <ep> has been cleaned up.\n");
    assert!(alive(pid));
    assert_eq!(home.run(&["stop", "other"]).err, "> Endpoint <other> is now stopped\n");
    assert!(!alive(pid));
}

/// Without a broker it is not known whether the endpoint runs: `start` says so, and a signal aborts it.
#[test]
fn start_waits_for_the_broker_and_writes_nothing() {
    let mut answer = registration(ID);
    for queue in ["task_queue_info", "result_queue_info", "heartbeat_queue_info"] {
        // Nothing listens on this port.
        answer[queue]["connection_url"] = "amqp://u:p@127.0.0.1:9/".into();
    }
    let service = FakeService::start(move |_| (200, answer.clone()));
    let home = Home::new(&service);
    home.configure("ep", "engine: {}\ndetach_endpoint: false\n");
    let mut command = home.command(&["start", "ep"]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut output = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert!(line.starts_with("> no connection to the broker: "), "{line}");
    for file in ["daemon.pid", "daemon.host", "journal", "unacked_results", "endpoint.log"] {
        assert!(!home.path("ep").join(file).exists(), "{file}");
    }
    signal(i32::try_from(child.id()).unwrap(), libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    std::io::Read::read_to_string(&mut output, &mut line).unwrap();
    assert!(line.ends_with("Aborted!\n"), "{line}");
}

#[test]
fn refused_credentials_are_reported() {
    let mut answer = registration(ID);
    for queue in ["task_queue_info", "result_queue_info", "heartbeat_queue_info"] {
        let url = answer[queue]["connection_url"].as_str().unwrap().replace("u:p@", "u:wrong@");
        answer[queue]["connection_url"] = url.into();
    }
    let service = FakeService::start(move |_| (200, answer.clone()));
    let home = Home::new(&service);
    home.configure("ep", "engine: {}\n");
    let refused = home.run(&["start", "ep"]);
    assert_eq!(refused.status, 77, "{refused:?}");
    assert!(
        refused.err.contains("the broker does not accept the credentials of endpoint 'ep'"),
        "{refused:?}"
    );
    assert!(!refused.err.contains("wrong"), "no password on a terminal");
}
