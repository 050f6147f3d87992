//! Finds what prevents a service with a valid configuration from starting on this machine: files that are missing or don't
//! match, ports in use, a database that cannot be used. Changes nothing.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use daemon::logging::{self, FilterError};
use nix::unistd::geteuid;

use crate::http::certificates::CertificateError;
use crate::operate::config::Config;
use crate::operate::data_directory::DatabaseElsewhere;
use crate::operate::database::{self, DatabaseProblem};
use crate::operate::listen_plan;
use crate::operate::serve::certificate_files;
use identity::providers::settings::SettingsError;

#[derive(Debug)]
pub enum StartProblem {
    Certificate(CertificateError),
    Secret(SettingsError),
    Port(SocketAddr, PortProblem),
    Database(DatabaseProblem),
    DatabaseElsewhere(DatabaseElsewhere),
    /// The value of FARCALL_LOG is no log filter.
    LogVariable(FilterError),
}

/// Why the service can't listen at an address.
#[derive(Debug)]
pub enum PortProblem {
    /// It overlaps with another address of the configuration.
    Shared(SocketAddr),
    Taken,
    Forbidden,
    NotOurs,
    Other(io::Error),
}

/// Finds all problems of `config`, with the data directory `root` and `log` in FARCALL_LOG. Ports in use are no problem while
/// the service `runs`: it uses them itself.
pub fn find(config: &Config, root: &Path, log: Option<&str>, runs: bool) -> Vec<StartProblem> {
    let mut found: Vec<StartProblem> = files(config, root).collect();
    found.extend(
        log.filter(|log| !log.is_empty())
            .and_then(|log| logging::filter(log).err())
            .map(StartProblem::LogVariable),
    );
    // If the record cannot be read, the start says so.
    found
        .extend(database::elsewhere(root, &config.store).ok().flatten().map(StartProblem::DatabaseElsewhere));
    let addresses = listen_plan::plan(config).into_iter().map(|(address, _)| address);
    let problems = ports(addresses.filter(|address| address.port() != 0));
    let problems =
        problems.into_iter().filter(|(_, problem)| !(runs && matches!(problem, PortProblem::Taken)));
    found.extend(problems.map(|(address, problem)| StartProblem::Port(address, problem)));
    found
}

/// Looks at the database, if it is on a server, and returns warnings as well. While the service `runs`, it uses it itself.
pub async fn in_database(config: &Config, runs: bool) -> Vec<StartProblem> {
    let Some(url) = &config.store.url else { return Vec::new() };
    let problems = match database::inspect(url, runs).await {
        Ok((_, problems)) => problems,
        Err(problem) => vec![problem],
    };
    problems.into_iter().map(StartProblem::Database).collect()
}

/// Finds the problems with files.
fn files(config: &Config, root: &Path) -> impl Iterator<Item = StartProblem> {
    let certificate = certificate_files(&config.tls, root).and_then(|files| files.read().err());
    let secrets = config.identity.upstreams.iter().filter_map(|upstream| upstream.secret().err());
    certificate.map(StartProblem::Certificate).into_iter().chain(secrets.map(StartProblem::Secret))
}

