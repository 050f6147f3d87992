//! Starts with the system's PAM: each test writes a service of its own.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use manager::launch::{LaunchReport, LaunchRequest, OpenFiles};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::bed::{
    Account, Bed, Launched, ManagerProcess, PATIENCE, Record, launch, launch_and, launch_with, runs, sleeper,
    wait_until,
};

pub(crate) const TESTS: &[super::Test] = &[
    ("pam::denials", true, denials),
    ("pam::what_modules_give_reaches_the_user_endpoint", true, gifts),
    ("pam::capabilities_of_pam_cap", true, capabilities),
    ("pam::groups_of_pam_group", true, groups),
    ("pam::entry_of_pam_lastlog", true, lastlog),
    ("pam::ignored_signals_of_the_manager", true, ignored_signals),
    ("pam::home_made_by_a_module", true, mkhomedir),
    ("pam::the_status_is_the_user_endpoints", true, statuses),
    ("pam::a_failed_start_closes_the_session", true, failed_start),
    ("pam::asked_to_end", true, asked_to_end),
    ("pam::asked_to_end_while_a_module_works", true, asked_during_pam),
    ("pam::asked_to_kill", true, asked_to_kill),
    ("pam::a_module_that_hangs", true, module_hangs),
    ("pam::the_user_endpoint_is_killed", true, user_endpoint_killed),
    ("pam::the_holder_is_killed", true, holder_killed),
    ("pam::the_holders_group_is_killed", true, group_killed),
    ("pam::the_stand_in_is_killed", true, stand_in_killed),
    ("pam::the_manager_is_killed", true, manager_killed),
    ("pam::the_launcher_is_killed_at_any_moment", true, launcher_killed_any_time),
    ("pam::the_manager_is_killed_at_any_moment", true, manager_killed_any_time),
];

/// A service of PAM, removed at the end.
pub(crate) struct Service {
    pub(crate) name: String,
}

