//! Mappers of the type `external_identity_mapping`: a program of the administrator is given the identities as JSON, and
//! answers with the names of local users.
//!
//! A program that fails, or whose answer has one mistake, offers nobody. [`program`] holds its limits, [`super::answer`]
//! reads what it prints.

use std::str::FromStr as _;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use wire::IdentityId;
use wire::json::{self, Object};

use super::answer::{Answer, AnswerError};
use super::error::{MapperError, MappingError, Place};
use super::program;
use super::{Hits, Settings, identity_id};

/// How long a program may take.
pub const EXTERNAL_LIMIT: Duration = Duration::from_secs(5);
/// The maximum number of words of a command, and of bytes of one word.
const WORDS_LIMIT: usize = 100;
const WORD_LIMIT: usize = 4096;

const INPUT_TYPE: &str = "identity_mapping_input#1.0.0";

#[derive(Debug)]
pub(super) struct ExternalMapper {
    /// The administrator's words, and `-c CONNECTOR -s GATEWAY`.
    command: Vec<String>,
}

#[derive(Serialize)]
struct Input<'a> {
    #[serde(rename = "DATA_TYPE")]
    data_type: &'static str,
    identities: &'a [Object],
}

impl ExternalMapper {
    /// Reads a mapper from its entry in the mapping file.
    pub(super) fn parse(entry: &Object, place: Place, settings: &Settings) -> Result<Self, MappingError> {
        let wrong = |expected| MappingError::Type { place, key: "command", expected };
        let words = match entry.get("command") {
            Some(Value::Array(words)) if !words.is_empty() => words,
            Some(_) => return Err(wrong("a list of a program and its arguments")),
            None => return Err(MappingError::Missing { place, key: "command" }),
        };
        if words.len() > WORDS_LIMIT {
            return Err(wrong("a list of at most 100 words"));
        }
        let word = |word: &Value| match word {
            Value::String(text) if text.len() <= WORD_LIMIT && !text.contains('\0') => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(wrong("a list of texts and numbers")),
        };
        let mut command = words.iter().map(word).collect::<Result<Vec<_>, _>>()?;
        if command.first().is_none_or(String::is_empty) {
            return Err(wrong("a list of a program and its arguments"));
        }
        command.extend(["-c", &settings.connector, "-s", &settings.gateway].map(str::to_owned));
        Ok(Self { command })
    }

    /// The program and its arguments.
    pub(super) fn command(&self) -> &[String] {
        &self.command
    }

    /// Asks about all identities at once.
    pub(super) fn map_all(&self, identities: &[Object], deadline: Instant) -> Result<Vec<Hits>, MapperError> {
        let mut command = self.command.clone();
        command.push("-a".to_owned());
        let output = ask(&command, identities, deadline)?;
        let mut asked = Vec::with_capacity(identities.len());
        for identity in identities {
            let text = identity_id(identity)?;
            // An identity without a UUID can be in no answer.
            asked.extend(IdentityId::from_str(text).map(|id| (id, text)));
        }
        let hits = |answer: Option<Answer>| answer.map(|it| it.hits(&asked)).transpose();
        let hits = Answer::decode(&output).and_then(hits).map_err(|problem| self.refused(problem))?;
        Ok(hits.into_iter().collect())
    }

    /// Asks about one identity; returns its first name.
    pub(super) fn map_one(
        &self,
        identity: &Object,
        deadline: Instant,
    ) -> Result<Option<String>, MapperError> {
        let output = ask(&self.command, std::slice::from_ref(identity), deadline)?;
        let asked = identity_id(identity)?.parse().ok();
        let first = |answer: Option<Answer>| answer.map_or(Ok(None), |it| it.first(asked));
        Answer::decode(&output).and_then(first).map_err(|problem| self.refused(problem))
    }

    fn refused(&self, problem: AnswerError) -> MapperError {
        MapperError::Answer { program: self.command.first().cloned().unwrap_or_default(), problem }
    }
}

