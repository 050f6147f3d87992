//! Finds settings that can be read but not used, before anything is started.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use client::service_address::AddressSources;
use manager::mapping::watch::{self, LoadError, Loaded};
use manager::mapping::{POSIX_CONNECTOR, Settings};
use manager::ownership::Exposed;
use manager::template::RenderError;
use manager::{environment, schema, template};

use super::{Common, Config, ManagerConfig};
use crate::certificates::read_authorities;
use crate::directory::EndpointDir;
use crate::exit::status;

/// The directory of PAM's services.
const PAM_SERVICES: &str = "/etc/pam.d";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The engine can't run with these options.
    Engine(String),
    /// `service_url` is no URL.
    Service(String),
    /// `ca_certificates` can't be read, or contains no certificate.
    Certificates(String),
    /// `amqp_port` is 0.
    Port,
    /// `max_blocks` is 0.
    NoBlocks,
    /// A manager that changes users has no identity mapping.
    NoMapping,
    /// The identity mapping can't be used; the exit status says why.
    Mapping(u8, String),
    /// A file that a key names can't be used.
    File { key: &'static str, kind: ErrorKind, why: String },
    /// The template or the schema of user endpoints can't be used.
    UserEndpoints(RenderError),
    /// PAM does not know the service.
    PamService(PathBuf),
    /// Others may change the configuration of a manager.
    Exposed(Exposed),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Engine(why) => f.write_str(why),
            Problem::Service(why) => write!(f, "{why}; write one such as https://compute.example.org"),
            Problem::Certificates(why) => {
                write!(
                    f,
                    "ca_certificates: {why}; name the PEM file of the service's authority, or leave it out"
                )
            }
            Problem::Port => f.write_str("amqp_port: 0 is no port; write 443, say, or leave it out"),
            Problem::NoBlocks => f.write_str(
                "max_blocks: 0 lets no worker start, so that tasks would wait for ever; write 1 or more",
            ),
            Problem::NoMapping => {
                f.write_str("Identity mapping required.  (Hint: identity_mapping_config_path)")
            }
            Problem::Mapping(_, why) => f.write_str(why),
            Problem::File { key, why, .. } => {
                write!(f, "1 validation error for {}\n{key}\n  {why}", ManagerConfig::MODEL)
            }
            Problem::UserEndpoints(error) => f.write_str(&error.text),
            Problem::Exposed(found) => write!(f, "{found}"),
            Problem::PamService(path) => write!(
                f,
                "pam: {} does not exist, so that PAM would refuse every user; write it, or set pam.service_name",
                path.display()
            ),
        }
    }
}

impl Problem {
    /// The exit status of a command that the problem stops.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Problem::Mapping(status, _) => *status,
            Problem::NoMapping | Problem::File { kind: ErrorKind::NotFound, .. } => status::OSFILE,
            Problem::File { kind: ErrorKind::PermissionDenied, .. } | Problem::Exposed(_) => status::NOPERM,
            _ => status::CONFIG,
        }
    }
}

impl Common {
    fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        if let Some(url) = &self.service_url {
            let sources = AddressSources { service_url: Some(url.clone()), ..AddressSources::default() };
            found.extend(sources.resolve().err().map(|error| Problem::Service(error.to_string())));
        }
        if let Some(path) = &self.ca_certificates {
            let refused = read_authorities(path).err();
            found.extend(refused.map(|failure| Problem::Certificates(failure.bare().to_owned())));
        }
        if self.amqp_port == Some(0) {
            found.push(Problem::Port);
        }
        found
    }
}

impl Config {
    /// All problems. Reads files and starts nothing.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut found: Vec<Problem> = self.engine.runnable().err().map(Problem::Engine).into_iter().collect();
        found.extend(self.common.problems());
        let blocks = self.engine.resolved().get("provider").and_then(|it| it.get("max_blocks")?.as_u64());
        if blocks == Some(0) {
            found.push(Problem::NoBlocks);
        }
        found
    }
}

