//! The text of a schema's error, in the words of Python's `jsonschema`, which users know.

use jsonschema::ValidationError;
use jsonschema::error::TypeKind;
use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::paths::LocationSegment;
use serde_json::Value;

use super::python::{index, pretty, repr, string};

/// How far the values below the message are indented.
const INDENT: usize = 4;

/// The whole text: what is wrong, which part of the schema says so, and the value it is about.
pub(super) fn text(error: &ValidationError<'_>, schema: &Value, options: &Value) -> String {
    // The value at the place that is named; of a member that is not allowed, the object that has it.
    let value = options.pointer(error.instance_path().as_str()).unwrap_or(error.instance());
    let Some((keyword, within)) = place(error, schema) else { return message(error, &Value::Null, value) };
    let path = index("schema", within.iter().map(|(segment, _)| segment.clone()));
    let part = within.last().map_or(schema, |(_, part)| part);
    let message = message(error, part, value);
    let instance = index("instance", error.instance_path().segments());
    let (part, value) = (pretty(part, INDENT), pretty(value, INDENT));
    format!(
        "{message}\n\nFailed validating {} in {path}:\n    {part}\n\nOn {instance}:\n    {value}",
        string(&keyword)
    )
}

type Step<'a> = (LocationSegment<'a>, &'a Value);

/// The keyword that failed, and the way through the schema to the part that has it.
fn place<'a>(error: &'a ValidationError<'_>, schema: &'a Value) -> Option<(String, Vec<Step<'a>>)> {
    let mut segments: Vec<_> = error.schema_path().segments().collect();
    let keyword = segments.pop()?.to_string();
    let mut part = schema;
    let mut steps = Vec::new();
    for segment in segments {
        part = match &segment {
            LocationSegment::Property(name) => part.get(name.as_ref())?,
            LocationSegment::Index(at) => part.get(at)?,
        };
        steps.push((segment, part));
    }
    Some((keyword, steps))
}

/// `part` is the part of the schema that has the failed keyword.
fn message(error: &ValidationError<'_>, part: &Value, instance: &Value) -> String {
    let value = repr(instance);
    match error.kind() {
        Kind::Type { kind } => {
            let types: Vec<_> = match (kind, part.get("type").and_then(Value::as_array)) {
                (_, Some(several)) => several.iter().map(repr).collect(),
                (TypeKind::Single(one), _) => vec![string(one.as_str())],
                (TypeKind::Multiple(several), _) => several.iter().map(|one| string(one.as_str())).collect(),
            };
            format!("{value} is not of type {}", types.join(", "))
        }
        Kind::Enum { options } => format!("{value} is not one of {}", repr(options)),
        Kind::Constant { expected_value } => format!("{} was expected", repr(expected_value)),
        Kind::AdditionalProperties { unexpected } => unexpected_members("Additional", unexpected.iter()),
        Kind::UnevaluatedProperties { unexpected } => unexpected_members("Unevaluated", unexpected.iter()),
        Kind::Required { property } if part.get("dependentRequired").is_some() => {
            let rules = part.get("dependentRequired").and_then(Value::as_object);
            let wants = |(name, needs): &(&String, &Value)| {
                instance.get(name.as_str()).is_some()
                    && needs.as_array().is_some_and(|needs| needs.contains(property))
            };
            let of = rules.into_iter().flatten().find(wants).map(|(name, _)| name.as_str());
            format!("{} is a dependency of {}", repr(property), string(of.unwrap_or_default()))
        }
        Kind::Required { property } => format!("{} is a required property", repr(property)),
        Kind::Minimum { limit } => format!("{value} is less than the minimum of {}", repr(limit)),
        Kind::Maximum { limit } => format!("{value} is greater than the maximum of {}", repr(limit)),
        Kind::ExclusiveMinimum { limit } => {
            format!("{value} is less than or equal to the minimum of {}", repr(limit))
        }
        Kind::ExclusiveMaximum { limit } => {
            format!("{value} is greater than or equal to the maximum of {}", repr(limit))
        }
        Kind::MultipleOf { multiple_of } => format!("{value} is not a multiple of {multiple_of}"),
        Kind::MinLength { limit: 1 } | Kind::MinItems { limit: 1 } | Kind::MinProperties { limit: 1 } => {
            format!("{value} should be non-empty")
        }
        Kind::MinLength { .. } | Kind::MinItems { .. } => format!("{value} is too short"),
        Kind::MaxItems { limit: 0 } => format!("{value} is expected to be empty"),
        Kind::MaxLength { .. } | Kind::MaxItems { .. } => format!("{value} is too long"),
        Kind::MinProperties { .. } => format!("{value} does not have enough properties"),
        Kind::MaxProperties { .. } => format!("{value} has too many properties"),
        Kind::Pattern { pattern } => format!("{value} does not match {}", string(pattern)),
        Kind::UniqueItems => format!("{value} has non-unique elements"),
        Kind::Contains => format!("{value} does not contain items matching the given schema"),
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => {
            format!("{value} is not valid under any of the given schemas")
        }
        Kind::OneOfMultipleValid { context } => {
            let branches = part.get("oneOf").and_then(Value::as_array).into_iter().flatten().zip(context);
            let mut valid: Vec<_> =
                branches.filter(|(_, errors)| errors.is_empty()).map(|(branch, _)| repr(branch)).collect();
            if !valid.is_empty() {
                valid.rotate_left(1);
            }
            format!("{value} is valid under each of {}", valid.join(", "))
        }
        Kind::Not { schema } => format!("{value} should not be valid under {}", repr(schema)),
        Kind::FalseSchema
            if part.get("additionalProperties") == Some(&Value::Bool(false)) && instance.is_object() =>
        {
            unexpected_members("Additional", instance.as_object().into_iter().flatten().map(|(name, _)| name))
        }
        Kind::FalseSchema => format!("False schema does not allow {value}"),
        Kind::PropertyNames { error } => message(error, &Value::Null, error.instance()),
        Kind::AdditionalItems { .. } => "Expected fewer items".to_owned(),
        // Others can't be raised by what is in the options, or have no counterpart.
        _ => error.to_string().chars().take(1_000).collect(),
    }
}

fn unexpected_members<'a>(word: &str, names: impl Iterator<Item = &'a String>) -> String {
    let mut names: Vec<_> = names.take(20).map(|name| string(name)).collect();
    names.sort();
    let verb = if names.len() == 1 { "was" } else { "were" };
    format!("{word} properties are not allowed ({} {verb} unexpected)", names.join(", "))
}
