//! Starts without PAM, as another user.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use manager::launch::{LaunchEnd, LaunchReport, OpenFiles};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::bed::{Account, Bed, ManagerProcess, NAME, Record, launch, launch_with, sleeper, wait_until};

pub(crate) const TESTS: &[super::Test] = &[
    ("plain::becomes_the_user_and_nothing_else", true, becomes_the_user),
    ("plain::a_manager_with_two_capabilities", true, two_capabilities),
    ("plain::signals_are_reset", true, signals),
    ("plain::passes_the_document_and_its_descriptors", true, passes_descriptors),
    ("plain::large_documents", true, large_documents),
    ("plain::the_environment_selects_program_and_command", true, environment),
    ("plain::who_is_refused", true, refusals),
    ("plain::odd_accounts", true, odd_accounts),
    ("plain::a_debugged_template_is_in_the_log", true, debug),
    ("plain::the_limit_of_open_files", true, open_files),
    ("plain::only_a_manager_starts_it", false, by_hand),
];

fn becomes_the_user() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    // A setuid program of root's.
    let id = alicia.home().join("id");
    fs::copy("/usr/bin/id", &id).unwrap();
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).unwrap();

    let launched = launch(&bed.request(Some(&alicia.name)));
    let uid = alicia.uid();
    assert!(matches!(launched.reports[0], LaunchReport::UserFound { uid: found, .. } if found == uid));
    let record = Record::of(&alicia.home(), &launched);

    let pid = launched.pid.to_string();
    assert_eq!(record.one("status Pid:"), pid);
    assert_eq!(record.one("status PPid:"), std::process::id().to_string());
    assert_eq!(record.one("status Uid:"), vec![uid.to_string(); 4].join("\t"));
    let output = |options: &[&str]| {
        let output = Command::new("id").args(options).arg(&alicia.name).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let gid = output(&["-g"]);
    assert_eq!(record.one("status Gid:"), [gid.as_str(); 4].join("\t"));
    assert_eq!(record.one("status Groups:"), output(&["-G"]));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
        assert_eq!(record.one(&format!("status {set}:")), "0000000000000000", "{set}");
    }
    assert_eq!(record.one("status NoNewPrivs:"), "1");
    assert_eq!(record.one("setuid "), uid.to_string());
    // Process group, session, and no terminal: the fields after the parent.
    let stat: Vec<&str> = record.one("stat ").rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_eq!(stat[2..5], [pid.as_str(), pid.as_str(), "0"]);
    assert_eq!(record.one("umask "), "0077");
    assert_eq!(record.one("cwd "), alicia.home().display().to_string());
    let arguments = record.all("argument ");
    assert!(arguments[0].ends_with("/globus-compute-endpoint"));
    assert_eq!(arguments[1..], ["start", NAME, "--die-with-parent"]);

    let names: BTreeSet<&str> =
        record.all("environment ").iter().filter_map(|it| Some(it.split_once('=')?.0)).collect();
    let allowed = ["PATH", "HOME", "USER", "PWD", "CWD", "OLDPWD", "SHLVL", "_"];
    assert!(names.iter().all(|name| allowed.contains(name)), "{names:?}");
    // The script itself is open at 10.
    let open: Vec<&str> = record
        .all("descriptor ")
        .into_iter()
        .filter_map(|line| line.split_once(" -> "))
        .map(|it| it.0)
        .collect();
    let open: Vec<i32> = open
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .filter(|number| *number < 10)
        .collect();
    assert_eq!(open, [0, 1, 2]);

    let mode = |path: &std::path::Path| {
        let data = path.metadata().unwrap();
        (data.uid(), data.mode() & 0o7777)
    };
    assert_eq!(mode(&alicia.directory()), (uid, 0o700));
    let log = alicia.directory().join("endpoint.log");
    assert_eq!(mode(&log), (uid, 0o600));
    wait_until(|| fs::read_to_string(&log).unwrap().contains("said to the log\n"));
    launched.kill(Signal::SIGKILL);
    launched.wait();
}

