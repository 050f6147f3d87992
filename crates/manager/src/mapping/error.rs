//! Why a mapping file is refused, what is doubtful in it, and why a mapper offers nobody. The texts are for the
//! administrator: they go to the manager's log and to the terminal, never to the person who is mapped.

use std::fmt;

use wire::json;

use super::EVALUATION_LIMIT;
use super::answer::AnswerError;
use super::interpolation::InterpolationError;
use super::pattern::{PatternError, TooManySteps};
use super::program::ProgramError;
use crate::ownership::Exposed;
use crate::printable::escaped;

/// Where in the mapping file: the entry of the list, and the mapping in it, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub index: usize,
    pub mapping: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mapping {
            Some(mapping) => write!(f, "(index: {}, mapping: {mapping})", self.index),
            None => write!(f, "(index: {})", self.index),
        }
    }
}

/// Why a mapping file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    #[error("{}", escaped(&.0.to_string()))]
    NotJson(#[from] json::Malformed),
    #[error("Expected a list of identity mappings")]
    NotAList,
    #[error("Invalid mapping or map config {0}")]
    NotAnObject(Place),
    #[error("Invalid map config {0}: DATA_TYPE is missing")]
    NoDataType(Place),
    #[error("Unsupported DATA_TYPE {place}: {}; supported is {supported}", escaped(.data_type))]
    UnsupportedVersion { place: Place, data_type: String, supported: &'static str },
    #[error("'{key}' is missing {place}")]
    Missing { place: Place, key: &'static str },
    #[error("'{key}' must be {expected} {place}")]
    Type { place: Place, key: &'static str, expected: &'static str },
    #[error("{} - {} {place}", escaped(.pattern), escaped(&.problem.to_string()))]
    Pattern { place: Place, pattern: String, problem: PatternError },
    #[error("{found} {what}; at most {limit} are allowed")]
    TooMany { what: &'static str, found: usize, limit: usize },
}

impl MappingError {
    /// The name of upstream's exception for this error.
    pub fn exception(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "JSONDecodeError",
            Self::UnsupportedVersion { .. } => "ValueError",
            Self::Missing { .. } => "KeyError",
            Self::Type { .. } => "TypeError",
            Self::NotAList
            | Self::NotAnObject(_)
            | Self::NoDataType(_)
            | Self::Pattern { .. }
            | Self::TooMany { .. } => "InvalidMappingError",
        }
    }
}

/// What an administrator should know about a mapping file that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    #[error("No identity mapper found for: {} {place}", escaped(.data_type))]
    UnknownDataType { place: Place, data_type: String },
    #[error(
        "{} has alternatives outside of parentheses {place}. Each of them must match the whole text here; upstream's \
         identity mapping also accepts any text that only begins with one of them, except the last. Put them in parentheses \
         to get the same with both",
        escaped(.pattern)
    )]
    Alternatives { place: Place, pattern: String },
    #[error("The identity mapping has no mapper: nobody is mapped to a local user")]
    NoMapper,
    #[error("{0} more warnings about the identity mapping")]
    More(usize),
    /// Others may change the file, or a program that it names.
    #[error("{0}")]
    Exposed(Exposed),
}

/// Why a mapper offers nobody for a person.
#[derive(Debug, thiserror::Error)]
pub enum MapperError {
    #[error(transparent)]
    Interpolation(#[from] InterpolationError),
    #[error(transparent)]
    Pattern(#[from] TooManySteps),
    #[error("It offers more than {0} names")]
    TooManyNames(usize),
    #[error("The time for mapping this person ({} s) is over", EVALUATION_LIMIT.as_secs())]
    OutOfTime,
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("{}: {problem}", escaped(.program))]
    Answer { program: String, problem: AnswerError },
}

impl MapperError {
    /// The name of upstream's exception for this error.
    pub fn exception(&self) -> &'static str {
        match self {
            Self::Program(error) => error.exception(),
            Self::Answer { problem: AnswerError::UnknownIdentity, .. } => "InvalidMappingError",
            _ => "IdentityMappingError",
        }
    }
}
