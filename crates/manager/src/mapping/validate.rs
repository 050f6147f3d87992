//! What `globus-idm-validator` says: tries a mapping file with identities, without a manager.
//!
//! Texts on standard output and exit statuses are upstream's. `first` answers as upstream's tool does, which differs from a
//! manager in two ways: it ignores the state of an identity, and it asks each identity in turn instead of each mapping.
//! Where a manager decides otherwise, a note says so. This module reads and prints nothing itself.

use std::time::Instant;

use serde_json::Value;
use wire::json::{self, Object};

use super::{EVALUATION_LIMIT, Evaluation, FILE_LIMIT, Mapping, MappingError, Settings, choose};

/// The maximum size of a file of identities, in bytes.
pub const IDENTITIES_FILE_LIMIT: usize = 1 << 20;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Only the first name.
    pub first: bool,
    /// Tell each step.
    pub verbose: bool,
}

/// What to print, and the exit status.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub output: String,
    /// Lines for standard error.
    pub messages: Vec<String>,
    pub status: u8,
}

impl Report {
    /// There is nothing to print but a message.
    pub fn failed(status: u8, message: String) -> Self {
        Self { output: String::new(), messages: vec![message], status }
    }
}

/// Maps identities by the mapping file of the given text.
///
/// `source` names where the identities come from: a path, or `stdin`. They are read once the mapping file is known to be
/// JSON.
pub fn validate(
    mapping: &[u8],
    identities: impl FnOnce() -> Result<Vec<u8>, Report>,
    source: &str,
    options: Options,
) -> Report {
    if let Err(error) = json::decode::<Value>(mapping, FILE_LIMIT) {
        return Report::failed(1, format!("Failed to read config: (JSONDecodeError) {error}"));
    }
    let identities = match identities() {
        Ok(text) => read_identities(&text, source),
        Err(report) => return report,
    };
    let identities = match identities {
        Ok(identities) => identities,
        Err(message) => return Report::failed(1, message),
    };
    let zeros = uuid::Uuid::nil().to_string();
    let settings = Settings { gateway: zeros.replace('0', "1"), connector: zeros };
    let (mapping, warnings) = match Mapping::parse(mapping, &settings) {
        Ok(parsed) => parsed,
        Err(error) => return Report::failed(1, unloadable(&error)),
    };
    let mut report =
        Report { messages: warnings.iter().map(ToString::to_string).collect(), ..Report::default() };
    let run = Run { mapping: &mapping, identities: &identities, verbose: options.verbose };
    report.output =
        if options.first { run.first(&mut report.messages) } else { run.all(&mut report.messages) };
    report
}

fn unloadable(error: &MappingError) -> String {
    match error.exception() {
        name @ "InvalidMappingError" => format!("Failed to load mapping from config -- ({name}) {error}"),
        name => format!("Unexpected mapping error: ({name}) {error}"),
    }
}

/// Reads a list of identities, or an object with one in `identities`, as `globus get-identities` prints it.
fn read_identities(text: &[u8], source: &str) -> Result<Vec<Object>, String> {
    let document = json::decode::<Value>(text, IDENTITIES_FILE_LIMIT)
        .map_err(|error| format!("Failed to parse identities: (JSONDecodeError) {error}"))?;
    let failed = |text: &str| format!("Failed to read identities from ({source}): {text}");
    let list = match document {
        Value::Array(list) => list,
        Value::Object(mut object) => match object.remove("identities") {
            Some(Value::Array(list)) => list,
            Some(_) => return Err(failed("(TypeError) 'identities' must be a list")),
            None => return Err(failed("(KeyError) 'identities'")),
        },
        other => {
            let kind = match other {
                Value::String(_) => "str",
                Value::Bool(_) => "bool",
                Value::Number(number) if number.is_f64() => "float",
                Value::Number(_) => "int",
                _ => "NoneType",
            };
            return Err(failed(&format!("(SyntaxError) Expected list of identities, not {kind}")));
        }
    };
    let object = |it| match it {
        Value::Object(object) => Ok(object),
        _ => Err(failed("(TypeError) each identity must be an object")),
    };
    list.into_iter().map(object).collect()
}

struct Run<'a> {
    mapping: &'a Mapping,
    identities: &'a [Object],
    verbose: bool,
}

impl Run<'_> {
    fn all(&self, messages: &mut Vec<String>) -> String {
        let mappers = &self.mapping.mappers;
        let deadline = Instant::now() + EVALUATION_LIMIT;
        let mut results = Vec::new();
        for (mapper, number) in mappers.iter().zip(1..) {
            self.say(messages, format_args!("Using {} mapper [of {}]", ordinal(number), mappers.len()));
            match mapper.map_all(self.identities, deadline) {
                Ok(hits) => results.extend(hits),
                Err(error) => {
                    messages.push(format!("  Failed to map identities -- ({}) {error}", error.exception()))
                }
            }
        }
        let mut of_manager = Evaluation { candidates: vec![results.clone()], ..Evaluation::default() };
        choose(&mut of_manager);
        note_refusal(&of_manager, messages);
        match serde_json::to_string_pretty(&results) {
            Ok(text) if !results.is_empty() => format!("\nAll mapped identities: \n{}", ascii(&text)),
            _ => "\nNo identity mapped.".to_owned(),
        }
    }

    fn first(&self, messages: &mut Vec<String>) -> String {
        let found = self.first_name(messages);
        let of_manager = self.mapping.evaluate_objects(self.identities);
        note_refusal(&of_manager, messages);
        let managers = of_manager.matched.map(|it| it.local_user);
        if of_manager.refused.is_none() && managers != found {
            let managers = managers.map_or("nobody".to_owned(), |it| format!("'{it}'"));
            messages.push(format!(
                "Note: a manager maps this person to {managers}. It considers only identities whose status is \"used\" or \
                 \"private\", takes the mappings in order, and for each of them the identities in order."
            ));
        }
        format!("\nFirst found mapped identity: {}", found.as_deref().unwrap_or("None"))
    }

    fn first_name(&self, messages: &mut Vec<String>) -> Option<String> {
        let mappers = &self.mapping.mappers;
        let deadline = Instant::now() + EVALUATION_LIMIT;
        for (mapper, number) in mappers.iter().zip(1..) {
            self.say(messages, format_args!("Using {} mapper [of {}]", ordinal(number), mappers.len()));
            for (identity, number) in self.identities.iter().zip(1..) {
                let all = self.identities.len();
                self.say(messages, format_args!("  Mapping {} identity [of {all}]", ordinal(number)));
                match mapper.map_one(identity, deadline) {
                    Ok(Some(name)) if !name.is_empty() => return Some(name),
                    Ok(_) => {}
                    Err(error) => {
                        messages.push(format!("   Failed to map identity ({}) {error}", error.exception()))
                    }
                }
            }
        }
        None
    }

    fn say(&self, messages: &mut Vec<String>, text: std::fmt::Arguments<'_>) {
        if self.verbose {
            messages.push(text.to_string());
        }
    }
}

/// Upstream's tool says nothing of names that are refused.
fn note_refusal(of_manager: &Evaluation, messages: &mut Vec<String>) {
    if let Some(refused) = &of_manager.refused {
        messages.push(format!(
            "Note: a manager refuses this person: the local user would be '{}', and {}.",
            refused.local_user, refused.problem
        ));
    }
}

fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// JSON with all other characters than ASCII escaped, as Python writes it.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
