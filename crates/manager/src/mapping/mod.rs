//! Identity mapping: from the identities of a person to the name of a local user.
//!
//! ```text
//! mapping file ──parse──► Mapping: mappers in order ──evaluate(identities)──► each mapper's candidates
//!                                                                              └─ the first is the local user
//! ```
//!
//! | module | contains |
//! |---|---|
//! | [`expression`], [`pattern`], [`interpolation`] | mappers that compare an identity's properties with patterns |
//! | [`external`], [`program`], [`answer`] | mappers that ask a program of the administrator |
//! | [`name`] | names that nobody may be mapped to |
//! | [`error`] | what is wrong with a file, a mapper or an answer |
//! | [`watch`] | reads the file again when it changes |
//! | [`validate`] | what `globus-idm-validator` says about a file |
//!
//! The mapping file is the administrator's; the identities are strangers'. A mapper that fails offers nobody. This module
//! never looks up a user, and starts no program but those that the mapping file names.

pub mod answer;
mod error;
mod expression;
mod external;
mod interpolation;
pub mod name;
mod pattern;
mod program;
pub mod validate;
pub mod watch;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use serde_json::Value;
use wire::json::{self, Object};
use wire::start_document::LinkedIdentity;
use wire::{EndpointId, IdentityId};

use crate::printable::escaped;
pub use error::{MapperError, MappingError, Place, Warning};
use expression::ExpressionMapper;
pub use external::EXTERNAL_LIMIT;
use external::ExternalMapper;
use interpolation::InterpolationError;
use name::NameProblem;
pub use pattern::PatternError;

/// The maximum size of a mapping file, in bytes.
pub const FILE_LIMIT: usize = 4 << 20;
/// The maximum number of mappers in a file.
const MAPPERS_LIMIT: usize = 32;
/// The maximum number of mappings in all expression mappers of a file, and of those that need a regular expression.
const MAPPINGS_LIMIT: usize = 20_000;
const EXPRESSIONS_LIMIT: usize = 1_000;
/// The maximum number of warnings about a file that are told one by one.
const WARNINGS_LIMIT: usize = 20;
/// The maximum number of identities that are considered of one person.
const IDENTITIES_LIMIT: usize = 256;
/// How long all mappers together may take for one person.
const EVALUATION_LIMIT: Duration = Duration::from_secs(20);
/// The maximum size of all candidates, in bytes: they travel with each heartbeat of the user endpoint.
const CANDIDATES_LIMIT: usize = 256 << 10;

/// The connector that external programs are told: POSIX.
pub const POSIX_CONNECTOR: &str = "145812c8-decc-41f1-83cf-bb2a85a2a70b";

/// What external programs are told besides the identities.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The argument of `-c`.
    pub connector: String,
    /// The argument of `-s`: the manager's id.
    pub gateway: String,
}

impl Settings {
    pub fn of_manager(manager: EndpointId) -> Self {
        Self { connector: POSIX_CONNECTOR.to_owned(), gateway: manager.to_string() }
    }
}

/// The names that one mapping offers, by identity, in the order of the identities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hits(pub Vec<(String, Vec<String>)>);

impl Hits {
    fn add(&mut self, identity: &str, name: String) {
        match self.0.iter_mut().find(|(known, _)| known == identity) {
            Some((_, names)) => names.push(name),
            None => self.0.push((identity.to_owned(), vec![name])),
        }
    }

    fn size(&self) -> usize {
        self.0.iter().map(|(id, names)| id.len() + names.iter().map(|it| it.len() + 8).sum::<usize>()).sum()
    }
}

impl Serialize for Hits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(identity, names)| (identity, names)))
    }
}

#[derive(Debug)]
enum Mapper {
    Expression(ExpressionMapper),
    External(ExternalMapper),
}

impl Mapper {
    /// The name of upstream's class, as administrators know it from the log.
    fn class(&self) -> &'static str {
        match self {
            Self::Expression(_) => "ExpressionIdentityMapping",
            Self::External(_) => "ExternalIdentityMapping",
        }
    }

    fn map_all(&self, identities: &[Object], deadline: Instant) -> Result<Vec<Hits>, MapperError> {
        match self {
            Self::Expression(mapper) => mapper.map_all(identities, deadline),
            Self::External(mapper) => mapper.map_all(identities, deadline),
        }
    }

    fn map_one(&self, identity: &Object, deadline: Instant) -> Result<Option<String>, MapperError> {
        match self {
            Self::Expression(mapper) => mapper.map_one(identity),
            Self::External(mapper) => mapper.map_one(identity, deadline),
        }
    }
}

