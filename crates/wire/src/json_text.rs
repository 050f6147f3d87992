//! Long JSON strings (task buffers, results) that are read without a copy and written back as they came.
//!
//! Serialized Python objects are lines of base64, so as JSON strings they contain many `\n`. To pass one on, it need
//! not be unescaped and escaped again: a [`Text`] keeps the string as it was in its document, until its content is
//! needed.
//!
//! A Python string can contain half of a surrogate pair, which is no character (for example in a file name in a traceback).
//! Such a text is passed on unchanged; its content has U+FFFD in that place.
//!
//! A `Text` can be read from and written to JSON only, not by other serde formats.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

/// A string, unescaped or in the escaped form in which it was read. Two are equal if they have the same content.
#[derive(Clone)]
pub struct Text<'a>(Form<'a>);

#[derive(Clone)]
enum Form<'a> {
    Plain(Cow<'a, str>),
    /// A JSON string with its quotes. Its escapes have been checked.
    Escaped(Cow<'a, RawValue>),
}

/// The JSON is not a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a string")]
pub struct NotAString;

impl<'a> Text<'a> {
    pub fn plain(text: impl Into<Cow<'a, str>>) -> Self {
        Self(Form::Plain(text.into()))
    }

    /// From a JSON string with its quotes.
    pub fn from_json(token: &'a str) -> Result<Self, NotAString> {
        serde_json::from_str(token).map_err(|_| NotAString).and_then(Self::from_raw)
    }

    fn from_raw(raw: &'a RawValue) -> Result<Self, NotAString> {
        let token = raw.get();
        let inner = token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(NotAString)?;
        Ok(Self(if inner.contains('\\') {
            Form::Escaped(Cow::Borrowed(raw))
        } else {
            Form::Plain(inner.into())
        }))
    }

    /// The content. It is copied only if there are escapes.
    pub fn to_str(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Plain(text) => Cow::Borrowed(text),
            Form::Escaped(raw) => Cow::Owned(unescape(inside(raw))),
        }
    }

    pub fn into_string(self) -> String {
        match self.0 {
            Form::Plain(text) => text.into_owned(),
            Form::Escaped(raw) => unescape(inside(&raw)),
        }
    }

    /// The same text without a borrow of the document it was read from.
    pub fn into_owned(self) -> Text<'static> {
        Text(match self.0 {
            Form::Plain(text) => Form::Plain(Cow::Owned(text.into_owned())),
            Form::Escaped(raw) => Form::Escaped(Cow::Owned(raw.into_owned())),
        })
    }

    /// The text as a JSON string with its quotes; unchanged if it was read from JSON.
    pub fn to_json(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Escaped(raw) => Cow::Borrowed(raw.get()),
            Form::Plain(text) => {
                let mut out = Vec::with_capacity(text.len() + text.len() / 32 + 8);
                push_json_string(&mut out, text);
                Cow::Owned(String::from_utf8(out).expect("escaping a string leaves UTF-8"))
            }
        }
    }

    /// Appends [`Text::to_json`] to `out`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Escaped(raw) => out.extend_from_slice(raw.get().as_bytes()),
            Form::Plain(text) => push_json_string(out, text),
        }
    }

    /// The bytes that this text takes in memory: at least as many as its content has.
    pub fn held_bytes(&self) -> usize {
        match &self.0 {
            Form::Plain(text) => text.len(),
            Form::Escaped(raw) => raw.get().len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Form::Plain(text) if text.is_empty())
    }

    /// `self` followed by `next`. Escaped text stays escaped.
    pub fn concat(&self, next: &Text<'_>) -> Text<'static> {
        if let (Form::Plain(first), Form::Plain(second)) = (&self.0, &next.0) {
            let mut out = String::with_capacity(first.len() + second.len());
            out.push_str(first);
            out.push_str(second);
            return Text(Form::Plain(Cow::Owned(out)));
        }
        let (first, second) = (self.to_json(), next.to_json());
        let mut out = String::with_capacity(first.len() + second.len());
        out.push_str(&first[..first.len() - 1]);
        out.push_str(&second[1..]);
        let raw = RawValue::from_string(out).expect("two JSON strings joined inside their quotes are one");
        Text(Form::Escaped(Cow::Owned(raw)))
    }
}

