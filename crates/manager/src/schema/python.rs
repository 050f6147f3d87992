//! Values as Python prints them: the form in which users know the messages about their options.

use std::fmt::Write as _;

use jsonschema::paths::LocationSegment;
use serde_json::Value;

/// Characters of one printed value.
const VALUE: usize = 1_000;
/// Columns, as Python's `pformat` is called.
const WIDTH: usize = 72;

/// A value on one line.
pub(super) fn repr(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    shortened(out)
}

fn shortened(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(VALUE) {
        text.truncate(at);
        text.push('…');
    }
    text
}

fn write(out: &mut String, value: &Value) {
    if out.len() > 5 * VALUE {
        return;
    }
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Value::String(text) => out.push_str(&string(text)),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write(out, item);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (at, (key, item)) in members.iter().enumerate() {
                let _ = write!(out, "{}{}: ", if at > 0 { ", " } else { "" }, string(key));
                write(out, item);
            }
            out.push('}');
        }
    }
}

/// A string in the quotes that Python chooses.
pub(super) fn string(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for character in text.chars().take(VALUE) {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if character == quote => {
                out.push('\\');
                out.push(character);
            }
            '\0'..='\x1f' | '\x7f'..='\u{a0}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push(quote);
    out
}

/// A value on several lines if it is long, each line after the first indented by `indent`.
pub(super) fn pretty(value: &Value, indent: usize) -> String {
    let mut out = String::new();
    lay_out(&mut out, value, indent, 0, 0);
    shortened(out)
}

/// `column` is where the value begins, `after` how much follows its last line.
fn lay_out(out: &mut String, value: &Value, indent: usize, column: usize, after: usize) {
    let mut line = String::new();
    write(&mut line, value);
    if line.chars().count() <= WIDTH.saturating_sub(column + after) || out.len() > 5 * VALUE {
        out.push_str(&line);
        return;
    }
    let next = |out: &mut String, column: usize| {
        out.push_str(",\n");
        out.extend(std::iter::repeat_n(' ', indent + column));
    };
    match value {
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    next(out, column + 1);
                }
                let last = at + 1 == items.len();
                lay_out(out, item, indent, column + 1, if last { after + 1 } else { 1 });
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (at, (key, item)) in members.iter().enumerate() {
                if at > 0 {
                    next(out, column + 1);
                }
                let key = string(key);
                let column = column + 1 + key.chars().count() + 2;
                let _ = write!(out, "{key}: ");
                let last = at + 1 == members.len();
                lay_out(out, item, indent, column, if last { after + 1 } else { 1 });
            }
            out.push('}');
        }
        _ => out.push_str(&line),
    }
}

/// A place: `schema['properties']['cores']`.
pub(super) fn index<'a>(container: &str, path: impl Iterator<Item = LocationSegment<'a>>) -> String {
    let mut out = container.to_owned();
    for segment in path {
        let _ = match segment {
            LocationSegment::Property(name) => write!(out, "[{}]", string(&name)),
            LocationSegment::Index(at) => write!(out, "[{at}]"),
        };
    }
    out
}