impl Service {
    pub(crate) fn new(lines: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let service = Self { name: format!("launchtest-{}-{count}", std::process::id()) };
        fs::write(service.path(), lines).unwrap();
        service
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/etc/pam.d").join(&self.name)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

/// An account whose sessions a hook writes down.
struct Watched {
    bed: Bed,
    service: Service,
    account: Account,
}

impl Watched {
    fn new(more: &str) -> Self {
        let bed = Bed::new();
        let hook = bed.path("hook");
        let sessions = bed.path("sessions").display().to_string();
        fs::write(&hook, format!("#!/bin/sh\necho \"$PAM_TYPE $PAM_USER $(id -u)\" >> {sessions}\n"))
            .unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let service = Service::new(&format!(
            "account required pam_permit.so\n{more}session required pam_exec.so {}\n",
            hook.display()
        ));
        Self { bed, service, account: Account::with_home() }
    }

    fn request(&self) -> LaunchRequest {
        let mut request = self.bed.request(Some(&self.account.name));
        request.pam_service = Some(self.service.name.clone());
        request
    }

    fn start(&self) -> (Launched, Pid) {
        let launched = launch(&self.request());
        Record::of(&self.account.home(), &launched);
        // Its last act before it waits.
        self.sleeper();
        let user_endpoint = launched.user_endpoint();
        assert_ne!(user_endpoint, launched.pid);
        (launched, user_endpoint)
    }

    fn sleeper(&self) -> Pid {
        sleeper(&self.account.home())
    }

    fn sessions(&self) -> String {
        fs::read_to_string(self.bed.path("sessions")).unwrap_or_default()
    }

    /// The session was opened and closed, as root, and nothing follows within a while.
    fn closed_once(&self) {
        let name = &self.account.name;
        let expected = format!("open_session {name} 0\nclose_session {name} 0\n");
        wait_until(|| self.sessions().contains("close_session"));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(self.sessions(), expected);
    }
}

/// Children of a process, by number.
fn children(parent: Pid) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().map(|number| Pid::from_raw(number.parse().unwrap())).collect()
}

fn denied(request: &LaunchRequest) -> String {
    let launched = launch(request);
    assert!(!launched.reports.iter().any(|report| matches!(report, LaunchReport::Running { .. })));
    let (status, notice, private) = launched.failure();
    assert_eq!(status, 71);
    let user = request.local_user.as_deref().unwrap();
    assert_eq!(
        notice,
        format!(
            "Unable to start user endpoint process for {user} [exit code: 71; (PermissionError) see your system administrator]"
        )
    );
    private
}

fn denials() {
    let bed = Bed::new();
    let jessica = Account::new(&["-m", "-s", "/usr/sbin/nologin"]);
    let mut request = bed.request(Some(&jessica.name));
    let shells = Service::new("account requisite pam_shells.so\nsession required pam_limits.so\n");
    request.pam_service = Some(shells.name.clone());
    let private = denied(&request);
    assert!(private.contains("(error code: 7 [PAM_AUTH_ERR]) Authentication failure"), "{private}");
    assert!(!jessica.home().join(".globus_compute").exists());

    let nobody_here = Service::new("account required pam_permit.so\nsession required pam_deny.so\n");
    request.pam_service = Some(nobody_here.name.clone());
    let private = denied(&request);
    assert!(private.contains("PAM session: (error code: 14 [PAM_SESSION_ERR])"), "{private}");

    let nologin = bed.path("nologin");
    fs::write(&nologin, "closed for maintenance\n").unwrap();
    let closed = Service::new(&format!("account required pam_nologin.so file={}\n", nologin.display()));
    request.pam_service = Some(closed.name.clone());
    let private = denied(&request);
    assert!(private.contains("[PAM_AUTH_ERR]") && private.contains("closed for maintenance"), "{private}");

    let module_missing = Service::new("account required pam_of_nobody.so\n");
    request.pam_service = Some(module_missing.name.clone());
    assert!(denied(&request).contains("PAM account: (error code: 28 [PAM_MODULE_UNKNOWN])"));

    request.pam_service = Some("launchtest-without-a-file".to_owned());
    let private = denied(&request);
    assert!(private.contains("/etc/pam.d/launchtest-without-a-file does not exist"), "{private}");
    request.pam_service = Some("../pam.d/su".to_owned());
    assert!(denied(&request).contains("not the name of a service"));
}

fn gifts() {
    let watched = Watched::new("");
    let (bed, alicia) = (&watched.bed, &watched.account);
    let limits = bed.path("limits");
    fs::write(&limits, format!("{} hard nofile 256\n", alicia.name)).unwrap();
    let variables = bed.path("variables");
    fs::write(&variables, "FROM_PAM=yes\nLD_PRELOAD=/tmp/evil.so\nHOME=/elsewhere\nUSER=root\nBOTH=pam\n")
        .unwrap();
    bed.environment("BOTH: file\n");
    fs::write(
        watched.service.path(),
        format!(
            // Nobody is asked to prove who they are, nor for a new password.
            "auth required pam_deny.so\npassword required pam_deny.so\naccount required pam_permit.so\n\
             session required pam_limits.so conf={}\nsession required pam_env.so conffile=/dev/null envfile={}\n",
            limits.display(),
            variables.display()
        ),
    )
    .unwrap();
    let id = alicia.home().join("id");
    fs::copy("/usr/bin/id", &id).unwrap();
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).unwrap();

