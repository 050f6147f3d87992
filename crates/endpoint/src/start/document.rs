//! Reads the document that a manager writes to a user endpoint's standard input: credentials and configuration.

use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wire::start_document::{LIMIT, StartDocument};

use crate::exit::Failure;

/// How long to wait for the first byte: standard input may be a pipe that is never written nor closed.
const FIRST_BYTE_TIMEOUT_MS: u16 = 2_000;

/// Reads the document, if there is one: standard input to its end, unless it is a terminal. Anything but a JSON object
/// is no document.
///
/// `promised`: a manager started this process, so a document will come.
pub(super) fn read(promised: bool) -> Result<Option<StartDocument>, Failure> {
    let mut input = std::io::stdin();
    if input.is_terminal() {
        return Ok(None);
    }
    if !promised {
        let mut waiting = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::from(FIRST_BYTE_TIMEOUT_MS)) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            // A standard input that can't be polled has no document either.
            Err(_) => return Ok(None),
        }
    }
    let mut bytes = Vec::new();
    let limit = LIMIT as u64;
    if (&mut input).take(limit + 1).read_to_end(&mut bytes).is_err() || bytes.len() > LIMIT {
        return Ok(None);
    }
    if !matches!(serde_json::from_slice(&bytes), Ok(serde_json::Value::Object(_))) {
        return Ok(None);
    }
    // An invalid document is an error, and no reason to run without credentials.
    StartDocument::decode(&bytes)
        .map(Some)
        .map_err(|error| Failure::error(format!("the document on standard input: {error}")))
}
