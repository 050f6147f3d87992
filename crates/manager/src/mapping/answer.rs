//! The answer of an external program: which of a person's identities is which local user.
//!
//! It is read as strictly as upstream reads it: one mistake, and the whole answer counts for nothing. Runs nothing.

use serde::Deserialize;
use wire::IdentityId;
use wire::json;

use super::Hits;
use crate::printable::escaped;

/// The maximum size of an answer, in bytes.
pub const ANSWER_LIMIT: usize = 1 << 20;
/// The maximum number of names in an answer.
const NAMES_LIMIT: usize = 1000;

const OUTPUT_TYPE: &str = "identity_mapping_output#1.0.0";

/// What a program answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    #[serde(rename = "DATA_TYPE", default = "output_type")]
    data_type: String,
    result: Vec<AnswerEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerEntry {
    id: IdentityId,
    output: String,
}

fn output_type() -> String {
    OUTPUT_TYPE.to_owned()
}

/// Why an answer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("the answer can't be used: {}", escaped(&.0.to_string()))]
    Malformed(#[from] json::Malformed),
    #[error("the answer can't be used: DATA_TYPE must be {OUTPUT_TYPE}")]
    DataType,
    #[error("the answer has more than {NAMES_LIMIT} results")]
    TooMany,
    #[error("Invalid ID in result")]
    UnknownIdentity,
}

impl Answer {
    /// Reads an answer. No output at all is no answer, and no error.
    pub fn decode(output: &[u8]) -> Result<Option<Self>, AnswerError> {
        if output.is_empty() {
            return Ok(None);
        }
        let answer: Self = json::decode(output, ANSWER_LIMIT)?;
        if answer.data_type != OUTPUT_TYPE {
            return Err(AnswerError::DataType);
        }
        if answer.result.len() > NAMES_LIMIT {
            return Err(AnswerError::TooMany);
        }
        Ok(Some(answer))
    }

    /// The names by identity. Every identity of the answer must be among those that were asked for.
    pub fn hits(self, asked: &[(IdentityId, &str)]) -> Result<Hits, AnswerError> {
        let mut hits = Hits::default();
        for AnswerEntry { id, output } in self.result {
            let (_, text) =
                asked.iter().find(|(known, _)| *known == id).ok_or(AnswerError::UnknownIdentity)?;
            hits.add(text, output);
        }
        Ok(hits)
    }

    /// The first name, which must be of the one identity that was asked for.
    pub fn first(self, asked: Option<IdentityId>) -> Result<Option<String>, AnswerError> {
        match self.result.into_iter().next() {
            Some(AnswerEntry { id, output }) if asked == Some(id) => Ok(Some(output)),
            Some(_) => Err(AnswerError::UnknownIdentity),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ALICIA: &str = "00000000-0000-4444-8888-111111111111";
    const ROBERTO: &str = "00000000-0000-4444-8888-222222222222";

    fn answer(document: &str) -> Result<Hits, AnswerError> {
        let asked = [ALICIA, ROBERTO].map(|id| (id.parse().unwrap(), id));
        Answer::decode(document.as_bytes())?.map_or(Ok(Hits::default()), |answer| answer.hits(&asked))
    }

    #[test]
    fn answers_are_read_strictly() {
        let both = format!(
            r#"{{"DATA_TYPE": "{OUTPUT_TYPE}", "result": [{{"id": "{ROBERTO}", "output": "r"}},
            {{"id": "{ALICIA}", "output": "a"}}, {{"id": "{}", "output": "r2"}}]}}"#,
            ROBERTO.replace('-', "")
        );
        let hits = answer(&both).unwrap();
        let text = |text: &str| text.to_owned();
        let expected = vec![(text(ROBERTO), vec![text("r"), text("r2")]), (text(ALICIA), vec![text("a")])];
        assert_eq!(hits.0, expected);
        assert_eq!(answer(""), Ok(Hits::default()));
        assert_eq!(answer(r#"{"result": []}"#), Ok(Hits::default()));

        // The example of the guide names an identity that is not in the set.
        let foreign = r#"{"result": [{"id": "1234567c-cf51-4032-afb8-05986708abcd", "output": "alicia"}]}"#;
        assert_eq!(answer(foreign), Err(AnswerError::UnknownIdentity));
        assert_eq!(answer(r#"{"DATA_TYPE": "x", "result": []}"#), Err(AnswerError::DataType));
        let wrong = [
            "\n",
            "null",
            "[]",
            "{}",
            "{\"result\": null}",
            "{\"result\": [], \"more\": 1}",
            "{\"result\": [{}]}",
            r#"{"result": [{"id": 5, "output": "a"}]}"#,
            r#"{"result": [{"id": "00000000-0000-4444-8888-111111111111"}]}"#,
            r#"{"result": [{"id": "00000000-0000-4444-8888-111111111111", "output": null}]}"#,
        ];
        for document in wrong {
            assert!(matches!(answer(document), Err(AnswerError::Malformed(_))), "{document}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_names_an_identity_that_was_not_asked_for(
            id in prop_oneof![Just(ALICIA), Just(ROBERTO), Just("1234567c-cf51-4032-afb8-05986708abcd")],
            output in "\\PC{0,20}",
        ) {
            let document = json!({"result": [{"id": id, "output": output}]}).to_string();
            match answer(&document) {
                Ok(hits) => prop_assert_eq!(hits.0, vec![(id.to_owned(), vec![output])]),
                Err(error) => prop_assert!(error == AnswerError::UnknownIdentity && id.starts_with('1')),
            }
        }

        #[test]
        fn no_output_panics(output in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Answer::decode(&output);
        }
    }
}
