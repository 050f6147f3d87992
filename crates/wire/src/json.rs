//! The one way in for a JSON document that another party wrote: bounded in size and depth, and with errors that
//! name the field.
//!
//! A document that is read well is read once. Only a refused one is read again, to find out where it went wrong.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A JSON object of which we know no more than that.
pub type Object = Map<String, Value>;

/// The most that one object of free form (a result's `details`, an endpoint's `global_state`) may measure.
///
/// Such objects are held as values, which take many times the room of their text.
pub const FREE_FORM_LIMIT: usize = 1 << 20;

/// Why a document was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{size} bytes exceed the limit of {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("not UTF-8 at byte {at}")]
    NotUtf8 { at: usize },
    #[error("ends too early, at byte {at}")]
    Truncated { at: usize },
    #[error("nested too deeply")]
    TooDeep,
    #[error("not JSON at byte {at}: {problem}")]
    NotJson { at: usize, problem: String },
    /// `field` is the path from the top of the document: `data.task_statuses[0].actor`; `.` is the document.
    #[error("{field}: {problem}")]
    Field { field: String, problem: String },
}

impl Malformed {
    /// The field that was refused, when it was a field.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Field { field, .. } => Some(field),
            _ => None,
        }
    }

    /// The same refusal, seen from a document in which this one stands under `parent`.
    pub(crate) fn under(self, parent: &str) -> Self {
        match self {
            Self::Field { field, problem } if field == "." => Self::Field { field: parent.into(), problem },
            Self::Field { field, problem } if field.starts_with('[') => {
                Self::Field { field: format!("{parent}{field}"), problem }
            }
            Self::Field { field, problem } => Self::Field { field: format!("{parent}.{field}"), problem },
            other => other,
        }
    }
}

/// Reads a whole document of at most `limit` bytes. Nesting is bounded at 127 levels.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8], limit: usize) -> Result<T, Malformed> {
    decode_str(utf8(bytes, limit)?)
}

/// Writes a document, compactly.
pub fn encode<T: Serialize + ?Sized>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document)
        .expect("the types of this crate have string keys and don't fail to serialize")
}

pub(crate) fn utf8(bytes: &[u8], limit: usize) -> Result<&str, Malformed> {
    if bytes.len() > limit {
        return Err(Malformed::TooLarge { size: bytes.len(), limit });
    }
    std::str::from_utf8(bytes).map_err(|error| Malformed::NotUtf8 { at: error.valid_up_to() })
}

pub(crate) fn decode_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Malformed> {
    serde_json::from_str(text).map_err(|error| diagnose::<T>(text, &error))
}

/// Reads the document once more, now keeping track of the place.
#[cold]
fn diagnose<'a, T: Deserialize<'a>>(text: &'a str, first: &serde_json::Error) -> Malformed {
    let at = offset(text, first);
    match first.classify() {
        serde_json::error::Category::Eof => return Malformed::Truncated { at },
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
            let problem = without_position(first);
            return match problem.as_str() {
                "recursion limit exceeded" => Malformed::TooDeep,
                _ => Malformed::NotJson { at, problem },
            };
        }
        serde_json::error::Category::Data => {}
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    let (mut field, mut problem) = match T::deserialize(tracked) {
        Err(error) => (track.path().to_string(), without_position(&error)),
        Ok(_) => (".".to_owned(), without_position(first)),
    };
    if let Some(name) = problem.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        field = if field == "." { name.to_owned() } else { format!("{field}.{name}") };
        problem = "missing".to_owned();
    }
    Malformed::Field { field, problem }
}

/// serde_json counts lines and columns; a machine's documents have one line, but a stranger's may have more.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    let line_start: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    (line_start + error.column()).min(text.len())
}

fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    // What a stranger sent may be quoted in here; a log line has an end.
    text.strip_suffix(&position).unwrap_or(&text).chars().take(200).collect()
}

/// Reads an object of free form, refused beyond [`FREE_FORM_LIMIT`].
pub(crate) fn free_form<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
    bounded(Deserialize::deserialize(deserializer)?)
}

/// The same for an object that may be absent or null.
pub(crate) fn free_form_or_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Object>, D::Error> {
    match Option::<&RawValue>::deserialize(deserializer)? {
        Some(raw) => bounded(raw).map(Some),
        None => Ok(None),
    }
}

fn bounded<T: de::DeserializeOwned, E: de::Error>(raw: &RawValue) -> Result<T, E> {
    let size = raw.get().len();
    if size > FREE_FORM_LIMIT {
        return Err(E::custom(format_args!("{size} bytes exceed the limit of {FREE_FORM_LIMIT}")));
    }
    serde_json::from_str(raw.get()).map_err(|error| E::custom(without_position(&error)))
}

/// For a member whose null means something else than its absence: present and null becomes `Some(Null)`.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
