//! The order of a launch, stage by stage, and nothing else: each step is in the module that it names.
//!
//! ```text
//! as root      74  leave the manager's session keyring
//!              70  look up the user, refuse whom nobody may be; read template, schema and environment
//!              71  PAM: account, session (only with PAM: the launcher divides itself, session.rs)
//!              71  group id   72  supplementary groups   73  user id   74  capabilities; try to come back
//! as the user  75  a session of its own   76  umask 077   77  working directory
//!              78  the endpoint's directory; render the template   79  read the configuration
//!              81  start document   83  log   87  descriptors   88  exec
//! ```
//! A personal manager's launcher changes no user and leaves out 71 to 74.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, Uid, chdir, getppid, setsid};
use serde_json::Value;

use super::document::{Configuration, Passed};
use super::receive::Received;
use super::reporter::Reporter;
use super::request::{LaunchFailure, LaunchReport, LaunchRequest};
use super::session::Role;
use super::stage::{Failure, Problem, Stage};
use super::title::Title;
use super::user::{LocalUser, NoUser};
use super::{clock, directory, document, execute, keyring, pam, privileges, session, signals, spawn, user};
use crate::environment::{self, Origin, Variables};
use crate::template::{self, Account, RenderError};

/// How long the name service may take.
const LOOK_UP_SECONDS: u32 = 10;

/// How long PAM's modules may take to open a session.
const PAM_SECONDS: u32 = 60;

/// Ends a rendering whose own limits failed.
const RENDER_SECONDS: u32 = 30;

/// Variables by which a user could change how programs load: they are not taken from PAM, whose modules read files of
/// the user's.
const LOADER_VARIABLES: [&str; 8] =
    ["BASH_ENV", "ENV", "GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH", "PYTHONHOME", "PYTHONPATH"];
const LOADER_PREFIXES: [&str; 2] = ["LD_", "MALLOC_"];

/// One launch: what was passed, and where to report.
pub(super) struct Launch {
    request: LaunchRequest,
    /// `None` in the holder and the stand-in, which let go of them.
    held: Option<Held>,
    title: Option<Title>,
    manager: Pid,
}

/// What only the process that becomes the user endpoint has open.
struct Held {
    reporter: Reporter,
    audit: Option<OwnedFd>,
    credentials: Option<OwnedFd>,
}

impl Launch {
    pub(super) fn new(received: Received, reporter: Reporter, title: Option<Title>, manager: Pid) -> Self {
        let Received { request, audit, credentials } = received;
        Self { request, held: Some(Held { reporter, audit, credentials }), title, manager }
    }

    /// Goes through the stages. Returns only with a failure.
    pub(super) fn run(&mut self) -> LaunchFailure {
        // Before any module of the name service or of PAM runs, whose programs would have root's keys, too.
        if let Some(name) = &self.request.local_user
            && let Err(failure) = keyring::leave()
        {
            return failure.report(name, true);
        }
        let user = match self.find_user() {
            Ok(user) => user,
            Err(failure) => return failure,
        };
        self.report(&LaunchReport::UserFound { uid: user.uid.as_raw(), gid: user.gid.as_raw() });
        let changes_user = self.request.local_user.is_some();
        let Err(failure) = self.stages(&user, changes_user);
        failure.report(&user.name, changes_user)
    }

    pub(super) fn report(&mut self, report: &LaunchReport) {
        if let Some(held) = &mut self.held {
            held.reporter.send(report);
        }
    }

    /// Looks the user up under an alarm, and refuses those who may never be started.
    fn find_user(&self) -> Result<LocalUser, LaunchFailure> {
        let name = self.request.local_user.as_deref().unwrap_or("the manager's own user");
        let at_once = |problem: Problem| problem.at(Stage::Read).report(name, false);
        let silent = at_once(Problem::new(
            "TimeoutError",
            format!(
                "the name service of the endpoint's machine did not answer within {LOOK_UP_SECONDS} s; try again later"
            ),
        ));
        match self.within(LOOK_UP_SECONDS, silent, || user::look_up(&self.request)) {
            Ok(user) => {
                match self.request.local_user.as_ref().and_then(|_| user::refuse(&user, Uid::current())) {
                    None => Ok(user),
                    Some(reason) => Err(user::refused(&self.request, &user, reason)),
                }
            }
            Err(NoUser::Unknown) => Err(user::unknown(&self.request)),
            Err(NoUser::Failed(problem)) => Err(at_once(problem)),
        }
    }