impl ManagerConfig {
    /// All problems of a manager in this directory. Reads files and starts nothing. `changes_user`: the manager may become
    /// other users, and must know as whom to start.
    pub(crate) fn problems(&self, endpoint: &EndpointDir, changes_user: bool) -> Vec<Problem> {
        let mut found = self.common.problems();
        let mapping = self.identity_mapping_config_path.as_deref();
        for (key, path) in self.named_files() {
            // A manager that stays the user it is ignores the mapping.
            if let Some(path) = path.filter(|_| changes_user || key != "identity_mapping_config_path") {
                found.extend(unusable_file(key, path));
            }
        }
        if changes_user && mapping.is_none() {
            found.push(Problem::NoMapping);
        }
        if changes_user {
            found.extend(self.exposed_files(endpoint).refused.into_iter().map(Problem::Exposed));
        }
        if let Some(path) = mapping.filter(|path| changes_user && path.is_file()) {
            found.extend(
                load(path).err().map(|error| Problem::Mapping(error.exit_status(), error.to_string())),
            );
        }
        // What a key names is reported above.
        let named = |key: &str| {
            found.iter().any(|problem| matches!(problem, Problem::File { key: it, .. } if *it == key))
        };
        let template = template::read(&self.template(endpoint)).err();
        let schema = schema::read(&self.schema(endpoint)).err();
        let template = template.filter(|_| !named("user_config_template_path"));
        let schema = schema.filter(|_| !named("user_config_schema_path"));
        let environment = environment::read(&endpoint.user_environment()).err();
        found.extend(template.into_iter().chain(schema).chain(environment).map(Problem::UserEndpoints));
        if let Some(service) = self.pam_service.as_ref().filter(|_| changes_user) {
            let path = Path::new(PAM_SERVICES).join(service);
            if !path.exists() {
                found.push(Problem::PamService(path));
            }
        }
        found
    }

    /// What works, and probably not as it was meant.
    pub(crate) fn warnings(&self, endpoint: &EndpointDir, changes_user: bool) -> Vec<String> {
        let mut found = environment::read(&endpoint.user_environment()).map(|it| it.1).unwrap_or_default();
        match &self.identity_mapping_config_path {
            Some(path) if changes_user => {
                let warnings = load(path).map(|loaded| loaded.warnings).unwrap_or_default();
                found.extend(warnings.iter().map(ToString::to_string));
            }
            Some(_) => found.push(
                "Identity mapping specified, but process is not privileged; ignoring identity mapping \
                 configuration."
                    .to_owned(),
            ),
            None => {}
        }
        if changes_user {
            found.extend(self.exposed_files(endpoint).doubtful.iter().map(ToString::to_string));
            found.extend(self.programs_without_privileges().into_iter().map(|program| {
                format!("{program} gains no privileges in user endpoints and fails there, unless pam.enable is true")
            }));
        }
        found
    }
}

