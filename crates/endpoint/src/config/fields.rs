//! Takes the fields of a mapping one by one, and collects what is wrong with them.

use std::path::{Path, PathBuf};

use super::BadConfig;
use super::nearest::nearest;
use super::scalar::{self, boolean, uuid};
use super::validation_error::{ValidationError, report};
use super::yaml::{Entry, Node, Position, Value};

pub(super) const NOT_A_SWITCH: &str = "write true or false, without quotes (type=type_error.bool)";
const NOT_AN_INTEGER: &str = "value is not a valid integer (type=type_error.integer)";
pub(super) const NOT_A_BOOLEAN: &str = "value could not be parsed to a boolean (type=type_error.bool)";
pub(super) const NOT_A_NUMBER: &str = "value is not a valid float (type=type_error.float)";
const NOT_A_PATH: &str = "value is not a valid path (type=type_error.path)";
pub(super) const NOT_TEXT: &str = "str type expected (type=type_error.str)";
const NOT_A_UUID: &str = "value is not a valid uuid (type=type_error.uuid)";
const NOT_A_LIST: &str = "value is not a valid list (type=type_error.list)";
pub(super) const NOT_A_DICT: &str = "value is not a valid dict (type=type_error.dict)";

/// The fields of a mapping that are not taken yet. Those that are left at the end are unknown.
pub(super) struct Fields<'a> {
    left: Vec<&'a Entry>,
    errors: Vec<ValidationError>,
}

impl<'a> Fields<'a> {
    /// The fields of a document.
    pub(super) fn of(node: &'a Node) -> Result<Self, BadConfig> {
        let Value::Map(entries) = &node.value else {
            return Err(BadConfig(
                "Invalid config syntax: the document is not a mapping of keys to values".to_owned(),
            ));
        };
        Ok(Self { left: entries.iter().collect(), errors: Vec::new() })
    }

    /// Reports all errors, unknown fields among them. `elsewhere` says where a field belongs that is known and not
    /// allowed here.
    pub(super) fn finish(
        mut self,
        model: &str,
        file: &str,
        text: &str,
        known: &[&'static str],
        elsewhere: impl Fn(&str) -> Option<&'static str>,
    ) -> Result<(), BadConfig> {
        // Sorted by name, as upstream reports them.
        self.left.sort_by(|one, other| one.key.cmp(&other.key));
        self.errors.extend(self.left.into_iter().map(|entry| {
            let what = "extra fields not permitted (type=value_error.extra)";
            let near = nearest(&entry.key, known.iter().copied());
            ValidationError::new(&entry.key, what, Some(entry.at)).near(near).help(elsewhere(&entry.key))
        }));
        if self.errors.is_empty() { Ok(()) } else { Err(report(model, file, text, &self.errors)) }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<&'a Entry> {
        let index = self.left.iter().position(|entry| entry.key == name)?;
        Some(self.left.remove(index))
    }

    /// A field with a value; null counts as not given.
    pub(super) fn given(&mut self, name: &str) -> Option<&'a Entry> {
        self.take(name).filter(|entry| entry.node.value != Value::Null)
    }

    fn read<T>(&mut self, name: &str, what: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let entry = self.given(name)?;
        let value = read(&entry.node.value);
        if value.is_none() {
            self.errors.push(ValidationError::new(name, what, Some(entry.at)));
        }
        value
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.read(name, NOT_TEXT, |value| match value {
            Value::Text(text) => Some(text.clone()),
            Value::Int(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            _ => None,
        })
    }

    /// A path. A relative one is below `directory`.
    pub(super) fn path(&mut self, name: &str, directory: &Path) -> Option<PathBuf> {
        self.read(name, NOT_A_PATH, |value| match value {
            Value::Text(path) => Some(directory.join(path)),
            _ => None,
        })
    }

    pub(super) fn number(&mut self, name: &str) -> Option<f64> {
        self.read(name, NOT_A_NUMBER, |value| scalar::number(value)?.as_f64())
    }

    /// Adds an error about a field.
    pub(super) fn refuse(&mut self, name: &str, what: &str, at: Option<Position>) {
        self.errors.push(ValidationError::new(name, what, at));
    }

    /// Adds errors that were found elsewhere.
    pub(super) fn add(&mut self, errors: impl IntoIterator<Item = ValidationError>) {
        self.errors.extend(errors);
    }

    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        self.read(name, NOT_A_BOOLEAN, boolean)
    }

    pub(super) fn integer<T: TryFrom<i64>>(&mut self, name: &str) -> Option<T> {
        self.read(name, NOT_AN_INTEGER, |value| {
            let number = match value {
                Value::Int(number) => *number,
                // A float beyond the range ends at its edge and is refused there.
                #[allow(clippy::cast_possible_truncation, reason = "as Python's int(): towards zero")]
                Value::Float(number) if number.is_finite() => number.trunc() as i64,
                Value::Text(text) => text.trim().parse().ok()?,
                _ => return None,
            };
            T::try_from(number).ok()
        })
    }

    pub(super) fn id<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        self.read(name, NOT_A_UUID, uuid)
    }

    pub(super) fn ids<T: std::str::FromStr>(&mut self, name: &str) -> Option<Vec<T>> {
        let entry = self.given(name)?;
        let Value::List(nodes) = &entry.node.value else {
            self.errors.push(ValidationError::new(name, NOT_A_LIST, Some(entry.at)));
            return None;
        };
        let mut ids = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            match uuid(&node.value) {
                Some(id) => ids.push(id),
                None => self.errors.push(ValidationError::new(
                    format!("{name} -> {index}"),
                    NOT_A_UUID,
                    Some(node.at),
                )),
            }
        }
        Some(ids)
    }
}