/// Tries to listen at these addresses, all at the same time as the service does, and returns those that fail.
pub fn ports(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<(SocketAddr, PortProblem)> {
    let mut open: Vec<TcpListener> = Vec::new();
    let mut found = Vec::new();
    for address in addresses {
        let error = match TcpListener::bind(address) {
            Ok(listener) => {
                open.push(listener);
                continue;
            }
            Err(error) => error,
        };
        let ours = open.iter().filter_map(|listener| listener.local_addr().ok());
        let shared = ours.into_iter().find(|one| {
            one.port() == address.port() && (one.ip().is_unspecified() || address.ip().is_unspecified())
        });
        found.push((
            address,
            match (error.kind(), shared) {
                (ErrorKind::AddrInUse, Some(other)) => PortProblem::Shared(other),
                (ErrorKind::AddrInUse, None) => PortProblem::Taken,
                (ErrorKind::PermissionDenied, _) => PortProblem::Forbidden,
                (ErrorKind::AddrNotAvailable, _) => PortProblem::NotOurs,
                _ => PortProblem::Other(error),
            },
        ));
    }
    found
}

impl StartProblem {
    /// Whether the service starts all the same.
    pub fn is_warning(&self) -> bool {
        matches!(self, StartProblem::Database(problem) if problem.is_warning())
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            StartProblem::Certificate(error) => match error {
                CertificateError::Read { .. } => format!(
                    "put the file there, readable by the service's user (now {}), or name another in the section tls; \
                     paths are relative to the data directory",
                    geteuid()
                ),
                CertificateError::None { .. } => {
                    "tls.certificate holds the chain in PEM, the service's own certificate first".to_owned()
                }
                CertificateError::KeyMismatch { .. } => {
                    "take the key with which the certificate was requested, or have one issued for this key"
                        .to_owned()
                }
                CertificateError::Tls(_) => "report this".to_owned(),
            },
            StartProblem::Secret(_) => {
                "put the client secret there, readable by the service's user, or name another file in \
                                    client_secret_file"
                    .to_owned()
            }
            StartProblem::Port(address, problem) => match problem {
                PortProblem::Shared(other) => {
                    format!("leave one of {other} and {address} out: the wider one serves both")
                }
                PortProblem::Taken => format!(
                    "stop what listens there (`ss -ltnp sport = :{}`), or choose another port",
                    address.port()
                ),
                PortProblem::Forbidden => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE (AmbientCapabilities= in the unit)".to_owned()
                }
                PortProblem::NotOurs => "see `ip address`, or use 0.0.0.0".to_owned(),
                PortProblem::Other(_) => "choose another address".to_owned(),
            },
            StartProblem::Database(problem) => problem.remedy(),
            StartProblem::DatabaseElsewhere(elsewhere) => elsewhere.remedy(),
            StartProblem::LogVariable(_) => {
                format!("unset {}, or set it to what it says; until then log.filter holds", logging::VARIABLE)
            }
        }
    }
}

