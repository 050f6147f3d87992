//! Each stage of a launch fails once.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::process::Command;

use manager::launch::LaunchRequest;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::bed::{Account, Bed, ManagerProcess, NAME, launch};

pub(crate) const TESTS: &[super::Test] = &[
    ("failures::files_of_the_administrator", true, administrator),
    ("failures::homes", true, homes),
    ("failures::full_disk", true, full_disk),
    ("failures::templates", true, templates),
    ("failures::programs", true, programs),
    ("failures::logs", true, logs),
    ("failures::a_name_service_that_hangs", true, name_service),
];

/// Launches, and expects a failure: its status, and how its text goes on after the status.
fn fails(request: &LaunchRequest, status: u8, text: &str) -> String {
    let (got, notice, private) = launch(request).failure();
    assert_eq!(got, status, "{notice}");
    let user = request.local_user.as_deref().unwrap();
    let expected = format!("Unable to start user endpoint process for {user} [exit code: {status}; {text}");
    assert!(notice.starts_with(&expected) && notice.ends_with(']'), "{expected}\n{notice}");
    private
}

fn administrator() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    let mut request = bed.request(Some(&alicia.name));
    let template = request.files.template.display().to_string();
    fs::write(&request.files.schema, "{").unwrap();
    fails(&request, 70, "(JSONDecodeError) ");
    fs::remove_file(&request.files.schema).unwrap();
    fs::remove_file(&template).unwrap();
    fails(&request, 70, &format!("(FileNotFoundError) [Errno 2] No such file or directory: '{template}'"));
    mkfifo(&request.files.template, Mode::S_IRWXU).unwrap();
    fails(&request, 70, &format!("(OSError) '{template}'"));
    // Root's own file works, though the user can't read it.
    fs::remove_file(&template).unwrap();
    bed.template("");
    fs::set_permissions(&template, fs::Permissions::from_mode(0o600)).unwrap();
    fails(&request, 79, &format!("(TypeError) the template {template} rendered to nothing"));
    request.files.program_directory = "/".into();
    bed.template("engine: {}");
    fails(&request, 88, "(FileNotFoundError) ");
    assert!(alicia.directory().is_dir());
}

fn homes() {
    let bed = Bed::new();
    let homeless = Account::new(&["-M"]);
    let home = homeless.home().display().to_string();
    fails(
        &bed.request(Some(&homeless.name)),
        78,
        &format!("(PermissionError) [Errno 13] Permission denied: '{home}'"),
    );
    let alicia = Account::with_home();
    let request = bed.request(Some(&alicia.name));
    let place = alicia.home().join(".globus_compute");
    let shown = place.display().to_string();
    // Root's directory is not the user's to write to.
    chown(alicia.home(), Some(0), Some(0)).unwrap();
    fs::set_permissions(alicia.home(), fs::Permissions::from_mode(0o755)).unwrap();
    fails(&request, 78, &format!("(PermissionError) [Errno 13] Permission denied: '{shown}'"));
    // A link to what only root may write gives nobody anything.
    symlink("/root", &place).unwrap();
    fails(&request, 78, &format!("(PermissionError) [Errno 13] Permission denied: '{shown}/{NAME}'"));
    assert!(!std::path::Path::new("/root").join(NAME).exists());
    fs::remove_file(&place).unwrap();
    fs::write(&place, "").unwrap();
    fails(&request, 78, &format!("(NotADirectoryError) [Errno 20] Not a directory: '{shown}/{NAME}'"));
    fs::remove_file(&place).unwrap();
    mkfifo(&place, Mode::S_IRWXU).unwrap();
    fails(&request, 78, "(NotADirectoryError) ");
    // A home that its owner may not enter, and a working directory that is missing.
    fs::remove_file(&place).unwrap();
    fs::set_permissions(alicia.home(), fs::Permissions::from_mode(0o700)).unwrap();
    fails(
        &request,
        77,
        &format!("(PermissionError) [Errno 13] Permission denied: '{}'", alicia.home().display()),
    );
    bed.environment("PWD: /no/such/directory\n");
    fails(&request, 77, "(FileNotFoundError) [Errno 2] No such file or directory: '/no/such/directory'");
}

