//! What is found of a file that others may change, and how the administrator is told.

use std::fmt;
use std::path::PathBuf;

/// A file that others may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The file.
    pub file: PathBuf,
    /// What others may change: the file itself, or a directory or link on the way to it.
    pub place: PathBuf,
    pub(super) is_directory: bool,
    pub by: Others,
    pub(super) doubt: Option<Doubt>,
}

/// Who may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    Owner(u32),
    /// A user whom an access control list names.
    User(u32),
    Group(u32),
    Everybody,
}

/// Why others may be unable to change it all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Its file system is mounted read-only, as Kubernetes mounts a ConfigMap, whose directory everybody may write. It may be
    /// writable elsewhere.
    ReadOnly,
    /// The user has no number in this user namespace. In a container without root this may be root itself.
    Unmapped,
}

impl Exposed {
    /// Whether it is certain that people who don't administer this machine may change it. A group may be the
    /// administrators'.
    pub fn is_certain(&self) -> bool {
        !matches!(self.by, Others::Group(_)) && self.doubt.is_none()
    }

    /// What the administrator can do.
    fn advice(&self) -> String {
        let place = self.place.display();
        const ELSEWHERE: &str = "keep it where only root may write, such as below /etc or /root";
        let command = match self.by {
            // The directory may be somebody's home, which is useless to them when it is root's.
            Others::Owner(_) if self.is_directory => return ELSEWHERE.to_owned(),
            Others::Owner(_) => format!("chown -h root '{place}'"),
            Others::User(uid) => format!("setfacl -x u:{uid} '{place}'"),
            Others::Group(_) => format!("chmod g-w '{place}'"),
            Others::Everybody => format!("chmod o-w '{place}'"),
        };
        if self.is_directory { format!("{command}, or {ELSEWHERE}") } else { command }
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, place) = (self.file.display(), self.place.display());
        write!(f, "'{file}' decides about others' accounts, and can be changed by ")?;
        match self.by {
            Others::Owner(uid) => write!(f, "user {uid}, the owner of '{place}'"),
            Others::User(uid) => {
                write!(f, "user {uid}, whom the access control list of '{place}' lets write")
            }
            Others::Group(gid) => write!(f, "group {gid}, which may write '{place}'"),
            Others::Everybody => write!(f, "everybody, because '{place}' may be written by all"),
        }?;
        match self.doubt {
            Some(Doubt::ReadOnly) => {
                f.write_str("; its file system is mounted read-only here, so make sure that only root may write it elsewhere")
            }
            Some(Doubt::Unmapped) => f.write_str(
                "; this number stands for all users outside of this user namespace, so make sure that it is root there",
            ),
            None => write!(f, "; do: {}", self.advice()),
        }
    }
}
