//! Reads the credentials that a manager renews for a running user endpoint, from a memory file that both have open.

use std::fs::File;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;

use serde::Deserialize;
use wire::queue::Registration;
use wire::start_document::LIMIT;

use crate::fernet::Key;

/// The user endpoint's end of the file.
#[derive(Debug)]
pub(super) struct RenewedCredentials {
    file: File,
    key: Key,
}

#[derive(Deserialize)]
struct Content {
    amqp_creds: Registration,
}

impl RenewedCredentials {
    /// Takes over the descriptor that the manager passed. Children don't inherit it.
    pub(super) fn open(descriptor: RawFd, key: &str) -> Option<Self> {
        let key = Key::parse(key).ok()?;
        // SAFETY: the manager passed the number for this purpose; nothing else uses it.
        let file = unsafe { OwnedFd::from_raw_fd(descriptor) };
        crate::start::inherit(&file, false).ok()?;
        Some(Self { file: file.into(), key })
    }

    /// The credentials that the manager wrote last. `None`: it is writing at this moment, or the content is no such thing.
    pub(super) fn read(&self) -> Option<Registration> {
        let size = usize::try_from(self.file.metadata().ok()?.len()).ok()?;
        // Base64 makes it larger.
        let mut token = vec![0; size.min(2 * LIMIT)];
        self.file.read_exact_at(&mut token, 0).ok()?;
        let content = self.key.decrypt(std::str::from_utf8(&token).ok()?).ok()?;
        serde_json::from_slice(&content).ok().map(|Content { amqp_creds }| amqp_creds)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::IntoRawFd as _;

    use super::*;

    #[test]
    fn what_the_manager_wrote_is_read_and_nothing_else() {
        let key = Key::generate().unwrap();
        let id = "e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap();
        let registration = Registration::new(id, "amqp://u:new@h/");
        let content = serde_json::json!({"amqp_creds": registration}).to_string();
        let mut file = tempfile::tempfile().unwrap();
        let descriptor = file.try_clone().unwrap().into_raw_fd();
        let renewed = RenewedCredentials::open(descriptor, &key.text()).unwrap();
        assert_eq!(renewed.read(), None, "nothing is written yet");
        let token = key.encrypt(content.as_bytes(), 1).unwrap();
        file.write_all(&token.as_bytes()[..token.len() / 2]).unwrap();
        assert_eq!(renewed.read(), None, "half is written");
        file.write_all(&token.as_bytes()[token.len() / 2..]).unwrap();
        assert_eq!(renewed.read(), Some(registration));
    }
}
