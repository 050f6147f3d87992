//! Tests of the command line at a terminal, for every subcommand.

use std::io::PipeReader;
use std::process::{Command, Output, Stdio};

use crate::support::{Farcall, binary};

/// Every subcommand that ends by itself, with what it must be told besides a data directory. `serve` and `up` go on.
const COMMANDS: &[&[&str]] = &[
    &["config", "check"],
    &["config", "print"],
    &["env"],
    &["doctor"],
    &["backup", "TO"],
    &["restore", "FROM"],
    &["store", "copy", "--to", "sqlite"],
    &["user", "add", "alice@example.org", "--no-password"],
    &["user", "list"],
    &["user", "show", "alice@example.org"],
    &["user", "edit", "alice@example.org", "--name", "A"],
    &["user", "enable", "alice@example.org"],
    &["user", "disable", "alice@example.org"],
    &["user", "reset", "alice@example.org"],
    &["user", "link", "alice@example.org", "alice@example.org"],
    &["user", "unlink", "alice@example.org"],
    &["user", "remove", "alice@example.org"],
    &["client", "add", "c"],
    &["client", "list"],
    &["client", "show", "c"],
    &["client", "enable", "c"],
    &["client", "disable", "c"],
    &["client", "reset", "c"],
    &["client", "remove", "c"],
    &["group", "add", "g"],
    &["group", "list"],
    &["group", "members", "g"],
    &["group", "remove", "g"],
    &["endpoint", "list"],
    &["endpoint", "show", NOBODYS],
    &["endpoint", "lock", NOBODYS],
    &["endpoint", "unlock", NOBODYS],
    &["endpoint", "drop", NOBODYS],
    &["endpoint", "delete", NOBODYS],
    &["key", "list"],
    &["key", "rotate"],
    // Such a service has no TLS to connect to.
    &["connect", "http://localhost:1"],
    &["completion", "bash"],
];
const NOBODYS: &str = "00000000-0000-4000-8000-000000000000";
/// Those without a data directory.
const ELSEWHERE: [&str; 2] = ["connect", "completion"];

/// The subcommands that the program itself lists, as words.
fn known(of: &[String]) -> Vec<Vec<String>> {
    let help = Command::new(binary()).args(of).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let names =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let below = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let below: Vec<Vec<String>> = below.flat_map(|name| known(&[of, &[name.to_owned()]].concat())).collect();
    if below.is_empty() { vec![of.to_vec()] } else { below }
}

#[test]
fn the_table_has_every_command() {
    let known = known(&[]);
    assert!(known.len() > 20, "{known:?}");
    for words in &known {
        let named = ["serve", "up"].contains(&words[0].as_str())
            || COMMANDS.iter().any(|command| command.iter().zip(words).all(|(one, other)| one == other));
        assert!(named, "{words:?} is not in the table");
    }
}

/// No command but `serve`, `up` and `restore` makes a data directory: the others say where they looked, and how to name
/// another.
#[test]
fn a_directory_that_is_not_there_is_not_made() {
    let outside = tempfile::tempdir().unwrap();
    let data = outside.path().join("mistyped");
    for arguments in
        COMMANDS.iter().filter(|command| command[0] != "restore" && !ELSEWHERE.contains(&command[0]))
    {
        let mut command = Command::new(binary());
        command.args(*arguments).arg("--data-dir").arg(&data).current_dir(&outside);
        let done = command.stdin(Stdio::null()).output().unwrap();
        let said = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert_eq!(done.status.code(), Some(1), "{arguments:?}: {said}");
        let expected =
            format!("{} is not the data directory of a service: it does not exist", data.display());
        assert!(said.contains(&expected), "{arguments:?}: {said}");
        assert!(said.contains("--data-dir DIR or in FARCALL_DATA_DIR"), "{arguments:?}: {said}");
        assert!(std::fs::read_dir(&outside).unwrap().next().is_none(), "{arguments:?} has made something");
    }
}

/// What `arguments` end with when nobody reads standard output, standard error, or either.
fn unread(service: &Farcall, arguments: &[String], out: bool, err: bool) -> Output {
    let closed = || -> Stdio {
        let (reader, writer): (PipeReader, _) = std::io::pipe().unwrap();
        drop(reader);
        writer.into()
    };
    let mut command = service.program();
    command.args(arguments).stdin(Stdio::null());
    command.stdout(if out { closed() } else { Stdio::piped() });
    command.stderr(if err { closed() } else { Stdio::piped() });
    command.spawn().unwrap().wait_with_output().unwrap()
}

/// `farcall … | head -1`: whoever reads may go before the end.
#[test]
fn output_into_a_closed_pipe() {
    let service = Farcall::start();
    let data = service.data().display().to_string();
    let mut commands: Vec<Vec<String>> =
        [&["--help"][..], &["--version"], &["user", "--help"], &["nonsense"]]
            .map(|words| words.iter().map(|word| (*word).to_owned()).collect())
            .to_vec();
    for (number, words) in COMMANDS.iter().enumerate() {
        let word = |word: &&str| match *word {
            "TO" => service.file(&format!("backup-{number}")).display().to_string(),
            "FROM" => service.file("no backup").display().to_string(),
            word => word.to_owned(),
        };
        let mut words: Vec<String> = words.iter().map(word).collect();
        if !ELSEWHERE.contains(&words[0].as_str()) {
            words.extend(["--data-dir".to_owned(), data.clone()]);
        }
        commands.push(words);
    }
    for words in commands {
        for (out, err) in [(true, false), (false, true), (true, true)] {
            let done = unread(&service, &words, out, err);
            let said = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
            assert!(
                matches!(done.status.code(), Some(0..=2)),
                "{words:?} {out} {err}: {} {said}",
                done.status
            );
            assert!(!said.contains("panicked"), "{words:?} {out} {err}: {said}");
        }
    }
}

/// A secret that could not be written is not a success.
#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let service = Farcall::start();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = service.program();
    command.args(["client", "add", "c", "--data-dir"]).arg(service.data()).stdout(full);
    let done = command.output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!((done.status.code(), said.contains("cannot write the answer: ")), (Some(1), true), "{said}");
}

#[test]
fn the_version() {
    let done = Command::new(binary()).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), format!("farcall {}\n", env!("CARGO_PKG_VERSION")));
}
