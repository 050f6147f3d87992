//! Why an endpoint's last run failed, for whoever asks later: `failure.json`, written as the run ends and removed when the
//! next one begins.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::directory::{EndpointDir, write_private};
use crate::exit::Failure;

/// The end of a run.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastFailure {
    /// When, with the offset from UTC.
    pub(crate) time: String,
    /// The exit status.
    pub(crate) status: u8,
    pub(crate) text: String,
}

impl LastFailure {
    pub(crate) fn write(endpoint: &EndpointDir, failure: &Failure) -> io::Result<()> {
        let time = clock::local_time().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        let words = Self { time, status: failure.status, text: failure.text.clone() };
        write_private(&endpoint.failure_file(), &serde_json::to_vec(&words).map_err(io::Error::other)?)
    }

    /// Those of the last run, unless it ended well or another has begun.
    pub(crate) fn read(endpoint: &EndpointDir) -> Option<Self> {
        serde_json::from_slice(&fs::read(endpoint.failure_file()).ok()?).ok()
    }

    /// Another run begins.
    pub(crate) fn remove(endpoint: &EndpointDir) -> io::Result<()> {
        match fs::remove_file(endpoint.failure_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
