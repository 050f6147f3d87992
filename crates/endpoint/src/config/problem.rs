//! Finds settings that can be read but not used, before anything is started.

use std::fmt;

use client::service_address::AddressSources;

use super::Config;
use crate::certificates::read_authorities;

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
        }
    }
}

impl Config {
    /// All problems. Reads files and starts nothing.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut found: Vec<Problem> = self.engine.runnable().err().map(Problem::Engine).into_iter().collect();
        if let Some(url) = &self.common.service_url {
            let sources = AddressSources { service_url: Some(url.clone()), ..AddressSources::default() };
            found.extend(sources.resolve().err().map(|error| Problem::Service(error.to_string())));
        }
        if let Some(path) = &self.common.ca_certificates {
            let refused = read_authorities(path).err();
            found.extend(refused.map(|failure| Problem::Certificates(failure.bare().to_owned())));
        }
        if self.common.amqp_port == Some(0) {
            found.push(Problem::Port);
        }
        let blocks = self.engine.resolved().get("provider").and_then(|it| it.get("max_blocks")?.as_u64());
        if blocks == Some(0) {
            found.push(Problem::NoBlocks);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
