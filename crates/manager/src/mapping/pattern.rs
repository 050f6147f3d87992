//! The patterns of expression mappings: a small part of Python's regular expressions.
//!
//! | in a pattern | means |
//! |---|---|
//! | `.` | any character but a line break |
//! | `*`, `?` | what stands before, any number of times; at most once |
//! | `\|`, `( )` | alternatives; a group, whose text the output can refer to |
//! | `(?: )`, `(?= )`, `(?! )` | a group without a number; what follows must match, must not match |
//! | `\1` … `\99` | the text of a group |
//! | `\` before one of `.?*\|()\` | that character |
//! | anything else, also `^$+{}[]` | itself |
//!
//! A pattern always matches the whole text, and each alternative at its top does. Matching is bounded in steps: without
//! references and look-ahead it takes time proportional to the text, else it fails at a limit.

use fancy_regex::{Regex, RegexBuilder};

/// The maximum length of a pattern, in bytes.
pub(super) const PATTERN_LIMIT: usize = 1024;
/// The maximum depth of groups in groups.
const DEPTH_LIMIT: usize = 20;
/// The maximum number of steps back in one match.
const STEP_LIMIT: usize = 100_000;
/// The maximum memory of a compiled pattern, in bytes.
const MEMORY_LIMIT: usize = 1 << 20;

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("Invalid \\ expression: {0}")]
    Escape(String),
    #[error("Invalid ? expression: {0}")]
    Lazy(String),
    #[error("Invalid leading wildcard expression: {0}")]
    LeadingWildcard(char),
    #[error("nothing to repeat before `{0}`")]
    NothingToRepeat(char),
    #[error("multiple repeat: `{0}` after a `*` or `?`")]
    MultipleRepeat(char),
    #[error("missing ), unterminated group")]
    Unterminated,
    #[error("unbalanced parenthesis")]
    Unbalanced,
    #[error("invalid group reference {0}")]
    Reference(usize),
    #[error("`(?{0}` is not supported; only `(?:`, `(?=` and `(?!` are")]
    Extension(String),
    #[error("`\\{0}` is no reference to a group; the first group is `\\1`")]
    Octal(String),
    #[error("it is longer than {PATTERN_LIMIT} bytes")]
    TooLong,
    #[error("its groups are nested more than {DEPTH_LIMIT} deep")]
    TooDeep,
    #[error("{0}")]
    Compile(String),
}

/// A pattern can't be compared with this text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A pattern needs too many steps for this identity")]
pub struct TooManySteps;

/// A pattern, ready to match.
#[derive(Debug)]
pub(super) struct Pattern {
    matcher: Matcher,
    /// It has alternatives outside of any group.
    pub(super) alternatives: bool,
}

#[derive(Debug)]
enum Matcher {
    Text(String),
    Expression(Box<Regex>),
}

impl Pattern {
    /// A pattern without special characters.
    pub(super) fn literal(text: &str, ignore_case: bool) -> Result<Self, PatternError> {
        if text.len() > PATTERN_LIMIT {
            return Err(PatternError::TooLong);
        }
        let matcher = if ignore_case {
            compile(&fancy_regex::escape(text), true)?
        } else {
            Matcher::Text(text.to_owned())
        };
        Ok(Self { matcher, alternatives: false })
    }

    pub(super) fn parse(pattern: &str, ignore_case: bool) -> Result<Self, PatternError> {
        if pattern.len() > PATTERN_LIMIT {
            return Err(PatternError::TooLong);
        }
        check_spelling(pattern)?;
        let translated = Translation::of(pattern)?;
        let matcher = match translated.text {
            Some(text) if !ignore_case => Matcher::Text(text),
            _ => compile(&translated.expression, ignore_case)?,
        };
        Ok(Self { matcher, alternatives: translated.alternatives })
    }

    /// It needs no regular expression.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.matcher, Matcher::Text(_))
    }

    /// The texts of the groups, if the pattern matches the whole text.
    pub(super) fn groups<'t>(&self, text: &'t str) -> Result<Option<Vec<Option<&'t str>>>, TooManySteps> {
        match &self.matcher {
            Matcher::Text(expected) => Ok((expected == text).then(Vec::new)),
            Matcher::Expression(regex) => {
                let captures = regex.captures(text).map_err(|_| TooManySteps)?;
                Ok(captures
                    .map(|it| it.iter().skip(1).map(|group| group.map(|group| group.as_str())).collect()))
            }
        }
    }
}

fn compile(expression: &str, ignore_case: bool) -> Result<Matcher, PatternError> {
    RegexBuilder::new(&format!(r"\A(?:{expression})\z"))
        .case_insensitive(ignore_case)
        .backtrack_limit(STEP_LIMIT)
        .delegate_size_limit(MEMORY_LIMIT)
        .delegate_dfa_size_limit(MEMORY_LIMIT)
        .build()
        .map(|regex| Matcher::Expression(Box::new(regex)))
        .map_err(|error| PatternError::Compile(error.to_string().chars().take(200).collect()))
}