/// A named file that is missing or can't be read, in upstream's words.
fn unusable_file(key: &'static str, path: &Path) -> Option<Problem> {
    let shown = path.display();
    let file = |kind, why| Some(Problem::File { key, kind, why });
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => file(
            ErrorKind::InvalidInput,
            format!(
                "path \"{shown}\" does not point to a file (type=value_error.path.not_a_file; path={shown})"
            ),
        ),
        Ok(_) => {
            let error = fs::File::open(path).err()?;
            file(error.kind(), format!("{shown}: {error}"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => file(
            ErrorKind::NotFound,
            format!(
                "file or directory at path \"{shown}\" does not exist (type=value_error.path.not_exists; path={shown})"
            ),
        ),
        Err(error) => file(error.kind(), format!("{shown}: {error}")),
    }
}

/// Reads an identity mapping. The id of the manager, which its external programs are told, plays no role.
fn load(path: &Path) -> Result<Loaded, LoadError> {
    watch::load(path, &Settings { connector: POSIX_CONNECTOR.to_owned(), gateway: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_manager_from_starting() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = EndpointDir::at(scratch.path().to_owned());
        let file = |name: &str, text: &str| {
            let path = scratch.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let problems = |text: &str, changes_user: bool| -> Vec<(u8, String)> {
            let config = ManagerConfig::read("config.yaml", text).unwrap();
            let problems = config.problems(&endpoint, changes_user);
            problems.iter().map(|problem| (problem.status(), problem.to_string())).collect()
        };
        let mapping = format!("identity_mapping_config_path: {}\n", file("map.json", "[]"));
        let missing = problems(&mapping, true);
        assert!(missing[0].0 == 78 && missing[0].1.contains("user_config_template.yaml.j2'"), "{missing:?}");
        file("user_config_template.yaml.j2", "engine: {}");
        assert_eq!(problems(&mapping, true), []);
        assert_eq!(problems("", false), [], "a manager that stays the user it is needs no mapping");
        let required = "Identity mapping required.  (Hint: identity_mapping_config_path)";
        assert_eq!(problems("", true), [(72, required.to_owned())]);
        let nowhere = "identity_mapping_config_path: /nope/x\n";
        let upstreams = "1 validation error for ManagerEndpointConfigModel\nidentity_mapping_config_path\n  file or \
                         directory at path \"/nope/x\" does not exist (type=value_error.path.not_exists; path=/nope/x)";
        assert_eq!(problems(nowhere, true), [(72, upstreams.to_owned())]);
        assert_eq!(problems(nowhere, false), [], "it is ignored");
        for (text, status, why) in [
            (format!("identity_mapping_config_path: {}\n", file("object.json", "7")), 78, "object.json"),
            (format!("identity_mapping_config_path: {}\n", file("broken.json", "[")), 78, "broken.json"),
            (
                format!("{mapping}user_config_schema_path: {}\n", file("s.json", "x")),
                78,
                "s.json', is not JSON",
            ),
            (format!("{mapping}user_config_template_path: /nope\n"), 72, "does not exist"),
            (
                format!("{mapping}user_config_schema_path: {}\n", scratch.path().display()),
                78,
                "does not point to a file (type=value_error.path.not_a_file",
            ),
            (
                format!("{mapping}pam: {{service_name: no-such-service}}\n"),
                78,
                "pam: /etc/pam.d/no-such-service",
            ),
            (format!("{mapping}amqp_port: 0\n"), 78, "amqp_port: 0 is no port"),
        ] {
            let found = problems(&text, true);
            assert!(found[0].0 == status && found[0].1.contains(why), "{text}: {found:?}");
        }
    }

    #[test]
    fn settings_that_can_be_read_but_not_used() {
        let scratch = tempfile::tempdir().unwrap();
        let empty = scratch.path().join("empty.pem");
        std::fs::write(&empty, "no certificate").unwrap();
        let (empty, none) = (empty.display(), scratch.path().join("none.pem").display().to_string());
        let table = [
            ("engine: {}".to_owned(), vec![]),
            ("engine: {}\nservice_url: https://compute.example.org".to_owned(), vec![]),
            (
                "engine: {}\nservice_url: compute.example.org".to_owned(),
                vec![
                    "service_url is not a URL of the form http(s)://host[:port]/: compute.example.org; write",
                ],
            ),
            ("engine: {}\nservice_url: ftp://a".to_owned(), vec!["service_url is not a URL"]),
            (format!("engine: {{}}\nca_certificates: {none}"), vec!["ca_certificates: the certificates in "]),
            (format!("engine: {{}}\nca_certificates: {empty}"), vec!["ca_certificates: "]),
            ("engine: {}\namqp_port: 443".to_owned(), vec![]),
            ("engine: {}\namqp_port: 0".to_owned(), vec!["amqp_port: 0 is no port"]),
            (
                "engine: {provider: {type: LocalProvider, init_blocks: 0, max_blocks: 0}}".to_owned(),
                vec!["max_blocks: 0 lets no worker start"],
            ),
            ("engine: {type: ThreadPoolEngine}".to_owned(), vec![]),
            ("engine: {max_workers_per_node: 0}".to_owned(), vec!["max_workers_per_node must be at least 1"]),
            (
                "engine: {provider: {type: SlurmProvider}}\namqp_port: 0".to_owned(),
                vec!["SlurmProvider is not part of this version yet", "amqp_port: 0 is no port"],
            ),
        ];
        for (text, expected) in table {
            let found = Config::read("f", &text).unwrap().problems();
            let fits = found.len() == expected.len()
                && found.iter().zip(&expected).all(|(found, said)| found.to_string().starts_with(said));
            assert!(fits, "{text}: {found:?}");
        }
    }
}