/// A manager that isn't root, and may change users all the same.
fn two_capabilities() {
    let (bed, alicia, service) = (Bed::new(), Account::with_home(), Account::new(&["-M"]));
    std::os::unix::fs::chown(bed.path("."), Some(service.uid()), None).unwrap();
    let uid = service.uid().to_string();
    let as_service = [
        "setpriv",
        "--reuid",
        &uid,
        "--regid",
        &uid,
        "--clear-groups",
        "--inh-caps",
        "-all,+setuid,+setgid",
        "--ambient-caps",
        "-all,+setuid,+setgid",
    ];
    let manager = ManagerProcess::start_by(&as_service, &bed, &bed.request(Some(&alicia.name)));
    assert_eq!(manager.launched().1, "Started");
    wait_until(|| alicia.home().join("record").exists());
    let record = Record(fs::read_to_string(alicia.home().join("record")).unwrap());
    assert_eq!(record.one("status Uid:"), vec![alicia.uid().to_string(); 4].join("\t"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(record.one(&format!("status {set}:")), "0000000000000000", "{set}");
    }
    assert_eq!(record.one("status NoNewPrivs:"), "1");
    drop(manager);
    // Neither root nor itself.
    for name in ["root", &service.name] {
        let _ = fs::remove_file(bed.path("request.said"));
        let manager = ManagerProcess::start_by(&as_service, &bed, &bed.request(Some(name)));
        assert!(manager.launched().1.contains("(InvalidUserError) unexpected error"), "{name}");
    }
}

/// The manager blocks, ignores and handles signals; user endpoints start with none of that.
fn signals() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, sigaction, sigprocmask};
    let (bed, alicia) = (Bed::new(), Account::with_home());
    bed.program("#!/usr/bin/perl\nsleep 1000;\n");
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler runs.
    unsafe { sigaction(Signal::SIGHUP, &ignore) }.unwrap();
    let blocked: SigSet = [Signal::SIGTERM, Signal::SIGUSR1].into_iter().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None).unwrap();
    let launched = launch(&bed.request(Some(&alicia.name)));
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&blocked), None).unwrap();
    let program = format!("/proc/{}", launched.pid);
    wait_until(|| {
        fs::read_to_string(format!("{program}/comm")).is_ok_and(|name| name.starts_with("globus-compute"))
    });
    let status = fs::read_to_string(format!("{program}/status")).unwrap();
    assert!(status.contains("SigBlk:\t0000000000000000\n"), "{status}");
    // Soon after its start perl ignores SIGFPE, and nothing else.
    assert!(
        ["00", "80"].iter().any(|ignored| status.contains(&format!("SigIgn:\t00000000000000{ignored}\n"))),
        "{status}"
    );
    launched.kill(Signal::SIGKILL);
    launched.wait();
}