/// Refuses what upstream refuses before it compiles a pattern, in the same order. It looks at pairs of neighbours only:
/// `\\a` is refused for its `\a`.
fn check_spelling(pattern: &str) -> Result<(), PatternError> {
    let pairs = || pattern.chars().zip(pattern.chars().skip(1));
    let pair = |(a, b)| String::from_iter([a, b]);
    if let Some(found) = pairs().find(|&(a, b)| a == '\\' && !b.is_ascii_digit() && !r".?*|()\".contains(b)) {
        return Err(PatternError::Escape(pair(found)));
    }
    if let Some(found) = pairs().find(|&(a, b)| "*?".contains(a) && b == '?') {
        return Err(PatternError::Lazy(pair(found)));
    }
    match pattern.chars().next() {
        Some(first @ ('*' | '?')) => Err(PatternError::LeadingWildcard(first)),
        _ => Ok(()),
    }
}

/// A pattern in the syntax of the regular expression engine.
struct Translation {
    expression: String,
    /// The text that the pattern stands for, if it has no special character.
    text: Option<String>,
    alternatives: bool,
}

/// What a `*` or `?` would repeat.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Item,
    Repeat,
}

impl Translation {
    fn of(pattern: &str) -> Result<Self, PatternError> {
        let mut expression = String::new();
        let mut text = Some(String::new());
        let mut alternatives = false;
        let mut before = Before::Nothing;
        // The groups that are open, innermost last: their numbers, if they have one.
        let mut open: Vec<Option<usize>> = Vec::new();
        let mut groups = 0;
        let mut rest = pattern.chars().peekable();
        while let Some(c) = rest.next() {
            let literal = match c {
                '\\' => match rest.next() {
                    None => return Err(PatternError::Escape("\\".into())),
                    Some('0') => return Err(PatternError::Octal("0".into())),
                    Some(digit) if digit.is_ascii_digit() => {
                        let mut digits = String::from(digit);
                        digits.extend(rest.next_if(char::is_ascii_digit));
                        if is_octal(&digits) && rest.peek().is_some_and(|c| ('0'..='7').contains(c)) {
                            digits.extend(rest.next());
                            return Err(PatternError::Octal(digits));
                        }
                        let number = digits.parse().unwrap_or(usize::MAX);
                        if number > groups || open.contains(&Some(number)) {
                            return Err(PatternError::Reference(number));
                        }
                        expression.push_str(&format!(r"(?:\{number})"));
                        None
                    }
                    Some(escaped) => Some(escaped),
                },
                '.' => {
                    expression.push('.');
                    None
                }
                '*' | '?' => {
                    match before {
                        Before::Nothing => return Err(PatternError::NothingToRepeat(c)),
                        Before::Repeat => return Err(PatternError::MultipleRepeat(c)),
                        Before::Item => expression.push(c),
                    }
                    (before, text) = (Before::Repeat, None);
                    continue;
                }
                '|' => {
                    alternatives |= open.is_empty();
                    expression.push('|');
                    (before, text) = (Before::Nothing, None);
                    continue;
                }
                '(' => {
                    if open.len() == DEPTH_LIMIT {
                        return Err(PatternError::TooDeep);
                    }
                    if rest.next_if_eq(&'?').is_some() {
                        let kind = rest.next();
                        let Some(kind @ (':' | '=' | '!')) = kind else {
                            return Err(PatternError::Extension(kind.into_iter().collect()));
                        };
                        expression.push_str(&format!("(?{kind}"));
                        open.push(None);
                    } else {
                        expression.push('(');
                        groups += 1;
                        open.push(Some(groups));
                    }
                    (before, text) = (Before::Nothing, None);
                    continue;
                }
                ')' => {
                    open.pop().ok_or(PatternError::Unbalanced)?;
                    expression.push(')');
                    None
                }
                other => Some(other),
            };
            before = Before::Item;
            match literal {
                Some(c) => {
                    expression.push_str(&fancy_regex::escape(c.encode_utf8(&mut [0; 4])));
                    if let Some(text) = &mut text {
                        text.push(c);
                    }
                }
                None => text = None,
            }
        }
        if !open.is_empty() {
            return Err(PatternError::Unterminated);
        }
        Ok(Self { expression, text, alternatives })
    }
}

