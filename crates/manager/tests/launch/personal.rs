//! A manager of an ordinary user: no identity changes, and stage numbers are four lower.

use std::fs;

use nix::sys::signal::Signal;

use super::bed::{Bed, NAME, Record, launch};

pub(crate) const TESTS: &[super::Test] = &[("personal::starts_and_fails", false, starts_and_fails)];

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