impl fmt::Display for StartProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartProblem::Certificate(error) => error.fmt(f),
            StartProblem::Secret(error) => error.fmt(f),
            StartProblem::Port(address, problem) => match problem {
                PortProblem::Shared(other) => {
                    write!(f, "{address} is in use by {other} of this configuration")
                }
                PortProblem::Taken => write!(f, "{address} is in use"),
                PortProblem::Forbidden => write!(f, "{address} may not be listened at by this user"),
                PortProblem::NotOurs => write!(f, "{address} is no address of this machine"),
                PortProblem::Other(error) => write!(f, "{address}: {error}"),
            },
            StartProblem::Database(problem) => problem.fmt(f),
            StartProblem::DatabaseElsewhere(elsewhere) => elsewhere.fmt(f),
            StartProblem::LogVariable(error) => write!(f, "{}: {error}", logging::VARIABLE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::config::Setting;

    /// Settings, what FARCALL_LOG holds, and the beginnings of what is found and of what to do about it.
    type Row<'a> = (Vec<String>, Option<&'a str>, Vec<(String, &'a str)>);

    /// Each problem, with these files and settings: the beginnings of its message and of its remedy.
    #[test]
    fn what_prevents_a_start_is_found() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name).display().to_string();
        let one = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["b.example".to_owned()]).unwrap();
        let write = |name: &str, text: String| std::fs::write(root.path().join(name), text).unwrap();
        write("c.pem", one.cert.pem());
        write("k.pem", one.signing_key.serialize_pem());
        write("other.pem", other.signing_key.serialize_pem());
        write("empty.pem", String::new());
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = holder.local_addr().unwrap();
        let free = {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let secret = at("secret");
        let upstream = format!(
            "identity.upstreams=[{{name: a, title: a, issuer: https://i.d, client_id: c, domains: [d.e], \
             client_secret_file: {secret}}}]"
        );
        let tls = |certificate: &str, key: &str| {
            [format!("tls.certificate={certificate}"), format!("tls.key={key}")]
        };
        let of = |settings: &[&str]| settings.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let table: Vec<Row> = vec![
            (Vec::new(), None, Vec::new()),
            (tls("c.pem", "k.pem").to_vec(), None, Vec::new()),
            (
                tls("none.pem", "k.pem").to_vec(),
                None,
                vec![(format!("cannot read {}", at("none.pem")), "put the file there")],
            ),
            (
                tls("c.pem", "none.pem").to_vec(),
                None,
                vec![(format!("cannot read {}", at("none.pem")), "put the file there")],
            ),
            (
                tls("empty.pem", "k.pem").to_vec(),
                None,
                vec![(format!("{} holds no certificate", at("empty.pem")), "tls.certificate holds")],
            ),
            (
                tls("c.pem", "other.pem").to_vec(),
                None,
                vec![(
                    format!("{} and {} cannot be used together", at("c.pem"), at("other.pem")),
                    "take the key with which",
                )],
            ),
            (
                of(&[&upstream]),
                None,
                vec![(format!("identity.upstreams: a: cannot read {secret}"), "put the client secret there")],
            ),
            (
                of(&[&format!("http.listen={taken}")]),
                None,
                vec![(format!("{taken} is in use"), "stop what listens there (`ss")],
            ),
            (
                of(&["http.listen=192.0.2.1:4000"]),
                None,
                vec![("192.0.2.1:4000 is no address of this machine".to_owned(), "see `ip address`")],
            ),
            (
                of(&[&format!("http.listen=0.0.0.0:{free}"), &format!("amqp.listen=127.0.0.1:{free}")]),
                None,
                vec![(
                    format!("127.0.0.1:{free} is in use by 0.0.0.0:{free} of this configuration"),
                    "leave one of",
                )],
            ),
            (
                of(&[&format!("http.listen=127.0.0.1:{free}"), &format!("amqp.listen=127.0.0.1:{free}")]),
                None,
                Vec::new(),
            ),
            (Vec::new(), Some("debug"), Vec::new()),
            (
                Vec::new(),
                Some("dbug"),
                vec![("FARCALL_LOG: \"dbug\" is no level".to_owned(), "unset FARCALL_LOG")],
            ),
        ];
        for (settings, log, expected) in table {
            let free = of(&["http.listen=127.0.0.1:0", "amqp.listen=127.0.0.1:0"]);
            let laid = free.iter().chain(&settings).map(|text| Setting::from_flag(text).unwrap());
            let config = Config::load(&root.path().join("farcall.yaml"), laid).unwrap().config;
            let found = find(&config, root.path(), log, false);
            let fits = found.len() == expected.len()
                && found.iter().zip(&expected).all(|(found, (seen, remedy))| {
                    found.to_string().starts_with(seen) && found.remedy().starts_with(remedy)
                });
            assert!(fits, "{settings:?}: {found:#?}\nexpected {expected:#?}");
        }
        let elsewhere = |settings: &[&str]| {
            let laid = settings.iter().map(|text| Setting::from_flag(text).unwrap());
            let config = Config::load(&root.path().join("farcall.yaml"), laid).unwrap().config;
            find(&config, root.path(), None, true)
        };
        write("database", "db.example.org:5432\n".to_owned());
        let found = elsewhere(&[]);
        let [StartProblem::DatabaseElsewhere(found)] = found.as_slice() else { panic!("{found:?}") };
        assert!(found.to_string().contains("keeps its data in PostgreSQL (db.example.org:5432)"), "{found}");
        assert!(found.remedy().contains(&format!("delete {}", at("database"))), "{}", found.remedy());
        assert!(elsewhere(&["store.url=postgres://u@db.example.org/d"]).is_empty());
        write("database", "farcall.db\n".to_owned());
        assert!(elsewhere(&[]).is_empty());

        let settings = [format!("http.listen={taken}"), "amqp.listen=127.0.0.1:0".to_owned()];
        let laid = settings.iter().map(|text| Setting::from_flag(text).unwrap());
        let config = Config::load(&root.path().join("farcall.yaml"), laid).unwrap().config;
        assert!(find(&config, root.path(), None, true).is_empty(), "it has its ports itself");
    }
}