fn is_octal(digits: &str) -> bool {
    digits.len() == 2 && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::super::interpolation::TEXT_LIMIT;
    use super::*;

    fn groups<'t>(pattern: &str, text: &'t str) -> Option<Vec<Option<&'t str>>> {
        Pattern::parse(pattern, false).unwrap().groups(text).unwrap()
    }

    #[test]
    fn a_pattern_matches_the_whole_text() {
        assert_eq!(groups("(.*)@example.com", "mickey97@example.com"), Some(vec![Some("mickey97")]));
        assert_eq!(groups("(.*)@example.com", "mickey97@example.com.evil.org"), None);
        assert_eq!(groups("(.*)@example.com", "x\n@example.com"), None);
        assert_eq!(groups("alicia", "alicia\n"), None);
        assert_eq!(groups("(a)|(b)", "b"), Some(vec![None, Some("b")]));
        assert_eq!(groups("(a|b)\\1", "bb"), Some(vec![Some("b")]));
        assert_eq!(groups("(?!root)(.*)@x", "root@x"), None);
        assert_eq!(groups("[a]+{2}^$", "[a]+{2}^$"), Some(vec![]));
    }

    #[test]
    fn each_alternative_at_the_top_matches_the_whole_text() {
        let pattern = Pattern::parse("alicia|bob", false).unwrap();
        assert!(pattern.alternatives);
        for (text, matches) in
            [("alicia", true), ("bob", true), ("aliciax", false), ("xbob", false), ("alicia|bob", false)]
        {
            assert_eq!(pattern.groups(text).unwrap().is_some(), matches, "{text}");
        }
        assert!(!Pattern::parse("(alicia|bob)", false).unwrap().alternatives);
    }

    #[test]
    fn a_literal_pattern_has_no_special_character() {
        let pattern = Pattern::literal(r"a.*\1(", false).unwrap();
        assert_eq!(pattern.groups(r"a.*\1(").unwrap(), Some(vec![]));
        assert_eq!(pattern.groups(r"A.*\1(").unwrap(), None);
        assert_eq!(Pattern::literal(r"a.*\1(", true).unwrap().groups(r"A.*\1(").unwrap(), Some(vec![]));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let cases = [
            (r"a\q", r"Invalid \ expression: \q"),
            (r"\\a", r"Invalid \ expression: \a"),
            ("a\\", "Invalid \\ expression: \\"),
            ("a*?", "Invalid ? expression: *?"),
            ("*a", "Invalid leading wildcard expression: *"),
            ("a**", "multiple repeat: `*` after a `*` or `?`"),
            ("a|*", "nothing to repeat before `*`"),
            ("(a", "missing ), unterminated group"),
            ("a)", "unbalanced parenthesis"),
            (r"(a)\2", "invalid group reference 2"),
            (r"(a\1)", "invalid group reference 1"),
            ("(?i)a", "`(?i` is not supported; only `(?:`, `(?=` and `(?!` are"),
            ("(?<=a)b", "`(?<` is not supported; only `(?:`, `(?=` and `(?!` are"),
            (r"\0", r"`\0` is no reference to a group; the first group is `\1`"),
        ];
        for (pattern, text) in cases {
            assert_eq!(Pattern::parse(pattern, false).unwrap_err().to_string(), text, "{pattern}");
        }
        assert_eq!(Pattern::parse(&"a".repeat(2000), false).unwrap_err(), PatternError::TooLong);
        let deep = "(".repeat(30) + &")".repeat(30);
        assert_eq!(Pattern::parse(&deep, false).unwrap_err(), PatternError::TooDeep);
    }

    /// Fails when a pattern that backtracks without end, or a long text, occupies a thread.
    #[test]
    fn matching_is_bounded() {
        let text = "a".repeat(TEXT_LIMIT - 1) + "!";
        let started = Instant::now();
        for pattern in ["(a*)*(a*)*(a*)*b", "(a|a)*b", &"(.*)".repeat(200), &"a?".repeat(500)] {
            assert_eq!(
                Pattern::parse(pattern, false).unwrap().groups(&text).unwrap().is_some(),
                pattern.starts_with("(.*)")
            );
        }
        for pattern in [r"((a*)*)*\1\2b", "(?=(a*)*b)(a*)*"] {
            assert!(
                !matches!(Pattern::parse(pattern, false).unwrap().groups(&text), Ok(Some(_))),
                "{pattern}"
            );
        }
        assert!(started.elapsed().as_secs() < 20);
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in r"[ab.?*|()\\1:=!\n]{0,24}|\PC{0,24}", text in "[abA\n]{0,12}", ignore_case: bool) {
            if let Ok(pattern) = Pattern::parse(&pattern, ignore_case) {
                let _ = pattern.groups(&text);
            }
        }

        #[test]
        fn a_literal_matches_itself_only(text in "\\PC{0,30}", other in "\\PC{0,30}", ignore_case: bool) {
            let pattern = Pattern::literal(&text, ignore_case).unwrap();
            prop_assert!(pattern.groups(&text).unwrap().is_some());
            if !ignore_case {
                prop_assert_eq!(pattern.groups(&other).unwrap().is_some(), text == other);
            }
        }
    }
}
