//! Reads what a manager tells a running user endpoint, from a memory file that both have open: new credentials, and the
//! functions that it may run.

use std::fs::File;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;

use serde::{Deserialize, Deserializer};
use wire::FunctionId;
use wire::queue::Registration;
use wire::start_document::LIMIT;

use crate::fernet::Key;

/// Base64 of a token's version, time and initialization vector: another token has another beginning.
pub(super) const BEGINNING: usize = 44;

/// The user endpoint's end of the file.
#[derive(Debug)]
pub(super) struct RenewedCredentials {
    file: File,
    key: Key,
}

#[derive(Deserialize)]
struct Content {
    amqp_creds: Registration,
    /// `None`: this manager says nothing about it. Upstream's say nothing.
    #[serde(default, deserialize_with = "said")]
    allowed_functions: Option<ManagersList>,
}

/// A manager's list of allowed functions; `None`: it has none.
pub(super) type ManagersList = Option<Vec<FunctionId>>;

/// A member that is there, whether or not it is null.
fn said<'de, D: Deserializer<'de>>(member: D) -> Result<Option<ManagersList>, D::Error> {
    Deserialize::deserialize(member).map(Some)
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
        self.content().map(|content| content.amqp_creds)
    }

    /// What the manager says about the functions that may run, in the same way.
    pub(super) fn allowed_functions(&self) -> Option<Option<ManagersList>> {
        self.content().map(|content| content.allowed_functions)
    }

    /// Differs from that of before if the content does.
    pub(super) fn beginning(&self) -> Option<[u8; BEGINNING]> {
        let mut beginning = [0; BEGINNING];
        self.file.read_exact_at(&mut beginning, 0).ok().map(|()| beginning)
    }

    fn content(&self) -> Option<Content> {
        let size = usize::try_from(self.file.metadata().ok()?.len()).ok()?;
        // Base64 makes it larger.
        let mut token = vec![0; size.min(2 * LIMIT)];
        self.file.read_exact_at(&mut token, 0).ok()?;
        let content = self.key.decrypt(std::str::from_utf8(&token).ok()?).ok()?;
        serde_json::from_slice(&content).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};
    use std::os::fd::IntoRawFd as _;

    use super::*;

    #[test]
    fn what_the_manager_wrote_is_read_and_nothing_else() {
        let key = Key::generate().unwrap();
        let id = "e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap();
        let registration = Registration::new(id, "amqp://u:new@h/");
        let content = serde_json::json!({"amqp_creds": registration}).to_string();
        let functions = ["00000000-0000-4000-8000-0000000000f1".parse().unwrap()];
        let mut file = tempfile::tempfile().unwrap();
        let descriptor = file.try_clone().unwrap().into_raw_fd();
        let renewed = RenewedCredentials::open(descriptor, &key.text()).unwrap();
        assert_eq!(renewed.read(), None, "nothing is written yet");
        let token = key.encrypt(content.as_bytes(), 1).unwrap();
        file.write_all(&token.as_bytes()[..token.len() / 2]).unwrap();
        assert_eq!(renewed.read(), None, "half is written");
        file.write_all(&token.as_bytes()[token.len() / 2..]).unwrap();
        assert_eq!(renewed.read(), Some(registration.clone()));
        assert_eq!(renewed.allowed_functions(), Some(None), "an older manager, or upstream's");
        for (said, expected) in
            [(serde_json::Value::Null, None), (serde_json::json!(functions), Some(functions.to_vec()))]
        {
            let before = renewed.beginning();
            let content =
                serde_json::json!({"amqp_creds": registration, "allowed_functions": said}).to_string();
            file.set_len(0).unwrap();
            file.rewind().unwrap();
            file.write_all(key.encrypt(content.as_bytes(), 1).unwrap().as_bytes()).unwrap();
            assert_ne!(renewed.beginning(), before);
            assert_eq!(renewed.allowed_functions(), Some(Some(expected)));
        }
    }
}
