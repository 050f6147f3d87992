//! How values print: as Jinja2 prints them, but lists and objects as JSON, and numbers so that YAML reads a number.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Output, State, Value};

use super::limits::{NESTING, OUTPUT};
use super::missing::Missing;
use super::text::{quoted, unquoted};

/// Bytes of a key that YAML takes without a question mark before it: it looks for the colon within 1024 characters.
const PLAIN_KEY: usize = 1_000;

/// Prints one value of `{{ … }}`.
pub(super) fn formatter(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if let Some(missing) = value.downcast_object_ref::<Missing>() {
        return Err(Error::new(ErrorKind::UndefinedError, format!("`{}` is undefined", missing.path)));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            let text = json(value)?;
            state.consume_fuel(text.len() as u64 / 64)?;
            out.write_str(&text)?;
        }
        ValueKind::Number => out.write_str(&number(value))?,
        _ => return minijinja::escape_formatter(out, state, value),
    }
    Ok(())
}

/// A number as Python prints it, but so that YAML 1.1 reads a number.
fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => self::float(float),
        _ => value.to_string(),
    }
}

/// Python's shortest form: an exponent from 1e16 on and below 1e-4. YAML 1.1 wants a point and the exponent's sign.
fn float(value: f64) -> String {
    if value.is_nan() {
        return ".nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let point = if digits.contains('.') { "" } else { ".0" };
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{digits}{point}e{sign}{exponent:0>2}");
    }
    format!("{value:?}")
}

/// A value as JSON, as Python spaces it.
pub(super) fn json(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write_json(&mut out, value, NESTING, false)?;
    Ok(out)
}

fn write_json(out: &mut String, value: &Value, depth: usize, is_key: bool) -> Result<(), Error> {
    let refused = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("a value to print {what}"));
    let Some(depth) = depth.checked_sub(1) else {
        return Err(refused(&format!("is nested deeper than {NESTING} levels")));
    };
    if out.len() > OUTPUT {
        return Err(ErrorKind::WriteFailure.into());
    }
    if let Some(text) = value.as_str() {
        // What a user sent is JSON already, with `null` for null; what the template made becomes JSON.
        if unquoted(text).is_some() || (text == "null" && !is_key) {
            out.push_str(text);
        } else {
            out.push_str(&quoted(text));
        }
        return Ok(());
    }
    match value.kind() {
        ValueKind::Undefined => Err(Error::new(ErrorKind::UndefinedError, "a value in a list is undefined")),
        ValueKind::Invalid => Err(refused("is invalid")),
        ValueKind::None => {
            out.push_str("null");
            Ok(())
        }
        ValueKind::Bool => {
            out.push_str(if value.is_true() { "true" } else { "false" });
            Ok(())
        }
        ValueKind::Number => {
            out.push_str(&number(value));
            Ok(())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            write_list(out, ['[', ']'], value.try_iter()?.checked(), |out, item| {
                write_json(out, &item?, depth, false)
            })
        }
        ValueKind::Map => {
            let pairs = value.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten();
            write_list(out, ['{', '}'], pairs, |out, (key, value)| {
                let mut text = String::new();
                write_json(&mut text, &key, depth, true)?;
                let [mark, colon] = if text.len() > PLAIN_KEY { ["? ", " : "] } else { ["", ": "] };
                out.push_str(&format!("{mark}{text}{colon}"));
                write_json(out, &value, depth, false)
            })
        }
        _ => {
            if let Some(missing) = value.downcast_object_ref::<Missing>() {
                return Err(Error::new(
                    ErrorKind::UndefinedError,
                    format!("`{}` is undefined", missing.path),
                ));
            }
            let mut text = String::new();
            write!(text, "{value}")?;
            out.push_str(&quoted(&text));
            Ok(())
        }
    }
}

fn write_list<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut String, T) -> Result<(), Error>,
) -> Result<(), Error> {
    out.push(open);
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        write(out, item)?;
    }
    out.push(close);
    Ok(())
}
