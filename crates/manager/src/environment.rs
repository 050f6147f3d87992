//! The environment of a user endpoint: nothing of a manager's own that changes users, but a default `PATH`, what the
//! administrator's file says, and the account.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::site_files::{RenderError, read_text};
use crate::template::Account;

/// The name of each variable and its value.
pub type Variables = BTreeMap<String, String>;

/// What becomes a user endpoint's environment, beside the administrator's file.
#[derive(Debug, Clone)]
pub struct Origin<'a> {
    /// The environment of a personal manager, which its user endpoints inherit.
    pub inherited: &'a [(String, String)],
    pub account: &'a Account,
    /// Whether the home is a directory; without one, the user endpoint works in `/`.
    pub has_home: bool,
    /// The directory of the endpoint's own program: the last of the default `PATH`.
    pub program_directory: &'a Path,
    /// The name of the user endpoint's directory.
    pub endpoint_name: &'a str,
    /// The submitter's Python and platform, for variables that 4.x sets for wrapper scripts. `None`: they are not set, as 3.8
    /// doesn't.
    pub tells_versions_of: Option<&'a Value>,
}

/// Reads the administrator's file. One that can't be used gives a warning and no variables: user endpoints start with the
/// defaults. One that may not be read, because it lies behind somebody else's link, is an error: nobody's user endpoint is to
/// start without what the administrator wrote there.
pub fn read(path: &Path) -> Result<(Variables, Vec<String>), RenderError> {
    let what = "the file of environment variables of user endpoints";
    let text = match read_text(path, what) {
        Ok(text) => text,
        Err(error) if error.exception == "FileNotFoundError" => return Ok((Variables::new(), Vec::new())),
        Err(error) if error.exception == "PermissionError" => return Err(error),
        Err(error) => return Ok((Variables::new(), vec![unusable(path, &error.to_string())])),
    };
    Ok(match parse(&text) {
        Ok((variables, mut warnings)) => {
            for warning in &mut warnings {
                *warning = format!("{}: {warning}", path.display());
            }
            (variables, warnings)
        }
        Err(problem) => (Variables::new(), vec![unusable(path, &problem)]),
    })
}

fn unusable(path: &Path, problem: &str) -> String {
    format!(
        "Using only default environment variables as no variables read from environment file.  Is it a valid YAML file?  \
         (Hint: the `yq` command line utility may be helpful.)\n  Environment file: {}\n         Exception: {problem}",
        path.display()
    )
}

/// The variables of a file's text, and what of it was left out.
pub fn parse(text: &str) -> Result<(Variables, Vec<String>), String> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        strict_booleans: true,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
    };
    // A file of comments only is what `configure` writes.
    let typed: Option<BTreeMap<String, Value>> =
        serde_saphyr::from_str_with_options(text, options.clone()).map_err(|error| error.to_string())?;
    // As written, `1.10` keeps its zero.
    let written: Option<Variables> = serde_saphyr::from_str_with_options(text, options).unwrap_or_default();
    let written = written.unwrap_or_default();
    let (mut variables, mut warnings) = (Variables::new(), Vec::new());
    for (name, value) in typed.unwrap_or_default() {
        if name.is_empty() || name.contains(['=', '\0']) {
            warnings.push(format!("{name:?} can't be the name of an environment variable; it is left out"));
            continue;
        }
        match scalar(&value, written.get(&name)) {
            Some(value) if !value.contains('\0') => {
                variables.insert(name, value);
            }
            _ => warnings.push(format!("{name} has no single value; it is left out")),
        }
    }
    Ok((variables, warnings))
}