    let (audit, audit_writer) = nix::unistd::pipe().unwrap();
    let mut request = watched.request();
    request.audit_descriptor = Some(audit_writer.as_raw_fd());
    // The site's limit holds, not the one that the manager started with.
    let launched = launch_with(&request, OpenFiles { soft: 700, hard: 900 });
    let record = Record::of(&alicia.home(), &launched);
    let holder = launched.pid.to_string();
    assert_eq!(record.one("status PPid:"), holder);
    assert_eq!(record.one("status Pid:"), launched.user_endpoint().to_string());
    let document = fs::read_to_string(alicia.home().join("document")).unwrap();
    assert!(document.contains(&format!("\"posix_ppid\":{holder}")), "{document}");
    assert_eq!(record.one("status Uid:"), vec![alicia.uid().to_string(); 4].join("\t"));
    assert_eq!(record.one("status NoNewPrivs:"), "0");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "SigIgn"] {
        assert_eq!(record.one(&format!("status {set}:")), "0000000000000000", "{set}");
    }
    assert_eq!(record.one("setuid "), "0");
    assert_eq!(record.one("nofile "), "256");
    assert_eq!(record.one("umask "), "0077");
    let stat: Vec<&str> = record.one("stat ").rsplit_once(')').unwrap().1.split_whitespace().collect();
    let pid = launched.user_endpoint().to_string();
    assert_eq!(stat[2..5], [pid.as_str(), pid.as_str(), "0"]);
    let variables = record.all("environment ");
    for variable in [
        "FROM_PAM=yes",
        "BOTH=file",
        &format!("USER={}", alicia.name),
        &format!("HOME={}", alicia.home().display()),
    ] {
        assert!(variables.contains(&variable), "{variable}: {variables:?}");
    }
    assert!(!variables.iter().any(|variable| variable.starts_with("LD_")), "{variables:?}");
    // The holder: root, single-threaded, titled, with none of the user endpoint's descriptors.
    let title = fs::read_to_string(format!("/proc/{holder}/cmdline")).unwrap();
    let name = &alicia.name;
    let expected =
        format!("Endpoint session of {name} [globus-compute-endpoint start uep.m.u --die-with-parent]");
    assert_eq!(title.trim_end_matches('\0'), expected);
    for process in [launched.pid, stand_in(launched.pid)] {
        let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let open: Vec<String> =
            open.map(|it| fs::read_link(it.unwrap().path()).unwrap().display().to_string()).collect();
        let audit =
            fs::read_link(format!("/proc/self/fd/{}", audit.as_raw_fd())).unwrap().display().to_string();
        assert!(!open.iter().any(|it| it.contains("memfd") || *it == audit), "{open:?}");
    }
    launched.kill(Signal::SIGKILL);
    launched.wait();
}

/// `pam_cap` acts on the credentials that the process gets.
fn capabilities() {
    let places = [
        "/lib/x86_64-linux-gnu/security",
        "/lib/aarch64-linux-gnu/security",
        "/lib64/security",
        "/lib/security",
    ];
    if !places.iter().any(|place| PathBuf::from(place).join("pam_cap.so").exists()) {
        eprintln!("not run: there is no pam_cap.so (Debian: libpam-cap)");
        return;
    }
    let watched = Watched::new("");
    let (bed, alicia) = (&watched.bed, &watched.account);
    let list = bed.path("capabilities");
    fs::write(
        watched.service.path(),
        format!("auth required pam_cap.so config={}\naccount required pam_permit.so\n", list.display()),
    )
    .unwrap();
    let started = |line: &str, sets: [(&str, &str); 4]| {
        fs::write(&list, format!("{line} {}\nnone *\n", alicia.name)).unwrap();
        let launched = launch(&watched.request());
        let record = Record::of(&alicia.home(), &launched);
        for (set, expected) in sets {
            assert_eq!(record.one(&format!("status {set}:")), expected, "{line} {set}");
        }
        assert_eq!(record.one("status Uid:"), vec![alicia.uid().to_string(); 4].join("\t"));
        launched.kill(Signal::SIGTERM);
        launched.wait();
        fs::remove_file(alicia.home().join("record")).unwrap();
    };
    let (none, raw) = ("0000000000000000", "0000000000002000");
    started("^cap_net_raw", [("CapInh", raw), ("CapPrm", raw), ("CapEff", raw), ("CapAmb", raw)]);
    started("cap_net_raw", [("CapInh", raw), ("CapPrm", none), ("CapEff", none), ("CapAmb", none)]);
    // Who could become root would not be the user any more.
    fs::write(&list, format!("^cap_setuid {}\nnone *\n", alicia.name)).unwrap();
    let (status, notice, private) = launch(&watched.request()).failure();
    assert_eq!(status, 74);
    assert!(notice.ends_with("(PermissionError) failed to start endpoint]"), "{notice}");
    assert!(private.contains("could become the manager's user again"), "{private}");
}

