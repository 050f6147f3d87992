//! LocalProvider: a block is a bash script on this machine.
//!
//! The script is `<job>.sh`; beside it lie its output `.sh.out`, its errors `.sh.err` and its exit status
//! `.sh.ec`, which holds `-` while it runs. The job's id is the shell's process id, and its process group.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use super::{Answer, BlockOptions, Job, JobId, JobState, Output, Provider, SubmitError};
use crate::processes;

/// How long a cancelled job has to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

/// Runs blocks on this machine.
pub(super) struct LocalProvider {
    scripts: PathBuf,
    blocks: BlockOptions,
    open_files: Option<u64>,
    jobs: Arc<Mutex<HashMap<JobId, JobState>>>,
    changed: Arc<Notify>,
}

impl LocalProvider {
    pub(super) fn new(scripts: PathBuf, blocks: BlockOptions, open_files: Option<u64>) -> Self {
        Self { scripts, blocks, open_files, jobs: Arc::default(), changed: Arc::default() }
    }

    async fn start(&self, job: &Job) -> Result<JobId, SubmitError> {
        let script = self.scripts.join(format!("{}.sh", job.name));
        let text = self.blocks.script(job, &self.scripts);
        let status = with_suffix(&script, ".ec");
        let (stdout, stderr) = (with_suffix(&script, ".out"), with_suffix(&script, ".err"));
        let paths = (script.clone(), status.clone(), stdout.clone(), stderr.clone());
        // The file system may stand still; the engine must not.
        let made = tokio::task::spawn_blocking(move || {
            let (script, status, stdout, stderr) = paths;
            write(&script, &text)?;
            write(&status, "-\n")?;
            Ok((create(&stdout)?, create(&stderr)?))
        });
        let (out, errors) =
            made.await.unwrap_or_else(|error| Err(SubmitError::Shell(io::Error::other(error))))?;
        let mut bash = Command::new("/bin/bash");
        processes::limit_open_files(&mut bash, self.open_files);
        let child = bash
            .arg(&script)
            .envs(job.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(SubmitError::Shell)?;
        let id = JobId(child.id().map(|pid| pid.to_string()).unwrap_or_default());
        self.set(&id, JobState::Running);
        let (jobs, changed, watched) = (Arc::clone(&self.jobs), Arc::clone(&self.changed), id.clone());
        tokio::spawn(async move {
            let state = ended(
                child,
                &status,
                Output { stdout: Some(stdout), stderr: Some(stderr), ..Output::default() },
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

    fn set(&self, id: &JobId, state: JobState) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), state);
    }

    fn state(&self, id: &JobId) -> Option<JobState> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

impl Provider for LocalProvider {
    fn submit(&self, job: Job) -> Answer<'_, Result<JobId, SubmitError>> {
        Box::pin(async move { self.start(&job).await })
    }

    fn status<'a>(&'a self, jobs: &'a [JobId]) -> Answer<'a, HashMap<JobId, JobState>> {
        Box::pin(async move { jobs.iter().filter_map(|id| Some((id.clone(), self.state(id)?))).collect() })
    }

    fn cancel<'a>(&'a self, jobs: &'a [JobId]) -> Answer<'a, ()> {
        Box::pin(async move {
            let running: Vec<_> = jobs
                .iter()
                .filter(|id| self.state(id) == Some(JobState::Running))
                .filter_map(group)
                .collect();
            for id in jobs {
                if self.state(id) == Some(JobState::Running) {
                    self.set(id, JobState::Cancelled(String::new()));
                }
            }
            for signal in [Signal::SIGTERM, Signal::SIGKILL] {
                for &group in &running {
                    let _ = killpg(group, signal); // gone already is as good
                }
                let gone = async {
                    while running.iter().any(|&group| processes::group_runs(group)) {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                if tokio::time::timeout(CANCEL_GRACE, gone).await.is_ok() {
                    break;
                }
            }
        })
    }

    fn status_period(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}

/// The process group a job's id names.
fn group(id: &JobId) -> Option<Pid> {
    id.0.parse().ok().filter(|&pid| pid > 1).map(Pid::from_raw)
}

/// Waits for the script's shell, writes its exit status down and says what became of the job.
async fn ended(mut child: Child, status: &Path, output: Output) -> JobState {
    let exit: io::Result<_> = child.wait().await;
    match exit.map(|status| status.code()) {
        Ok(Some(code)) => {
            let _ = tokio::fs::write(status, format!("{code}\n")).await; // for the reader of the directory only
            let output = Output { exit_code: Some(code), ..output };
            if code == 0 { JobState::Completed(output) } else { JobState::Failed(output) }
        }
        // Killed by somebody else's signal: it wrote no exit status.
        Ok(None) => JobState::Cancelled("Killed".into()),
        Err(error) => JobState::Failed(Output { message: Some(error.to_string()), ..output }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), SubmitError> {
    fs::write(path, text).map_err(|error| SubmitError::Script { path: path.to_owned(), error })
}

fn create(path: &Path) -> Result<fs::File, SubmitError> {
    fs::File::create(path).map_err(|error| SubmitError::Script { path: path.to_owned(), error })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// One word for a POSIX shell.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn finished(provider: &LocalProvider, id: &JobId) -> JobState {
        loop {
            let state = provider.status(std::slice::from_ref(id)).await.remove(id).unwrap();
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
        Job { name: "parsl.x.block-0.1".into(), command: command.into(), environment: Vec::new() }
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
    async fn cancelling_ends_the_whole_process_group_even_if_it_does_not_want_to() {
        let dir = tempfile::tempdir().unwrap();
        let provider = provider(dir.path(), "trap '' TERM");
        let id = provider.submit(job("sleep 1000 & sleep 1000; sleep 1000")).await.unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("parsl.x.block-0.1.sh.ec")).unwrap(), "-\n");
        provider.cancel(std::slice::from_ref(&id)).await;
        assert_eq!(finished(&provider, &id).await, JobState::Cancelled(String::new()));
        assert!(!processes::group_runs(group(&id).unwrap()), "nobody of the group is left");
    }

    #[tokio::test]
    async fn a_job_killed_by_others_is_cancelled_with_a_word() {
        let dir = tempfile::tempdir().unwrap();
        let provider = provider(dir.path(), "");
        let id = provider.submit(job("kill -9 $$")).await.unwrap();
        assert_eq!(finished(&provider, &id).await, JobState::Cancelled("Killed".into()));
    }

    #[test]
    fn words_are_quoted_when_they_must_be() {
        assert_eq!(quote("/a/b-c@d.sh"), "/a/b-c@d.sh");
        assert_eq!(quote("it's $x"), "'it'\\''s $x'");
        assert_eq!(quote(""), "''");
    }
}
