//! Reads the files that an administrator writes for user endpoints: template, schema, environment.
//!
//! Users may see what is wrong with them: every error is one that a submitter gets, with the file's path and what to do.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Bytes of one file.
const SIZE: u64 = 1 << 20;
/// Characters of an error's text.
const TEXT: usize = 4_000;

/// Why there is no configuration. The text is for the submitter, who may have to show it to the administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("({exception}) {text}")]
pub struct RenderError {
    /// The name of upstream's exception.
    pub exception: String,
    pub text: String,
}

impl RenderError {
    pub(crate) fn new(exception: &str, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if let Some((at, _)) = text.char_indices().nth(TEXT) {
            text.truncate(at);
            text.push('…');
        }
        Self { exception: exception.to_owned(), text }
    }
}

/// Reads a regular file of bounded size. A FIFO or a device is refused, not waited for.
pub(crate) fn read_text(path: &Path, what: &str) -> Result<String, RenderError> {
    let failed = |error: std::io::Error| {
        let (exception, number, words) = match error.raw_os_error() {
            Some(libc::ENOENT) => ("FileNotFoundError", libc::ENOENT, "No such file or directory"),
            Some(libc::EACCES) => ("PermissionError", libc::EACCES, "Permission denied"),
            _ => {
                let text = format!("'{}', {what}, can't be read: {error}", path.display());
                return RenderError::new("OSError", text);
            }
        };
        let hint = match number {
            libc::ENOENT => "The administrator must create it, or name another in the manager's config.yaml.",
            _ => "The administrator must make it readable.",
        };
        RenderError::new(
            exception,
            format!("[Errno {number}] {words}: '{}'\n  This is {what}. {hint}", path.display()),
        )
    };
    let mut text = Vec::new();
    let file = open(path).map_err(failed)?;
    file.take(SIZE + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > SIZE {
        let text = format!(
            "'{}', {what}, is larger than {SIZE} bytes. The administrator must shorten it.",
            path.display()
        );
        return Err(RenderError::new("ValueError", text));
    }
    String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = format!(
            "'{}', {what}, is not UTF-8 at byte {at}. The administrator must mend it.",
            path.display()
        );
        RenderError::new("UnicodeDecodeError", text)
    })
}

fn open(path: &Path) -> std::io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::Error::other("it is not a regular file")) }
}