/// A value as Python's `str` writes it, but for a number with a fraction, which stays as it was written.
fn scalar(value: &Value, written: Option<&String>) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_f64() => {
            Some(written.cloned().unwrap_or_else(|| number.to_string()))
        }
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Null => Some("None".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// The environment of a user endpoint. `PWD` and `CWD` name the directory it starts in.
pub fn compose(file: Variables, origin: &Origin<'_>) -> Variables {
    let account = origin.account;
    let path = format!("/usr/local/bin:/usr/bin:/bin:{}", origin.program_directory.display());
    let home = if origin.has_home { account.home.clone() } else { "/".to_owned() };
    // Not the directory a personal manager runs in.
    let directory = file.get("PWD").or(file.get("CWD")).cloned().unwrap_or(home);

    let mut variables: Variables = origin.inherited.iter().cloned().collect();
    variables.remove("OLDPWD");
    variables.extend(file);
    variables.entry("PATH".to_owned()).or_insert(path);
    variables.insert("HOME".to_owned(), account.home.clone());
    variables.insert("USER".to_owned(), account.name.clone());
    variables.insert("PWD".to_owned(), directory.clone());
    variables.insert("CWD".to_owned(), directory);
    for (name, value) in versions(origin) {
        variables.entry(name.to_owned()).or_insert(value);
    }
    variables
}

/// What 4.x tells wrapper scripts of the submitter: which Python and which SDK.
fn versions(origin: &Origin<'_>) -> Vec<(&'static str, String)> {
    let Some(runtime) = origin.tells_versions_of else { return Vec::new() };
    let of = |path: &str| runtime.pointer(path).and_then(Value::as_str).filter(|text| is_version(text));
    [
        ("GLOBUS_COMPUTE_ENDPOINT_NAME", Some(origin.endpoint_name)),
        ("GC_USER_PYTHON_VERSION", of("/python/version")),
        ("GC_USER_SDK_VERSION", of("/globus_compute_sdk_version")),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?.to_owned())))
    .collect()
}

