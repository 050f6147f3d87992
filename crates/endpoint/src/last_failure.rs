//! Records why an endpoint's last run failed: `failure.json`, written when the run ends and removed when the next one begins.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::directory::{EndpointDir, write_private};
use crate::exit::Failure;

/// Why a run failed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastFailure {
    /// When it ended, with the offset from UTC.
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

    /// That of the last run; none if it ended well or another run has begun.
    pub(crate) fn read(endpoint: &EndpointDir) -> Option<Self> {
        serde_json::from_slice(&fs::read(endpoint.failure_file()).ok()?).ok()
    }

    /// Removes the record, because another run begins.
    pub(crate) fn remove(endpoint: &EndpointDir) -> io::Result<()> {
        match fs::remove_file(endpoint.failure_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
