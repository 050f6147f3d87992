//! LocalProvider: a block is a bash script on this machine.
//!
//! The script is `<job>.sh`; beside it are its output `.sh.out`, its errors `.sh.err` and its exit status
//! `.sh.ec`, which holds `-` while it runs. The job's id is the shell's process id, and its process group.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::FcntlArg;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use super::{
    CancelError, Job, JobId, JobOutput, JobState, Provider, ProviderFuture, QueryError, Secret, Staging,
    StagingKind, SubmitError,
};
use crate::config::BlockOptions;
use crate::{processes, provider};

/// How long a cancelled job has to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

/// Runs blocks on this machine.
pub(super) struct LocalProvider {
    scripts: PathBuf,
    blocks: BlockOptions,
    open_files: Option<u64>,
    jobs: Arc<Mutex<HashMap<JobId, JobState>>>,
    names: Mutex<HashMap<String, JobId>>,
    changed: Arc<Notify>,
}

impl LocalProvider {
    pub(super) fn new(scripts: PathBuf, blocks: BlockOptions, open_files: Option<u64>) -> Self {
        Self {
            scripts,
            blocks,
            open_files,
            jobs: Arc::default(),
            names: Mutex::default(),
            changed: Arc::default(),
        }
    }

    async fn start(&self, job: &Job) -> Result<JobId, SubmitError> {
        let (config, memory) = match &job.staging {
            Staging::SharedFile(path) | Staging::TransferredFile(path) => {
                (path.to_string_lossy().into_owned(), None)
            }
            Staging::Secret(secret) => {
                let memory = create_memory_file(secret).map_err(|error| {
                    SubmitError::Refused(format!("cannot make a file in memory: {error}"))
                })?;
                (format!("{INHERITED}{}", memory.as_raw_fd()), Some(memory))
            }
        };
        let script = self.scripts.join(format!("{}.sh", job.name));
        let text = provider::script(&self.blocks, job, &config, &self.scripts);
        let status = with_suffix(&script, ".ec");
        let (stdout, stderr) = (with_suffix(&script, ".out"), with_suffix(&script, ".err"));
        let paths = (script.clone(), status.clone(), stdout.clone(), stderr.clone());
        // On another thread: the file system may stall, and the engine must not.
        let made = tokio::task::spawn_blocking(move || {
            let (script, status, stdout, stderr) = paths;
            write_file(&script, &text)?;
            write_file(&status, "-\n")?;
            Ok((create_file(&stdout)?, create_file(&stderr)?))
        });
        let no_shell =
            |error: &dyn fmt::Display| SubmitError::Refused(format!("cannot run /bin/bash: {error}"));
        let (out, errors) = made.await.unwrap_or_else(|error| Err(no_shell(&error)))?;
        let mut bash = Command::new("/bin/bash");
        processes::limit_open_files(&mut bash, self.open_files);
        if let Some(memory) = &memory {
            processes::inherit(&mut bash, memory);
        }
        let child = bash
            .arg(&script)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|error| no_shell(&error))?;
        let id = JobId(child.id().map(|pid| pid.to_string()).unwrap_or_default());
        self.record_state(&id, JobState::Running);
        self.names().insert(job.name.clone(), id.clone());
        let (jobs, changed, watched) = (Arc::clone(&self.jobs), Arc::clone(&self.changed), id.clone());
        tokio::spawn(async move {
            let state = wait_for_end(
                child,
                &status,
                JobOutput { stdout: Some(stdout), stderr: Some(stderr), ..JobOutput::default() },
            );
            let state = state.await;
            let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = jobs.entry(watched).or_insert(JobState::Running);
            if *entry == JobState::Running {
                *entry = state;
            }
            changed.notify_one();
        });
        Ok(id)
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, JobId>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_state(&self, id: &JobId, state: JobState) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), state);
    }

    fn state(&self, id: &JobId) -> Option<JobState> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