    fn within<T>(&self, seconds: u32, failure: LaunchFailure, step: impl FnOnce() -> T) -> T {
        match &self.held {
            Some(held) => held.reporter.within(seconds, failure, step),
            None => step(),
        }
    }

    fn stages(&mut self, user: &LocalUser, changes_user: bool) -> Result<Infallible, Failure> {
        let inputs = self.read_files()?;
        chdir("/").map_err(|errno| Problem::system(errno, Some(Path::new("/"))).at(Stage::Read))?;

        let mut parent = self.manager;
        let mut inherited = self.request.inherited_environment.clone();
        if changes_user {
            match self.request.pam_service.clone() {
                None => privileges::become_user(user)?,
                Some(service) => {
                    // Out of the manager's session: its terminal's signals are not for the holder. Fails only for a
                    // process that leads one already.
                    let _ = setsid();
                    signals::note_requests_to_end();
                    privileges::inherit_nothing()?;
                    let session = self
                        .within(PAM_SECONDS, self.pam_silent(&service, user), || pam::open(&service, user))?;
                    for word in session.words() {
                        self.report(&LaunchReport::Warning {
                            text: format!("PAM ({service}, {}): {word}", user.name),
                        });
                    }
                    inherited.extend(
                        session.environment().into_iter().filter(|(name, _)| !is_loader_variable(name)),
                    );
                    parent = self.divide(session, user)?;
                    privileges::become_user_with_pam(user)?;
                }
            }
        } else {
            privileges::inherit_nothing()?;
        }

        setsid().map_err(|errno| Problem::system(errno, None).at(Stage::Session))?;
        umask(Mode::from_bits_truncate(0o077));
        let account = account(user);
        let origin = Origin {
            inherited: &inherited,
            account: &account,
            has_home: user.home.is_dir(),
            program_directory: &self.request.files.program_directory,
            endpoint_name: &self.request.name,
            tells_versions_of: None,
        };
        let chosen: Variables =
            self.request.inherited_environment.iter().cloned().chain(inputs.environment.clone()).collect();
        let variables = environment::compose(inputs.environment, &origin);
        let working_directory = Path::new(variables.get("PWD").map_or("/", String::as_str));
        chdir(working_directory)
            .map_err(|errno| Problem::system(errno, Some(working_directory)).at(Stage::WorkingDirectory))?;

        let arguments = execute::arguments(&self.request, &chosen);
        if let Some(title) = &self.title {
            title.starting(&user.name, &arguments);
        }
        let place = directory::create(&variables, &self.request.name)?;
        let rendered = self.render(&account, &variables, &inputs.template, inputs.schema.as_ref())?;
        let configuration = document::configuration(rendered, &self.request)?;
        self.become_program(&arguments, &variables, &place, &configuration, parent)
    }

    /// What is reported when a module of PAM hangs.
    fn pam_silent(&self, service: &str, user: &LocalUser) -> LaunchFailure {
        let text = format!(
            "PAM ({service}, {}): a module did not answer within {PAM_SECONDS} s; the launcher and the programs that its \
             modules run were ended, and what they had opened is not closed",
            user.name
        );
        let problem = Problem::new("TimeoutError", "see your system administrator").privately(text);
        problem.at(Stage::HostAuthentication).report(&user.name, true)
    }

    /// Reads the administrator's files, as root: users need not be able to.
    fn read_files(&mut self) -> Result<Files, Failure> {
        let files = &self.request.files;
        let failed = |error: RenderError| Problem::new(&error.exception, error.text).at(Stage::Read);
        let template = template::read(&files.template).map_err(failed)?;
        let schema = crate::schema::read(&files.schema).map_err(failed)?;
        let (environment, warnings) = environment::read(&files.environment).map_err(failed)?;
        for text in warnings {
            self.report(&LaunchReport::Warning { text });
        }
        Ok(Files { template, schema, environment })
    }

    /// Divides the launcher. Returns in the process that becomes the user endpoint, with the holder's number.
    fn divide(&mut self, opened: pam::Session, user: &LocalUser) -> Result<Pid, Failure> {
        let held = &mut self.held;
        match session::divide(opened, user, self.manager, &mut || drop(held.take()))? {
            Role::Holder(holder) => {
                if let Some(title) = &self.title {
                    title.session(&user.name, &execute::default_arguments(&self.request));
                }
                holder.hold()
            }
            Role::UserEndpoint { holder } => {
                self.report(&LaunchReport::Running { pid: std::process::id().cast_signed() });
                Ok(holder)
            }
        }
    }

