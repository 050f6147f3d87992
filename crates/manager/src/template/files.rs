//! Reads templates: the manager's own, and those that it extends, includes or imports from its directory.
//!
//! Reads with the rights of the calling process only, and never a file outside of the directory, whatever `..` or symbolic
//! links say.

use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::{Error, ErrorKind};

use super::limits::FILES;
use crate::site_files::{RenderError, read_text};

/// Reads the manager's template. Managers of upstream's before 2.21 named it without `.j2`.
pub fn read(path: &Path) -> Result<String, RenderError> {
    let older = path.to_str().and_then(|path| path.strip_suffix(".j2")).map(PathBuf::from);
    let path = match older {
        Some(older) if !path.exists() && older.exists() => older,
        _ => path.to_owned(),
    };
    read_text(&path, "the template of user endpoints")
}

/// The directory that a template may take further templates from.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    read: AtomicUsize,
}

impl Directory {
    pub(super) fn of(template: &Path) -> Self {
        let parent = template.parent().filter(|parent| !parent.as_os_str().is_empty());
        Self { path: parent.unwrap_or(Path::new(".")).to_owned(), read: AtomicUsize::new(0) }
    }

    /// Loads a template by its name in the directory. `None`: there is no such file that may be read.
    pub(super) fn load(&self, name: &str) -> Result<Option<String>, Error> {
        let relative = Path::new(name);
        let inside =
            relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside || name.contains('\0') {
            return Ok(None);
        }
        let (Ok(directory), Ok(path)) = (self.path.canonicalize(), self.path.join(relative).canonicalize())
        else {
            return Ok(None);
        };
        // Between this and the opening below, only somebody who may write the directory could move the file; and the
        // process reads with the rights of the user who gets to see the result.
        if !path.starts_with(&directory) {
            return Ok(None);
        }
        if self.read.fetch_add(1, Ordering::Relaxed) >= FILES {
            let text = format!("the template takes in more than {FILES} files");
            return Err(refused(RenderError::new("TemplateRuntimeError", text)));
        }
        match read_text(&path, "a template that this one takes in") {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.exception == "FileNotFoundError" => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }
}

/// An error that the engine passes on as it is.
fn refused(error: RenderError) -> Error {
    Error::new(ErrorKind::BadInclude, "a file is refused").with_source(error)
}
