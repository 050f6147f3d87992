//! Checks a submitter's options against the administrator's JSON Schema.
//!
//! A schema never makes the process read another file or open a connection: references to other documents are refused.

mod message;
mod python;

use std::path::Path;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Kind;
use serde_json::Value;
use wire::json::Object;

use crate::site_files::{RenderError, read_text};

/// Errors looked at to find the most telling one.
const ERRORS: usize = 1_000;

/// Reads a schema. No file, no schema: any option is accepted.
pub fn read(path: &Path) -> Result<Option<Value>, RenderError> {
    let text = match read_text(path, "the schema of users' options") {
        Err(error) if error.exception == "FileNotFoundError" => return Ok(None),
        text => text?,
    };
    let schema = serde_json::from_str(&text).map_err(|error| {
        let text = format!(
            "{error}\n  The schema of users' options, '{}', is not JSON. The administrator must mend it.",
            path.display()
        );
        RenderError::new("JSONDecodeError", text)
    })?;
    Ok(Some(schema))
}

/// Checks the options. A schema that says nothing, such as `{}`, accepts all.
pub fn check(schema: &Value, options: &Object) -> Result<(), RenderError> {
    let says_nothing = match schema {
        Value::Null | Value::Bool(false) => true,
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    if says_nothing {
        return Ok(());
    }
    let validator =
        jsonschema::options().should_validate_formats(false).offline().build(schema).map_err(|error| {
            let at = python::index("schema", error.instance_path().segments());
            let text = format!(
                "the schema of users' options is invalid at {at}: {error}\n  The administrator must mend it."
            );
            RenderError::new("SchemaError", text)
        })?;
    let options = Value::Object(options.clone());
    let errors: Vec<_> = validator.iter_errors(&options).take(ERRORS).collect();
    match most_telling(errors.iter()) {
        None => Ok(()),
        Some(error) => Err(RenderError::new("ValidationError", message::text(error, schema, &options))),
    }
}

/// The error to show: the shallowest, since it says most; of the branches of `anyOf` and `oneOf`, the deepest, if there is
/// one.
fn most_telling<'a, 'b: 'a>(
    errors: impl Iterator<Item = &'a ValidationError<'b>>,
) -> Option<&'a ValidationError<'b>> {
    let mut best = errors.min_by_key(|error| relevance(error))?;
    loop {
        let branches = match best.kind() {
            Kind::AnyOf { context }
            | Kind::OneOfNotValid { context }
            | Kind::OneOfMultipleValid { context } => context,
            _ => return Some(best),
        };
        let mut inner: Vec<&ValidationError<'static>> = branches.iter().flatten().collect();
        inner.sort_by_key(|error| std::cmp::Reverse(relevance(error)));
        match inner.as_slice() {
            [] => return Some(best),
            [first, second, ..] if relevance(first) == relevance(second) => return Some(best),
            [first, ..] => best = first,
        }
    }
}

/// Sorts errors, the most telling first: shallow, late in the document, not a mere alternative, of the expected type.
fn relevance(error: &ValidationError<'_>) -> (usize, std::cmp::Reverse<String>, bool, bool) {
    let is_alternative = matches!(
        error.kind(),
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } | Kind::OneOfMultipleValid { .. }
    );
    let is_type = matches!(error.kind(), Kind::Type { .. });
    let path = error.instance_path();
    (path.segments().count(), std::cmp::Reverse(path.as_str().to_owned()), is_alternative, is_type)
}