fn ask(command: &[String], identities: &[Object], deadline: Instant) -> Result<Vec<u8>, MapperError> {
    let now = Instant::now();
    if now >= deadline {
        return Err(MapperError::OutOfTime);
    }
    let input = json::encode(&Input { data_type: INPUT_TYPE, identities });
    Ok(program::run(command, &input, deadline.min(now + EXTERNAL_LIMIT))?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALICIA: &str = "00000000-0000-4444-8888-111111111111";
    const ROBERTO: &str = "00000000-0000-4444-8888-222222222222";

    fn settings() -> Settings {
        Settings { connector: "CONNECTOR".to_owned(), gateway: "GATEWAY".to_owned() }
    }

    fn mapper(command: Value) -> Result<ExternalMapper, MappingError> {
        let place = Place { index: 0, mapping: None };
        ExternalMapper::parse(&Object::from_iter([("command".to_owned(), command)]), place, &settings())
    }

    fn people() -> Vec<Object> {
        [ALICIA, ROBERTO].map(|id| Object::from_iter([("id".to_owned(), id.into())])).to_vec()
    }

    fn ask(script: &str) -> Result<Vec<Hits>, MapperError> {
        mapper(json!(["/bin/sh", "-c", script])).unwrap().map_all(&people(), Instant::now() + EXTERNAL_LIMIT)
    }

    #[test]
    fn the_program_is_asked_as_upstream_asks_it() {
        let hits = ask(r#"input=$(cat)
               case "$0 $1 $2 $3 $4" in "-c CONNECTOR -s GATEWAY -a") ;; *) exit 3;; esac
               case "$input" in '{"DATA_TYPE":"identity_mapping_input#1.0.0","identities":[{"id":"00000000'*) ;; *) exit 4;; esac
               test "$(env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= | sort | cut -d= -f1 | tr '\n' ' ')" = "LANG PATH " || exit 5
               echo '{"result": [{"id": "00000000-0000-4444-8888-222222222222", "output": "roberto"}]}'"#);
        assert_eq!(hits.unwrap(), [Hits(vec![(ROBERTO.to_owned(), vec!["roberto".to_owned()])])]);
        // Asked about one identity, there is no `-a`.
        let script = format!(r#"echo "{{\"result\": [{{\"id\": \"{ALICIA}\", \"output\": \"words$#\"}}]}}""#);
        let one = mapper(json!(["/bin/sh", "-c", script])).unwrap();
        let name = one.map_one(&people()[0], Instant::now() + EXTERNAL_LIMIT).unwrap();
        assert_eq!(name.as_deref(), Some("words3"));
        assert!(one.map_one(&people()[1], Instant::now() + EXTERNAL_LIMIT).is_err());
    }

    #[test]
    fn failures_of_the_program_are_told() {
        let cases = [
            ("exit 3", "/bin/sh: exit status: 3"),
            ("echo no such person >&2; exit 1", "/bin/sh: exit status: 1; it wrote: no such person"),
            ("kill -9 $$", "/bin/sh: signal: 9 (SIGKILL)"),
            ("echo hello", "/bin/sh: the answer can't be used: not JSON at byte 1: expected value"),
        ];
        for (script, text) in cases {
            assert_eq!(ask(script).unwrap_err().to_string(), text);
        }
        let missing = mapper(json!(["/nowhere/program"])).unwrap();
        let error = missing.map_all(&people(), Instant::now() + EXTERNAL_LIMIT).unwrap_err();
        assert_eq!(
            (error.exception(), error.to_string().starts_with("/nowhere/program: ")),
            ("FileNotFoundError", true)
        );
    }

    #[test]
    fn commands_are_lists_of_texts_and_numbers() {
        assert_eq!(
            mapper(json!(["prog", 5, 1.5, "x y"])).unwrap().command,
            ["prog", "5", "1.5", "x y", "-c", "CONNECTOR", "-s", "GATEWAY"]
        );
        for wrong in
            [json!([]), json!("prog"), json!([""]), json!(["a", null]), json!(["a", ["b"]]), json!(["a\0"])]
        {
            assert!(mapper(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
