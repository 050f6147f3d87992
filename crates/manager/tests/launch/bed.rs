//! What a test stands on: an account, a manager's files, a program in the place of a user endpoint, and a launch.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use manager::launch::{
    LaunchEnd, LaunchReport, LaunchRequest, ManagerFiles, MappedIdentity, OpenFiles, Reports, start,
};
use manager::waiting;
use nix::unistd::Pid;
use serde_json::json;

use super::system_calls::Denied;

/// The argument that makes this program a manager of one launch, which a test can kill.
pub(crate) const MANAGER: &str = "__manager";

/// Longer than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The default name of the user endpoint's directory.
pub(crate) const NAME: &str = "uep.m.u";

/// A local account, removed at the end with all that belongs to it.
pub(crate) struct Account {
    pub(crate) name: String,
}

impl Account {
    /// Makes an account; `options` are those of `useradd`.
    pub(crate) fn new(options: &[&str]) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("launchtest{}x{count}", std::process::id());
        run_until_unlocked(Command::new("useradd").args(options).arg(&name));
        Self { name }
    }

    pub(crate) fn with_home() -> Self {
        Self::new(&["-m", "-s", "/bin/sh"])
    }

    /// An account whose primary group has no entry any more, and the number of that group.
    pub(crate) fn without_group() -> (u32, Self) {
        let group = format!("launchgroup{}", std::process::id());
        run_until_unlocked(Command::new("groupadd").arg(&group));
        let account = Self::new(&["-m", "-s", "/bin/sh", "-g", &group]);
        let number = nix::unistd::Group::from_name(&group).unwrap().unwrap().gid.as_raw();
        run_until_unlocked(Command::new("groupdel").args(["--force", &group]));
        assert!(nix::unistd::Group::from_gid(number.into()).unwrap().is_none());
        (number, account)
    }

    pub(crate) fn home(&self) -> PathBuf {
        nix::unistd::User::from_name(&self.name).unwrap().unwrap().dir
    }

    pub(crate) fn uid(&self) -> u32 {
        nix::unistd::User::from_name(&self.name).unwrap().unwrap().uid.as_raw()
    }

    /// The processes that run as this user.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let uid = self.uid();
        let all =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let theirs = |pid: &Pid| fs::metadata(format!("/proc/{pid}")).is_ok_and(|data| data.uid() == uid);
        all.map(Pid::from_raw).filter(theirs).filter(|pid| runs(*pid)).collect()
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.home().join(".globus_compute").join(NAME)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Only numbers that `useradd` gave: a second account of root's number must not end root's processes.
        if self.uid() >= 1000 {
            for process in self.processes() {
                let _ = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL);
            }
        }
        let home = self.home();
        run_until_unlocked(Command::new("userdel").args(["-f", &self.name]));
        if home.starts_with("/home") && home.file_name().is_some_and(|name| *name == *self.name) {
            let _ = fs::remove_dir_all(home);
        }
    }
}

/// Tests run side by side, and only one program at a time may change accounts.
fn run_until_unlocked(command: &mut Command) {
    let begin = Instant::now();
    loop {
        let output = command.output().unwrap();
        // 1: the file is locked. 6 of `userdel`: no such user. 12: the mail spool was not there.
        match output.status.code() {
            Some(0 | 6 | 12) => return,
            Some(1 | 10) if begin.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(50)),
            _ => panic!("{command:?}: {output:?}"),
        }
    }
}

/// A manager's directory, and a directory of programs.
pub(crate) struct Bed {
    place: tempfile::TempDir,
}

/// In the place of a user endpoint: writes down what it got, then waits, or ends as the file `end` in its home says.
const PROGRAM: &str = r#"#!/bin/sh
cat > "$HOME/document"
# Without a pipe, of which the shell would have an end open.
ls -l /proc/$$/fd > "$HOME/descriptors"
{
    for argument in "$0" "$@"; do echo "argument $argument"; done
    echo "cwd $(pwd)"
    echo "umask $(umask)"
    echo "nofile $(ulimit -H -n)"
    sed 's/^/descriptor /' "$HOME/descriptors"
    sed 's/^/status /' /proc/$$/status
    sed 's/^/stat /' /proc/$$/stat
    sed 's/^/limit /' /proc/$$/limits
    sed 's/^/key /' /proc/keys
    env | sed 's/^/environment /'
    [ -x "$HOME/id" ] && echo "setuid $("$HOME/id" -u)"
} > "$HOME/got"
echo "said to the log"
mv "$HOME/got" "$HOME/record"
[ -f "$HOME/end" ] && . "$HOME/end"
sleep 1000 &
echo $! > "$HOME/got"
mv "$HOME/got" "$HOME/sleeper"
wait
"#;

