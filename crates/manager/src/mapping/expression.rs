//! Mappers of the type `expression_identity_mapping`: each mapping compares a text made of an identity's properties with a
//! pattern, and makes the name of a local user from both.

use std::time::Instant;

use serde_json::Value;
use wire::json::Object;

use super::error::{MapperError, MappingError, Place, Warning};
use super::interpolation::Interpolation;
use super::pattern::Pattern;
use super::{Hits, identity_id, text_member};

/// The maximum number of names that one mapper offers for one person.
const NAMES_LIMIT: usize = 100;

/// The identities with one of these states are the person's own; others were never logged in with.
const USABLE: [&str; 2] = ["used", "private"];

#[derive(Debug)]
pub(super) struct ExpressionMapper {
    mappings: Vec<ExpressionMapping>,
}

#[derive(Debug)]
struct ExpressionMapping {
    source: Interpolation,
    pattern: Pattern,
    output: Interpolation,
}

impl ExpressionMapper {
    /// Reads a mapper from its entry in the mapping file, the `index`th.
    pub(super) fn parse(
        entry: &Object,
        index: usize,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, MappingError> {
        let whole = Place { index, mapping: None };
        let mappings = match entry.get("mappings") {
            Some(Value::Array(mappings)) => mappings,
            Some(_) => return Err(MappingError::Type { place: whole, key: "mappings", expected: "a list" }),
            None => return Err(MappingError::Missing { place: whole, key: "mappings" }),
        };
        let parse = |(mapping, value): (usize, &Value)| {
            ExpressionMapping::parse(value, Place { index, mapping: Some(mapping) }, warnings)
        };
        Ok(Self { mappings: mappings.iter().enumerate().map(parse).collect::<Result<_, _>>()? })
    }

    /// How many mappings it has, and how many of them need a regular expression.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.mappings.len(), self.mappings.iter().filter(|it| !it.pattern.is_text()).count())
    }

    /// What each mapping makes of the identities that a person uses. An error in one mapping fails all of them.
    pub(super) fn map_all(&self, identities: &[Object], deadline: Instant) -> Result<Vec<Hits>, MapperError> {
        let mut names = 0;
        let mut results = Vec::with_capacity(self.mappings.len());
        for mapping in &self.mappings {
            let mut hits = Hits::default();
            for identity in identities {
                if Instant::now() > deadline {
                    return Err(MapperError::OutOfTime);
                }
                if !identity.get("status").and_then(Value::as_str).is_some_and(|it| USABLE.contains(&it)) {
                    continue;
                }
                if let Some(name) = mapping.apply(identity)? {
                    names += 1;
                    if names > NAMES_LIMIT {
                        return Err(MapperError::TooManyNames(NAMES_LIMIT));
                    }
                    hits.add(identity_id(identity)?, name);
                }
            }
            results.push(hits);
        }
        Ok(results)
    }

    /// What the first mapping that matches makes of one identity, whatever its state.
    pub(super) fn map_one(&self, identity: &Object) -> Result<Option<String>, MapperError> {
        self.mappings.iter().find_map(|mapping| mapping.apply(identity).transpose()).transpose()
    }
}

impl ExpressionMapping {
    fn parse(value: &Value, place: Place, warnings: &mut Vec<Warning>) -> Result<Self, MappingError> {
        let Value::Object(object) = value else {
            return Err(MappingError::Type { place, key: "mappings", expected: "a list of objects" });
        };
        let flag = |key: &'static str| match object.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(MappingError::Type { place, key, expected: "true or false" }),
        };
        let source = text_member(object, "source", place)?;
        let text = text_member(object, "match", place)?;
        let output = text_member(object, "output", place)?;
        let ignore_case = flag("ignore_case")?;
        let pattern = if flag("literal")? {
            Pattern::literal(text, ignore_case)
        } else {
            Pattern::parse(text, ignore_case)
        };
        let pattern =
            pattern.map_err(|problem| MappingError::Pattern { place, pattern: text.to_owned(), problem })?;
        if pattern.alternatives {
            warnings.push(Warning::Alternatives { place, pattern: text.to_owned() });
        }
        Ok(Self { source: Interpolation::parse(source), pattern, output: Interpolation::parse(output) })
    }

    fn apply(&self, identity: &Object) -> Result<Option<String>, MapperError> {
        let source = self.source.fill(identity, &[])?;
        match self.pattern.groups(&source)? {
            Some(groups) => Ok(Some(self.output.fill(identity, &groups)?)),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn mapper(mappings: Value) -> ExpressionMapper {
        let Value::Object(entry) = json!({ "mappings": mappings }) else { unreachable!() };
        ExpressionMapper::parse(&entry, 0, &mut Vec::new()).unwrap()
    }

    fn people(count: usize, status: &str) -> Vec<Object> {
        let person = |n: usize| {
            Object::from_iter([
                ("id".to_owned(), format!("00000000-0000-4444-8888-{n:012}").into()),
                ("username".to_owned(), format!("user{n}@example.com").into()),
                ("status".to_owned(), status.into()),
            ])
        };
        (0..count).map(person).collect()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn only_identities_that_are_used_are_mapped() {
        let mapper = mapper(json!([{"source": "{username}", "match": "(.*)@example.com", "output": "{0}"}]));
        for (status, hits) in [("used", 2), ("private", 2), ("unused", 0), ("closed", 0), ("", 0)] {
            let results = mapper.map_all(&people(2, status), soon()).unwrap();
            assert_eq!(results[0].0.len(), hits, "{status}");
        }
        let mut without = people(1, "used");
        without[0].remove("status");
        assert!(mapper.map_all(&without, soon()).unwrap()[0].0.is_empty());
        assert_eq!(mapper.map_one(&without[0]).unwrap().as_deref(), Some("user0"));
    }

    #[test]
    fn one_error_fails_the_mapper() {
        let mapper = mapper(json!([
            {"source": "{username}", "match": "(.*)@example.com", "output": "{0}"},
            {"source": "{organization}", "match": "x", "output": "x"},
        ]));
        let error = mapper.map_all(&people(1, "used"), soon()).unwrap_err();
        assert_eq!(error.to_string(), "Missing identity property organization");
    }

    #[test]
    fn a_person_gets_no_endless_list_of_names() {
        let mapper = mapper(json!([{"source": "{username}", "match": ".*", "output": "x"}]));
        assert!(mapper.map_all(&people(NAMES_LIMIT, "used"), soon()).is_ok());
        let error = mapper.map_all(&people(NAMES_LIMIT + 1, "used"), soon()).unwrap_err();
        assert!(matches!(error, MapperError::TooManyNames(_)));
    }

    #[test]
    fn the_time_is_limited() {
        let mapper = mapper(json!([{"source": "{username}", "match": ".*", "output": "x"}]));
        let error =
            mapper.map_all(&people(1, "used"), Instant::now() - Duration::from_millis(1)).unwrap_err();
        assert!(matches!(error, MapperError::OutOfTime));
    }
}