fn inside(raw: &RawValue) -> &str {
    let token = raw.get();
    &token[1..token.len() - 1]
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_str(), f)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Text<'_>) -> bool {
        match (&self.0, &other.0) {
            (Form::Escaped(one), Form::Escaped(two)) if one.get() == two.get() => true,
            _ => self.to_str() == other.to_str(),
        }
    }
}

impl Eq for Text<'_> {}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.to_str() == other
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.to_str() == *other
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::plain(text)
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::plain(text)
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Form::Plain(text) => serializer.serialize_str(text),
            Form::Escaped(raw) => raw.serialize(serializer),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?;
        Self::from_raw(raw).map_err(de::Error::custom)
    }
}

/// Appends `text` as a JSON string, with its quotes.
pub(crate) fn push_json_string(out: &mut Vec<u8>, text: &str) {
    // Lines of base64 have one escape in 77 characters.
    out.reserve(text.len() + text.len() / 64 + 8);
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (clean, special) = rest.split_at(next_special(rest));
        out.extend_from_slice(clean);
        let Some((&byte, after)) = special.split_first() else { break };
        push_escape(out, byte);
        rest = after;
    }
    out.push(b'"');
}

/// The place of the first byte that must be escaped in a JSON string: a quote, a backslash or a control character.
fn next_special(bytes: &[u8]) -> usize {
    let (pairs, rest) = bytes.as_chunks::<16>();
    for (index, pair) in pairs.iter().enumerate() {
        let [low, high] = [0, 8].map(|at| special_bytes(&pair[at..at + 8]));
        if low | high != 0 {
            let bit = if low != 0 { low.trailing_zeros() } else { 64 + high.trailing_zeros() };
            return index * 16 + bit as usize / 8;
        }
    }
    let is_special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    pairs.len() * 16 + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// Sets the top bit of each of the eight bytes that must be escaped, by subtractions that borrow there.
///
/// The borrow may also set the bit of bytes above such a byte, never below: only the lowest set bit counts.
fn special_bytes(eight: &[u8]) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(eight.try_into().expect("it is given eight bytes"));
    let zero_in = |word: u64| word.wrapping_sub(EACH) & !word;
    let control = word.wrapping_sub(EACH * 0x20) & !word;
    let quote = zero_in(word ^ (EACH * u64::from(b'"')));
    let backslash = zero_in(word ^ (EACH * u64::from(b'\\')));
    (control | quote | backslash) & (EACH << 7)
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'\n' => b'n',
        b'"' => b'"',
        b'\\' => b'\\',
        b'\t' => b't',
        b'\r' => b'r',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Resolves the escapes in the text between the quotes of a JSON string.
fn unescape(mut rest: &str) -> String {
    let mut out = String::with_capacity(rest.len());
    loop {
        // Between the quotes, the only special byte is a backslash.
        let (clean, escape) = rest.split_at(next_special(rest.as_bytes()));
        out.push_str(clean);
        let Some(after) = escape.get(2..) else { return out };
        rest = after;
        out.push(match escape.as_bytes()[1] {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let (character, after) = unicode_escape(rest);
                rest = after;
                character
            }
            other => char::from(other),
        });
    }
}

/// The character that the digits after a `\u` stand for, and what follows them.
fn unicode_escape(rest: &str) -> (char, &str) {
    let (first, rest) = four_digits(rest);
    if let Some(character) = char::from_u32(first) {
        return (character, rest);
    }
    // Half of a surrogate pair; the other half may follow.
    if let (0xd800..0xdc00, Some(after)) = (first, rest.strip_prefix("\\u")) {
        let (second, after) = four_digits(after);
        if let 0xdc00..0xe000 = second {
            let character = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            return (character.unwrap_or(char::REPLACEMENT_CHARACTER), after);
        }
    }
    (char::REPLACEMENT_CHARACTER, rest)
}

fn four_digits(rest: &str) -> (u32, &str) {
    let (digits, after) = rest.split_at_checked(4).unwrap_or((rest, ""));
    (u32::from_str_radix(digits, 16).unwrap_or(0xd800), after)
}
