//! The memory file through which a running user endpoint gets new credentials, and the functions that it may run. Both ends
//! have the same file; the user endpoint's descriptor can only read it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};
use serde::Serialize;
use wire::FunctionId;
use wire::json::FreeForm;

use crate::fernet::Key;

/// The manager's end.
#[derive(Debug)]
pub(super) struct RenewedCredentials {
    file: File,
    key: Key,
}

/// What a running user endpoint is told.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Content<'a> {
    pub(super) amqp_creds: &'a FreeForm,
    /// The manager's list; `None`: it has none, and the template's holds. Upstream's user endpoints don't read it.
    pub(super) allowed_functions: Option<&'a [FunctionId]>,
}

impl RenewedCredentials {
    /// A file with this content, and the descriptor for the user endpoint.
    pub(super) fn create(content: Content<'_>, now: u64) -> io::Result<(Self, OwnedFd)> {
        let file = File::from(memfd_create(c"credentials", MFdFlags::MFD_CLOEXEC)?);
        // A user who opens it again, by its descriptor in /proc, can't make it grow: its memory would be nobody's.
        fchmod(&file, Mode::S_IRUSR | Mode::S_IRGRP | Mode::S_IROTH)?;
        let reader = OpenOptions::new().read(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let key = Key::generate().map_err(|_| io::Error::other("the system gives no random bytes"))?;
        let mut renewed = Self { file, key };
        renewed.write(content, now)?;
        Ok((renewed, reader.into()))
    }

    /// Takes over a file that this process had before it executed its program again.
    pub(super) fn resume(file: OwnedFd, key: &str) -> io::Result<Self> {
        let key = Key::parse(key).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Self { file: file.into(), key })
    }

    /// Replaces the content. Who reads it meanwhile finds a damaged token, and reads again.
    pub(super) fn write(&mut self, content: Content<'_>, now: u64) -> io::Result<()> {
        let content = serde_json::to_vec(&content)?;
        let token = self
            .key
            .encrypt(&content, now)
            .map_err(|_| io::Error::other("the credentials can't be encrypted"))?;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(token.as_bytes())
    }

    pub(super) fn key(&self) -> String {
        self.key.text()
    }

    pub(super) fn descriptor(&self) -> &File {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_reader_sees_the_newest_content_and_can_write_none() {
        let old = FreeForm::from(serde_json::Map::from_iter([("endpoint_id".to_owned(), "old".into())]));
        let new = FreeForm::from(serde_json::Map::from_iter([("endpoint_id".to_owned(), "new".into())]));
        let content = |amqp_creds| Content { amqp_creds, allowed_functions: None };
        let (mut renewed, reader) = RenewedCredentials::create(content(&old), 1).unwrap();
        renewed.write(content(&new), 2).unwrap();
        let mut reader = File::from(reader);
        assert!(reader.write_all(b"x").is_err());
        let mode = nix::sys::stat::fstat(&reader).unwrap().st_mode;
        assert_eq!(mode & 0o777, 0o444, "only root opens it for writing");
        let mut token = String::new();
        reader.read_to_string(&mut token).unwrap();
        let content = Key::parse(&renewed.key()).unwrap().decrypt(&token).unwrap();
        assert_eq!(content, br#"{"amqp_creds":{"endpoint_id":"new"},"allowed_functions":null}"#);
    }
}