fn full_disk() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    let home = alicia.home();
    // Room for the home itself and one directory in it.
    let options = format!("size=64k,nr_inodes=2,uid={},mode=700", alicia.uid());
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&home).status().unwrap();
    assert!(mounted.success());
    let result = std::panic::catch_unwind(|| {
        let place = home.join(".globus_compute").display().to_string();
        let text = format!("(OSError) [Errno 28] No space left on device: '{place}/{NAME}'");
        fails(&bed.request(Some(&alicia.name)), 78, &text);
    });
    Command::new("umount").arg(&home).status().unwrap();
    result.unwrap();
}

fn templates() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    let mut request = bed.request(Some(&alicia.name));
    bed.template("engine: {{ account }}\n");
    fails(&request, 78, "(UndefinedError) 'account' is undefined");
    request.user_options.insert("parent_config".to_owned(), 1.into());
    fails(
        &request,
        78,
        "(ValueError) 'parent_config' is a reserved word and cannot be passed in via user config]",
    );
    request.user_options.clear();
    bed.template("high_assurance: null\n");
    let private = fails(&request, 79, "(ValueError) Error generating template; contact MEP administrator]");
    assert!(private.contains("`high_assurance` may not be specified in the template"), "{private}");
    bed.template("- a list\n");
    fails(&request, 79, "(ParserError) the rendered template ");
    bed.template("a: [1\n");
    fails(&request, 79, "(ParserError) the rendered template ");
}

fn programs() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    let request = bed.request(Some(&alicia.name));
    let program = bed.path("bin/globus-compute-endpoint");
    let shown = program.display().to_string();
    bed.program("neither a script nor a program\n");
    fails(&request, 88, &format!("(OSError) [Errno 8] Exec format error: '{shown}'"));
    bed.program("#!/no/such/interpreter\n");
    fails(&request, 88, &format!("(FileNotFoundError) [Errno 2] No such file or directory: '{shown}'"));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    fails(&request, 88, &format!("(PermissionError) [Errno 13] Permission denied: '{shown}'"));
    fs::remove_file(&program).unwrap();
    bed.environment("PATH: /usr/bin:/no/such/directory\n");
    let private = fails(
        &request,
        88,
        "(FileNotFoundError) [Errno 2] No such file or directory: 'globus-compute-endpoint'",
    );
    assert!(private.contains("Path: \"/usr/bin:/no/such/directory\""), "{private}");
}

fn logs() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    let request = bed.request(Some(&alicia.name));
    fs::create_dir_all(alicia.directory()).unwrap();
    for path in [alicia.home().join(".globus_compute"), alicia.directory()] {
        chown(path, Some(alicia.uid()), None).unwrap();
    }
    let log = alicia.directory().join("endpoint.log");
    mkfifo(&log, Mode::S_IRWXU | Mode::S_IRWXO).unwrap();
    chown(&log, Some(alicia.uid()), None).unwrap();
    fails(&request, 83, &format!("(OSError) '{}' is not a file; remove it", log.display()));
    // Nobody's log grows by a link to it.
    fs::remove_file(&log).unwrap();
    let other = bed.path("log-of-another");
    fs::write(&other, "").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&other, &log).unwrap();
    fails(&request, 83, &format!("(PermissionError) [Errno 13] Permission denied: '{}'", log.display()));
    assert_eq!(fs::read(&other).unwrap(), b"");
}

/// The file of accounts is a FIFO that nobody writes to. A directory is mounted, and not the file: who makes accounts
/// meanwhile replaces the file, and the mount with it.
fn name_service() {
    let (bed, alicia) = (Bed::new(), Account::with_home());
    let etc = bed.path("etc");
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("nsswitch.conf"), "passwd: files\ngroup: files\n").unwrap();
    mkfifo(&etc.join("passwd"), Mode::S_IRWXU).unwrap();
    let begin = std::time::Instant::now();
    let manager = ManagerProcess::start_with_mount(&etc, "/etc", &bed, &bed.request(Some(&alicia.name)));
    let (_, end) = manager.launched();
    assert!(begin.elapsed() >= std::time::Duration::from_secs(9));
    let text = format!(
        "Unable to start user endpoint process for {} [exit code: 70; (TimeoutError) the name service of the endpoint's machine \
         did not answer within 10 s; try again later]",
        alicia.name
    );
    assert!(end.contains(&text), "{end}");
}