/// `pam_group` reads one file only, so the test has its own in a mount namespace.
fn groups() {
    let watched = Watched::new("auth required pam_group.so\n");
    let list = watched.bed.path("groups");
    fs::write(&list, format!("{};*;{};Al0000-2400;games\n", watched.service.name, watched.account.name))
        .unwrap();
    let manager =
        ManagerProcess::start_with_mount(&list, "/etc/security/group.conf", &watched.bed, &watched.request());
    let (holder, end) = manager.launched();
    assert_eq!(end, "Started");
    watched.sleeper();
    let record = fs::read_to_string(watched.account.home().join("record")).unwrap();
    let expected = Command::new("id").args(["-G", &watched.account.name]).output().unwrap();
    let expected: Vec<String> =
        String::from_utf8(expected.stdout).unwrap().split_whitespace().map(str::to_owned).collect();
    let games = nix::unistd::Group::from_name("games").unwrap().unwrap().gid.to_string();
    let line = record.lines().find_map(|line| line.strip_prefix("status Groups:")).unwrap();
    let mut groups: Vec<&str> = line.split_whitespace().collect();
    groups.sort_unstable();
    let mut all: Vec<&str> = expected.iter().map(String::as_str).chain([games.as_str()]).collect();
    all.sort_unstable();
    assert_eq!(groups, all);
    kill(holder, Signal::SIGTERM).unwrap();
    watched.closed_once();
}

fn lastlog() {
    let watched = Watched::new("session required pam_lastlog.so silent\n");
    let (launched, _) = watched.start();
    let entry = {
        use std::os::unix::fs::FileExt as _;
        // `struct lastlog`: a time, a terminal of 32 bytes, a host of 256.
        let mut entry = [0; 292];
        let all = fs::File::open("/var/log/lastlog").unwrap();
        all.read_exact_at(&mut entry, u64::from(watched.account.uid()) * 292).unwrap();
        u32::from_ne_bytes(entry[..4].try_into().unwrap())
    };
    let begin = fs::metadata(watched.bed.path("manager")).unwrap().mtime();
    assert!(i64::from(entry) >= begin, "{entry} {begin}");
    launched.kill(Signal::SIGTERM);
    launched.wait();
    watched.closed_once();
}

/// Whoever started the manager ignores signals, also those of children.
fn ignored_signals() {
    let watched = Watched::new("");
    let ignoring = ["env", "--ignore-signal=CHLD,HUP,TERM,PIPE,ALRM", "--block-signal=CHLD,TERM,ALRM"];
    let manager = ManagerProcess::start_by(&ignoring, &watched.bed, &watched.request());
    let (holder, end) = manager.launched();
    assert_eq!(end, "Started");
    watched.sleeper();
    kill(holder, Signal::SIGTERM).unwrap();
    watched.closed_once();
    drop(manager);
    wait_until(|| !runs(holder));
}

fn mkhomedir() {
    let bed = Bed::new();
    let homeless = Account::new(&["-M"]);
    let service = Service::new("account required pam_permit.so\nsession required pam_mkhomedir.so\n");
    let mut request = bed.request(Some(&homeless.name));
    request.pam_service = Some(service.name.clone());
    let launched = launch(&request);
    let record = Record::of(&homeless.home(), &launched);
    assert_eq!(record.one("cwd "), homeless.home().display().to_string());
    assert_eq!(homeless.home().metadata().unwrap().uid(), homeless.uid());
    launched.kill(Signal::SIGTERM);
    launched.wait();
}

fn statuses() {
    for (end, expected) in [
        ("exit 0", (Some(0), None)),
        ("exit 73", (Some(73), None)),
        ("kill -SEGV $$", (None, Some(libc::SIGSEGV))),
        ("kill -TERM $$", (None, Some(libc::SIGTERM))),
        // Those without a name.
        ("kill -34 $$", (None, Some(34))),
        ("kill -64 $$", (None, Some(64))),
    ] {
        let watched = Watched::new("");
        fs::write(watched.account.home().join("end"), end).unwrap();
        let launched = launch(&watched.request());
        let status = launched.wait();
        assert_eq!((status.code(), status.signal()), expected, "{end}");
        watched.closed_once();
    }
}