/// Submitters choose these texts, and scripts that use them may not quote.
fn is_version(text: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || ".+-_".contains(character);
    !text.is_empty() && text.len() <= 64 && text.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account() -> Account {
        Account {
            name: "alicia".into(),
            uid: 4711,
            gid: 4711,
            groups: vec![],
            gecos: String::new(),
            shell: "/bin/sh".into(),
            home: "/home/alicia".into(),
        }
    }

    fn origin(account: &Account) -> Origin<'_> {
        Origin {
            inherited: &[],
            account,
            has_home: true,
            program_directory: Path::new("/opt/farcall/bin"),
            endpoint_name: "uep.a.b",
            tells_versions_of: None,
        }
    }

    fn lines(variables: &Variables) -> String {
        variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    #[test]
    fn values_are_what_upstream_makes_of_them() {
        let cases = [
            ("A: --additional_flag_for_frobnicator", "--additional_flag_for_frobnicator"),
            ("A: 5", "5"),
            ("A: '5'", "5"),
            ("A: 1.10", "1.10"),
            ("A: true", "True"),
            ("A: \"true\"", "true"),
            ("A: 0755", "493"),
            ("A: a site specific value", "a site specific value"),
            ("A:", "None"),
            ("A: 1\nA: 2", "2"),
            ("A: 10:30:00", "10:30:00"),
            ("A: |\n  two\n  lines\n", "two\nlines\n"),
        ];
        for (text, expected) in cases {
            let (variables, warnings) = parse(text).unwrap();
            assert_eq!(variables["A"], expected, "{text}");
            assert!(warnings.is_empty(), "{text}");
        }
        assert_eq!(parse("# comments only\n").unwrap(), Default::default());
        assert_eq!(parse("").unwrap(), Default::default());
    }

    #[test]
    fn what_is_no_variable_is_left_out_with_a_warning() {
        let (variables, warnings) =
            parse("A: [1]\nB: {x: 1}\n'C=D': x\n'': x\nE: x\nF: \"a\\0b\"\n").unwrap();
        assert_eq!(variables.keys().collect::<Vec<_>>(), ["E"]);
        assert_eq!(warnings.len(), 5, "{warnings:?}");
    }

    #[test]
    fn a_file_that_cannot_be_used_gives_a_warning_and_the_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("user_environment.yaml");
        assert_eq!(read(&path), Ok((Variables::new(), Vec::new())));
        for broken in ["A: [", "- a list", "just text", "A: *nothing"] {
            std::fs::write(&path, broken).unwrap();
            let (variables, warnings) = read(&path).unwrap();
            assert!(variables.is_empty(), "{broken}");
            assert!(warnings[0].starts_with("Using only default environment variables"), "{warnings:?}");
            assert!(warnings[0].contains(path.to_str().unwrap()), "{warnings:?}");
        }
        assert_eq!(read(directory.path()).unwrap().1.len(), 1);
        if nix::unistd::Uid::effective().is_root() {
            // A link that somebody else made, who may write here.
            let link = directory.path().join("link");
            std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
            std::os::unix::fs::lchown(&link, Some(54_321), None).unwrap();
            let error = read(&link).unwrap_err();
            assert!(error.text.contains("is not followed as root"), "{error}");
        }
    }

    #[test]
    fn nothing_but_the_defaults_without_a_file() {
        let account = account();
        insta::assert_snapshot!(lines(&compose(Variables::new(), &origin(&account))), @r"
        CWD=/home/alicia
        HOME=/home/alicia
        PATH=/usr/local/bin:/usr/bin:/bin:/opt/farcall/bin
        PWD=/home/alicia
        USER=alicia
        ");
        let homeless = Origin { has_home: false, ..origin(&account) };
        assert_eq!(compose(Variables::new(), &homeless)["PWD"], "/");
    }

    #[test]
    fn the_file_overrides_the_path_and_the_directory_but_not_the_account() {
        let account = account();
        let (file, _) = parse("PATH: /site/bin\nPWD: /scratch\nHOME: /x\nUSER: root\nNUM: 5").unwrap();
        insta::assert_snapshot!(lines(&compose(file, &origin(&account))), @r"
        CWD=/scratch
        HOME=/home/alicia
        NUM=5
        PATH=/site/bin
        PWD=/scratch
        USER=alicia
        ");
    }

    #[test]
    fn a_personal_managers_environment_is_inherited() {
        let account = account();
        let inherited = ["PATH=/own/bin", "PWD=/elsewhere", "EDITOR=vi", "NUM=1"]
            .map(|line| line.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (file, _) = parse("NUM: 5").unwrap();
        let variables = compose(file, &Origin { inherited: &inherited, ..origin(&account) });
        insta::assert_snapshot!(lines(&variables), @r"
        CWD=/home/alicia
        EDITOR=vi
        HOME=/home/alicia
        NUM=5
        PATH=/own/bin
        PWD=/home/alicia
        USER=alicia
        ");
    }

    #[test]
    fn scripts_learn_the_versions_of_the_submitter() {
        let account = account();
        let runtime = json!({"globus_compute_sdk_version": "4.19.0", "python": {"version": "3.12.1"}});
        let told = Origin { tells_versions_of: Some(&runtime), ..origin(&account) };
        let variables = compose(Variables::new(), &told);
        assert_eq!(variables["GC_USER_SDK_VERSION"], "4.19.0");
        assert_eq!(variables["GC_USER_PYTHON_VERSION"], "3.12.1");
        assert_eq!(variables["GLOBUS_COMPUTE_ENDPOINT_NAME"], "uep.a.b");
        let (file, _) = parse("GC_USER_SDK_VERSION: 3.8.0").unwrap();
        assert_eq!(compose(file, &told)["GC_USER_SDK_VERSION"], "3.8.0");

        let hostile = json!({"globus_compute_sdk_version": "4; rm -rf ~", "python": {"version": ["x"]}});
        let variables =
            compose(Variables::new(), &Origin { tells_versions_of: Some(&hostile), ..origin(&account) });
        assert!(
            !variables.contains_key("GC_USER_SDK_VERSION")
                && !variables.contains_key("GC_USER_PYTHON_VERSION")
        );
    }

    proptest::proptest! {
        /// Root reads the file: whatever is in it, variables are sound.
        #[test]
        fn any_file_is_read_or_refused(text in "([A-Z=:\\[\\]{}&*!|>'\"#%@`, \n\t0-9.-]|\\PC){0,80}") {
            if let Ok((variables, _)) = parse(&text) {
                for (name, value) in variables {
                    assert!(!name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
                }
            }
        }
    }
}