impl Provider for LocalProvider {
    fn submit(&self, job: Job) -> ProviderFuture<'_, Result<JobId, SubmitError>> {
        Box::pin(async move { self.start(&job).await })
    }

    fn status<'a>(
        &'a self,
        jobs: &'a [JobId],
    ) -> ProviderFuture<'a, Result<HashMap<JobId, JobState>, QueryError>> {
        let state = |id: &JobId| self.state(id).unwrap_or(JobState::Gone);
        Box::pin(async move { Ok(jobs.iter().map(|id| (id.clone(), state(id))).collect()) })
    }

    fn find<'a>(&'a self, name: &'a str) -> ProviderFuture<'a, Result<Option<JobId>, QueryError>> {
        Box::pin(async move { Ok(self.names().get(name).cloned()) })
    }

    fn cancel<'a>(&'a self, jobs: &'a [JobId]) -> ProviderFuture<'a, Result<(), CancelError>> {
        Box::pin(async move {
            let running: Vec<_> = jobs
                .iter()
                .filter(|id| self.state(id) == Some(JobState::Running))
                .filter_map(|id| Some((id, process_group_of(id)?)))
                .collect();
            for (id, _) in &running {
                self.record_state(id, JobState::Cancelled(String::new()));
            }
            for signal in [Signal::SIGTERM, Signal::SIGKILL] {
                for (_, group) in &running {
                    let _ = killpg(*group, signal); // it may have ended already
                }
                let ended = async {
                    while running.iter().any(|(_, group)| processes::group_runs(*group)) {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                if tokio::time::timeout(CANCEL_GRACE, ended).await.is_ok() {
                    return Ok(());
                }
            }
            let left: Vec<_> = running.iter().filter(|(_, group)| processes::group_runs(*group)).collect();
            for (id, _) in &left {
                self.record_state(id, JobState::Running);
            }
            let jobs: Vec<_> = left.into_iter().map(|(id, _)| (*id).clone()).collect();
            if jobs.is_empty() {
                return Ok(());
            }
            Err(CancelError { jobs, reason: "its processes do not end although they were killed".into() })
        })
    }

    /// By a file in memory that the processes of the block inherit.
    fn staging(&self) -> StagingKind {
        StagingKind::Secret
    }

    fn status_period(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}

/// Where a process opens the files that it has inherited, by their numbers.
const INHERITED: &str = "/proc/self/fd/";

/// The least number of an inherited file: scripts use small numbers of their own (`exec 9> lock`).
const LEAST_NUMBER: i32 = 100;

/// A file in memory that holds the secret, and that no other user can open.
fn create_memory_file(secret: &Secret) -> io::Result<OwnedFd> {
    let mut file = fs::File::from(memfd_create(c"farcall-node", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(secret.expose().as_bytes())?;
    Ok(nix::fcntl::fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(LEAST_NUMBER)).map(|number| {
        // SAFETY: the system has just made this descriptor for us.
        unsafe { OwnedFd::from_raw_fd(number) }
    })?)
}

/// The process group that a job's id stands for.
fn process_group_of(id: &JobId) -> Option<Pid> {
    id.0.parse().ok().filter(|&pid| pid > 1).map(Pid::from_raw)
}

/// Waits for the script's shell, writes its exit status to a file, and returns the final state of the job.
async fn wait_for_end(mut child: Child, status: &Path, output: JobOutput) -> JobState {
    let exit: io::Result<_> = child.wait().await;
    match exit.map(|status| status.code()) {
        Ok(Some(code)) => {
            let _ = tokio::fs::write(status, format!("{code}\n")).await; // for the reader of the directory only
            let output = JobOutput { exit_code: Some(code), ..output };
            if code == 0 { JobState::Completed(output) } else { JobState::Failed(output) }
        }
        // Killed by a signal that was not ours.
        Ok(None) => JobState::Cancelled("Killed".into()),
        Err(error) => JobState::Failed(JobOutput { message: Some(error.to_string()), ..output }),
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), SubmitError> {
    fs::write(path, text).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> SubmitError {
    SubmitError::Refused(format!("cannot write {}: {error}", path.display()))
}

fn create_file(path: &Path) -> Result<fs::File, SubmitError> {
    fs::File::create(path).map_err(|error| cannot_write(path, &error))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn finished(provider: &LocalProvider, id: &JobId) -> JobState {
        loop {
            let state = provider.status(std::slice::from_ref(id)).await.unwrap().remove(id).unwrap();
            if state != JobState::Running {
                return state;
            }
            provider.changed().notified().await;
        }
    }

    fn provider(scripts: &Path, worker_init: &str) -> LocalProvider {
        let blocks = BlockOptions { worker_init: worker_init.into(), ..BlockOptions::default() };
        LocalProvider::new(scripts.to_owned(), blocks, None)
    }

    fn job(command: &str) -> Job {
        // What follows the words of the node's command is a comment.
        of_words(&["eval", &format!("{command} #")])
    }

    fn of_words(words: &[&str]) -> Job {
        let node_command = words.iter().map(|word| (*word).to_owned()).collect();
        let staging = Staging::Secret(Secret::new("the keys".into()));
        Job { name: "parsl.x.block-0.1".into(), node_command, staging }
    }

    #[tokio::test]
    async fn worker_init_runs_in_the_shell_of_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let provider = provider(dir.path(), "say() { echo \"said $1 in $JOBNAME\"; }\nexport WORD=hello");
        let id = provider.submit(job("say $WORD; (exit 3)")).await.unwrap();
        let state = finished(&provider, &id).await;
        let JobState::Failed(output) = state else { panic!("{state:?}") };
        assert_eq!(output.exit_code, Some(3));
        assert_eq!(fs::read_to_string(output.stdout.unwrap()).unwrap(), "said hello in parsl.x.block-0.1\n");
        assert_eq!(fs::read_to_string(dir.path().join("parsl.x.block-0.1.sh.ec")).unwrap(), "3\n");
    }

    #[tokio::test]
    async fn cancelling_kills_a_process_group_that_ignores_sigterm() {
        let dir = tempfile::tempdir().unwrap();
        let provider = provider(dir.path(), "trap '' TERM");
        let id = provider.submit(job("sleep 1000 & sleep 1000; sleep 1000")).await.unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("parsl.x.block-0.1.sh.ec")).unwrap(), "-\n");
        provider.cancel(std::slice::from_ref(&id)).await.unwrap();
        assert_eq!(finished(&provider, &id).await, JobState::Cancelled(String::new()));
        assert!(!processes::group_runs(process_group_of(&id).unwrap()), "nobody of the group is left");
    }

    #[tokio::test]
    async fn a_job_killed_by_a_foreign_signal_counts_as_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let provider = provider(dir.path(), "");
        let id = provider.submit(job("kill -9 $$")).await.unwrap();
        assert_eq!(finished(&provider, &id).await, JobState::Cancelled("Killed".into()));
    }

    #[tokio::test]
    async fn every_node_reads_the_secret_and_nobody_else_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        let node = "node() { cat \"$2\"; cat /proc/$$/environ /proc/$$/cmdline; exec 9> /dev/null; }";
        let blocks = BlockOptions { worker_init: node.into(), nodes_per_block: 2, ..BlockOptions::default() };
        let provider = LocalProvider::new(dir.path().to_owned(), blocks, None);
        let id = provider.submit(of_words(&["node"])).await.unwrap();
        let JobState::Completed(output) = finished(&provider, &id).await else { panic!("it reads a file") };
        let said = String::from_utf8_lossy(&fs::read(output.stdout.unwrap()).unwrap()).into_owned();
        assert_eq!(said.matches("the keys").count(), 2, "{said}");
        let script = fs::read_to_string(dir.path().join("parsl.x.block-0.1.sh")).unwrap();
        assert!(!script.contains("the keys"), "{script}");
    }

    #[tokio::test]
    async fn a_job_is_found_by_its_name_and_an_unknown_one_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let provider = provider(dir.path(), "");
        assert_eq!(provider.find("parsl.x.block-0.1").await, Ok(None));
        let id = provider.submit(job("true")).await.unwrap();
        assert_eq!(provider.find("parsl.x.block-0.1").await, Ok(Some(id)));
        let never = JobId("0".into());
        assert_eq!(provider.status(std::slice::from_ref(&never)).await.unwrap()[&never], JobState::Gone);
    }
}