fn failed_start() {
    let watched = Watched::new("");
    watched.bed.template("{{ nothing }}");
    let (status, notice, _) = launch(&watched.request()).failure();
    assert_eq!(status, 78);
    assert!(notice.contains("'nothing' is undefined"), "{notice}");
    watched.closed_once();
}

/// The manager stops while a module of PAM takes its time.
fn asked_during_pam() {
    let watched = Watched::new("");
    let slow = watched.bed.path("slow");
    let begun = watched.bed.path("begun");
    fs::write(&slow, format!("#!/bin/sh\ntouch {}\nsleep 1\n", begun.display())).unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    let lines = fs::read_to_string(watched.service.path()).unwrap();
    let lines = format!("{lines}session required pam_exec.so type=open_session {}\n", slow.display());
    fs::write(watched.service.path(), lines).unwrap();
    let manager = ManagerProcess::start(&watched.bed, &watched.request());
    wait_until(|| begun.exists());
    let launcher = children(manager.pid())[0];
    kill(launcher, Signal::SIGTERM).unwrap();
    manager.launched();
    watched.closed_once();
}

/// The user endpoint can't be ended otherwise: its user has stopped it.
fn asked_to_kill() {
    let watched = Watched::new("");
    let (launched, user_endpoint) = watched.start();
    kill(user_endpoint, Signal::SIGSTOP).unwrap();
    let status = format!("/proc/{user_endpoint}/status");
    wait_until(|| fs::read_to_string(&status).unwrap().contains("State:\tT"));
    launched.kill(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(200));
    assert!(runs(user_endpoint));
    launched.kill(manager::launch::KILL_USER_ENDPOINT);
    assert_eq!(launched.wait().signal(), Some(libc::SIGKILL));
    assert!(!runs(watched.sleeper()));
    watched.closed_once();
}

/// The alarm is sent by the test, which would wait for a minute else.
fn module_hangs() {
    let watched = Watched::new("");
    let (hangs, begun) = (watched.bed.path("hangs"), watched.bed.path("begun"));
    let script =
        format!("#!/bin/sh\necho $$ > {0}.part; mv {0}.part {0}\nexec sleep 1000\n", begun.display());
    fs::write(&hangs, script).unwrap();
    fs::set_permissions(&hangs, fs::Permissions::from_mode(0o755)).unwrap();
    let lines = format!("account required pam_permit.so\nsession required pam_exec.so {}\n", hangs.display());
    fs::write(watched.service.path(), lines).unwrap();
    let launched = launch_and(&watched.request(), |launcher| {
        wait_until(|| begun.exists());
        kill(launcher, Signal::SIGALRM).unwrap();
    });
    let (status, notice, private) = launched.failure();
    assert_eq!(status, 71);
    assert!(notice.ends_with("(TimeoutError) see your system administrator]"), "{notice}");
    assert!(private.contains("a module did not answer within 60 s"), "{private}");
    let module = Pid::from_raw(fs::read_to_string(begun).unwrap().trim().parse().unwrap());
    wait_until(|| !runs(module));
}

fn asked_to_end() {
    let watched = Watched::new("");
    let (launched, user_endpoint) = watched.start();
    assert_eq!(watched.sessions().lines().count(), 1);
    for signal in [Signal::SIGTERM, Signal::SIGTERM, Signal::SIGHUP] {
        let _ = kill(launched.pid, signal);
    }
    assert_eq!(launched.wait().signal(), Some(libc::SIGTERM));
    assert!(!runs(user_endpoint));
    watched.closed_once();
    // A request to end is passed to the user endpoint alone; its children are its own affair.
    assert!(runs(watched.sleeper()));
}

fn user_endpoint_killed() {
    let watched = Watched::new("");
    let (launched, user_endpoint) = watched.start();
    kill(user_endpoint, Signal::SIGKILL).unwrap();
    assert_eq!(launched.wait().signal(), Some(libc::SIGKILL));
    watched.closed_once();
}

