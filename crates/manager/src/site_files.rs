//! Reads the files that an administrator writes for user endpoints: template, schema, environment.
//!
//! Users may see what is wrong with them: every error is one that a submitter gets, with the file's path and what to do.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::unistd::Uid;
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
                let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
                let exception = if denied { "PermissionError" } else { "OSError" };
                let text = format!("'{}', {what}, can't be read: {error}", path.display());
                return RenderError::new(exception, text);
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
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    if Uid::effective().is_root() {
        refuse_links_of_others(path, &file)?;
    }
    Ok(file)
}

/// Links in a row that are followed.
const LINKS: usize = 16;

/// A submitter is shown the lines of a template at fault. Whoever may write to its directory without being root could put
/// a link there, to a file that only root can read: so a link is followed if it is root's, or leads to a file of its owner.
/// What is there now may differ from what was opened, so it must lead to the same place.
fn refuse_links_of_others(path: &Path, file: &File) -> std::io::Result<()> {
    let other = |text: String| Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, text));
    let owner = file.metadata()?.uid();
    let mut place = path.to_owned();
    for _ in 0..LINKS {
        let data = std::fs::symlink_metadata(&place)?;
        if !data.is_symlink() {
            break;
        }
        if data.uid() != 0 && data.uid() != owner {
            let link = place.display();
            return other(format!(
                "'{link}' is a link of user {} to a file of user {owner}, which is not followed as root",
                data.uid()
            ));
        }
        let target = std::fs::read_link(&place)?;
        place = place.parent().unwrap_or(Path::new("/")).join(target);
    }
    let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let (Some(directory), Some(name)) = (place.parent(), place.file_name()) else {
        return other("it is not the name of a file".to_owned());
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let place = directory.canonicalize()?.join(name);
    // By the file itself: some file systems have several spellings of one name.
    let (here, there) = (file.metadata()?, std::fs::symlink_metadata(&place));
    if there.is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino())) {
        return Ok(());
    }
    // A file that was replaced since is no link's doing.
    let mut replaced = place.into_os_string();
    replaced.push(" (deleted)");
    if opened.as_os_str() == replaced {
        return Ok(());
    }
    other("it was changed while it was read; try again".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{lchown, symlink};

    use super::*;

    #[test]
    fn links_of_others_are_not_followed_as_root() {
        if !Uid::effective().is_root() {
            return;
        }
        let (alicia, roberto) = (54_321, 54_322);
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        for (name, owner) in [("of-root", 0), ("of-alicia", alicia)] {
            std::fs::write(path(name), "text").unwrap();
            lchown(path(name), Some(owner), None).unwrap();
        }
        for (link, target, owner) in [
            ("root-to-root", "of-root", 0),
            ("root-to-alicia", "of-alicia", 0),
            ("alicia-to-alicia", "of-alicia", alicia),
            ("alicia-to-root", "of-root", alicia),
            ("roberto-to-alicia", "of-alicia", roberto),
            ("root-to-alicia-to-root", "alicia-to-root", 0),
            ("alicia-to-root-to-root", "root-to-root", alicia),
            ("root-to-root-to-root", "root-to-root", 0),
        ] {
            symlink(target, path(link)).unwrap();
            lchown(path(link), Some(owner), None).unwrap();
        }
        symlink(place.path(), path("directory")).unwrap();
        for name in [
            "of-root",
            "of-alicia",
            "root-to-root",
            "root-to-alicia",
            "alicia-to-alicia",
            "root-to-root-to-root",
            "directory/root-to-root",
        ] {
            assert_eq!(read_text(&path(name), "the template").as_deref(), Ok("text"), "{name}");
        }
        for name in
            ["alicia-to-root", "roberto-to-alicia", "root-to-alicia-to-root", "alicia-to-root-to-root"]
        {
            let error = read_text(&path(name), "the template").unwrap_err();
            assert!(error.text.contains("is not followed as root"), "{name}: {error}");
        }
    }

    #[test]
    fn what_was_opened_must_be_what_is_there() {
        let place = tempfile::tempdir().unwrap();
        let (secret, template) = (place.path().join("secret"), place.path().join("template"));
        for path in [&secret, &template] {
            std::fs::write(path, "text").unwrap();
        }
        // Another spelling of the name, as on file systems that don't tell letters apart.
        let spelled = place.path().join("TEMPLATE");
        std::fs::hard_link(&template, &spelled).unwrap();
        refuse_links_of_others(&template, &File::open(&spelled).unwrap()).unwrap();
        let through_a_link = File::open(&secret).unwrap();
        let error = refuse_links_of_others(&template, &through_a_link).unwrap_err();
        assert!(error.to_string().contains("changed while it was read"), "{error}");
        let replaced = File::open(&template).unwrap();
        std::fs::rename(&secret, &template).unwrap();
        refuse_links_of_others(&template, &replaced).unwrap();
    }
}
