//! The filters and tests that the template engine lacks or that must know the form in which options arrive.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::limits::NESTING;
use super::missing::Missing;
use super::print;
use super::sanitise::original;
use super::text::{quoted, unquoted};

/// What marks an error of `shell_escape`, for which upstream has an exception of its own.
pub(super) const NOT_JSON: &str = "Expecting value: line 1 column 1 (char 0)";

pub(super) fn add(engine: &mut Environment<'_>) {
    engine.add_filter("shell_escape", shell_escape);
    engine.add_filter("tojson", to_json);
    engine.add_filter("string", to_string);
    engine.add_filter("default", default);
    engine.add_filter("d", default);
    engine.add_filter("int", int);
    engine.add_filter("float", float);
    engine.add_filter("center", center);
    engine.add_filter("wordcount", word_count);
    engine.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
    engine.add_filter("truncate", minijinja_contrib::filters::truncate);
    engine.add_filter("striptags", minijinja_contrib::filters::striptags);
    engine.add_test("defined", |value: &Value| !is_undefined(value));
    engine.add_test("undefined", is_undefined);
    engine.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
    });
}

fn is_undefined(value: &Value) -> bool {
    value.is_undefined() || Missing::is(value)
}

/// Quotes an option for a shell. It expects the quoted form in which options arrive.
fn shell_escape(value: Value) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return Ok(value) };
    if let Some(text) = unquoted(text) {
        return Ok(Value::from(quoted(&shell_quoted(&text))));
    }
    if serde_json::from_str::<serde_json::Value>(text).is_ok() {
        return Ok(value);
    }
    Err(Error::new(ErrorKind::InvalidOperation, NOT_JSON))
}

/// One word of a shell's command line.
fn shell_quoted(text: &str) -> String {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_safe) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

/// An option's own JSON, without the quotes of the form in which options arrive.
fn to_json(
    state: &State<'_, '_>,
    value: &Value,
    indent: Option<Value>,
    args: Kwargs,
) -> Result<Value, Error> {
    if Missing::is(value) {
        return Err(Error::new(ErrorKind::UndefinedError, "the value of `tojson` is undefined"));
    }
    let value = original(value, NESTING).ok_or_else(|| {
        Error::new(ErrorKind::InvalidOperation, format!("a value is nested deeper than {NESTING} levels"))
    })?;
    let json = minijinja::filters::tojson(&value, indent, args)?;
    let json = json.as_str().unwrap_or_default();
    state.consume_fuel(json.len() as u64 / 64)?;
    // Outside of strings JSON is ASCII, so that every other character may be escaped.
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if ('\u{7f}'..'\u{10000}').contains(&character) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    Ok(Value::from_safe_string(escaped))
}

fn to_string(value: &Value) -> Result<Value, Error> {
    if is_undefined(value) {
        return Err(Error::new(ErrorKind::UndefinedError, "the value of `string` is undefined"));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Map => print::json(value).map(Value::from),
        ValueKind::String => Ok(value.clone()),
        _ => Ok(Value::from(value.to_string())),
    }
}

fn default(state: &State<'_, '_>, value: &Value, args: Rest<Value>) -> Result<Value, Error> {
    let value = if Missing::is(value) { &Value::UNDEFINED } else { value };
    minijinja::filters::default(state, value, args)
}

/// Centres a text in a field of `width` characters, 80 if not given.
fn center(text: &str, width: Option<usize>) -> Result<String, Error> {
    let width = width.unwrap_or(80);
    if width > 10_000 {
        return Err(Error::new(ErrorKind::InvalidOperation, "center: a width above 10000"));
    }
    let missing = width.saturating_sub(text.chars().count());
    // Python puts the odd blank to the left if the width is odd, too.
    let left = missing / 2 + (missing & width & 1);
    Ok(format!("{}{text}{}", " ".repeat(left), " ".repeat(missing - left)))
}

/// A whole number, or 0 for a text that is none, as in Jinja2.
fn int(
    state: &State<'_, '_>,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    args: Kwargs,
) -> Result<Value, Error> {
    let default = if args.has("default") { default } else { default.or(Some(Value::from(0))) };
    minijinja::filters::int(state, value, default, base, args)
}

fn float(state: &State<'_, '_>, value: &Value, default: Option<Value>, args: Kwargs) -> Result<Value, Error> {
    let default = if args.has("default") { default } else { default.or(Some(Value::from(0.0))) };
    minijinja::filters::float(state, value, default, args)
}

fn word_count(text: &str) -> usize {
    text.split(|character: char| !character.is_alphanumeric() && character != '_')
        .filter(|word| !word.is_empty())
        .count()
}
