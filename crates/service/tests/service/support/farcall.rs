//! Starts a service in a directory of its own, and administers it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::Value;
use store::test_database::TestDatabase;
use store::{Sharing, Store};

use super::client::{Answer, COMPUTE, Client, Registration, send};
use super::waiting::until;
use crate::database::Database;

/// `farcall serve` in a directory of its own.
pub struct Farcall {
    directory: TestDatabase,
    process: Option<Child>,
    pub http: String,
    pub amqp: String,
    /// The further addresses at which it listens.
    pub others: Vec<String>,
    web: reqwest::Client,
}

/// A running service, a client, and a function and an endpoint of that client.
pub async fn service_with_endpoint() -> (Farcall, Client, String, Registration) {
    with_endpoint(Farcall::start()).await
}

/// `service`, a client, and a function and an endpoint of that client.
pub async fn with_endpoint(service: Farcall) -> (Farcall, Client, String, Registration) {
    let client = service.client().await;
    let function = client.function().await;
    let registration = client.register().await;
    (service, client, function, registration)
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_farcall")
}

impl Farcall {
    pub fn start() -> Farcall {
        Farcall::configured("")
    }

    /// With this `farcall.yaml`.
    pub fn configured(yaml: &str) -> Farcall {
        Farcall::prepared().configure(yaml)
    }

    /// Starts it with this `farcall.yaml`.
    pub fn configure(mut self, yaml: &str) -> Farcall {
        std::fs::create_dir(self.data()).unwrap();
        std::fs::write(self.data().join("farcall.yaml"), yaml).unwrap();
        self.start_again();
        self
    }

    /// With a directory and not started.
    pub fn prepared() -> Farcall {
        Farcall::on(TestDatabase::new_blocking())
    }

    /// On SQLite, whatever this run of the tests is for: for what only SQLite does.
    pub fn on_sqlite() -> Farcall {
        Farcall::on(TestDatabase::sqlite())
    }

    fn on(directory: TestDatabase) -> Farcall {
        let web = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let (http, amqp) = (String::new(), String::new());
        Farcall { directory, process: None, http, amqp, others: Vec::new(), web }
    }

    /// A file beside the data directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts it on the addresses it had before, if it had any.
    pub fn start_again(&mut self) {
        self.start_with(&[], &[]);
    }

    /// The same with further arguments and variables.
    pub fn start_with(&mut self, arguments: &[&str], variables: &[(&str, &str)]) {
        let address = |known: &str| known.split("://").nth(1).unwrap_or("127.0.0.1:0").to_owned();
        // Files that may not grow end a process that does not mind: it shall see the error.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", binary()]);
        command.args(["serve", "--http-listen", &address(&self.http), "--amqp-listen", &address(&self.amqp)]);
        command.arg("--data-dir").arg(self.data()).stdout(Stdio::piped()).env_remove("NOTIFY_SOCKET");
        command.args(arguments).envs(self.database_variable()).envs(variables.iter().copied());
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut process = command.stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = line.trim().strip_prefix("farcall is ready: ");
        let ready = ready.unwrap_or_else(|| panic!("not ready: {line:?}\n{}", self.read_log()));
        let mut addresses = ready.split(' ');
        let mut next = || addresses.next().unwrap().to_owned();
        (self.http, self.amqp) = (next(), next());
        self.others = addresses.map(str::to_owned).collect();
        self.process = Some(process);
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    pub fn read_log(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.process.as_ref().unwrap().id();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    /// The files of payloads.
    pub fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data().join("payloads")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Waits until there are so many files of payloads.
    pub async fn files_until(&self, count: usize) {
        until(&format!("{count} files of payloads"), async || (self.files().len() == count).then_some(()))
            .await;
    }

    /// The URL of the database, if it is on a server.
    pub fn database_url(&self) -> Option<String> {
        self.directory.url()
    }

    /// The variable that tells a command which database it is.
    pub fn database_variable(&self) -> Option<(&'static str, String)> {
        self.database_url().map(|url| ("FARCALL_STORE__URL", url))
    }

    /// A connection of the test's own to the database.
    pub async fn database(&self) -> Database {
        Database::of(self).await
    }

    /// The store of the service, which does not run.
    pub async fn store(&self) -> Store {
        match self.database_url() {
            None => Store::open(&self.data().join("farcall.db")).await.unwrap(),
            Some(url) => {
                let servers = url.parse().unwrap();
                Store::open_postgres(&servers, &self.data().join("payloads"), Sharing::Alone).await.unwrap()
            }
        }
    }

    /// The most bytes that a file of the process may have: 0 makes its disk read-only.
    pub fn limit_files(&self, bytes: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
        assert!(limited.unwrap().success());
    }

    /// The memory that it holds now, in megabytes. From here on `peak_megabytes` counts anew.
    pub fn begin_peak(&self) -> u64 {
        std::fs::write(self.proc("clear_refs"), "5").unwrap();
        self.peak_megabytes()
    }

    /// The most memory that it held at any moment since `begin_peak`, in megabytes.
    pub fn peak_megabytes(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() >> 10
    }

    /// How many bytes lie in files without a name that it holds open: request bodies that arrive.
    pub fn nameless_bytes(&self) -> u64 {
        let opened = std::fs::read_dir(self.proc("fd")).unwrap();
        // A descriptor may be closed while the list is read.
        let files = opened.filter_map(|entry| std::fs::metadata(entry.ok()?.path()).ok());
        files.filter(|file| file.is_file() && file.nlink() == 0).map(|file| file.len()).sum()
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.process.as_ref().unwrap().id()))
    }

