//! A user's directory of endpoints for one test. Endpoints that still run at the end are killed.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::fake_service::FakeService;

pub(crate) struct Home {
    directory: TempDir,
    url: String,
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Home {
    pub(crate) fn new(service: &FakeService) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), url: service.url() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command of this user.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_globus-compute-endpoint"));
        command.args(arguments);
        self.prepare(command)
    }

    /// A shell of this user.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        self.prepare(command)
    }

    fn prepare(&self, mut command: Command) -> Command {
        command
            .stdin(Stdio::null())
            .env_remove("GLOBUS_SDK_ENVIRONMENT")
            .env_remove("GLOBUS_SDK_SERVICE_URL_AUTH")
            .env("GLOBUS_COMPUTE_USER_DIR", self.directory.path())
            .env("FARCALL_SERVICE_URL", &self.url)
            .env("GLOBUS_COMPUTE_CLIENT_ID", "00000000-0000-4000-8000-0000000000c1")
            .env("GLOBUS_COMPUTE_CLIENT_SECRET", "a secret of the test")
            .env("COLUMNS", "200");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        Ran {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Creates an endpoint with this configuration.
    pub(crate) fn configure(&self, name: &str, config: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
        fs::write(self.path(name).join("config.yaml"), config).unwrap();
    }

    /// The rows of `list`.
    pub(crate) fn listed(&self) -> Vec<[String; 3]> {
        let table = self.run(&["list"]).out;
        let cells = |line: &str| -> Option<[String; 3]> {
            let cells: Vec<_> = line
                .strip_prefix('|')?
                .strip_suffix('|')?
                .split('|')
                .map(|it| it.trim().to_owned())
                .collect();
            cells.try_into().ok()
        };
        table.lines().filter_map(cells).skip(1).collect()
    }

    /// The PID of the process that runs an endpoint.
    pub(crate) fn pid(&self, name: &str) -> i32 {
        fs::read_to_string(self.path(name).join("daemon.pid")).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let endpoints = fs::read_dir(self.directory.path()).into_iter().flatten().flatten();
        for pid_file in endpoints.map(|entry| entry.path().join("daemon.pid")) {
            if let Some(pid) = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok()) {
                signal(pid, libc::SIGKILL);
            }
        }
    }
}

pub(crate) fn signal(pid: i32, signal: i32) {
    // SAFETY: this test started the process.
    unsafe { libc::kill(pid, signal) };
}

/// Whether a process is alive; a zombie is not.
pub(crate) fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Waits until the condition holds, for at most a minute.
#[track_caller]
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "it did not happen within a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}