impl Bed {
    pub(crate) fn new() -> Self {
        let place = tempfile::Builder::new().prefix("launchtest").tempdir().unwrap();
        let bed = Self { place };
        fs::set_permissions(bed.place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for directory in ["manager", "bin"] {
            fs::create_dir(bed.path(directory)).unwrap();
            fs::set_permissions(bed.path(directory), fs::Permissions::from_mode(0o755)).unwrap();
        }
        bed.template("engine:\n  type: GlobusComputeEngine\nnote: {{ note|default('none') }}\n");
        bed.program(PROGRAM);
        bed
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub(crate) fn template(&self, text: &str) {
        fs::write(self.path("manager/template"), text).unwrap();
    }

    pub(crate) fn environment(&self, text: &str) {
        fs::write(self.path("manager/environment"), text).unwrap();
    }

    pub(crate) fn program(&self, text: &str) {
        let path = self.path("bin/globus-compute-endpoint");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn request(&self, local_user: Option<&str>) -> LaunchRequest {
        LaunchRequest {
            local_user: local_user.map(str::to_owned),
            name: NAME.to_owned(),
            files: ManagerFiles {
                template: self.path("manager/template"),
                schema: self.path("manager/schema"),
                environment: self.path("manager/environment"),
                program_directory: self.path("bin"),
            },
            user_options: serde_json::Map::new(),
            user_runtime: None,
            parent_config: json!({}),
            identity: Some(MappedIdentity {
                id: "0f0f0f0f-0000-4000-8000-000000000001".parse().unwrap(),
                effective: "0f0f0f0f-0000-4000-8000-000000000002".parse().unwrap(),
                username: "alicia@example.edu".to_owned(),
                candidates: serde_json::from_value(json!({"0": ["alicia"]})).unwrap(),
            }),
            credentials: json!({
                "endpoint_id": "0f0f0f0f-0000-4000-8000-000000000003",
                "of_a_later_release": {"x": 1},
            }),
            allowed_functions: None,
            high_assurance: false,
            pam_service: None,
            arguments: Vec::new(),
            inherited_environment: Vec::new(),
            audit_descriptor: None,
            renewed_credentials: None,
        }
    }
}

/// How a launch went.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    pub(crate) reports: Vec<LaunchReport>,
    pub(crate) end: LaunchEnd,
}

/// Launches, and reads the reports to their end.
pub(crate) fn launch(request: &LaunchRequest) -> Launched {
    launch_and(request, |_| {})
}

/// The same, but does something with the launcher's process first.
pub(crate) fn launch_and(request: &LaunchRequest, act: impl FnOnce(Pid)) -> Launched {
    finish(start(request, None).unwrap(), act)
}

/// The same, with a limit of open files.
pub(crate) fn launch_with(request: &LaunchRequest, open_files: OpenFiles) -> Launched {
    finish(start(request, Some(open_files)).unwrap(), |_| {})
}

fn finish(launch: manager::launch::Launch, act: impl FnOnce(Pid)) -> Launched {
    act(Pid::from_raw(launch.pid));
    let (mut reports, mut all) = (Reports::default(), Vec::new());
    let mut pipe = fs::File::from(launch.reports);
    let mut buffer = [0; 4096];
    loop {
        match pipe.read(&mut buffer).unwrap() {
            0 => break,
            read => all.extend(reports.push(&buffer[..read])),
        }
    }
    Launched { pid: Pid::from_raw(launch.pid), reports: all, end: reports.end() }
}

impl Launched {
    /// The failure's status and text, after the launcher ended with that status.
    pub(crate) fn failure(self) -> (u8, String, String) {
        let LaunchEnd::Failed(failure) = &self.end else { panic!("no failure: {self:?}") };
        assert_eq!(self.wait().code(), Some(failure.status.into()));
        let LaunchEnd::Failed(failure) = self.end else { unreachable!() };
        (failure.status, failure.notice, failure.private)
    }

    pub(crate) fn wait(&self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = waiting::reap(self.pid).unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "{self:?} does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The user endpoint's process: with PAM a child of the launcher.
    pub(crate) fn user_endpoint(&self) -> Pid {
        let running = self.reports.iter().find_map(|report| match report {
            LaunchReport::Running { pid } => Some(Pid::from_raw(*pid)),
            _ => None,
        });
        running.unwrap_or(self.pid)
    }

    pub(crate) fn kill(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid, signal).unwrap();
    }
}

/// A started user endpoint's own record.
pub(crate) struct Record(pub(crate) String);

impl Record {
    pub(crate) fn of(home: &Path, launched: &Launched) -> Self {
        assert_eq!(launched.end, LaunchEnd::Started, "{launched:?}");
        wait_until(|| home.join("record").exists());
        Self(fs::read_to_string(home.join("record")).unwrap())
    }

    /// The values of lines that begin so.
    pub(crate) fn all(&self, begin: &str) -> Vec<&str> {
        self.0.lines().filter_map(|line| Some(line.strip_prefix(begin)?.trim())).collect()
    }

    pub(crate) fn one(&self, begin: &str) -> &str {
        let all = self.all(begin);
        assert_eq!(all.len(), 1, "{begin}: {}", self.0);
        all[0]
    }
}

/// The child that a started user endpoint waits for.
pub(crate) fn sleeper(home: &Path) -> Pid {
    wait_until(|| home.join("sleeper").exists());
    Pid::from_raw(fs::read_to_string(home.join("sleeper")).unwrap().trim().parse().unwrap())
}

pub(crate) fn wait_until(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process runs. A zombie does not.
pub(crate) fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// A manager in a process of its own, killed at the end.
pub(crate) struct ManagerProcess {
    child: std::process::Child,
    said: PathBuf,
}

impl ManagerProcess {
    pub(crate) fn start(bed: &Bed, request: &LaunchRequest) -> Self {
        Self::start_by(&[], bed, request)
    }

    /// Starts one that sees the first file in the place of the second.
    pub(crate) fn start_with_mount(source: &Path, target: &str, bed: &Bed, request: &LaunchRequest) -> Self {
        let script = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
        let source = source.to_str().unwrap();
        let unshare =
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", source, target];
        Self::start_by(&unshare, bed, request)
    }

    /// Starts one for which, and for whose launcher, the kernel refuses a system call.
    pub(crate) fn start_denied(denied: &Denied, bed: &Bed, request: &LaunchRequest) -> Self {
        let file = bed.path("request.json");
        fs::write(&file, serde_json::to_string(request).unwrap()).unwrap();
        let program = std::env::current_exe().unwrap();
        let child = Command::new(program).arg(MANAGER).arg(&file).arg(denied.text()).spawn().unwrap();
        Self { child, said: file.with_extension("said") }
    }

    /// Starts one by a command that becomes it.
    pub(crate) fn start_by(by: &[&str], bed: &Bed, request: &LaunchRequest) -> Self {
        let file = bed.path("request.json");
        fs::write(&file, serde_json::to_string(request).unwrap()).unwrap();
        let program = std::env::current_exe().unwrap();
        let mut command = match by {
            [] => Command::new(program),
            [first, rest @ ..] => {
                // A copy, which other users can run.
                let copy = bed.path("launch-test");
                fs::copy(program, &copy).unwrap();
                let mut command = Command::new(first);
                command.args(rest).arg(copy);
                command
            }
        };
        let child = command.arg(MANAGER).arg(&file).spawn().unwrap();
        Self { child, said: file.with_extension("said") }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Waits for its launch: the launcher's number, and how the launch ended.
    pub(crate) fn launched(&self) -> (Pid, String) {
        wait_until(|| self.said.exists());
        let said = fs::read_to_string(&self.said).unwrap();
        let (number, end) = said.split_once(' ').unwrap();
        (Pid::from_raw(number.parse().unwrap()), end.to_owned())
    }
}

impl Drop for ManagerProcess {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The manager of [`ManagerProcess`]: launches what the file says, writes down how that went, and waits to be killed.
pub(crate) fn manager(request: &Path) -> ! {
    let wanted: LaunchRequest = serde_json::from_str(&fs::read_to_string(request).unwrap()).unwrap();
    let launched = launch(&wanted);
    fs::write(request.with_extension("part"), format!("{} {:?}", launched.pid, launched.end)).unwrap();
    fs::rename(request.with_extension("part"), request.with_extension("said")).unwrap();
    loop {
        std::thread::sleep(PATIENCE);
    }
}
