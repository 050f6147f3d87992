//! A manager of an ordinary user: no identity changes, and stage numbers are four lower.

use std::fs;

use nix::sys::signal::Signal;

use super::bed::{Account, Bed, ManagerProcess, NAME, Record, launch, wait_until};

pub(crate) const TESTS: &[super::Test] = &[
    ("personal::starts_and_fails", false, starts_and_fails),
    ("personal::of_an_ordinary_user", true, ordinary_user),
    ("personal::with_a_capability", true, capability),
];

fn starts_and_fails() {
    let bed = Bed::new();
    let home = bed.path("home");
    fs::create_dir(&home).unwrap();
    let mut request = bed.request(None);
    // HOME is the account's, so the endpoint's place is named.
    request.inherited_environment = vec![
        ("GLOBUS_COMPUTE_USER_DIR".to_owned(), home.display().to_string()),
        ("OF_THE_MANAGER".to_owned(), "x".to_owned()),
        ("PATH".to_owned(), format!("{}:/usr/bin:/bin", bed.path("bin").display())),
    ];
    let wrapper = format!(
        "#!/bin/sh\nHOME={}; export HOME\nexec sh {} \"$@\"\n",
        home.display(),
        bed.path("bin/recorder").display()
    );
    fs::rename(bed.path("bin/globus-compute-endpoint"), bed.path("bin/recorder")).unwrap();
    bed.program(&wrapper);
    let launched = launch(&request);
    let record = Record::of(&home, &launched);
    assert_eq!(record.one("status Pid:"), launched.pid.to_string());
    assert_eq!(record.one("status NoNewPrivs:"), "0");
    assert!(record.all("environment ").contains(&"OF_THE_MANAGER=x"));
    assert_eq!(record.all("argument ")[1..], ["start", NAME, "--die-with-parent"]);
    assert!(home.join(NAME).join("endpoint.log").is_file());
    launched.kill(Signal::SIGKILL);
    launched.wait();

    bed.template("{{ nothing }}");
    let (status, notice, _) = launch(&request).failure();
    assert_eq!(status, 74);
    assert!(notice.contains("[exit code: 74; (UndefinedError) 'nothing' is undefined"), "{notice}");
    bed.template("engine: {}");
    request.inherited_environment.retain(|(name, _)| name != "PATH");
    request.files.program_directory = "/".into();
    let (status, ..) = launch(&request).failure();
    assert_eq!(status, 84);
}

fn ordinary_user() {
    let (bed, alicia, roberto) = (Bed::new(), Account::with_home(), Account::with_home());
    std::os::unix::fs::chown(bed.path("."), Some(alicia.uid()), None).unwrap();
    let uid = alicia.uid().to_string();
    let as_alicia = ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"];
    let mut request = bed.request(None);
    let manager = ManagerProcess::start_by(&as_alicia, &bed, &request);
    assert_eq!(manager.launched().1, "Started");
    wait_until(|| alicia.home().join("record").exists());
    let record = Record(fs::read_to_string(alicia.home().join("record")).unwrap());
    assert_eq!(record.one("status Uid:"), vec![uid.clone(); 4].join("\t"));
    assert_eq!(record.one("cwd "), alicia.home().display().to_string());
    assert!(alicia.directory().join("endpoint.log").is_file());
    drop(manager);
    // Nobody else, with PAM or without.
    request.local_user = Some(roberto.name.clone());
    for service in [None, Some("su".to_owned())] {
        request.pam_service = service;
        let _ = fs::remove_file(bed.path("request.said"));
        let manager = ManagerProcess::start_by(&as_alicia, &bed, &request);
        let (_, end) = manager.launched();
        assert!(
            end.contains("[exit code: 71; (PermissionError) ")
                || end.contains("[exit code: 72; (PermissionError) "),
            "{end}"
        );
        assert!(!roberto.home().join(".globus_compute").exists());
    }
}

/// What the manager may do, its user endpoints may not.
fn capability() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    std::os::unix::fs::chown(bed.path("."), Some(alicia.uid()), None).unwrap();
    let uid = alicia.uid().to_string();
    let (inheritable, ambient) =
        (["--inh-caps", "-all,+net_bind_service"], ["--ambient-caps", "-all,+net_bind_service"]);
    let as_alicia = ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"];
    let as_alicia = [&as_alicia[..], &inheritable[..], &ambient[..]].concat();
    let manager = ManagerProcess::start_by(&as_alicia, &bed, &bed.request(None));
    assert_eq!(manager.launched().1, "Started");
    let status = fs::read_to_string(format!("/proc/{}/status", manager.pid())).unwrap();
    assert!(status.contains("CapAmb:\t0000000000000400"), "{status}");
    wait_until(|| alicia.home().join("record").exists());
    let record = Record(fs::read_to_string(alicia.home().join("record")).unwrap());
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(record.one(&format!("status {set}:")), "0000000000000000", "{set}");
    }
}
