//! What went wrong, in the words that users of the original know: its exceptions' names and texts, followed by the place in
//! the template and what to do.

use std::path::Path;

use minijinja::{Error, ErrorKind};

use super::filters::NOT_JSON;
use super::limits::{NESTING, OUTPUT, STEPS};
use crate::site_files::RenderError;

/// The error of the template engine in upstream's terms.
pub(super) fn in_upstreams_terms(error: &Error, template: &Path, text: &str) -> RenderError {
    let error = innermost(error);
    let refused = std::error::Error::source(error).and_then(|source| source.downcast_ref::<RenderError>());
    let (exception, mut message, hint) = match refused {
        Some(refused) => (refused.exception.as_str(), refused.text.clone(), String::new()),
        None => explain(error),
    };
    if let Some(line) = error.line() {
        let main = template.file_name().and_then(|name| name.to_str()).unwrap_or("the template");
        let file = error.name().unwrap_or(main);
        message.push_str(&format!("\n  Line {line} of {file}"));
        let source = error.template_source().unwrap_or(if file == main { text } else { "" });
        if let Some(content) = source.lines().nth(line - 1).map(str::trim).filter(|line| !line.is_empty()) {
            message.push_str(": ");
            message.extend(content.chars().take(200));
        }
    }
    if !hint.is_empty() {
        message.push_str("\n  ");
        message.push_str(&hint);
    }
    RenderError::new(exception, message)
}

/// The error in the file where it happened: an included file's, not the `include` statement's.
fn innermost(error: &Error) -> &Error {
    let mut error = error;
    while matches!(error.kind(), ErrorKind::BadInclude | ErrorKind::EvalBlock) {
        let source = std::error::Error::source(error);
        let Some(inner) = source.and_then(|source| source.downcast_ref::<Error>()) else { break };
        error = inner;
    }
    error
}

/// Exception, message, and what to do.
fn explain(error: &Error) -> (&'static str, String, String) {
    let detail = error.detail().unwrap_or_default();
    let message = || if detail.is_empty() { error.kind().to_string() } else { detail.to_owned() };
    let mend = "The administrator must correct the template.";
    match error.kind() {
        ErrorKind::UndefinedError => undefined(detail),
        ErrorKind::UnknownFunction => {
            undefined(&format!("`{}` is undefined", detail.trim_end_matches(" is unknown")))
        }
        ErrorKind::SyntaxError | ErrorKind::BadEscape | ErrorKind::InvalidDelimiter => {
            ("TemplateSyntaxError", message(), mend.into())
        }
        ErrorKind::UnknownFilter => {
            let name = detail.trim_start_matches("filter ").trim_end_matches(" is unknown");
            ("TemplateAssertionError", format!("No filter named '{name}'."), mend.into())
        }
        ErrorKind::UnknownTest => {
            let name = detail.trim_start_matches("test ").trim_end_matches(" is unknown");
            ("TemplateAssertionError", format!("No test named '{name}'."), mend.into())
        }
        ErrorKind::TemplateNotFound => {
            let name = detail.split('\'').nth(1).or_else(|| detail.split('"').nth(1)).unwrap_or(detail);
            let hint = "A template may take in only files of its own directory, which the local user must be able to read.";
            ("TemplateNotFound", format!("'{name}' not found"), hint.into())
        }
        ErrorKind::OutOfFuel => {
            let hint = "Shorten loops, or pass smaller values.";
            ("TemplateRuntimeError", format!("the template takes more than {STEPS} steps"), hint.into())
        }
        ErrorKind::WriteFailure => {
            let hint = "Shorten loops, or pass smaller values.";
            ("TemplateRuntimeError", format!("the configuration is larger than {OUTPUT} bytes"), hint.into())
        }
        _ if detail.contains("recursion limit exceeded") => {
            let message = "maximum recursion depth exceeded".to_owned();
            (
                "RecursionError",
                message,
                "A macro or a file of the template must not use itself without end.".into(),
            )
        }
        _ if detail == NOT_JSON => {
            let hint = "shell_escape expects an option's value, not a text of the template.";
            ("JSONDecodeError", NOT_JSON.to_owned(), hint.into())
        }
        _ if detail.starts_with("tried to use % operator") => {
            ("TypeError", message(), "Use the filter instead: {{ \"%d\"|format(value) }}.".into())
        }
        ErrorKind::InvalidOperation
            if detail.starts_with("unable to calculate") && detail.ends_with(" 0") =>
        {
            ("ZeroDivisionError", "division by zero".into(), mend.into())
        }
        _ if detail.contains(&format!("deeper than {NESTING} levels")) => {
            ("RecursionError", message(), "Pass less deeply nested values.".into())
        }
        ErrorKind::UnknownMethod => {
            let (kind, method) = detail.split_once(" has no method named ").unwrap_or(("value", detail));
            let kind = match kind {
                "string" => "str",
                "map" => "dict",
                "sequence" => "list",
                other => other,
            };
            let hint = "Not every method of Python exists here; the administrator may use a filter instead.";
            ("UndefinedError", format!("'{kind} object' has no attribute '{method}'"), hint.into())
        }
        ErrorKind::InvalidOperation
        | ErrorKind::TooManyArguments
        | ErrorKind::MissingArgument
        | ErrorKind::NonPrimitive
        | ErrorKind::NonKey
        | ErrorKind::CannotUnpack => {
            let hint =
                "Check the types of the values you pass; the administrator may have to correct the template.";
            ("TypeError", message(), hint.into())
        }
        _ => ("TemplateRuntimeError", message(), mend.into()),
    }
}

/// `detail` names the expression: `` `ACCOUNT_ID` is undefined ``.
fn undefined(detail: &str) -> (&'static str, String, String) {
    let Some(expression) = detail.strip_prefix('`').and_then(|rest| rest.split('`').next()) else {
        let text = if detail.is_empty() { "a value is undefined" } else { detail };
        return ("UndefinedError", text.to_owned(), "The administrator must correct the template.".into());
    };
    if let Some(attribute) = expression.rsplit('.').next().filter(|name| name.starts_with("__")) {
        let text = format!("access to attribute '{attribute}' is unsafe.");
        return (
            "SecurityError",
            text,
            "Templates can't reach Python's internals; the administrator must remove this.".into(),
        );
    }
    let variable = expression.split(['.', '[', '(']).next().unwrap_or(expression);
    let hint = if super::RESERVED.contains(&variable) {
        format!(
            "Not every submitter's or manager's has it; the administrator may write {{{{ {expression}|default() }}}}."
        )
    } else {
        format!(
            "Pass {variable} in user_endpoint_config, or the administrator gives it a default in the template: \
             {{{{ {expression}|default() }}}}."
        )
    };
    ("UndefinedError", format!("'{expression}' is undefined"), hint)
}
