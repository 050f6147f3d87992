//! Errors of a configuration in upstream's form, each with the position in the text.

use std::fmt::Write as _;

use super::BadConfig;
use super::yaml::{Position, excerpt};

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ValidationError {
    /// `engine -> provider -> type`
    pub(super) path: String,
    /// `Nope could not be found (type=value_error)`
    pub(super) what: String,
    pub(super) at: Option<Position>,
    /// The known name that was probably meant.
    pub(super) near: Option<&'static str>,
    /// What to do instead.
    pub(super) help: Option<&'static str>,
}

impl ValidationError {
    pub(super) fn new(path: impl Into<String>, what: impl Into<String>, at: Option<Position>) -> Self {
        Self { path: path.into(), what: what.into(), at, near: None, help: None }
    }

    pub(super) fn near(self, near: Option<&'static str>) -> Self {
        Self { near, ..self }
    }

    pub(super) fn help(self, help: Option<&'static str>) -> Self {
        Self { help, ..self }
    }

    /// A setting that this version does not support yet.
    pub(super) fn unsupported(path: &str, name: &str, meanwhile: &str, at: Position) -> Self {
        Self::new(path, format!("{name} is not part of this version yet; meanwhile {meanwhile}"), Some(at))
    }
}

/// The text of all errors: upstream's lines, then each position with a caret.
pub(super) fn report(model: &str, file: &str, text: &str, errors: &[ValidationError]) -> BadConfig {
    let noun = if errors.len() == 1 { "error" } else { "errors" };
    let mut out = format!("{} validation {noun} for {model}\n", errors.len());
    for ValidationError { path, what, .. } in errors {
        // Writing to a string can't fail.
        let _ = writeln!(out, "{path}\n  {what}");
    }
    for ValidationError { at, near, help, .. } in errors {
        if let Some(at) = at {
            let _ = writeln!(out, "\n{}", excerpt(file, text, *at));
        }
        if let Some(help) = help {
            let _ = writeln!(out, "  = help: {help}");
        } else if let Some(near) = near {
            let _ = writeln!(out, "  = help: the nearest name there is: {near}");
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    BadConfig(out)
}