/// A mapping file, ready to be evaluated.
#[derive(Debug)]
pub struct Mapping {
    mappers: Vec<Mapper>,
}

/// A person's local user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    pub identity: IdentityId,
    pub local_user: String,
}

/// The mapping yields a local user that nobody may be mapped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub identity: String,
    /// The name, shortened and without control characters.
    pub local_user: String,
    pub problem: NameProblem,
}

/// What a mapping says about a person.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// What each mapper offers, in the order of the mappers: one entry for each of its mappings that matches.
    pub candidates: Vec<Vec<Hits>>,
    /// The first candidate. `None`: nobody, or `refused`.
    pub matched: Option<Matched>,
    /// The first candidate, if nobody may be mapped to that name. Later candidates don't take its place.
    pub refused: Option<Refused>,
    /// For the log.
    pub warnings: Vec<String>,
}

impl Evaluation {
    /// The candidates as user endpoints send them in heartbeats.
    pub fn candidates_json(&self) -> Value {
        serde_json::to_value(&self.candidates).unwrap_or_default()
    }

    fn refuse(&mut self, identity: &str, local_user: &str, problem: NameProblem) {
        let (identity, local_user) = (escaped(identity), escaped(local_user));
        self.warnings
            .push(format!("Identity {identity} is mapped to '{local_user}', which is refused: {problem}"));
        self.refused = Some(Refused { identity, local_user, problem });
    }
}

impl Mapping {
    /// Reads a mapping file.
    pub fn parse(text: &[u8], settings: &Settings) -> Result<(Self, Vec<Warning>), MappingError> {
        let entries = match json::decode::<Value>(text, FILE_LIMIT)? {
            Value::Array(entries) => entries,
            Value::Null => Vec::new(),
            Value::Object(object) if object.is_empty() => Vec::new(),
            _ => return Err(MappingError::NotAList),
        };
        within("mappers", entries.len(), MAPPERS_LIMIT)?;
        let mut warnings = Vec::new();
        let mut mappers = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            mappers.extend(parse_mapper(entry, index, settings, &mut warnings)?);
        }
        let sizes = mappers.iter().filter_map(|mapper| match mapper {
            Mapper::Expression(mapper) => Some(mapper.size()),
            Mapper::External(_) => None,
        });
        let (mappings, expressions) = sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1));
        within("mappings", mappings, MAPPINGS_LIMIT)?;
        within("mappings with a pattern that is no plain text", expressions, EXPRESSIONS_LIMIT)?;
        if mappers.is_empty() {
            warnings.push(Warning::NoMapper);
        }
        if let Some(more @ 1..) = warnings.len().checked_sub(WARNINGS_LIMIT) {
            warnings.truncate(WARNINGS_LIMIT);
            warnings.push(Warning::More(more));
        }
        Ok((Self { mappers }, warnings))
    }

    /// The programs that the mapping runs, and the files that it runs them with.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &Path> {
        self.mappers
            .iter()
            .flat_map(|mapper| match mapper {
                Mapper::Expression(_) => &[],
                Mapper::External(external) => external.command(),
            })
            .map(Path::new)
            .filter(|word| word.is_absolute())
    }

    /// Asks every mapper about a person; the first candidate of the first mapper that has one is the local user.
    ///
    /// Blocks while external programs run: at most [`EXTERNAL_LIMIT`] each, and 20 s together.
    pub fn evaluate(&self, identities: &[LinkedIdentity]) -> Evaluation {
        let whole = |it: &LinkedIdentity| {
            let mut identity = it.rest.clone();
            identity.insert("sub".to_owned(), it.sub.to_string().into());
            identity
        };
        self.evaluate_objects(&identities.iter().map(whole).collect::<Vec<_>>())
    }

    fn evaluate_objects(&self, identities: &[Object]) -> Evaluation {
        let mut evaluation = Evaluation::default();
        if identities.len() > IDENTITIES_LIMIT {
            let text =
                format!("{} identities are more than {IDENTITIES_LIMIT}: nobody is mapped", identities.len());
            evaluation.warnings.push(text);
            return evaluation;
        }
        let deadline = Instant::now() + EVALUATION_LIMIT;
        for (mapper, index) in self.mappers.iter().zip(1..) {
            let hits = mapper.map_all(identities, deadline).unwrap_or_else(|error| {
                evaluation.warnings.push(format!(
                    "Identity mapper {index} [of {}] ({}) failed -- ({}) {error}",
                    self.mappers.len(),
                    mapper.class(),
                    error.exception(),
                ));
                Vec::new()
            });
            evaluation.candidates.push(hits.into_iter().filter(|it| !it.0.is_empty()).collect());
        }
        choose(&mut evaluation);
        shorten(&mut evaluation);
        evaluation
    }
}

