//! Parses YAML into a tree whose nodes know their position, so that errors can point at it.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value and its position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// A line and a column, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Position {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) at: Position,
    pub(crate) key: String,
    pub(crate) node: Node,
}

/// Parses one document. The error's text contains an excerpt with a caret.
pub(crate) fn read(text: &str) -> Result<Node, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

impl Node {
    /// Whether it is a mapping with this key, whatever its value.
    pub(crate) fn has_key(&self, key: &str) -> bool {
        matches!(&self.value, Value::Map(entries) if entries.iter().any(|entry| entry.key == key))
    }

    /// The value as JSON. Keys whose value is null are left out: they count as not given.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.as_str().into(),
            Value::List(values) => values.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                let given = entries.iter().filter(|entry| entry.node.value != Value::Null);
                given.map(|entry| (entry.key.clone(), entry.node.to_json())).collect()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { at: Position::of(&spanned.referenced), value: spanned.value })
    }
}

impl Position {
    fn of(location: &serde_saphyr::Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        #[allow(
            clippy::cast_precision_loss,
            reason = "beyond what fits, a number is only ever read as a float"
        )]
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, node)) = entries.next_entry::<Spanned<String>, Node>()? {
            map.push(Entry { at: Position::of(&key.referenced), key: key.value, node });
        }
        Ok(Value::Map(map))
    }
}

/// The line at a position, with a caret below it.
pub(crate) fn excerpt(file: &str, text: &str, at: Position) -> String {
    let line = usize::try_from(at.line).ok().and_then(|line| text.lines().nth(line.checked_sub(1)?));
    let Some(line) = line else { return format!("  --> {file}") };
    let number = at.line.to_string();
    let margin = " ".repeat(number.len());
    let before = usize::try_from(at.column.saturating_sub(1)).unwrap_or_default();
    let width =
        line.chars().skip(before).take_while(|letter| !letter.is_whitespace() && *letter != ':').count();
    format!(
        "{margin}--> {file}:{number}:{}\n{margin} |\n{number} | {line}\n{margin} | {}{}",
        at.column,
        " ".repeat(before),
        "^".repeat(width.max(1))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(node: &Node) -> Vec<(&str, Position, &Value)> {
        match &node.value {
            Value::Map(entries) => {
                entries.iter().map(|it| (it.key.as_str(), it.at, &it.node.value)).collect()
            }
            other => panic!("no mapping: {other:?}"),
        }
    }

    #[test]
    fn every_value_has_its_position() {
        let text = "a: null\nb: yes\nc: 3\nd: 1.5\ne: 10:30:00\nf: [x, 0755]\ng:\n  h: ~\n  i: '5'\n";
        let node = read(text).unwrap();
        let at = |line, column| Position { line, column };
        let found = map(&node);
        assert_eq!(found[0], ("a", at(1, 1), &Value::Null));
        assert_eq!(found[1], ("b", at(2, 1), &Value::Bool(true)));
        assert_eq!(found[2], ("c", at(3, 1), &Value::Int(3)));
        assert_eq!(found[3], ("d", at(4, 1), &Value::Float(1.5)));
        assert_eq!(found[4], ("e", at(5, 1), &Value::Text("10:30:00".into())));
        let Value::List(list) = found[5].2 else { panic!("{:?}", found[5]) };
        assert_eq!((list[0].at, &list[0].value), (at(6, 5), &Value::Text("x".into())));
        assert_eq!(list[1].value, Value::Int(493));
        let Value::Map(inner) = found[6].2 else { panic!("{:?}", found[6]) };
        assert_eq!((inner[1].at, inner[1].node.at), (at(9, 3), at(9, 6)));
        assert_eq!(inner[1].node.value, Value::Text("5".into()));
        assert_eq!(
            node.to_json(),
            serde_json::json!({"b": true, "c": 3, "d": 1.5, "e": "10:30:00", "f": ["x", 493], "g": {"i": "5"}})
        );
    }

    #[test]
    fn an_empty_document_is_null_and_an_invalid_one_an_error() {
        assert_eq!(read("").unwrap().value, Value::Null);
        assert!(read("a: [").is_err());
        assert!(read("a: 1\na: 2").is_err(), "the same key twice");
    }

    #[test]
    fn the_caret_is_below_the_word() {
        let shown = excerpt("config.yaml", "a: 1\n  foo: 2\n", Position { line: 2, column: 3 });
        assert_eq!(shown, " --> config.yaml:2:3\n  |\n2 |   foo: 2\n  |   ^^^");
        assert_eq!(excerpt("f", "", Position::default()), "  --> f");
    }
}
