//! `allowed_serializers`: which serialization strategies a worker may decode.
//!
//! The engine checks the list once, when it starts. The worker gets plain class names, and compares the outer header
//! of each buffer with them.

use std::collections::BTreeSet;

use wire::serialization_strategy::{Kind, Strategy};

const ALL_CODE: &str = "globus_compute_sdk.*Code";
const ALL_DATA: &str = "globus_compute_sdk.*Data";

/// Why a list is refused, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAllowlist {
    #[error(
        "Invalid strategy-like '{0}'. Expected either a SerializationStrategy instance, a subclass of \
         SerializationStrategy, or an import path to one."
    )]
    Unknown(String),
    #[error("{0} is not a known serialization strategy.")]
    NotSelectable(&'static str),
    #[error("Cannot mix 'AllowlistWildcard.{kind}' with specific deserializers (got {got})")]
    Mixed { kind: &'static str, got: String },
    #[error(
        "Deserialization allowlists must contain at least one code and one data deserializer/wildcard (got: {got})"
    )]
    OneKindOnly { got: String },
}

/// Checks a list of `allowed_serializers`.
pub fn check_allowlist(list: &[String]) -> Result<(), InvalidAllowlist> {
    resolve(list).map(drop)
}

/// The class names that the list allows. An empty list allows everything, even `PickleCode`.
pub(crate) fn resolve(list: &[String]) -> Result<Vec<&'static str>, InvalidAllowlist> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let mut named = BTreeSet::new();
    let (mut code, mut data) = (false, false);
    for entry in list {
        match entry.as_str() {
            ALL_CODE => code = true,
            ALL_DATA => data = true,
            path => {
                let strategy = Strategy::from_import_path(path);
                let strategy = strategy.ok_or_else(|| InvalidAllowlist::Unknown(path.to_owned()))?;
                if !strategy.selectable() {
                    return Err(InvalidAllowlist::NotSelectable(strategy.name()));
                }
                named.insert(strategy);
            }
        }
    }
    for (wanted, kind, name) in [(code, Kind::Code, "CODE"), (data, Kind::Data, "DATA")] {
        if wanted {
            if named.iter().any(|strategy| strategy.kind() == kind) {
                return Err(InvalidAllowlist::Mixed { kind: name, got: python_list(list) });
            }
            named.extend(Strategy::ALL.into_iter().filter(|s| s.kind() == kind && s.selectable()));
        }
    }
    if [Kind::Code, Kind::Data].into_iter().any(|kind| named.iter().all(|s| s.kind() != kind)) {
        return Err(InvalidAllowlist::OneKindOnly { got: python_list(list) });
    }
    let mut names: Vec<_> = named.into_iter().map(Strategy::name).collect();
    names.sort_unstable();
    Ok(names)
}

/// As Python prints a list of strings.
fn python_list(list: &[String]) -> String {
    let quoted: Vec<_> = list.iter().map(|entry| format!("'{entry}'")).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(list: &[&str]) -> String {
        resolve(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap_err().to_string()
    }

    fn names(list: &[&str]) -> String {
        resolve(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap().join(" ")
    }

    #[test]
    fn nothing_listed_allows_everything() {
        assert_eq!(names(&[]), "");
    }

    #[test]
    fn both_spellings_name_a_class_and_wildcards_name_a_kind() {
        let json = "globus_compute_sdk.serialize.JSONData";
        assert_eq!(
            names(&[json, "globus_compute_sdk.serialize.concretes.CombinedCode"]),
            "CombinedCode JSONData"
        );
        assert_eq!(
            names(&[json, ALL_CODE]),
            "AllCodeStrategies CombinedCode DillCode DillCodeSource DillCodeTextInspect JSONData PureSourceDill \
             PureSourceTextInspect"
        );
    }

    #[test]
    fn refusals_use_the_words_of_the_original() {
        assert_eq!(
            refused(&["globus_compute_sdk.serialize.CombinedCode"]),
            "Deserialization allowlists must contain at least one code and one data deserializer/wildcard (got: \
             ['globus_compute_sdk.serialize.CombinedCode'])"
        );
        assert_eq!(
            refused(&["foo.Bar"]),
            "Invalid strategy-like 'foo.Bar'. Expected either a SerializationStrategy instance, a subclass of \
             SerializationStrategy, or an import path to one."
        );
        assert_eq!(
            refused(&["globus_compute_sdk.serialize.concretes.PickleCode"]),
            "PickleCode is not a known serialization strategy."
        );
        assert!(
            refused(&[ALL_CODE, "globus_compute_sdk.serialize.DillCode"])
                .starts_with("Cannot mix 'AllowlistWildcard.CODE' with specific deserializers (got [")
        );
    }
}