fn passes_descriptors() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    let (audit, audit_writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_DIRECT).unwrap();
    let credentials = fs::File::open(bed.path("manager/template")).unwrap();
    let mut request = bed.request(Some(&alicia.name));
    request.audit_descriptor = Some(audit_writer.as_raw_fd());
    request.renewed_credentials = Some((credentials.as_raw_fd(), "key".to_owned()));
    request.allowed_functions = Some(Vec::new());
    request.arguments = vec!["--more".to_owned()];
    request.high_assurance = true;
    let launched = launch(&request);
    drop((audit_writer, credentials));
    let record = Record::of(&alicia.home(), &launched);
    assert_eq!(*record.all("argument ").last().unwrap(), "--more");
    let open = record.all("descriptor ");
    assert!(
        open.iter().any(|line| line.contains(" 3 -> ") && line.ends_with("/manager/template")),
        "{open:?}"
    );
    assert!(open.iter().any(|line| line.contains(" 4 -> pipe:")), "{open:?}");

    let document: Value = serde_json::from_slice(&fs::read(alicia.home().join("document")).unwrap()).unwrap();
    assert_eq!(
        document,
        json!({
            "amqp_creds": request.credentials,
            "config": "high_assurance: true\nengine:\n  type: GlobusComputeEngine\nnote: none",
            "ep_info": {
                "posix_ppid": std::process::id(),
                "globus_candidate_identities": {"0": ["alicia"]},
                "globus_matched_identity": "0f0f0f0f-0000-4000-8000-000000000001",
            },
            "allowed_functions": [],
            "audit_fd": 4,
            "mem_fd": 3,
            "enckey": "key",
        })
    );
    // Only the user endpoint and its child have the other end of the audit pipe: it closes with them.
    nix::sys::signal::kill(sleeper(&alicia.home()), Signal::SIGKILL).unwrap();
    launched.kill(Signal::SIGKILL);
    launched.wait();
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut fs::File::from(audit), &mut rest).unwrap();
}

fn large_documents() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    let mut request = bed.request(Some(&alicia.name));
    let note = "n".repeat(300_000);
    request.user_options.insert("note".to_owned(), note.clone().into());
    let launched = launch(&request);
    Record::of(&alicia.home(), &launched);
    let document: Value = serde_json::from_slice(&fs::read(alicia.home().join("document")).unwrap()).unwrap();
    assert!(document["config"].as_str().unwrap().contains(&note));
    launched.kill(Signal::SIGKILL);
    launched.wait();

    request.credentials["more"] = "c".repeat(1 << 20).into();
    let (status, notice, _) = launch(&request).failure();
    assert_eq!(status, 81);
    assert!(notice.contains("; (ValueError) Unable to write 1348"), "{notice}");
    assert!(notice.contains("the maximum allowed is 1048576 bytes"), "{notice}");
}

fn environment() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    // A wrapper, which cleans PATH and becomes the program.
    fs::create_dir(bed.path("admin_scripts")).unwrap();
    fs::set_permissions(bed.path("admin_scripts"), fs::Permissions::from_mode(0o755)).unwrap();
    let wrapper = bed.path("admin_scripts/globus-compute-endpoint");
    let programs = bed.path("bin").display().to_string();
    let text = format!(
        "#!/bin/sh\nexport SITE_SPECIFIC_VAR=wrapped PATH={programs}:/usr/bin:/bin\nexec globus-compute-endpoint \"$@\"\n"
    );
    fs::write(&wrapper, text).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    bed.environment(&format!(
        "PATH: {}/\nGC_USER_SDK_VERSION: 4.10.1\nHOME: /elsewhere\nUSER: somebody\nPWD: /tmp\nNUMBER: 5\n",
        bed.path("admin_scripts").display()
    ));
    let launched = launch(&bed.request(Some(&alicia.name)));
    let record = Record::of(&alicia.home(), &launched);
    assert_eq!(record.one("status Pid:"), launched.pid.to_string());
    let variables = record.all("environment ");
    for variable in [
        "SITE_SPECIFIC_VAR=wrapped".to_owned(),
        "NUMBER=5".to_owned(),
        "PWD=/tmp".to_owned(),
        "CWD=/tmp".to_owned(),
        format!("PATH={programs}:/usr/bin:/bin"),
        format!("HOME={}", alicia.home().display()),
        format!("USER={}", alicia.name),
    ] {
        assert!(variables.contains(&variable.as_str()), "{variable}: {variables:?}");
    }
    assert_eq!(record.one("cwd "), "/tmp");
    assert_eq!(record.all("argument ")[1..], ["_start-user-endpoint", NAME]);
    launched.kill(Signal::SIGKILL);
    launched.wait();
}

