//! Texts with references: `{username}` to a property of an identity, `{0}` to what a group of the pattern matched.
//!
//! A text is divided into its parts once, when the mapping is loaded. What is put in for a reference is never searched for
//! references again: it comes from a stranger.

use serde_json::Value;
use wire::json::Object;

use crate::printable::escaped;

/// The maximum size of a text after its references were replaced, in bytes.
pub(super) const TEXT_LIMIT: usize = 4096;

/// Why a reference can't be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterpolationError {
    #[error("Missing identity property {}", escaped(.0))]
    Missing(String),
    #[error("Identity property {} is not text", escaped(.0))]
    NotText(String),
    #[error("A text exceeds {TEXT_LIMIT} bytes after its references were replaced")]
    TooLong,
}

/// A text with references.
#[derive(Debug)]
pub(super) struct Interpolation(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Reference(String),
}

impl Interpolation {
    /// Divides a text into its parts. Every text is valid: a brace without its counterpart stands for itself.
    ///
    /// A brace after an odd number of backslashes begins no reference. The backslashes stay in the text either way.
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        // Where the text begins that belongs to no part so far, and whether the next character is escaped.
        let mut rest = 0;
        let mut escaped = false;
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            let end = at + c.len_utf8();
            if c == '{' && !escaped {
                let Some(length) = text[end..].find('}') else { break };
                if at > rest {
                    parts.push(Part::Text(text[rest..at].to_owned()));
                }
                parts.push(Part::Reference(text[end..end + length].to_owned()));
                at = end + length + 1;
                rest = at;
                escaped = false;
                continue;
            }
            escaped = c == '\\' && !escaped;
            at = end;
        }
        if rest < text.len() {
            parts.push(Part::Text(text[rest..].to_owned()));
        }
        Self(parts)
    }

    /// The text with every reference replaced. A group that took no part in the match is `None`.
    pub(super) fn fill(
        &self,
        identity: &Object,
        groups: &[Option<&str>],
    ) -> Result<String, InterpolationError> {
        let mut filled = String::new();
        for part in &self.0 {
            filled.push_str(match part {
                Part::Text(text) => text,
                Part::Reference(name) => resolve(name, identity, groups)?,
            });
            if filled.len() > TEXT_LIMIT {
                return Err(InterpolationError::TooLong);
            }
        }
        Ok(filled)
    }
}

fn resolve<'a>(
    name: &str,
    identity: &'a Object,
    groups: &[Option<&'a str>],
) -> Result<&'a str, InterpolationError> {
    let missing = || InterpolationError::Missing(name.to_owned());
    if let Some(number) = number(name) {
        // Negative numbers count from the last group, as in Python.
        let count = i64::try_from(groups.len()).unwrap_or(i64::MAX);
        let index = if number < 0 { number.saturating_add(count) } else { number };
        if index < 0 {
            return Err(missing());
        }
        if let Some(group) = usize::try_from(index).ok().and_then(|index| groups.get(index)) {
            return group.ok_or_else(missing);
        }
    }
    match identity.get(name) {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Err(missing()),
        Some(_) => Err(InterpolationError::NotText(name.to_owned())),
    }
}

/// The number of a group, in the spellings of Python's `int`: blanks around it, a sign, underscores between digits.
fn number(name: &str) -> Option<i64> {
    let name = name.trim();
    let digits = name.strip_prefix(['+', '-']).unwrap_or(name);
    if digits.is_empty()
        || !digits.split('_').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    {
        return None;
    }
    // A number that is too large is no group's.
    let value = digits.replace('_', "").parse().unwrap_or(i64::MAX);
    Some(if name.starts_with('-') { -value } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn identity() -> Object {
        let Value::Object(object) = json!({"a": "A", "b": "{a}", "n": null, "7": "seven", "i": 5}) else {
            unreachable!()
        };
        object
    }

    #[test]
    fn references_are_replaced() {
        let groups = [Some("first"), None, Some("{0}")];
        let cases = [
            ("", Ok("")),
            ("plain", Ok("plain")),
            ("{a}", Ok("A")),
            ("x{a}y{0}z", Ok("xAyfirstz")),
            ("{0}{2}", Ok("first{0}")),
            ("{b}{a}", Ok("{a}A")),
            ("{-1}", Ok("{0}")),
            ("{+0}{ 0 }{0_0}", Ok("firstfirstfirst")),
            ("{7}", Ok("seven")),
            (r"\{a}", Ok(r"\{a}")),
            (r"\\{a}", Ok(r"\\A")),
            (r"\\\{a}{a}", Ok(r"\\\{a}A")),
            ("{a", Ok("{a")),
            ("a}", Ok("a}")),
            ("{1}", Err("Missing identity property 1")),
            ("{3}", Err("Missing identity property 3")),
            ("{-4}", Err("Missing identity property -4")),
            ("{n}", Err("Missing identity property n")),
            ("{}", Err("Missing identity property ")),
            ("{x{a}", Err("Missing identity property x{a")),
            ("{i}", Err("Identity property i is not text")),
        ];
        for (text, expected) in cases {
            let filled =
                Interpolation::parse(text).fill(&identity(), &groups).map_err(|error| error.to_string());
            assert_eq!(filled.as_deref().map_err(String::as_str), expected, "{text}");
        }
    }

    #[test]
    fn a_text_does_not_grow_without_bound() {
        let long = Object::from_iter([("a".to_owned(), "x".repeat(1000).into())]);
        assert!(Interpolation::parse(&"{a}".repeat(4)).fill(&long, &[]).is_ok());
        assert!(matches!(
            Interpolation::parse(&"{a}".repeat(5)).fill(&long, &[]),
            Err(InterpolationError::TooLong)
        ));
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole_text(text in r"[a\\{}é\n]{0,30}") {
            let parts = Interpolation::parse(&text).0;
            let again: String = parts.iter().map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Reference(name) => format!("{{{name}}}"),
            }).collect();
            prop_assert_eq!(again, text);
        }

        #[test]
        fn what_a_stranger_sends_is_put_in_as_it_is(value in "\\PC{0,40}") {
            let identity = Object::from_iter([("a".to_owned(), value.clone().into())]);
            let filled = Interpolation::parse("<{a}{0}>").fill(&identity, &[Some(&value)]).unwrap();
            prop_assert_eq!(filled, format!("<{value}{value}>"));
        }
    }
}