/// The user endpoint and all of its group end, and the session is closed once.
fn all_ends(watched: &Watched, user_endpoint: Pid) {
    let begin = Instant::now();
    let sleeper = watched.sleeper();
    wait_until(|| !runs(user_endpoint) && !runs(sleeper));
    assert!(begin.elapsed() < PATIENCE / 2);
    watched.closed_once();
}

fn holder_killed() {
    let watched = Watched::new("");
    let (launched, user_endpoint) = watched.start();
    launched.kill(Signal::SIGKILL);
    launched.wait();
    all_ends(&watched, user_endpoint);
}

fn group_killed() {
    let watched = Watched::new("");
    let (launched, user_endpoint) = watched.start();
    kill(Pid::from_raw(-launched.pid.as_raw()), Signal::SIGKILL).unwrap();
    launched.wait();
    all_ends(&watched, user_endpoint);
}

fn stand_in_killed() {
    let watched = Watched::new("");
    let (launched, user_endpoint) = watched.start();
    kill(stand_in(launched.pid), Signal::SIGKILL).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(runs(user_endpoint) && runs(launched.pid));
    launched.kill(Signal::SIGTERM);
    assert_eq!(launched.wait().signal(), Some(libc::SIGTERM));
    watched.closed_once();
}

fn manager_killed() {
    let watched = Watched::new("");
    // A user endpoint that does not listen.
    fs::write(watched.account.home().join("end"), "trap '' TERM\n").unwrap();
    let manager = ManagerProcess::start(&watched.bed, &watched.request());
    let (holder, end) = manager.launched();
    assert_eq!(end, "Started");
    watched.sleeper();
    let user_endpoint = children(holder).into_iter().find(|child| *child != stand_in(holder)).unwrap();
    drop(manager);
    all_ends(&watched, user_endpoint);
    wait_until(|| !runs(holder));
}

/// Moments of a launch, which takes some 50 ms.
fn moments() -> impl Iterator<Item = Duration> {
    [0, 5, 10, 15, 20, 25, 30, 40, 50, 70, 100, 200].into_iter().map(Duration::from_millis)
}

impl Watched {
    /// Waits until nothing runs as the user and the session is closed; yields how often it was opened and closed.
    fn at_rest(&self, closed: bool) -> (usize, usize) {
        let counts = || {
            let sessions = self.sessions();
            (sessions.matches("open_session").count(), sessions.matches("close_session").count())
        };
        wait_until(|| self.account.processes().is_empty() && (!closed || counts().0 == counts().1));
        let _ = fs::remove_file(self.account.home().join("record"));
        counts()
    }
}

fn launcher_killed_any_time() {
    let watched = Watched::new("");
    for moment in moments() {
        let launched = launch_and(&watched.request(), |pid| {
            std::thread::sleep(moment);
            kill(pid, Signal::SIGKILL).unwrap();
        });
        launched.wait();
        // A launcher that is killed within PAM can't close what PAM was opening.
        let divided = launched.user_endpoint() != launched.pid;
        if !divided {
            // A program that a module started may be about to write.
            std::thread::sleep(Duration::from_millis(200));
        }
        let (opened, closed) = watched.at_rest(divided);
        assert!(
            closed == opened || !divided && closed < opened,
            "{moment:?}: {opened} {closed} {launched:?}"
        );
        let _ = fs::remove_file(watched.bed.path("sessions"));
    }
}

fn manager_killed_any_time() {
    let watched = Watched::new("");
    for moment in moments() {
        let manager = ManagerProcess::start(&watched.bed, &watched.request());
        std::thread::sleep(moment);
        drop(manager);
        // The launcher may be within PAM still.
        std::thread::sleep(Duration::from_millis(200));
        let (opened, closed) = watched.at_rest(true);
        assert_eq!(opened, closed, "{moment:?}");
    }
}

/// The child of the holder that is root.
fn stand_in(holder: Pid) -> Pid {
    let of_root = |child: &Pid| fs::metadata(format!("/proc/{child}")).is_ok_and(|data| data.uid() == 0);
    children(holder).into_iter().find(of_root).unwrap()
}
