//! Reads JSON documents of other parties, with limits of size and depth, and with errors that
//! name the field.
//!
//! A valid document is parsed once. Only a refused document is parsed again, to find the place of the error.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A JSON object of any content.
pub type Object = Map<String, Value>;

/// The maximum size, in bytes, of one object of free form (a result's `details`, an endpoint's `global_state`).
///
/// Such objects are parsed to values, which take many times the memory of their text.
pub const FREE_FORM_LIMIT: usize = 1 << 20;

/// The maximum number of entries in one list of strings or of free-form values.
pub const LIST_LIMIT: usize = 10_000;

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
    /// The refused field, if one was refused.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Field { field, .. } => Some(field),
            _ => None,
        }
    }

    /// The same error for a document that contains this one in its member `parent`.
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

/// Reads a whole document of at most `limit` bytes and 127 levels of nesting.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8], limit: usize) -> Result<T, Malformed> {
    decode_str(utf8(bytes, limit)?)
}

/// Writes a document, compactly.
pub fn encode<T: Serialize + ?Sized>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document)
        .expect("the types of this crate have string keys and don't fail to serialize")
}

/// Appends a document to `out`, compactly.
pub(crate) fn write<T: Serialize>(document: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, document)
        .expect("the types of this crate have string keys, and a Vec takes everything");
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

/// Parses the document again, keeping track of the place.
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
    // For these errors, serde's path ends at the object; the message names the member.
    for (words, short) in [("missing field `", "missing"), ("duplicate field `", "stands there twice")] {
        if let Some(name) = problem.strip_prefix(words).and_then(|rest| rest.strip_suffix('`')) {
            field = if field == "." { name.to_owned() } else { format!("{field}.{name}") };
            problem = short.to_owned();
        }
    }
    Malformed::Field { field, problem }
}

/// The byte offset of an error. serde_json counts lines and columns.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    let line_start: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    (line_start + error.column()).min(text.len())
}

fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    // The message may quote the document; it must not fill the log.
    text.strip_suffix(&position).unwrap_or(&text).chars().take(200).collect()
}

/// An object of free form, kept as the text that was received. Two are equal if they have the same content.
///
/// It is refused beyond [`FREE_FORM_LIMIT`]: parsed to values, it takes many times the memory of its text. Like
/// [`crate::Text`], it can be read from and written to JSON only.
#[derive(Clone)]
pub struct FreeForm(Box<RawValue>);

impl FreeForm {
    /// The text, as it was received.
    pub fn as_json(&self) -> &str {
        self.0.get()
    }

    /// Parses the object to a type.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Malformed> {
        decode_str(self.0.get())
    }

    /// Parses the object to values, to change it or to look up a member.
    pub fn to_object(&self) -> Object {
        serde_json::from_str(self.0.get()).expect("a FreeForm holds an object")
    }
}

impl From<Object> for FreeForm {
    fn from(object: Object) -> Self {
        Self(serde_json::value::to_raw_value(&object).expect("an object of values serializes"))
    }
}

impl From<&Object> for FreeForm {
    fn from(object: &Object) -> Self {
        Self(serde_json::value::to_raw_value(object).expect("an object of values serializes"))
    }
}

impl Default for FreeForm {
    fn default() -> Self {
        Self::from(Object::new())
    }
}

impl PartialEq for FreeForm {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json() || self.to_object() == other.to_object()
    }
}

impl fmt::Debug for FreeForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_json())
    }
}

impl Serialize for FreeForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FreeForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        check_free_form(&raw)?;
        // Scanning the text did not check the range of numbers, the depth, and whether strings are valid.
        serde_json::from_str::<Object>(raw.get())
            .map(|_| Self(raw))
            .map_err(|error| de::Error::custom(without_position(&error)))
    }
}

/// The document with Python's `NaN`, `Infinity` and `-Infinity` replaced by null; `None` if it has none outside of strings.
pub(crate) fn without_infinities(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some(at) = rest.find(['"', 'N', 'I']) {
        let (before, here) = rest.split_at(at);
        if here.starts_with('"') {
            let end = end_of_string(here);
            out.push_str(before);
            out.push_str(&here[..end]);
            rest = &here[end..];
        } else if let Some(after) = here.strip_prefix("NaN").or_else(|| here.strip_prefix("Infinity")) {
            out.push_str(before.strip_suffix('-').unwrap_or(before));
            out.push_str("null");
            rest = after;
            found = true;
        } else {
            return None;
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

/// The offset after the closing quote of the string that `text` begins with, or of the end of `text`.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Reads a part of a document that is parsed to values; refused beyond [`FREE_FORM_LIMIT`].
pub(crate) fn bounded<'de, T: de::DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    check_free_form(&raw)?;
    decode_str(raw.get()).map_err(de::Error::custom)
}

fn check_free_form<E: de::Error>(raw: &RawValue) -> Result<(), E> {
    let size = raw.get().len();
    if size > FREE_FORM_LIMIT {
        return Err(E::custom(format_args!("{size} bytes exceed the limit of {FREE_FORM_LIMIT}")));
    }
    Ok(())
}

/// Reads a list whose entries take more memory than their text (an empty string has two bytes there); refused beyond
/// [`LIST_LIMIT`].
pub(crate) fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Items<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == LIST_LIMIT {
                    return Err(de::Error::custom(format_args!("more than {LIST_LIMIT} items")));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_seq(Items(PhantomData))
}

/// The same for a list or null.
pub(crate) fn list_or_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    struct Items<T>(Vec<T>);

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Items<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            list(deserializer).map(Self)
        }
    }

    Ok(Option::<Items<T>>::deserialize(deserializer)?.map(|items| items.0))
}

/// For a member whose null means something other than its absence: null becomes `Some(Null)`.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