fn refusals() {
    let bed = Bed::new();
    let toor = Account::new(&["-M", "-o", "-u", "0"]);
    for name in ["root", &toor.name] {
        let launched = launch(&bed.request(Some(name)));
        assert!(launched.reports.iter().all(|report| !matches!(report, LaunchReport::UserFound { .. })));
        let (status, notice, private) = launched.failure();
        assert_eq!(status, 70);
        assert!(
            notice.starts_with(
                "(InvalidUserError) unexpected error; this is due to either an endpoint misconf"
            ),
            "{notice}"
        );
        assert!(
            private.contains("the local user is the superuser") && private.contains("alicia@example.edu"),
            "{private}"
        );
    }
    for name in ["no-such-user-of-a-test", "", "a:b", "../root", &"x".repeat(300), "jürgen", "0"] {
        let (status, notice, _) = launch(&bed.request(Some(name))).failure();
        assert_eq!(status, 70);
        assert_eq!(
            notice,
            format!(
                "(KeyError)\n  Identity mapped to a local user name, but local user does not exist.\n  Local user name: {name}\n  \
                 Globus effective identity: 0f0f0f0f-0000-4000-8000-000000000002\n  Globus username: alicia@example.edu"
            )
        );
    }
}

/// No shell, a second name for one user id, no group entry for the primary group.
fn odd_accounts() {
    let bed = Bed::new();
    let first = Account::new(&["-m", "-s", ""]);
    let second = Account::new(&["-m", "-o", "-u", &first.uid().to_string()]);
    for account in [&first, &second] {
        let launched = launch(&bed.request(Some(&account.name)));
        let record = Record::of(&account.home(), &launched);
        assert!(record.all("environment ").contains(&format!("USER={}", account.name).as_str()));
        launched.kill(Signal::SIGKILL);
        launched.wait();
    }
    let line = fs::read_to_string("/etc/passwd").unwrap();
    assert!(line.contains(&second.name));

    let (group, third) = Account::without_group();
    let launched = launch(&bed.request(Some(&third.name)));
    let record = Record::of(&third.home(), &launched);
    assert_eq!(record.one("status Gid:"), vec![group.to_string(); 4].join("\t"));
    assert_eq!(record.one("status Groups:"), group.to_string());
    launched.kill(Signal::SIGKILL);
    launched.wait();
}

fn debug() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    bed.template("engine:\n  type: X\ndebug: true\n");
    let launched = launch(&bed.request(Some(&alicia.name)));
    Record::of(&alicia.home(), &launched);
    let log = fs::read_to_string(alicia.directory().join("endpoint.log")).unwrap();
    let expected = "Begin Compute endpoint configuration (3 lines):\n  | engine:\n  |   type: X\n  | debug: true\nEnd Compute endpoint configuration\n";
    assert!(log.contains(expected), "{log}");
    assert!(log.contains(" DEBUG ") && !log.contains("endpoint_id"), "{log}");
    launched.kill(Signal::SIGKILL);
    launched.wait();
}

fn open_files() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    let launched = launch_with(&bed.request(Some(&alicia.name)), OpenFiles { soft: 700, hard: 900 });
    let record = Record::of(&alicia.home(), &launched);
    let limit = record.one("limit Max open files").split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(limit, "700 900 files");
    launched.kill(Signal::SIGKILL);
    launched.wait();
}

fn by_hand() {
    for arguments in [vec!["__launch"], vec!["__launch", "1"], vec!["__launch", "x", "y"]] {
        let output = Command::new("/proc/self/exe")
            .args(&arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(70));
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(report.contains("failed to start endpoint"), "{report}");
    }
    // By its parent, but without a request.
    let number = std::process::id().to_string();
    let output = Command::new("/proc/self/exe").args(["__launch", &number]).output().unwrap();
    assert_eq!(output.status.code(), Some(70));
    assert!(matches!(
        {
            let mut reports = manager::launch::Reports::default();
            reports.push(&output.stdout);
            reports.end()
        },
        LaunchEnd::Failed(_)
    ));
}