    fn render(
        &self,
        account: &Account,
        variables: &Variables,
        template_text: &str,
        schema: Option<&Value>,
    ) -> Result<String, Failure> {
        let identity = self.request.identity.as_ref().map(|identity| identity.id.to_string());
        let inputs = template::Inputs {
            template_path: &self.request.files.template,
            template_text,
            schema,
            user_options: &self.request.user_options,
            user_runtime: self.request.user_runtime.as_ref(),
            parent_config: &self.request.parent_config,
            mapped_identity: &template::mapped_identity(account, identity.as_deref()),
            environment: variables,
        };
        let changes_user = self.request.local_user.is_some();
        let too_long = Problem::new("TimeoutError", format!("rendering took more than {RENDER_SECONDS} s"));
        let too_long = too_long.at(Stage::Render).report(&account.name, changes_user);
        self.within(RENDER_SECONDS, too_long, || template::render(&inputs))
            .map_err(|error| Problem::new(&error.exception, error.text).at(Stage::Render))
    }

    /// The last stages, in the user endpoint's directory.
    fn become_program(
        &mut self,
        arguments: &[String],
        variables: &BTreeMap<String, String>,
        place: &Path,
        configuration: &Configuration,
        parent: Pid,
    ) -> Result<Infallible, Failure> {
        let Some(held) = &mut self.held else {
            return Err(
                Problem::new("RuntimeError", "the launcher let go of its descriptors").at(Stage::Document)
            );
        };
        let passed = Passed { audit: held.audit.is_some(), credentials: held.credentials.is_some() };
        let document = document::encode(&self.request, &configuration.text, parent.as_raw(), passed)?;
        let input = spawn::memory_file(c"stdin", &document)
            .map_err(|error| Problem::io(&error, None).at(Stage::StandardInput))?;
        let mut log = directory::open_log(place)?;
        if configuration.debug {
            let text = shown(&configuration.text);
            log.write_all(text.as_bytes())
                .map_err(|error| Problem::io(&error, Some(&place.join("endpoint.log"))).at(Stage::Write))?;
        }
        execute::place_standard_streams(input, log)?;
        execute::place_descriptors(held.credentials.as_ref(), held.audit.as_ref())?;
        if getppid() != parent {
            let text = "the manager or its helper ended while the user endpoint started";
            return Err(Problem::new("RuntimeError", text).at(Stage::Execute));
        }
        signals::reset();
        held.reporter.send(&LaunchReport::Executing);
        Err(execute::execute(arguments, variables))
    }
}

/// The administrator's files.
struct Files {
    template: String,
    schema: Option<Value>,
    environment: Variables,
}

fn account(user: &LocalUser) -> Account {
    Account {
        name: user.name.clone(),
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: user.groups.iter().map(|gid| gid.as_raw()).collect(),
        gecos: user.gecos.clone(),
        shell: user.shell.to_string_lossy().into_owned(),
        home: user.home.to_string_lossy().into_owned(),
    }
}

fn is_loader_variable(name: &str) -> bool {
    LOADER_VARIABLES.contains(&name) || LOADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The rendered configuration as upstream's log shows it to those who debug a template.
fn shown(configuration: &str) -> String {
    let lines = configuration.matches('\n').count() + 1;
    format!(
        "{} DEBUG UserEndpointProcess_Bootstrap(PreExec) Endpoint Begin Compute endpoint configuration ({lines} lines):\n  | \
         {}\nEnd Compute endpoint configuration\n",
        clock::log_time(),
        configuration.replace('\n', "\n  | ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loader_variables() {
        for name in
            ["LD_PRELOAD", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "PYTHONPATH", "MALLOC_TRACE", "BASH_ENV"]
        {
            assert!(is_loader_variable(name), "{name}");
        }
        for name in ["KRB5CCNAME", "XDG_RUNTIME_DIR", "LDAP_URI", "LANG", "PATH"] {
            assert!(!is_loader_variable(name), "{name}");
        }
    }

    #[test]
    fn a_configuration_in_the_log() {
        let text = shown("engine:\n  type: X");
        assert!(text.contains(" DEBUG "), "{text}");
        assert!(text.ends_with(
            "Begin Compute endpoint configuration (2 lines):\n  | engine:\n  |   type: X\nEnd Compute endpoint configuration\n"
        ));
    }
}
