//! Which names of local users a mapping may yield.
//!
//! Decides by the text alone and looks up no user. The launcher refuses, besides, every user with uid 0 and the manager's own.

/// The maximum length of a local user's name: `LOGIN_NAME_MAX` of Linux without its terminating NUL.
pub const NAME_LIMIT: usize = 255;

/// Why nobody may be mapped to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {NAME_LIMIT} characters")]
    TooLong,
    #[error("{0:?} is not allowed in the name of a local user")]
    Character(char),
    #[error("a name begins with a letter, a digit or `_`")]
    FirstCharacter,
    #[error("it has no letter; programs read such a name as a user ID")]
    Numeric,
    #[error("nobody may be mapped to the superuser")]
    Superuser,
}

/// Checks the name of a local user.
///
/// Allowed are ASCII letters, digits, `_`, `.`, `-`, and, for the users of directory services, `@` and `\`
/// (`alice@corp`, `CORP\alice`).
pub fn check(name: &str) -> Result<(), NameProblem> {
    if name.is_empty() {
        return Err(NameProblem::Empty);
    }
    if name.len() > NAME_LIMIT {
        return Err(NameProblem::TooLong);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-@\\".contains(c);
    if let Some(other) = name.chars().find(|&c| !allowed(c)) {
        return Err(NameProblem::Character(other));
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        return Err(NameProblem::FirstCharacter);
    }
    if !name.contains(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return Err(NameProblem::Numeric);
    }
    // Directory services may ignore the case of a name.
    if name.eq_ignore_ascii_case("root") {
        return Err(NameProblem::Superuser);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_people_are_allowed() {
        for name in
            ["alicia", "a", "_apt", "Roberto", "j.doe-2", "1alice", "alice@corp.example", "CORP\\alice"]
        {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        assert_eq!(check(&"a".repeat(NAME_LIMIT)), Ok(()));
    }

    #[test]
    fn other_names_are_refused_with_the_reason() {
        let long = "a".repeat(300);
        let cases = [
            ("", NameProblem::Empty),
            (long.as_str(), NameProblem::TooLong),
            ("1000", NameProblem::Numeric),
            ("0", NameProblem::Numeric),
            ("1.5-2", NameProblem::Numeric),
            ("root", NameProblem::Superuser),
            ("Root", NameProblem::Superuser),
            ("-f", NameProblem::FirstCharacter),
            (".", NameProblem::FirstCharacter),
            ("..", NameProblem::FirstCharacter),
            ("@wheel", NameProblem::FirstCharacter),
            ("\\0", NameProblem::FirstCharacter),
            ("../alice", NameProblem::Character('/')),
            ("alice bob", NameProblem::Character(' ')),
            ("alice\n", NameProblem::Character('\n')),
            ("alice\0", NameProblem::Character('\0')),
            ("alice\u{7f}", NameProblem::Character('\u{7f}')),
            ("alicé", NameProblem::Character('é')),
            ("рoot", NameProblem::Character('р')),
            ("alice:x", NameProblem::Character(':')),
            ("$(id)", NameProblem::Character('$')),
            ("+alice", NameProblem::Character('+')),
        ];
        for (name, problem) in cases {
            assert_eq!(check(name), Err(problem), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn an_allowed_name_is_plain(name in "\\PC{0,40}|[a-zA-Z0-9_.@\\\\-]{0,300}|[ -~\\n\\t\\x00]{0,20}") {
            if check(&name).is_ok() {
                prop_assert!(name.is_ascii() && !name.is_empty() && name.len() <= NAME_LIMIT);
                prop_assert!(!name.contains(|c: char| c.is_ascii_control() || c == '/' || c == ':' || c == ' '));
                prop_assert!(name.parse::<i64>().is_err());
                prop_assert!(!name.starts_with('-'));
                prop_assert_ne!(name, "root");
            }
        }
    }
}