fn parse_mapper(
    entry: &Value,
    index: usize,
    settings: &Settings,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Mapper>, MappingError> {
    let place = Place { index, mapping: None };
    let Value::Object(entry) = entry else { return Err(MappingError::NotAnObject(place)) };
    let data_type = match entry.get("DATA_TYPE") {
        Some(Value::String(data_type)) if !data_type.is_empty() => data_type.as_str(),
        _ => return Err(MappingError::NoDataType(place)),
    };
    let supported = match data_type.split('#').next() {
        Some("expression_identity_mapping") => "expression_identity_mapping#1.0.0",
        Some("external_identity_mapping") => "external_identity_mapping#1.0.0",
        _ => {
            warnings.push(Warning::UnknownDataType { place, data_type: data_type.to_owned() });
            return Ok(None);
        }
    };
    if data_type != supported {
        let data_type = data_type.to_owned();
        return Err(MappingError::UnsupportedVersion { place, data_type, supported });
    }
    Ok(Some(if supported.starts_with("expression") {
        Mapper::Expression(ExpressionMapper::parse(entry, index, warnings)?)
    } else {
        Mapper::External(ExternalMapper::parse(entry, place, settings)?)
    }))
}

/// Takes the first name of the first identity of the first mapper that offers any.
fn choose(evaluation: &mut Evaluation) {
    let first = evaluation.candidates.iter().flatten().flat_map(|hits| &hits.0).next();
    let Some((identity, Some(name))) = first.map(|(identity, names)| (identity, names.first())) else {
        return;
    };
    let (identity, name) = (identity.clone(), name.clone());
    match (name::check(&name), identity.parse()) {
        (Ok(()), Ok(identity)) => evaluation.matched = Some(Matched { identity, local_user: name }),
        (Ok(()), Err(_)) => {
            evaluation
                .warnings
                .push(format!("The identity '{}' has no UUID: nobody is mapped", escaped(&identity)));
        }
        (Err(problem), _) => evaluation.refuse(&identity, &name, problem),
    }
}

/// Drops the last candidates until the rest is small enough for heartbeats.
fn shorten(evaluation: &mut Evaluation) {
    let mut size = 0;
    let mut dropped = 0;
    for hits in &mut evaluation.candidates {
        hits.retain(|hits| {
            size += hits.size();
            dropped += usize::from(size > CANDIDATES_LIMIT);
            size <= CANDIDATES_LIMIT
        });
    }
    if dropped > 0 {
        evaluation
            .warnings
            .push(format!("{dropped} candidates are left out of heartbeats: they are too large"));
    }
}

/// The id of an identity. Identities from `globus get-identities` have no `sub`.
fn identity_id(identity: &Object) -> Result<&str, MapperError> {
    let id = identity.get("id").or_else(|| identity.get("sub")).and_then(Value::as_str);
    id.ok_or_else(|| InterpolationError::Missing("id".to_owned()).into())
}

fn text_member<'a>(object: &'a Object, key: &'static str, place: Place) -> Result<&'a str, MappingError> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(MappingError::Type { place, key, expected: "text" }),
        None => Err(MappingError::Missing { place, key }),
    }
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), MappingError> {
    if found > limit { Err(MappingError::TooMany { what, found, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
