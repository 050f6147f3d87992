//! Takes the options of a provider out of their mapping, one by one, so that each error names its option.
//!
//! Numbers in quotes are numbers: templates write them. It must not guess beyond that: a wrong type is an error.

use serde_json::{Map, Value};

use super::walltime::Walltime;
use crate::config::error::InvalidOptions;

/// The options that have not been taken yet.
pub(super) struct Fields {
    provider: &'static str,
    left: Map<String, Value>,
    known: Vec<&'static str>,
    without_effect: Vec<(&'static str, &'static str)>,
}

/// The largest count: more nodes or cores than any machine has, and it fits wherever a count goes.
const MOST: u64 = 10_000_000;

impl Fields {
    /// An option whose value is null counts as absent.
    pub(super) fn new(provider: &'static str, mut left: Map<String, Value>) -> Self {
        left.retain(|_, value| !value.is_null());
        Self { provider, left, known: Vec::new(), without_effect: Vec::new() }
    }

    pub(super) fn refuse<T>(&self, option: &str, why: impl std::fmt::Display) -> Result<T, InvalidOptions> {
        Err(InvalidOptions::Shape(format!("{}: {option} {why}", self.provider)))
    }

    fn take(&mut self, option: &'static str) -> Option<Value> {
        self.known.push(option);
        self.left.remove(option)
    }

    fn read<T>(
        &mut self,
        option: &'static str,
        must: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, InvalidOptions> {
        let Some(value) = self.take(option) else { return Ok(None) };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => self.refuse(option, format!("must be {must}, and is {}", excerpt(&value))),
        }
    }

    /// Text of one line, without the spaces around it. An empty one counts as absent.
    pub(super) fn word(&mut self, option: &'static str) -> Result<Option<String>, InvalidOptions> {
        let text = self.read(option, "text", as_text)?.map(|text| text.trim().to_owned());
        let text = text.filter(|text| !text.is_empty());
        match text {
            Some(text) if text.chars().any(char::is_control) => {
                self.refuse(option, format!("must be one line, and is {}", excerpt(&Value::String(text))))
            }
            Some(text) if text.starts_with('-') => {
                self.refuse(option, format!("must not begin with a dash, and is {text:?}"))
            }
            Some(text) if !quotes_are_closed(&text) => {
                self.refuse(option, format!("has a quote that is not closed: {text}"))
            }
            other => Ok(other),
        }
    }

    /// Text that may have several lines. Ends of lines of Windows are read as ends of lines.
    pub(super) fn text(&mut self, option: &'static str) -> Result<String, InvalidOptions> {
        let text = self.read(option, "text", as_text)?.unwrap_or_default().replace("\r\n", "\n");
        match text.chars().find(|&c| c.is_control() && c != '\n' && c != '\t') {
            Some(control) => self.refuse(option, format!("holds the control character {control:?}")),
            None => Ok(text),
        }
    }

    pub(super) fn texts(&mut self, option: &'static str) -> Result<Vec<String>, InvalidOptions> {
        let list = |value: &Value| value.as_array()?.iter().map(as_text).collect();
        Ok(self.read(option, "a list of texts", list)?.unwrap_or_default())
    }

    pub(super) fn map(&mut self, option: &'static str) -> Result<Vec<(String, String)>, InvalidOptions> {
        let pairs = |value: &Value| {
            value.as_object()?.iter().map(|(key, value)| Some((key.clone(), as_text(value)?))).collect()
        };
        Ok(self.read(option, "a mapping of texts", pairs)?.unwrap_or_default())
    }

    pub(super) fn count(&mut self, option: &'static str) -> Result<Option<u32>, InvalidOptions> {
        let count = |value: &Value| {
            let number = match value {
                Value::String(text) => text.trim().parse().ok()?,
                other => other.as_u64()?,
            };
            u32::try_from(number).ok().filter(|_| (1..=MOST).contains(&number))
        };
        self.read(option, "a whole number of at least 1", count)
    }

    pub(super) fn number(&mut self, option: &'static str) -> Result<Option<f64>, InvalidOptions> {
        let number = |value: &Value| {
            let number: f64 = match value {
                Value::String(text) => text.trim().parse().ok()?,
                other => other.as_f64()?,
            };
            (number.is_finite() && number > 0.0 && number < 1e9).then_some(number)
        };
        self.read(option, "a number greater than 0", number)
    }

    pub(super) fn flag(&mut self, option: &'static str, usual: bool) -> Result<bool, InvalidOptions> {
        let flag = |value: &Value| match value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        };
        Ok(self.read(option, "true or false", flag)?.unwrap_or(usual))
    }

    pub(super) fn walltime(&mut self, usual: Walltime) -> Result<Walltime, InvalidOptions> {
        let Some(value) = self.take("walltime") else { return Ok(usual) };
        Walltime::read(&value).or_else(|error| self.refuse("walltime", error))
    }

    /// Notes that this option has no effect, if it is given; to be called before it is read.
    pub(super) fn note_without_effect(&mut self, option: &'static str, why: &'static str) {
        if self.left.contains_key(option) {
            self.without_effect.push((option, why));
        }
    }

    /// The options that are given and have no effect. Fails when an option is left that nobody has taken.
    pub(super) fn finish(mut self) -> Result<Vec<(&'static str, &'static str)>, InvalidOptions> {
        let noted = std::mem::take(&mut self.without_effect);
        let Some(unknown) = self.left.keys().next() else { return Ok(noted) };
        let known = self.known.join(", ");
        self.refuse(
            unknown,
            format!("is not an option of this provider; besides those of every provider there are {known}"),
        )
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Whether each quotation mark has its second, in the way of a shell.
fn quotes_are_closed(text: &str) -> bool {
    let mut open = None;
    let mut escaped = false;
    for character in text.chars() {
        match (open, character) {
            _ if escaped => escaped = false,
            (None | Some('"'), '\\') => escaped = true,
            (None, '"' | '\'') => open = Some(character),
            (Some(mark), character) if mark == character => open = None,
            _ => {}
        }
    }
    open.is_none() && !escaped
}

/// The beginning of a value, for an error.
fn excerpt(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
