//! Framing of serialized buffers: `<length>\n<buffer>`, one after the other.
//!
//! **Lengths count characters, not bytes**: they are Python's `len` of a `str`.
//!
//! Upstream has two readers, and so has this module. A task is read leniently ([`split_task`]): a length beyond the
//! end means the rest of the text. Composite strategies are read strictly ([`split`]): such a length is an error.

use crate::json_text::Text;
use crate::serialization_strategy::Strategy;

/// A function, its arguments, its keyword arguments.
pub const BUFFERS_OF_A_TASK: usize = 3;

/// Why packed buffers can't be split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("buffer {index}: no newline after the length")]
    NoNewline { index: usize },
    #[error("buffer {index}: {text:?} is not a length")]
    NotALength { index: usize, text: String },
    #[error("buffer {index}: {length} characters announced, {present} present")]
    Truncated { index: usize, length: usize, present: usize },
    #[error("expected {BUFFERS_OF_A_TASK} buffers, got {0}")]
    WrongCount(usize),
}

/// The buffers of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    pub function: &'a str,
    pub args: &'a str,
    pub kwargs: &'a str,
}

/// Packs serialized buffers.
pub fn pack(buffers: &[&str]) -> String {
    let mut out = String::with_capacity(buffers.iter().map(|buffer| buffer.len() + 12).sum());
    for buffer in buffers {
        push(&mut out, buffer);
    }
    out
}

fn push(out: &mut String, buffer: &str) {
    out.push_str(&buffer.chars().count().to_string());
    out.push('\n');
    out.push_str(buffer);
}

/// Splits packed buffers, strictly.
pub fn split(packed: &str) -> Result<Vec<&str>, FramingError> {
    Frames::new(packed, Beyond::Refuse).collect()
}

/// Splits a task buffer as upstream's workers do: a length beyond the end means the rest of the text.
pub fn split_task(task_buffer: &str) -> Result<Call<'_>, FramingError> {
    let mut count = 0;
    let mut buffers = [""; BUFFERS_OF_A_TASK];
    for frame in Frames::new(task_buffer, Beyond::Take) {
        let frame = frame?;
        if let Some(place) = buffers.get_mut(count) {
            *place = frame;
        }
        count += 1;
    }
    match buffers {
        [function, args, kwargs] if count == BUFFERS_OF_A_TASK => Ok(Call { function, args, kwargs }),
        _ => Err(FramingError::WrongCount(count)),
    }
}

/// The buffer that a worker gets: the function's code as it was registered, then the packed arguments of one call.
pub fn task_buffer(function_code: &Text<'_>, payload: &Text<'_>) -> Text<'static> {
    function_code.concat(payload)
}

/// The code of a function that was registered as raw Python source.
pub fn from_source(name: &str, source: &str) -> String {
    let buffer = format!("{}\n{name}:{source}", Strategy::PureSourceTextInspect.identifier());
    pack(&[&buffer])
}

/// How to handle a length beyond the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beyond {
    Refuse,
    Take,
}

struct Frames<'a> {
    rest: &'a str,
    index: usize,
    beyond: Beyond,
}

impl<'a> Frames<'a> {
    fn new(packed: &'a str, beyond: Beyond) -> Self {
        Self { rest: packed, index: 0, beyond }
    }

    fn take(&mut self) -> Result<&'a str, FramingError> {
        let index = self.index;
        let (digits, rest) = self.rest.split_once('\n').ok_or(FramingError::NoNewline { index })?;
        let length = length(digits)
            .ok_or_else(|| FramingError::NotALength { index, text: digits.chars().take(50).collect() })?;
        let end = match end_of(rest, length) {
            Ok(end) => end,
            Err(_) if self.beyond == Beyond::Take => rest.len(),
            Err(present) => return Err(FramingError::Truncated { index, length, present }),
        };
        let (frame, rest) = rest.split_at(end);
        self.rest = rest;
        self.index += 1;
        Ok(frame)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a str, FramingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let frame = self.take();
        if frame.is_err() {
            self.rest = "";
        }
        Some(frame)
    }
}

/// The byte offset at which the first `characters` of `text` end. The error is the number of characters, if there are fewer.
fn end_of(text: &str, characters: usize) -> Result<usize, usize> {
    // Most payloads are base64: in ASCII, characters are bytes.
    if let Some(head) = text.as_bytes().get(..characters)
        && head.is_ascii()
    {
        return Ok(characters);
    }
    let mut seen = 0;
    for (at, _) in text.char_indices() {
        if seen == characters {
            return Ok(at);
        }
        seen += 1;
    }
    if seen == characters { Ok(text.len()) } else { Err(seen) }
}

fn length(digits: &str) -> Option<usize> {
    digits.parse().ok()
}