    /// SIGKILL, and nothing else.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.process.take().unwrap().wait().unwrap();
    }

    /// SIGTERM; how it left.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(Signal::SIGTERM);
        self.stop_status()
    }

    /// How it left, if it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.as_mut().unwrap().try_wait().unwrap()
    }

    /// How it left, after a signal.
    pub fn stop_status(&mut self) -> std::process::ExitStatus {
        self.process.take().unwrap().wait().unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = self.program();
        command.args(arguments).arg("--data-dir").arg(self.data()).output().unwrap()
    }

    /// The program, which learns from its environment which database it is.
    pub fn program(&self) -> Command {
        let mut command = Command::new(binary());
        command.envs(self.database_variable());
        command
    }

    /// A command that is done well and says so in JSON; `input` is its standard input.
    #[track_caller]
    pub fn administer(&self, arguments: &[&str], input: &str) -> Value {
        let done = self.try_administer(arguments, input);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    }

    pub fn try_administer(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.program();
        command.args(arguments).args(["--output", "json"]).arg("--data-dir").arg(self.data());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        process.wait_with_output().unwrap()
    }

    /// A new client identity, with a token for the compute routes.
    pub async fn client(&self) -> Client {
        self.new_client(&["client", "add", "tester"]).await
    }

    /// A client that may check tokens for `name`.
    pub async fn resource_server(&self, name: &str) -> Client {
        self.new_client(&["client", "add", "tester", "--resource-server", name]).await
    }

    async fn new_client(&self, arguments: &[&str]) -> Client {
        let added = self.administer(arguments, "");
        let text = |name: &str| added[name].as_str().unwrap().to_owned();
        self.client_known_as(&text("client_id"), &text("client_secret")).await
    }

    /// A client that exists.
    pub async fn client_known_as(&self, id: &str, secret: &str) -> Client {
        let (id, secret) = (id.to_owned(), secret.to_owned());
        let mut client =
            Client { id, secret, token: String::new(), http: self.http.clone(), web: self.web.clone() };
        client.token = client.grant(COMPUTE).await.ok()["access_token"].as_str().unwrap().to_owned();
        client
    }

    /// A request without anything that the caller does not add.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.web.request(method, format!("{}{path}", self.http))
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }
}

impl Drop for Farcall {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("the service's log:\n{}", self.read_log());
        }
    }
}

pub fn farcall(data: &Path, arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).arg("--data-dir").arg(data).output().unwrap()
}
